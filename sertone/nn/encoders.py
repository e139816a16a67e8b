"""The table of encoders. To add one: its class and configuration, and a line here."""

from typing import Annotated

from pydantic import Field

from sertone.nn.compact import CompactEncoderConfig
from sertone.nn.huggingface import ArchitectureConfig, PretrainedEncoderConfig, TinyEncoderConfig
from sertone.nn.saved import SavedEncoderConfig

EncoderConfig = Annotated[
    CompactEncoderConfig
    | TinyEncoderConfig
    | PretrainedEncoderConfig
    | SavedEncoderConfig
    | ArchitectureConfig,
    Field(discriminator="name"),
]

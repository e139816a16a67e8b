"""The table of encoders. To add one: its class and configuration, and a line here."""

from typing import Annotated

from pydantic import Field

from sertone.nn.compact import CompactEncoderConfig
from sertone.nn.functionals import FunctionalsEncoderConfig
from sertone.nn.huggingface import ArchitectureConfig, PretrainedEncoderConfig, TinyEncoderConfig
from sertone.nn.saved import SavedEncoderConfig

EncoderConfig = Annotated[
    CompactEncoderConfig
    | FunctionalsEncoderConfig
    | TinyEncoderConfig
    | PretrainedEncoderConfig
    | SavedEncoderConfig
    | ArchitectureConfig,
    Field(discriminator="name"),
]

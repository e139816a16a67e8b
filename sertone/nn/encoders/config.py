"""The table of encoders. To add one: its class and configuration, and a line here."""

from typing import Annotated

from pydantic import Field

from sertone.nn.encoders.compact import CompactEncoderConfig
from sertone.nn.encoders.functionals import FunctionalsEncoderConfig
from sertone.nn.encoders.huggingface import ArchitectureConfig, PretrainedEncoderConfig, TinyEncoderConfig
from sertone.nn.encoders.saved import SavedEncoderConfig

EncoderConfig = Annotated[
    CompactEncoderConfig
    | FunctionalsEncoderConfig
    | TinyEncoderConfig
    | PretrainedEncoderConfig
    | SavedEncoderConfig
    | ArchitectureConfig,
    Field(discriminator="name"),
]

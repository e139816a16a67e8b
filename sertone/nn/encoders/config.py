"""The table of encoders: the folder is the list.

To add an encoder, add a file with its class and an `EncoderSettings` that builds it. Nothing else changes: a
recipe names it by the `name` of its settings.
"""

import functools
import importlib
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Union

from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema

from sertone.nn.encoders.base import EncoderSettings


@functools.cache
def list_kinds() -> tuple[type[EncoderSettings], ...]:
    """Return the settings of all encoders, in the order of the files and of the classes in them."""
    kinds = []
    for file in sorted(pkgutil.iter_modules([str(Path(__file__).parent)]), key=lambda file: file.name):
        module = importlib.import_module(f"sertone.nn.encoders.{file.name}")
        kinds += [kind for kind in vars(module).values() if _is_defined_in(kind, module.__name__)]
    return tuple(kinds)


def _is_defined_in(kind: Any, module: str) -> bool:
    """Return whether something is the settings of an encoder, and written in this file, not imported."""
    if not isinstance(kind, type) or kind is EncoderSettings:
        return False
    # A class that another file only imports would be listed twice.
    return issubclass(kind, EncoderSettings) and kind.__module__ == module


def union_by_name(kinds: Sequence[type[EncoderSettings]]) -> Any:
    """Return the type of settings of any of these kinds, chosen by their `name`, for pydantic."""
    return Annotated[Union[tuple(kinds)], Field(discriminator="name")]  # noqa: UP007


class _AnyEncoder:
    """A field that takes the settings of any encoder."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler.generate_schema(union_by_name(list_kinds()))


EncoderConfig = Annotated[EncoderSettings, _AnyEncoder()]
"""The settings of any encoder, as a field of a recipe."""

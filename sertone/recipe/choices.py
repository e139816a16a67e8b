"""Choices of a recipe that are the names in a table, such as the table of poolings."""

from collections.abc import Iterable
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema


class OneOf:
    """A name in a table, checked as a `Literal` of all its names would be.

    `Annotated[str, OneOf(POOLINGS)]` has the error message and the JSON schema of
    `Literal["mean", "statistics", "attentive"]`, so that editors complete the names; a new pooling is a new
    line in its table alone.

    Args:
        table: the names, in the order of messages and schema.
    """

    def __init__(self, table: Iterable[str]) -> None:
        self._names = list(table)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.literal_schema(self._names)

"""YAML files of settings, checked: an unknown key is an error that says what may be meant."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from sertone.catalogue import Kind, find_file, require_kind
from sertone.errors import SertoneError, join_parts
from sertone.files import parse_yaml, read_text
from sertone.utils.suggestions import did_you_mean, explain_name

LARGEST = 1_000_000
"""No whole number of a recipe is larger, but for seeds: it would be a slip that never ends."""
MAX_LAYERS = 1000
"""No model has more layers."""
MAX_SEED = 2**32 - 1
"""The largest that every library takes."""
FILE = 1 << 20
"""Bytes of a recipe."""


class Settings(BaseModel):
    """Base of every part of a recipe: immutable, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _know_every_key(cls, values: Any) -> Any:
        for key in values if isinstance(values, dict) else ():
            if key not in cls.model_fields:
                raise PydanticCustomError(
                    "unknown_key",
                    "unknown key {key}",
                    {"key": str(key), "known": list(cls.model_fields)},
                )
        return values

    @field_validator("*")
    @classmethod
    def _of_sensible_size(cls, value: Any, info: ValidationInfo) -> Any:
        numbers = [n for n in (value if isinstance(value, list | tuple) else [value]) if isinstance(n, int)]
        if info.field_name not in ("seed", "seeds") and max(map(abs, numbers), default=0) > LARGEST:
            raise ValueError(f"expected at most {LARGEST}")
        return value


Checked = TypeVar("Checked", bound=Settings)


def parse(kind: type[Checked], values: Any, where: str, code: str = "bad_recipe") -> Checked:
    """Checks values against a part of a recipe.

    Raises:
        SertoneError: `code`, naming the key, what it holds and what it should hold.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = []
        for item in error.errors():
            key = ".".join(str(step) for step in item["loc"])
            found = "" if isinstance(item["input"], dict) else f" (found {_short(item['input'])})"
            lines.append(f"{key}: " * bool(key) + _message(kind, item) + found)
        raise SertoneError(code, f"{where}: " + "; ".join(lines)) from None


def _message(kind: type[Settings], item: Any) -> str:
    """Return what is wrong with one value; of an unknown name what may be meant."""
    if item["type"] == "unknown_key":
        return _unknown_key(kind, item["ctx"]["key"], item["ctx"]["known"])
    if item["type"] == "union_tag_invalid":
        return _unknown_name(item["ctx"]["tag"], item["ctx"]["expected_tags"])
    if item["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", item["ctx"]["expected"])
        return join_parts(item["msg"], did_you_mean(item["input"], choices))
    return item["msg"].removeprefix("Value error, ")


def _unknown_key(kind: type[Settings], key: str, known: list[str]) -> str:
    if hint := _find_section(kind, key) or explain_name(key):
        return f"unknown key {key!r}; {hint}"
    return join_parts(f"unknown key {key!r}", did_you_mean(key, known), f"known here: {', '.join(known)}")


def _unknown_name(name: str, expected: str) -> str:
    """Say what the name of a section may mean, such as that of an encoder."""
    hint = explain_name(name) or did_you_mean(name, re.findall(r"\w+", expected))
    return join_parts(f"unknown name {name!r}", hint, f"expected one of {expected}")


def _find_section(kind: type[Settings], key: str) -> str:
    """Name the section that has this key."""
    sections = {name: field.annotation for name, field in kind.model_fields.items()}
    for name, section in sections.items():
        if isinstance(section, type) and issubclass(section, Settings) and key in section.model_fields:
            return f"it is a key of `{name}`: {name}.{key}"
    return ""


def _short(value: Any) -> str:
    """Return a value as YAML has it, or its beginning."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write numbers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 200 else f"{text[:197]}..."


def read_yaml(source: str | Path, kind: Kind, parts: str) -> dict[str, Any]:
    """Return the mapping that a YAML file holds.

    Args:
        source: path of the file, or the name of one that comes with Sertone.
        kind: of file.
        parts: the keys expected.

    Raises:
        SertoneError: `missing_recipe` and `bad_recipe`, or the same of a study; `other_kind`.
    """
    path = find_file(source, kind)
    code = "bad_study" if kind == "study" else "bad_recipe"
    try:
        values = parse_yaml(read_text(path, code, FILE))
    except ValueError as error:
        raise SertoneError(code, f"{path}: {error}", "YAML") from None
    if not isinstance(values, dict):
        raise SertoneError(code, f"{path} holds no keys", parts)
    require_kind(values, kind, source)
    return values


def parse_override(override: str) -> tuple[str, Any]:
    """Name and value of a setting such as `train.seed=1`.

    Raises:
        SertoneError: `bad_override`.
    """
    name, found, text = override.partition("=")
    if not found:
        raise SertoneError("bad_override", f"--set {override}", "KEY=VALUE, as in train.seed=1")
    try:
        return name, parse_yaml(text)
    except ValueError:
        raise SertoneError("bad_override", f"--set {override}", "a YAML value, as in [1, 2]") from None


def apply_override(values: dict, name: str, value: Any) -> None:
    """Sets `train.seed`, say, in what a recipe file holds.

    Raises:
        SertoneError: `bad_override`.
    """
    *parents, last = name.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise SertoneError("bad_override", f"{name}: {parent} holds no keys", "a section")
    values[last] = value


def load_as(
    checked: type[Checked], source: str | Path, kind: Kind, parts: str, overrides: Iterable[str] = ()
) -> Checked:
    """Read a recipe.

    Args:
        checked: class of the recipe.
        source: path of the YAML file, or the name of a recipe that comes with Sertone.
        kind: of file.
        parts: the keys expected.
        overrides: settings such as `train.seed=1`, applied in order.

    Raises:
        SertoneError: `missing_recipe`, `bad_recipe`, `bad_override`, `other_kind`.
    """
    values = read_yaml(source, kind, parts)
    for override in overrides:
        apply_override(values, *parse_override(override))
    return parse(checked, values, str(source))

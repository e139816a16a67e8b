"""Settings in YAML files, checked on loading: an unknown key is an error that names the nearest known one."""

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

MAX_INTEGER = 1_000_000
"""The largest whole number in a recipe, seeds excepted. A larger one is a typing error."""
MAX_LAYERS = 1000
"""The largest number of layers of a model."""
MAX_SEED = 2**32 - 1  # NumPy's older generators take no larger seed
"""The largest seed that every library accepts."""
MAX_FILE_BYTES = 1 << 20
"""The largest file of a recipe or study, in bytes."""


class Settings(BaseModel):
    """Base class of every part of a recipe: immutable, and without unknown keys."""

    # YAML can hold infinity and NaN, which no setting means. Attribute docstrings become the schema's texts.
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: Any) -> Any:
        for key in values if isinstance(values, dict) else ():
            if key not in cls.model_fields:
                # A custom error carries the known keys, from which `parse` builds the hint.
                raise PydanticCustomError(
                    "unknown_key",
                    "unknown key {key}",
                    {"key": str(key), "known": list(cls.model_fields)},
                )
        return values

    @field_validator("*")
    @classmethod
    def _refuse_huge_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        numbers = [n for n in (value if isinstance(value, list | tuple) else [value]) if isinstance(n, int)]
        if info.field_name not in ("seed", "seeds") and max(map(abs, numbers), default=0) > MAX_INTEGER:
            raise ValueError(f"expected at most {MAX_INTEGER}")
        return value


SettingsT = TypeVar("SettingsT", bound=Settings)


def parse(kind: type[SettingsT], values: Any, source: str, code: str = "bad_recipe") -> SettingsT:
    """Check values against a part of a recipe, and return that part.

    Args:
        kind: class of the part.
        values: as a YAML file holds them.
        source: source of the values, for the error.
        code: code of the error.

    Raises:
        SertoneError: `code`; it names the key, its value and what is expected.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = []  # one for every wrong value, so that all can be corrected at once
        for item in error.errors():
            key = ".".join(str(step) for step in item["loc"])
            line = _describe_error(kind, item)
            if key:
                line = f"{key}: {line}"
            if not isinstance(item["input"], dict):  # a whole section would hide what is wrong with it
                line += f" (found {_shorten(item['input'])})"
            lines.append(line)
        raise SertoneError(code, f"{source}: " + "; ".join(lines)) from None


def _describe_error(kind: type[Settings], item: Any) -> str:
    """Return what is wrong with one value; for an unknown name with a suggestion."""
    if item["type"] == "unknown_key":
        return _describe_unknown_key(kind, item["ctx"]["key"], item["ctx"]["known"])
    if item["type"] == "union_tag_invalid":
        return _describe_unknown_name(item["ctx"]["tag"], item["ctx"]["expected_tags"])
    if item["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", item["ctx"]["expected"])
        return join_parts(item["msg"], did_you_mean(item["input"], choices))
    return item["msg"].removeprefix("Value error, ")  # pydantic's prefix for errors of our validators


def _describe_unknown_key(kind: type[Settings], key: str, known_keys: list[str]) -> str:
    if hint := _find_section(kind, key) or explain_name(key):
        return f"unknown key {key!r}; {hint}"
    listed = f"known here: {', '.join(known_keys)}"
    return join_parts(f"unknown key {key!r}", did_you_mean(key, known_keys), listed)


def _describe_unknown_name(name: str, expected: str) -> str:
    """Return a suggestion for the name of a section, such as that of an encoder."""
    hint = explain_name(name) or did_you_mean(name, re.findall(r"\w+", expected))
    return join_parts(f"unknown name {name!r}", hint, f"expected one of {expected}")


def _find_section(kind: type[Settings], key: str) -> str:
    """Return a hint that names the section with this key; empty where none has it."""
    sections = {name: field.annotation for name, field in kind.model_fields.items()}
    for name, section in sections.items():
        if isinstance(section, type) and issubclass(section, Settings) and key in section.model_fields:
            return f"it is a key of `{name}`: {name}.{key}"
    return ""


def _shorten(value: Any) -> str:
    """Return a value as YAML writes it, or its beginning."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write numbers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 200 else f"{text[:197]}..."


def load_yaml(source: str | Path, kind: Kind, parts: str) -> dict[str, Any]:
    """Return the mapping that a YAML file holds.

    Args:
        source: path of the file, or the name of one that comes with Sertone.
        kind: kind of file.
        parts: the keys expected, for the error.

    Raises:
        SertoneError: `missing_recipe` and `bad_recipe`, or for a study `missing_study` and `bad_study`;
            `other_kind`.
    """
    path = find_file(source, kind)
    code = "bad_study" if kind == "study" else "bad_recipe"
    try:
        values = parse_yaml(read_text(path, code, MAX_FILE_BYTES))
    except ValueError as error:
        raise SertoneError(code, f"{path}: {error}", "YAML") from None
    if not isinstance(values, dict):
        raise SertoneError(code, f"{path} holds no keys", parts)
    require_kind(values, kind, source)
    return values


def parse_override(override: str) -> tuple[str, Any]:
    """Return name and value of a setting such as `train.seed=1`.

    Raises:
        SertoneError: `bad_override`.
    """
    name, separator, text = override.partition("=")
    if not separator:
        raise SertoneError("bad_override", f"--set {override}", "KEY=VALUE, as in train.seed=1")
    try:
        return name, parse_yaml(text)
    except ValueError:
        raise SertoneError("bad_override", f"--set {override}", "a YAML value, as in [1, 2]") from None


def apply_override(values: dict, name: str, value: Any) -> None:
    """Set a value by its dotted name, such as `train.seed`, in the mapping of a recipe file.

    Raises:
        SertoneError: `bad_override`.
    """
    *parents, last = name.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})  # the file may leave out a section, for its defaults
        if not isinstance(values, dict):
            raise SertoneError("bad_override", f"{name}: {parent} holds no keys", "a section")
    values[last] = value


def load_as(
    recipe_class: type[SettingsT], source: str | Path, kind: Kind, parts: str, overrides: Iterable[str] = ()
) -> SettingsT:
    """Read a recipe.

    Args:
        recipe_class: class of the recipe.
        source: path of the YAML file, or the name of a recipe that comes with Sertone.
        kind: kind of file.
        parts: the keys expected, for the error.
        overrides: settings such as `train.seed=1`, applied in order.

    Raises:
        SertoneError: `missing_recipe`, `bad_recipe`, `bad_override`, `other_kind`.
    """
    values = load_yaml(source, kind, parts)
    for override in overrides:
        apply_override(values, *parse_override(override))
    return parse(recipe_class, values, str(source))

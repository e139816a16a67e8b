"""Mappings between names, given on the command line or in a YAML file."""

from pathlib import Path
from typing import Any

from sertone.errors import SertoneError
from sertone.files import parse_yaml, read_text


def parse_map(text: str, what: str) -> dict[str, str]:
    """Parse a mapping such as `happy=positive,excited=positive,sad`, or load one from a YAML file.

    A name without `=` maps to itself. Names that do not occur are left out.

    Args:
        text: the pairs, or the name of a YAML file.
        what: the kind of names, for errors.

    Raises:
        SertoneError: `bad_map`.
    """
    if text.endswith((".yaml", ".yml")):
        mapping = _load_map(Path(text))
    else:
        pairs = [part.partition("=") for part in text.split(",")]
        mapping = {old.strip(): (new or old).strip() for old, _, new in pairs}
        if len(mapping) < len(pairs):
            raise SertoneError("bad_map", f"{what} {text!r}", "every name once")
    if not isinstance(mapping, dict) or not all(
        isinstance(name, str) and name for pair in mapping.items() for name in pair
    ):
        raise SertoneError(
            "bad_map", f"{what} {text!r}", "OLD=NEW,OLD=NEW or a YAML file with a mapping of names"
        )
    return mapping


def _load_map(path: Path) -> Any:
    try:
        return parse_yaml(read_text(path, "bad_map"))
    except ValueError as error:
        raise SertoneError("bad_map", f"{path}: {error}", "a YAML file with a mapping of names") from None

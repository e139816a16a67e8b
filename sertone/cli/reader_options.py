"""Options of the commands that read a corpus from its folder or table, without a recipe."""

from dataclasses import dataclass
from typing import Any

from cyclopts import Parameter

from sertone.labels import CLASS_MAPS, parse_map


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ReaderOptions:
    """How tables and folders of your own are read; `data.columns` and `data.speaker_pattern` of a recipe.

    Attributes:
        columns: of a table, which column is which, where its name is not recognised:
            `path=clip,emotion=feeling`. Or a YAML file with a mapping.
        speaker_pattern: of an `audiofolder`, a regular expression that finds the speaker in a path.
    """

    columns: str | None = None
    speaker_pattern: str | None = None

    def to_keywords(self) -> dict[str, Any]:
        """Return what was given, as `corpora.read_utterances` takes it."""
        columns = parse_map(self.columns, "--columns") if self.columns else None
        chosen = {"columns": columns, "speaker_pattern": self.speaker_pattern}
        return {name: value for name, value in chosen.items() if value}


NO_READER_OPTIONS = ReaderOptions()


def parse_classes(text: str) -> str | dict[str, str]:
    """Return the class map that an option names or spells out."""
    return text if text in CLASS_MAPS else parse_map(text, "--classes")

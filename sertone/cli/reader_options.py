"""Options of the commands that read a corpus from its folder or table, without a recipe."""

from dataclasses import dataclass
from typing import Any

from cyclopts import Parameter

from sertone.files import parse_map
from sertone.labels import CLASS_MAPS


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ReaderOptions:
    """Options for tables and folders of your own, as `data.columns` and `data.speaker_pattern` of a recipe.

    Attributes:
        columns: For a table: the meaning of columns whose names are not recognised, as in
            `path=clip,emotion=feeling`. Or a YAML file with a mapping.
        speaker_pattern: For an `audiofolder`: a regular expression that finds the speaker in a path.
    """

    columns: str | None = None
    speaker_pattern: str | None = None

    def to_keywords(self) -> dict[str, Any]:
        """Return the options that are set, as `corpora.load_utterances` takes them."""
        columns = parse_map(self.columns, "--columns") if self.columns else None
        options = {"columns": columns, "speaker_pattern": self.speaker_pattern}
        return {name: value for name, value in options.items() if value}


NO_READER_OPTIONS = ReaderOptions()


def parse_classes(text: str) -> str | dict[str, str]:
    """Return the class map that an option names or lists."""
    return text if text in CLASS_MAPS else parse_map(text, "--classes")

"""Where the text of utterances comes from: the corpus, a manifest's column, speech recognition, nowhere.

A text without a spoken word, such as "[LAUGHTER]", counts as missing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sertone.errors import SertoneError
from sertone.labels import has_words
from sertone.recipe import TextConfig
from sertone.schema import Utterance
from sertone.transcripts.asr_cache import TranscriptCache


@dataclass(frozen=True)
class Transcripts:
    """The texts of a corpus.

    Attributes:
        texts: utterance id -> text, or None where there is none.
        about: where they come from, as JSON.
        failed: code -> ids of utterances whose audio could not be read to be recognised.
    """

    texts: dict[str, str | None]
    about: dict[str, Any]
    failed: dict[str, list[str]] = field(default_factory=dict)

    @property
    def with_text(self) -> int:
        """How many utterances have a text."""
        return sum(text is not None for text in self.texts.values())

    @property
    def without_text(self) -> int:
        """How many have none."""
        return len(self.texts) - self.with_text

    @property
    def card(self) -> dict[str, Any]:
        """What the protocol card records."""
        counts = {"with_text": self.with_text, "without_text": self.without_text}
        return self.about | counts | ({"failed": self.failed} if self.failed else {})

    def attach_to(self, utterances: Iterable[Utterance]) -> list[Utterance]:
        """The utterances with these texts."""
        return [replace(u, text=self.texts[u.id]) for u in utterances]


def load_transcripts(
    config: TextConfig,
    utterances: Sequence[Utterance],
    hashes: Mapping[str, str],
    say: Callable[[str], None],
    language: str = "",
) -> Transcripts:
    """The texts of utterances.

    Args:
        config: where they come from.
        utterances: whose texts.
        hashes: utterance id -> hash of its recording.
        say: told how recognition is getting on.
        language: of the corpus, ISO 639-1; empty where its data sheet does not know.

    Raises:
        SertoneError: `missing_text_column`; of recognition `missing_extra`, `bad_asr_model`,
            `unknown_language`.
    """
    about: dict[str, Any] = {"source": config.source}
    if config.source == "asr":
        recognised = TranscriptCache(config.asr, language)
        found, failed = recognised.transcribe(utterances, hashes, say)
        return Transcripts(_spoken(found), about | recognised.about, failed)
    if config.source == "column":
        column = _column(utterances, str(config.column))
        return Transcripts(_spoken(column), about | {"column": config.column})
    own = {u.id: u.text if config.source == "corpus" else None for u in utterances}
    return Transcripts(_spoken(own), about)


def _spoken(found: Mapping[str, str | None]) -> dict[str, str | None]:
    """None in the place of texts without a spoken word."""
    return {id_: text if has_words(text) else None for id_, text in found.items()}


def _column(utterances: Sequence[Utterance], name: str) -> dict[str, str | None]:
    """What a column says, cell by cell; an empty cell is no label, so it is absent."""
    words = {u.id: {k: v for k, v in u.labels.items() if isinstance(v, str)} for u in utterances}
    columns = sorted({column for cells in words.values() for column in cells} - {"raw_emotion"})
    if name not in columns:
        raise SertoneError(
            "missing_text_column",
            f"data.text.column: no utterance has a text in a column {name!r}",
            f"one of {', '.join(columns)}" if columns else "a manifest with columns of words",
            "the column `text`, also if it is called transcript or transcription, is read with "
            "data.text: corpus",
        )
    return {id_: cells.get(name) for id_, cells in words.items()}

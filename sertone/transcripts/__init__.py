"""Texts of utterances: from the corpus, a column of a manifest, or speech recognition; or no texts.

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
        about: their source, as JSON.
        failed: code -> ids of utterances whose audio could not be read for recognition.
    """

    texts: dict[str, str | None]
    about: dict[str, Any]
    failed: dict[str, list[str]] = field(default_factory=dict)

    @property
    def with_text(self) -> int:
        """Return the number of utterances with a text."""
        return sum(text is not None for text in self.texts.values())

    @property
    def without_text(self) -> int:
        """Return the number of utterances without a text."""
        return len(self.texts) - self.with_text

    @property
    def card(self) -> dict[str, Any]:
        """Return the part `text` of a protocol card."""
        counts = {"with_text": self.with_text, "without_text": self.without_text}
        return self.about | counts | ({"failed": self.failed} if self.failed else {})

    def attach_to(self, utterances: Iterable[Utterance]) -> list[Utterance]:
        """Return the utterances with these texts."""
        return [replace(u, text=self.texts[u.id]) for u in utterances]


def load_transcripts(
    config: TextConfig,
    utterances: Sequence[Utterance],
    hashes: Mapping[str, str],
    say: Callable[[str], None],
    language: str = "",
) -> Transcripts:
    """Load or recognise the texts of utterances.

    Args:
        config: the source of the texts.
        utterances: utterances to find texts for.
        hashes: utterance id -> hash of its recording.
        say: receives lines about the progress of recognition.
        language: language of the corpus, ISO 639-1; empty where its data sheet does not state it.

    Raises:
        SertoneError: `missing_text_column`; of recognition `missing_extra`, `bad_asr_model`,
            `unknown_language`.
    """
    about: dict[str, Any] = {"source": config.source}
    if config.source == "asr":
        cache = TranscriptCache(config.asr, language)
        recognised, failed = cache.transcribe(utterances, hashes, say)
        return Transcripts(_drop_wordless(recognised), about | cache.about, failed)
    if config.source == "column":
        cells = _select_column(utterances, str(config.column))
        return Transcripts(_drop_wordless(cells), about | {"column": config.column})
    texts = {u.id: u.text if config.source == "corpus" else None for u in utterances}
    return Transcripts(_drop_wordless(texts), about)


def _drop_wordless(texts: Mapping[str, str | None]) -> dict[str, str | None]:
    """Replace texts without a spoken word by None."""
    return {id_: text if has_words(text) else None for id_, text in texts.items()}


def _select_column(utterances: Sequence[Utterance], name: str) -> dict[str, str | None]:
    """Return utterance id -> cell of a column; None for an empty cell, which a manifest keeps as no label."""
    cells = {u.id: {k: v for k, v in u.labels.items() if isinstance(v, str)} for u in utterances}
    # `raw_emotion` is the label as the corpus writes it, which is no text of the utterance.
    columns = sorted({column for row in cells.values() for column in row} - {"raw_emotion"})
    if name not in columns:
        raise SertoneError(
            "missing_text_column",
            f"data.text.column: no utterance has a text in a column {name!r}",
            f"one of {', '.join(columns)}" if columns else "a manifest with columns of words",
            "data.text: corpus reads the column `text`, which may also be named transcript or transcription",
        )
    return {id_: row.get(name) for id_, row in cells.items()}

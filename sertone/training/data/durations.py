"""Limit the duration of utterances by `data.max_seconds`: cut, drop or refuse them, before the split."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from sertone import audio
from sertone.errors import AudioError, SertoneError
from sertone.recipe import DataConfig
from sertone.schema import Utterance
from sertone.utils.wording import format_count


def limit_durations(
    utterances: Sequence[Utterance], data: DataConfig, say: Callable[[str], None]
) -> tuple[list[Utterance], dict[str, Any]]:
    """Apply `data.max_seconds` and `data.longer`.

    A cut utterance keeps its first `max_seconds` and loses its transcript, which covers more than they do.

    Args:
        utterances: that would take part.
        data: data of the recipe.
        say: receives a line with the number of longer utterances.

    Returns:
        The utterances, and the entry of the protocol card; the entry is empty without a limit.

    Raises:
        SertoneError: `longer_utterances`.
    """
    limit = data.max_seconds
    if limit is None:
        return list(utterances), {}
    longer = {u.id for u in utterances if duration_s(u) > limit}
    verb = "is" if len(longer) == 1 else "are"
    finding = f"{len(longer)} of {format_count(len(utterances), 'utterance')} {verb} longer than {limit:g} s"
    if longer and data.longer == "error":
        first = next(u for u in utterances if u.id in longer)
        raise SertoneError(
            "longer_utterances",
            f"{finding}, such as {first.id} of {duration_s(first):.0f} s",
            "no longer utterance, because the recipe has data.longer: error",
            "set data.longer to cut or left_out, or raise data.max_seconds",
        )
    if longer:
        say(f"{finding}: {data.longer.replace('_', ' ')}")
    entry = {"seconds": limit, "longer": data.longer, "utterances": len(longer)}
    remaining = [u for u in utterances if data.longer == "cut" or u.id not in longer]
    # The recipe may take texts from a column, which is a label here: `_cut` removes it as well.
    column = data.text.column
    return [_cut(u, limit, column) if u.id in longer else u for u in remaining], {"max_seconds": entry}


def duration_s(utterance: Utterance) -> float:
    """Return the duration in seconds, from the header of the file where the corpus does not state it.

    The duration of an unreadable file is 0, because `Recordings.load` reports it together with all others.
    """
    if utterance.end_s is not None:
        return utterance.end_s - utterance.start_s
    try:
        return audio.inspect(utterance.path).duration_s - utterance.start_s
    except AudioError:
        return 0.0


def _cut(utterance: Utterance, limit: float, column: str | None) -> Utterance:
    """Return the first `limit` seconds, without the text and the label `column`, which holds a text."""
    labels = {name: value for name, value in utterance.labels.items() if name != column}
    return replace(utterance, end_s=utterance.start_s + limit, text=None, labels=labels)

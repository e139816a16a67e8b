"""Utterances longer than `data.max_seconds`: cut, left out or refused, before the corpus is split."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from sertone import audio
from sertone.errors import AudioError, SertoneError
from sertone.recipe import DataConfig
from sertone.schema import Utterance
from sertone.scoring.display import format_count


def limit_durations(
    utterances: Sequence[Utterance], data: DataConfig, say: Callable[[str], None]
) -> tuple[list[Utterance], dict[str, Any]]:
    """Apply `data.max_seconds` and `data.longer`.

    What is cut keeps its first `max_seconds` and loses its transcript, which would say more than is heard.

    Args:
        utterances: that would take part.
        data: of the recipe.
        say: told how many are longer.

    Returns:
        the utterances, and what the protocol card says of it; empty without a limit.

    Raises:
        SertoneError: `longer_utterances`.
    """
    limit = data.max_seconds
    if limit is None:
        return list(utterances), {}
    longer = {u.id for u in utterances if duration_s(u) > limit}
    are = "is" if len(longer) == 1 else "are"
    said = f"{len(longer)} of {format_count(len(utterances), 'utterance')} {are} longer than {limit:g} s"
    if longer and data.longer == "error":
        first = next(u for u in utterances if u.id in longer)
        raise SertoneError(
            "longer_utterances",
            f"{said}, such as {first.id} of {duration_s(first):.0f} s",
            "none, as data.longer: error asks for",
            "set data.longer to cut or left_out, or raise data.max_seconds",
        )
    if longer:
        say(f"{said}: {data.longer.replace('_', ' ')}")
    about = {"seconds": limit, "longer": data.longer, "utterances": len(longer)}
    kept = [u for u in utterances if data.longer == "cut" or u.id not in longer]
    column = data.text.column
    return [_cut(u, limit, column) if u.id in longer else u for u in kept], {"max_seconds": about}


def duration_s(utterance: Utterance) -> float:
    """Return the seconds of an utterance, by the header of its file where the corpus does not say.

    It is 0 for a file that cannot be read: `Recordings.load` names it, with all others.
    """
    if utterance.end_s is not None:
        return utterance.end_s - utterance.start_s
    try:
        return audio.inspect(utterance.path).duration_s - utterance.start_s
    except AudioError:
        return 0.0


def _cut(utterance: Utterance, limit: float, column: str | None) -> Utterance:
    """Return the first `limit` seconds; `column` holds a text, which says more than they do."""
    labels = {name: value for name, value in utterance.labels.items() if name != column}
    return replace(utterance, end_s=utterance.start_s + limit, text=None, labels=labels)

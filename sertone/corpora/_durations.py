"""The part of the corpus check on long utterances."""

from collections.abc import Mapping

from sertone.schema import Problem

LONG_S = 30.0
"""Utterances longer than this are reported."""


def find_long_utterances(seconds: Mapping[str, float]) -> list[Problem]:
    """Return one note on all utterances that may need too much memory in training.

    Args:
        seconds: utterance id -> its length.
    """
    # Self-attention needs memory for every pair of frames, so memory grows with the square of the length.
    longer = {name: length for name, length in seconds.items() if length > LONG_S}
    if not longer:
        return []
    longest = max(longer, key=lambda name: longer[name])
    message = (
        f"{len(longer)} x longer than {LONG_S:g} s, the longest {longer[longest]:.1f} s; memory in training "
        "grows with the square of the length: set data.max_seconds to limit it"
    )
    return [Problem("long_recording", longest, message, "note")]

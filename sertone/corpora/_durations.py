"""What `check` says of long recordings."""

from collections.abc import Mapping

from sertone.schema import Problem

LONG_S = 30.0
"""Longer utterances are reported."""


def find_long_utterances(seconds: Mapping[str, float]) -> list[Problem]:
    """Return one note for all utterances whose length may be a problem of memory in training.

    Args:
        seconds: utterance id -> its length.
    """
    longer = {name: length for name, length in seconds.items() if length > LONG_S}
    if not longer:
        return []
    longest = max(longer, key=lambda name: longer[name])
    message = (
        f"{len(longer)} x longer than {LONG_S:g} s, the longest {longer[longest]:.1f} s; memory in training "
        "grows with the square of the length: data.max_seconds limits it"
    )
    return [Problem("long_recording", longest, message, "note")]

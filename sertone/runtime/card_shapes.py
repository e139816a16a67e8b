"""Shapes of the parts of `bundle.json` that only its model card uses."""

from typing import Any

from sertone.scoring import display
from sertone.utils.json_shape import find_misfits

AUDIT_SHAPE = {
    "corpus": (str, None),
    "utterances": int,
    "speakers": int,
    "ua": (float, None),
    "parts": {str: {str: int}},
    "failed": [str],
}
"""Shape of the summary of an audit, see `sharing.card_audit` and `utils.json_shape`."""


def are_scores(values: Any) -> bool:
    """Return whether values have the shape that `sharing.card_scores` writes; {} where nothing was scored."""
    shape = {"values": {str: float}, "intervals": {str: [float]}, "utterances": int, "speakers": int}
    if find_misfits(values, shape, "scores"):
        return values == {}
    names = [display.parse_score_name(name)[1] for name in [*values["values"], *values["intervals"]]]
    return all(name in display.SCORE_FORMATS for name in names)

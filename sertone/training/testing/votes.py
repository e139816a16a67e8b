"""Annotators' votes beside the answers: columns of predictions.csv, and how the answers agree with them."""

from collections.abc import Sequence

from sertone.labels import class_shares
from sertone.schema import Utterance
from sertone.scoring import metrics

VOTE_PREFIX = "v_"


def make_vote_columns(
    utterance: Utterance, class_map: dict[str, str], classes: Sequence[str]
) -> dict[str, float | str]:
    """Column -> share of the votes for a class; empty cells where the utterance has none."""
    own = class_shares(utterance.votes, class_map)
    return {VOTE_PREFIX + name: round(own.get(name, 0.0), 6) if own else "" for name in classes}


def score_against_votes(rows: Sequence[dict], classes: Sequence[str]) -> dict[str, float] | None:
    """Soft scores over the rows that have votes, with their number; None where none has any."""
    voted = [row for row in rows if row.get(VOTE_PREFIX + classes[0], "") != ""]
    if not voted:
        return None
    votes, probabilities = (
        [[row[mark + c] for c in classes] for row in voted] for mark in (VOTE_PREFIX, "p_")
    )
    return metrics.soft_scores(votes, probabilities) | {"utterances": len(voted)}

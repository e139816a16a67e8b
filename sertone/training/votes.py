"""Annotators' votes beside the answers: columns of predictions.csv, and how the answers agree with them."""

from collections.abc import Sequence

from sertone import metrics
from sertone.labels import class_shares
from sertone.schema import Utterance
from sertone.training.experiment import Experiment

COLUMN = "v_"


def columns(experiment: Experiment, utterances: Sequence[Utterance]) -> list[dict[str, float | str]]:
    """Column -> share of the votes for a class, of each utterance.

    Cells are empty where an utterance has no votes; there are no columns where none of the corpus has any.
    """
    if not any(u.votes for u in experiment.utterances):
        return [{} for _ in utterances]
    shares = [class_shares(u.votes, experiment.class_map) for u in utterances]
    names = experiment.classes
    return [{COLUMN + c: round(own.get(c, 0.0), 6) if own else "" for c in names} for own in shares]


def scores(rows: Sequence[dict], classes: Sequence[str]) -> dict[str, float] | None:
    """Soft scores over the rows that have votes, with their number; None where none has any."""
    voted = [row for row in rows if row.get(COLUMN + classes[0], "") != ""]
    if not voted:
        return None
    votes, probabilities = ([[row[mark + c] for c in classes] for row in voted] for mark in (COLUMN, "p_"))
    return metrics.soft_scores(votes, probabilities) | {"utterances": len(voted)}

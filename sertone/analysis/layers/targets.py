"""Targets of the probes: labels of the utterances, and the folds that train and test.

The folds are those of the recipe, with training and validation sets together. No speaker is tested by a probe
that was trained on the same speaker. A penalty is chosen in the same way: the three inner parts of a training
set share no speaker. Only the target `speaker` cannot be probed so. Its utterances are distributed over five
folds and three parts, speaker by speaker.

Axis letters: N utterances with a label.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sertone import corpora
from sertone.errors import SertoneError
from sertone.labels import DIMENSIONS, class_names
from sertone.schema import Utterance
from sertone.utils.suggestions import did_you_mean

if TYPE_CHECKING:  # the processes that probe do not load torch
    from sertone.training.experiment.experiment import Experiment

TARGETS = (*DIMENSIONS, "emotion", "gender", "speaker", "style")
INNER_PARTS = 3
"""Number of parts of a training set, on which the penalty is chosen."""
SPEAKER_FOLDS = 5
"""Number of folds of the target `speaker`."""
MAX_SPEAKERS = 100
"""With more speakers, `speaker` is probed only on request: the cost grows with the number of classes."""


# Comparing arrays gives an array, so dataclass equality would fail.
@dataclass(frozen=True, eq=False)
class Target:
    """Target of a probe, with its labels and folds.

    Attributes:
        name: one of TARGETS.
        rows: indices of the utterances with a label, (N,).
        labels: ratings or class indices, (N,).
        classes: names of the classes; empty for a rating.
        speakers: (N,).
        test_folds: number of the fold that tests each utterance, -1 where none does, (N,).
        parts: inner part of each utterance in the training set of each fold, -1 in its test set, (folds, N).
    """

    name: str
    rows: np.ndarray
    labels: np.ndarray
    classes: list[str]
    speakers: np.ndarray
    test_folds: np.ndarray
    parts: np.ndarray

    @property
    def score(self) -> str:
        """Main score: `ccc` for ratings, `wa` for speakers, `ua` for other classes."""
        if self.name == "speaker":
            return "wa"
        return "ua" if self.classes else "ccc"

    @property
    def test_speakers(self) -> list[str]:
        """Names of the speakers that a fold tests, sorted."""
        return sorted(set(self.speakers[self.test_folds >= 0].tolist()))

    @property
    def chance(self) -> float:
        """Main score of a constant prediction: any class, and for speakers the most frequent one.

        Classes that no fold tests have no recall and do not count.
        """
        if not self.classes:
            return 0.0
        counts = np.unique(self.labels[self.test_folds >= 0], return_counts=True)[1]
        return float(counts.max() / counts.sum()) if self.score == "wa" else 1 / len(counts)

    @property
    def fold_layout(self) -> bytes:
        """Key that is equal for targets with the same utterances in the same folds."""
        return b"|".join(part.tobytes() for part in (self.rows, self.test_folds, self.parts))

    def compute_fingerprint(self) -> str:
        """Return a hash of everything that the predictions of a probe depend on, except the features."""
        digest = hashlib.sha256(json.dumps([self.name, self.classes, self.speakers.tolist()]).encode())
        digest.update(self.fold_layout + self.labels.tobytes())
        return digest.hexdigest()


def build_targets(
    experiment: "Experiment", utterances: Sequence[Utterance], names: Sequence[str] | None = None
) -> list[Target]:
    """Build the targets for which the corpus has labels.

    Args:
        experiment: its folds and classes are used.
        utterances: utterances with features, in their order.
        names: some of TARGETS; None: all that can be probed.

    Raises:
        SertoneError: `unknown_target`, `no_labels`, `no_scale`, `too_few_speakers`.
    """
    for name in names or ():
        _require_known(experiment, name)
    candidates = [name for name in names or TARGETS if _has_scale(experiment, name)]
    targets = [_build_target(experiment, utterances, name) for name in candidates]
    targets = [target for target in targets if _has_different_labels(target)]
    if names is None:
        targets = [t for t in targets if t.name != "speaker" or len(t.classes) <= MAX_SPEAKERS]
        # Without any divisible target, the first one goes on to the error below that explains why.
        targets = [t for t in targets if not _find_undivided_folds(t)] or targets
    for target in targets:
        _require_divided(target)
    missing = sorted(set(names or ()) - {target.name for target in targets})
    if missing or not targets:
        listed = ", ".join(missing) or "any target"
        raise SertoneError(
            "no_labels",
            f"no utterances with different labels of {listed} in some training set",
            f"labels of some of {', '.join(TARGETS)}",
            "`sertone corpora check` counts labels; --targets selects targets that have them",
        )
    return targets


def _require_known(experiment: "Experiment", name: str) -> None:
    """Refuse the name of a target that does not exist, or a rating without a scale."""
    if name not in TARGETS:
        suggestion = did_you_mean(name, TARGETS)
        raise SertoneError("unknown_target", f"target {name!r}", f"some of {', '.join(TARGETS)}", suggestion)
    if not _has_scale(experiment, name):
        raise SertoneError(
            "no_scale",
            f"{name}, whose scale in {experiment.recipe.data.corpus} is not known",
            "the lowest and highest rating",
            f"set for example data.scales: {{{name}: [1, 5]}}",
        )


def _has_scale(experiment: "Experiment", name: str) -> bool:
    """Return true for a rating with a known scale. Other targets need none."""
    return name not in DIMENSIONS or name in corpora.resolve_scales(experiment.recipe.data)


def _has_different_labels(target: Target) -> bool:
    """Return true where every training set has two labels, and at least one utterance is tested."""
    folds = range(len(target.parts))
    has_labels = all(len(set(target.labels[target.test_folds != fold])) > 1 for fold in folds)
    return has_labels and any(target.test_folds >= 0)


def _find_undivided_folds(target: Target) -> list[int]:
    """Return the numbers of the folds whose training set is a single part."""
    return np.flatnonzero(target.parts.max(1) < 1).tolist()


def _require_divided(target: Target) -> None:
    """Refuse a target whose penalty cannot be chosen on other speakers.

    Raises:
        SertoneError: `too_few_speakers`.
    """
    for fold in _find_undivided_folds(target):
        speakers = sorted(set(target.speakers[target.test_folds != fold].tolist()))[:3]
        raise SertoneError(
            "too_few_speakers",
            f"{target.name}, fold {fold}: one part to train on, with labels of {', '.join(speakers)} alone",
            "at least two speakers, to choose a penalty that holds for others",
            "omit it from --targets, or train on more speakers",
        )


def _build_target(experiment: "Experiment", utterances: Sequence[Utterance], name: str) -> Target:
    test_fold_of = _map_test_folds(experiment)
    # An utterance outside of all folds is neither trained on nor tested.
    labels = [_get_label(experiment, u, name) if u.id in test_fold_of else None for u in utterances]
    rows = np.array([row for row, label in enumerate(labels) if label is not None], int)
    labelled = [utterances[row] for row in rows]
    values: list[Any] = [labels[row] for row in rows]
    speakers = np.array([u.speaker for u in labelled], str)
    if name == "speaker":
        test_folds, parts = _deal_speakers(labelled)
    else:
        test_folds = np.array([test_fold_of[u.id] for u in labelled], int)
        folds = range(len(experiment.folds))
        parts = np.array([_divide_by_speaker(test_folds != fold, speakers) for fold in folds], int)
    if name in DIMENSIONS:
        return Target(name, rows, np.array(values, float), [], speakers, test_folds, parts)
    classes = class_names(experiment.class_map) if name == "emotion" else sorted(set(values))
    indices = np.array([classes.index(value) for value in values], int)
    return Target(name, rows, indices, classes, speakers, test_folds, parts)


def _get_label(experiment: "Experiment", utterance: Utterance, name: str) -> str | float | None:
    """Return the label of an utterance for a target, or None where it has none."""
    if name == "speaker":
        return utterance.speaker if utterance.known_speaker else None
    value = utterance.labels.get(name)
    if name == "emotion":
        return experiment.class_map.get(str(value))
    return value if value is None or name in DIMENSIONS else str(value)


def _map_test_folds(experiment: "Experiment") -> dict[str, int]:
    """Return the mapping from utterance id to the number of the fold that tests it, -1 where none does.

    What a fold does not test is in its training or validation set: `protocol.splits` makes such folds.
    """
    untested = {u.id: -1 for fold in experiment.folds for side in fold.subsets.values() for u in side}
    return untested | {u.id: number for number, fold in enumerate(experiment.folds) for u in fold.test}


def _divide_by_speaker(is_training: np.ndarray, speakers: np.ndarray) -> np.ndarray:
    """Divide a training set into parts by speaker: (N,), -1 outside of the training set."""
    counts = Counter(speakers[is_training].tolist())
    sizes = [0] * min(INNER_PARTS, len(counts))
    part_of = {}
    # Speakers with most utterances first, each to the smallest part: this keeps the parts about equal.
    for speaker, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        part_of[speaker] = sizes.index(min(sizes))
        sizes[part_of[speaker]] += count
    pairs = zip(is_training, speakers.tolist(), strict=True)
    return np.array([part_of[speaker] if trains else -1 for trains, speaker in pairs], int)


def _deal_speakers(utterances: Sequence[Utterance]) -> tuple[np.ndarray, np.ndarray]:
    """Distribute the utterances of every speaker over folds, (N,), and inner parts, (folds, N)."""
    test_folds = np.empty(len(utterances), int)
    for rows in _shuffle_by_speaker(utterances):
        test_folds[rows] = np.arange(len(rows)) % SPEAKER_FOLDS
    parts = np.full((SPEAKER_FOLDS, len(utterances)), -1)
    for fold in range(SPEAKER_FOLDS):
        for rows in _shuffle_by_speaker(utterances):
            training = [row for row in rows if test_folds[row] != fold]
            parts[fold, training] = np.arange(len(training)) % INNER_PARTS
    return test_folds, parts


def _shuffle_by_speaker(utterances: Iterable[Utterance]) -> list[list[int]]:
    """Return the rows of each speaker, shuffled in the same way whatever their order."""
    rows_by_speaker: dict[str, list[tuple[bytes, int]]] = {}
    for row, utterance in enumerate(utterances):
        # Hashes of ids are as good as random, and depend on no seed and no order.
        digest = hashlib.sha256(utterance.id.encode()).digest()
        rows_by_speaker.setdefault(utterance.speaker, []).append((digest, row))
    return [[row for _, row in sorted(pairs)] for _, pairs in sorted(rows_by_speaker.items())]

"""What a probe is to tell of an utterance: the labels, and who trains and who tests.

The folds are those of the recipe, training and validation sides together, so no speaker is tested by a probe
that was trained on the same speaker; nor is a penalty chosen that way, whose three inner parts share no
speaker either. Only of `speaker` itself this cannot be: there every speaker's utterances are dealt over five
folds and three parts.

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

if TYPE_CHECKING:  # the children that probe do without torch
    from sertone.training.experiment.experiment import Experiment

TARGETS = (*DIMENSIONS, "emotion", "gender", "speaker", "style")
PARTS = 3
"""Of a training side, to choose the penalty on."""
SPEAKER_FOLDS = 5
MOST_SPEAKERS = 100
"""More are probed on request only: the cost grows with the number of classes."""


@dataclass(frozen=True, eq=False)
class Target:
    """One question.

    Attributes:
        name: of TARGETS.
        rows: which utterances have a label, (N,).
        labels: ratings or numbers of classes, (N,).
        classes: their names; none of a rating.
        speakers: who spoke, (N,).
        tested: number of the fold that tests each, -1 where none does, (N,).
        parts: for each fold the part of its training side, -1 on its test side, (folds, N).
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
        """The main one: `ccc`, `ua`, or of speakers `wa`."""
        return "wa" if self.name == "speaker" else "ua" if self.classes else "ccc"

    @property
    def test_speakers(self) -> list[str]:
        """Names of those whom some fold tests."""
        return sorted(set(self.speakers[self.test_folds >= 0].tolist()))

    @property
    def chance(self) -> float:
        """What that score is where nothing is told: always the same class, for speakers the most frequent.

        Classes that no fold tests have no recall and do not count.
        """
        if not self.classes:
            return 0.0
        counts = np.unique(self.labels[self.test_folds >= 0], return_counts=True)[1]
        return float(counts.max() / counts.sum()) if self.score == "wa" else 1 / len(counts)

    @property
    def fold_layout(self) -> bytes:
        """The same for targets that have the same utterances in the same folds."""
        return b"|".join(part.tobytes() for part in (self.rows, self.test_folds, self.parts))

    def fingerprint(self) -> str:
        """Hash of all that a probe's answers depend on besides the features."""
        found = hashlib.sha256(json.dumps([self.name, self.classes, self.speakers.tolist()]).encode())
        found.update(self.fold_layout + self.labels.tobytes())
        return found.hexdigest()


def build_targets(
    experiment: "Experiment", utterances: Sequence[Utterance], names: Sequence[str] | None = None
) -> list[Target]:
    """The targets that the corpus has labels for.

    Args:
        experiment: whose folds and classes.
        utterances: that have features, in their order.
        names: some of TARGETS; None: all that can be asked.

    Raises:
        SertoneError: `unknown_target`, `no_labels`, `no_scale`, `too_few_speakers`.
    """
    for name in names or ():
        _require_known(experiment, name)
    found = [_target(experiment, utterances, name) for name in names or TARGETS if _asked(experiment, name)]
    there = [target for target in found if _varies(target)]
    if names is None:
        there = [t for t in there if t.name != "speaker" or len(t.classes) <= MOST_SPEAKERS]
        there = [t for t in there if not _undivided(t)] or there
    for target in there:
        _require_divided(target)
    absent = sorted(set(names or ()) - {target.name for target in there})
    if absent or not there:
        raise SertoneError(
            "no_labels",
            f"no utterances with different labels of {', '.join(absent) or 'anything'} in some training side",
            f"labels of some of {', '.join(TARGETS)}",
            "`sertone corpora check` counts labels; --targets takes those that are there",
        )
    return there


def _require_known(experiment: "Experiment", name: str) -> None:
    if name not in TARGETS:
        known, near = ", ".join(TARGETS), did_you_mean(name, TARGETS)
        raise SertoneError("unknown_target", f"target {name!r}", f"some of {known}", near)
    if not _asked(experiment, name):
        raise SertoneError(
            "no_scale",
            f"{name}, whose scale in {experiment.recipe.data.corpus} is not known",
            "the lowest and highest rating",
            f"set data.scales: {{{name}: [1, 5]}}, say",
        )


def _asked(experiment: "Experiment", name: str) -> bool:
    return name not in DIMENSIONS or name in corpora.resolve_scales(experiment.recipe.data)


def _varies(target: Target) -> bool:
    """Whether every training side has two labels, and some utterance is tested."""
    folds = range(len(target.parts))
    return all(len(set(target.labels[target.test_folds != fold])) > 1 for fold in folds) and any(
        target.test_folds >= 0
    )


def _undivided(target: Target) -> list[int]:
    """Numbers of the folds whose training side is a single part."""
    return np.flatnonzero(target.parts.max(1) < 1).tolist()


def _require_divided(target: Target) -> None:
    for fold in _undivided(target):
        speakers = sorted(set(target.speakers[target.test_folds != fold].tolist()))[:3]
        raise SertoneError(
            "too_few_speakers",
            f"{target.name}, fold {fold}: one part to train on, labels of {', '.join(speakers)} alone",
            "two speakers at least, to choose a penalty that holds for others",
            "leave it out of --targets, or train on more speakers",
        )


def _target(experiment: "Experiment", utterances: Sequence[Utterance], name: str) -> Target:
    tested_by = _tested_by(experiment)
    labels = [_label(experiment, u, name) if u.id in tested_by else None for u in utterances]
    rows = np.array([row for row, label in enumerate(labels) if label is not None], int)
    known = [utterances[row] for row in rows]
    values: list[Any] = [labels[row] for row in rows]
    speakers = np.array([u.speaker for u in known], str)
    if name == "speaker":
        tested, parts = _deal_speakers(known)
    else:
        tested = np.array([tested_by[u.id] for u in known], int)
        parts = np.array(
            [_divide_by_speaker(tested != fold, speakers) for fold in range(len(experiment.folds))], int
        )
    if name in DIMENSIONS:
        return Target(name, rows, np.array(values, float), [], speakers, tested, parts)
    classes = class_names(experiment.class_map) if name == "emotion" else sorted(set(values))
    numbers = np.array([classes.index(value) for value in values], int)
    return Target(name, rows, numbers, classes, speakers, tested, parts)


def _label(experiment: "Experiment", utterance: Utterance, name: str) -> str | float | None:
    if name == "speaker":
        return utterance.speaker if utterance.known_speaker else None
    value = utterance.labels.get(name)
    if name == "emotion":
        return experiment.class_map.get(str(value))
    return value if value is None or name in DIMENSIONS else str(value)


def _tested_by(experiment: "Experiment") -> dict[str, int]:
    """Utterance id -> number of the fold that tests it, -1 for those that only train.

    What a fold does not test trains it: so `protocols` makes folds.
    """
    found = {u.id: -1 for fold in experiment.folds for side in fold.subsets.values() for u in side}
    return found | {u.id: number for number, fold in enumerate(experiment.folds) for u in fold.test}


def _divide_by_speaker(training: np.ndarray, speakers: np.ndarray) -> np.ndarray:
    """Divides a training side by speaker, the most talkative first, each to the part that has least: (N,)."""
    counts = Counter(speakers[training].tolist())
    sizes, part_of = [0] * min(PARTS, len(counts)), {}
    for speaker, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        part_of[speaker] = sizes.index(min(sizes))
        sizes[part_of[speaker]] += count
    pairs = zip(training, speakers.tolist(), strict=True)
    return np.array([part_of[speaker] if trains else -1 for trains, speaker in pairs], int)


def _deal_speakers(utterances: Sequence[Utterance]) -> tuple[np.ndarray, np.ndarray]:
    """Folds (N,) and parts (folds, N), over which every speaker's utterances are dealt."""
    tested = np.empty(len(utterances), int)
    for rows in _by_speaker(utterances):
        tested[rows] = np.arange(len(rows)) % SPEAKER_FOLDS
    parts = np.full((SPEAKER_FOLDS, len(utterances)), -1)
    for fold in range(SPEAKER_FOLDS):
        for rows in _by_speaker(utterances):
            training = [row for row in rows if tested[row] != fold]
            parts[fold, training] = np.arange(len(training)) % PARTS
    return tested, parts


def _by_speaker(utterances: Iterable[Utterance]) -> list[list[int]]:
    """Rows of each speaker, shuffled, whatever order they came in."""
    found: dict[str, list[tuple[bytes, int]]] = {}
    for row, u in enumerate(utterances):
        found.setdefault(u.speaker, []).append((hashlib.sha256(u.id.encode()).digest(), row))
    return [[row for _, row in sorted(own)] for _, own in sorted(found.items())]

"""Learning from another model's answers: task distillation (Hinton, Vinyals, Dean 2015, arXiv 1503.02531).

The targets of the training side become a mixture of its labels and a teacher's answers: calibrated
probabilities of the emotions, and ratings. What has no label is taught by the teacher alone. Validation and
test sides stay as they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sertone.errors import SertoneError
from sertone.labels import Scale, class_shares
from sertone.licences import of_teacher
from sertone.protocols import Fold
from sertone.schema import Utterance
from sertone.sharing.folder import checkpoints
from sertone.training import heard, ranks
from sertone.training.experiment import Experiment
from sertone.training.predict import Predictor
from sertone.training.recordings import Recordings
from sertone.training.together import answers_of, mean_probabilities, mean_ratings


@dataclass(frozen=True)
class Teaching:
    """What a teacher says about a training side.

    Attributes:
        weight: share of the teacher's answer in the target of what has a label.
        votes: per utterance, class -> probability; empty where the teacher knows no emotions.
        ratings: rating -> answer per utterance, on the corpus's scale.
    """

    weight: float
    votes: list[dict[str, float]]
    ratings: dict[str, list[float]]

    def taught(
        self, utterances: Sequence[Utterance], class_map: Mapping[str, str], soft: bool
    ) -> list[Utterance]:
        """The utterances with mixed targets.

        Args:
            utterances: of the training side.
            class_map: emotion -> class.
            soft: whether annotators' votes are mixed in, where there are any, or else the label.
        """
        emotions = {name: emotion for emotion, name in class_map.items()}  # any of a class stands for it
        made = []
        for number, u in enumerate(utterances):
            votes = self._votes(number, _shares(u, class_map, soft))
            mixed = {emotions[name]: share for name, share in votes.items()}
            made.append(replace(u, votes=mixed or u.votes, labels=u.labels | self._ratings(number, u)))
        return made

    def _votes(self, number: int, own: Mapping[str, float]) -> dict[str, float]:
        if not self.votes:
            return dict(own)
        weight = self.weight if own else 1.0
        said = self.votes[number]
        return {name: weight * said[name] + (1 - weight) * own.get(name, 0.0) for name in said}

    def _ratings(self, number: int, utterance: Utterance) -> dict[str, float]:
        mixed = {}
        for name, answers in self.ratings.items():
            own, weight = utterance.labels.get(name), self.weight
            known = isinstance(own, float)
            mixed[name] = weight * answers[number] + (1 - weight) * own if known else answers[number]
        return mixed


def _shares(utterance: Utterance, class_map: Mapping[str, str], soft: bool) -> dict[str, float]:
    """The classes of an utterance as its annotators or its label say."""
    votes = class_shares(utterance.votes, class_map) if soft else {}
    label = class_map.get(str(utterance.labels.get("emotion")))
    return votes or ({label: 1.0} if label else {})


@dataclass(frozen=True)
class Taught:
    """A fold as a teacher has prepared it.

    Attributes:
        fold: its training side has mixed targets.
        ledger: licences of what the teacher is made of.
        heard: what the teacher has heard, of each of its models (`heard.names`).
    """

    fold: Fold
    ledger: list[dict[str, Any]] = field(default_factory=list)
    heard: list[dict[str, list[str]]] = field(default_factory=list)


def taught(experiment: Experiment, number: int, recordings: Recordings) -> Taught:
    """A fold whose training side has the targets that `train.teacher` asks for; as it is without a teacher.

    Args:
        experiment: of which it is a fold.
        number: of the fold.
        recordings: decoded audio.

    Raises:
        SertoneError: `not_a_checkpoint`, `unlike_teacher`, `teacher_heard_test`.
    """
    fold, config = experiment.folds[number], experiment.recipe.train
    if config.teacher is None:
        return Taught(fold)
    teacher = Predictor(teachers(config.teacher.source, number, len(experiment.folds)))
    _require_unheard(teacher, fold, experiment)
    common = _common(teacher, experiment)
    answers = answers_of(teacher, fold.train, recordings, ranks.fabric(config))
    ratings = {name: mean_ratings(teacher, answers, name, scale) for name, scale in common.items()}
    votes = []
    if teacher.classes and experiment.classes:
        rows = mean_probabilities(teacher, answers).tolist()
        votes = [dict(zip(teacher.classes, row, strict=True)) for row in rows]
    teaching = Teaching(config.teacher.weight, votes, ratings)
    train = teaching.taught(fold.train, experiment.class_map, config.targets == "soft")
    past = [about["card"]["heard"] for about in teacher.abouts]
    return Taught(replace(fold, train=train), of_teacher(teacher.licences), past)


def teachers(source: str, number: int, folds: int) -> Path:
    """Where the model is that teaches a fold: of a cross-validated run its fold of the same number.

    Raises:
        SertoneError: `not_a_checkpoint`, `unlike_teacher`.
    """
    found = checkpoints(source)
    if len(found) == 1 or folds == 1:
        return Path(source)
    if len(found) != folds:
        raise SertoneError(
            "unlike_teacher",
            f"train.teacher: {source} has {len(found)} folds, this run has {folds}",
            "a run of the same folds, or one model",
        )
    return Path(source) / f"fold_{number}"


def _common(teacher: Predictor, experiment: Experiment) -> dict[str, Scale]:
    """The ratings that both answer, with the corpus's scales.

    Raises:
        SertoneError: `unlike_teacher`.
    """
    ratings = {name: scale for name, scale in experiment.ratings.items() if name in teacher.scales}
    own, other = experiment.classes, teacher.classes
    if own and other and set(own) != set(other):
        raise SertoneError(
            "unlike_teacher",
            f"train.teacher answers {', '.join(other)}",
            f"the classes of this run: {', '.join(own)}",
        )
    if not ratings and not (own and other):
        raise SertoneError(
            "unlike_teacher",
            f"train.teacher answers {', '.join([*other, *teacher.scales])}",
            f"something of what is to be learnt: {', '.join(experiment.answers)}",
        )
    return ratings


def _require_unheard(teacher: Predictor, fold: Fold, experiment: Experiment) -> None:
    known = [about["card"]["heard"] for about in teacher.abouts]
    ids, speakers = heard.again(fold.test, experiment.card, known)
    if ids or speakers:
        raise SertoneError(
            "teacher_heard_test",
            f"the teacher of fold {fold.name} was trained on {', '.join(speakers[:3] or ids[:3])}",
            "a teacher that has heard none of the test side",
            "cross-validate the teacher with the same protocol and name its run",
        )

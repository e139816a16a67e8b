"""Learning from another model's answers: task distillation (Hinton, Vinyals, Dean 2015, arXiv 1503.02531).

The targets of the training side become a mixture of its labels and a teacher's answers: calibrated
probabilities of the emotions, and ratings. What has no label is taught by the teacher alone. Validation and
test sides stay as they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sertone.labels import class_shares
from sertone.protocol.splits import Fold
from sertone.schema import Utterance
from sertone.training.fit import distributed
from sertone.training.experiment import teachers
from sertone.training.experiment.experiment import Experiment
from sertone.training.testing.trained import TorchModel
from sertone.training.data.recordings import Recordings
from sertone.training.testing.together import predict_per_model, average_probabilities, average_ratings


@dataclass(frozen=True)
class TeacherTargets:
    """What a teacher says about a training side.

    Attributes:
        weight: share of the teacher's answer in the target of what has a label.
        votes: per utterance, class -> probability; empty where the teacher knows no emotions.
        ratings: rating -> answer per utterance, on the corpus's scale.
    """

    weight: float
    votes: list[dict[str, float]]
    ratings: dict[str, list[float]]

    def mix_into(
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
            made.append(replace(u, votes=mixed, labels=u.labels | self._ratings(number, u)))
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


def apply_teacher(experiment: Experiment, number: int, recordings: Recordings) -> Fold:
    """A fold whose training side has the targets that `train.teacher` asks for; as it is without a teacher.

    Args:
        experiment: of which it is a fold.
        number: of the fold.
        recordings: decoded audio.

    Raises:
        SertoneError: as the loading of the teacher.
    """
    fold, config = experiment.folds[number], experiment.recipe.train
    if config.teacher is None:
        return fold
    teacher = TorchModel(teachers.find_teacher(config.teacher.source, number, len(experiment.folds)))
    common = teachers.find_common_ratings(teacher.about, experiment.classes, experiment.ratings)
    answers = predict_per_model(teacher, fold.train, recordings, distributed.make_fabric(config))
    ratings = {name: average_ratings(teacher, answers, name, scale) for name, scale in common.items()}
    votes = []
    if teacher.classes and experiment.classes:
        rows = average_probabilities(teacher, answers).tolist()
        votes = [dict(zip(teacher.classes, row, strict=True)) for row in rows]
    teaching = TeacherTargets(config.teacher.weight, votes, ratings)
    train = teaching.mix_into(fold.train, experiment.class_map, config.targets == "soft")
    return replace(fold, train=train)

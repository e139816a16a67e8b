"""Task distillation: training on another model's predictions (Hinton, Vinyals, Dean 2015, arXiv 1503.02531).

The targets of the training set become a mixture of its labels and a teacher's predictions: calibrated
probabilities of the emotions, and ratings. An utterance without a label gets the teacher's prediction alone.
Validation and test set stay as they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sertone.labels import class_shares
from sertone.protocol.splits import Fold
from sertone.schema import Utterance
from sertone.training.data.recordings import Recordings
from sertone.training.experiment import teachers
from sertone.training.experiment.experiment import Experiment
from sertone.training.fit import distributed
from sertone.training.testing.ensemble import average_probabilities, average_ratings, predict_per_model
from sertone.training.testing.trained import TorchModel


@dataclass(frozen=True)
class TeacherTargets:
    """The predictions of a teacher for a training set.

    Attributes:
        weight: share of the teacher's prediction in the target of an utterance with a label.
        votes: for each utterance, class -> probability; empty where the teacher predicts no emotions.
        ratings: rating -> prediction per utterance, on the corpus's scale.
    """

    weight: float
    votes: list[dict[str, float]]
    ratings: dict[str, list[float]]

    def mix_into(
        self, utterances: Sequence[Utterance], class_map: Mapping[str, str], soft: bool
    ) -> list[Utterance]:
        """Return the utterances with mixed targets.

        Args:
            utterances: utterances of the training set.
            class_map: emotion -> class.
            soft: mix the annotators' votes where there are any, and the label elsewhere. False mixes the
                label always.
        """
        # Votes are by emotion. Any emotion of a class can stand for the class.
        emotions = {name: emotion for emotion, name in class_map.items()}
        mixed = []
        for number, u in enumerate(utterances):
            shares = self._mix_votes(number, _compute_shares(u, class_map, soft))
            votes = {emotions[name]: share for name, share in shares.items()}
            mixed.append(replace(u, votes=votes, labels=u.labels | self._mix_ratings(number, u)))
        return mixed

    def _mix_votes(self, number: int, shares: Mapping[str, float]) -> dict[str, float]:
        if not self.votes:
            return dict(shares)
        weight = self.weight if shares else 1.0  # without a label the teacher alone is the target
        probabilities = self.votes[number]
        return {
            name: weight * probability + (1 - weight) * shares.get(name, 0.0)
            for name, probability in probabilities.items()
        }

    def _mix_ratings(self, number: int, utterance: Utterance) -> dict[str, float]:
        mixed = {}
        for name, predictions in self.ratings.items():
            prediction = predictions[number]
            label = utterance.labels.get(name)  # a missing rating has no float
            if isinstance(label, float):
                prediction = self.weight * prediction + (1 - self.weight) * label
            mixed[name] = prediction
        return mixed


def _compute_shares(utterance: Utterance, class_map: Mapping[str, str], soft: bool) -> dict[str, float]:
    """Return the shares of the classes by the annotators' votes or the label; empty without either."""
    votes = class_shares(utterance.votes, class_map) if soft else {}
    label = class_map.get(str(utterance.labels.get("emotion")))
    return votes or ({label: 1.0} if label else {})


def apply_teacher(experiment: Experiment, number: int, recordings: Recordings) -> Fold:
    """Return a fold whose training set has the targets that `train.teacher` asks for.

    Without a teacher the fold is returned unchanged.

    Args:
        experiment: the experiment that the fold belongs to.
        number: number of the fold.
        recordings: decoded audio.

    Raises:
        SertoneError: the teacher cannot be loaded.
    """
    fold, config = experiment.folds[number], experiment.recipe.train
    if config.teacher is None:
        return fold
    teacher = TorchModel(teachers.find_teacher(config.teacher.source, number, len(experiment.folds)))
    scales = teachers.find_common_ratings(teacher.about, experiment.classes, experiment.ratings)
    predictions = predict_per_model(teacher, fold.train, recordings, distributed.make_fabric(config))
    ratings = {name: average_ratings(teacher, predictions, name, scale) for name, scale in scales.items()}
    votes = []
    if teacher.classes and experiment.classes:
        rows = average_probabilities(teacher, predictions).tolist()
        votes = [dict(zip(teacher.classes, row, strict=True)) for row in rows]
    targets = TeacherTargets(config.teacher.weight, votes, ratings)
    train = targets.mix_into(fold.train, experiment.class_map, config.targets == "soft")
    return replace(fold, train=train)

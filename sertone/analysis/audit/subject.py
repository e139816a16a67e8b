"""The audited model: one for all utterances, or for each the model of the fold that has not seen it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sertone.analysis.evaluation_models import EvaluatedModel, SeenInTraining, open_model
from sertone.analysis.evaluation_warnings import list_overlap_warnings
from sertone.analysis.run_predictions import load_predictions
from sertone.labels import Scale
from sertone.protocol.leaks import hash_recordings
from sertone.runtime.answering import AnswerFormat
from sertone.runtime.predictor import Predictor
from sertone.schema import Utterance
from sertone.training.experiment import contamination


@dataclass(frozen=True)
class Subject:
    """The audited model.

    Attributes:
        predictors: the model, or the models of a run's folds.
        folds: utterance id -> number of the predictor that has not seen it; empty for one model.
        class_map: emotion -> class.
        seen_in_training: what the model was trained on, see `EvaluatedModel`; None where it is not known.
    """

    predictors: list[Predictor]
    folds: Mapping[str, int]
    class_map: Mapping[str, str]
    seen_in_training: SeenInTraining | None

    @classmethod
    def open(
        cls, source: str | Path | None, corpus: str | None = None, threads: int | None = None
    ) -> "Subject":
        """Open a model, see `evaluation_models.open_model`.

        A cross-validated run is opened as the models of its folds, on its own corpus. On another one the mean
        of its models answers.

        Args:
            source: as `open_model`.
            corpus: name of the corpus; None: there is none.
            threads: for one recording; None: one per core.
        """
        evaluated = open_model(source, threads)
        known = evaluated.class_map, evaluated.seen_in_training
        run = Path(source) if source else None
        is_own = evaluated.model.card["corpus"]["name"] == corpus
        if run is None or not is_own or not (run / "predictions.csv").is_file():
            return cls([_make_predictor(evaluated)], {}, *known)
        folds = {row["id"]: row["fold"] for row in load_predictions(run).rows}
        names = sorted(set(folds.values()))
        predictors = [_make_predictor(open_model(run / f"fold_{name}", threads)) for name in names]
        return cls(predictors, {id_: names.index(fold) for id_, fold in folds.items()}, *known)

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return self.predictors[0].classes

    @property
    def scales(self) -> Mapping[str, Scale | None]:
        """Dimension -> scale."""
        return self.predictors[0].scales

    @property
    def uses_audio(self) -> bool:
        """True if the model uses the audio."""
        return self.predictors[0].model.uses_audio

    @property
    def uses_text(self) -> bool:
        """True if the model uses a transcript."""
        return self.predictors[0].model.uses_text

    def select_known(self, utterances: Sequence[Utterance]) -> list[Utterance]:
        """Return the utterances on which it can be tested: for a run, those in the test set of a fold."""
        return [u for u in utterances if not self.folds or u.id in self.folds]

    def list_warnings(self, corpus: str, utterances: Sequence[Utterance]) -> list[str]:
        """Return warnings of utterances and speakers that the model was trained on; a run's folds were not.

        Args:
            corpus: name of the corpus.
            utterances: utterances on which the model is tested.
        """
        if self.folds:
            return []
        records = self.seen_in_training or []
        card = {"corpus": {"name": corpus}, "file_hashes": hash_recordings(utterances)}
        ids, speakers = contamination.find_overlap(utterances, card, records)
        unknown = contamination.count_unknown_speakers(records)
        leak = {"recordings": ids, "speakers": speakers, "unknown_speakers": unknown}
        return list_overlap_warnings(leak | {"known": self.seen_in_training is not None})

    def choose_predictor(self, utterance: Utterance) -> Predictor:
        """Return the predictor for an utterance."""
        return self.predictors[self.folds.get(utterance.id, 0)]


def _make_predictor(evaluated: EvaluatedModel) -> Predictor:
    return Predictor(AnswerFormat(evaluated.model))

"""A model of Sertone as one module, from raw inputs to calibrated outputs: the form in which it is exported.

Axis letters: B batch, N samples, S tokens, K classes, R dimensions.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from sertone.audio import SAMPLING_RATE
from sertone.errors import SertoneError
from sertone.export.exportable import ExportableModel
from sertone.files import load_json
from sertone.models.contract import EmotionModel
from sertone.nn.batch import Batch
from sertone.nn.rating_heads import RatingHead
from sertone.scoring.calibration import Calibration
from sertone.sharing.card_scores import Scores, describe_choice, find_cross_validation
from sertone.sharing.model_folder import find_checkpoints
from sertone.training.runs.results import describe_encoders
from sertone.training.testing.calibrate import calibrate_on_held_out
from sertone.training.testing.trained import TorchModel, describe_missing_folds


def load_exportable(
    path: str | Path, scores: Path | None = None, coverage: float | None = None
) -> ExportableModel:
    """Load a trained model in the form in which it is exported.

    Args:
        path: a checkpoint folder, a fold, a run (the mean of its models), or OWNER/NAME on the hub.
        scores: run of a cross-validation of the same recipe, or of a choice of it; None: the scores in the
            model's own folder. It also calibrates a model that was trained on all speakers.
        coverage: share of recordings for which the prediction of such a model is not marked unsure;
            None: all.

    Raises:
        SertoneError: as `Scores.from_run`; `not_a_checkpoint`, `bad_weights`, `other_format`,
            `missing_folds`, `many_tokenizers`, `no_held_out`, `bad_coverage`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # predicting warns of missing folds; here they are an error
        trained = TorchModel(path)
    _require_all_folds(path, trained)
    _require_one_tokenizer(trained)
    run_scores = Scores.from_run(scores, trained.about) if scores else None
    _calibrate(trained, scores, coverage)
    model = trained.about["model"]
    return ExportableModel(
        model=trained,
        module=PredictionGraph(trained),
        inputs=_create_examples(trained),
        class_map=trained.class_map,
        calibration=asdict(trained.calibrations[0]) | {"threshold": trained.threshold},
        about={"name": model["name"], "encoders": describe_encoders(model)},
        scores=asdict(run_scores) if run_scores else _find_scores(path, trained),
        models=len(trained.models),
        tokenizer=trained.vocabularies[0].tokenizer,
    )


def _calibrate(trained: TorchModel, run: Path | None, coverage: float | None) -> None:
    """Calibrate a model that has no held-out speakers by the held-out predictions of a cross-validation."""
    if coverage is not None and not 0 < coverage < 1:
        raise SertoneError("bad_coverage", f"a coverage of {coverage}", "a share between 0 and 1")
    is_uncalibrated = trained.classes and len(trained.models) == 1 and not trained.calibrations[0].fitted_on
    if run and is_uncalibrated:
        trained.calibrations = [calibrate_on_held_out(find_cross_validation(run), coverage)]
        trained.threshold = trained.calibrations[0].threshold
    elif coverage is not None:
        raise SertoneError(
            "no_held_out",
            f"a coverage of {coverage} for a model that has its own calibration, or no held-out predictions",
            "a model trained on all data, and a cross-validation of its recipe (--scores)",
        )


def _create_examples(trained: TorchModel) -> dict[str, Tensor]:
    """Return example inputs for tracing the graph, two rows of each."""
    examples = {}
    if trained.uses_audio:
        examples["waveforms"] = 0.1 * torch.randn(2, max(SAMPLING_RATE, 2 * trained.min_samples))
    if trained.uses_text:
        examples["tokens"], examples["counts"] = trained.vocabularies[0].encode_texts(
            ["well then", "so it is now"]
        )
    return examples


def _require_all_folds(path: str | Path, trained: TorchModel) -> None:
    """Refuse a run that is not finished, or has lost models: its scores are those of all its models."""
    if trained.missing:
        raise SertoneError(
            "missing_folds",
            f"{path}: {describe_missing_folds(trained.missing, trained.abouts)}",
            "a model of every fold",
            "resume the run with `sertone crossval`; or export one fold, or a model of all data "
            "(`sertone train`)",
        )


def _require_one_tokenizer(trained: TorchModel) -> None:
    if len({vocabulary.tokenizer for vocabulary in trained.vocabularies}) > 1:
        raise SertoneError(
            "many_tokenizers",
            "the models of the folds have different tokenizers",
            "one tokenizer",
            "export a fold, or train one model on all the data with `sertone train`",
        )


def _find_scores(path: str | Path, trained: TorchModel) -> dict[str, Any]:
    """Return the pooled scores of a run, or the scores of a fold; empty for a model trained on all data."""
    folder = find_checkpoints(path)[0]
    run, result = folder.parents[1], folder.parent / "result.json"
    if len(trained.models) > 1:
        has_results = (run / "results.json").is_file()
        return asdict(Scores.from_run(run, trained.about)) if has_results else {}
    # The settings of a choice were chosen with the test speakers of this fold too: its score is no test.
    if not result.is_file() or describe_choice(run):
        return {}
    return asdict(Scores.from_fold(load_json(result, "not_a_run")))


class PredictionGraph(nn.Module):
    """The models of a run as one module: the mean of their calibrated probabilities, and of their ratings.

    Args:
        trained: the models and their calibrations.
    """

    def __init__(self, trained: TorchModel) -> None:
        super().__init__()
        self.models = nn.ModuleList(cast(list[nn.Module], trained.models))
        self.calibrations: Sequence[Calibration] = trained.calibrations
        self.ratings = list(trained.scales)
        self.eval()

    def forward(
        self, waveforms: Tensor | None = None, tokens: Tensor | None = None, counts: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Predict a batch of inputs of one length.

        Args:
            waveforms: (B, N).
            tokens: (B, S).
            counts: number of tokens without padding, (B,).

        Returns:
            probabilities (B, K), ratings (B, R).
        """
        inputs = waveforms if waveforms is not None else tokens
        assert inputs is not None, "every model uses audio or text"
        lengths = torch.full((inputs.shape[0],), inputs.shape[1])
        batch = Batch(waveforms, lengths, tokens=tokens, counts=counts)
        models = cast(Iterable[EmotionModel], self.models)
        outputs = [
            self._predict(model, calibration, batch)
            for model, calibration in zip(models, self.calibrations, strict=True)
        ]
        probabilities, ratings = (torch.stack(part).mean(0) for part in zip(*outputs, strict=True))
        return probabilities, ratings

    def _predict(self, model: EmotionModel, calibration: Calibration, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the probabilities (B, K) and the ratings (B, R) of one model; K or R may be 0."""
        outputs = model(batch)
        empty = batch.lengths.float()[:, None][:, :0]  # (B, 0)
        emotion = outputs.get("emotion")
        probabilities = empty
        if emotion is not None:
            # temperature scaling, see `scoring.calibration`
            probabilities = (emotion.logits.float() / calibration.temperature).softmax(-1)
        ratings = [cast(RatingHead, model.heads[name]).ratings(outputs[name]) for name in self.ratings]
        return probabilities, torch.stack(ratings, -1) if ratings else empty

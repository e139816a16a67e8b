"""A model of ours as one module from raw inputs to answers, the way it is exported.

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
from sertone.files import read_json
from sertone.models.contract import EmotionModel
from sertone.nn.batch import Batch
from sertone.nn.heads import RatingHead
from sertone.scoring.calibration import Calibration
from sertone.sharing.card_scores import Scores, describe_choice, find_cross_validation
from sertone.sharing.model_folder import find_checkpoints
from sertone.training.runs.results import describe_encoders
from sertone.training.testing.calibrate import calibrate_on_held_out
from sertone.training.testing.trained import TorchModel, describe_missing_folds


def load_exportable(
    path: str | Path, scores: Path | None = None, coverage: float | None = None
) -> ExportableModel:
    """What was trained, ready to be exported.

    Args:
        path: a checkpoint folder, a fold, a run (the mean of its models), or OWNER/NAME on the hub.
        scores: run of a cross-validation of the same recipe, or of a choice of it; None: those of the model's
            own folder. It also calibrates a model from which nobody was held out.
        coverage: share of recordings that shall get an answer of such a model; None: all.

    Raises:
        SertoneError: as `Scores.of_run`; `not_a_checkpoint`, `bad_weights`, `other_format`,
            `missing_folds`, `many_tokenizers`, `no_held_out`, `bad_coverage`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what predicting warns of is an error here
        trained = TorchModel(path)
    _require_all_folds(path, trained)
    _require_one_tokenizer(trained)
    known = Scores.from_run(scores, trained.about) if scores else None
    _calibrate(trained, scores, coverage)
    model = trained.about["model"]
    return ExportableModel(
        model=trained,
        module=PredictionGraph(trained),
        inputs=_examples(trained),
        class_map=trained.class_map,
        calibration=asdict(trained.calibrations[0]) | {"threshold": trained.threshold},
        about={"name": model["name"], "encoders": describe_encoders(model)},
        scores=asdict(known) if known else _scores(path, trained),
        models=len(trained.models),
        tokenizer=trained.vocabularies[0].tokenizer,
    )


def _calibrate(trained: TorchModel, run: Path | None, coverage: float | None) -> None:
    """By the held-out answers of a cross-validation, where the model has nobody of its own."""
    if coverage is not None and not 0 < coverage < 1:
        raise SertoneError("bad_coverage", f"a coverage of {coverage}", "a share between 0 and 1")
    fits = run and trained.classes and len(trained.models) == 1 and not trained.calibrations[0].fitted_on
    if coverage is not None and not fits:
        raise SertoneError(
            "no_held_out",
            f"a coverage of {coverage} of a model that has a calibration of its own, or no held-out answers",
            "a model trained on all data, and a cross-validation of its recipe (--scores)",
        )
    if fits and run:
        trained.calibrations = [calibrate_on_held_out(find_cross_validation(run), coverage)]
        trained.threshold = trained.calibrations[0].threshold


def _examples(trained: TorchModel) -> dict[str, Tensor]:
    examples = {}
    if trained.uses_audio:
        examples["waveforms"] = 0.1 * torch.randn(2, max(SAMPLING_RATE, 2 * trained.min_samples))
    if trained.uses_text:
        examples["tokens"], examples["counts"] = trained.vocabularies[0].encode_texts(
            ["well then", "so it is now"]
        )
    return examples


def _require_all_folds(path: str | Path, trained: TorchModel) -> None:
    """Refuse a run that is not finished, or has lost models: its scores are those of all of them."""
    if trained.missing:
        raise SertoneError(
            "missing_folds",
            f"{path}: {describe_missing_folds(trained.missing, trained.abouts)}",
            "a model of every fold",
            "go on with `sertone crossval`, or export one fold, or a model of all data (`sertone train`)",
        )


def _require_one_tokenizer(trained: TorchModel) -> None:
    if len({vocabulary.tokenizer for vocabulary in trained.vocabularies}) > 1:
        raise SertoneError(
            "many_tokenizers",
            "the folds' models have tokenizers of their own",
            "one tokenizer",
            "export a fold, or train one model on all the data with `sertone train`",
        )


def _scores(path: str | Path, trained: TorchModel) -> dict[str, Any]:
    """Of a run those of its folds together, of a fold its own; what was trained on all data has none."""
    folder = find_checkpoints(path)[0]
    run, result = folder.parents[1], folder.parent / "result.json"
    if len(trained.models) > 1:
        known = (run / "results.json").is_file()
        return asdict(Scores.from_run(run, trained.about)) if known else {}
    if not result.is_file() or describe_choice(
        run
    ):  # its settings were chosen by the speakers of this fold too
        return {}
    return asdict(Scores.from_fold(read_json(result, "not_a_run")))


class PredictionGraph(nn.Module):
    """The models of a run together: mean of their calibrated probabilities, and of their ratings.

    Args:
        trained: what was trained.
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
        """Answers a batch of one length.

        Args:
            waveforms: (B, N).
            tokens: (B, S).
            counts: tokens that count, (B,).

        Returns:
            probabilities (B, K), ratings (B, R).
        """
        given = waveforms if waveforms is not None else tokens
        assert given is not None, "a model hears or reads"
        lengths = torch.full((given.shape[0],), given.shape[1])
        batch = Batch(waveforms, lengths, tokens=tokens, counts=counts)
        models = cast(Iterable[EmotionModel], self.models)
        answers = [
            self._answers(model, by, batch) for model, by in zip(models, self.calibrations, strict=True)
        ]
        probabilities, ratings = (torch.stack(each).mean(0) for each in zip(*answers, strict=True))
        return probabilities, ratings

    def _answers(self, model: EmotionModel, by: Calibration, batch: Batch) -> tuple[Tensor, Tensor]:
        outputs, nothing = model(batch), batch.lengths.float()[:, None][:, :0]
        emotion = outputs.get("emotion")
        shares = nothing if emotion is None else (emotion.logits.float() / by.temperature).softmax(-1)
        rated = [cast(RatingHead, model.heads[name]).ratings(outputs[name]) for name in self.ratings]
        return shares, torch.stack(rated, -1) if rated else nothing

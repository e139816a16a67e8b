"""What was trained as a model that answers, with torch; see `sertone.runtime`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sertone.calibration import Calibration
from sertone.labels import Scale
from sertone.nn.batch import Batch
from sertone.nn.tokens import truncated
from sertone.runtime.answering import AT_ONCE_S, Outputs
from sertone.sharing.folder import checkpoints
from sertone.training import checkpoint
from sertone.training.experiment import require_device


class Trained:
    """A trained model, or the models of all folds of a run together: a `runtime.answering.Model`.

    Args:
        path: a checkpoint folder, a fold, a run, or OWNER/NAME on the Hugging Face hub. The answer of a
            run is the mean of the calibrated probabilities of its folds' models. Its threshold for
            `unsure` is the mean of theirs, which is approximate: a mean of models is as a rule less
            confident than each, so more recordings are unsure than the coverage says. None is new to all
            folds, so there is none to fit it on.
        device: `cpu` or `cuda`.
        threads: of torch; None: as they are.

    Attributes:
        models: torch modules in eval mode.
        vocabularies: what goes into each, and what comes out of it.
        calibrations: of each.
        abouts: what `checkpoint.json` of each model holds.
        class_map: emotion -> class.

    Raises:
        SertoneError: `not_a_checkpoint`, `bad_weights`, `other_format`, `no_device`.
    """

    max_seconds = AT_ONCE_S

    def __init__(self, path: str | Path, *, device: str = "cpu", threads: int | None = None) -> None:
        require_device(device)
        loaded = [checkpoint.load_model(folder) for folder in checkpoints(path)]
        self.models = [model.to(device) for model, _, _ in loaded]
        self.device = device
        self.vocabularies = [vocabulary for _, vocabulary, _ in loaded]
        self.abouts = [about for _, _, about in loaded]
        self.about: dict[str, Any] = self.abouts[0]  # what follows is the same for all folds
        self.classes: list[str] = self.vocabularies[0].classes["emotion"]
        self.scales: dict[str, Scale] = self.vocabularies[0].ratings
        self.hears = self.models[0].encoder.width > 0
        self.reads = bool(self.vocabularies[0].tokenizer)
        self.class_map: dict[str, str] = self.vocabularies[0].class_map
        self.min_samples: int = self.about["min_samples"]
        self.card: dict[str, Any] = self.about["card"]
        self.licences: list[dict[str, Any]] = self.about["licences"]
        self.calibrations = [Calibration(**about.get("calibration", {})) for about in self.abouts]
        thresholds = [each.threshold for each in self.calibrations if each.threshold is not None]
        self.threshold = float(np.mean(thresholds)) if len(thresholds) == len(loaded) else None
        if threads:
            torch.set_num_threads(threads)

    def truncates(self, text: str) -> bool:
        """Whether a text is longer than one of the models reads."""
        return any(truncated(vocabulary.tokenizer, text) for vocabulary in self.vocabularies)

    @torch.inference_mode()
    def outputs(self, waveforms: np.ndarray, text: str | None = None) -> Outputs:
        """Means over the models, of waveforms (B, N); a text only of a single one."""
        lengths = torch.full((len(waveforms),), waveforms.shape[1])
        batch = Batch(torch.from_numpy(np.ascontiguousarray(waveforms)), lengths)
        rows, ratings = [], []
        for model, vocabulary, by in zip(self.models, self.vocabularies, self.calibrations, strict=True):
            if text is not None:
                tokens, counts = vocabulary.tokens([text])
                batch = replace(batch, tokens=tokens, counts=counts)
            outputs = model(batch.to(self.device))
            if "emotion" in outputs:
                rows.append(by.probabilities(outputs["emotion"].logits.float().cpu().numpy()))
            ratings.append([model.heads[name].decode(outputs[name]) for name in vocabulary.ratings])
        nothing = np.zeros((len(waveforms), 0))
        rated = np.mean(ratings, axis=0).T if self.scales else nothing
        return Outputs(np.mean(rows, axis=0) if rows else nothing, rated)

"""A trained model that predicts with torch, as `sertone.runtime` needs it: one model, or those of all folds.

Axis letters: B batch, N samples, R ratings, K classes.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sertone.errors import SertoneError, is_out_of_memory
from sertone.labels import Scale
from sertone.nn.batch import Batch
from sertone.nn.tokens import is_truncated
from sertone.runtime.answering import DEFAULT_MAX_SECONDS, Outputs, require_valid_outputs
from sertone.scoring.calibration import Calibration
from sertone.sharing.model_folder import find_checkpoints, find_missing_folds
from sertone.training.experiment import contamination
from sertone.training.fit import checkpoint
from sertone.training.fit.distributed import require_device

PROBE_SAMPLES = 4000
"""Length of the noise with which every model is tried when it is loaded, in samples."""


class TorchModel:
    """A trained model, or the models of all folds of a run together: a `runtime.answering.Model`.

    Args:
        path: a checkpoint folder, a fold, a run, or OWNER/NAME on the Hugging Face hub. The prediction of a
            run is the mean of the calibrated probabilities of its folds' models. Its threshold for
            `unsure` is the mean of theirs. That is approximate: a mean of models is as a rule less
            confident than each model, so more recordings are unsure than the coverage says. No recording is
            new to all folds, so there is none to fit the threshold on.
        device: `cpu` or `cuda`.
        threads: number of torch's threads; None: as they are.

    Attributes:
        models: torch modules in eval mode.
        vocabularies: inputs and outputs of each model.
        calibrations: calibrations of each model.
        abouts: the content of `checkpoint.json` of each model.
        class_map: emotion -> class.
        missing: names of the folds of a run without a model; loading warns of them.

    Raises:
        SertoneError: `not_a_checkpoint`, `bad_weights`, `other_format`, `no_device`, `mismatched_folds`.
    """

    max_seconds = DEFAULT_MAX_SECONDS

    def __init__(self, path: str | Path, *, device: str = "cpu", threads: int | None = None) -> None:
        require_device(device)
        # A path is kept absolute, since the pickled model may be loaded from another folder. A name on the
        # hub is no path, and stays as it is.
        local_path = Path(path)
        source = str(local_path.absolute() if local_path.exists() else path)
        self._load_arguments = (source, device, threads)
        loaded = [checkpoint.load_model(folder) for folder in find_checkpoints(path)]
        self.models = [model for model, _, _ in loaded]
        self.device = "cpu"
        self.vocabularies = [vocabulary for _, vocabulary, _ in loaded]
        self.abouts = [about for _, _, about in loaded]
        _require_same_outputs(path, self.abouts)
        self.missing = find_missing_folds(path, self.abouts)
        if self.missing:
            warnings.warn(f"{path}: {describe_missing_folds(self.missing, self.abouts)}", stacklevel=2)
        self.about: dict[str, Any] = self.abouts[0]  # what follows is the same for all folds
        self.classes: list[str] = self.vocabularies[0].classes["emotion"]
        self.scales: dict[str, Scale] = self.vocabularies[0].ratings
        self.uses_audio = self.models[0].encoder.width > 0
        self.uses_text = bool(self.vocabularies[0].tokenizer)
        self.class_map: dict[str, str] = self.vocabularies[0].class_map
        self.min_samples: int = self.about["min_samples"]
        training_data = contamination.union(*(about["card"]["heard"] for about in self.abouts))
        self.card: dict[str, Any] = self.about["card"] | {"heard": training_data}
        self.licences: list[dict[str, Any]] = self.about["licences"]
        self.calibrations = [Calibration.from_json(about["calibration"]) for about in self.abouts]
        self.threshold = _average_thresholds(self.calibrations)
        if threads:
            torch.set_num_threads(threads)
        self._require_prediction(path)
        self.models = [model.to(device) for model in self.models]
        self.device = device

    def __reduce__(self) -> tuple:
        """Pickle the path: where it is unpickled, the model is loaded again."""
        return _load_unpickled, self._load_arguments

    def truncates(self, text: str) -> bool:
        """Return whether a text is longer than one of the models can use."""
        return any(is_truncated(vocabulary.tokenizer, text) for vocabulary in self.vocabularies)

    def _require_prediction(self, path: str | Path) -> None:
        """Predict a moment of noise, so that a broken model is refused now, not at the first recording.

        This runs on the CPU, where only the model can be at fault.

        Raises:
            SertoneError: `bad_weights`.
        """
        noise = np.random.default_rng(0).standard_normal((1, max(PROBE_SAMPLES, self.min_samples)))
        waveforms = 0.1 * noise.astype(np.float32)
        try:
            require_valid_outputs(self.outputs(waveforms, "well" if self.uses_text else None))
        except Exception as error:  # torch raises many kinds for options that do not fit each other
            if is_out_of_memory(error):
                raise SertoneError("out_of_memory", f"{path}: {error}", "memory for the model") from None
            problem = f"{path} cannot predict: {error}"
            raise SertoneError("bad_weights", problem, "a model that predicts", "train it again") from None

    @torch.inference_mode()
    def outputs(self, waveforms: np.ndarray, text: str | None = None) -> Outputs:
        """Average the models' outputs for waveforms (B, N); a text is for a single waveform only."""
        lengths = torch.full((len(waveforms),), waveforms.shape[1])
        batch = Batch(torch.from_numpy(np.ascontiguousarray(waveforms)), lengths)
        probabilities, ratings = [], []
        models = zip(self.models, self.vocabularies, self.calibrations, strict=True)
        for model, vocabulary, calibration in models:
            if text is not None:
                tokens, counts = vocabulary.encode_texts([text])  # each model has its own tokenizer
                batch = replace(batch, tokens=tokens, counts=counts)
            outputs = model(batch.to(self.device))
            if "emotion" in outputs:
                logits = outputs["emotion"].logits.float().cpu().numpy()
                probabilities.append(calibration.to_probabilities(logits))
            ratings.append([model.heads[name].decode(outputs[name]) for name in vocabulary.ratings])
        nothing = np.zeros((len(waveforms), 0))
        return Outputs(
            np.mean(probabilities, axis=0) if probabilities else nothing,  # (B, K)
            np.mean(ratings, axis=0).T if self.scales else nothing,  # (models, R, B) -> (B, R)
        )


@lru_cache(maxsize=16)  # the models of the folds of a run
def _load_unpickled(path: str, device: str, threads: int | None) -> TorchModel:
    """Load a model that was pickled, once per process, without the warnings of its first loading."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return TorchModel(path, device=device, threads=threads)


def _average_thresholds(calibrations: Sequence[Calibration]) -> float | None:
    """Return the mean threshold, or None where a model has none."""
    thresholds = [fitted.threshold for fitted in calibrations if fitted.threshold is not None]
    return float(np.mean(thresholds)) if len(thresholds) == len(calibrations) else None


def describe_missing_folds(missing: Sequence[str], abouts: Sequence[Mapping[str, Any]]) -> str:
    """Return a sentence that says how many models of a run are missing."""
    total = len(abouts[0]["card"]["folds"])
    return f"{len(abouts)} of the {total} models of the run are there; without fold {', '.join(missing)}"


def _require_same_outputs(path: str | Path, abouts: Sequence[Mapping[str, Any]]) -> None:
    """Refuse models whose outputs cannot be averaged."""
    parts = [(a["vocabulary"]["classes"]["emotion"], a["vocabulary"]["ratings"]) for a in abouts]
    if any(part != parts[0] for part in parts):
        raise SertoneError(
            "mismatched_folds",
            f"the models in {path} do not predict the same classes and ratings",
            "the folds of one run",
            "name one fold",
        )

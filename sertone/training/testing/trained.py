"""What was trained as a model that answers, with torch; see `sertone.runtime`."""

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
from sertone.training.experiment.experiment import require_device
from sertone.training.fit import checkpoint

SHORT = 4000
"""Samples of the noise that every model answers when it is loaded."""


class TorchModel:
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

        missing: names of the folds of a run whose models are not there; loading warns of them.

    Raises:
        SertoneError: `not_a_checkpoint`, `bad_weights`, `other_format`, `no_device`, `mismatched_folds`.
    """

    max_seconds = DEFAULT_MAX_SECONDS

    def __init__(self, path: str | Path, *, device: str = "cpu", threads: int | None = None) -> None:
        require_device(device)
        here = Path(path)  # or OWNER/NAME on the hub; what is pickled may be opened from another folder
        self._opened = (str(here.absolute() if here.exists() else path), device, threads)
        loaded = [checkpoint.load_model(folder) for folder in find_checkpoints(path)]
        self.models = [model for model, _, _ in loaded]
        self.device = "cpu"
        self.vocabularies = [vocabulary for _, vocabulary, _ in loaded]
        self.abouts = [about for _, _, about in loaded]
        _require_alike(path, self.abouts)
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
        heard_by_all = contamination.union(*(about["card"]["heard"] for about in self.abouts))
        self.card: dict[str, Any] = self.about["card"] | {"heard": heard_by_all}
        self.licences: list[dict[str, Any]] = self.about["licences"]
        self.calibrations = [Calibration.from_json(about["calibration"]) for about in self.abouts]
        thresholds = [each.threshold for each in self.calibrations if each.threshold is not None]
        self.threshold = float(np.mean(thresholds)) if len(thresholds) == len(loaded) else None
        if threads:
            torch.set_num_threads(threads)
        self._require_an_answer(path)
        self.models, self.device = [model.to(device) for model in self.models], device

    def __reduce__(self) -> tuple:
        """Pickle the path: where it is unpickled, the model is loaded again."""
        return _reopened, self._opened

    def truncates(self, text: str) -> bool:
        """Whether a text is longer than one of the models reads."""
        return any(is_truncated(vocabulary.tokenizer, text) for vocabulary in self.vocabularies)

    def _require_an_answer(self, path: str | Path) -> None:
        """Answer a moment of noise: what cannot answer that is refused now, not at the first recording.

        That is on the CPU, where nothing but the model can be at fault.

        Raises:
            SertoneError: `bad_weights`.
        """
        noise = np.random.default_rng(0).standard_normal((1, max(SHORT, self.min_samples)))
        try:
            require_valid_outputs(
                self.outputs(0.1 * noise.astype(np.float32), "well" if self.uses_text else None)
            )
        except Exception as error:  # of torch, for options that do not fit each other
            if is_out_of_memory(error):
                raise SertoneError("out_of_memory", f"{path}: {error}", "memory for the model") from None
            found = f"{path} cannot answer: {error}"
            raise SertoneError("bad_weights", found, "a model that answers", "train it again") from None

    @torch.inference_mode()
    def outputs(self, waveforms: np.ndarray, text: str | None = None) -> Outputs:
        """Means over the models, of waveforms (B, N); a text only of a single one."""
        lengths = torch.full((len(waveforms),), waveforms.shape[1])
        batch = Batch(torch.from_numpy(np.ascontiguousarray(waveforms)), lengths)
        rows, ratings = [], []
        for model, vocabulary, by in zip(self.models, self.vocabularies, self.calibrations, strict=True):
            if text is not None:
                tokens, counts = vocabulary.encode_texts([text])
                batch = replace(batch, tokens=tokens, counts=counts)
            outputs = model(batch.to(self.device))
            if "emotion" in outputs:
                rows.append(by.to_probabilities(outputs["emotion"].logits.float().cpu().numpy()))
            ratings.append([model.heads[name].decode(outputs[name]) for name in vocabulary.ratings])
        nothing = np.zeros((len(waveforms), 0))
        rated = np.mean(ratings, axis=0).T if self.scales else nothing
        return Outputs(np.mean(rows, axis=0) if rows else nothing, rated)


@lru_cache(maxsize=1)
def _reopened(path: str, device: str, threads: int | None) -> TorchModel:
    """Return a model that was pickled, once per process; whoever pickled it has seen the warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return TorchModel(path, device=device, threads=threads)


def describe_missing_folds(missing: Sequence[str], abouts: Sequence[Mapping[str, Any]]) -> str:
    """Return in words that models of a run are missing."""
    total = len(abouts[0]["card"]["folds"])
    return f"{len(abouts)} of the {total} models of the run are there; without fold {', '.join(missing)}"


def _require_alike(path: str | Path, abouts: Sequence[Mapping[str, Any]]) -> None:
    """Refuse models whose answers have no mean."""
    parts = [(a["vocabulary"]["classes"]["emotion"], a["vocabulary"]["ratings"]) for a in abouts]
    if any(part != parts[0] for part in parts):
        raise SertoneError(
            "mismatched_folds",
            f"the models in {path} answer other classes or ratings than each other",
            "the folds of one run",
            "name one fold",
        )

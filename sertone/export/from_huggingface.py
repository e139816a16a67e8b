"""Audio-classification checkpoints of Hugging Face: wav2vec 2.0, HuBERT, WavLM that others have trained.

Two layouts are known:
    - those of `AutoModelForAudioClassification`, such as SUPERB's (arXiv 2105.01051): layers, weighed or the
      last one, a projection, the mean over time, a classifier;
    - audEERING's (Wagner et al., Dawn of the Transformer Era in Speech Emotion Recognition, TPAMI 2023,
      arXiv 2203.07378): the mean of the last layer, a hidden layer with tanh, one output per label.
Classes are answered by softmax. Where `problem_type` is `regression`, or the labels are dimensions, the
outputs are ratings: from 0 to 1 in audEERING's layout, whose paper says so. No other layout states a scale.

Nothing of a checkpoint is run: weights in safetensors, the rest JSON.

Axis letters: B batch, N samples.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForAudioClassification, PretrainedConfig

from sertone import licences
from sertone.audio import SAMPLING_RATE
from sertone.errors import SertoneError
from sertone.export.exportable import ExportableModel
from sertone.export.heads import AUDEERING_ARCHITECTURE, HubPredictionGraph, SpeechClassification
from sertone.labels import DIMENSIONS, FOUR_CLASSES, SYNONYMS, Scale
from sertone.nn.encoders.huggingface import HuggingFaceEncoder
from sertone.nn.pretrained import (
    expects_normalized_waveforms,
    find_folder,
    load_feature_extractor,
    load_speech_config,
    load_weights,
)
from sertone.runtime.answering import DEFAULT_MAX_SECONDS, UNIT_SCALE, Outputs
from sertone.scoring.calibration import Calibration
from sertone.utils.hub import SAFE_WEIGHTS

ABBREVIATIONS = SYNONYMS | {
    "neu": "neutral",
    "cal": "calm",
    "hap": "happy",
    "exc": "excited",
    "ang": "angry",
    "fru": "frustrated",
    "sad": "sad",
    "fea": "fearful",
    "dis": "disgusted",
    "sur": "surprised",
    "bor": "bored",
    "con": "contempt",
    "oth": "other",
}
"""Label of a checkpoint in small letters -> our name."""
KNOWN = {name: name for name in (*DIMENSIONS, *ABBREVIATIONS.values())} | ABBREVIATIONS
"""The same with our own names; any other label stays as it is."""


def load_exportable(where: str) -> ExportableModel:
    """A checkpoint of Hugging Face, ready to be exported.

    Args:
        where: folder, or OWNER/NAME on the hub.

    Raises:
        SertoneError: `missing_encoder`, `remote_code`, `unknown_encoder`, `pickled_weights`, `bad_weights`,
            `missing_weights`, `label_map`, `unknown_head`, `missing_preprocessor`, `other_rate`.
    """
    folder = find_folder(where, SAFE_WEIGHTS)
    config = load_speech_config(str(folder))
    _require_known_head(config, where)
    _require_safetensors(folder, where)
    model = HubModel(folder, config, Path(where).name if Path(where).is_dir() else where)
    return ExportableModel(
        model=model,
        module=HubPredictionGraph(model.torch_model, model.normalize, rates=bool(model.scales)),
        inputs={"waveforms": 0.1 * torch.randn(2, SAMPLING_RATE)},
        class_map=FOUR_CLASSES
        if set(model.classes) == set(FOUR_CLASSES.values())
        else {n: n for n in model.classes},
        calibration=Calibration(note="not known: the checkpoint does not say").to_json(),
        about={
            "name": str((config.architectures or [AUDEERING_ARCHITECTURE])[0]),
            "encoders": config.model_type,
        },
        scores={},
        note=model.unused,
    )


class HubModel:
    """A checkpoint as `transformers` itself runs it: a `runtime.answering.Model`.

    Args:
        folder: of the checkpoint.
        config: its configuration.
        name: of the checkpoint, for its card.

    Attributes:
        torch_model: the model of `transformers`.
        normalize: whether it wants waveforms of zero mean and unit variance.
        unused: which weights of the checkpoint it has no use for, in one line; empty where there are none.
    """

    uses_audio, uses_text, max_seconds = True, False, DEFAULT_MAX_SECONDS
    threshold: float | None = None

    def __init__(self, folder: Path, config: PretrainedConfig, name: str) -> None:
        names = _labels(folder, config)
        rated = config.problem_type == "regression" or set(names) <= set(DIMENSIONS)
        self.classes: list[str] = [] if rated else names
        known = _is_audeerings(config) and set(names) <= set(DIMENSIONS)
        self.scales: dict[str, Scale | None] = (
            dict.fromkeys(names, UNIT_SCALE if known else None) if rated else {}
        )
        self.normalize = expects_normalized_waveforms(str(folder))
        self._extractor = load_feature_extractor(folder)
        _require_rate(self._extractor.sampling_rate, name)
        kind = SpeechClassification if _is_audeerings(config) else AutoModelForAudioClassification
        model, self.unused = load_weights(str(folder), config, kind=kind)
        self.torch_model: Any = model.eval()
        # Where layers are weighed, the last is the normed one, as it was in training: transformers before 5.
        self.torch_model.config.tie_last_hidden_states = True
        self.min_samples = HuggingFaceEncoder(self.torch_model.base_model, self.normalize).min_samples
        self.card = _card(name)
        self.licences = [{"what": licences.WHOLE_MODEL, "of": name} | asdict(_licence(folder, name))]

    def truncates(self, text: str) -> bool:
        """It reads nothing."""
        return False

    @torch.inference_mode()
    def outputs(self, waveforms: np.ndarray, text: str | None = None) -> Outputs:
        """Answers recordings of one length (B, N)."""
        given = self._extractor(list(waveforms), sampling_rate=SAMPLING_RATE, return_tensors="pt")
        logits = self.torch_model(given["input_values"]).logits
        nothing = np.zeros((len(waveforms), 0))
        if self.scales:
            return Outputs(nothing, logits.numpy())
        return Outputs(logits.softmax(-1).numpy(), nothing)


def _require_known_head(config: PretrainedConfig, where: str) -> None:
    named = config.architectures or ["nothing"]
    known = named[0] == AUDEERING_ARCHITECTURE or named[0].endswith("ForSequenceClassification")
    problem, pooling = config.problem_type, getattr(config, "pooling_mode", "mean")
    if not known or problem == "multi_label_classification" or pooling != "mean":
        raise SertoneError(
            "unknown_head",
            f"{where} is {named[0]}, problem_type {problem}, pooling {pooling}",
            f"...ForSequenceClassification or {AUDEERING_ARCHITECTURE}, one label per recording, the mean over time",
        )


def _require_safetensors(folder: Path, where: str) -> None:
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        raise SertoneError(
            "pickled_weights",
            f"{where} has {' and '.join(pickled) or 'no weights'}, no *.safetensors",
            "safetensors: reading a pickle can run code",
            "where you trust it: load it with transformers, save_pretrained(FOLDER), export hf:FOLDER",
        )


def _require_rate(rate: int, name: str) -> None:
    if rate != SAMPLING_RATE:
        raise SertoneError("other_rate", f"{name} hears {rate} Hz", f"{SAMPLING_RATE} Hz")


def _is_audeerings(config: PretrainedConfig) -> bool:
    return AUDEERING_ARCHITECTURE in (config.architectures or ())


def _labels(folder: Path, config: PretrainedConfig) -> list[str]:
    """The names of the outputs, in their order."""
    said: Any = dict(sorted((config.id2label or {}).items()))
    names = [KNOWN.get(str(label).lower(), str(label)) for label in said.values()]
    outputs = _outputs_of(folder)
    in_order = list(said) == list(range(outputs))
    if not in_order or len(set(names)) < len(names):
        found = ", ".join(f"{number} {name}" for number, name in zip(said, names, strict=True))
        raise SertoneError(
            "label_map",
            f"config.json of {folder.name} has the labels {found}; the head has {outputs} outputs",
            "one label for each output, from 0, no two the same",
        )
    return names


def _outputs_of(folder: Path) -> int:
    """Outputs of the classifier, as its file says."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt") as tensors:
                for name in ("classifier.out_proj.weight", "classifier.weight"):
                    if name in tensors.keys():  # noqa: SIM118  it is no mapping
                        return tensors.get_slice(name).get_shape()[0]
        except (SafetensorError, OSError) as error:
            raise SertoneError("bad_weights", f"{file}: {error}", "an intact file") from None
    raise SertoneError(
        "missing_weights", f"{folder.name} has no classifier", "an audio-classification checkpoint"
    )


def _card(name: str) -> dict[str, Any]:
    """What is known of the training: where to read about it."""
    corpus = {
        "name": "",
        "title": f"unknown; see the model card of {name}",
        "licence": asdict(licences.UNKNOWN),
        "language": "",
        "citation": "",
        "note": "",
    }
    return {"corpus": corpus, "selection": "unknown"}


def _licence(folder: Path, name: str) -> licences.Licence:
    """As its model card says, or as it is known of the hub."""
    stated = licences.find_encoder_licence(str(folder))
    return stated if stated != licences.UNKNOWN else licences.find_encoder_licence(name)

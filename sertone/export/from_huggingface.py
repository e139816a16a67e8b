"""Audio-classification checkpoints of Hugging Face: wav2vec 2.0 and its relatives, trained by others.

Two layouts are supported:
    - those of `AutoModelForAudioClassification`, such as SUPERB's (arXiv 2105.01051): weighted layers or the
      last one, a projection, the mean over time, a classifier;
    - audEERING's (Wagner et al., Dawn of the Transformer Era in Speech Emotion Recognition, TPAMI 2023,
      arXiv 2203.07378): the mean of the last layer, a hidden layer with tanh, one output per label.
A softmax turns outputs into probabilities of classes. Where `problem_type` is `regression`, or the labels are
dimensions, the outputs are ratings. In audEERING's layout they go from 0 to 1, as the paper says. The other
layout states no scale.

No code of a checkpoint is run: its weights are safetensors, the rest is JSON.

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
from sertone.nn.encoders.wav2vec2 import WAV2VEC2_FAMILIES, Wav2Vec2Encoder
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
"""Label of a checkpoint in lower case -> Sertone's name."""
LABEL_NAMES = {name: name for name in (*DIMENSIONS, *ABBREVIATIONS.values())} | ABBREVIATIONS
"""The same with Sertone's own names; any other label stays as it is."""


def load_exportable(source: str) -> ExportableModel:
    """Load a checkpoint of Hugging Face in the form in which it is exported.

    Args:
        source: folder, or OWNER/NAME on the hub.

    Raises:
        SertoneError: `missing_encoder`, `remote_code`, `unknown_encoder`, `pickled_weights`, `bad_weights`,
            `missing_weights`, `label_map`, `unknown_head`, `missing_preprocessor`, `other_rate`.
    """
    folder = find_folder(source, SAFE_WEIGHTS)
    config = load_speech_config(str(folder), WAV2VEC2_FAMILIES)
    _require_supported_head(config, source)
    _require_safetensors(folder, source)
    model = HubModel(folder, config, Path(source).name if Path(source).is_dir() else source)
    has_four_classes = set(model.classes) == set(FOUR_CLASSES.values())
    return ExportableModel(
        model=model,
        module=HubPredictionGraph(model.torch_model, model.normalize, rates=bool(model.scales)),
        inputs={"waveforms": 0.1 * torch.randn(2, SAMPLING_RATE)},
        class_map=FOUR_CLASSES if has_four_classes else {name: name for name in model.classes},
        calibration=Calibration(note="not known: the checkpoint does not say").to_json(),
        about={
            "name": str((config.architectures or [AUDEERING_ARCHITECTURE])[0]),
            "encoders": config.model_type,
        },
        scores={},
        note=model.unused,
    )


class HubModel:
    """A checkpoint as `transformers` itself runs it, as a `runtime.answering.Model`.

    Args:
        folder: folder of the checkpoint.
        config: its configuration.
        name: name of the checkpoint, for its card.

    Attributes:
        torch_model: the model of `transformers`.
        normalize: whether it expects waveforms of zero mean and unit variance.
        unused: weights of the checkpoint that the model does not use, in one line; empty: none.
    """

    uses_audio = True
    uses_text = False
    max_seconds = DEFAULT_MAX_SECONDS
    threshold: float | None = None

    def __init__(self, folder: Path, config: PretrainedConfig, name: str) -> None:
        names = _load_labels(folder, config)
        rates = config.problem_type == "regression" or set(names) <= set(DIMENSIONS)
        self.classes: list[str] = [] if rates else names
        has_known_scale = _is_audeerings(config) and set(names) <= set(DIMENSIONS)
        scale = UNIT_SCALE if has_known_scale else None
        self.scales: dict[str, Scale | None] = dict.fromkeys(names, scale) if rates else {}
        self.normalize = expects_normalized_waveforms(str(folder))
        self._extractor = load_feature_extractor(folder)
        kind = SpeechClassification if _is_audeerings(config) else AutoModelForAudioClassification
        model, self.unused = load_weights(str(folder), config, kind=kind)
        self.torch_model: Any = model.eval()
        # Where layers are weighted, the last hidden state is the normed one. So it was in training, with
        # transformers before version 5.
        self.torch_model.config.tie_last_hidden_states = True
        self.min_samples = Wav2Vec2Encoder(self.torch_model.base_model, self.normalize).min_samples
        self.card = _build_card(name)
        self.licences = [{"what": licences.WHOLE_MODEL, "of": name} | asdict(_find_licence(folder, name))]

    def truncates(self, text: str) -> bool:
        """Return False: the model uses no text."""
        return False

    @torch.inference_mode()
    def outputs(self, waveforms: np.ndarray, text: str | None = None) -> Outputs:
        """Predict recordings of one length (B, N)."""
        inputs = self._extractor(list(waveforms), sampling_rate=SAMPLING_RATE, return_tensors="pt")
        logits = self.torch_model(inputs["input_values"]).logits
        empty = np.zeros((len(waveforms), 0))
        if self.scales:
            return Outputs(empty, logits.numpy())
        return Outputs(logits.softmax(-1).numpy(), empty)


def _require_supported_head(config: PretrainedConfig, source: str) -> None:
    architecture = (config.architectures or ["nothing"])[0]
    is_supported = architecture == AUDEERING_ARCHITECTURE or architecture.endswith(
        "ForSequenceClassification"
    )
    problem, pooling = config.problem_type, getattr(config, "pooling_mode", "mean")
    if not is_supported or problem == "multi_label_classification" or pooling != "mean":
        raise SertoneError(
            "unknown_head",
            f"{source} is {architecture}, problem_type {problem}, pooling {pooling}",
            f"...ForSequenceClassification or {AUDEERING_ARCHITECTURE}, one label per recording, the mean "
            "over time",
        )


def _require_safetensors(folder: Path, source: str) -> None:
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        raise SertoneError(
            "pickled_weights",
            f"{source} has {' and '.join(pickled) or 'no weights'}, no *.safetensors",
            "safetensors: reading a pickle can run code",
            "if you trust it: load it with transformers, save_pretrained(FOLDER), export hf:FOLDER",
        )


def _is_audeerings(config: PretrainedConfig) -> bool:
    return AUDEERING_ARCHITECTURE in (config.architectures or ())


def _load_labels(folder: Path, config: PretrainedConfig) -> list[str]:
    """Return the names of the outputs, in their order."""
    labels: Any = dict(sorted((config.id2label or {}).items()))
    names = [LABEL_NAMES.get(str(label).lower(), str(label)) for label in labels.values()]
    outputs = _count_outputs(folder)
    is_complete = list(labels) == list(range(outputs))
    if not is_complete or len(set(names)) < len(names):
        listed = ", ".join(f"{number} {name}" for number, name in zip(labels, names, strict=True))
        raise SertoneError(
            "label_map",
            f"config.json of {folder.name} has the labels {listed}; the head has {outputs} outputs",
            "one label for each output, from 0, no two the same",
        )
    return names


def _count_outputs(folder: Path) -> int:
    """Return the number of outputs of the classifier, by the shape of its weights in the file."""
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


def _build_card(name: str) -> dict[str, Any]:
    """Return the card of a model whose training is unknown: it points to the model's own card."""
    corpus = {
        "name": "",
        "title": f"unknown; see the model card of {name}",
        "licence": asdict(licences.UNKNOWN),
        "language": "",
        "citation": "",
        "note": "",
    }
    return {"corpus": corpus, "selection": "unknown"}


def _find_licence(folder: Path, name: str) -> licences.Licence:
    """Return the licence in the checkpoint's model card, or the one known for its name on the hub."""
    stated = licences.find_encoder_licence(str(folder))
    return stated if stated != licences.UNKNOWN else licences.find_encoder_licence(name)

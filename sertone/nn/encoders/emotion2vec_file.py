"""Published emotion2vec models: a pickled file of weights with the names of the authors' code.

The sizes of the encoder follow from the shapes of the weights. Only the strides of the convolutions and the
dropout leave no trace in a file; they are the same in all published models.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError
from torch import Tensor

from sertone.errors import SertoneError
from sertone.nn.encoders.base import EncoderSettings
from sertone.nn.encoders.emotion2vec import Emotion2vecArchitectureConfig, Emotion2vecEncoder
from sertone.nn.tensor_files import load_pickled_tensors, require_complete, restore
from sertone.utils import hub

WEIGHTS = ("model.pt", "emotion2vec_base.pt")
"""File of weights: of the emotion2vec+ models, of the base model."""
CONFIG = "config.yaml"
EXPECTED = "a hub id, or a folder with the weights of an emotion2vec model"
PUBLISHED = "a published emotion2vec model"
OTHER_MODEL = "for a model of transformers set model.encoder.name: pretrained"
FINE_TUNED = "d2v_model."
"""Beginning of the names in the emotion2vec+ models, which are the encoder and a classifier."""
AUDIO = "modality_encoders.AUDIO."
CONTEXT_LAYERS = f"{AUDIO}context_encoder.blocks."
LAYER_PARTS = {"qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
"""Our name of a part of a layer -> its name in the file, where they differ."""
OPTIONS = {"layer_norm_first": False, "normalize": True}
"""Options of the authors' configuration that change the computation but not the shapes of the weights."""


class Emotion2vecConfig(EncoderSettings):
    """The encoder of a published emotion2vec or emotion2vec+ model, by hub id or folder."""

    name: Literal["emotion2vec"] = "emotion2vec"
    source: str
    """A hub id such as `emotion2vec/emotion2vec_plus_base`, or a folder with `model.pt`, in the base model
    `emotion2vec_base.pt`."""
    layerdrop: float = Field(default=0.0, ge=0, lt=1)
    """LayerDrop skips a trained layer with this probability at every step of training."""

    def build(self) -> Emotion2vecEncoder:
        """Load the weights; none may be missing.

        Raises:
            SertoneError: `missing_encoder`, `unknown_encoder`, `bad_weights`, `missing_weights`.
        """
        path = _find_file(self.source)
        _require_published_options(path.with_name(CONFIG))
        published = {
            name.removeprefix(FINE_TUNED): tensor.float()
            for name, tensor in load_pickled_tensors(path).items()
        }
        encoder = _find_sizes(published, path).model_copy(update={"layerdrop": self.layerdrop}).build()
        tensors, unused = _rename(published, encoder.state_dict())
        require_complete(encoder, tensors, path)
        restore(encoder, tensors, path)
        encoder.unused = _describe_unused(self.source, unused)
        return encoder


def _find_file(source: str) -> Path:
    """Return the file of weights, from the folder or the hub.

    Raises:
        SertoneError: `missing_encoder`.
    """
    folder = hub.resolve_folder(source, (*WEIGHTS, CONFIG), code="missing_encoder", expected=EXPECTED)
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise SertoneError("missing_encoder", f"no {' or '.join(WEIGHTS)} in {folder}", EXPECTED, OTHER_MODEL)


def _require_published_options(path: Path) -> None:
    """Require the options of the published models, if the folder has its configuration.

    Raises:
        SertoneError: `unknown_encoder`.
    """
    if not path.is_file():
        return
    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))["model_conf"]
        found = {name: options.get(name, expected) for name, expected in OPTIONS.items()}
    except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError, AttributeError) as error:
        raise SertoneError(
            "unknown_encoder",
            f"{path} cannot be read: {error!r}",
            "the configuration of an emotion2vec model",
            "fetch the file again",
        ) from error
    if found != OPTIONS:
        raise SertoneError(
            "unknown_encoder",
            f"{path} has {found}",
            f"{OPTIONS}, as all published models",
            "use a published model",
        )


def _find_sizes(published: Mapping[str, Tensor], path: Path) -> Emotion2vecArchitectureConfig:
    """Return the architecture that the shapes of the weights imply.

    Raises:
        SertoneError: `unknown_encoder`.
    """
    try:
        width, feed_forward = _measure(published, "blocks.0.mlp.fc2.weight", 2)
        _, inputs, kernel = _measure(published, f"{AUDIO}relative_positional_encoder.1.0.weight", 3)
        return Emotion2vecArchitectureConfig(
            width=width,
            depth=_count(published, CONTEXT_LAYERS) + _count(published, "blocks."),
            heads=_measure(published, f"{AUDIO}alibi_scale", 5)[2],
            feed_forward=feed_forward,
            channels=_measure(published, f"{AUDIO}project_features.2.weight", 2)[1],
            conv_kernel=_list_kernels(published),
            position_layers=_count(published, f"{AUDIO}relative_positional_encoder."),
            position_kernel=kernel,
            position_groups=width // max(1, inputs),
            extra_tokens=_measure(published, f"{AUDIO}extra_tokens", 3)[1],
        )
    except ValueError as error:
        problem = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise SertoneError("unknown_encoder", f"{path}: {problem}", PUBLISHED, OTHER_MODEL) from error


def _measure(published: Mapping[str, Tensor], name: str, dimensions: int) -> Sequence[int]:
    """Return the shape of a weight.

    Raises:
        ValueError: the weight is missing, or has another number of dimensions.
    """
    if name not in published:
        raise ValueError(f"there is no {name}")
    shape = published[name].shape
    if len(shape) != dimensions:
        raise ValueError(f"{name} has the shape {list(shape)}, which no published model has")
    return shape


def _list_kernels(published: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Return the kernels of the convolutions over the waveform.

    Raises:
        ValueError: as `_measure`.
    """
    layers = f"{AUDIO}local_encoder.conv_layers."
    numbers = range(_count(published, layers))
    return tuple(_measure(published, f"{layers}{number}.0.weight", 3)[2] for number in numbers)


def _count(published: Mapping[str, Tensor], beginning: str) -> int:
    """Count the numbers that follow in the names with this beginning."""
    rests = (name.removeprefix(beginning) for name in published if name.startswith(beginning))
    return len({rest.partition(".")[0] for rest in rests})


def _rename(published: Mapping[str, Tensor], names: Iterable[str]) -> tuple[dict[str, Tensor], set[str]]:
    """Return the weights by the encoder's names, and the names in the file that it does not use."""
    context_layers = _count(published, CONTEXT_LAYERS)
    theirs = {name: _name_in_file(name, context_layers) for name in names}
    tensors = {name: published[other] for name, other in theirs.items() if other in published}
    tensors["bias.scale"] = tensors["bias.scale"].flatten()
    return tensors, set(published) - set(theirs.values())


def _name_in_file(name: str, context_layers: int) -> str:
    """Return the name that one of the encoder's weights has in the file, without `FINE_TUNED`."""
    match name.split("."):
        case ["convolutions", index, part, kind]:
            place = {"conv": "0", "norm": "2.1"}[part]
            return f"{AUDIO}local_encoder.conv_layers.{index}.{place}.{kind}"
        case ["projection", index, kind]:
            return f"{AUDIO}project_features.{int(index) + 1}.{kind}"
        case ["positions", index, "conv", kind]:
            return f"{AUDIO}relative_positional_encoder.{int(index) + 1}.0.{kind}"
        case ["tokens", _]:
            return f"{AUDIO}extra_tokens"
        case ["bias", _]:
            return f"{AUDIO}alibi_scale"
        case ["norm", kind]:
            return f"{AUDIO}context_encoder.norm.{kind}"
        case ["layers", index, part, kind] if int(index) < context_layers:
            return f"{AUDIO}context_encoder.blocks.{index}.{LAYER_PARTS.get(part, part)}.{kind}"
        case ["layers", index, part, kind]:
            return f"blocks.{int(index) - context_layers}.{LAYER_PARTS.get(part, part)}.{kind}"
    raise KeyError(name)


def _describe_unused(source: str, names: Set[str]) -> str:
    """Name what the encoder leaves out: the classifier, and the decoder of the pretraining."""
    if not names:
        return ""
    parts = sorted({name.removeprefix(AUDIO).partition(".")[0] for name in names})
    return f"{source}: {len(names)} of its weights are not used: those of {', '.join(parts)}"

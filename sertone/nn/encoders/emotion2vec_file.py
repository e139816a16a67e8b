"""Published emotion2vec models: a pickled file of weights with the names of the authors' code.

The sizes of the encoder follow from the shapes of the weights. Only the strides of the convolutions and the
dropout leave no trace in a file; they are the same in all published models.
"""

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field
from torch import Tensor

from sertone.errors import SertoneError
from sertone.nn.encoders.base import EncoderSettings
from sertone.nn.encoders.emotion2vec import Emotion2vecArchitectureConfig, Emotion2vecEncoder
from sertone.nn.tensor_files import load_pickled_tensors, require_complete, restore
from sertone.utils import hub

WEIGHTS = "model.pt"
CONFIG = "config.yaml"
EXPECTED = f"a hub id, or a folder with the {WEIGHTS} of an emotion2vec model"
FINE_TUNED = "d2v_model."
"""Beginning of the names in the emotion2vec+ models, which are the encoder and a classifier."""
AUDIO = "modality_encoders.AUDIO."
LAYER_PARTS = {"qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
"""Our name of a part of a layer -> its name in the file, where they differ."""
OPTIONS = {"layer_norm_first": False, "normalize": True}
"""Options of the authors' configuration that change the computation but not the shapes of the weights."""


class Emotion2vecConfig(EncoderSettings):
    """The encoder of a published emotion2vec or emotion2vec+ model, by hub id or folder."""

    name: Literal["emotion2vec"] = "emotion2vec"
    source: str
    """A hub id such as `emotion2vec/emotion2vec_plus_base`, or a folder with `model.pt`."""
    layerdrop: float = Field(default=0.0, ge=0, lt=1)
    """LayerDrop skips a trained layer with this probability at every step of training."""

    def build(self) -> Emotion2vecEncoder:
        """Load the weights; none may be missing.

        Raises:
            SertoneError: `missing_encoder`, `unknown_encoder`, `bad_weights`, `missing_weights`.
        """
        files = (WEIGHTS, CONFIG)
        folder = hub.resolve_folder(self.source, files, code="missing_encoder", expected=EXPECTED)
        path = folder / WEIGHTS
        if not path.is_file():
            raise SertoneError("missing_encoder", f"no file {path}", EXPECTED)
        _require_published_options(folder / CONFIG)
        published = {
            name.removeprefix(FINE_TUNED): tensor.float()
            for name, tensor in load_pickled_tensors(path).items()
        }
        encoder = _find_sizes(published, path).model_copy(update={"layerdrop": self.layerdrop}).build()
        context_layers = _count(published, f"{AUDIO}context_encoder.blocks.")
        names = {name: _name_in_file(name, context_layers) for name in encoder.state_dict()}
        tensors = {name: published[theirs] for name, theirs in names.items() if theirs in published}
        tensors["bias.scale"] = tensors["bias.scale"].flatten()
        require_complete(encoder, tensors, path)
        restore(encoder, tensors, path)
        encoder.unused = _describe_unused(self.source, set(published) - set(names.values()))
        return encoder


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
        ) from error
    if found != OPTIONS:
        raise SertoneError("unknown_encoder", f"{path} has {found}", f"{OPTIONS}, as all published models")


def _find_sizes(published: Mapping[str, Tensor], path: Path) -> Emotion2vecArchitectureConfig:
    """Return the architecture that the shapes of the weights imply.

    Raises:
        SertoneError: `unknown_encoder`.
    """
    try:
        scale = published[f"{AUDIO}alibi_scale"].squeeze()
        position = published[f"{AUDIO}relative_positional_encoder.1.0.weight"]
        width, feed_forward = published["blocks.0.mlp.fc2.weight"].shape
        (heads,) = scale.shape  # one number for each head, the same in all layers
        sizes: dict[str, Any] = {
            "depth": _count(published, f"{AUDIO}context_encoder.blocks.") + _count(published, "blocks."),
            "conv_kernel": _list_kernels(published),
            "channels": published[f"{AUDIO}project_features.2.weight"].shape[1],
            "position_layers": _count(published, f"{AUDIO}relative_positional_encoder."),
            "position_kernel": position.shape[2],
            "position_groups": width // position.shape[1],
            "extra_tokens": published[f"{AUDIO}extra_tokens"].shape[1],
        }
        return Emotion2vecArchitectureConfig(width=width, heads=heads, feed_forward=feed_forward, **sizes)
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        problem = f"has no {error.args[0]}" if isinstance(error, KeyError) else f"has other shapes: {error}"
        raise SertoneError("unknown_encoder", f"{path} {problem}", "an emotion2vec model") from error


def _list_kernels(published: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Return the kernels of the convolutions over the waveform."""
    beginning = f"{AUDIO}local_encoder.conv_layers."
    return tuple(
        published[f"{beginning}{index}.0.weight"].shape[2] for index in range(_count(published, beginning))
    )


def _count(published: Mapping[str, Tensor], beginning: str) -> int:
    """Count the numbers that follow in the names with this beginning."""
    rests = (name.removeprefix(beginning) for name in published if name.startswith(beginning))
    return len({rest.partition(".")[0] for rest in rests})


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

"""Weights on the disk: safetensors only, every one of them there, and finite."""

import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sertone.errors import SertoneError


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes a safetensors file to the disk itself."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file.

    Raises:
        SertoneError: `bad_weights`.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise SertoneError("bad_weights", f"{path}: {error}", "an intact file") from None


def restore(model: Any, tensors: dict[str, Tensor], where: Path, *, whole: bool = True) -> None:
    """Puts weights into a model.

    Args:
        model: whose weights they are.
        tensors: by name.
        where: they come from.
        whole: they are all that the model has; or else some of them.

    Raises:
        SertoneError: `bad_weights`.
    """
    bad = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if bad:
        raise SertoneError("bad_weights", f"{where}: {bad[0]} is not finite", "finite weights")
    try:
        unknown = model.load_state_dict(tensors, strict=whole).unexpected_keys
    except RuntimeError as error:
        raise SertoneError("bad_weights", f"{where}: {error}", "the weights of this model") from None
    if unknown:
        raise SertoneError("bad_weights", f"{where} has {unknown[0]}", "the weights of this model")

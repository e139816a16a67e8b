"""Weights on the disk: safetensors only, every one of them there, of the model's own kind, and finite."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from sertone.errors import SertoneError
from sertone.files import remove_partial_file, require_regular


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file to the disk itself.

    Raises:
        SertoneError: `disk_full`.
    """
    with writing_tensors(path):
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
        with open(path, "rb") as file:
            os.fsync(file.fileno())


@contextmanager
def writing_tensors(path: Path) -> Iterator[None]:
    """Give a safetensors file the rights of other new files; the library lets its owner alone read it.

    Raises:
        SertoneError: `disk_full`.
    """
    path.touch()
    rights = path.stat().st_mode
    with remove_partial_file(path):
        try:
            yield
        except SafetensorError as error:  # which knows the number of the system's error in words only
            if not (number := re.search(r"os error (\d+)", str(error))):
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    path.chmod(rights)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        SertoneError: `bad_weights`.
    """
    require_regular(path, "bad_weights")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise SertoneError("bad_weights", f"{path}: {error}", "an intact file") from None


def load_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes that the header of a safetensors file names, without reading the weights.

    Raises:
        SertoneError: `bad_weights`.
    """
    require_regular(path, "bad_weights")
    try:
        with safe_open(path, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise SertoneError("bad_weights", f"{path}: {error}", "an intact file") from None


def restore(model: Any, tensors: dict[str, Tensor], source: Path, *, complete: bool = True) -> None:
    """Put weights into a model.

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
        raise SertoneError("bad_weights", f"{source}: {bad[0]} is not finite", "finite weights")
    own = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    if other := [name for name, tensor in tensors.items() if own.get(name, tensor.dtype) != tensor.dtype]:
        found = f"{source}: {other[0]} is {tensors[other[0]].dtype}"
        raise SertoneError("bad_weights", found, f"{own[other[0]]}")
    try:
        unknown = model.load_state_dict(tensors, strict=complete).unexpected_keys
    except RuntimeError as error:
        raise SertoneError("bad_weights", f"{source}: {error}", "the weights of this model") from None
    if unknown:
        raise SertoneError("bad_weights", f"{source} has {unknown[0]}", "the weights of this model")

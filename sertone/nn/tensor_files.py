"""Weights on the disk: safetensors files only, complete, of the model's number types, and finite."""

import os
import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from sertone.errors import SertoneError, first_line
from sertone.files import remove_partial_file, require_regular


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file, and wait until it is on the disk.

    Raises:
        SertoneError: `disk_full`.
    """
    with writing_tensors(path):
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
        with open(path, "rb") as file:
            os.fsync(file.fileno())


@contextmanager
def writing_tensors(path: Path) -> Iterator[None]:
    """Write a safetensors file with the rights of other new files; the library lets only its owner read it.

    Raises:
        SertoneError: `disk_full`.
    """
    path.touch()  # a new file, with the rights that the process gives to new files
    rights = path.stat().st_mode
    with remove_partial_file(path):
        try:
            yield
        except SafetensorError as error:  # has the number of the system's error in its text only
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    path.chmod(rights)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Load a safetensors file.

    Raises:
        SertoneError: `bad_weights`.
    """
    require_regular(path, "bad_weights")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise SertoneError("bad_weights", f"{path}: {error}", "an intact file") from None


class _LeftOut:
    """Stands for an object of any class in a pickled file, and has none of its content."""

    def __new__(cls, *args: Any) -> Self:
        return super().__new__(cls)

    def __init__(self, *args: Any) -> None: ...
    def __setstate__(self, state: Any) -> None: ...


def load_pickled_tensors(path: Path) -> dict[str, Tensor]:
    """Load the tensors of a file that `torch.save` wrote, without running anything in it.

    Training programs save their settings beside the weights, as objects of their own classes. torch refuses
    such a file. Here an inert object stands for each of them.

    Args:
        path: a file whose weights are under the key `model`, if they are not at the top.

    Raises:
        SertoneError: `bad_weights`.
    """
    require_regular(path, "bad_weights")
    try:
        classes = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        with torch.serialization.safe_globals([(_LeftOut, name) for name in classes]):
            content = torch.load(path, map_location="cpu", weights_only=True)
        weights = content.get("model", content)
        return {str(name): value for name, value in weights.items() if isinstance(value, Tensor)}
    except Exception as error:  # what a damaged or foreign file raises has no common class
        raise SertoneError(
            "bad_weights",
            f"{path}: {describe_failure(error)}",
            "an intact file of torch.save",
            "fetch it again, or save its weights alone with torch.save",
        ) from error


def describe_failure(error: Exception) -> str:
    """Return why weights cannot be loaded, without torch's advice to load a pickle that it refuses."""
    if isinstance(error, pickle.UnpicklingError):
        return "its pickle is damaged, or holds objects that are no tensors"
    return first_line(error)


def load_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Load the shapes in the header of a safetensors file, without its weights.

    Raises:
        SertoneError: `bad_weights`.
    """
    require_regular(path, "bad_weights")
    try:
        with safe_open(path, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise SertoneError("bad_weights", f"{path}: {error}", "an intact file") from None


class HasWeights(Protocol):
    """A model, or a part of one."""

    def state_dict(self) -> dict[str, Tensor]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> Any: ...


def restore(model: HasWeights, tensors: dict[str, Tensor], source: Path, *, complete: bool = True) -> None:
    """Put weights into a model.

    Args:
        model: the model.
        tensors: name -> weights.
        source: the file or folder of the weights, for messages.
        complete: the tensors must be all weights of the model; otherwise they may be some of them.

    Raises:
        SertoneError: `bad_weights`.
    """
    bad = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if bad:
        raise SertoneError("bad_weights", f"{source}: {bad[0]} is not finite", "finite weights")
    # torch would convert the numbers of another type without a word.
    dtypes = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    for name, tensor in tensors.items():
        if name in dtypes and tensor.dtype != dtypes[name]:
            raise SertoneError("bad_weights", f"{source}: {name} is {tensor.dtype}", f"{dtypes[name]}")
    try:
        unknown = model.load_state_dict(tensors, strict=complete).unexpected_keys
    except RuntimeError as error:
        raise SertoneError("bad_weights", f"{source}: {error}", "the weights of this model") from None
    if unknown:
        raise SertoneError("bad_weights", f"{source} has {unknown[0]}", "the weights of this model")


def require_complete(model: HasWeights, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Require that there is a tensor for every weight of a model.

    Raises:
        SertoneError: `missing_weights`.
    """
    if missing := sorted(set(model.state_dict()) - set(tensors)):
        raise SertoneError(
            "missing_weights",
            f"{source} lacks {len(missing)} weights: {', '.join(missing[:5])}",
            "every weight of the encoder in the file",
            "they would be random; train or fetch the model again",
        )

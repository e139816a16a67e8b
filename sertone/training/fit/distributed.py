"""Train one model in several processes: torchrun starts them, and each gets a share of every epoch.

`torchrun --nproc-per-node 2 -m sertone train RECIPE` gives each of two processes every second batch and
averages their gradients. Only the first process writes files and reports progress.
"""

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from sertone.errors import SertoneError
from sertone.recipe.precision import find_device_type
from sertone.recipe.train_config import TrainConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Value = TypeVar("Value")
WATCH_S = 0.5
"""The seconds between two checks that the launcher is still alive."""


def world_size() -> int:
    """Return the number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Return True for the process that writes files and reports progress."""
    return rank() == 0


def require_device(device: str, precision: str = "32-true") -> None:
    """Refuse a device that this machine does not have, or that does not compute in the precision asked for.

    Args:
        device: `train.device`.
        precision: `train.precision`.

    Raises:
        SertoneError: `no_device`.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device, True):
        raise SertoneError(
            "no_device", f"torch finds no device for train.device {device!r}", "auto or cpu on this machine"
        )
    if precision == "16-mixed" and find_device_type(device) == "mps":
        raise SertoneError(
            "no_device", "train.precision is 16-mixed, and the device is mps", "cuda or cpu, or 32-true"
        )


def make_fabric(config: TrainConfig, *, partial: bool = False) -> "Fabric":
    """Return device and precision of one model, or of this process's share of it.

    Args:
        config: the `train` part of the recipe.
        partial: True where some steps use only a part of the weights: an encoder whose input is missing, or a
            skipped layer.
    """
    # Imported here, since its import brings torch's compiler: 2 s and a folder that predictions do not need.
    from lightning_fabric import Fabric

    # Fabric announces itself in every process. Its import sets the level to INFO, so this comes after it.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    precision = _choose_precision(config)
    if world_size() == 1:
        return Fabric(accelerator=config.device, devices=1, **precision)
    local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))
    fabric = Fabric(
        accelerator=config.device,
        devices=local_world_size,
        num_nodes=world_size() // local_world_size,
        # The plain strategy waits for the gradient of every weight, also of unused ones.
        strategy="ddp_find_unused_parameters_true" if partial else "ddp",
        **precision,
    )
    fabric.launch()
    return fabric


def _choose_precision(config: TrainConfig) -> dict[str, Any]:
    """Return the arguments of Fabric for `train.precision`, in which the recipe has resolved `auto`."""
    # Imported here, as Fabric is.
    from sertone.training.fit.mixed_precision import MixedPrecisionOfProducts

    if config.precision not in ("16-mixed", "bf16-mixed"):
        return {"precision": config.precision}
    return {"plugins": [MixedPrecisionOfProducts(config.precision, find_device_type(config.device))]}


def init(device: str) -> None:
    """Connect to the other processes, if there are any."""
    if world_size() > 1 and not dist.is_initialized():
        cuda = find_device_type(device) == "cuda"
        if cuda:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        _end_with_the_launcher()
        dist.init_process_group("nccl" if cuda else "gloo")


def _end_with_the_launcher() -> None:
    """End this process soon after its launcher; without a launcher, processes wait for each other forever."""
    launcher = os.getppid()

    def watch() -> None:
        # An orphan gets another parent.
        while os.getppid() == launcher:
            time.sleep(WATCH_S)
        os._exit(1)  # `sys.exit` would end this thread only

    threading.Thread(target=watch, name="launcher", daemon=True).start()


def barrier() -> None:
    """Block until every process arrives."""
    if dist.is_initialized():
        dist.barrier()


def mean(values: Tensor) -> Tensor:
    """Average values over all processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
        values /= world_size()
    return values


def share_first(value: Value) -> Value:
    """Return the value of the first process in all of them, for decisions that must not differ."""
    return gather(value)[0]


def share_buffers(model: nn.Module) -> None:
    """Give the model of every process the buffers of the first, such as the moments of batch norms.

    torch copies them before each forward pass, so after the last batch of an epoch they differ.
    """
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def gather(value: Value) -> list[Value]:
    """Return the values of all processes, in order."""
    if not dist.is_initialized():
        return [value]
    values: list = [None] * world_size()
    dist.all_gather_object(values, value)
    return values

"""Several processes training one model: torchrun starts them, each sees a share of every epoch.

`torchrun --nproc-per-node 2 -m sertone train RECIPE` gives each of two processes every second batch and
averages their gradients. Only the first one writes and reports.
"""

import logging
import os
import threading
import time
from typing import Literal, TypeVar, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch import distributed as dist

from sertone.recipe.train_config import TrainConfig

Value = TypeVar("Value")
WATCH_S = 0.5
"""Between two looks at whether the launcher still lives, in seconds."""

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces itself in every process


def world_size() -> int:
    """How many there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which one this is, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Whether this one writes and reports."""
    return rank() == 0


def make_fabric(config: TrainConfig, *, partial: bool = False) -> Fabric:
    """Device and precision of one model, or of this rank's share of it.

    Args:
        config: the `train` part of the recipe.
        partial: some steps leave weights out: an encoder whose input is missing, or a skipped layer.
    """
    precision = cast(Literal["32-true", "bf16-mixed"], config.precision)  # `auto` was settled on reading
    if world_size() > 1:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))
        made = Fabric(
            accelerator=config.device,
            devices=here,
            num_nodes=world_size() // here,
            strategy="ddp_find_unused_parameters_true" if partial else "ddp",
            precision=precision,
        )
        made.launch()
        return made
    return Fabric(accelerator=config.device, devices=1, precision=precision)


def init(device: str) -> None:
    """Meets the other ranks, if there are any."""
    if world_size() > 1 and not dist.is_initialized():
        cuda = device in ("auto", "cuda") and torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        _end_with_the_launcher()
        dist.init_process_group("nccl" if cuda else "gloo")


def _end_with_the_launcher() -> None:
    """End this process soon after its launcher: without one, ranks wait for each other forever."""
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(WATCH_S)
        os._exit(1)

    threading.Thread(target=watch, name="launcher", daemon=True).start()


def barrier() -> None:
    """Until all ranks are here."""
    if dist.is_initialized():
        dist.barrier()


def mean(values: Tensor) -> Tensor:
    """Over the ranks."""
    if dist.is_initialized():
        dist.all_reduce(values)
        values /= world_size()
    return values


def gather(value: Value) -> list[Value]:
    """The values of all ranks, in order."""
    if not dist.is_initialized():
        return [value]
    values: list = [None] * world_size()
    dist.all_gather_object(values, value)
    return values

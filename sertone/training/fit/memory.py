"""How much memory a training step takes, by an estimate, and whether the longest recording fits at all.

Attention compares every frame with every other one. So memory grows with the square of the length: one
recording of ten minutes takes ten thousand times as much as one of six seconds. The estimate for a batch of B
utterances of N samples, which are T = N / hop frames (`nn.encoder.Footprint` has the encoder's numbers):

    held  = T^2 scores (L + 1/2) + T (values L + 6 D (depth + 1))    numbers
    bytes = B max(held * bytes of a number, N front)

with L the trained layers; the last summand of `held` stands for what fusion and heads make of the hidden
states. A number takes 4 bytes in fp32 and about 2.4 in bf16 mixed with fp32. Weights, gradients and moments
come on top. A trained front end keeps its values, too. Text encoders are left out: their inputs are short.
tests/test_memory.py compares the estimate with what is measured.

Axis letters: B batch, N samples, T frames, L trained layers, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sertone.audio import SAMPLING_RATE
from sertone.errors import SertoneError
from sertone.models.contract import EmotionModel
from sertone.nn.encoders.base import Encoder
from sertone.protocol.splits import Fold
from sertone.recipe.train_config import TrainConfig
from sertone.schema import Utterance

NUMBER = {"32-true": 4.0, "bf16-mixed": 2.4}
"""Bytes of a number that waits for the gradient, by `train.precision`."""
WEIGHT, TRAINED_WEIGHT = 4, 16
"""Bytes of a weight; of one that is trained, with its gradient and two moments."""
KEPT_FRONT = 3
"""How often a trained front end takes what a frozen one takes: it keeps its values."""
SHORTER_S = (600, 300, 180, 120, 90, 60, 45, 30, 20, 15, 10, 5)
"""What an error may propose as `data.max_seconds`."""


@dataclass
class StepMemory:
    """Estimates the memory of one step; see the module.

    Attributes:
        encoder: of the model.
        config: the `train` part of the recipe.
        device: its type, such as `cpu`.
        cut: where the frozen prefix ends, as `Encoder.freeze` counts; None: nothing is trained.
        bounded: batches that `too_much` has ended.
    """

    encoder: Encoder
    config: TrainConfig
    device: str
    cut: int | None
    limited_batches: int = 0

    def estimate_gb(self, batch: int, seconds: float) -> float:
        """Return the GB of a batch beside the weights.

        Args:
            batch: B.
            seconds: of the longest utterance.
        """
        layers = 0 if self.cut is None else self.encoder.depth - max(self.cut, 0)
        shape = self.encoder.footprint(fused=self.device == "cuda" or not layers)
        frames = seconds * SAMPLING_RATE / shape.hop
        states = 6 * self.encoder.width * (self.encoder.depth + 1)
        numbers = frames**2 * shape.scores * (layers + 0.5) + frames * (shape.values * layers + states)
        held, front = numbers * NUMBER[self.config.precision], seconds * SAMPLING_RATE * shape.front
        trained_front = self.cut is not None and self.cut < 0
        return batch * (held + KEPT_FRONT * front if trained_front else max(held, front)) / 1e9

    def exceeds_limit(self, batch: int, seconds: float) -> bool:
        """Return whether so many utterances of up to so many seconds exceed `train.batch_gb`."""
        exceeded = self.estimate_gb(batch, seconds) > self.config.batch_gb
        self.limited_batches += exceeded
        return exceeded


def require_memory(
    model: EmotionModel,
    folds: Sequence[Fold],
    lengths: dict[str, int],
    config: TrainConfig,
    device: str,
    jobs: int = 1,
) -> None:
    """Refuse recordings that do not fit into memory even alone, before the first step.

    Args:
        model: with its stages, on the CPU.
        folds: what is trained on, and answered.
        lengths: samples by utterance id.
        config: the `train` part of the recipe.
        device: type of the device.
        jobs: processes that share the memory of the machine.

    Raises:
        SertoneError: `too_long_for_memory`.
    """
    room = available_gb(device) / (1 if device == "cuda" else jobs)
    trained = [u for fold in folds for u in fold.train]
    others = [u for fold in folds for side in (fold.validation, fold.test) for u in side]
    for side, speed, cuts in (
        (trained, min(config.playback_speeds), [stage.cut for stage in model.stages()]),
        (others, 1.0, [None]),
    ):
        if not side:
            continue
        longest = max(side, key=lambda u: lengths[u.id])
        seconds = lengths[longest.id] / SAMPLING_RATE
        for cut in cuts:
            step = StepMemory(model.encoder, config, device, cut)
            free = room - _weights_gb(model, trained=cut is not None)
            if step.estimate_gb(1, seconds / speed) > free:
                raise _too_long(longest, seconds, speed, step, free)


def _too_long(
    utterance: Utterance, seconds: float, speed: float, step: StepMemory, free: float
) -> SertoneError:
    slower = f", {seconds / speed:.0f} s at speed {speed:g}" if speed != 1 else ""
    fitting = next((s for s in SHORTER_S if step.estimate_gb(1, s / speed) < free), None)
    limit = f"set data.max_seconds: {fitting}, and data.longer to cut such recordings or leave them out"
    return SertoneError(
        "too_long_for_memory",
        f"{utterance.id} lasts {seconds:.0f} s{slower}; a step on it alone takes about "
        f"{step.estimate_gb(1, seconds / speed):.0f} GB, and {max(free, 0):.1f} GB are free for it",
        "recordings that fit into memory",
        limit
        if fitting
        else "take a smaller encoder, fewer folds side by side (--jobs), or a larger machine",
    )


def _weights_gb(model: EmotionModel, trained: bool) -> float:
    return sum(p.numel() for p in model.parameters()) * (TRAINED_WEIGHT if trained else WEIGHT) / 1e9


def available_gb(device: str) -> float:
    """Return the free memory of a GPU, or of the machine and its container; infinite if not known."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0] / 1e9
    free = [float("inf")]
    if (machine := _numbers(Path("/proc/meminfo"))).get("MemAvailable:"):
        free.append(machine["MemAvailable:"] * 1024)
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        free.append(limit - used + _numbers(group / "memory.stat").get("inactive_file", 0))
    except (OSError, ValueError):  # no container, or one without a limit
        pass
    return min(free) / 1e9


def _numbers(path: Path) -> dict[str, int]:
    """Return the lines `name number` of a file of the kernel; none where there is no such file."""
    try:
        rows = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}

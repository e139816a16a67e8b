"""Estimate the memory of a training step, and refuse recordings that do not fit into memory at all.

Attention compares every frame with every other frame. The memory therefore grows with the square of the
length: one recording of ten minutes takes ten thousand times as much as one of six seconds. The estimate for
a batch of B utterances of N samples, which are T = N / hop frames (`nn.encoders.base.Footprint` has the
encoder's `scores`, `values` and `front`), is:

    numbers = T^2 scores (L + 1/2) + T (values L + 6 D (depth + 1))
    bytes   = B max(numbers * bytes of a number, N front)

L is the number of trained layers. The last summand stands for what fusion and heads compute from the hidden
states. A number takes 4 bytes in fp32 and about 2.4 in bf16 mixed with fp32. Weights, gradients and moments
come on top. A trained front end keeps its values, too. Text encoders are left out, because their inputs are
short. tests/test_memory.py compares the estimate with measurements.

Axis letters: B batch, N samples, T frames, L trained layers, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sertone.audio import SAMPLING_RATE
from sertone.errors import SertoneError
from sertone.models.contract import EmotionModel
from sertone.models.stage import Stage
from sertone.nn.encoders.base import Encoder
from sertone.protocol.splits import Fold
from sertone.recipe.train_config import TrainConfig
from sertone.schema import Utterance
from sertone.training.fit.preparation import count_trained, freeze

NUMBER_BYTES = {"32-true": 4.0, "bf16-mixed": 2.4, "16-mixed": 2.4}
"""The bytes of a number that is stored for the gradient, by `train.precision`."""
WEIGHT_BYTES = 4
"""The bytes of a weight, and of its moving average."""
TRAINED_WEIGHT_BYTES = 12
"""The bytes that a trained weight takes in addition: its gradient and two moments."""
TRAINED_FRONT = 3
"""The memory of a trained front end relative to a frozen one, because it keeps its values."""
PROPOSED_SECONDS = (600, 300, 180, 120, 90, 60, 45, 30, 20, 15, 10, 5)
"""The values of `data.max_seconds` that an error may propose."""


@dataclass
class StepMemory:
    """An estimate of the memory of one step; the docstring of the module has the formula.

    Attributes:
        encoder: encoder of the model.
        config: the `train` part of the recipe.
        device: its type, such as `cpu`.
        cut: the end of the frozen prefix, as `Encoder.freeze` counts; None: nothing is trained.
        limited_batches: the number of batches that `exceeds_limit` has ended.
    """

    encoder: Encoder
    config: TrainConfig
    device: str
    cut: int | None
    limited_batches: int = 0

    def estimate_gb(self, batch: int, seconds: float) -> float:
        """Return the memory of a batch in GB, without the weights.

        Args:
            batch: B.
            seconds: duration of the longest utterance.
        """
        layers = 0 if self.cut is None else self.encoder.depth - max(self.cut, 0)
        # Frozen layers have no dropout, so their attention holds no scores on a CPU either.
        shape = self.encoder.footprint(fused=self.device == "cuda" or not layers)
        frames = seconds * SAMPLING_RATE / shape.hop
        states = 6 * self.encoder.width * (self.encoder.depth + 1)
        numbers = frames**2 * shape.scores * (layers + 0.5) + frames * (shape.values * layers + states)
        layer_bytes = numbers * NUMBER_BYTES[self.config.precision]
        front_bytes = seconds * SAMPLING_RATE * shape.front
        if self.cut is not None and self.cut < 0:  # the front end is trained, so both stay in memory
            return batch * (layer_bytes + TRAINED_FRONT * front_bytes) / 1e9
        return batch * max(layer_bytes, front_bytes) / 1e9

    def exceeds_limit(self, batch: int, seconds: float) -> bool:
        """Return True where so many utterances of up to so many seconds exceed `train.batch_gb`."""
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
        model: model with its stages, on the CPU.
        folds: folds with the utterances to train on and to predict.
        lengths: samples by utterance id.
        config: the `train` part of the recipe.
        device: type of the device.
        jobs: processes that share the memory of the machine.

    Raises:
        SertoneError: `too_long_for_memory`.
    """
    available = available_gb(device) / (1 if device == "cuda" else jobs)
    training = [u for fold in folds for u in fold.train]
    evaluation = [u for fold in folds for subset in (fold.validation, fold.test) for u in subset]
    for utterances, speed, stages in (
        (training, min(config.playback_speeds), model.stages()),
        (evaluation, 1.0, [None]),
    ):
        if not utterances:
            continue
        longest = max(utterances, key=lambda u: lengths[u.id])
        seconds = lengths[longest.id] / SAMPLING_RATE
        for stage in stages:
            step = StepMemory(model.encoder, config, device, stage.cut if stage else None)
            free = available - _estimate_weights_gb(model, stage, config)
            if step.estimate_gb(1, seconds / speed) > free:
                raise _make_error(longest, seconds, speed, step, free)


def _make_error(
    utterance: Utterance, seconds: float, speed: float, step: StepMemory, free: float
) -> SertoneError:
    slower = f", {seconds / speed:.0f} s at speed {speed:g}" if speed != 1 else ""
    fitting = next((s for s in PROPOSED_SECONDS if step.estimate_gb(1, s / speed) < free), None)
    way_out = "use a smaller encoder, fewer folds side by side (--jobs), or a larger machine"
    if fitting:
        way_out = f"set data.max_seconds: {fitting}, and data.longer to cut such recordings or leave them out"
    return SertoneError(
        "too_long_for_memory",
        f"{utterance.id} lasts {seconds:.0f} s{slower}; a step on it alone takes about "
        f"{step.estimate_gb(1, seconds / speed):.0f} GB, and {max(free, 0):.1f} GB are free for it",
        "recordings that fit into memory",
        way_out,
    )


def _estimate_weights_gb(model: EmotionModel, stage: Stage | None, config: TrainConfig) -> float:
    """Estimate the memory of the weights, in GB; of a stage with the gradients and moments that it needs."""
    total = sum(parameter.numel() for parameter in model.parameters()) * WEIGHT_BYTES
    if stage is not None:
        freeze(model, stage)
        trained_bytes = TRAINED_WEIGHT_BYTES + (WEIGHT_BYTES if config.ema else 0)
        total += sum(count_trained(model, config.lora).values()) * trained_bytes
    return total / 1e9


def available_gb(device: str) -> float:
    """Return the free memory of a GPU, or of the machine and its container; infinite if it is not known."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0] / 1e9
    free = [float("inf")]
    machine = _read_numbers(Path("/proc/meminfo"))
    if machine.get("MemAvailable:"):
        free.append(machine["MemAvailable:"] * 1024)  # in KiB
    group = Path("/sys/fs/cgroup")
    try:
        limit, current = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        # The kernel counts cached files as memory of the container, and frees them when needed.
        free.append(limit - current + _read_numbers(group / "memory.stat").get("inactive_file", 0))
    except (OSError, ValueError):  # no container, or one without a limit
        pass
    return min(free) / 1e9


def _read_numbers(path: Path) -> dict[str, int]:
    """Return the lines `name number` of a kernel file; none where the file does not exist."""
    try:
        rows = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}

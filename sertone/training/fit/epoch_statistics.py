"""What happened in one epoch: losses, gradient norms, answers, steps that could not be taken."""

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from sertone.errors import SertoneError
from sertone.nn.heads import HeadOutput, TranscriptHead
from sertone.nn.vocabulary import TRANSCRIPT
from sertone.schema import Utterance
from sertone.scoring import metrics
from sertone.scoring.display import format_count
from sertone.training.fit import distributed

MISSING = -1
DIVERGENCE_ADVICE = "lower the learning rates and start again with --fresh"
"""What helps against divergence; other rates are another experiment, so the saves do not count."""


def require_valid_step(epochs: Sequence[dict], where: str) -> None:
    """Refuse a stage that could not train anything: fewer steps than `max_bad_steps`, all of them bad.

    Args:
        epochs: the `summary` of each.
        where: it is in its training.

    Raises:
        SertoneError: `not_finite`.
    """
    bad = sum(epoch["skipped_steps"] for epoch in epochs)
    if bad and all(math.isnan(epoch["loss"]) for epoch in epochs):
        raise SertoneError(
            "not_finite",
            f"{where}: no finite loss or gradient in {format_count(bad, 'step')}",
            "a step that can be taken",
            f"{DIVERGENCE_ADVICE}, or look at the recordings",
        )


class EpochStatistics:
    """Sums and counts of one epoch.

    Args:
        max_bad_steps: steps in a row without a finite loss or gradient before training stops.
        bad_in_a_row: such steps at the end of the epoch before.
        clip_norm: norm from which on gradients are clipped.
    """

    def __init__(self, max_bad_steps: int, bad_in_a_row: int = 0, clip_norm: float = math.inf) -> None:
        self.max_bad_steps, self.bad_in_a_row = max_bad_steps, bad_in_a_row
        self.clip_norm = clip_norm
        self.sums: dict[str, float] = defaultdict(float)
        self.steps = self.bad = 0
        self.norms: list[float] = []
        self.pairs: list[Tensor] = []
        self.unfit: list[Tensor] = []

    def add_step(
        self, losses: dict[str, Tensor], loss: Tensor, norm: Tensor, utterances: Sequence[Utterance]
    ) -> bool:
        """Whether the step may be taken, the same on all ranks; looks at the device once."""
        values = distributed.mean(torch.stack([loss, norm, *losses.values()]).detach())
        total, length, *parts = values.tolist()
        if not (math.isfinite(total) and math.isfinite(length)):
            self.bad += 1
            self.bad_in_a_row += 1
            if self.bad_in_a_row >= self.max_bad_steps:
                raise SertoneError(
                    "not_finite",
                    f"{format_count(self.bad_in_a_row, 'step')} in a row without a finite loss or gradient, the "
                    f"last with {', '.join(u.id for u in utterances)}",
                    "finite ones",
                    f"{DIVERGENCE_ADVICE}, or look at these recordings",
                )
            return False
        self.bad_in_a_row = 0
        self.steps += 1
        self.norms.append(length)
        self.sums["loss"] += total
        for task, value in zip(losses, parts, strict=True):
            self.sums[f"loss_{task}"] += value
        return True

    def add_outputs(self, outputs: dict[str, HeadOutput], targets: dict[str, Tensor]) -> None:
        """Takes note of the batch's answers, without waiting for the device."""
        if "emotion" in targets:
            target, answer = targets["emotion"], outputs["emotion"].logits.argmax(-1)
            spoken = torch.where(target.any(-1), target.argmax(-1), MISSING)
            self.pairs.append(torch.stack([spoken, answer]))
        if TRANSCRIPT in targets:
            self.unfit.append(TranscriptHead.exceeds_frames(outputs[TRANSCRIPT], targets[TRANSCRIPT]).sum())

    def summarise(self) -> dict:
        """Return the epoch's means and counts, over all ranks; the loss of no step is NaN."""
        entry: dict = {name: total / max(1, self.steps) for name, total in self.sums.items()}
        entry |= self._gradients()
        unfit = int(torch.stack(self.unfit).sum()) if self.unfit else 0
        entry |= {"skipped_steps": self.bad, "unfit_transcripts": sum(distributed.gather(unfit))}
        own = torch.cat(self.pairs, 1).T.tolist() if self.pairs else []
        pairs = [pair for pairs in distributed.gather(own) for pair in pairs]
        labelled = [(str(target), str(answer)) for target, answer in pairs if target != MISSING]
        if labelled:
            entry["ua"] = metrics.emotion_scores(*map(list, zip(*labelled, strict=True)))["ua"]
        return {"loss": math.nan} | entry

    def _gradients(self) -> dict[str, float]:
        """Return mean and largest norm before clipping, and the share of clipped steps; empty of no step."""
        if not self.norms:
            return {}
        clipped = sum(norm > self.clip_norm for norm in self.norms)
        return {
            "gradient_norm": sum(self.norms) / len(self.norms),
            "gradient_norm_max": max(self.norms),
            "clipped_steps": clipped / len(self.norms),
        }

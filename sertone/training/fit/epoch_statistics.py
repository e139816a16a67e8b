"""Collect the statistics of one epoch: losses, gradient norms, predictions, skipped steps."""

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
from sertone.training.fit import distributed
from sertone.utils.wording import format_count

UNLABELLED = -1
"""The class index of an utterance without an emotion label."""
DIVERGENCE_ADVICE = "lower the learning rates or avoid 16-mixed, and start again with --fresh"
"""The way out of a divergence. Other settings are another experiment, so its saves cannot be resumed."""


def require_valid_step(epochs: Sequence[dict], where: str) -> None:
    """Refuse a stage whose steps were all skipped, and too few for `max_bad_steps` to stop it.

    Args:
        epochs: the summary of each.
        where: the stage, for the message.

    Raises:
        SertoneError: `not_finite`.
    """
    skipped = sum(epoch["skipped_steps"] for epoch in epochs)
    if skipped and all(math.isnan(epoch["loss"]) for epoch in epochs):
        raise SertoneError(
            "not_finite",
            f"{where}: no finite loss or gradient in {format_count(skipped, 'step')}",
            "at least one step with finite numbers",
            f"{DIVERGENCE_ADVICE}, or look at the recordings",
        )


class EpochStatistics:
    """Sums and counts of one epoch.

    Args:
        max_bad_steps: training stops after this many steps in a row without a finite loss or gradient.
        bad_in_a_row: such steps at the end of the epoch before.
        clip_norm: gradients with a larger norm are clipped.
    """

    def __init__(self, max_bad_steps: int, bad_in_a_row: int = 0, clip_norm: float = math.inf) -> None:
        self.max_bad_steps = max_bad_steps
        self.bad_in_a_row = bad_in_a_row
        self.clip_norm = clip_norm
        self.sums: dict[str, float] = defaultdict(float)
        self.steps = 0
        self.skipped = 0
        self.norms: list[float] = []
        self.pairs: list[Tensor] = []
        self.unfit: list[Tensor] = []

    def add_step(
        self,
        losses: dict[str, Tensor],
        loss: Tensor,
        norm: Tensor,
        utterances: Sequence[Utterance],
        scale: float = 1.0,
    ) -> bool:
        """Record a step, and return True where loss and gradient are finite, so that the optimizer may step.

        All processes return the same.

        Args:
            losses: losses of each task.
            loss: their weighted sum.
            norm: norm of the gradient, before clipping.
            utterances: utterances of the batch.
            scale: factor of the loss in fp16. A factor that is too large makes the gradient infinite. That is
                expected: the step is skipped, and the factor is lowered. At 1 or below, the factor is not the
                cause.

        Raises:
            SertoneError: `not_finite`.
        """
        # One tensor, because every transfer from the device waits for its queue.
        values = distributed.mean(torch.stack([loss, norm, *losses.values()]).detach())
        # Averaged over processes, so a NaN in one of them makes all of them skip the step.
        total, length, *parts = values.tolist()
        if not (math.isfinite(total) and math.isfinite(length)):
            self.skipped += 1
            if scale <= 1 or not math.isfinite(total):
                self._count_bad_step(utterances)
            return False
        self.bad_in_a_row = 0
        self.steps += 1
        self.norms.append(length)
        self.sums["loss"] += total
        for task, value in zip(losses, parts, strict=True):
            self.sums[f"loss_{task}"] += value
        return True

    def _count_bad_step(self, utterances: Sequence[Utterance]) -> None:
        self.bad_in_a_row += 1
        if self.bad_in_a_row >= self.max_bad_steps:
            raise SertoneError(
                "not_finite",
                f"{format_count(self.bad_in_a_row, 'step')} in a row without a finite loss or gradient, the "
                f"last with {', '.join(u.id for u in utterances)}",
                "finite losses and gradients",
                f"{DIVERGENCE_ADVICE}, or look at these recordings",
            )

    def add_outputs(self, outputs: dict[str, HeadOutput], targets: dict[str, Tensor]) -> None:
        """Record the outputs of a batch, without waiting for the device."""
        if "emotion" in targets:
            target = targets["emotion"]
            predicted = outputs["emotion"].logits.argmax(-1)
            # The target of an utterance without a label is all zeros.
            classes = torch.where(target.any(-1), target.argmax(-1), UNLABELLED)
            self.pairs.append(torch.stack([classes, predicted]))
        if TRANSCRIPT in targets:
            self.unfit.append(TranscriptHead.exceeds_frames(outputs[TRANSCRIPT], targets[TRANSCRIPT]).sum())

    def summarise(self) -> dict:
        """Return means and counts over all processes; the loss is NaN where every step was skipped."""
        # At least 1, because an epoch may have no valid step.
        entry: dict = {name: total / max(1, self.steps) for name, total in self.sums.items()}
        entry |= self._summarise_gradients()
        unfit = int(torch.stack(self.unfit).sum()) if self.unfit else 0
        entry |= {"skipped_steps": self.skipped, "unfit_transcripts": sum(distributed.gather(unfit))}
        local_pairs = torch.cat(self.pairs, 1).T.tolist() if self.pairs else []
        pairs = [pair for pairs in distributed.gather(local_pairs) for pair in pairs]
        labelled = [(str(target), str(predicted)) for target, predicted in pairs if target != UNLABELLED]
        if labelled:
            targets, predictions = map(list, zip(*labelled, strict=True))
            entry["ua"] = metrics.emotion_scores(targets, predictions)["ua"]
        return {"loss": math.nan} | entry

    def _summarise_gradients(self) -> dict[str, float]:
        """Return the mean and largest norm before clipping, and the share of clipped steps."""
        if not self.norms:
            return {}
        clipped = sum(norm > self.clip_norm for norm in self.norms)
        return {
            "gradient_norm": sum(self.norms) / len(self.norms),
            "gradient_norm_max": max(self.norms),
            "clipped_steps": clipped / len(self.norms),
        }

"""What happened in one epoch: losses, answers, steps that could not be taken."""

import math
from collections import defaultdict
from collections.abc import Sequence

from torch import Tensor

from sertone import metrics
from sertone.errors import SertoneError
from sertone.nn.heads import MISSING, HeadOutput, TranscriptHead
from sertone.nn.vocabulary import TRANSCRIPT
from sertone.schema import Utterance


class Tally:
    """Sums and counts of one epoch.

    Args:
        max_bad_steps: steps in a row without a finite loss or gradient before training stops.
        bad_in_a_row: such steps at the end of the epoch before.
    """

    def __init__(self, max_bad_steps: int, bad_in_a_row: int = 0) -> None:
        self.max_bad_steps, self.bad_in_a_row = max_bad_steps, bad_in_a_row
        self.sums: dict[str, float] = defaultdict(float)
        self.steps = self.bad = self.unfit = 0
        self.targets: list[int] = []
        self.predictions: list[int] = []

    def step(
        self, losses: dict[str, Tensor], loss: float, norm: float, utterances: Sequence[Utterance]
    ) -> bool:
        """Whether the step may be taken."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.bad += 1
            self.bad_in_a_row += 1
            if self.bad_in_a_row >= self.max_bad_steps:
                raise SertoneError(
                    "not_finite",
                    f"{self.bad_in_a_row} steps in a row without a finite loss or gradient, the last "
                    f"with {', '.join(u.id for u in utterances)}",
                    "finite ones",
                    "lower the learning rates, or look at these recordings",
                )
            return False
        self.bad_in_a_row = 0
        self.steps += 1
        self.sums["loss"] += loss
        for task, value in losses.items():
            self.sums[f"loss_{task}"] += value.item()
        return True

    def outputs(self, outputs: dict[str, HeadOutput], targets: dict[str, Tensor]) -> None:
        """Counts what the batch's answers were."""
        if "emotion" in targets:
            self.targets += targets["emotion"].tolist()
            self.predictions += outputs["emotion"].logits.argmax(-1).tolist()
        if TRANSCRIPT in targets:
            unfit = TranscriptHead.unfit(outputs[TRANSCRIPT], targets[TRANSCRIPT])
            self.unfit += int(unfit.sum())

    def summary(self) -> dict:
        """The epoch's means and counts."""
        entry: dict = {name: total / max(1, self.steps) for name, total in self.sums.items()}
        entry |= {"skipped_steps": self.bad, "unfit_transcripts": self.unfit}
        pairs = [p for p in zip(self.targets, self.predictions, strict=True) if p[0] != MISSING]
        if pairs:
            targets, predictions = ([str(value) for value in side] for side in zip(*pairs, strict=True))
            entry["ua"] = metrics.emotion_scores(targets, predictions)["ua"]
        return {"loss": math.nan} | entry

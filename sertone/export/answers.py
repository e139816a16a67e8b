"""A trained model as one module from raw inputs to answers, the way it is exported.

Axis letters: B batch, N samples, S tokens, K classes, R dimensions.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sertone.calibration import Calibration
from sertone.nn.batch import Batch
from sertone.training.predict import Trained


class Answers(nn.Module):
    """The models of a run together: mean of their calibrated probabilities, and of their ratings.

    Args:
        trained: what was trained.
    """

    def __init__(self, trained: Trained) -> None:
        super().__init__()
        self.models = nn.ModuleList(trained.models)
        self.calibrations: Sequence[Calibration] = trained.calibrations
        self.ratings = list(trained.scales)
        self.eval()

    def forward(
        self, waveforms: Tensor | None = None, tokens: Tensor | None = None, counts: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Answers a batch of one length.

        Args:
            waveforms: (B, N).
            tokens: (B, S).
            counts: tokens that count, (B,).

        Returns:
            probabilities (B, K), ratings (B, R).
        """
        given = waveforms if waveforms is not None else tokens
        assert given is not None, "a model hears or reads"
        lengths = torch.full((given.shape[0],), given.shape[1])
        batch = Batch(waveforms, lengths, tokens=tokens, counts=counts)
        answers = [
            self._answers(model, by, batch) for model, by in zip(self.models, self.calibrations, strict=True)
        ]
        probabilities, ratings = (torch.stack(each).mean(0) for each in zip(*answers, strict=True))
        return probabilities, ratings

    def _answers(self, model: Any, by: Calibration, batch: Batch) -> tuple[Tensor, Tensor]:
        outputs, nothing = model(batch), batch.lengths.float()[:, None][:, :0]
        emotion = outputs.get("emotion")
        shares = nothing if emotion is None else (emotion.logits.float() / by.temperature).softmax(-1)
        rated = [model.heads[name].ratings(outputs[name]) for name in self.ratings]
        return shares, torch.stack(rated, -1) if rated else nothing

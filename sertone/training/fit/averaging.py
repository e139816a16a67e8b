"""An exponential moving average of the weights (`train.ema`). It is validated and kept instead of them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

STEPS = "steps"
"""Name of the number of steps among the saved tensors; no weight has a name without a dot."""


class WeightAverage:
    """The moving average of the weights that a stage trains.

    After n steps the decay is at most (1 + n) / (10 + n), so that the first weights are soon forgotten.

    Args:
        model: model whose frozen parts are frozen.
        decay: `train.ema`.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.averages = {name: weight.detach().clone() for name, weight in self.weights.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Include the weights after a step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, weight in self.weights.items():
            self.averages[name].lerp_(weight, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the average for the context."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the weights of the model and the average."""
        for name, weight in self.weights.items():
            current = weight.detach().clone()
            weight.copy_(self.averages[name])
            self.averages[name].copy_(current)

    def state_dict(self) -> dict[str, Tensor]:
        """Return what `load_state_dict` needs."""
        return self.averages | {STEPS: torch.tensor(self.steps)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a saved average."""
        self.steps = int(state[STEPS])
        for name, average in self.averages.items():
            average.copy_(state[name])

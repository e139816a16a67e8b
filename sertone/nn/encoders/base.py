"""The contract of speech encoders: waveforms in, hidden states of all layers out, lengths kept.

Contract (B batch, N samples, T frames, L layers, D width):
    (waveforms (B, N), lengths (B,)) -> hidden (B, L+1, T, D), frames (B,)
hidden[:, 0] is the input of the first layer and hidden[:, l] the output of layer l. Padding never
changes a hidden state.

An encoder can be cut into a frozen prefix and a trained suffix. The cut is a number:
    NOTHING (-1)  nothing is frozen
    0             the front end is frozen: the convolutions of wav2vec 2.0, or the log-mel features
    k >= 1        the front end, its projection and the layers 1..k are frozen
The prefix runs without gradient and in eval mode, so it is a function of the audio alone. Time masking is the
one exception: it also masks below the cut, and `explain_varying_prefix` says so.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sertone.errors import SertoneError
from sertone.nn.masks import frame_mask
from sertone.recipe.settings import Settings

NOTHING = -1
"""The cut of an encoder without any frozen part."""


@dataclass
class Prefix:
    """The output of the frozen part of an encoder, or of a part of it.

    Attributes:
        states: features of the front end (B, T, C), or hidden states (B, S, T, D); any precision.
        frames: real frames per utterance, (B,).
        layers: the numbers of the S hidden states, the deepest last; empty: features.

    Hidden states have the encoder's extra tokens in front of the frames, which count as frames here.
    """

    states: Tensor
    frames: Tensor
    layers: tuple[int, ...] = ()

    def to(self, device) -> "Prefix":
        """Return the same prefix on another device."""
        return Prefix(self.states.to(device), self.frames.to(device), self.layers)


@dataclass(frozen=True)
class Footprint:
    """The memory of an encoder in training, per utterance; for estimates.

    Attributes:
        hop: samples per frame.
        scores: T x T matrices that a trained layer keeps for the gradient; 0 where attention holds none.
        values: numbers that a trained layer keeps per frame.
        front: bytes per sample while the front end runs.
    """

    hop: int
    scores: int
    values: int
    front: float


class EncoderSettings(Settings, ABC):
    """Base of the settings of all encoders. A recipe chooses them by their `name`, which is unique.

    Attributes:
        is_description: `Encoder.describe` gives such settings, which build the architecture without a file or
            a download. A checkpoint may hold no others.
    """

    is_description: ClassVar[bool] = False

    @abstractmethod
    def build(self) -> "Encoder":
        """Build the encoder, with its pretrained weights or with random ones."""


class Encoder(nn.Module, ABC):
    """Base of all encoders: subclasses define `front`, `embed`, `context`, `layer` and `parts`.

    Attributes:
        width: D.
        depth: L.
        min_samples: samples at 16 kHz that give at least one frame.
        cut: where the frozen prefix ends, set by `freeze`.
        layerdrop: probability that a trained layer is skipped at a training step (arXiv 1909.11556).
        lora_modules: place in a layer -> names of its linear modules that can be adapted, see `nn.adapters`.
        trainable_mark: only parameters with this in their names are trained; `nn.adapters` sets it.
        extra_tokens: vectors that `embed` puts in front of the frames; `forward` does not return them.
        unused: one line about the weights of its file that it does not use; empty where there are none.
    """

    width: int
    depth: int
    min_samples: int
    lora_modules: ClassVar[dict[str, tuple[str, ...]]] = {}
    trainable_mark = ""
    extra_tokens: int = 0
    unused = ""

    def __init__(self) -> None:
        super().__init__()
        self.cut = NOTHING
        self.layerdrop = 0.0

    @abstractmethod
    def describe(self, depth: int | None = None) -> dict[str, Any]:
        """Return the settings that build this architecture again, without its weights; {} for no encoder.

        Args:
            depth: another number of layers.
        """

    @abstractmethod
    def footprint(self, fused: bool) -> Footprint:
        """Estimate the memory in training. The constants are measured, see tests/test_memory.py.

        Args:
            fused: attention with dropout never holds its scores, as on a CUDA device.
        """

    @abstractmethod
    def front(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms (B, N), lengths (B,) -> features (B, T, C), frames (B,)."""

    @abstractmethod
    def embed(self, features: Tensor, mask: Tensor) -> Tensor:
        """Features (B, T, C), mask of real frames (B, T) -> hidden state 0 (B, T, D).

        With extra tokens, T of the output is larger by their number, and so is T of `context` and `layer`.
        """

    @abstractmethod
    def context(self, mask: Tensor) -> dict[str, Tensor]:
        """Compute once what all layers need beside their input: attention masks, position bias."""

    @abstractmethod
    def layer(self, index: int, hidden: Tensor, context: dict[str, Tensor]) -> Tensor:
        """Layer `index` (1..L): (B, T, D) -> (B, T, D)."""

    @property
    def last_norm(self) -> nn.LayerNorm | None:
        """The norm that is applied to the last layer's output only; None where there is none."""
        return None

    @abstractmethod
    def parts(self) -> list[list[nn.Module]]:
        """Return the modules in order: [front], [embedding, layer 1], [layer 2], ... [layer L]."""

    def freeze(self, cut: int) -> None:
        """Freeze everything up to `cut` and thaw the rest.

        Raises:
            SertoneError: `bad_cut`, where the encoder has fewer layers.
        """
        if not NOTHING <= cut <= self.depth:
            raise SertoneError(
                "bad_cut",
                f"{cut} frozen layers, but the encoder has {self.depth}",
                f"a number from 0 (front end only) to {self.depth}, or {NOTHING} for nothing",
                "lower model.frozen_layers, or frozen_layers_in_stage_1",
            )
        self.cut = cut
        for index, modules in enumerate(self.parts()):
            for module in modules:
                for name, parameter in module.named_parameters():
                    parameter.requires_grad_(index > cut and self.trainable_mark in name)
        self.train(self.training)  # puts the modules below the new cut into eval mode

    def train(self, mode: bool = True) -> "Encoder":
        """Switch to training mode as `nn.Module.train` does; the frozen prefix stays in eval mode."""
        super().train(mode)
        for modules in self.parts()[: self.cut + 1]:
            for module in modules:
                module.eval()
        return self

    def explain_varying_prefix(self) -> str:
        """Explain why the prefix of the same audio varies from step to step; empty where it does not."""
        if self.cut == NOTHING:
            return "nothing of the encoder is frozen"
        frozen = [module for modules in self.parts()[: self.cut + 1] for module in modules]
        for module in frozen:
            if any(parameter.requires_grad for parameter in module.parameters()):
                return f"its {type(module).__name__} is trained"
            if any(inner.training for inner in module.modules()):
                return f"its {type(module).__name__} is in training mode, where dropout is random"
        return ""

    def prefix(self, waveforms: Tensor, lengths: Tensor) -> Prefix:
        """Run the frozen part: waveforms (B, N), lengths (B,) -> Prefix, without gradient if it is frozen."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.cut == NOTHING):
            features = Prefix(*self.front(waveforms, lengths))
            return features if self.cut < 1 else self.run_frozen_layers(features, range(self.cut + 1))

    @torch.no_grad()
    def run_frozen_layers(self, features: Prefix, layers: Iterable[int]) -> Prefix:
        """Run the frozen layers.

        Args:
            features: features of the front end.
            layers: numbers of the hidden states to return, in order, the last at the cut.
        """
        first, frames = self._start(features)
        states = self._run_layers([first], frame_mask(frames, first.shape[1]), self.cut)
        layers = tuple(layers)
        return Prefix(torch.stack([states[layer] for layer in layers], 1), frames, layers)

    def _start(self, features: Prefix) -> tuple[Tensor, Tensor]:
        """Features of the front end -> hidden state 0 (B, T, D), frames (B,), both with the extra tokens."""
        mask = frame_mask(features.frames, features.states.shape[1])
        return self.embed(features.states.float(), mask), features.frames + self.extra_tokens

    def suffix(self, prefix: Prefix) -> tuple[Tensor, Tensor]:
        """Run the trained part: Prefix -> hidden (B, L+1, T, D), frames (B,).

        Hidden states that a prefix leaves out are NaN, so that their use by mistake is noticed.
        """
        frames = prefix.frames
        if prefix.layers:
            stored = prefix.states.float()  # a cache may hold half precision
            by_layer = dict(zip(prefix.layers, stored.unbind(1), strict=True))
            absent = torch.full_like(stored[:, 0], math.nan)
            states = [by_layer.get(layer, absent) for layer in range(prefix.layers[-1] + 1)]
        else:
            first, frames = self._start(prefix)
            states = [first]
        mask = frame_mask(frames, states[0].shape[1])
        states = self._run_layers(states, mask, self.depth)
        return self.drop_tokens(Prefix(torch.stack(states, 1) * mask[:, None, :, None], frames))

    def drop_tokens(self, prefix: Prefix) -> tuple[Tensor, Tensor]:
        """Prefix of hidden states -> hidden states without the extra tokens (B, S, T, D), frames (B,)."""
        return prefix.states[:, :, self.extra_tokens :], prefix.frames - self.extra_tokens

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms (B, N), lengths (B,) -> hidden (B, L+1, T, D), frames (B,)."""
        return self.suffix(self.prefix(waveforms, lengths))

    def _run_layers(self, states: list[Tensor], mask: Tensor, last: int) -> list[Tensor]:
        """Return the states with the outputs of the layers not yet run, up to layer `last`."""
        context = self.context(mask)
        for index in range(len(states), last + 1):
            hidden = states[-1] if self._draw_skip(index) else self.layer(index, states[-1], context)
            if index == self.depth and self.last_norm is not None:
                hidden = self.last_norm(hidden)
            states = [*states, hidden]
        return states

    def _draw_skip(self, index: int) -> bool:
        """Draw whether LayerDrop skips a layer; frozen layers are never skipped."""
        possible = self.training and index > self.cut and self.layerdrop > 0
        # A number is drawn only where it counts, so that runs without LayerDrop keep their random numbers.
        return possible and torch.rand(()).item() < self.layerdrop

"""The input of a model: padded waveforms, lengths, tokens and targets, or the encoder's prefix instead."""

from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from sertone.nn.encoders.base import Encoder, Prefix
from sertone.nn.text import TextEncoder


@dataclass
class Batch:
    """A batch of utterances.

    Attributes:
        waveforms: 16 kHz samples, zero beyond each utterance's end, (B, N); None where the prefix is known,
            or all audio of the batch is withheld.
        lengths: samples per utterance, (B,).
        targets: targets by task, (B, K) for classes and (B, S) for transcripts.
        prefix: the output of the encoder's frozen part, where it is already known.
        audio_mask: true where the audio of an utterance is not withheld, (B,); None: all.
        tokens: text, (B, S); None where the model uses none, or no utterance of the batch has any.
        counts: tokens per utterance, (B,), 0 where there is no text.
        clean: the same utterances without changes of the waveform, where the training compares both.
    """

    waveforms: Tensor | None
    lengths: Tensor
    targets: dict[str, Tensor] = field(default_factory=dict)
    prefix: Prefix | None = None
    audio_mask: Tensor | None = None
    tokens: Tensor | None = None
    counts: Tensor | None = None
    clean: "Batch | None" = None

    def to(self, device) -> Self:
        """Return the same batch on another device."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device)

        return replace(
            self,
            waveforms=move(self.waveforms),
            lengths=self.lengths.to(device),
            targets={task: target.to(device) for task, target in self.targets.items()},
            prefix=self.prefix.to(device) if self.prefix else None,
            audio_mask=move(self.audio_mask),
            tokens=move(self.tokens),
            counts=move(self.counts),
            clean=self.clean.to(device) if self.clean else None,
        )

    @property
    def lacks_audio(self) -> bool:
        """True where all audio of the batch is withheld."""
        return self.waveforms is None and self.prefix is None

    def encode(self, encoder: Encoder) -> tuple[Tensor, Tensor]:
        """Return hidden states (B, L+1, T, D) and frames (B,) of all audio, from a known prefix if any."""
        if self.prefix is not None:
            return encoder.suffix(self.prefix)
        assert self.waveforms is not None, "a batch has waveforms or a prefix"
        return encoder(self.waveforms, self.lengths)

    def encode_audio(self, encoder: Encoder) -> tuple[Tensor, Tensor]:
        """Return hidden states (B, L+1, T, D) and frames (B,), with no frames where audio is withheld.

        A batch without any audio has one empty frame, T = 1.
        """
        if self.lacks_audio:
            return self._empty_states(encoder)
        hidden, frames = self.encode(encoder)
        return hidden, frames if self.audio_mask is None else torch.where(self.audio_mask, frames, 0)

    def encode_text(self, encoder: TextEncoder) -> tuple[Tensor, Tensor]:
        """Return hidden states of the text (B, L+1, S, D) and tokens (B,).

        A batch without any text has one empty token, S = 1.
        """
        if self.tokens is None or self.counts is None:
            return self._empty_states(encoder)
        return encoder(self.tokens, self.counts), self.counts

    def _empty_states(self, encoder: Encoder | TextEncoder) -> tuple[Tensor, Tensor]:
        states = torch.zeros(len(self.lengths), encoder.depth + 1, 1, encoder.width)
        return states.to(self.lengths.device), torch.zeros_like(self.lengths)

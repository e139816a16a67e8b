"""What a model is given: padded waveforms, lengths, tokens, targets, and perhaps the encoder's prefix."""

from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from sertone.nn.encoders.base import Encoder, Prefix
from sertone.nn.text import TextEncoder

TEXT = ("audio_mask", "tokens", "counts")


@dataclass
class Batch:
    """One batch.

    Attributes:
        waveforms: 16 kHz samples, zero beyond each utterance's end, (B, N); None where the prefix is known,
            or nothing of the batch may be heard.
        lengths: samples per utterance, (B,).
        heard: which utterances may be heard, (B,); None: all.
        tokens: text, (B, S); None where the model reads none, or no utterance of the batch has any.
        counts: tokens per utterance, (B,), 0 where there is no text.
        targets: by task, (B, K) for classes and (B, S) for transcripts.
        prefix: the output of the encoder's frozen part, where it is already known.
    """

    waveforms: Tensor | None
    lengths: Tensor
    targets: dict[str, Tensor] = field(default_factory=dict)
    prefix: Prefix | None = None
    audio_mask: Tensor | None = None
    tokens: Tensor | None = None
    counts: Tensor | None = None

    def to(self, device) -> Self:
        """The same batch on another device."""
        targets = {task: target.to(device) for task, target in self.targets.items()}
        return replace(
            self,
            waveforms=None if self.waveforms is None else self.waveforms.to(device),
            lengths=self.lengths.to(device),
            targets=targets,
            prefix=self.prefix.to(device) if self.prefix else None,
            **{name: None if (t := getattr(self, name)) is None else t.to(device) for name in TEXT},
        )

    @property
    def lacks_audio(self) -> bool:
        """Whether nothing of the batch may be heard."""
        return self.waveforms is None and self.prefix is None

    def encode(self, encoder: Encoder) -> tuple[Tensor, Tensor]:
        """Hidden states (B, L+1, T, D) and frames (B,), from the prefix where there is one."""
        if self.prefix is not None:
            return encoder.suffix(self.prefix)
        assert self.waveforms is not None, "a batch has waveforms or a prefix"
        return encoder(self.waveforms, self.lengths)

    def encode_audio(self, encoder: Encoder) -> tuple[Tensor, Tensor]:
        """As `encode`, where no frame of what is withheld counts; one empty frame where all is."""
        if self.lacks_audio:
            states = torch.zeros(len(self.lengths), encoder.depth + 1, 1, encoder.width)
            return states.to(self.lengths.device), torch.zeros_like(self.lengths)
        hidden, frames = self.encode(encoder)
        return hidden, frames if self.audio_mask is None else torch.where(self.audio_mask, frames, 0)

    def encode_text(self, encoder: TextEncoder) -> tuple[Tensor, Tensor]:
        """Hidden states of the text (B, L+1, S, D), tokens (B,); one empty token where there is no text."""
        if self.tokens is None or self.counts is None:
            states = torch.zeros(len(self.lengths), encoder.depth + 1, 1, encoder.width)
            return states.to(self.lengths.device), torch.zeros_like(self.lengths)
        return encoder(self.tokens, self.counts), self.counts

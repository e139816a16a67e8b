"""Attention within and between audio and text (ispas2023, arXiv 2401.00536).

A modality is a `Sequence`: states (B, T, D), zero beyond the real ones, and how many are real (B,); none
where the utterance has no text, or nobody may hear it. No answer depends on the padding of the batch.

Axis letters: B batch, T tokens (frames of audio, subwords of text), Q queries, H attention heads, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sertone.nn import kernels
from sertone.nn.masks import frame_mask, masked_mean


@dataclass
class ModalityStates:
    """One modality of a batch, or a stream made of two.

    Attributes:
        states: (B, T, D).
        counts: real states of each utterance, (B,).
    """

    states: Tensor
    counts: Tensor

    @property
    def mask(self) -> Tensor:
        """True where a state is real, (B, T)."""
        return frame_mask(self.counts, self.states.shape[1])

    def mean(self) -> Tensor:
        """Over the real states: (B, D), zero where there is none."""
        return masked_mean(self.states, self.counts)

    def where(self, rows: Tensor, other: "ModalityStates") -> "ModalityStates":
        """This one in the rows chosen (B,), the other elsewhere."""
        length = max(self.states.shape[1], other.states.shape[1])
        own, others = (pad_states(s.states, length) for s in (self, other))
        return ModalityStates(
            torch.where(rows[:, None, None], own, others), torch.where(rows, self.counts, other.counts)
        )


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention with several heads (Vaswani et al. 2017), key and value of any origin.

    Args:
        width: D.
        attention_heads: H, a divisor of D.
        dropout: share of the weights that is dropped.
    """

    def __init__(self, width: int, attention_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention_heads, self.dropout = attention_heads, dropout
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Attends: (B, Q, D).

        Args:
            query: (B, Q, D).
            key: (B, T, D).
            value: (B, T, D).
            mask: true where a key counts, (B, T); a row without any gives zeros.
        """
        some = mask.any(-1, keepdim=True)
        heads = (self.attention_heads, -1)
        q, k, v = (
            projection(states).unflatten(-1, heads).transpose(1, 2)  # (B, H, ., D/H)
            for projection, states in ((self.query, query), (self.key, key), (self.value, value))
        )
        p = self.dropout if self.training else 0.0
        mixed = kernels.attention(q, k, v, (mask | ~some)[:, None, None], p)
        return self.output(mixed.transpose(1, 2).flatten(2)) * some[..., None]


class ModalitySelfAttention(nn.Module):
    """Self-attention over one modality, with a residual and a layer norm where `residual` says so."""

    def __init__(self, width: int, attention_heads: int, dropout: float, *, residual: bool) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(width, attention_heads, dropout)
        self.norm = nn.LayerNorm(width) if residual else None

    def forward(self, own: ModalityStates) -> ModalityStates:
        states = self.attention(own.states, own.states, own.states, own.mask)
        if self.norm is not None:
            states = self.norm(own.states + states)
        return ModalityStates(states * own.mask[..., None], own.counts)


class NoInteraction(nn.Module):
    """Two streams that do not meet before their means do."""

    def __init__(self, width: int, attention_heads: int, dropout: float, tokens: int, pairing: str) -> None:
        super().__init__()

    def forward(self, audio: ModalityStates, text: ModalityStates) -> tuple[ModalityStates, ModalityStates]:
        return audio, text


class CrossAttention(nn.Module):
    """Queries of one modality, keys and values of the other.

    Where one is missing there is nothing to ask: the other one goes on as it is.
    """

    def __init__(self, width: int, attention_heads: int, dropout: float, tokens: int, pairing: str) -> None:
        super().__init__()
        self.audio_asks = MultiHeadAttention(width, attention_heads, dropout)
        self.text_asks = MultiHeadAttention(width, attention_heads, dropout)

    def forward(self, audio: ModalityStates, text: ModalityStates) -> tuple[ModalityStates, ModalityStates]:
        of_audio = self.audio_asks(audio.states, text.states, text.states, text.mask)
        of_text = self.text_asks(text.states, audio.states, audio.states, audio.mask)
        return (
            ModalityStates(of_audio, audio.counts).where(text.counts > 0, audio),
            ModalityStates(of_text, text.counts).where(audio.counts > 0, text),
        )


class BridgeTokens(nn.Module):
    """Learned queries that read one modality by way of the other.

        e_a = MH(Q_a, K = audio, V = text)        e_t = MH(Q_t, K = text, V = audio)

    Keys and values come in pairs, so the shorter modality of an utterance is brought to the length of the
    longer one (`paired`). A stream whose values are missing is missing.

    Args:
        width: D.
        attention_heads: H.
        dropout: share of the attention weights that is dropped.
        tokens: bridge tokens of each stream.
        pairing: as of `paired`.
    """

    def __init__(self, width: int, attention_heads: int, dropout: float, tokens: int, pairing: str) -> None:
        super().__init__()
        self.pairing = pairing
        self.queries = nn.Parameter(torch.randn(2, tokens, width) / width**0.5)
        self.to_text = MultiHeadAttention(width, attention_heads, dropout)
        self.to_audio = MultiHeadAttention(width, attention_heads, dropout)

    def forward(self, audio: ModalityStates, text: ModalityStates) -> tuple[ModalityStates, ModalityStates]:
        counts = torch.maximum(audio.counts, text.counts)
        length = max(audio.states.shape[1], text.states.shape[1])
        mask = frame_mask(counts, length)
        heard, read = (align_lengths(own, counts, length, self.pairing) for own in (audio, text))
        queries = self.queries[:, None].expand(-1, len(mask), -1, -1)  # (2, B, Q, D)
        streams = (
            self.to_text(queries[0], heard, read, mask),
            self.to_audio(queries[1], read, heard, mask),
        )
        there = ((own.counts > 0) * queries.shape[2] for own in (text, audio))
        return tuple(ModalityStates(s, n) for s, n in zip(streams, there, strict=True))  # type: ignore[return-value]


INTERACTIONS: dict[str, type[nn.Module]] = {
    "none": NoInteraction,
    "cross": CrossAttention,
    "bridge": BridgeTokens,
}


def pad_states(states: Tensor, length: int) -> Tensor:
    """(B, T, D) -> (B, `length`, D), with zeros at the end."""
    return F.pad(states, (0, 0, 0, length - states.shape[1]))


def align_lengths(own: ModalityStates, counts: Tensor, length: int, pairing: str) -> Tensor:
    """A modality at the length of the longer one of each utterance: (B, `length`, D).

    Args:
        own: the modality.
        counts: the length wanted of each utterance, at least its own, (B,).
        length: of the padded batch.
        pairing: `pad`, zeros at the end, as published; or `stretch`, each state repeated, so that what was
            said at about the same time meets.
    """
    if pairing == "pad" or not own.states.shape[1]:
        return pad_states(own.states, length)
    place = torch.arange(length, device=counts.device)
    index = place * own.counts[:, None] // counts.clamp(min=1)[:, None]
    index = index.clamp(max=own.states.shape[1] - 1)[..., None].expand(-1, -1, own.states.shape[2])
    real = place < torch.where(own.counts > 0, counts, 0)[:, None]
    return own.states.gather(1, index) * real[..., None]

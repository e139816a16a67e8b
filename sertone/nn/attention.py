"""Attention over the frames of an utterance, and within and between audio and text.

`CoAttention` belongs to wan2025 (arXiv 2412.20707). The classes for two modalities belong to ispas2023
(arXiv 2401.00536): there a modality is a `ModalityStates` with no real state where the utterance has no text
or its audio is withheld. Padding of the batch never changes a result.

Axis letters: B batch, T tokens (frames of audio, subwords of text), Q queries, H attention heads, D width.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sertone.nn import kernels
from sertone.nn.masks import frame_mask


class CoAttention(nn.Module):
    """Attention of auxiliary vectors to the frames that matter (wan2025, II-A5; our reading).

    Scaled dot-product attention over the real frames: queries from the pooled hidden layers of the
    auxiliary heads, keys and values from the fused features. Nearest published code: the co-attention
    of CA-MSER (Zou et al. 2022, arXiv 2203.15326).

    Axis letters of this class: A auxiliary vectors, H hidden width.

    Args:
        width: D of the frames.
        hidden: H of the auxiliary vectors.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, auxiliary: Tensor, features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Weigh the frames for each auxiliary vector.

        Args:
            auxiliary: (B, A, H).
            features: (B, T, D).
            frames: real frames, (B,).

        Returns:
            weighted features (B, A, D) and the attention weights (B, A, T).
        """
        scores = self.query(auxiliary) @ self.key(features).transpose(1, 2)  # (B, A, T)
        mask = frame_mask(frames, features.shape[1])[:, None]
        scores = (scores / math.sqrt(features.shape[-1])).masked_fill(~mask, -math.inf)
        # In bfloat16 a softmax over many frames loses the small weights.
        weights = torch.softmax(scores.float(), -1).to(scores.dtype)
        return weights @ self.value(features), weights


@dataclass
class ModalityStates:
    """The states of one modality of a batch, or of a stream that both modalities feed.

    Attributes:
        states: (B, T, D), zero beyond the real states.
        counts: real states of each utterance, (B,).
    """

    states: Tensor
    counts: Tensor

    @property
    def mask(self) -> Tensor:
        """True where a state is real, (B, T)."""
        return frame_mask(self.counts, self.states.shape[1])

    def where(self, rows: Tensor, other: "ModalityStates") -> "ModalityStates":
        """Return these states in the chosen rows (B,), and those of `other` elsewhere."""
        length = max(self.states.shape[1], other.states.shape[1])
        ours = pad_states(self.states, length)
        theirs = pad_states(other.states, length)
        counts = torch.where(rows, self.counts, other.counts)
        return ModalityStates(torch.where(rows[:, None, None], ours, theirs), counts)


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention with several heads (Vaswani et al. 2017).

    Query, key and value may come from different modalities.

    Args:
        width: D.
        attention_heads: H, a divisor of D.
        dropout: share of the weights that is dropped.
    """

    def __init__(self, width: int, attention_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention_heads = attention_heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Attend from each query to the keys that count: (B, Q, D).

        Args:
            query: (B, Q, D).
            key: (B, T, D).
            value: (B, T, D).
            mask: true where a key counts, (B, T); a row without any gives zeros.
        """
        has_keys = mask.any(-1, keepdim=True)
        heads = (self.attention_heads, -1)
        q, k, v = (
            projection(states).unflatten(-1, heads).transpose(1, 2)  # (B, H, ., D/H)
            for projection, states in ((self.query, query), (self.key, key), (self.value, value))
        )
        p = self.dropout if self.training else 0.0
        # A softmax over no key at all would be NaN: a row without keys attends to all, and is zeroed below.
        attended = kernels.attention(q, k, v, (mask | ~has_keys)[:, None, None], p)
        return self.output(attended.transpose(1, 2).flatten(2)) * has_keys[..., None]


class ModalitySelfAttention(nn.Module):
    """Self-attention over one modality; `residual` adds a residual connection and a layer norm."""

    def __init__(self, width: int, attention_heads: int, dropout: float, *, residual: bool) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(width, attention_heads, dropout)
        self.norm = nn.LayerNorm(width) if residual else None

    def forward(self, modality: ModalityStates) -> ModalityStates:
        states = self.attention(modality.states, modality.states, modality.states, modality.mask)
        if self.norm is not None:
            states = self.norm(modality.states + states)
        return ModalityStates(states * modality.mask[..., None], modality.counts)


class NoInteraction(nn.Module):
    """No attention between the modalities: they meet only when their means are averaged."""

    def __init__(self, width: int, attention_heads: int, dropout: float, tokens: int, pairing: str) -> None:
        super().__init__()

    def forward(self, audio: ModalityStates, text: ModalityStates) -> tuple[ModalityStates, ModalityStates]:
        return audio, text


class CrossAttention(nn.Module):
    """Attention with the queries of one modality and the keys and values of the other.

    Where one modality is missing, the other one stays as it is.
    """

    def __init__(self, width: int, attention_heads: int, dropout: float, tokens: int, pairing: str) -> None:
        super().__init__()
        # Checkpoints hold both names: `audio_asks` has the queries of audio, `text_asks` those of text.
        self.audio_asks = MultiHeadAttention(width, attention_heads, dropout)
        self.text_asks = MultiHeadAttention(width, attention_heads, dropout)

    def forward(self, audio: ModalityStates, text: ModalityStates) -> tuple[ModalityStates, ModalityStates]:
        from_audio = self.audio_asks(audio.states, text.states, text.states, text.mask)
        from_text = self.text_asks(text.states, audio.states, audio.states, audio.mask)
        return (
            ModalityStates(from_audio, audio.counts).where(text.counts > 0, audio),
            ModalityStates(from_text, text.counts).where(audio.counts > 0, text),
        )


class BridgeTokens(nn.Module):
    """Learned queries that attend to one modality by way of the other.

        e_a = MH(Q_a, K = audio, V = text)        e_t = MH(Q_t, K = text, V = audio)

    Keys and values come in pairs, so the shorter modality of an utterance is brought to the length of the
    longer one (`align_lengths`). A stream whose values are missing is missing.

    Args:
        width: D.
        attention_heads: H.
        dropout: share of the attention weights that is dropped.
        tokens: bridge tokens of each stream.
        pairing: see `align_lengths`.
    """

    def __init__(self, width: int, attention_heads: int, dropout: float, tokens: int, pairing: str) -> None:
        super().__init__()
        self.pairing = pairing
        # Divided by sqrt(D), so that each query starts with a length of about 1.
        self.queries = nn.Parameter(torch.randn(2, tokens, width) / width**0.5)
        self.to_text = MultiHeadAttention(width, attention_heads, dropout)
        self.to_audio = MultiHeadAttention(width, attention_heads, dropout)

    def forward(self, audio: ModalityStates, text: ModalityStates) -> tuple[ModalityStates, ModalityStates]:
        counts = torch.maximum(audio.counts, text.counts)
        length = max(audio.states.shape[1], text.states.shape[1])
        mask = frame_mask(counts, length)
        audio_states = align_lengths(audio, counts, length, self.pairing)
        text_states = align_lengths(text, counts, length, self.pairing)
        queries = self.queries[:, None].expand(-1, len(mask), -1, -1)  # (2, B, Q, D)
        tokens = queries.shape[2]
        return (
            ModalityStates(
                self.to_text(queries[0], audio_states, text_states, mask), (text.counts > 0) * tokens
            ),
            ModalityStates(
                self.to_audio(queries[1], text_states, audio_states, mask), (audio.counts > 0) * tokens
            ),
        )


INTERACTIONS: dict[str, type[nn.Module]] = {
    "none": NoInteraction,
    "cross": CrossAttention,
    "bridge": BridgeTokens,
}
"""The table of attentions between modalities. To add one, add its class and a line here."""


def pad_states(states: Tensor, length: int) -> Tensor:
    """Pad states with zeros at the end: (B, T, D) -> (B, `length`, D)."""
    return F.pad(states, (0, 0, 0, length - states.shape[1]))


def align_lengths(modality: ModalityStates, counts: Tensor, length: int, pairing: str) -> Tensor:
    """Bring a modality to the length of the longer one of each utterance: (B, `length`, D).

    Args:
        modality: the modality.
        counts: the target length of each utterance, at least that of the modality, (B,).
        length: length of the padded batch.
        pairing: `pad`, zeros at the end, as published; or `stretch`, each state repeated, so that keys and
            values from about the same time meet.
    """
    states = modality.states
    if pairing == "pad" or not states.shape[1]:
        return pad_states(states, length)
    place = torch.arange(length, device=counts.device)
    index = place * modality.counts[:, None] // counts.clamp(min=1)[:, None]
    index = index.clamp(max=states.shape[1] - 1)[..., None].expand(-1, -1, states.shape[2])
    real = place < torch.where(modality.counts > 0, counts, 0)[:, None]
    return states.gather(1, index) * real[..., None]

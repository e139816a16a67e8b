"""Self-attention of the Conformer encoders of Hugging Face: relative or rotary positions.

`position_embeddings_type` of a configuration names the kind. Embeddings are computed for the frames at hand,
so no table limits the length of a clip.

Axis letters: B batch, H attention heads, T frames, P distances, D width.
"""

import math
from typing import Any

import torch
from torch import Tensor

from sertone.nn import kernels


def attend_with_positions(attention: Any, hidden: Tensor, context: dict[str, Tensor]) -> Tensor:
    """Compute self-attention with relative or rotary positions: (B, T, D) -> (B, T, D).

    Args:
        attention: attention of either model.
        hidden: (B, T, D).
        context: `mask` of real keys (B, 1, 1, T) where there is padding; `positions`, of `embed_positions`.
    """
    kind = attention.position_embeddings_type
    source = _rotate(hidden, context["positions"], attention.num_heads) if kind == "rotary" else hidden
    query, key, value = (
        projection(states).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for projection, states in (
            (attention.linear_q, source),
            (attention.linear_k, source),
            (attention.linear_v, hidden),
        )
    )
    mask = context.get("mask")
    if kind in POSITION_BIASES:
        bias = POSITION_BIASES[kind](attention, query, context) * attention.scaling
        mask = bias if mask is None else bias.masked_fill(~mask, -math.inf)
        query = query + attention.pos_bias_u[None, :, None] if kind == "relative" else query
    probability = attention.dropout.p if attention.training else 0.0
    mixed = kernels.attention(query, key, value, None if mask is None else mask.to(query.dtype), probability)
    return attention.linear_out(mixed.transpose(1, 2).flatten(2))


def _bias_by_distance(attention: Any, query: Tensor, context: dict[str, Tensor]) -> Tensor:
    """Compute the bias of Transformer-XL (arXiv 1901.02860): (B, H, T, D / H) -> (B, H, T, T)."""
    positions = attention.linear_pos(context["positions"]).unflatten(-1, (attention.num_heads, -1))
    scores = (query + attention.pos_bias_v[None, :, None]) @ positions.permute(1, 2, 0)
    farthest = query.shape[2] - 1
    return _select_distances(scores, -farthest, farthest)


def _bias_by_clipped_distance(attention: Any, query: Tensor, context: dict[str, Tensor]) -> Tensor:
    """Compute the bias of relative keys (arXiv 1803.02155): (B, H, T, D / H) -> (B, H, T, T)."""
    scores = query @ attention.distance_embedding.weight.T  # (B, H, T, distances)
    left, right = attention.left_max_position_embeddings, attention.right_max_position_embeddings
    return _select_distances(scores, -left, right)


POSITION_BIASES = {"relative": _bias_by_distance, "relative_key": _bias_by_clipped_distance}
"""`position_embeddings_type` of a configuration -> bias of the scores; rotary positions have none."""


def _select_distances(scores: Tensor, least: int, most: int) -> Tensor:
    """Select the score of the distance of every key from every query: (B, H, T, P) -> (B, H, T, T).

    Args:
        scores: scores of the distances from `least` to `most`, in frames, (B, H, T, P).
        least: distance of the first score; frames farther to the left count as this one.
        most: distance of the last score; frames farther to the right count as this one.
    """
    times = torch.arange(scores.shape[2], device=scores.device)
    index = (times - times[:, None]).clamp(least, most) - least
    return scores.gather(3, index.expand(*scores.shape[:2], -1, -1))


def _rotate(hidden: Tensor, positions: Tensor, heads: int) -> Tensor:
    """Rotate pairs of features by their time (arXiv 2104.09864): (B, T, D) -> (B, T, D).

    Args:
        hidden: (B, T, D).
        positions: cosines and sines, (2, T, 1, D / H).
        heads: H.
    """
    by_head = hidden.unflatten(-1, (heads, -1))
    first, second = by_head.chunk(2, -1)
    return (by_head * positions[0] + torch.cat([-second, first], -1) * positions[1]).flatten(2)


def _embed_distances(config: Any, frames: int, device: torch.device) -> Tensor:
    """Return sines and cosines of the distances from the last frame back to the first, (2 T - 1, D)."""
    frequencies = 10000.0 ** (-torch.arange(0, config.hidden_size, 2, device=device) / config.hidden_size)
    angles = torch.arange(frames - 1, -frames, -1, device=device)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


def _embed_rotations(config: Any, frames: int, device: torch.device) -> Tensor:
    """Return cosines and sines of the rotation of every frame, (2, T, 1, D / H)."""
    size = config.hidden_size // config.num_attention_heads
    frequencies = config.rotary_embedding_base ** (-torch.arange(0, size, 2, device=device) / size)
    angles = (torch.arange(frames, device=device)[:, None] * frequencies).repeat(1, 2)[:, None]
    return torch.stack([angles.cos(), angles.sin()])


POSITION_EMBEDDINGS = {"relative": _embed_distances, "rotary": _embed_rotations}
"""`position_embeddings_type` -> embeddings of the positions, which do not depend on the input."""


def embed_positions(config: Any, frames: int, device: torch.device) -> Tensor | None:
    """Return the embeddings that all layers share; None where a model needs none.

    Args:
        config: configuration of the model.
        frames: T.
        device: device of the embeddings.
    """
    embed = POSITION_EMBEDDINGS.get(config.position_embeddings_type)
    return embed(config, frames, device) if embed else None

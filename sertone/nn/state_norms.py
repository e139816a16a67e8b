"""Norms of an encoder's hidden states: hidden (B, S, T, D), frames (B,) -> (B, S, T, D).

They have no learned scale. Behind them the hidden states have one scale, whichever layer they come from.

Axis letters: B batch, S hidden states, T frames, D width.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from sertone.nn.masks import frame_mask


def keep_states(hidden: Tensor, frames: Tensor) -> Tensor:
    """Return the hidden states unchanged."""
    return hidden


def standardise_utterances(hidden: Tensor, frames: Tensor) -> Tensor:
    """Bring every hidden state to zero mean and unit variance over its real frames and features together.

    As SpeechBrain's `output_norm`, whose mean also counts padding.
    """
    mask = frame_mask(frames, hidden.shape[2])[:, None, :, None]
    count = (frames.clamp(min=1) * hidden.shape[-1])[:, None, None, None]
    states = hidden.float() * mask
    mean = states.sum((2, 3), keepdim=True) / count
    centred = (states - mean) * mask
    variance = centred.square().sum((2, 3), keepdim=True) / count
    return centred / (variance + 1e-5).sqrt()  # the constant of `nn.LayerNorm`


def standardise_frames(hidden: Tensor, frames: Tensor) -> Tensor:
    """Bring every frame of every hidden state to zero mean and unit variance over its features.

    In encoders such as Whisper, whose layers begin with a norm, this is how a layer sees the one below it.
    """
    mask = frame_mask(frames, hidden.shape[2])[:, None, :, None]
    return F.layer_norm(hidden.float(), hidden.shape[-1:]) * mask


STATE_NORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "none": keep_states,
    "utterance": standardise_utterances,
    "frame": standardise_frames,
}
"""The table of norms. To add one, add its function and a line here."""

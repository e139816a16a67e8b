"""The convolutions of wav2vec 2.0 and its relatives, from the waveform to frames of 20 ms.

Axis letters: B batch, N samples, T frames, C channels.
"""

from typing import Any

import torch
from torch import Tensor, nn

from sertone.nn.masks import frame_mask, masked_mean


def convolve_waveforms(
    convolutions: nn.ModuleList, config: Any, waveforms: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """Run the convolutions: (B, N), (B,) -> features (B, T, C), frames (B,).

    Args:
        convolutions: layers of Hugging Face.
        config: configuration of the model.
        waveforms: (B, N).
        lengths: real samples, (B,).
    """
    features, frames = waveforms[:, None], lengths  # (B, 1, N)
    for index, convolution in enumerate(convolutions):
        kernel, stride = config.conv_kernel[index], config.conv_stride[index]
        frames = torch.div(frames - kernel, stride, rounding_mode="floor") + 1
        if has_group_norm(convolution):
            features = _convolve_with_group_norm(convolution, features, frames)
        else:
            features = convolution(features)
    return features.transpose(1, 2), frames


def has_group_norm(convolution: Any) -> bool:
    """Return whether a convolution has a group norm, as the first one of the base models has."""
    return isinstance(getattr(convolution, "layer_norm", None), nn.GroupNorm)


def count_samples_of_a_frame(config: Any) -> int:
    """Count the samples that give one frame, by going back through the convolutions."""
    samples = 1
    for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


def estimate_convolutions(channels: int, stride: int) -> float:
    """Return the bytes per sample while the convolutions run; the factor is measured.

    Args:
        channels: channels of the first convolution, whose output is by far the largest.
        stride: stride of the first convolution.
    """
    return 3.2 * 4 * channels / stride


def standardise_waveforms(waveforms: Tensor, lengths: Tensor, floor: float = 1e-7) -> Tensor:
    """Bring the real samples to zero mean and unit variance.

    Args:
        waveforms: (B, N).
        lengths: real samples, (B,).
        floor: added to the variance; the default is that of Hugging Face's feature extractor.
    """
    mask = frame_mask(lengths, waveforms.shape[1])
    count = lengths[:, None]
    mean = (waveforms * mask).sum(1, keepdim=True) / count
    variance = ((waveforms - mean).square() * mask).sum(1, keepdim=True) / count
    return (waveforms - mean) / (variance + floor).sqrt() * mask


def _convolve_with_group_norm(convolution: Any, features: Tensor, frames: Tensor) -> Tensor:
    """Apply the first convolution and its norm over real frames: (B, 1, N), frames (B,) -> (B, C, T)."""
    norm = convolution.layer_norm
    features = convolution.conv(features).transpose(1, 2).float()  # (B, T, C)
    mean = masked_mean(features, frames)[:, None]
    variance = masked_mean((features - mean).square(), frames)[:, None]
    features = (features - mean) / (variance + norm.eps).sqrt()
    return convolution.activation((features * norm.weight + norm.bias).transpose(1, 2))

"""SEW, squeezed and efficient wav2vec (arXiv 2109.06870), whose padding changes nothing.

Its layers run on half the frames: the convolutions have a frame every 20 ms, the layers one every 40 ms. The
upsampling behind the last layer serves transcription and is not run. If the number of convolution frames is
odd, the last one is left out. In `transformers` the positional convolution sees it, so hidden states near the
end of such a clip differ.

Axis letters: B batch, N samples, S frames of the convolutions, T frames of the layers, C channels, D width.
"""

import operator
from itertools import accumulate
from typing import Any

from torch import Tensor, nn

from sertone.nn.encoders.wav2vec2 import Wav2Vec2Encoder


class SewEncoder(Wav2Vec2Encoder):
    """A `SEWModel`, run layer by layer.

    Args:
        model: the Hugging Face model.
        normalize: bring waveforms to zero mean and unit variance.
    """

    def __init__(self, model: Any, normalize: bool) -> None:
        super().__init__(model, normalize)
        self.squeeze: int = self.config.squeeze_factor
        # The last frame of the layers needs as many frames of the convolutions as are squeezed into one.
        self.min_samples += (self.squeeze - 1) * self.hop
        self.hop *= self.squeeze

    def make_projection(self, model: Any) -> Any:
        projection = model.feature_projection if model.project_features else nn.Identity()
        return nn.Sequential(model.layer_norm, projection, model.feature_dropout)

    def insert_projection(self, model: Any) -> None:
        model.layer_norm = self.projection[0]
        if model.project_features:
            model.feature_projection = self.projection[1]

    @classmethod
    def tiny_options(cls, width: int, depth: int, norm: str) -> dict[str, Any]:
        convolutions = {"conv_kernel": [10, 3, 1, 3, 2], "conv_stride": [5, 4, 1, 4, 4]}
        options = super().tiny_options(width, depth, norm) | convolutions
        return options | {"conv_dim": [width] * 4 + [2 * width]}

    def estimate_front(self) -> float:
        # Unlike those of wav2vec 2.0, the later convolutions have more channels than the first one.
        hops = accumulate(self.config.conv_stride, operator.mul)
        values = sum(channels / hop for channels, hop in zip(self.config.conv_dim, hops, strict=True))
        return 1.6 * 4 * values

    def front(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms (B, N), lengths (B,) -> features (B, T, squeeze C), frames (B,)."""
        features, frames = super().front(waveforms, lengths)
        total = features.shape[1] // self.squeeze
        squeezed = features[:, : total * self.squeeze].unflatten(1, (total, self.squeeze)).flatten(2)
        return squeezed, frames // self.squeeze

    def embed(self, features: Tensor, mask: Tensor) -> Tensor:
        """Features (B, T, squeeze C) -> hidden state 0 (B, T, D)."""
        hidden = self.projection(features.unflatten(2, (self.squeeze, -1)).flatten(1, 2))  # (B, S, D)
        frames = mask.repeat_interleave(self.squeeze, 1)
        hidden = (self.masking(hidden, frames) * frames[..., None]).transpose(1, 2)
        positions = self.transformer.pos_conv_embed(hidden)
        hidden = (self.transformer.pool(hidden) + positions).transpose(1, 2)
        return self.transformer.dropout(self.transformer.layer_norm(hidden))

    def idle_modules(self) -> list[nn.Module]:
        return [*super().idle_modules(), self.transformer.upsample]

"""The encoder of Whisper (arXiv 2212.04356) at the clip's own length; padding changes nothing.

Whisper was trained on windows of 30 s, and `transformers` accepts no other length. Here a clip of 3 s has 150
frames, which take the first 150 positions of the table. That gives the hidden states of the same model with a
table cut to that length, at a tenth of the cost. A clip longer than the table is divided into windows of
equal length. Each window starts at the first position, and its frames attend only to one another.

The front end has the log-mel energies of Whisper's feature extractor, which have no weights, and the two
convolutions.

Axis letters: B batch, N samples, M log-mel frames of 10 ms, T frames of 20 ms, C mel bands, D width.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import WhisperFeatureExtractor
from transformers.audio_utils import mel_filter_bank

from sertone.nn.encoders.spectra import cut_frames, power_products
from sertone.nn.encoders.transformers_encoder import (
    TransformersEncoder,
    attend,
    count_score_matrices,
    mask_padded_keys,
    require_front_end,
)
from sertone.nn.kernels import dropout
from sertone.nn.masks import frame_mask

SAMPLING_RATE = 16000
FFT = 400  # 25 ms
HOP = 160  # 10 ms
DYNAMIC_RANGE = 8.0  # in powers of ten below the loudest value of a clip
STANDARD = {"sampling_rate": SAMPLING_RATE, "n_fft": FFT, "hop_length": HOP}
"""The settings of the feature extractor that all published models share."""


class WhisperEncoder(TransformersEncoder):
    """The encoder of a Whisper model, run layer by layer.

    Args:
        model: encoder of `transformers`; its modules are shared.
        normalize: false; the input is log-mel energies.
    """

    key_mapping: ClassVar = {r"^(model\.)?encoder\.": ""}
    depth_key: ClassVar = "encoder_layers"
    takes_waveforms: ClassVar = False
    lora_modules: ClassVar = {
        "attention": ("q_proj", "k_proj", "v_proj", "out_proj"),
        "feed_forward": ("fc1", "fc2"),
    }
    hop = 2 * HOP
    min_samples = hop

    positions: Tensor

    def __init__(self, model: Any, normalize: bool) -> None:
        super().__init__(model, normalize)
        self.front_end = WhisperFrontEnd(model)
        # A table of sines, which is not trained.
        self.register_buffer("positions", model.embed_positions.weight.detach().clone())
        self.layers: nn.ModuleList = model.layers
        self.layer_norm: nn.LayerNorm = model.layer_norm

    @classmethod
    def get_model_class(cls) -> Any:
        # Imported here, because the import loads torch's compiler, which takes seconds and makes a folder.
        from transformers.models.whisper.modeling_whisper import WhisperEncoder as Model

        return Model

    @classmethod
    def find_normalization(cls, source: str, config: Any) -> bool:
        """Return False, once the feature extractor is known to be the one that all published models use.

        Raises:
            SertoneError: `other_front_end`.
        """
        require_front_end(source, STANDARD | {"feature_size": config.num_mel_bins})
        return False

    @classmethod
    def tiny_options(cls, width: int, depth: int, norm: str) -> dict[str, Any]:
        return {
            "d_model": width,
            "encoder_layers": depth,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 2 * width,
            "decoder_layers": 1,
            "decoder_attention_heads": 4,
            "decoder_ffn_dim": 2 * width,
            "vocab_size": 16,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
            "num_mel_bins": 16,
        }

    def count_scores(self, fused: bool) -> int:
        return count_score_matrices(self.config, fused) * self.config.encoder_attention_heads

    def count_values(self) -> int:
        return 8 * self.width + 2 * self.config.encoder_ffn_dim

    def estimate_front(self) -> float:
        return 4 * (2 * FFT + 2 * self.width) / HOP

    def front(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return self.front_end(waveforms, lengths)

    def embed(self, features: Tensor, mask: Tensor) -> Tensor:
        """Features (B, T, D) -> hidden state 0 (B, T, D)."""
        hidden = self.masking(features, mask) + self.positions[self._find_windows(mask)[1]]
        return self._drop(hidden, self.config.dropout, self.layers[0])

    def _has_one_window(self, mask: Tensor) -> bool:
        """Return whether every clip is known to fit the table; an exported graph takes any length."""
        return mask.shape[1] <= len(self.positions) and not torch.compiler.is_exporting()

    def _find_windows(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mask of real frames (B, T) -> window of every frame, its position there; (B, T) or (1, T)."""
        times = torch.arange(mask.shape[1], device=mask.device)[None]
        if self._has_one_window(mask):
            return torch.zeros_like(times), times
        frames = mask.sum(1, keepdim=True).clamp(min=1)
        count = _divide_up(frames, len(self.positions))
        size = _divide_up(frames, count)
        return times // size, times % size

    def context(self, mask: Tensor) -> dict[str, Tensor]:
        if self._has_one_window(mask):
            keys = mask_padded_keys(mask)
            return {} if keys is None else {"mask": keys}
        window, _ = self._find_windows(mask)
        same = window[:, :, None] == window[:, None]  # (B, T, T)
        # A padded frame sees all real ones: attention of a frame that sees none would be NaN.
        same = same | ~mask[:, :, None]
        return {"mask": (same & mask[:, None])[:, None]}

    def layer(self, index: int, hidden: Tensor, context: dict[str, Tensor]) -> Tensor:
        layer: Any = self.layers[index - 1]
        mixed = attend(layer.self_attn, layer.self_attn_layer_norm(hidden), context.get("mask"))
        hidden = hidden + self._drop(mixed, layer.dropout, layer)
        inner = layer.activation_fn(layer.fc1(layer.final_layer_norm(hidden)))
        inner = layer.fc2(self._drop(inner, layer.activation_dropout, layer))
        return hidden + self._drop(inner, layer.dropout, layer)

    @staticmethod
    def _drop(hidden: Tensor, probability: float, layer: nn.Module) -> Tensor:
        return dropout(hidden, probability) if layer.training else hidden

    @property
    def last_norm(self) -> nn.LayerNorm:
        return self.layer_norm

    def parts(self) -> list[list[nn.Module]]:
        parts: list[list[nn.Module]] = [[self.front_end], *([layer] for layer in self.layers)]
        parts[1].append(self.masking)
        parts[-1].append(self.layer_norm)
        return parts

    def to_model(self) -> Any:
        model = self.get_model_class()(self.config)
        model.conv1, model.conv2 = self.front_end.conv1, self.front_end.conv2
        model.layers, model.layer_norm = self.layers, self.layer_norm
        model.embed_positions.weight.data = self.positions
        return model

    def make_extractor(self) -> WhisperFeatureExtractor:
        return WhisperFeatureExtractor(feature_size=self.config.num_mel_bins)


class WhisperFrontEnd(nn.Module):
    """Waveforms (B, N), lengths (B,) -> features (B, T, D), frames (B,): log-mel energies, two convolutions.

    Args:
        model: encoder of `transformers`; its convolutions are shared.
    """

    filters: Tensor
    window: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.conv1, self.conv2 = model.conv1, model.conv2
        filters = mel_filter_bank(
            FFT // 2 + 1, model.config.num_mel_bins, 0.0, SAMPLING_RATE / 2, SAMPLING_RATE, "slaney", "slaney"
        )
        self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(FFT, device="cpu"), persistent=False)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        mel_frames = lengths // HOP
        energies = self.log_mel(waveforms, lengths).transpose(1, 2)  # (B, C, M)
        # The convolutions see zeros beyond the end of a clip, as if it were alone.
        mask = frame_mask(mel_frames, energies.shape[2])[:, None]
        features = F.gelu(self.conv1(energies * mask)) * mask
        features = F.gelu(self.conv2(features)).transpose(1, 2)
        return features, (mel_frames + 1) // 2

    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def log_mel(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Compute the log-mel energies as Whisper scales them: (B, N), (B,) -> (B, M, C)."""
        slices = cut_frames(_reflect_ends(waveforms.float(), lengths), FFT, HOP)[
            :, : waveforms.shape[1] // HOP
        ]
        if torch.compiler.is_exporting():
            energies = power_products(slices, FFT, self.filters, self.window)
        else:
            spectrum = torch.view_as_real(torch.fft.rfft(slices * self.window))
            energies = spectrum.square().sum(-1) @ self.filters
        logs = energies.clamp(min=1e-10).log10()
        mask = frame_mask(lengths // HOP, logs.shape[1])[..., None]
        loudest = logs.masked_fill(~mask, -torch.inf).amax((1, 2), keepdim=True)
        return (torch.maximum(logs, loudest - DYNAMIC_RANGE) + 4.0) / 4.0


def _reflect_ends(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """Add half a window at both ends of every clip, mirrored: (B, N), (B,) -> (B, N + FFT)."""
    half = FFT // 2
    if torch.compiler.is_exporting():
        return F.pad(waveforms[:, None], (half, half), mode="reflect")[:, 0]
    longer = F.pad(waveforms, (half, half))
    longer[:, :half] = waveforms[:, 1 : half + 1].flip(1)
    steps = torch.arange(half, device=waveforms.device)
    ends = waveforms.gather(1, lengths[:, None] - 2 - steps)
    return longer.scatter(1, lengths[:, None] + half + steps, ends)


def _divide_up(number: Tensor, divisor: Tensor | int) -> Tensor:
    """Divide and round up."""
    return (number + divisor - 1) // divisor

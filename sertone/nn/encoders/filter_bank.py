"""The filter bank of Kaldi as w2v-BERT 2.0 takes it: log-mel energies, two frames of 10 ms in one.

Axis letters: B batch, N samples, M frames of 10 ms, T frames of 20 ms, K samples of a frame, C mel bands.
"""

import torch
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank, window_function

from sertone.nn.encoders.spectra import cut_frames, power_products
from sertone.nn.masks import frame_mask, masked_mean

SAMPLING_RATE = 16000
WINDOW = 400  # 25 ms
HOP = 160  # 10 ms
FFT = 512
STRIDE = 2
FULL_SCALE = 2.0**15  # Kaldi takes samples as 16-bit integers
PREEMPHASIS = 0.97
FLOOR = 1.192092955078125e-07  # the smallest step of a float above 1, as in Kaldi


class FilterBankFrontEnd(nn.Module):
    """Waveforms (B, N), lengths (B,) -> features (B, T, STRIDE C), frames (B,).

    Every band has zero mean and unit variance over the utterance. A last frame without a second is left out.

    Args:
        bands: mel bands C.
    """

    filters: Tensor
    window: Tensor

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.bands = bands
        filters = mel_filter_bank(
            FFT // 2 + 1, bands, 20, SAMPLING_RATE // 2, SAMPLING_RATE, None, "kaldi", True
        )
        window = window_function(WINDOW, "povey", periodic=False)
        self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)
        self.register_buffer("window", torch.from_numpy(window).float(), persistent=False)

    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        energies = self.log_energies(waveforms.float())
        count = torch.div(lengths - WINDOW, HOP, rounding_mode="floor") + 1
        mask = frame_mask(count, energies.shape[1])[..., None]
        centred = (energies - masked_mean(energies, count)[:, None]) * mask
        variance = centred.square().sum(1, keepdim=True) / (count[:, None, None] - 1)
        normed = centred / (variance + 1e-7).sqrt()
        frames = count // STRIDE
        total = energies.shape[1] // STRIDE
        features = normed[:, : total * STRIDE].unflatten(1, (total, STRIDE)).flatten(2)
        return features * frame_mask(frames, total)[..., None], frames

    def log_energies(self, waveforms: Tensor) -> Tensor:
        """Compute the log-mel energies: (B, N) -> (B, M, C)."""
        slices = cut_frames(waveforms * FULL_SCALE, WINDOW, HOP)
        slices = slices - slices.mean(-1, keepdim=True)
        # The first sample of a frame has no predecessor: Kaldi takes the sample itself.
        before = torch.cat([slices[..., :1], slices[..., :-1]], -1)
        slices = slices - PREEMPHASIS * before
        if torch.compiler.is_exporting():
            energies = power_products(slices, FFT, self.filters, self.window)
        else:
            spectrum = torch.view_as_real(torch.fft.rfft(slices * self.window, FFT))
            energies = spectrum.square().sum(-1) @ self.filters
        return energies.clamp(min=FLOOR).log()

"""The encoders that `encoders.py` compares, and the measurement of one of them in its own process."""

import time
from typing import Any

import torch
from backends import get_peak_mb
from transformers import AutoConfig

from sertone.nn.encoders.base import Encoder
from sertone.nn.encoders.emotion2vec import Emotion2vecArchitectureConfig
from sertone.nn.encoders.huggingface import ArchitectureConfig

CLIP_S = 10.0
CLIPS = 5
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
LARGE |= {"feat_extract_norm": "layer", "do_stable_layer_norm": True}


def make_whisper(width: int, depth: int, bands: int = 80) -> dict[str, Any]:
    """Return the configuration of a Whisper, whose heads are 64 wide."""
    shape = {"d_model": width, "encoder_layers": depth, "encoder_attention_heads": width // 64}
    return {"model_type": "whisper", "encoder_ffn_dim": 4 * width, "num_mel_bins": bands} | shape


ENCODERS: dict[str, dict[str, Any]] = {
    "openai/whisper-tiny": make_whisper(384, 4),
    "openai/whisper-base": make_whisper(512, 6),
    "openai/whisper-small": make_whisper(768, 12),
    "openai/whisper-medium": make_whisper(1024, 24),
    "openai/whisper-large-v3": make_whisper(1280, 32, 128),
    "facebook/wav2vec2-base": {"model_type": "wav2vec2"},
    "facebook/hubert-base-ls960": {"model_type": "hubert"},
    "microsoft/wavlm-base-plus": {"model_type": "wavlm"},
    "facebook/data2vec-audio-base": {"model_type": "data2vec-audio"},
    "microsoft/wavlm-large": {"model_type": "wavlm"} | LARGE,
    "facebook/w2v-bert-2.0": {"model_type": "wav2vec2-bert"},
    "emotion2vec/emotion2vec_plus_base": {},
}
"""Hub id -> configuration of Hugging Face; none for emotion2vec."""


def build(name: str, tiny: bool) -> Encoder:
    """Build an encoder with random weights; with `tiny` one of two layers."""
    if not ENCODERS[name]:
        return Emotion2vecArchitectureConfig(depth=2 if tiny else 12).build()
    config = AutoConfig.for_model(**ENCODERS[name]).to_diff_dict() | ENCODERS[name]
    depth = "encoder_layers" if config["model_type"] == "whisper" else "num_hidden_layers"
    if tiny:
        config[depth] = 2
    return ArchitectureConfig(config=config, normalize=False).build()


@torch.inference_mode()
def measure(name: str, tiny: bool, threads: int) -> dict[str, float]:
    """Measure one encoder in this process.

    Returns:
        `parameters`; `memory_mb`, the peak of the weights and one clip; `seconds_per_hour`, of the fastest
        clip.
    """
    torch.set_num_threads(threads)
    before = get_peak_mb()
    encoder = build(name, tiny).eval()
    clip = 0.1 * torch.randn(1, round(CLIP_S * 16000))
    lengths = torch.tensor([clip.shape[1]])
    seconds = []
    for _ in range(1 if tiny else CLIPS):
        started = time.perf_counter()
        encoder(clip, lengths)
        seconds.append(time.perf_counter() - started)
    return {
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "memory_mb": get_peak_mb() - before,
        "seconds_per_hour": min(seconds) * 3600 / CLIP_S,
    }

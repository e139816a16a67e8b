"""Whisper in the benchmark of predictions: a classifier of transformers, and a bundle of the same shape.

The pipeline pads every clip to 30 s, since transformers accepts no other length. The bundle does not pad.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForAudioClassification

from sertone import corpora
from sertone.export.bundles import export
from sertone.recipe import Recipe
from sertone.training.runs.train import train

BASE = {
    "d_model": 512, "encoder_layers": 6, "encoder_attention_heads": 8, "encoder_ffn_dim": 2048,
    "decoder_layers": 6, "decoder_attention_heads": 8, "decoder_ffn_dim": 2048,
}  # fmt: skip
TINY = {
    "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 64,
    "decoder_layers": 1, "decoder_attention_heads": 4, "decoder_ffn_dim": 64,
}  # fmt: skip
CLIPS_S = (3.0, 10.0, 30.0)


def write_whisper_models(folder: Path, shape: dict[str, Any]) -> None:
    """Write `whisper_checkpoint`, for the pipeline, and `whisper`, a bundle. Both have random weights."""
    torch.manual_seed(0)
    config = WhisperConfig.from_dict(shape | {"num_labels": 4})
    WhisperForAudioClassification(config).save_pretrained(folder / "whisper_checkpoint")
    WhisperFeatureExtractor().save_pretrained(folder / "whisper_checkpoint")
    corpora.load_sheet("demo").fake(folder / "corpus", takes=1)
    encoder = {"name": "architecture", "config": config.to_diff_dict(), "normalize": False}
    recipe = Recipe.model_validate(
        {
            "data": {"corpus": "demo", "root": str(folder / "corpus")},
            "protocol": {"split": "grouped_k_fold", "folds": 2},
            "model": {"name": "baseline", "encoder": encoder, "frozen_layers": shape["encoder_layers"]},
            "train": {"epochs": [0], "batch_size": 4, "cache": "off", "device": "cpu"},
        }
    )
    export(train(recipe, folder / "whisper_run", quiet=True), folder / "whisper")

"""The optimizer: AdamW, with learning rates by part of the model and by layer of the speech encoder."""

from collections import defaultdict

import torch

from sertone.models.contract import EmotionModel
from sertone.nn.encoders.base import Encoder
from sertone.recipe.train_config import TrainConfig

RATE_GROUPS = {"encoder": "encoder", "text": "encoder", "fusion": "fusion", "fusions": "fusion"}
"""Attribute of a model -> the field of `Rates` for its weights; all other weights use `downstream`."""


def make_optimizer(model: EmotionModel, config: TrainConfig) -> torch.optim.Optimizer:
    """Make the optimizer of a stage, over the parameters that it trains.

    The parameters are named, because a saved state names the weight of every moment. Each group has its
    `part`, its highest learning rate `peak`, and its `warmup`.

    Args:
        model: model whose frozen parts are frozen.
        config: the `train` part of the recipe.
    """
    peaks, warmups = _find_peaks(config)
    factors = layer_factors(model.encoder, config.layer_decay)
    groups = defaultdict(list)
    for name, parameter in model.named_parameters():
        part = RATE_GROUPS.get(name.split(".")[0], "downstream")
        if parameter.requires_grad:
            key = (part if part in peaks else "downstream", factors.get(id(parameter), 1.0))
            groups[key].append((name, parameter))
    settings = [
        {"params": groups[part, factor], "part": part, "peak": peaks[part] * factor, "warmup": warmups[part]}
        for part, factor in sorted(groups, key=lambda key: (list(peaks).index(key[0]), -key[1]))
    ]
    # The fused kernel would scale gradients back itself, after they are clipped.
    fused = config.precision != "16-mixed"
    return torch.optim.AdamW(settings, weight_decay=config.weight_decay, fused=fused)


def _find_peaks(config: TrainConfig) -> tuple[dict[str, float], dict[str, float]]:
    """Return part of the model -> highest learning rate, and part -> warm-up."""
    rates = config.rates
    peaks = {"encoder": rates.encoder, "downstream": rates.downstream}
    warmups = dict.fromkeys(peaks, config.warmup)
    if rates.fusion is not None or config.fusion_warmup is not None:
        peaks["fusion"] = rates.fusion or rates.downstream
        warmups["fusion"] = config.warmup if config.fusion_warmup is None else config.fusion_warmup
    return peaks, warmups


def layer_factors(encoder: Encoder, decay: float) -> dict[int, float]:
    """Return id of each parameter of an encoder -> factor of its rate.

    The factor is `decay` to the power of the number of layers above. What runs before the first layer counts
    as part of it, and the front end as layer 0.
    """
    return {
        id(parameter): decay ** (encoder.depth - layer)
        for layer, modules in enumerate(encoder.parts())
        for module in modules
        for parameter in module.parameters()
    }

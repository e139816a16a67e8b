"""Low-rank adaptation of a speech encoder (LoRA, arXiv 2106.09685), by the library `peft`.

While a model is trained, the adapted layers have two small matrices beside their weights. Afterwards their
product is added to the weights, and the encoder has its old layout again.
"""

import torch
from torch import nn

from sertone.errors import SertoneError
from sertone.nn.encoders.base import Encoder
from sertone.recipe.train_parts import LoraConfig
from sertone.utils.extras import install_command

MARK = "lora_"
"""Part of the name of every parameter of an adapter."""


def require_lora(encoder: Encoder, config: LoraConfig, cut: int) -> None:
    """Refuse an encoder without layers to adapt, and an environment without `peft`.

    Args:
        encoder: encoder of a model.
        config: `train.lora`.
        cut: layers up to this one are frozen in every stage.

    Raises:
        SertoneError: `no_lora`, `missing_extra`.
    """
    missing = [place for place in config.where if place not in encoder.lora_modules]
    if missing:
        raise SertoneError(
            "no_lora",
            f"train.lora, but {type(encoder).__name__} has no pretrained {missing[0]} layers",
            "a pretrained encoder",
            "set train.lora: null, and train the layers themselves",
        )
    if cut >= encoder.depth:
        raise SertoneError(
            "no_lora",
            f"train.lora, but all {encoder.depth} layers of the encoder are frozen in every stage",
            "layers that are trained",
            "lower model.frozen_layers, or set train.lora: null",
        )
    try:
        import peft  # noqa: F401  # it loads torch's compiler, which takes seconds
    except ImportError:
        raise SertoneError(
            "missing_extra", "train.lora, but peft is not installed", way_out=install_command("lora")
        ) from None


def list_adapted(encoder: Encoder, config: LoraConfig, cut: int) -> dict[str, nn.Linear]:
    """Return name -> linear module of the layers above a cut that `config` adapts."""
    wanted = [name for place in config.where for name in encoder.lora_modules.get(place, ())]
    above = [module for part in encoder.parts()[max(1, cut + 1) :] for module in part]
    inside = {id(inner) for module in above for inner in module.modules()}
    return {
        name: module
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Linear) and id(module) in inside and name.rsplit(".", 1)[-1] in wanted
    }


def count_adapters(encoder: Encoder, config: LoraConfig) -> dict[str, int]:
    """Return name of each module above the encoder's present cut -> parameters of its adapter.

    Works before adapters are added, and without `peft`.
    """
    return {
        name: config.rank * (module.in_features + module.out_features)
        for name, module in list_adapted(encoder, config, encoder.cut).items()
    }


def add_lora(encoder: Encoder, config: LoraConfig, cut: int, seed: int) -> None:
    """Put adapters beside weights. The output stays the same: one of their two matrices starts at zero.

    From now on `Encoder.freeze` freezes the weights themselves, and thaws only adapters.

    Args:
        encoder: encoder of a model, changed in place.
        config: `train.lora`.
        cut: layers up to this one are frozen in every stage, so they get none.
        seed: seed of the first values, so that they do not depend on earlier random numbers.

    Raises:
        SertoneError: as `require_lora`.
    """
    require_lora(encoder, config, cut)
    import peft

    options = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # pyright: ignore[reportArgumentType] a float works, too
        lora_dropout=config.dropout,
        target_modules=list(list_adapted(encoder, config, cut)),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(options, encoder)
    encoder.trainable_mark = MARK
    encoder.freeze(encoder.cut)


def merge_lora(encoder: Encoder) -> None:
    """Add the products of the adapters, if there are any, to the weights, and remove the adapters."""
    if not encoder.trainable_mark:
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [
        (parent, name, child)
        for parent in encoder.modules()
        for name, child in parent.named_children()
        if isinstance(child, BaseTunerLayer)
    ]
    for parent, name, child in adapted:
        child.merge()
        setattr(parent, name, child.get_base_layer())
    del encoder.peft_config  # left by peft, which would warn of a second adapter
    encoder.trainable_mark = ""
    encoder.freeze(encoder.cut)

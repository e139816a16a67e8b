"""Prepare a model for training: check the plan, freeze what a stage does not train, set up the loss."""

from collections.abc import Sequence
from typing import cast

from sertone.errors import SertoneError
from sertone.models.contract import EmotionModel
from sertone.models.stage import Stage
from sertone.nn.adapters import count_adapters, require_lora
from sertone.nn.heads import ClassHead, EnsembleHead
from sertone.nn.vocabulary import Vocabulary
from sertone.recipe.train_config import TrainConfig
from sertone.recipe.train_parts import LoraConfig
from sertone.schema import Utterance
from sertone.training.fit.epoch_statistics import DIVERGENCE_ADVICE
from sertone.training.fit.loggers import require_loggers
from sertone.utils.wording import format_count


def prepare_emotion_loss(
    model: EmotionModel,
    vocabulary: Vocabulary,
    utterances: Sequence[Utterance],
    config: TrainConfig,
    *,
    soft: bool,
) -> None:
    """Set smoothing, focal exponent and class weights of the emotion head, if the model has one.

    Args:
        model: model before training.
        vocabulary: vocabulary of the targets.
        utterances: utterances of the training set.
        config: the `train` part of the recipe.
        soft: annotators' votes as targets of emotion.
    """
    if "emotion" not in model.heads:
        return
    head = cast(ClassHead | EnsembleHead, model.heads["emotion"])
    head.smoothing, head.focal_gamma = config.label_smoothing, config.focal_gamma
    if config.class_weights:
        counts = vocabulary.make_targets("emotion", utterances, soft=soft).sum(0)
        # Inverse frequencies, which are 1 where all classes are equally frequent.
        head.class_weights.copy_(counts.sum() / (len(counts) * counts.clamp(min=1)))


def freeze(model: EmotionModel, stage: Stage) -> None:
    """Freeze what the stage does not train, and unfreeze the rest.

    Raises:
        SertoneError: `bad_cut`.
    """
    model.requires_grad_(True)
    model.encoder.freeze(stage.cut)
    for name in stage.frozen:
        model.get_submodule(name).requires_grad_(False)


def find_smallest_cut(model: EmotionModel) -> int:
    """Return the number of the last encoder layer that every stage freezes."""
    return min(stage.cut for stage in model.stages())


def count_trained(model: EmotionModel, lora: LoraConfig | None) -> dict[str, int]:
    """Return name of what is trained -> its number of parameters, for a model whose frozen parts are frozen.

    Args:
        model: model without adapters.
        lora: `train.lora`: adapters are trained instead of the encoder's weights.
    """
    counts = {name: weight.numel() for name, weight in model.named_parameters() if weight.requires_grad}
    if lora is None:
        return counts
    adapters = count_adapters(model.encoder, lora)
    others = {name: count for name, count in counts.items() if not name.startswith("encoder.")}
    return others | {f"encoder.{name}": count for name, count in adapters.items()}


def check_plan(model: EmotionModel, config: TrainConfig) -> None:
    """Refuse, before training, a plan that would fail in a later stage.

    Args:
        model: model with its stages.
        config: the `train` part of the recipe.

    Raises:
        SertoneError: `wrong_epochs`, `bad_cut`; as `require_lora` and `require_loggers`.
    """
    stages = model.stages()
    if len(config.epochs) != len(stages):
        names = ", ".join(stage.name for stage in stages)
        raise SertoneError(
            "wrong_epochs",
            f"train.epochs has {format_count(len(config.epochs), 'number')}",
            f"{len(stages)}, one for each stage ({names})",
        )
    for stage in stages:  # raises `bad_cut` for an encoder with too few layers
        freeze(model, stage)
    if config.lora:
        require_lora(model.encoder, config.lora, find_smallest_cut(model))
    require_loggers(config.log)


def require_finite_weights(model: EmotionModel, where: str) -> None:
    """Refuse a model with weights that are infinite or NaN.

    Args:
        model: model in training.
        where: fold, stage and epoch, for the message.

    Raises:
        SertoneError: `diverged`.
    """
    for name, weight in model.state_dict().items():
        if not weight.isfinite().all():
            raise SertoneError(
                "diverged",
                f"{where}: the weights in {name} are not finite",
                "finite weights",
                f"{DIVERGENCE_ADVICE}, or lower train.clip_norm",
            )

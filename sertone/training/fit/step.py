"""Take one training step (outputs, losses, gradient, update), and freeze what a stage does not train."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from sertone.audio import SAMPLING_RATE
from sertone.errors import SertoneError, is_out_of_memory
from sertone.models.contract import EmotionModel
from sertone.models.stage import Stage
from sertone.nn import kernels
from sertone.nn.batch import Batch
from sertone.nn.heads import ClassHead, EnsembleHead, HeadOutput
from sertone.nn.vocabulary import Vocabulary
from sertone.recipe.train_config import TrainConfig
from sertone.schema import Utterance
from sertone.training.fit.epoch_statistics import DIVERGENCE_ADVICE, EpochStatistics
from sertone.training.fit.schedules import schedule_factor
from sertone.utils.wording import format_count

ENCODERS = {"audio": "encoder", "text": "text"}
"""Modality -> attribute of the model that encodes it."""
RATE_GROUPS = {"encoder": "encoder", "text": "encoder", "fusion": "fusion", "fusions": "fusion"}
"""Attribute of a model -> the field of `Rates` for its weights; all other weights use `downstream`."""


class Stepper:
    """Trains a model on the losses of one stage.

    Args:
        model: model with heads and encoder; the parts that the stage does not train are frozen here.
        stage: the losses and the frozen parts.
        config: the `train` part of the recipe.
        fabric: device and precision.

    Attributes:
        optimizer: AdamW, with one group for the encoders' weights and one for the other weights. The fusion
            of the layers has its own group where the recipe gives it a rate or a warm-up.
        annealing: factor of all learning rates, see `schedules.annealing_factor`.
    """

    def __init__(self, model: EmotionModel, stage: Stage, config: TrainConfig, fabric: Fabric) -> None:
        freeze(model, stage)  # before the optimizer, which takes trained parameters only
        kernels.choose(config.kernels)
        self.model = model
        self.stage = stage
        self.config = config
        self.fabric = fabric
        self.optimizer = self._make_optimizer()
        self.annealing = 1.0
        self._wrapped_model: Any
        self._wrapped_optimizer: Any
        self._wrapped_model, self._wrapped_optimizer = fabric.setup(cast(nn.Module, model), self.optimizer)

    @property
    def rates(self) -> dict[str, float]:
        """The learning rates of the last step, by field of `Rates`."""
        return {group["part"]: group["lr"] for group in self.optimizer.param_groups}

    def step(
        self, batch: Batch, progress: float, utterances: Sequence[Utterance], statistics: EpochStatistics
    ) -> None:
        """Update the weights once, unless loss or gradient is not finite.

        Args:
            batch: batch on any device.
            progress: share of the stage already done, for the learning rates.
            utterances: utterances of the batch.
            statistics: records losses and outputs.

        Raises:
            SertoneError: `out_of_memory`; as `EpochStatistics.add_step`.
        """
        # Rates follow the share of the stage, so they do not depend on the number of batches.
        for group in self.optimizer.param_groups:
            factor = schedule_factor(self.config.schedule, group["warmup"], progress)
            group["lr"] = group["peak"] * factor * self.annealing
        with report_out_of_memory(utterances, batch.lengths):
            batch = batch.to(self.fabric.device)
            outputs, losses, loss = self._compute_losses(batch)
            self._wrapped_optimizer.zero_grad()
            self.fabric.backward(loss)
            norm = self._clip_gradients()
            if statistics.add_step(losses, loss, norm, utterances):
                self._wrapped_optimizer.step()  # the first call allocates the moments
        statistics.add_outputs(outputs, batch.targets)

    def begin_epoch(self, withheld: Sequence[str] = ()) -> None:
        """Set the training mode, except for frozen parts; freeze an encoder that gets no input in this epoch.

        Args:
            withheld: the modality that each utterance of the epoch withholds.
        """
        if self.stage.masking:
            freeze(self.model, self.stage)  # undo what the last epoch froze
            if len(set(withheld)) == 1 and withheld[0]:
                self.model.get_submodule(ENCODERS[withheld[0]]).requires_grad_(False)
        self._wrapped_model.train()
        for name in self.stage.frozen:  # frozen parts, such as the embeddings of text, use no dropout
            self.model.get_submodule(name).eval()

    def _compute_losses(self, batch: Batch) -> tuple[dict[str, HeadOutput], dict[str, Tensor], Tensor]:
        """Return the outputs, the loss of each task, and the total loss to minimise."""
        weights, heads = self.stage.weights, self.model.heads
        outputs = self._wrapped_model(batch, tuple(weights))
        losses = {task: heads[task].loss(outputs[task], batch.targets[task]) for task in weights}
        weighted = [weight * losses[task] for task, weight in weights.items()]
        return outputs, losses, torch.stack(weighted).sum()

    def _clip_gradients(self) -> Tensor:
        """Clip the gradient, and return its norm before that."""
        norm = self.fabric.clip_gradients(
            self._wrapped_model,
            self._wrapped_optimizer,
            max_norm=self.config.clip_norm,
            error_if_nonfinite=False,  # EpochStatistics counts such steps
        )
        assert norm is not None
        return norm

    def _make_optimizer(self) -> torch.optim.Optimizer:
        """Return AdamW over named parameters, because a saved state names the weight of every moment."""
        config, rates = self.config, self.config.rates
        peaks = {"encoder": rates.encoder, "downstream": rates.downstream}
        separate_fusion = rates.fusion is not None or config.fusion_warmup is not None
        if separate_fusion:
            peaks["fusion"] = rates.fusion or rates.downstream
        parameters: dict[str, list] = {part: [] for part in peaks}
        for name, parameter in self.model.named_parameters():
            part = RATE_GROUPS.get(name.split(".")[0], "downstream")
            if part not in parameters:
                part = "downstream"
            if parameter.requires_grad:
                parameters[part].append((name, parameter))
        warmups = dict.fromkeys(peaks, config.warmup)
        if separate_fusion and config.fusion_warmup is not None:
            warmups["fusion"] = config.fusion_warmup
        groups = [
            {"params": parameters[part], "part": part, "peak": peak, "warmup": warmups[part]}
            for part, peak in peaks.items()
            if parameters[part]
        ]
        return torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)


def prepare_emotion_loss(
    model: EmotionModel,
    vocabulary: Vocabulary,
    utterances: Sequence[Utterance],
    config: TrainConfig,
    *,
    soft: bool,
) -> None:
    """Set label smoothing and class weights of the emotion head, if the model has one.

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
    head.smoothing = config.label_smoothing
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


def check_plan(model: EmotionModel, config: TrainConfig) -> None:
    """Refuse, before training, a plan that would fail in a later stage.

    Args:
        model: model with its stages.
        config: the `train` part of the recipe.

    Raises:
        SertoneError: `wrong_epochs`, `bad_cut`.
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


@contextmanager
def report_out_of_memory(utterances: Sequence[Utterance], lengths: Tensor) -> Iterator[None]:
    """Turn a lack of memory, on the CPU or a GPU, into an error that names the batch.

    Args:
        utterances: utterances of the batch.
        lengths: lengths in samples, (B,).

    Raises:
        SertoneError: `out_of_memory`.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        longest = f"{int(lengths.max()) / SAMPLING_RATE:.1f} s ({utterances[int(lengths.argmax())].id})"
        raise SertoneError(
            "out_of_memory",
            f"not enough memory for {format_count(len(utterances), 'utterance')} of up to {longest}",
            "a batch that fits the device",
            "lower train.batch_gb, train.batch_seconds or train.batch_size, run fewer folds side by side "
            "(--jobs), or set data.max_seconds",
        ) from None

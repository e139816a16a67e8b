"""One step of training: outputs, losses, gradient, update; what a stage freezes, and whether it can."""

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
from sertone.nn.heads import HeadOutput
from sertone.recipe.train_config import TrainConfig
from sertone.schema import Utterance
from sertone.scoring.display import format_count
from sertone.training.fit.epoch_statistics import DIVERGENCE_ADVICE, EpochStatistics
from sertone.training.fit.schedules import schedule_factor

ENCODERS = {"audio": "encoder", "text": "text"}
"""Modality -> the model's encoder of it."""
PARTS = dict.fromkeys(ENCODERS.values(), "encoder") | dict.fromkeys(("fusion", "fusions"), "fusion")
"""Attribute of a model -> the part of `Rates` that drives it; all others are `downstream`."""


class Stepper:
    """Trains a model by the losses of one stage.

    Args:
        model: with heads and encoder; what the stage does not train is frozen here.
        stage: what counts.
        config: the `train` part of the recipe.
        fabric: device and precision.

    Attributes:
        optimizer: AdamW, with the encoders' and the other weights in groups of their own; so has the fusion
            of the layers where the recipe gives it a rate or a warm-up.
        annealing: factor of all learning rates, see `schedules.annealing_factor`.
    """

    def __init__(self, model: EmotionModel, stage: Stage, config: TrainConfig, fabric: Fabric) -> None:
        freeze(model, stage)
        kernels.choose(config.kernels)
        self.model, self.stage, self.config, self.fabric = model, stage, config, fabric
        self.optimizer, self.annealing = self._adamw(), 1.0
        self._wrapped: Any
        self._stepping: Any
        self._wrapped, self._stepping = fabric.setup(cast(nn.Module, model), self.optimizer)

    @property
    def rates(self) -> dict[str, float]:
        """The learning rates of the last step by part of the model, those of `Rates`."""
        return {group["part"]: group["lr"] for group in self.optimizer.param_groups}

    def step(
        self, batch: Batch, progress: float, utterances: Sequence[Utterance], tally: EpochStatistics
    ) -> None:
        """One update, unless loss or gradient is not finite.

        Args:
            batch: on any device.
            progress: share of the stage already done, for the learning rates.
            utterances: of the batch.
            tally: told losses and answers.

        Raises:
            SertoneError: `out_of_memory`; as `tally.step`.
        """
        for group in self.optimizer.param_groups:
            factor = schedule_factor(self.config.schedule, group["warmup"], progress)
            group["lr"] = group["peak"] * factor * self.annealing
        with report_out_of_memory(utterances, batch.lengths):
            batch = batch.to(self.fabric.device)
            outputs, losses, loss = self._losses(batch)
            self._stepping.zero_grad()
            self.fabric.backward(loss)
            norm = self._clip()
            if tally.add_step(losses, loss, norm, utterances):
                self._stepping.step()  # the first one makes room for the moments
        tally.add_outputs(outputs, batch.targets)

    def begin_epoch(self, withheld: Sequence[str] = ()) -> None:
        """Dropout on, but for what is frozen; an encoder that is given nothing is not trained.

        Args:
            withheld: what of each utterance of the epoch is.
        """
        if self.stage.masking:
            freeze(self.model, self.stage)
            if len(set(withheld)) == 1 and withheld[0]:
                self.model.get_submodule(ENCODERS[withheld[0]]).requires_grad_(False)
        self._wrapped.train()
        for name in self.stage.frozen:  # such as the embeddings of text: what is not trained has no dropout
            self.model.get_submodule(name).eval()

    def _losses(self, batch: Batch) -> tuple[dict[str, HeadOutput], dict[str, Tensor], Tensor]:
        """Outputs, the loss of each task, and the loss to go down."""
        weights, heads = self.stage.weights, self.model.heads
        outputs = self._wrapped(batch, tuple(weights))
        losses = {task: heads[task].loss(outputs[task], batch.targets[task]) for task in weights}
        weighted = [weight * losses[task] for task, weight in weights.items()]
        return outputs, losses, torch.stack(weighted).sum()

    def _clip(self) -> Tensor:
        """Clips the gradient; returns the norm it had."""
        norm = self.fabric.clip_gradients(
            self._wrapped, self._stepping, max_norm=self.config.clip_norm, error_if_nonfinite=False
        )
        assert norm is not None
        return norm

    def _adamw(self) -> torch.optim.Optimizer:
        """AdamW over named parameters, so that a save says whose moments it holds."""
        config, rates = self.config, self.config.rates
        peaks = {"encoder": rates.encoder, "downstream": rates.downstream}
        if own_fusion := rates.fusion is not None or config.fusion_warmup is not None:
            peaks["fusion"] = rates.fusion or rates.downstream
        parameters: dict[str, list] = {part: [] for part in peaks}
        for name, parameter in self.model.named_parameters():
            part = PARTS.get(name.split(".")[0], "downstream")
            if parameter.requires_grad:
                parameters[part if part != "fusion" or own_fusion else "downstream"].append((name, parameter))
        warmup = config.warmup
        warmups = {"fusion": warmup if config.fusion_warmup is None else config.fusion_warmup}
        groups = [
            {"params": parameters[part], "part": part, "peak": peak, "warmup": warmups.get(part, warmup)}
            for part, peak in peaks.items()
            if parameters[part]
        ]
        return torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)


def freeze(model: EmotionModel, stage: Stage) -> None:
    """Freezes what the stage does not train and thaws the rest.

    Raises:
        SertoneError: `bad_cut`.
    """
    model.requires_grad_(True)
    model.encoder.freeze(stage.cut)
    for name in stage.frozen:
        model.get_submodule(name).requires_grad_(False)


def check_plan(model: EmotionModel, config: TrainConfig) -> None:
    """Refuses, before anything is trained, a plan that would fail half-way.

    Args:
        model: with its stages.
        config: the `train` part of the recipe.

    Raises:
        SertoneError: `wrong_epochs`, `bad_cut`.
    """
    stages = model.stages()
    if len(config.epochs) != len(stages):
        names = ", ".join(stage.name for stage in stages)
        raise SertoneError(
            "wrong_epochs",
            f"train.epochs has {len(config.epochs)} numbers",
            f"{len(stages)}, one for each stage ({names})",
        )
    for stage in stages:
        freeze(model, stage)


def require_finite_weights(model: EmotionModel, where: str) -> None:
    """Refuse a model whose weights have become infinite, or no numbers.

    Args:
        model: that is trained.
        where: it is in its training.

    Raises:
        SertoneError: `diverged`.
    """
    for name, weight in model.state_dict().items():
        if not weight.isfinite().all():
            raise SertoneError(
                "diverged",
                f"{where}: the weights in {name} are no finite numbers",
                "finite weights",
                f"{DIVERGENCE_ADVICE}, or lower train.clip_norm",
            )


@contextmanager
def report_out_of_memory(utterances: Sequence[Utterance], lengths: Tensor) -> Iterator[None]:
    """Name the batch for which there is not enough memory, on the CPU or a GPU.

    Args:
        utterances: of the batch.
        lengths: in samples, (B,).

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
            f"{format_count(len(utterances), 'utterance')} of up to {longest}",
            "a batch that fits the device",
            "lower train.batch_gb, train.batch_seconds or train.batch_size, run fewer folds side by side "
            "(--jobs), or set data.max_seconds",
        ) from None

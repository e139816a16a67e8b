"""Take one training step: outputs, losses, gradient, update."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
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
from sertone.recipe.train_config import TrainConfig
from sertone.schema import Utterance
from sertone.training.fit import distributed
from sertone.training.fit.averaging import WeightAverage
from sertone.training.fit.consistency import CONSISTENCY, compare_predictions, predict_clean
from sertone.training.fit.epoch_statistics import EpochStatistics
from sertone.training.fit.optimizer import make_optimizer
from sertone.training.fit.preparation import freeze
from sertone.training.fit.schedules import schedule_factor
from sertone.training.fit.training_state import TrainingState, restore_optimizer
from sertone.utils.wording import format_count

ENCODERS = {"audio": "encoder", "text": "text"}
"""Modality -> attribute of the model that encodes it."""


class Stepper:
    """Trains a model on the losses of one stage.

    Args:
        model: model with heads and encoder; the parts that the stage does not train are frozen here.
        stage: the losses and the frozen parts.
        config: the `train` part of the recipe.
        fabric: device and precision.

    Attributes:
        optimizer: of the weights that the stage trains, see `make_optimizer`.
        average: moving average of the weights, or None.
        annealing: factor of all learning rates, see `schedules.annealing_factor`.
    """

    def __init__(self, model: EmotionModel, stage: Stage, config: TrainConfig, fabric: Fabric) -> None:
        freeze(model, stage)  # before the optimizer, which takes trained parameters only
        kernels.choose(config.kernels)
        self.model = model
        self.stage = stage
        self.weights = dict(stage.weights)
        if config.consistency and self._list_compared():
            self.weights[CONSISTENCY] = config.consistency
        self.config = config
        self.fabric = fabric
        self.optimizer = make_optimizer(model, config)
        self.annealing = 1.0
        self._bad_in_a_row = 0
        self._wrapped_model: Any
        self._wrapped_optimizer: Any
        self._wrapped_model, self._wrapped_optimizer = fabric.setup(cast(nn.Module, model), self.optimizer)
        # After `setup`, which moves the weights to the device.
        self.average = WeightAverage(cast(nn.Module, model), config.ema) if config.ema else None
        # Scales losses in fp16, so that small gradients do not become zero; None in other precisions.
        self.loss_scaler: Any = getattr(fabric.strategy.precision, "scaler", None)
        if self.loss_scaler is not None:  # a stage does not depend on the scale of the one before it
            self.loss_scaler.load_state_dict(torch.amp.GradScaler("cpu").state_dict())

    @property
    def rates(self) -> dict[str, float]:
        """The learning rates of the last step, by field of `Rates`; for an encoder, that of its top layer."""
        rates: dict[str, float] = {}
        for group in self.optimizer.param_groups:
            rates[group["part"]] = max(group["lr"], rates.get(group["part"], 0.0))
        return rates

    def train_epoch(
        self,
        batches: Iterator[Batch],
        utterances: Sequence[Sequence[Utterance]],
        start: float,
        share: float,
        on_step: Callable[[float], None],
    ) -> dict:
        """Train on the batches of one epoch, `train.accumulate` of them in each step.

        Args:
            batches: batches on any device.
            utterances: utterances of each batch.
            start: share of the stage already done.
            share: share of the stage that this epoch covers.
            on_step: called after every step with the share of the epoch that is done.

        Returns:
            Losses, scores and counts.

        Raises:
            SertoneError: as `step`.
        """
        statistics = EpochStatistics(self.config.max_bad_steps, self._bad_in_a_row, self.config.clip_norm)
        total = len(utterances)
        for first in range(0, total, self.config.accumulate):
            rows = utterances[first : first + self.config.accumulate]
            self.step(list(islice(batches, len(rows))), start + share * first / total, rows, statistics)
            on_step((first + len(rows)) / total)
        self._bad_in_a_row = statistics.bad_in_a_row
        return statistics.summarise()

    def step(
        self,
        batches: Sequence[Batch],
        progress: float,
        utterances: Sequence[Sequence[Utterance]],
        statistics: EpochStatistics,
    ) -> None:
        """Update the weights once, with the gradient of several batches, unless it or a loss is not finite.

        Args:
            batches: batches on any device. They count as one large batch.
            progress: share of the stage already done, for the learning rates.
            utterances: utterances of each batch.
            statistics: records losses and outputs.

        Raises:
            SertoneError: `out_of_memory`; as `EpochStatistics.add_step`.
        """
        self._set_rates(progress)
        self._wrapped_optimizer.zero_grad()
        losses = self._add_gradients(batches, utterances, statistics)
        with report_out_of_memory(utterances[-1], batches[-1].lengths):
            norm = self._clip_gradients()
            rows = [utterance for batch in utterances for utterance in batch]
            scale = self.loss_scaler.get_scale() if self.loss_scaler else 1.0
            is_finite = statistics.add_step(losses, self._sum_weighted(losses), norm, rows, scale)
            if is_finite:
                self._wrapped_optimizer.step()  # the first call allocates the moments
            elif self.loss_scaler:
                self.loss_scaler.update()  # lowers its scale after an infinite gradient
        if is_finite and self.average:
            self.average.update()

    def record_state(self, state: TrainingState) -> None:
        """Put what a save needs, beside the weights and the optimizer, into a training state."""
        state.average = self.average.state_dict() if self.average else {}
        state.loss_scale = self.loss_scaler.state_dict() if self.loss_scaler else {}

    def restore_state(self, state: TrainingState) -> None:
        """Continue from a training state that was loaded; a new one changes nothing."""
        if state.moments:
            restore_optimizer(self.optimizer, state.moments)
        if self.average and state.average:
            self.average.load_state_dict(state.average)
        if self.loss_scaler and state.loss_scale:
            self.loss_scaler.load_state_dict(state.loss_scale)

    def averaged(self) -> AbstractContextManager[None]:
        """Return a context in which the model has the average of its weights, if there is one."""
        return self.average.applied() if self.average else nullcontext()

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

    def _set_rates(self, progress: float) -> None:
        # Rates follow the share of the stage, so they do not depend on the number of batches.
        for group in self.optimizer.param_groups:
            factor = schedule_factor(self.config.schedule, group["warmup"], progress)
            group["lr"] = group["peak"] * factor * self.annealing

    def _add_gradients(
        self, batches: Sequence[Batch], utterances: Sequence[Sequence[Utterance]], statistics: EpochStatistics
    ) -> dict[str, Tensor]:
        """Add up the gradients of several batches, and return the loss of each task over all of them."""
        moved = [batch.to(self.fabric.device) for batch in batches]
        parts = []
        for batch, share, rows in zip(moved, self._compute_shares(moved), utterances, strict=True):
            with (
                report_out_of_memory(rows, batch.lengths),
                # Processes average their gradients once, with those of the last batch.
                self.fabric.no_backward_sync(self._wrapped_model, enabled=batch is not moved[-1]),
            ):
                parts.append(self._add_gradient(batch, share, statistics))
        return {task: torch.stack([part[task] for part in parts]).sum() for task in self.weights}

    def _add_gradient(
        self, batch: Batch, share: dict[str, Tensor], statistics: EpochStatistics
    ) -> dict[str, Tensor]:
        """Add the gradient of one batch, and return what it adds to the loss of each task."""
        tasks = tuple(self.stage.weights)
        compares = CONSISTENCY in self.weights
        clean = predict_clean(self.model, batch, tasks, self.fabric) if compares else {}
        outputs = self._wrapped_model(batch, tasks)
        losses = {task: self.model.heads[task].loss(outputs[task], batch.targets[task]) for task in tasks}
        if compares:
            losses[CONSISTENCY] = compare_predictions(outputs, clean, self._list_compared())
        losses = {task: loss * share[task] for task, loss in losses.items()}
        self.fabric.backward(self._sum_weighted(losses))
        statistics.add_outputs(outputs, batch.targets)
        return {task: loss.detach() for task, loss in losses.items()}

    def _compute_shares(self, batches: Sequence[Batch]) -> list[dict[str, Tensor]]:
        """Return, for each batch and task, the share of the batch in the loss of all batches together.

        All processes use the same shares, because the concordance of ratings is that of all their utterances.
        """
        tasks = list(self.weights)
        weights = torch.stack(
            [torch.stack([self._weigh(batch, task) for task in tasks]) for batch in batches]
        )  # (batches, tasks)
        weights = distributed.mean(weights.float())
        shares = weights / weights.sum(0).clamp(min=1e-6)  # no batch may have a label for a task
        return [dict(zip(tasks, row, strict=True)) for row in shares]

    def _weigh(self, batch: Batch, task: str) -> Tensor:
        """Return the weight of a batch in the loss of a task, a scalar."""
        if task == CONSISTENCY:
            return torch.tensor(len(batch.lengths) if batch.clean else 0, device=batch.lengths.device)
        return self.model.heads[task].weigh(batch.targets[task])

    def _list_compared(self) -> list[str]:
        """Return the tasks whose predictions for changed and unchanged waveforms are compared."""
        return [task for task in self.stage.weights if task in self.model.config.main_tasks]

    def _sum_weighted(self, losses: dict[str, Tensor]) -> Tensor:
        """Return the total loss: the sum of the tasks' losses with the weights of the stage."""
        return torch.stack([weight * losses[task] for task, weight in self.weights.items()]).sum()

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
            "lower train.batch_gb, train.batch_seconds or train.batch_size (and raise train.accumulate), run "
            "fewer folds side by side (--jobs), or set data.max_seconds",
        ) from None

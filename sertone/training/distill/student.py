"""Training a student: the loop of all models, with the teacher's hidden states as targets."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from sertone.audio import SAMPLING_RATE
from sertone.errors import SertoneError
from sertone.models.stage import Stage
from sertone.nn.batch import Batch
from sertone.nn.distillation import TargetHead
from sertone.nn.encoders.base import NOTHING, Encoder, Prefix
from sertone.nn.heads import HeadOutput, Heads
from sertone.training.data.batches import plan_batches
from sertone.training.data.loader import BatchItem, Loader
from sertone.training.data.prefix_cache import PrefixCache
from sertone.training.distill.distill_recipe import StudentConfig
from sertone.training.fit.epoch_statistics import DIVERGENCE_ADVICE
from sertone.training.fit.inference import EVALUATION_SECONDS
from sertone.training.fit.trainer import Trainer


class StudentModel(nn.Module):
    """A student with a head per target layer, as a model of one stage.

    Args:
        student: the encoder to be trained.
        config: of the student: its frozen layers, its heads, the gradient of its front end.
        target_width: width of the teacher.
        targets: layers of the teacher.
        cosine: weight of the cosine term.
    """

    text = None

    def __init__(
        self,
        student: Encoder,
        config: StudentConfig,
        target_width: int,
        targets: Sequence[int],
        cosine: float,
    ) -> None:
        super().__init__()
        self.config = config
        self.encoder = student
        make = partial(TargetHead, student.width, target_width, cosine, hidden=config.heads == "hidden")
        self.heads = Heads({f"layer_{layer}": make() for layer in targets})
        if config.front_gradient < 1:
            _scale_gradients(student.parts()[0], config.front_gradient)

    def forward(self, batch: Batch, tasks: Collection[str] = ()) -> dict[str, HeadOutput]:
        """Batch -> prediction of every target layer."""
        hidden, frames = batch.encode(self.encoder)
        return {name: head(hidden[:, -1], frames) for name, head in self.heads.items()}

    def stages(self) -> list[Stage]:
        """One stage, whose loss is the mean of all heads'."""
        weights = dict.fromkeys(self.heads, 1 / len(self.heads))
        return [Stage("distillation", weights, self.config.frozen_layers, (self.encoder.depth,))]


def _scale_gradients(modules: Sequence[nn.Module], factor: float) -> None:
    """Multiply every gradient of some modules, before it is clipped."""
    for parameter in (p for module in modules for p in module.parameters()):
        parameter.register_hook(lambda gradient: gradient * factor)


class TargetLoader(Loader):
    """Batches for the student, with what the teacher makes of the same audio as their targets.

    Args:
        teacher: makes the teacher's input, or has its hidden states in a cache.
        encoder: the teacher, frozen up to the deepest target, on the device of `fabric`.
        targets: its layers, in order.
        fabric: device and precision.
        cache: of the student's prefix.
    """

    def __init__(
        self,
        teacher: Loader,
        encoder: Encoder,
        targets: Sequence[int],
        fabric: Fabric,
        cache: PrefixCache | None,
    ) -> None:
        augmentation = teacher.augmentation  # the student hears what the teacher hears
        super().__init__(
            teacher.recordings, teacher.vocabulary, teacher.min_samples, cache, augmentation=augmentation
        )
        self.teacher, self.encoder, self.targets, self.fabric = teacher, encoder, targets, fabric

    def pop_waited(self) -> float:
        """Seconds waited since the last call, for either."""
        return super().pop_waited() + self.teacher.pop_waited()

    def batches(self, plan: Sequence[Sequence[BatchItem]], tasks: Sequence[str]) -> Iterator[Batch]:
        """Batches in the order of the plan; `tasks` are the names of the targets, in order."""
        both = zip(super().batches(plan, ()), self.teacher.batches(plan, ()), strict=True)
        for batch, heard in both:
            states = self._states(heard.to(self.fabric.device))
            yield replace(batch, targets=dict(zip(tasks, states.unbind(1), strict=True)))

    @torch.no_grad()
    def _states(self, heard: Batch) -> Tensor:
        """The teacher's hidden states at the target layers, (B, S, T, E)."""
        prefix = heard.prefix
        with self.fabric.autocast():
            if prefix is None:
                assert heard.waveforms is not None, "a batch has waveforms or a prefix"
                prefix = Prefix(*self.encoder.front(heard.waveforms, heard.lengths))
            return (
                prefix.states
                if prefix.layers
                else self.encoder.run_frozen_layers(prefix, self.targets).states
            )


@dataclass
class DistillationTrainer(Trainer):
    """Trains a student; the fold's validation side is the audio held out.

    Args:
        teacher: frozen here, and not changed.
        targets: its layers that the student predicts, in order.
    """

    teacher: Encoder = field(kw_only=True)
    targets: Sequence[int] = field(kw_only=True)

    @torch.no_grad()
    def compute_held_out_loss(self) -> float | None:
        """Return the mean over the frames of the held-out audio, at speed 1; None where there is none.

        Raises:
            SertoneError: `diverged`.
        """
        if not self.fold.validation:
            return None
        model, was_training = self.model.to(self.fabric.device), self.model.training
        model.eval()
        total, frames = torch.zeros((), device=self.fabric.device), 0
        for batch in self.loader.batches(self._held_out_plan(), list(model.heads)):
            with self.fabric.autocast():
                outputs = model(batch.to(self.fabric.device))
            total += sum(
                cast(TargetHead, h).sum_losses(outputs[n], batch.targets[n]) for n, h in model.heads.items()
            )
            frames += int(next(iter(outputs.values())).frames.sum())
        model.train(was_training)
        loss = total.item() / frames / len(model.heads)
        if not math.isfinite(loss):
            raise SertoneError(
                "diverged", f"the loss on the held-out audio is {loss}", "a number", DIVERGENCE_ADVICE
            )
        return loss

    def _held_out_plan(self) -> list[list[BatchItem]]:
        aside, lengths = self.fold.validation, self.caches.recordings.lengths
        seconds = [lengths[u.id] / SAMPLING_RATE for u in aside]
        plan = plan_batches(seconds, batch_seconds=EVALUATION_SECONDS)
        return [[BatchItem(aside[index]) for index in batch] for batch in plan]

    def _validate(self, stage: Stage, entry: dict) -> float | None:
        loss = self.compute_held_out_loss()
        return None if loss is None else -entry.setdefault("val_loss", loss)

    def _loader(self, cache: PrefixCache | None) -> Loader:
        recordings, samples = self.caches.recordings, self.teacher.min_samples
        augmentation = self.config.augmentation
        teacher = Loader(recordings, self.vocabulary, samples, self._kept, augmentation=augmentation)
        return TargetLoader(teacher, self.teacher, self.targets, self.fabric, cache)

    @cached_property
    def _kept(self) -> PrefixCache | None:
        """Where the teacher's hidden states are kept, if they are."""
        self.teacher.to(self.fabric.device).freeze(self.targets[-1])
        self.teacher.eval()
        recordings, prefixes = self.caches.recordings, self.caches.prefixes

        def say(line: str) -> None:
            self.progress.say(f"teacher: {line}")

        return prefixes.open(self.teacher, self.targets, False, recordings, self.fabric, say)

    def _cache(self, index: int, stage: Stage, own: bool) -> PrefixCache | None:
        return None if stage.cut == NOTHING else super()._cache(index, stage, own)

    def _head(self, index: int, stage: Stage) -> str:
        return stage.name

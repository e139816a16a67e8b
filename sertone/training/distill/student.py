"""Training a student: the training loop of all models, with the teacher's hidden states as targets.

Axis letters: B batch, S target layers, T frames, E width of the teacher.
"""

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
from sertone.nn.masks import frame_mask
from sertone.training.data.batches import plan_batches
from sertone.training.data.loader import BatchItem, Loader
from sertone.training.data.prefix_cache import PrefixCache
from sertone.training.distill.distill_recipe import StudentConfig
from sertone.training.fit.epoch_statistics import DIVERGENCE_ADVICE
from sertone.training.fit.inference import EVALUATION_SECONDS
from sertone.training.fit.trainer import Trainer


class StudentModel(nn.Module):
    """A student with one head per target layer, as a model with one training stage.

    Args:
        student: the encoder to train.
        config: config of the student: its frozen layers, its heads, the gradient of its front end.
        target_width: width of the teacher.
        targets: layers of the teacher.
        cosine: weight of the cosine term.
    """

    text = None  # the trainer asks every model for its text encoder

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
        make_head = partial(TargetHead, student.width, target_width, cosine, hidden=config.heads == "hidden")
        self.heads = Heads({f"layer_{layer}": make_head() for layer in targets})
        if config.front_gradient < 1:
            _scale_gradients(student.parts()[0], config.front_gradient)

    def forward(self, batch: Batch, tasks: Collection[str] = ()) -> dict[str, HeadOutput]:
        """Predict every target layer for a batch."""
        hidden, frames = batch.encode(self.encoder)
        return {name: head(hidden[:, -1], frames) for name, head in self.heads.items()}

    def stages(self) -> list[Stage]:
        """Return the one stage; its loss is the mean over the heads."""
        weights = dict.fromkeys(self.heads, 1 / len(self.heads))
        # The heads need the last hidden state only, so a cache keeps no others.
        return [Stage("distillation", weights, self.config.frozen_layers, (self.encoder.depth,))]


def _scale_gradients(modules: Sequence[nn.Module], factor: float) -> None:
    """Multiply every gradient of some modules by a factor, before the gradient is clipped."""
    for parameter in (p for module in modules for p in module.parameters()):
        parameter.register_hook(lambda gradient: gradient * factor)


class TargetLoader(Loader):
    """Batches for the student; their targets are the teacher's hidden states for the same audio.

    Args:
        teacher: loads the teacher's input, or its hidden states from a cache.
        encoder: the teacher, frozen up to the deepest target, on the device of `fabric`.
        targets: its layers, in order.
        fabric: device and precision.
        cache: cache of the student's prefix.
    """

    def __init__(
        self,
        teacher: Loader,
        encoder: Encoder,
        targets: Sequence[int],
        fabric: Fabric,
        cache: PrefixCache | None,
    ) -> None:
        super().__init__(
            teacher.waveforms,  # student and teacher get the same changes of the audio
            teacher.vocabulary,
            teacher.min_samples,
            cache,
        )
        self.teacher = teacher
        self.encoder = encoder
        self.targets = targets
        self.fabric = fabric

    def pop_waited(self) -> float:
        """Return the seconds waited for batches since the last call, of student and teacher."""
        return super().pop_waited() + self.teacher.pop_waited()

    def batches(self, plan: Sequence[Sequence[BatchItem]], tasks: Sequence[str]) -> Iterator[Batch]:
        """Yield batches in the order of the plan; `tasks` are the names of the targets, in order."""
        pairs = zip(super().batches(plan, ()), self.teacher.batches(plan, ()), strict=True)
        for batch, teacher_batch in pairs:
            states = self._compute_states(teacher_batch.to(self.fabric.device))
            yield replace(batch, targets=dict(zip(tasks, states.unbind(1), strict=True)))

    @torch.no_grad()
    def _compute_states(self, batch: Batch) -> Tensor:
        """Return the teacher's hidden states at the target layers, (B, S, T, E)."""
        prefix = batch.prefix
        with self.fabric.autocast():
            if prefix is None:
                assert batch.waveforms is not None, "a batch has waveforms or a prefix"
                prefix = Prefix(*self.encoder.front(batch.waveforms, batch.lengths))
            if not prefix.layers:  # the cache has only the front end's features, not the hidden states
                prefix = self.encoder.run_frozen_layers(prefix, self.targets)
            states, frames = self.encoder.drop_tokens(prefix)
        return states * frame_mask(frames, states.shape[2])[:, None, :, None]


@dataclass
class DistillationTrainer(Trainer):
    """Trains a student; the validation set of its fold is the held-out audio.

    Args:
        teacher: the encoder to distil. It is frozen, and its weights do not change.
        targets: its layers that the student predicts, in order.
    """

    teacher: Encoder = field(kw_only=True)
    targets: Sequence[int] = field(kw_only=True)

    @torch.no_grad()
    def compute_held_out_loss(self) -> float | None:
        """Return the mean loss over the frames of the held-out audio, at speed 1; None without such audio.

        Raises:
            SertoneError: `diverged`.
        """
        if not self.fold.validation:
            return None
        model, was_training = self.model.to(self.fabric.device), self.model.training
        model.eval()
        total = torch.zeros((), device=self.fabric.device)
        frames = 0
        for batch in self.loader.batches(self._plan_held_out(), list(model.heads)):
            with self.fabric.autocast():
                outputs = model(batch.to(self.fabric.device))
            heads = model.heads.items()
            # Sums over frames, so that every frame counts the same, whatever the lengths of the recordings.
            total += sum(
                cast(TargetHead, head).sum_losses(outputs[name], batch.targets[name]) for name, head in heads
            )
            frames += int(next(iter(outputs.values())).frames.sum())  # the same for all heads
        model.train(was_training)
        loss = total.item() / frames / len(model.heads)
        if not math.isfinite(loss):
            raise SertoneError(
                "diverged", f"the loss on the held-out audio is {loss}", "a finite loss", DIVERGENCE_ADVICE
            )
        return loss

    def _plan_held_out(self) -> list[list[BatchItem]]:
        held_out = self.fold.validation
        lengths = self.caches.recordings.lengths
        seconds = [lengths[u.id] / SAMPLING_RATE for u in held_out]
        plan = plan_batches(seconds, batch_seconds=EVALUATION_SECONDS)
        return [[BatchItem(held_out[index]) for index in batch] for batch in plan]

    def _validate(self, stage: Stage, entry: dict) -> float | None:
        """Note the held-out loss. Return it negated, since the trainer keeps the highest score."""
        loss = self.compute_held_out_loss()
        return None if loss is None else -entry.setdefault("val_loss", loss)

    def _make_loader(self, cache: PrefixCache | None) -> Loader:
        teacher = Loader(self.waveforms, self.vocabulary, self.teacher.min_samples, self._teacher_cache)
        return TargetLoader(teacher, self.teacher, self.targets, self.fabric, cache)

    @cached_property
    def _teacher_cache(self) -> PrefixCache | None:
        """The cache of the teacher's hidden states, or None where they are computed at every step."""
        # No layer beyond the deepest target is run.
        self.teacher.to(self.fabric.device).freeze(self.targets[-1])
        self.teacher.eval()
        prefixes = self.caches.prefixes

        def say(line: str) -> None:
            self.progress.say(f"teacher: {line}")

        return prefixes.open(self.teacher, self.targets, False, self.waveforms, self.fabric, say)

    def _open_cache(self, index: int, stage: Stage, fold_specific: bool) -> PrefixCache | None:
        return None if stage.cut == NOTHING else super()._open_cache(index, stage, fold_specific)

    def _name_stage(self, index: int, stage: Stage) -> str:
        return stage.name

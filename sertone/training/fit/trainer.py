"""The training loop: every stage of a model, epoch by epoch, in a straight line.

Every epoch draws from a generator seeded by (seed, fold, stage, epoch). So an interrupted run goes on
from its last save exactly as if nothing had happened.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from sertone.labels import DIMENSIONS
from sertone.models.contract import EmotionModel
from sertone.models.stage import MODALITIES, Stage
from sertone.nn.heads import ClassHead, EnsembleHead
from sertone.nn.vocabulary import Vocabulary
from sertone.protocol.splits import Fold
from sertone.recipe.train_config import TrainConfig
from sertone.scoring import metrics
from sertone.scoring.calibration import Calibration
from sertone.training.data.augmentation import draw_epoch
from sertone.training.data.batches import padding_factor, plan_batches
from sertone.training.data.loader import BatchItem, Loader
from sertone.training.data.material import SharedCaches
from sertone.training.data.prefix_cache import PrefixCache
from sertone.training.fit import checkpoint, distributed
from sertone.training.fit.epoch_statistics import EpochStatistics, require_valid_step
from sertone.training.fit.first_stages import FirstStages, hash_first_stage
from sertone.training.fit.inference import predict_utterances, score_tasks
from sertone.training.fit.memory import StepMemory
from sertone.training.fit.progress import ProgressReporter
from sertone.training.fit.schedules import annealing_factor
from sertone.training.fit.step import Stepper, require_finite_weights

SHOWN = {
    "loss": "loss",
    "val_loss": "held-out loss",
    "ua": "train UA",
    "val_ua": "validation UA",
    **{f"val_{name}": f"validation CCC {name}" for name in DIMENSIONS},
}
"""Entries of the history that a progress line shows."""


@dataclass
class Trainer:
    """Trains one model on one fold.

    Args:
        model: with heads, encoder and stages.
        vocabulary: of its outputs.
        fold: the split; only its training and validation sides are looked at.
        number: of the fold, for the seeds.
        config: the `train` part of the recipe.
        material: decoded audio, and where prefixes are kept.
        folder: where to save what a resumed training needs.
        progress: where to report.
        first_stages: shared with other runs, or None.
        about: what a first stage depends on beside the other arguments.
        experiment: its fingerprint, which saves state.
        score_stage: scores the test side after a stage that is not the last, or None. Training never
            looks at what it returns.

    Attributes:
        history: one entry per epoch: stage, losses, scores, gradient norms, learning rates, seconds, share
            of the time that was busy.
        after_stages: name of each stage but the last -> what `score_stage` returned after it.
        loader: makes batches for the model as it is.
        calibration: of the trained model's confidence.
    """

    model: EmotionModel
    vocabulary: Vocabulary
    fold: Fold
    fold_number: int
    config: TrainConfig
    caches: SharedCaches
    folder: Path
    progress: ProgressReporter
    first_stages: FirstStages | None = None
    about: dict = field(default_factory=dict)
    history: list[dict] = field(default_factory=list)
    bad_in_a_row: int = 0
    calibration: Calibration = field(default_factory=Calibration)
    experiment: str = field(default="", kw_only=True)
    score_stage: Callable[[Stage], dict[str, Any]] | None = field(default=None, kw_only=True)
    after_stages: dict[str, dict[str, Any]] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        partial = self.model.text is not None or self.model.encoder.layerdrop > 0
        self.fabric = distributed.make_fabric(self.config, partial=partial)
        self.loader = self._loader(None)
        self.best: dict[str, Tensor] = {}

    @property
    def uses_soft_targets(self) -> bool:
        """Whether annotators' votes, or a teacher's answers, are the targets of emotion."""
        return self.config.targets == "soft" or self.config.teacher is not None

    def train(self) -> list[dict]:
        """Trains all stages.

        Returns:
            the history.

        Raises:
            SertoneError: `not_finite`, `diverged`, `out_of_memory`, `not_cacheable`, `cache_too_small`,
                `other_format`, `disk_full`.
        """
        stages = self.model.stages()
        self._prepare_emotion_loss()
        key = self._first_stage_key(stages)
        if distributed.is_first():
            checkpoint.move_damaged_aside(self.folder, self.progress.say)
        distributed.barrier()
        save = checkpoint.find_training_state(self.folder)
        state, moments = {"stage": 0, "epoch": 0, "best": None}, None
        if save:
            state, moments, self.best = checkpoint.load_training_state(save, self.model)
            self.history, self.after_stages = state["history"], state.get("after_stages", {})
            self.progress.skip(len(self.history))
        for index in range(state["stage"], len(stages)):
            if index == 0 and key and self.first_stages:
                self._share_first_stage(self.first_stages, key, stages[0], state, moments)
            else:
                self._train_stage(index, stages[index], state, moments)
            state, moments = {"stage": index + 1, "epoch": 0, "best": None}, None
        self.model.to("cpu")
        return self.history

    def _loader(self, cache: PrefixCache | None) -> Loader:
        recordings, samples = self.caches.recordings, self.model.encoder.min_samples
        changes = self.config.augmentation
        return Loader(
            recordings, self.vocabulary, samples, cache, soft=self.uses_soft_targets, augmentation=changes
        )

    def _prepare_emotion_loss(self) -> None:
        if "emotion" not in self.model.heads:
            return
        head = cast(ClassHead | EnsembleHead, self.model.heads["emotion"])
        head.smoothing = self.config.label_smoothing
        if self.config.class_weights:
            counts = self.vocabulary.make_targets(
                "emotion", self.fold.train, soft=self.uses_soft_targets
            ).sum(0)
            head.class_weights.copy_(counts.sum() / (len(counts) * counts.clamp(min=1)))

    def begin_stage(self, index: int) -> Stepper:
        """Prepares a stage: what is frozen, the optimizer, the cache of the frozen prefix."""
        stages = self.model.stages()
        stepper = Stepper(self.model, stages[index], self.config, self.fabric)
        own = any(stages[index].cut > earlier.cut for earlier in stages[:index])
        self.loader = self._loader(self._cache(index, stages[index], own))
        return stepper

    def _first_stage_key(self, stages: list[Stage]) -> str | None:
        """Of the first stage, taken before anything is trained; None where it is not shared."""
        if self.first_stages is None or len(stages) < 2:
            return None
        return hash_first_stage(self.model, stages[0], self.config, self.fold, self.about)

    def _share_first_stage(
        self, shared: FirstStages, key: str, stage: Stage, state: dict, moments: dict | None
    ) -> None:
        """Takes the first stage from a run that has trained it, or trains it and leaves it to others."""
        with shared.claim(key):
            kept = shared.load(key, self.model)
            if kept is None:
                self._train_stage(0, stage, state, moments)
                shared.save(key, self.model, stage, self.history, self.after_stages)
            else:
                history, self.after_stages = kept
                self.progress.skip(len(history) - len(self.history))
                self.history = history

    def _train_stage(self, index: int, stage: Stage, state: dict, moments: dict | None) -> None:
        """Trains one stage from `state` on."""
        epochs = self.config.epochs[index]
        stepper = self.begin_stage(index)
        if moments:
            checkpoint.restore_optimizer(stepper.optimizer, moments)
        for epoch in range(state["epoch"], epochs):
            started = time.monotonic()
            seed = [self.config.seed, self.fold_number, index, epoch]
            stepper.annealing = annealing_factor(self.config, self.history[len(self.history) - epoch :])
            tell = partial(self.progress.step, self._head(index, stage), epoch + 1, epochs)
            entry = self.train_epoch(stepper, seed, epoch / epochs, 1 / epochs, tell)
            require_finite_weights(self.model, f"{self._head(index, stage)}, epoch {epoch + 1}")
            if self.fold.validation:
                self._keep_the_best(self._validate(stage, entry), entry, state)
            seconds = time.monotonic() - started
            entry |= {"stage": stage.name, "epoch": epoch, "seconds": seconds}
            entry["busy"] = 1 - self.loader.pop_waited() / seconds
            self.history.append(entry)
            self._report(index, stage, epoch + 1, entry)
            state["stage"], state["epoch"] = index, epoch + 1
            due = (epoch + 1) % self.config.save_every == 0 or epoch + 1 == epochs
            if due and distributed.is_first():
                now = state | {"history": self.history, "experiment": self.experiment}
                now["after_stages"] = self.after_stages
                number = len(self.history)
                checkpoint.save_training_state(
                    self.folder, number, self.model, stepper.optimizer, now, self.best
                )
        require_valid_step(self.history[len(self.history) - epochs :], self._head(index, stage))
        if self.best:
            self.model.load_state_dict(self.best)
        if self.score_stage and index + 1 < len(self.config.epochs):
            self.after_stages[stage.name] = self.score_stage(stage)

    def _cache(self, index: int, stage: Stage, own: bool) -> PrefixCache | None:
        def say(line: str) -> None:
            self.progress.say(f"{self._head(index, stage)}  {line}" if own else line)

        encoder, recordings = self.model.encoder, self.caches.recordings
        return self.caches.prefixes.open(encoder, stage.needs, own, recordings, self.fabric, say)

    def _report(self, index: int, stage: Stage, epoch: int, entry: dict) -> None:
        shown = {name: entry[key] for key, name in SHOWN.items() if key in entry}
        self.progress.epoch(self._head(index, stage), epoch, self.config.epochs[index], shown)

    def _head(self, index: int, stage: Stage) -> str:
        return f"fold {self.fold_number} ({self.fold.name})  stage {index + 1} ({stage.name})"

    def train_epoch(
        self,
        stepper: Stepper,
        seed: list[int],
        start: float = 0.0,
        share: float = 1.0,
        tell: Callable[[float], None] = lambda _: None,
    ) -> dict:
        """One pass over the training side.

        Args:
            stepper: of the stage that has begun.
            seed: of everything random.
            start: share of the stage already done.
            share: of the stage that this epoch is.
            tell: told after every step what share of the epoch is done.

        Returns:
            losses, scores and counts.
        """
        draw = np.random.default_rng(seed)
        torch.manual_seed(int(draw.integers(2**62)) + distributed.rank())
        withheld = stepper.stage.draw_withheld(self.fold.train, draw, start)
        plan, about = self._plan(draw, withheld, stepper.stage)
        tally = EpochStatistics(self.config.max_bad_steps, self.bad_in_a_row, self.config.clip_norm)
        stepper.begin_epoch(withheld)
        for step, batch in enumerate(self.loader.batches(plan, list(stepper.stage.weights))):
            progress = start + share * step / len(plan)
            stepper.step(batch, progress, [row.utterance for row in plan[step]], tally)
            tell((step + 1) / len(plan))
        self.bad_in_a_row = tally.bad_in_a_row
        counts = {f"without_{name}": withheld.count(name) for name in MODALITIES if name in withheld}
        return tally.summarise() | about | {"learning_rates": stepper.rates} | counts

    def _plan(
        self, draw: np.random.Generator, withheld: list[str], stage: Stage
    ) -> tuple[list[list[BatchItem]], dict[str, float]]:
        """Return this rank's batches of an epoch, and padding factor and counts of all ranks' batches."""
        train, lengths = self.fold.train, self.caches.recordings.lengths
        speeds, seeds, seconds = draw_epoch(self.config, draw, [lengths[u.id] for u in train])
        memory = StepMemory(self.model.encoder, self.config, self.fabric.device.type, stage.cut)
        batches = plan_batches(
            seconds,
            batch_size=self.config.batch_size,
            batch_seconds=self.config.batch_seconds,
            mixing=self.config.length_mixing,
            rng=draw,
            world_size=distributed.world_size(),
            exceeds_memory=memory.exceeds_limit,
        )
        own = batches[distributed.rank() :: distributed.world_size()]
        rows = [BatchItem(*each) for each in zip(train, speeds, withheld, seeds, strict=True)]
        plan = [[rows[index] for index in batch] for batch in own]
        padding = padding_factor(seconds, batches)
        return plan, {
            "padding_factor": padding,
            "batches": len(batches),
            "bounded_batches": memory.limited_batches,
        }

    def _validate(self, stage: Stage, entry: dict) -> float | None:
        """Scores the validation side; the mean of the scores, None where the stage trains not all of them."""
        if not set(self.model.config.predicted_tasks) <= set(stage.weights):
            return None
        answers = predict_utterances(
            self.model, self.vocabulary, self.fold.validation, self.loader, self.fabric
        )
        kinds = {task: self.model.heads[task].metric for task in self.model.config.predicted_tasks}
        labels = {task: [self.vocabulary.find_label(task, u) for u in self.fold.validation] for task in kinds}
        scores = score_tasks(answers, labels, kinds)
        main = {task: own[metrics.MAIN_SCORES[kinds[task]]] for task, own in scores.items()}
        entry |= {f"val_{'ua' if task == 'emotion' else task}": value for task, value in main.items()}
        return float(np.mean(list(main.values()))) if main else None

    def _keep_the_best(self, score: float | None, entry: dict, state: dict) -> None:
        """Notes the score of an epoch, and keeps the weights of the one with the highest."""
        if score is None:
            return
        entry["score"] = score
        if state["best"] is None or score > state["best"]:
            state["best"] = score
            self.best = {k: v.detach().cpu().clone() for k, v in self.model.state_dict().items()}

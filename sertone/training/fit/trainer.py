"""Train a model: stage by stage, epoch by epoch.

Every epoch draws from a generator seeded by (seed, fold, stage, epoch). An interrupted run therefore resumes
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
from torch import nn

from sertone.models.contract import EmotionModel
from sertone.models.stage import MODALITIES, Stage
from sertone.nn.adapters import add_lora, merge_lora
from sertone.nn.vocabulary import Vocabulary
from sertone.protocol.splits import Fold
from sertone.recipe.train_config import TrainConfig
from sertone.scoring.calibration import Calibration
from sertone.training.data.caches import SharedCaches
from sertone.training.data.loader import Loader
from sertone.training.data.prefix_cache import PrefixCache
from sertone.training.data.waveforms import Waveforms
from sertone.training.fit import distributed, training_state
from sertone.training.fit.epoch_plan import draw_utterances, plan_epoch
from sertone.training.fit.epoch_statistics import require_valid_step
from sertone.training.fit.first_stages import FirstStages, hash_first_stage
from sertone.training.fit.inference import score_main_tasks
from sertone.training.fit.loggers import Loggers
from sertone.training.fit.memory import StepMemory
from sertone.training.fit.preparation import find_smallest_cut, prepare_emotion_loss, require_finite_weights
from sertone.training.fit.progress import ProgressReporter, select_scores
from sertone.training.fit.schedules import annealing_factor, has_stalled
from sertone.training.fit.step import Stepper
from sertone.training.fit.training_state import TrainingState


@dataclass
class Trainer:
    """Trains one model on one fold.

    Args:
        model: model with heads, encoder and stages.
        vocabulary: vocabulary of its outputs.
        fold: the split; only its training and validation sets are used.
        fold_number: number of the fold, for the seeds.
        config: the `train` part of the recipe.
        caches: decoded audio and outputs of frozen prefixes.
        folder: for the saves that a resumed training needs.
        progress: receives the reports.
        first_stages: shared with other runs, or None.
        about: further dependencies of a first stage, see `hash_first_stage`.
        experiment: its fingerprint, which saves state.
        score_stage: scores the test set after all stages but the last; training never uses the result.

    Attributes:
        state: stage, epoch, history and best weights so far.
        waveforms: waveforms of the fold.
        loader: makes batches for the current stage.
        calibration: calibration of the trained model's confidence.
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
    calibration: Calibration = field(default_factory=Calibration)
    experiment: str = field(default="", kw_only=True)
    score_stage: Callable[["Trainer", Stage], dict[str, Any]] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        # Some steps leave weights unused: text or audio may be missing, LayerDrop skips layers.
        partial_steps = self.model.text is not None or self.model.encoder.layerdrop > 0
        self.fabric = distributed.make_fabric(self.config, partial=partial_steps)
        self.waveforms = Waveforms(self.caches.recordings, self.config, self.fold.train)
        self.loader = self._make_loader(None)
        self.state = TrainingState()
        if self.config.lora:
            seed = self.config.seed * 1000 + self.fold_number
            add_lora(self.model.encoder, self.config.lora, find_smallest_cut(self.model), seed)

    @property
    def history(self) -> list[dict]:
        """One entry per epoch: stage, losses, scores, gradient norms, rates, seconds, busy share."""
        return self.state.history

    @property
    def after_stages(self) -> dict[str, dict[str, Any]]:
        """Name of each stage but the last -> the scores that `score_stage` returned after it."""
        return self.state.after_stages

    @property
    def uses_soft_targets(self) -> bool:
        """True where annotators' votes, or a teacher's predictions, are the targets of emotion."""
        return self.config.targets == "soft" or self.config.teacher is not None

    def train(self) -> list[dict]:
        """Train all stages.

        Returns:
            The history.

        Raises:
            SertoneError: `not_finite`, `diverged`, `out_of_memory`, `not_cacheable`, `cache_too_small`,
                `other_format`, `disk_full`.
        """
        stages = self.model.stages()
        soft = self.uses_soft_targets
        prepare_emotion_loss(self.model, self.vocabulary, self.fold.train, self.config, soft=soft)
        key = None
        if self.first_stages and len(stages) > 1:  # before a save changes the weights
            key = hash_first_stage(self.model, stages[0], self.config, self.fold, self.about)
        self._resume()
        names = self.config.log if distributed.is_first() else []
        with Loggers(names, self.folder.parent, self.history, self.progress.say) as loggers:
            for index in range(self.state.stage, len(stages)):
                if index == 0 and key and self.first_stages:
                    self._share_first_stage(self.first_stages, key, stages[0], loggers)
                else:
                    self._train_stage(index, stages[index], loggers)
                self.state.advance_to(index + 1)
        self.model.to("cpu")
        merge_lora(self.model.encoder)
        return self.history

    def _resume(self) -> None:
        """Load the newest intact save, if there is one."""
        if distributed.is_first():
            training_state.move_damaged_aside(self.folder, self.progress.say)
        distributed.barrier()  # so that all processes see the same saves
        save = training_state.find_training_state(self.folder)
        if save:
            self.state = training_state.load_training_state(save, self.model)
            stage = self.state.stage
            done = self.config.epochs[stage] if self._is_finished(stage) else self.state.epoch
            self.progress.skip(sum(self.config.epochs[:stage]) + done)
        self.state.experiment = self.experiment

    def _make_loader(self, cache: PrefixCache | None) -> Loader:
        return Loader(
            self.waveforms,
            self.vocabulary,
            self.model.encoder.min_samples,
            cache,
            soft=self.uses_soft_targets,
            compare=self.config.consistency > 0,
        )

    def begin_stage(self, index: int) -> Stepper:
        """Freeze what a stage does not train, open the cache of the frozen prefix, and return the stepper."""
        stages = self.model.stages()
        stepper = Stepper(self.model, stages[index], self.config, self.fabric)
        # An earlier stage of this fold has trained layers that are frozen now.
        fold_specific = any(stages[index].cut > earlier.cut for earlier in stages[:index])
        self.loader = self._make_loader(self._open_cache(index, stages[index], fold_specific))
        return stepper

    def _share_first_stage(self, shared: FirstStages, key: str, stage: Stage, loggers: Loggers) -> None:
        """Load the first stage from a run that has trained it, or train it and save it for other runs."""
        with shared.claim(key):
            finished = shared.load(key, self.model)
            if finished is None:
                self._train_stage(0, stage, loggers)
                shared.save(key, self.model, stage, self.history, self.after_stages)
            else:
                history, self.state.after_stages = finished
                self.progress.skip(self.config.epochs[0] - self.state.epoch)
                for entry in history[len(self.history) :]:
                    loggers.log(entry)
                self.state.history = history

    def _train_stage(self, index: int, stage: Stage, loggers: Loggers) -> None:
        """Train one stage from the current state on."""
        stepper = self.begin_stage(index)
        stepper.restore_state(self.state)
        self.state.stage = index
        name = self._name_stage(index, stage)
        while not self._is_finished(index):
            entry = self._train_and_validate(stepper, index, self.state.epoch)
            self.history.append(entry)
            self.state.epoch += 1
            loggers.log(entry)
            ends = self._is_finished(index)
            epochs = self.config.epochs[index]
            self.progress.epoch(name, self.state.epoch, epochs, select_scores(entry), ends)
            if (ends or self.state.epoch % self.config.save_every == 0) and distributed.is_first():
                stepper.record_state(self.state)
                training_state.save_training_state(
                    self.folder, len(self.history), self.model, stepper.optimizer, self.state
                )
        require_valid_step(self._stage_history(), name)
        self._finish_stage(index, stage, stepper)

    def _finish_stage(self, index: int, stage: Stage, stepper: Stepper) -> None:
        """Give the model the weights that the stage has found, and score them."""
        if self.state.best_weights:  # without validation the last epoch counts
            self.model.load_state_dict(self.state.best_weights)
        elif stepper.average:
            stepper.average.swap()
        if self.score_stage and index + 1 < len(self.config.epochs):
            self.after_stages[stage.name] = self.score_stage(self, stage)

    def _is_finished(self, index: int) -> bool:
        """Return True where a stage has had all its epochs, or has stalled."""
        return self.state.epoch == self.config.epochs[index] or has_stalled(
            self.config, self._stage_history()
        )

    def _stage_history(self) -> list[dict]:
        """Return the entries of the current stage, which are the last ones."""
        return self.history[len(self.history) - self.state.epoch :]

    def _train_and_validate(self, stepper: Stepper, index: int, epoch: int) -> dict:
        """Train one epoch of a stage, keep its weights if it is the best, and return its history entry."""
        started = time.monotonic()
        stage = stepper.stage
        epochs = self.config.epochs[index]
        name = self._name_stage(index, stage)
        seed = [self.config.seed, self.fold_number, index, epoch]
        stepper.annealing = annealing_factor(self.config, self._stage_history())
        on_step = partial(self.progress.step, name, epoch + 1, epochs)
        entry = self.train_epoch(stepper, seed, epoch / epochs, 1 / epochs, on_step)
        distributed.share_buffers(cast(nn.Module, self.model))
        with stepper.averaged():
            require_finite_weights(self.model, f"{name}, epoch {epoch + 1}")
            score = self._validate(stage, entry) if self.fold.validation else None
            score = distributed.share_first(score)
            if score is not None:
                entry["score"] = score
                self.state.keep_best(score, self.model)
        seconds = time.monotonic() - started
        entry |= {"stage": stage.name, "epoch": epoch, "seconds": seconds}
        entry["busy"] = 1 - self.loader.pop_waited() / seconds  # else it has waited for batches
        return entry

    def _open_cache(self, index: int, stage: Stage, fold_specific: bool) -> PrefixCache | None:
        def say(line: str) -> None:
            self.progress.say(f"{self._name_stage(index, stage)}  {line}" if fold_specific else line)

        return self.caches.prefixes.open(
            self.model.encoder, stage.needs, fold_specific, self.waveforms, self.fabric, say
        )

    def _name_stage(self, index: int, stage: Stage) -> str:
        return f"fold {self.fold_number} ({self.fold.name})  stage {index + 1} ({stage.name})"

    def train_epoch(
        self,
        stepper: Stepper,
        seed: list[int],
        start: float = 0.0,
        share: float = 1.0,
        on_step: Callable[[float], None] = lambda _: None,
    ) -> dict:
        """Train on the whole training set once.

        Args:
            stepper: stepper of the current stage.
            seed: seed of all random numbers.
            start: share of the stage already done.
            share: share of the stage that this epoch covers.
            on_step: called after every step with the share of the epoch that is done.

        Returns:
            Losses, scores and counts.
        """
        rng = np.random.default_rng(seed)
        # Processes share `rng`, but draw different dropout masks for their different batches.
        torch.manual_seed(int(rng.integers(2**62)) + distributed.rank())
        utterances = draw_utterances(self.fold.train, self.vocabulary, self.config, rng)
        withheld = stepper.stage.draw_withheld(utterances, rng, start)
        memory = StepMemory(self.model.encoder, self.config, self.fabric.device.type, stepper.stage.cut)
        lengths = self.caches.recordings.lengths
        plan, counts = plan_epoch(utterances, lengths, withheld, self.config, memory, rng)
        batches = self.loader.batches(plan, list(stepper.stage.weights))
        stepper.begin_epoch(withheld)
        rows = [[item.utterance for item in part] for part in plan]
        summary = stepper.train_epoch(batches, rows, start, share, on_step)
        masked = {f"without_{name}": withheld.count(name) for name in MODALITIES if name in withheld}
        return summary | counts | {"learning_rates": stepper.rates} | masked

    def _validate(self, stage: Stage, entry: dict) -> float | None:
        """Score the validation set and return the mean; None where the stage does not train all tasks."""
        tasks = self.model.config.main_tasks
        if not set(tasks) <= set(stage.weights):
            return None
        main = score_main_tasks(self.model, self.vocabulary, self.fold.validation, self.loader, self.fabric)
        entry |= {f"val_{'ua' if task == 'emotion' else task}": value for task, value in main.items()}
        return float(np.mean(list(main.values()))) if main else None

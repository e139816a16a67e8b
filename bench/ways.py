"""Two ways of training the same model, each in a separate process: Sertone's and the usual way.

The usual way is that of Hugging Face's tutorials: random, padded batches, the frozen convolutions computed at
every step, fp32, and torch's AdamW.
"""

import copy
import resource
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch
from floor import synchronize
from lightning_fabric import Fabric
from speech import Speech
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from sertone import models
from sertone.labels import FOUR_CLASSES
from sertone.nn.batch import Batch
from sertone.nn.encoders.huggingface import ArchitectureConfig
from sertone.nn.pretrained import NO_MASKING
from sertone.nn.vocabulary import Vocabulary
from sertone.protocol.splits import Fold
from sertone.recipe.train_config import TrainConfig
from sertone.training.data.caches import PrefixCaches, SharedCaches
from sertone.training.data.loader import BatchItem, Loader
from sertone.training.data.waveforms import Waveforms
from sertone.training.fit.epoch_statistics import EpochStatistics
from sertone.training.fit.progress import RunProgress
from sertone.training.fit.trainer import Trainer


@dataclass(frozen=True)
class Way:
    """A way of training.

    Attributes:
        name: name of the way.
        family: family of the encoder: wav2vec2, hubert or wavlm.
        shape: differences of the encoder's configuration from the base shape.
        usual: whether to train the usual way instead of Sertone's.
        precision: as in a recipe.
        cache: as in a recipe.
        kernels: as in a recipe.
        device: as in a recipe.
        compiled: whether torch.compile compiles the feed-forward part of each layer, its norms and GELU.
        scale: factor of the durations.
    """

    name: str
    family: str
    shape: tuple[tuple[str, int | tuple[int, ...]], ...] = ()
    usual: bool = False
    precision: str = "auto"
    cache: str = "memory"
    kernels: str = "own"
    device: str = "auto"
    compiled: bool = False
    scale: float = 1.0


class TrainingRun:
    """A model that is trained in one way."""

    def __init__(self, way: Way) -> None:
        torch.manual_seed(0)
        self.way, self.speech = way, Speech(scale=way.scale)
        values = {**AutoConfig.for_model(way.family).to_diff_dict(), **NO_MASKING, **dict(way.shape)}
        # facebook/wav2vec2-base has no activation dropout, unlike the default of its configuration class.
        values |= {"model_type": way.family, "activation_dropout": 0.0}
        encoder_options = ArchitectureConfig(config=values, normalize=way.family != "wavlm").model_dump()
        vocabulary = Vocabulary.from_utterances(self.speech.utterances, FOUR_CLASSES)
        frozen = min(4, values.get("num_hidden_layers", 12) // 3)
        options = {"name": "wan2025", "encoder": encoder_options, "frozen_layers": frozen}
        model = models.build(options, vocabulary)
        config = TrainConfig.model_validate(
            {
                "epochs": [1, 1],
                "batch_size": 4,
                "precision": "32-true" if way.usual else way.precision,
                "cache": {"where": way.cache, "limit_gb": 1000},
                "kernels": way.kernels,
                "device": way.device,
                "speeds": [1.0],
            }
        )
        material = SharedCaches(self.speech, PrefixCaches(config))  # pyright: ignore[reportArgumentType]
        fold = Fold("bench", self.speech.utterances, [], [])
        progress = RunProgress(1, quiet=True)
        self.trainer = Trainer(model, vocabulary, fold, 0, config, material, None, progress)  # pyright: ignore[reportArgumentType]
        self.device = self.trainer.fabric.device
        self.tasks = [list(stage.weights) for stage in model.stages()]
        if way.usual:
            self.usual = UsualLoop(model, way, self.device)
        if way.compiled:
            encoder: Any = model.encoder
            for layer in encoder.transformer.layers:
                layer.feed_forward.compile(dynamic=True)
                layer.final_layer_norm.compile(dynamic=True)

    def begin(self, stage: int) -> None:
        """Enter a training stage."""
        self.stage = stage
        if self.way.usual:
            self.usual.begin(stage)
        else:
            self.stepper = self.trainer.begin_stage(stage)
            self.stepper.begin_epoch()

    def fill(self, indices: list[int]) -> float:
        """Compute the prefixes of some utterances; return the seconds per second of audio."""
        cache = self.trainer.loader.cache
        rows = [self.speech.utterances[index] for index in indices]
        for utterance in rows:
            self.speech.samples(utterance)  # make the noise outside the measured time
        if self.way.usual or cache is None:
            return 0.0
        started = time.perf_counter()
        for utterance in rows:
            cache.compute(utterance, 1.0)
        synchronize(self.device)
        return (time.perf_counter() - started) / sum(self.speech.lengths[u.id] / 16000 for u in rows)

    def step(self, indices: list[int]) -> tuple[float, float]:
        """Update the model on a batch; return seconds and loss."""
        rows = [BatchItem(self.speech.utterances[index]) for index in indices]
        tasks = self.tasks[self.stage]
        synchronize(self.device)
        started = time.perf_counter()
        tally = EpochStatistics(5)
        if self.way.usual:
            speech = Waveforms(self.speech)  # pyright: ignore[reportArgumentType]
            plain = Loader(speech, self.trainer.vocabulary, 400)
            (batch,) = plain.batches([rows], tasks)
            loss = self.usual.step(batch)
        else:
            (batch,) = self.trainer.loader.batches([rows], tasks)
            self.stepper.step([batch], 1.0, [[row.utterance for row in rows]], tally)
            loss = tally.summarise()["loss"]
        synchronize(self.device)
        return time.perf_counter() - started, loss

    def seed(self, number: int) -> None:
        """Seed the dropout masks."""
        torch.manual_seed(number)

    def memory(self) -> float:
        """Return the peak memory in GB, of the GPU or of this process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated() / 1e9
        # macOS counts bytes, Linux kilobytes.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


class UsualEncoder(nn.Module):
    """The forward pass of Hugging Face, with its attention mask."""

    def __init__(self, hf: Any, normalize: bool) -> None:
        super().__init__()
        self.hf, self.normalize = hf, normalize

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        mask = torch.arange(waveforms.shape[1], device=lengths.device) < lengths[:, None]
        if self.normalize:  # as its feature extractor does
            rows = [row[:n] for row, n in zip(waveforms, lengths.tolist(), strict=True)]
            rows = [(row - row.mean()) / (row.var(correction=0) + 1e-7).sqrt() for row in rows]
            waveforms = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        states = self.hf(waveforms, attention_mask=mask.long(), output_hidden_states=True).hidden_states
        return torch.stack(states, 1), self.hf._get_feat_extract_output_lengths(lengths)


class UsualLoop:
    """The usual training loop: forward, backward, clip, step."""

    def __init__(self, model: Any, way: Way, device: torch.device) -> None:
        config = copy.deepcopy(model.encoder.config)
        config.update({"layerdrop": 0.0, "mask_time_prob": 0.0})
        stages = model.stages()
        self.device = device
        self.autocast = way.precision == "bf16-mixed"
        self.frozen = [stage.cut for stage in stages]
        self.weights = [stage.weights for stage in stages]
        inner = AutoModel.from_config(config, trust_remote_code=False)
        model.encoder = UsualEncoder(inner, way.family != "wavlm")
        self.model = model.to(device).train()

    def begin(self, stage: int) -> None:
        """Freeze the layers of a stage, and create an optimizer."""
        hf = self.model.encoder.hf
        self.model.requires_grad_(True)
        hf.feature_extractor._freeze_parameters()
        if hasattr(hf, "masked_spec_embed"):
            hf.masked_spec_embed.requires_grad_(False)
        depth = self.frozen[stage]
        if depth:
            for part in (hf.feature_projection, hf.encoder.pos_conv_embed, *hf.encoder.layers[:depth]):
                part.requires_grad_(False)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4)
        self.tasks = self.weights[stage]

    def step(self, batch: Batch) -> float:
        """Update the model, and return the loss."""
        batch = batch.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            outputs = self.model(batch)
        losses = [w * self.model.heads[t].loss(outputs[t], batch.targets[t]) for t, w in self.tasks.items()]
        loss = torch.stack(losses).sum()
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        return loss.item()


_run: TrainingRun | None = None


def start(way: Way) -> None:
    """Train in one way in this process."""
    global _run
    _run = None  # free the memory of the former run before the next one is built
    _run = TrainingRun(way)


def call(method: str, *arguments: Any) -> Any:
    """Call a method of the current run."""
    return getattr(_run, method)(*arguments)


def resolve_device(device: str) -> torch.device:
    """Return the device that a recipe's `train.device` means on this machine."""
    return Fabric(accelerator=device, devices=1).device

"""Every hidden state of a frozen encoder, pooled over the real frames, kept on disk: one row per utterance.

A row is found again by a hash of all that it follows from, so what is there is never computed again, and an
extraction that was interrupted goes on where it stopped. Its batches are planned over all utterances, done or
not: so the rounding errors, and with them every bit, are those of an extraction that was never interrupted.

Axis letters: B batch, L layers, T frames or tokens, D width.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor

from sertone import models
from sertone.audio import SAMPLING_RATE
from sertone.errors import SertoneError
from sertone.labels import has_words
from sertone.models.contract import ModelConfig
from sertone.nn import tokens
from sertone.nn.encoders.base import Encoder
from sertone.nn.masks import masked_mean, masked_std
from sertone.nn.text import TextEncoder
from sertone.schema import Utterance
from sertone.scoring.display import format_count
from sertone.training.data import duplicates
from sertone.training.data.array_store import ArrayStore
from sertone.training.data.batches import plan_batches
from sertone.training.data.prefix_cache import hash_prefix, hash_states, load_waveform
from sertone.training.data.recordings import Recordings
from sertone.training.experiment.experiment import Experiment
from sertone.training.fit import distributed

Pooling = Literal["mean", "statistics"]
BATCH_SECONDS, BATCH_TOKENS = 30.0, 1024.0
"""Of a batch, padding included."""
REPORT_S = 5.0
"""Between two lines of progress."""


class ProbedEncoder(Protocol):
    """What is probed: an encoder with its input.

    Attributes:
        name: hash of everything that its hidden states follow from, but for the input.
        depth: L.
        fabric: device and precision.
        batch_length: of all utterances of a batch together.
    """

    name: str
    depth: int
    fabric: Fabric
    batch_length: float

    def hash_input(self, utterance: Utterance) -> str:
        """Hash of what the encoder is given."""
        ...

    def measure_length(self, utterance: Utterance) -> float:
        """How long that is."""
        ...

    def compute_states(self, utterances: Sequence[Utterance]) -> tuple[Tensor, Tensor]:
        """Hidden states (B, L+1, T, D) and how many frames or tokens are real, (B,)."""
        ...


class ProbedSpeechEncoder:
    """A speech encoder and decoded audio.

    Args:
        encoder: with its weights.
        recordings: loaded.
        fabric: device and precision.
    """

    batch_length = BATCH_SECONDS

    def __init__(self, encoder: Encoder, recordings: Recordings, fabric: Fabric) -> None:
        self.encoder = encoder.eval().to(fabric.device)
        self.recordings, self.fabric, self.depth = recordings, fabric, encoder.depth
        self.name = hash_prefix(encoder, tuple(range(self.depth + 1)), torch.float32, fabric)

    def hash_input(self, utterance: Utterance) -> str:
        return self.recordings.hashes[utterance.id].hex()

    def measure_length(self, utterance: Utterance) -> float:
        return self.recordings.lengths[utterance.id] / SAMPLING_RATE

    def compute_states(self, utterances: Sequence[Utterance]) -> tuple[Tensor, Tensor]:
        rows = [
            torch.from_numpy(load_waveform(self.recordings, u, 1.0, self.encoder.min_samples))
            for u in utterances
        ]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.fabric.device)
        return self.encoder(padded, torch.tensor([len(row) for row in rows], device=self.fabric.device))


class ProbedTextEncoder:
    """A text encoder.

    Args:
        encoder: with its weights.
        tokenizer: as JSON.
        fabric: device and precision.
    """

    batch_length = BATCH_TOKENS

    def __init__(self, encoder: TextEncoder, tokenizer: str, fabric: Fabric) -> None:
        self.encoder = encoder.eval().to(fabric.device)
        self.tokenizer, self.fabric, self.depth = tokenizer, fabric, encoder.depth
        layers = tuple(range(self.depth + 1))
        states = hash_states(encoder.describe(), [encoder], layers, torch.float32, fabric)
        self.name = hashlib.sha256(f"{states} {tokenizer}".encode()).hexdigest()

    def hash_input(self, utterance: Utterance) -> str:
        return hashlib.sha256((utterance.text or "").encode()).hexdigest()

    def measure_length(self, utterance: Utterance) -> float:
        return float(tokens.encode(self.tokenizer, [utterance.text])[1][0])

    def compute_states(self, utterances: Sequence[Utterance]) -> tuple[Tensor, Tensor]:
        read, counts = tokens.encode(self.tokenizer, [u.text for u in utterances])
        read, counts = read.to(self.fabric.device), counts.to(self.fabric.device)
        return self.encoder(read, counts), counts


def build_probed_encoder(
    experiment: Experiment, modality: str, say: Callable[[str], None]
) -> tuple[ProbedEncoder, list[Utterance]]:
    """The encoder of a recipe, and the utterances that it can be given.

    Args:
        experiment: of the recipe.
        modality: `audio`, its `model.encoder`, or `text`, its `model.text`.
        say: told which recordings are doubtful.

    Raises:
        SertoneError: `no_speech_encoder`, `no_text_encoder`, `no_text`; of the encoder or the audio.
    """
    recipe = experiment.recipe
    config = models.configure(recipe.model)
    fabric = distributed.make_fabric(recipe.train)
    torch.manual_seed(recipe.train.seed)
    if modality == "text":
        return _reader(config, experiment, fabric, say)
    if config.encoder is None:
        raise SertoneError(
            "no_speech_encoder",
            "the recipe's model only reads",
            "model.encoder",
            "ask its text: --encoder text",
        )
    recordings, encoder = Recordings(recipe.train.audio_cache_gb), config.encoder.build()
    if encoder.unused:
        say(encoder.unused)
    for line in recordings.load_with_warnings(experiment.utterances):
        say(line)
    duplicates.check_copies(experiment.folds, recordings, say)
    return ProbedSpeechEncoder(encoder, recordings, fabric), experiment.utterances


def _reader(
    config: ModelConfig, experiment: Experiment, fabric: Fabric, say: Callable[[str], None]
) -> tuple[ProbedEncoder, list[Utterance]]:
    if config.text is None:
        raise SertoneError(
            "no_text_encoder",
            "--encoder text, and the recipe's model reads no text",
            "a recipe with model.text",
            "take recipes/ispas2023.yaml, say",
        )
    utterances = [u for u in experiment.utterances if has_words(u.text)]
    if not utterances:
        raise SertoneError("no_text", "no utterance has a text", "transcripts", "set data.text: asr, say")
    tokenizer = config.text.make_tokenizer([u.text for u in utterances if u.text])
    encoder = config.text.build(tokenizer)
    if encoder.unused:
        say(encoder.unused)
    return ProbedTextEncoder(encoder, tokenizer, fabric), utterances


def compute_keys(source: ProbedEncoder, utterances: Sequence[Utterance], pooling: Pooling) -> list[bytes]:
    """Of every utterance, the key of its row in the store."""
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    texts = (f"{source.name} {code} {pooling} {source.hash_input(u)}" for u in utterances)
    return [hashlib.sha256(text.encode()).digest() for text in texts]


@torch.no_grad()
def extract_features(
    source: ProbedEncoder,
    utterances: Sequence[Utterance],
    pooling: Pooling,
    store: ArrayStore,
    say: Callable[[str], None],
) -> int:
    """Computes the rows that the store lacks: (L+1, D), or with `statistics` (L+1, 2 D), float32.

    Args:
        source: encoder and input.
        utterances: in any order.
        pooling: `mean` over the frames, or `statistics`, mean and standard deviation.
        store: where they are kept.
        say: told the progress.

    Returns:
        how many were computed.
    """
    names = compute_keys(source, utterances, pooling)
    plan = plan_batches([source.measure_length(u) for u in utterances], batch_seconds=source.batch_length)
    left = [batch for batch in plan if any(store.get(names[row]) is None for row in batch)]
    total = sum(map(len, left))
    if total < len(utterances):
        say(f"features from before: {format_count(len(utterances) - total, 'utterance')}")
    done, started, said = 0, time.monotonic(), time.monotonic()
    for batch in left:
        with source.fabric.autocast():
            hidden, frames = source.compute_states([utterances[row] for row in batch])
        for row, pooled in zip(batch, _pooled(hidden.float(), frames, pooling).cpu().numpy(), strict=True):
            store.put(names[row], pooled)
        done += len(batch)
        if done == total or time.monotonic() - said > REPORT_S:
            said = time.monotonic()
            say(f"features: {pace(done, total, said - started, 'utterances')}")
    return total


def _pooled(hidden: Tensor, frames: Tensor, pooling: Pooling) -> Tensor:
    """Over the real frames: (B, L+1, T, D), (B,) -> (B, L+1, D) or (B, L+1, 2 D)."""
    states, counts = hidden.flatten(0, 1), frames.repeat_interleave(hidden.shape[1])
    parts = [masked_mean(states, counts), *([masked_std(states, counts)] if pooling == "statistics" else [])]
    return torch.cat(parts, -1).unflatten(0, hidden.shape[:2])


def pace(done: int, total: int, seconds: float, what: str) -> str:
    """`120 of 400 utterances, 31 a second, 9 s left`."""
    pace = done / max(seconds, 1e-9)
    return f"{done} of {total} {what}, {pace:.3g} a second, {(total - done) / pace:.0f} s left"

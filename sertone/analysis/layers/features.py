"""Hidden states of all layers of a frozen encoder, pooled over the real frames and stored on disk.

The store has one row per utterance. Its key is a hash of everything that the row follows from, so no row is
computed twice, and an interrupted extraction is resumed. Batches are planned over all utterances, finished or
not. A resumed extraction therefore has the same rounding errors, and the same bits, as an uninterrupted one.

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
from sertone.nn.masks import masked_mean, masked_statistics
from sertone.nn.text import TextEncoder
from sertone.schema import Utterance
from sertone.training.data import duplicates
from sertone.training.data.array_store import ArrayStore
from sertone.training.data.batches import plan_batches
from sertone.training.data.prefix_cache import hash_prefix, hash_states
from sertone.training.data.recordings import Recordings
from sertone.training.data.waveforms import Waveforms
from sertone.training.experiment.experiment import Experiment
from sertone.training.fit import distributed
from sertone.utils.wording import format_count

Pooling = Literal["mean", "statistics"]
BATCH_SECONDS = 30.0
"""Length of a batch of audio, with padding."""
BATCH_TOKENS = 1024.0
"""Length of a batch of texts, with padding."""
PROGRESS_INTERVAL_S = 5.0
"""Seconds between two lines of progress."""


class ProbedEncoder(Protocol):
    """Encoder to probe, together with its input.

    Attributes:
        name: hash of everything that the hidden states follow from, except the input.
        depth: number of layers, L.
        fabric: device and precision.
        batch_length: length of all utterances of a batch together.
    """

    name: str
    depth: int
    fabric: Fabric
    batch_length: float

    def hash_input(self, utterance: Utterance) -> str:
        """Return a hash of the input of the encoder."""
        ...

    def measure_length(self, utterance: Utterance) -> float:
        """Return the length of the input, in the unit of `batch_length`."""
        ...

    def compute_states(self, utterances: Sequence[Utterance]) -> tuple[Tensor, Tensor]:
        """Return hidden states, (B, L+1, T, D), and the number of real frames or tokens, (B,)."""
        ...


class ProbedSpeechEncoder:
    """Speech encoder with decoded audio: a `ProbedEncoder`.

    Args:
        encoder: encoder with its weights.
        recordings: loaded audio.
        fabric: device and precision.
    """

    batch_length = BATCH_SECONDS

    def __init__(self, encoder: Encoder, recordings: Recordings, fabric: Fabric) -> None:
        self.encoder = encoder.eval().to(fabric.device)
        self.recordings = recordings
        self.waveforms = Waveforms(recordings)
        self.fabric = fabric
        self.depth = encoder.depth
        self.name = hash_prefix(encoder, tuple(range(self.depth + 1)), torch.float32, fabric)

    def hash_input(self, utterance: Utterance) -> str:
        return self.recordings.hashes[utterance.id].hex()

    def measure_length(self, utterance: Utterance) -> float:
        return self.recordings.lengths[utterance.id] / SAMPLING_RATE

    def compute_states(self, utterances: Sequence[Utterance]) -> tuple[Tensor, Tensor]:
        rows = [torch.from_numpy(self.waveforms.load(u, 1.0, self.encoder.min_samples)) for u in utterances]
        # Padding frames are left out later, when the real frames are pooled.
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.fabric.device)
        return self.encoder(padded, torch.tensor([len(row) for row in rows], device=self.fabric.device))


class ProbedTextEncoder:
    """Text encoder with transcripts: a `ProbedEncoder`.

    Args:
        encoder: encoder with its weights.
        tokenizer: as JSON.
        fabric: device and precision.
    """

    batch_length = BATCH_TOKENS

    def __init__(self, encoder: TextEncoder, tokenizer: str, fabric: Fabric) -> None:
        self.encoder = encoder.eval().to(fabric.device)
        self.tokenizer = tokenizer
        self.fabric = fabric
        self.depth = encoder.depth
        layers = tuple(range(self.depth + 1))
        states = hash_states(encoder.describe(), [encoder], layers, torch.float32, fabric)
        self.name = hashlib.sha256(f"{states} {tokenizer}".encode()).hexdigest()

    def hash_input(self, utterance: Utterance) -> str:
        return hashlib.sha256((utterance.text or "").encode()).hexdigest()

    def measure_length(self, utterance: Utterance) -> float:
        return float(tokens.encode(self.tokenizer, [utterance.text])[1][0])

    def compute_states(self, utterances: Sequence[Utterance]) -> tuple[Tensor, Tensor]:
        token_ids, counts = tokens.encode(self.tokenizer, [u.text for u in utterances])
        counts = counts.to(self.fabric.device)
        return self.encoder(token_ids.to(self.fabric.device), counts), counts


def build_probed_encoder(
    experiment: Experiment, modality: str, say: Callable[[str], None]
) -> tuple[ProbedEncoder, list[Utterance]]:
    """Build the encoder of a recipe and select the utterances that it can process.

    Args:
        experiment: experiment of the recipe.
        modality: `audio` for the recipe's `model.encoder`, `text` for its `model.text`.
        say: receives warnings, such as those about suspicious recordings.

    Raises:
        SertoneError: `no_speech_encoder`, `no_text_encoder`, `no_text`; of the encoder or the audio.
    """
    recipe = experiment.recipe
    config = models.configure(recipe.model)
    fabric = distributed.make_fabric(recipe.train)
    # An encoder that is not pretrained is random, and the seed decides its weights.
    torch.manual_seed(recipe.train.seed)
    if modality == "text":
        return _build_text_encoder(config, experiment, fabric, say)
    if config.encoder is None:
        raise SertoneError(
            "no_speech_encoder",
            "the recipe's model uses only text",
            "a recipe with model.encoder",
            "probe the text encoder: --encoder text",
        )
    recordings = Recordings(recipe.train.audio_cache_gb)
    encoder = config.encoder.build()
    if encoder.unused:
        say(encoder.unused)
    for line in recordings.load_with_warnings(experiment.utterances):
        say(line)
    duplicates.check_copies(experiment.folds, recordings, say)
    return ProbedSpeechEncoder(encoder, recordings, fabric), experiment.utterances


def _build_text_encoder(
    config: ModelConfig, experiment: Experiment, fabric: Fabric, say: Callable[[str], None]
) -> tuple[ProbedEncoder, list[Utterance]]:
    if config.text is None:
        raise SertoneError(
            "no_text_encoder",
            "--encoder text, but the recipe's model uses no text",
            "a recipe with model.text",
            "use for example recipes/ispas2023.yaml",
        )
    utterances = [u for u in experiment.utterances if has_words(u.text)]
    if not utterances:
        raise SertoneError(
            "no_text", "no utterance has a text", "transcripts", "set for example data.text: asr"
        )
    # The tokenizer of an encoder that is not pretrained is learned from all texts.
    tokenizer = config.text.make_tokenizer([u.text for u in utterances if u.text])
    encoder = config.text.build(tokenizer)
    if encoder.unused:
        say(encoder.unused)
    return ProbedTextEncoder(encoder, tokenizer, fabric), utterances


def compute_keys(source: ProbedEncoder, utterances: Sequence[Utterance], pooling: Pooling) -> list[bytes]:
    """Return the key of each utterance's row in the store."""
    # An edit of this file changes all keys, because it may change the features.
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
    """Compute the rows that the store lacks: (L+1, D), or (L+1, 2 D) with `statistics`, float32.

    Args:
        source: encoder and input.
        utterances: utterances in any order.
        pooling: `mean` over the frames, or `statistics`, mean and standard deviation.
        store: receives the rows.
        say: receives progress lines.

    Returns:
        the number of computed rows.
    """
    row_keys = compute_keys(source, utterances, pooling)
    batches = plan_batches([source.measure_length(u) for u in utterances], batch_seconds=source.batch_length)
    # A batch with a missing row is computed as a whole, so that its padding stays the same.
    missing = [batch for batch in batches if any(store.get(row_keys[row]) is None for row in batch)]
    total = sum(map(len, missing))
    if total < len(utterances):
        say(f"features from before: {format_count(len(utterances) - total, 'utterance')}")
    finished = 0
    started = last_report = time.monotonic()
    for batch in missing:
        with source.fabric.autocast():
            hidden, frames = source.compute_states([utterances[row] for row in batch])
        # Pooling in single precision: sums over many frames would lose digits in half precision.
        pooled = _pool_frames(hidden.float(), frames, pooling).cpu().numpy()
        for row, features in zip(batch, pooled, strict=True):
            store.put(row_keys[row], features)
        finished += len(batch)
        if finished == total or time.monotonic() - last_report > PROGRESS_INTERVAL_S:
            last_report = time.monotonic()
            say(f"features: {_format_pace(finished, total, last_report - started, 'utterances')}")
    return total


def _pool_frames(hidden: Tensor, frames: Tensor, pooling: Pooling) -> Tensor:
    """Pool the real frames: (B, L+1, T, D), (B,) -> (B, L+1, D), or (B, L+1, 2 D) with `statistics`."""
    # Layers are flattened into the batch, because all layers of an utterance have the same frames.
    states = hidden.flatten(0, 1)
    counts = frames.repeat_interleave(hidden.shape[1])
    pool = masked_statistics if pooling == "statistics" else masked_mean
    return pool(states, counts).unflatten(0, hidden.shape[:2])


def _format_pace(finished: int, total: int, seconds: float, noun: str) -> str:
    """Format progress: `120 of 400 utterances, 31 a second, 9 s left`."""
    pace = finished / max(seconds, 1e-9)  # the clock may not have moved yet
    return f"{finished} of {total} {noun}, {pace:.3g} a second, {(total - finished) / pace:.0f} s left"

"""Audio without labels for a distillation: read from a corpus, cut into pieces, part of it held out."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from sertone import audio, corpora
from sertone.errors import AudioError, SertoneError
from sertone.protocol import leaks
from sertone.protocol.protocol_card import collect_versions, describe_corpus, hash_contents
from sertone.protocol.splits import Fold
from sertone.recipe import CorpusConfig
from sertone.schema import Utterance


def load_pieces(data: CorpusConfig, max_seconds: float) -> list[Utterance]:
    """Read all audio of a corpus, in pieces.

    Args:
        data: the corpus; of a manifest only the paths are needed.
        max_seconds: longest piece.

    Raises:
        SertoneError: as `corpora.load`.
    """
    utterances = corpora.load(data.corpus, data.root, data.only, labelled=False, **data.reader_options)
    return [piece for utterance in utterances for piece in cut_utterance(utterance, max_seconds)]


def cut_utterance(utterance: Utterance, max_seconds: float) -> Iterator[Utterance]:
    """Yield an utterance, or pieces of equal length where it is longer than `max_seconds`.

    An utterance whose file cannot be read is yielded unchanged: `Recordings.load` names it, with all others.
    """
    try:
        end = utterance.end_s or audio.inspect(utterance.path).duration_s
    except AudioError:
        end = utterance.start_s
    count = max(1, math.ceil((end - utterance.start_s) / max_seconds))
    cuts = np.linspace(utterance.start_s, end, count + 1)[1:-1].tolist()
    edges = [utterance.start_s, *cuts, utterance.end_s]  # the last end may stay None: to the end of the file
    for number, (start, stop) in enumerate(pairwise(edges), 1):
        name = f"{utterance.id}, {number} of {count}" if count > 1 else utterance.id
        yield replace(utterance, id=name, start_s=start, end_s=stop)


def hold_out(pieces: Sequence[Utterance], share: float, seed: int) -> Fold:
    """Hold out some of the audio: whole speakers, or whole files where a speaker is not named.

    Args:
        pieces: pieces of all audio.
        share: share of the speakers or files; at least one is held out, unless it is zero.
        seed: decides which ones.

    Returns:
        a training and a validation set.

    Raises:
        SertoneError: `nothing_held_out`, where all would be held out.
    """
    groups = sorted({_get_group(u) for u in pieces})  # the order of the files must not matter
    count = max(1, round(share * len(groups))) if share else 0
    if count >= len(groups):
        raise SertoneError(
            "nothing_held_out",
            f"{count} of {len(groups)} speakers or files would be held out",
            "some speakers or files left to train on",
            "give more audio, or set held_out: 0",
        )
    held_out = set(np.random.default_rng(seed).permutation(groups)[:count].tolist())
    train = [u for u in pieces if _get_group(u) not in held_out]
    return Fold("unlabelled", train, [u for u in pieces if _get_group(u) in held_out], [])


def _get_group(utterance: Utterance) -> str:
    """Return what must not be divided: the speaker, or the file where the speaker is not named."""
    return utterance.speaker or str(utterance.path)


def build_card(data: CorpusConfig, fold: Fold, seed: int) -> dict:
    """Return the protocol card of a distillation: a JSON object about its audio.

    Args:
        data: the corpus.
        fold: as `hold_out` returns it.
        seed: seed of everything random.
    """
    pieces = [*fold.train, *fold.validation]
    return {
        "corpus": describe_corpus(data) | {"files": len({u.path for u in pieces})},
        "held_out": sorted({_get_group(u) for u in fold.validation}),
        "seed": seed,
        "versions": collect_versions(),
        "file_hashes": leaks.hash_recordings(pieces),
        "contents": hash_contents(pieces),
    }

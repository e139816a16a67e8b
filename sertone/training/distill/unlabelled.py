"""Audio to listen to without labels: read from a corpus, cut into pieces, some of it kept aside."""

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
    """All that can be heard of a corpus, in pieces.

    Args:
        data: the corpus; of a manifest only the paths are needed.
        max_seconds: longest piece.

    Raises:
        SertoneError: as `corpora.load`.
    """
    found = corpora.load(data.corpus, data.root, data.only, labelled=False, **data.reader_options)
    return [piece for utterance in found for piece in cut_utterance(utterance, max_seconds)]


def cut_utterance(utterance: Utterance, max_seconds: float) -> Iterator[Utterance]:
    """An utterance, or pieces of equal length where it is longer than `max_seconds`.

    One whose file cannot be read comes as it is: `Recordings.load` names it, with all others.
    """
    try:
        end = utterance.end_s or audio.inspect(utterance.path).duration_s
    except AudioError:
        end = utterance.start_s
    count = max(1, math.ceil((end - utterance.start_s) / max_seconds))
    inner = np.linspace(utterance.start_s, end, count + 1)[1:-1].tolist()
    edges = [utterance.start_s, *inner, utterance.end_s]
    for number, (start, stop) in enumerate(pairwise(edges), 1):
        name = f"{utterance.id}, {number} of {count}" if count > 1 else utterance.id
        yield replace(utterance, id=name, start_s=start, end_s=stop)


def hold_out(found: Sequence[Utterance], held_out: float, seed: int) -> Fold:
    """Keeps some of the audio aside: whole speakers, or whole files where a speaker is not named.

    Args:
        found: the pieces.
        held_out: share of the speakers or files; at least one, unless it is zero.
        seed: which ones.

    Returns:
        a training and a validation side.

    Raises:
        SertoneError: `nothing_held_out`, where all would be.
    """
    groups = sorted({_group(u) for u in found})
    count = max(1, round(held_out * len(groups))) if held_out else 0
    if count >= len(groups):
        raise SertoneError(
            "nothing_held_out",
            f"{count} of {len(groups)} speakers or files would be held out",
            "some left to train on",
            "give more audio, or set held_out: 0",
        )
    aside = set(np.random.default_rng(seed).permutation(groups)[:count].tolist())
    train = [u for u in found if _group(u) not in aside]
    return Fold("unlabelled", train, [u for u in found if _group(u) in aside], [])


def _group(utterance: Utterance) -> str:
    return utterance.speaker or str(utterance.path)


def build_card(data: CorpusConfig, fold: Fold, seed: int) -> dict:
    """What is listened to, as a JSON object: the protocol card of a distillation.

    Args:
        data: the corpus.
        fold: what `sides` gave.
        seed: of everything random.
    """
    used = [*fold.train, *fold.validation]
    return {
        "corpus": describe_corpus(data) | {"files": len({u.path for u in used})},
        "held_out": sorted({_group(u) for u in fold.validation}),
        "seed": seed,
        "versions": collect_versions(),
        "file_hashes": leaks.hash_recordings(used),
        "contents": hash_contents(used),
    }

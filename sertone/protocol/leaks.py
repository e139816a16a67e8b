"""Find what two sets of a fold share, and refuse folds whose results could not be trusted.

A speaker or a recording is never in two sets of a fold. What may be in two sets without being an error
(scripted sentences, dialogues with a partner) is reported.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sertone import audio
from sertone.errors import SertoneError
from sertone.labels import normalise_transcript
from sertone.protocol.splits import EMOTION, Fold
from sertone.schema import Utterance
from sertone.utils.wording import shorten_list


@dataclass(frozen=True)
class LeakReport:
    """The speakers, recordings, texts and sessions that two sets of one fold share.

    Attributes:
        fold: its name.
        speakers: names in two sets: an error.
        recordings: ids of recordings in two sets, pairwise: an error.
        scripted_texts: spoken texts that occur in training and in test.
        test_in_texts: share of the test utterances whose text also occurs in training.
        sessions: sessions that occur in training and in test: partners of one dialogue.
    """

    fold: str
    speakers: list[str] = field(default_factory=list)
    recordings: list[str] = field(default_factory=list)
    scripted_texts: list[str] = field(default_factory=list)
    test_in_texts: float = 0.0
    sessions: list[str] = field(default_factory=list)


def find_leaks(fold: Fold, hashes: Mapping[str, str]) -> LeakReport:
    """Compare the training, validation and test set of a fold.

    Args:
        fold: the split.
        hashes: utterance id -> hash of its recording (`hash_recordings`).
    """
    train_texts, test_texts = set(_list_texts(fold.train)), list(_list_texts(fold.test))
    shared = [text for text in test_texts if text in train_texts]
    train_sessions, test_sessions = (
        {u.session for u in subset if u.session} for subset in (fold.train, fold.test)
    )
    return LeakReport(
        fold=fold.name,
        speakers=_find_shared_speakers(fold),
        recordings=_find_shared_recordings(fold, hashes),
        scripted_texts=sorted(set(shared)),
        # `shared` has one entry per test utterance, also where texts repeat.
        test_in_texts=len(shared) / max(1, len(fold.test)),
        sessions=sorted(train_sessions & test_sessions),
    )


def _list_texts(utterances: list[Utterance]) -> Iterator[str]:
    return (normalise_transcript(u.text) for u in utterances if u.text)


def _find_shared_speakers(fold: Fold) -> list[str]:
    subsets = fold.subsets.values()
    counts = Counter(speaker for subset in subsets for speaker in {u.speaker for u in subset})
    return sorted(speaker for speaker, count in counts.items() if count > 1)


def _find_shared_recordings(fold: Fold, hashes: Mapping[str, str]) -> list[str]:
    """Return pairs of utterances in two sets that share samples: equal bytes, overlapping in time."""
    spans_by_hash: dict[str, list[tuple[float, float, str, str]]] = defaultdict(list)
    for subset, utterances in fold.subsets.items():
        for u in utterances:
            end = math.inf if u.end_s is None else u.end_s  # None: the end of the file
            spans_by_hash[hashes[u.id]].append((u.start_s, end, subset, u.id))
    pairs = []
    for spans in spans_by_hash.values():
        # Sweep over time. For each set, only the span that ends last can overlap with later spans.
        last: dict[str, tuple[float, str]] = {}
        for start, end, subset, name in sorted(spans):
            for other_subset, (other_end, other_name) in last.items():
                if other_subset != subset and start < other_end:
                    pairs.append(" = ".join(sorted((other_name, name))))
            last[subset] = max(last.get(subset, (0.0, "")), (end, name))
    return sorted(pairs)


def hash_recordings(utterances: Sequence[Utterance]) -> dict[str, str]:
    """Return utterance id -> SHA-256 of its file's bytes."""
    # Many utterances may come from one file, which is hashed once.
    files = {path: audio.file_hash(path) for path in {u.path for u in utterances}}
    return {u.id: files[u.path] for u in utterances}


def require_no_leaks(fold: Fold, leaks: LeakReport) -> None:
    """Refuse a fold with a speaker or a recording in two sets.

    Args:
        fold: the split.
        leaks: the result of `find_leaks`.

    Raises:
        SertoneError: `speaker_leak`, `audio_leak`.
    """
    if leaks.speakers:
        raise SertoneError(
            "speaker_leak",
            f"fold {fold.name}: {shorten_list(leaks.speakers)} in two sets of the fold",
            "every speaker in only one of training, validation and test set",
            "fix the split, or split by speaker: protocol.split: grouped_k_fold",
        )
    if leaks.recordings:
        raise SertoneError(
            "audio_leak",
            f"fold {fold.name}: the same recording in two sets of the fold: "
            f"{'; '.join(leaks.recordings[:5])}",
            "every recording in only one of training, validation and test set",
            "remove one of the two from the corpus",
        )


def require_labels(fold: Fold, classes: Mapping[str, str], tasks: Sequence[str] = EMOTION) -> None:
    """Refuse a fold without the labels that training and scoring need.

    Args:
        fold: the split.
        classes: emotion -> class.
        tasks: the main tasks of the model.

    Raises:
        SertoneError: `no_labels`, `missing_class`, `constant_rating`.
    """
    for subset, utterances in fold.subsets.items():
        for task in tasks:
            if utterances and not any(task in u.labels for u in utterances):
                raise SertoneError(
                    "no_labels",
                    f"fold {fold.name}: no utterance of its {subset} set has a label of {task}",
                    "labels, to train on and to score",
                )
    for task in set(tasks) - set(EMOTION):
        _require_variation(fold, task)
    if "emotion" in tasks:
        _require_classes(fold, classes)


def _require_variation(fold: Fold, task: str) -> None:
    if len({u.labels[task] for u in fold.train if task in u.labels}) < 2:
        raise SertoneError(
            "constant_rating",
            f"fold {fold.name}: {task} has only one value in the training set",
            "ratings that differ",
            "leave the task out of model.tasks",
        )


def _require_classes(fold: Fold, classes: Mapping[str, str]) -> None:
    present = {classes.get(str(u.labels.get("emotion"))) for u in fold.train}
    absent = [name for name in dict.fromkeys(classes.values()) if name not in present]
    if absent:
        raise SertoneError(
            "missing_class",
            f"fold {fold.name}: no training utterance is {' or '.join(absent)}",
            "every class in every training set",
            "leave the class out of data.classes, or use other folds",
        )

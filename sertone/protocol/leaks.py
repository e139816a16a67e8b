"""What stands on two sides of a fold, and folds that cannot give a result to believe.

A fold never has one speaker, or the same recording, on two sides. What can be the same on both sides
without being an error (scripted sentences, dialogues with a partner) is reported.
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
from sertone.scoring.display import shorten_list


@dataclass(frozen=True)
class LeakReport:
    """What stands on two sides of one fold.

    Attributes:
        fold: its name.
        speakers: names on two sides: an error.
        recordings: ids of recordings on two sides, pairwise: an error.
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
    """Compares the sides of a fold.

    Args:
        fold: the split.
        hashes: utterance id -> hash of its recording (`recording_hashes`).
    """
    train_texts, test_texts = set(_texts(fold.train)), list(_texts(fold.test))
    shared = [text for text in test_texts if text in train_texts]
    sessions = [{u.session for u in side if u.session} for side in (fold.train, fold.test)]
    return LeakReport(
        fold=fold.name,
        speakers=_speakers_on_two_sides(fold),
        recordings=_recordings_on_two_sides(fold, hashes),
        scripted_texts=sorted(set(shared)),
        test_in_texts=len(shared) / max(1, len(fold.test)),
        sessions=sorted(sessions[0] & sessions[1]),
    )


def _texts(utterances: list[Utterance]) -> Iterator[str]:
    return (normalise_transcript(u.text) for u in utterances if u.text)


def _speakers_on_two_sides(fold: Fold) -> list[str]:
    counts = Counter(speaker for side in fold.subsets.values() for speaker in {u.speaker for u in side})
    return sorted(speaker for speaker, sides in counts.items() if sides > 1)


def _recordings_on_two_sides(fold: Fold, hashes: Mapping[str, str]) -> list[str]:
    """Pairs of utterances on two sides that share samples: equal bytes, overlapping in time."""
    places: dict[str, list[tuple[float, float, str, str]]] = defaultdict(list)
    for side, utterances in fold.subsets.items():
        for u in utterances:
            end = math.inf if u.end_s is None else u.end_s
            places[hashes[u.id]].append((u.start_s, end, side, u.id))
    found = []
    for stretches in places.values():
        reached: dict[str, tuple[float, str]] = {}  # side -> how far its stretches go, and whose
        for start, end, side, name in sorted(stretches):
            for other, (other_end, other_name) in reached.items():
                if other != side and start < other_end:
                    found.append(" = ".join(sorted((other_name, name))))
            reached[side] = max(reached.get(side, (0.0, "")), (end, name))
    return sorted(found)


def hash_recordings(utterances: Sequence[Utterance]) -> dict[str, str]:
    """Utterance id -> SHA-256 of its file's bytes."""
    files = {path: audio.file_hash(path) for path in {u.path for u in utterances}}
    return {u.id: files[u.path] for u in utterances}


def require_no_leaks(fold: Fold, leaks: LeakReport) -> None:
    """Refuses a fold with a speaker or a recording on two sides.

    Args:
        fold: the split.
        leaks: what `check_leaks` found.

    Raises:
        SertoneError: `speaker_leak`, `audio_leak`.
    """
    if leaks.speakers:
        raise SertoneError(
            "speaker_leak",
            f"fold {fold.name}: {shorten_list(leaks.speakers)} on two sides",
            "every speaker on one side",
            "mend the split, or split by speaker: protocol.split: grouped_k_fold",
        )
    if leaks.recordings:
        raise SertoneError(
            "audio_leak",
            f"fold {fold.name}: the same recording on two sides: {'; '.join(leaks.recordings[:5])}",
            "every recording on one side",
            "take one of them out of the corpus",
        )


def require_labels(fold: Fold, classes: Mapping[str, str], answers: Sequence[str] = EMOTION) -> None:
    """Refuses a fold without the labels that training and scoring need.

    Args:
        fold: the split.
        classes: emotion -> class.
        answers: the tasks that the model is for.

    Raises:
        SertoneError: `no_labels`, `missing_class`, `constant_rating`.
    """
    for side, utterances in fold.subsets.items():
        for task in answers:
            if utterances and not any(task in u.labels for u in utterances):
                raise SertoneError(
                    "no_labels",
                    f"fold {fold.name}: no utterance of its {side} side has a label of {task}",
                    "some, to train on and to score",
                )
    for task in set(answers) - set(EMOTION):
        _require_variation(fold, task)
    if "emotion" in answers:
        _require_classes(fold, classes)


def _require_variation(fold: Fold, task: str) -> None:
    if len({u.labels[task] for u in fold.train if task in u.labels}) < 2:
        raise SertoneError(
            "constant_rating",
            f"fold {fold.name}: {task} has one value in its whole training side",
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
            "every class in every training side",
            "leave the class out of data.classes, or use other folds",
        )

"""Who trains, who validates, who tests; and the check that nothing leaks.

A fold never has one speaker, or the same recording, on two sides. What can be the same on both sides
without being an error (scripted sentences, dialogues with a partner) is reported.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from sertone import audio
from sertone.errors import SertoneError
from sertone.labels import spoken_text
from sertone.recipe import Split
from sertone.schema import Utterance

SPLITS = get_args(Split)
EMOTION = ("emotion",)


@dataclass(frozen=True)
class Fold:
    """One split.

    Attributes:
        name: what is held out.
        train: utterances to learn from.
        validation: utterances that choose the epoch; may be empty.
        test: utterances to score.
    """

    name: str
    train: list[Utterance]
    validation: list[Utterance]
    test: list[Utterance]

    @property
    def sides(self) -> dict[str, list[Utterance]]:
        """The three sides by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def make_folds(
    utterances: Sequence[Utterance],
    split: str,
    *,
    folds: int = 5,
    validation: str = "none",
    answers: Sequence[str] = EMOTION,
) -> list[Fold]:
    """Splits a corpus.

    Args:
        utterances: those that are in the classes, or have no emotion label. A speaker without any label
            is never held out: there would be nothing to score.
        split: one of SPLITS.
        folds: how many folds `grouped_k_fold` makes.
        validation: `speaker` takes one speaker out of training to choose the epoch; leave-one-speaker-
            out always does, and official splits bring their own validation side.
        answers: the tasks that the model is for, of which an utterance must have one to be scored.

    Raises:
        SertoneError: `unknown_split`, `no_sessions`, `no_official_split`, `too_few_speakers`.
    """
    if split not in SPLITS:
        raise SertoneError("unknown_split", f"split {split!r}", f"one of {', '.join(SPLITS)}")
    if split == "official":
        return [_official(utterances)]
    scored = [u for u in utterances if has_label(u, answers)]
    takes_speaker = validation == "speaker" or split == "leave_one_speaker_out"
    made = []
    for number, (name, held_out) in enumerate(_held_out_groups(scored, split, folds).items()):
        test = [u for u in utterances if u.speaker in held_out]
        rest = [u for u in utterances if u.speaker not in held_out]
        choosers = [u for u in scored if u.speaker not in held_out]
        chooser = _validation_speaker(test, choosers, number) if takes_speaker else None
        made.append(
            Fold(
                name,
                [u for u in rest if u.speaker != chooser],
                [u for u in rest if u.speaker == chooser],
                test,
            )
        )
    return made


def has_label(utterance: Utterance, answers: Sequence[str]) -> bool:
    """Whether an utterance has a label of one of these tasks."""
    return any(task in utterance.labels for task in answers)


def everything(
    utterances: Sequence[Utterance], validation: str = "none", answers: Sequence[str] = EMOTION
) -> Fold:
    """One fold that trains on all, to be used rather than scored.

    With `validation` = `speaker` the last speaker is kept out to choose the epoch.
    """
    labelled = [u.speaker for u in utterances if has_label(u, answers)]
    chooser = max(labelled) if validation == "speaker" else None
    return Fold(
        "all",
        [u for u in utterances if u.speaker != chooser],
        [u for u in utterances if u.speaker == chooser],
        [],
    )


def _held_out_groups(utterances: Sequence[Utterance], split: str, folds: int) -> dict[str, set[str]]:
    """Fold name -> the speakers held out."""
    speakers = sorted({u.speaker for u in utterances})
    if split == "leave_one_speaker_out":
        _need(len(speakers), 3, "leave_one_speaker_out")
        return {speaker: {speaker} for speaker in speakers}
    if split == "leave_one_session_out":
        return _sessions(utterances)
    _need(len(speakers), folds, f"grouped_k_fold with {folds} folds")
    from sklearn.model_selection import GroupKFold

    groups = [u.speaker for u in utterances]
    parts = GroupKFold(folds).split(groups, groups=groups)
    held_out = [{groups[index] for index in test} for _, test in parts]
    return {_group_name(number, names): names for number, names in enumerate(held_out, 1)}


def _group_name(number: int, speakers: set[str]) -> str:
    return " ".join(sorted(speakers)) if len(speakers) < 4 else f"group {number}"


def _sessions(utterances: Sequence[Utterance]) -> dict[str, set[str]]:
    sessions = defaultdict(set)
    for u in utterances:
        sessions[u.session].add(u.speaker)
    if None in sessions or len(sessions) < 2:
        raise SertoneError(
            "no_sessions",
            f"{len(sessions)} sessions, some utterances without: {None in sessions}",
            "two or more, and one for every utterance",
            "use protocol.split: grouped_k_fold",
        )
    times = Counter(speaker for speakers in sessions.values() for speaker in speakers)
    if several := sorted(speaker for speaker, n in times.items() if n > 1):
        raise SertoneError(
            "speaker_in_two_sessions",
            f"{', '.join(several)} in more than one session",
            "sessions that share no speaker",
            "use protocol.split: grouped_k_fold",
        )
    return {str(name): speakers for name, speakers in sorted(sessions.items(), key=str)}


def _need(found: int, expected: int, rule: str) -> None:
    if found < expected:
        raise SertoneError("too_few_speakers", f"{found} speakers", f"at least {expected} for {rule}")


def _validation_speaker(test: list[Utterance], rest: list[Utterance], number: int) -> str:
    """The test speaker's partner in the same session where there is one, else another in turn."""
    sessions = {u.session for u in test} - {None}
    partners = sorted({u.speaker for u in rest if u.session in sessions})
    others = sorted({u.speaker for u in rest})
    return partners[0] if partners else others[number % len(others)]


def _official(utterances: Sequence[Utterance]) -> Fold:
    sides = {side: [u for u in utterances if u.split == side] for side in ("train", "validation", "test")}
    if not sides["train"] or not sides["test"]:
        raise SertoneError(
            "no_official_split",
            f"{len(sides['train'])} training and {len(sides['test'])} test utterances",
            "both, marked in the corpus (a manifest's column `split`)",
            "use protocol.split: grouped_k_fold",
        )
    return Fold("official", **sides)


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


def check_leaks(fold: Fold, hashes: Mapping[str, str]) -> LeakReport:
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
    return (spoken_text(u.text) for u in utterances if u.text)


def _speakers_on_two_sides(fold: Fold) -> list[str]:
    counts = Counter(speaker for side in fold.sides.values() for speaker in {u.speaker for u in side})
    return sorted(speaker for speaker, sides in counts.items() if sides > 1)


def _recordings_on_two_sides(fold: Fold, hashes: Mapping[str, str]) -> list[str]:
    """Pairs of utterances on two sides that share samples: equal bytes, overlapping in time."""
    places: dict[str, list[tuple[float, float, str, str]]] = defaultdict(list)
    for side, utterances in fold.sides.items():
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


def recording_hashes(utterances: Sequence[Utterance]) -> dict[str, str]:
    """Utterance id -> SHA-256 of its file's bytes."""
    files = {path: audio.file_hash(path) for path in {u.path for u in utterances}}
    return {u.id: files[u.path] for u in utterances}


def require_sound(
    fold: Fold, leaks: LeakReport, classes: Mapping[str, str], answers: Sequence[str] = EMOTION
) -> None:
    """Refuses a fold that cannot give a result to believe.

    Args:
        fold: the split.
        leaks: what `check_leaks` found.
        classes: emotion -> class.
        answers: the tasks that the model is for.

    Raises:
        SertoneError: `speaker_leak`, `audio_leak`, `no_labels`, `missing_class`, `constant_rating`.
    """
    if leaks.speakers:
        raise SertoneError(
            "speaker_leak",
            f"fold {fold.name}: {', '.join(leaks.speakers)} on two sides",
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
    for side, utterances in fold.sides.items():
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

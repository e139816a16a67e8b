"""A corpus divided as a recipe says: who takes part, in which class, on which side.

Training begins here, and `sertone corpora check` asks here whether it could.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sertone.errors import SertoneError
from sertone.labels import (
    DIMENSIONS,
    count_unmapped,
    find_unused_labels,
    format_counts,
    map_raw_labels,
    resolve_class_map,
    resolve_raw_labels,
)
from sertone.protocol import leaks, splits
from sertone.protocol.leaks import LeakReport
from sertone.protocol.splits import EMOTION, Fold
from sertone.recipe import DataConfig, ProtocolConfig
from sertone.schema import Problem, Utterance
from sertone.scoring.display import format_count


@dataclass(frozen=True)
class CorpusSplit:
    """The folds of a corpus.

    Attributes:
        folds: the splits.
        rule: that made them, as the protocol card states it.
        hashes: utterance id -> hash of its recording.
        leaks: one report per fold.
    """

    folds: list[Fold]
    rule: dict[str, Any]
    hashes: dict[str, str]
    leaks: list[LeakReport]


def select_utterances(
    found: Sequence[Utterance], data: DataConfig, answers: Sequence[str] = EMOTION
) -> tuple[dict[str, str], list[Utterance]]:
    """Return emotion -> class, and the utterances of a corpus that take part.

    Args:
        found: the utterances of the corpus.
        data: the classes, and what becomes of utterances outside them.
        answers: the tasks that the model is for.

    Raises:
        SertoneError: `unknown_class_map`, `ambiguous_classes`, `no_classes`.
    """
    mapping = resolve_class_map(data.classes, map_raw_labels(found))
    if "emotion" in answers:
        _require_classes(mapping, found)
    kept = data.outside_classes == "kept"
    return mapping, [u for u in found if kept or u.labels.get("emotion") in (None, *mapping)]


def split_corpus(
    utterances: list[Utterance],
    protocol: ProtocolConfig,
    answers: Sequence[str] = EMOTION,
    *,
    everything: bool = False,
) -> CorpusSplit:
    """Make the folds, and look for what is on two sides of them.

    Args:
        utterances: those that take part.
        protocol: the rule.
        answers: the tasks that the model is for.
        everything: make one fold that trains on all, with nothing left to test on.

    Raises:
        SertoneError: `no_labels`; of the split, as `protocols.make_folds` and `protocols.everything`.
    """
    _require_labels(utterances, answers)
    folds, rule = _folds(protocol, utterances, answers, everything)
    hashes = leaks.hash_recordings(utterances)
    return CorpusSplit(folds, rule, hashes, [leaks.find_leaks(fold, hashes) for fold in folds])


def find_split_problems(
    found: Sequence[Utterance], data: DataConfig, protocol: ProtocolConfig, *, place: str = "(folds)"
) -> list[Problem]:
    """List what training would refuse, with the codes with which it would.

    Args:
        found: the utterances of the corpus.
        data: as of a recipe.
        protocol: as of a recipe.
        place: where the problems are said to be.
    """
    ratings = tuple(name for name in DIMENSIONS if any(name in u.labels for u in found))
    answers = EMOTION if any("emotion" in u.labels for u in found) else ratings or EMOTION
    try:
        mapping, used = select_utterances(found, data, answers)
        split = split_corpus(used, protocol, answers)
    except SertoneError as error:
        return [Problem(error.code, place, str(error))]
    unused, merged = _unused(data, found), _merged(data, found)
    problems = [Problem("unused_label", place, unused, "note")] if unused else []
    problems += [Problem("merged_label", place, merged, "note")] if merged else []
    for fold, report in zip(split.folds, split.leaks, strict=True):
        none = partial(leaks.require_no_leaks, fold, report)
        for rule in (none, partial(leaks.require_labels, fold, mapping, answers)):
            try:
                rule()
            except SertoneError as error:
                problems.append(Problem(error.code, place, str(error)))
    return problems


def describe_unused_labels(data: DataConfig, found: Sequence[Utterance]) -> str:
    """Say where the labels of `data.classes` are not those of the corpus; empty where they are.

    Those are labels that no utterance has, and labels that a class takes although nothing names them.
    """
    return "; ".join(note for note in (_merged(data, found), _unused(data, found)) if note)


def _merged(data: DataConfig, found: Sequence[Utterance]) -> str:
    """Say which labels are read as one that `data.classes` names: `joy also takes happiness 50`."""
    labels, written, words = data.classes, map_raw_labels(found), _words(found)
    if not isinstance(labels, dict):
        return ""
    first = {
        emotion: label for label in reversed(labels) for emotion in resolve_raw_labels({label: ""}, written)
    }
    notes = [_takes(label, emotion, labels, words[emotion]) for emotion, label in first.items()]
    merged = sorted(note for note in notes if note)
    return f"data.classes: {'; '.join(merged)}" if merged else ""


def _words(found: Sequence[Utterance]) -> dict[str, Counter[str]]:
    """Return emotion -> word that the corpus writes for it -> utterances."""
    words: dict[str, Counter[str]] = defaultdict(Counter)
    for labels in (u.labels for u in found if "emotion" in u.labels):
        words[str(labels["emotion"])][str(labels.get("raw_emotion", labels["emotion"]))] += 1
    return words


def _takes(label: str, emotion: str, named: Mapping[str, str], words: Mapping[str, int]) -> str:
    """Say which words of an emotion a label takes unnamed; empty where the one word is just a code of it."""
    known = {name.lower() for name in named}
    unnamed = {word: count for word, count in sorted(words.items()) if word.lower() not in known}
    alone = len({word.lower() for word in words}) == 1 and label.lower() == emotion
    if not unnamed or alone:
        return ""
    also = " also" if len(unnamed) < len(words) else ""
    return f"{label}{also} takes {format_counts(unnamed)}"


def _unused(data: DataConfig, found: Sequence[Utterance]) -> str:
    """Say which labels `data.classes` names that no utterance has; empty where there are none."""
    unused = find_unused_labels(data.classes, map_raw_labels(found)) if isinstance(data.classes, dict) else []
    return f"data.classes names labels that no utterance has: {', '.join(unused)}" if unused else ""


def describe_outside_classes(data: DataConfig, found: Sequence[Utterance], mapping: Mapping[str, str]) -> str:
    """Say how many utterances are in no class, and what becomes of them; empty where all are in one."""
    outside, labelled = count_unmapped(found, mapping), sum(count_unmapped(found, {}).values())
    if not outside:
        return ""
    fate = "kept for other tasks" if data.outside_classes == "kept" else "left out"
    total = f"{sum(outside.values())} of {format_count(labelled, 'labelled utterance')}"
    return f"{fate}: {total}, in no class: {format_counts(outside)}"


def describe_rule(protocol: ProtocolConfig) -> str:
    """Return how a protocol splits: `grouped_k_fold with 5 folds`."""
    folds = f" with {protocol.folds} folds" if protocol.split == "grouped_k_fold" else ""
    return f"{protocol.split}{folds}"


def _folds(
    protocol: ProtocolConfig, utterances: list[Utterance], answers: Sequence[str], everything: bool
) -> tuple[list[Fold], dict[str, Any]]:
    """The folds, and the rule that made them."""
    if everything:
        rule = {"split": "everything", "validation": protocol.validation}
        return [splits.make_full_fold(utterances, protocol.validation, answers)], rule
    splits.require_known_speakers(utterances, protocol)
    folds = splits.make_folds(
        utterances, protocol.split, folds=protocol.folds, validation=protocol.validation, tasks=answers
    )
    unused = {"unknown_speakers"} | (set() if protocol.split == "grouped_k_fold" else {"folds"})
    independent = splits.is_speaker_independent(utterances)
    return folds, protocol.model_dump(exclude=unused) | {"speaker_independent": independent}


def _require_classes(mapping: dict[str, str], found: Sequence[Utterance]) -> None:
    emotions = count_unmapped(found, {})
    taken = [name for name in emotions if name in mapping]
    if len({mapping[name] for name in taken}) < 2:
        raise SertoneError(
            "no_classes",
            f"the corpus's emotions are {format_counts(emotions) or 'not given'}; of them "
            f"data.classes takes {', '.join(taken) or 'none'}",
            "at least two classes",
            "data.classes: all takes every emotion, {joy: happy, rage: angry} those that you name"
            if emotions
            else "a manifest needs a column `emotion`: --columns emotion=NAME says which it is",
        )


def _require_labels(utterances: Sequence[Utterance], answers: Sequence[str]) -> None:
    for task in answers:
        if not any(task in u.labels for u in utterances):
            raise SertoneError(
                "no_labels",
                f"no utterance has a label of {task}, which the model is to learn",
                "some, to train on and to score",
                "`sertone corpora check` counts labels; leave the task out of model.tasks",
            )

"""Split a corpus as a recipe says: select the utterances, map them to classes, make the folds.

Training starts here, and `sertone corpora check` uses the same code to report what training would refuse.
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
from sertone.utils.wording import format_count


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
    utterances: Sequence[Utterance], data: DataConfig, tasks: Sequence[str] = EMOTION
) -> tuple[dict[str, str], list[Utterance]]:
    """Return emotion -> class, and the utterances of a corpus that take part.

    Args:
        utterances: utterances of the corpus.
        data: the classes, and what happens to utterances outside them.
        tasks: the main tasks of the model.

    Raises:
        SertoneError: `unknown_class_map`, `ambiguous_classes`, `no_classes`.
    """
    mapping = resolve_class_map(data.classes, map_raw_labels(utterances))
    if "emotion" in tasks:
        _require_classes(mapping, utterances)
    if data.outside_classes == "kept":
        return mapping, list(utterances)
    # Utterances without an emotion label stay, because they may have labels of other tasks.
    return mapping, [u for u in utterances if u.labels.get("emotion") in (None, *mapping)]


def split_corpus(
    utterances: list[Utterance],
    protocol: ProtocolConfig,
    tasks: Sequence[str] = EMOTION,
    *,
    everything: bool = False,
) -> CorpusSplit:
    """Make the folds, and find what their sets share.

    Args:
        utterances: those that take part.
        protocol: the rule.
        tasks: the main tasks of the model.
        everything: make one fold that trains on all utterances, with nothing left to test on.

    Raises:
        SertoneError: `no_labels`; of the split, as `splits.make_folds` and `splits.make_full_fold`.
    """
    _require_labels(utterances, tasks)
    folds, rule = _make_folds(protocol, utterances, tasks, everything)
    hashes = leaks.hash_recordings(utterances)
    return CorpusSplit(folds, rule, hashes, [leaks.find_leaks(fold, hashes) for fold in folds])


def find_split_problems(
    utterances: Sequence[Utterance], data: DataConfig, protocol: ProtocolConfig, *, place: str = "(folds)"
) -> list[Problem]:
    """Return the problems for which training would refuse a corpus, with the same error codes.

    Args:
        utterances: utterances of the corpus.
        data: as of a recipe.
        protocol: as of a recipe.
        place: the place that the problems name.
    """
    ratings = tuple(name for name in DIMENSIONS if any(name in u.labels for u in utterances))
    tasks = EMOTION if any("emotion" in u.labels for u in utterances) else ratings or EMOTION
    try:
        mapping, selected = select_utterances(utterances, data, tasks)
        split = split_corpus(selected, protocol, tasks)
    except SertoneError as error:
        return [Problem(error.code, place, str(error))]
    unused, merged = _describe_unused(data, utterances), _describe_merged(data, utterances)
    problems = [Problem("unused_label", place, unused, "note")] if unused else []
    problems += [Problem("merged_label", place, merged, "note")] if merged else []
    for fold, report in zip(split.folds, split.leaks, strict=True):
        # Training stops at the first problem; a check lists all of them.
        require_no_leaks = partial(leaks.require_no_leaks, fold, report)
        for check in (require_no_leaks, partial(leaks.require_labels, fold, mapping, tasks)):
            try:
                check()
            except SertoneError as error:
                problems.append(Problem(error.code, place, str(error)))
    return problems


def describe_unused_labels(data: DataConfig, utterances: Sequence[Utterance]) -> str:
    """Describe where the labels of `data.classes` differ from those of the corpus; empty where they agree.

    Those are labels that no utterance has, and labels that a class includes although nothing names them.
    """
    notes = (_describe_merged(data, utterances), _describe_unused(data, utterances))
    return "; ".join(note for note in notes if note)


def _describe_merged(data: DataConfig, utterances: Sequence[Utterance]) -> str:
    """List the labels that count as one that `data.classes` names: `joy also takes happiness 50`."""
    labels, written = data.classes, map_raw_labels(utterances)
    if not isinstance(labels, dict):
        return ""
    # If several labels name one emotion, the first one counts.
    by_emotion = {
        emotion: label for label in reversed(labels) for emotion in resolve_raw_labels({label: ""}, written)
    }
    words = _count_words(utterances)
    notes = [
        _describe_unnamed(label, emotion, labels, words[emotion]) for emotion, label in by_emotion.items()
    ]
    merged = sorted(note for note in notes if note)
    return f"data.classes: {'; '.join(merged)}" if merged else ""


def _count_words(utterances: Sequence[Utterance]) -> dict[str, Counter[str]]:
    """Return emotion -> word that the corpus writes for it -> number of utterances."""
    words: dict[str, Counter[str]] = defaultdict(Counter)
    for labels in (u.labels for u in utterances if "emotion" in u.labels):
        words[str(labels["emotion"])][str(labels.get("raw_emotion", labels["emotion"]))] += 1
    return words


def _describe_unnamed(label: str, emotion: str, labels: Mapping[str, str], words: Mapping[str, int]) -> str:
    """List the words of an emotion that a label includes and `data.classes` does not name.

    The text is empty where the only word is just a code of the emotion.
    """
    named = {name.lower() for name in labels}
    unnamed = {word: count for word, count in sorted(words.items()) if word.lower() not in named}
    is_code = len({word.lower() for word in words}) == 1 and label.lower() == emotion
    if not unnamed or is_code:
        return ""
    also = " also" if len(unnamed) < len(words) else ""
    return f"{label}{also} takes {format_counts(unnamed)}"


def _describe_unused(data: DataConfig, utterances: Sequence[Utterance]) -> str:
    """List the labels that `data.classes` names and no utterance has; empty where there are none."""
    if not isinstance(data.classes, dict):
        return ""
    unused = find_unused_labels(data.classes, map_raw_labels(utterances))
    return f"data.classes names labels that no utterance has: {', '.join(unused)}" if unused else ""


def describe_outside_classes(
    data: DataConfig, utterances: Sequence[Utterance], mapping: Mapping[str, str]
) -> str:
    """Describe how many utterances are in no class, and what happens to them; empty where all are in one."""
    outside = count_unmapped(utterances, mapping)
    if not outside:
        return ""
    labelled = sum(count_unmapped(utterances, {}).values())
    fate = "kept for other tasks" if data.outside_classes == "kept" else "left out"
    total = f"{sum(outside.values())} of {format_count(labelled, 'labelled utterance')}"
    return f"{fate}: {total}, in no class: {format_counts(outside)}"


def describe_rule(protocol: ProtocolConfig) -> str:
    """Return a short description of a protocol's split: `grouped_k_fold with 5 folds`."""
    folds = f" with {protocol.folds} folds" if protocol.split == "grouped_k_fold" else ""
    return f"{protocol.split}{folds}"


def _make_folds(
    protocol: ProtocolConfig, utterances: list[Utterance], tasks: Sequence[str], everything: bool
) -> tuple[list[Fold], dict[str, Any]]:
    """Return the folds, and the rule that made them."""
    if everything:
        rule = {"split": "everything", "validation": protocol.validation}
        return [splits.make_full_fold(utterances, protocol.validation, tasks)], rule
    splits.require_known_speakers(utterances, protocol)
    folds = splits.make_folds(
        utterances, protocol.split, folds=protocol.folds, validation=protocol.validation, tasks=tasks
    )
    # The rule lists only settings that have an effect, so others do not make another experiment.
    unused = {"unknown_speakers"}
    if protocol.split != "grouped_k_fold":
        unused.add("folds")
    independent = splits.is_speaker_independent(utterances)
    return folds, protocol.model_dump(exclude=unused) | {"speaker_independent": independent}


def _require_classes(mapping: dict[str, str], utterances: Sequence[Utterance]) -> None:
    emotions = count_unmapped(utterances, {})  # no mapping: all emotions
    mapped = [name for name in emotions if name in mapping]
    if len({mapping[name] for name in mapped}) < 2:
        raise SertoneError(
            "no_classes",
            f"the corpus's emotions are {format_counts(emotions) or 'not given'}; of them "
            f"data.classes takes {', '.join(mapped) or 'none'}",
            "at least two classes",
            "data.classes: all takes every emotion, {joy: happy, rage: angry} only the ones that you name"
            if emotions
            else "a manifest needs a column `emotion`: --columns emotion=NAME says which it is",
        )


def _require_labels(utterances: Sequence[Utterance], tasks: Sequence[str]) -> None:
    for task in tasks:
        if not any(task in u.labels for u in utterances):
            raise SertoneError(
                "no_labels",
                f"no utterance has a label of {task}, which the model learns",
                "labels, to train on and to score",
                "`sertone corpora check` counts labels; leave the task out of model.tasks",
            )

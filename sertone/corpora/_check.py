"""The corpus check: count a corpus and list all its problems, without stopping at the first one."""

import difflib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sertone import audio, corpora
from sertone.corpora._duplicates import find_duplicates
from sertone.corpora._durations import find_long_utterances
from sertone.corpora._files import summarise_names
from sertone.corpora._report import UNKNOWN_SPEAKER, CorpusReport
from sertone.errors import AudioError
from sertone.labels import (
    DIMENSIONS,
    EMOTIONS,
    GENDERS,
    SYNONYMS,
    Scale,
    class_names,
    count_unmapped,
    has_words,
    map_raw_labels,
    resolve_class_map,
)
from sertone.schema import Problem, Utterance
from sertone.utils.wording import shorten_list

DURATION_TOLERANCE_S = 0.025
"""Smaller differences between the stated and the measured duration are not reported."""


def check(
    name: str,
    root: str | Path,
    classes: str | Mapping[str, str] = "all",
    *,
    rehearse: Callable[[list[Utterance]], list[Problem]] | None = None,
    checked_for: str = "",
    **options: Any,
) -> CorpusReport:
    """Read a whole corpus, count it and list every problem.

    Args:
        name: corpus.
        root: its folder, or the manifest's file.
        classes: the class map of the results.
        rehearse: returns the problems that training would refuse, given the utterances with readable audio.
        checked_for: description of the classes and the split that `rehearse` tries.
        options: options of its reader, as `corpora.load_utterances` takes them.

    Raises:
        SertoneError: if there is no such corpus at this path.
    """
    problems: list[Problem] = []
    utterances = list(corpora.load_utterances(name, root, problems.append, **options))
    problems += find_duplicates(utterances)
    problems += _check_labels(utterances)
    problems += _check_ratings(utterances, corpora.load_sheet(name).SCALES)
    # Several utterances may share a file; its header is read once.
    lengths = {path: _measure_length(path, problems) for path in {u.path: None for u in utterances}}
    problems += _check_signals(utterances, lengths)
    problems += find_long_utterances({u.id: _measure_seconds(u, lengths) for u in utterances})
    problems += _find_identical_files(utterances, [path for path, length in lengths.items() if length])
    if rehearse:
        problems += rehearse([u for u in utterances if lengths[u.path]])
    return _build_report(name, root, classes, utterances, lengths, problems, checked_for)


def _build_report(
    name: str,
    root: str | Path,
    classes: str | Mapping[str, str],
    utterances: list[Utterance],
    lengths: dict[Path, float],
    problems: list[Problem],
    checked_for: str,
) -> CorpusReport:
    mapping = resolve_class_map(classes, map_raw_labels(utterances))
    order = class_names(mapping)
    in_classes = [(u, mapping[e]) for u in utterances if (e := u.labels.get("emotion")) in mapping]
    sessions: dict[str, list[str]] = {u.session: [] for u in utterances if u.session}
    for u, class_name in in_classes:
        if u.session:
            sessions[u.session].append(class_name)
    speakers = sorted({_get_speaker(u) for u in utterances})
    return CorpusReport(
        corpus=name,
        root=str(root),
        release=_guess_release(name, Path(root)),
        utterances=len(utterances),
        voted=sum(bool(u.votes) for u in utterances),
        texts=sum(has_words(u.text) for u in utterances),
        rated={rating: count for rating in DIMENSIONS if (count := _count_rated(utterances, rating))},
        hours=round(sum(_measure_seconds(u, lengths) for u in utterances) / 3600, 4),
        speakers=len({u.speaker for u in utterances if u.known_speaker}),
        unknown_speakers=sum(not u.known_speaker for u in utterances),
        by_label=_count_values(str(u.labels.get("raw_emotion", "(missing)")) for u in utterances),
        by_class=_count_values((class_name for _, class_name in in_classes), order),
        in_no_class=count_unmapped(utterances, mapping),
        by_session={name: _count_values(labels, order) for name, labels in sorted(sessions.items())},
        by_speaker=_count_values((_get_speaker(u) for u, _ in in_classes), speakers),
        by_style=_count_values(str(u.labels["style"]) for u in utterances if "style" in u.labels),
        checked_for=checked_for,
        problems=sorted(problems, key=lambda problem: (problem.severity, problem.code)),
    )


def _guess_release(name: str, root: Path) -> str:
    sheet = corpora.load_sheet(name)
    return sheet.guess_release(root) if hasattr(sheet, "guess_release") else ""


def _get_speaker(utterance: Utterance) -> str:
    return utterance.speaker if utterance.known_speaker else UNKNOWN_SPEAKER


def _count_rated(utterances: list[Utterance], rating: str) -> int:
    return sum(rating in u.labels for u in utterances)


def _count_values(values: Iterable[str], order: list[str] | None = None) -> dict[str, int]:
    """Return value -> its number, in the given order or else the most frequent first."""
    counts = Counter(values)
    return {name: counts[name] for name in (order or [name for name, _ in counts.most_common()])}


def _measure_seconds(utterance: Utterance, lengths: dict[Path, float]) -> float:
    end = utterance.end_s if utterance.end_s is not None else lengths[utterance.path]
    return max(end - utterance.start_s, 0.0)


def _measure_length(path: Path, problems: list[Problem]) -> float:
    """Return the seconds of a file by its header; 0 if it cannot be read, which adds a problem."""
    try:
        return audio.inspect(path).duration_s
    except AudioError as error:
        problems.append(Problem(error.code, str(path), _remove_path(path, error)))
        return 0.0


def _check_labels(utterances: list[Utterance]) -> list[Problem]:
    """Return notes on labels that are missing, rare or probably misspelt."""
    emotions = Counter(str(u.labels["emotion"]) for u in utterances if "emotion" in u.labels)
    problems = []
    # A raw label without an emotion is an unknown label, which the reader has reported already.
    if missing := [u.id for u in utterances if "emotion" not in u.labels and "raw_emotion" not in u.labels]:
        message = summarise_names(missing, "utterance", "without an emotion, usable for other tasks only")
        problems.append(Problem("missing_label", missing[0], message, "note"))
    for name, count in emotions.items():
        near = difflib.get_close_matches(name, {*EMOTIONS, *SYNONYMS} - {name}, 1, 0.8)
        if name not in EMOTIONS and (near or count < 3):
            hint = f"; did you mean {near[0]!r}?" if near else ""
            first = next(u.id for u in utterances if u.labels.get("emotion") == name)
            problems.append(Problem("rare_label", first, f"{count} x emotion {name!r}{hint}", "note"))
    for u in utterances:
        if (gender := u.labels.get("gender", "female")) not in GENDERS:
            message = f"gender is {gender!r}; expected female or male"
            problems.append(Problem("unknown_gender", u.id, message, "note"))
    return problems


def _check_ratings(utterances: list[Utterance], scales: dict[str, Scale]) -> list[Problem]:
    return [
        Problem(
            "rating_off_scale",
            u.id,
            f"{name} {value}; expected {scale.low} to {scale.high}",
            "note",
        )
        for u in utterances
        for name, scale in scales.items()
        if isinstance(value := u.labels.get(name), float) and not scale.low <= value <= scale.high
    ]


def _check_signals(utterances: list[Utterance], lengths: dict[Path, float]) -> list[Problem]:
    """Decode every utterance, and return its audio errors and warnings and wrongly stated durations."""
    problems = []
    for u in utterances:
        if not lengths[u.path]:  # its header cannot be read, which is a problem already
            continue
        try:
            recording = audio.read(u.path, start_s=u.start_s, end_s=u.end_s)
        except AudioError as error:
            problems.append(Problem(error.code, u.id, _remove_path(u.path, error)))
            continue
        for code, message in recording.warnings.items():
            severity = "error" if code in ("truncated", "no_speech") else "note"
            problems.append(Problem(code, str(u.path), message, severity))
        stated = u.labels.get("duration_s")
        if isinstance(stated, float) and _differ(stated, recording.duration_s):
            message = f"stated duration {stated} s; found {recording.duration_s:.3f} s"
            problems.append(Problem("other_duration", u.id, message, "note"))
    return problems


def _remove_path(path: Path, error: AudioError) -> str:
    """Return the message without the path, which the problem has in its own field."""
    return str(error).removeprefix(f"{path}: ")


def _differ(stated_s: float, measured_s: float) -> bool:
    return abs(stated_s - measured_s) > DURATION_TOLERANCE_S


def _find_identical_files(utterances: list[Utterance], readable: list[Path]) -> list[Problem]:
    """Return a problem per group of identical files: a note if speaker and emotion agree, else an error."""
    sizes = Counter(path.stat().st_size for path in readable)
    hashes = defaultdict(list)
    for path in readable:
        if sizes[path.stat().st_size] > 1:  # a file with a unique size has no twin, so it is not hashed
            hashes[audio.file_hash(path)].append(path)
    labels = {u.path: (u.speaker, u.labels.get("emotion")) for u in utterances}
    return [
        Problem(
            "same_audio",
            str(twins[0]),
            f"the same bytes as {shorten_list([str(path) for path in twins[1:]])}",
            "note" if len({labels[path] for path in twins}) == 1 else "error",
        )
        for twins in hashes.values()
        if len(twins) > 1
    ]

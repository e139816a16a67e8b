"""The corpus doctor: counts and problems of a corpus, never stopping at the first problem."""

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
from sertone.scoring.display import shorten_list

DURATION_TOLERANCE_S = 0.025


def check(
    name: str,
    root: str | Path,
    classes: str | Mapping[str, str] = "all",
    *,
    rehearse: Callable[[list[Utterance]], list[Problem]] | None = None,
    checked_for: str = "",
    **options: Any,
) -> CorpusReport:
    """Reads a whole corpus and lists every problem.

    Args:
        name: corpus.
        root: its folder, or the manifest's file.
        classes: the class map that results would be computed with.
        rehearse: lists what training would refuse, given the utterances whose recordings can be read.
        checked_for: the classes and the split that it tries, in words.
        options: of its reader, as `corpora.read_utterances` takes them.

    Raises:
        SertoneError: where there is no such corpus at that place.
    """
    problems: list[Problem] = []
    found = list(corpora.read_utterances(name, root, problems.append, **options))
    problems += find_duplicates(found)
    problems += _label_problems(found)
    problems += _rating_problems(found, corpora.load_sheet(name).SCALES)
    lengths = {path: _length(path, problems) for path in {u.path: None for u in found}}
    problems += _signal_problems(found, lengths)
    problems += find_long_utterances({u.id: _seconds(u, lengths) for u in found})
    problems += _twins(found, [path for path, length in lengths.items() if length])
    if rehearse:
        problems += rehearse([u for u in found if lengths[u.path]])
    return _count(name, root, classes, found, lengths, problems, checked_for)


def _count(
    name: str,
    root: str | Path,
    classes: str | Mapping[str, str],
    found: list[Utterance],
    lengths: dict[Path, float],
    problems: list[Problem],
    checked_for: str,
) -> CorpusReport:
    mapping = resolve_class_map(classes, map_raw_labels(found))
    order = class_names(mapping)
    named = [(u, mapping[e]) for u in found if (e := u.labels.get("emotion")) in mapping]
    sessions: dict[str, list[str]] = {u.session: [] for u in found if u.session}
    for u, name_of_class in named:
        if u.session:
            sessions[u.session].append(name_of_class)
    return CorpusReport(
        corpus=name,
        root=str(root),
        release=_release(name, Path(root)),
        utterances=len(found),
        voted=sum(bool(u.votes) for u in found),
        texts=sum(has_words(u.text) for u in found),
        rated={name: count for name in DIMENSIONS if (count := sum(name in u.labels for u in found))},
        hours=round(sum(_seconds(u, lengths) for u in found) / 3600, 4),
        speakers=len({u.speaker for u in found if u.known_speaker}),
        unknown_speakers=sum(not u.known_speaker for u in found),
        by_label=_tally(str(u.labels.get("raw_emotion", "(missing)")) for u in found),
        by_class=_tally((c for _, c in named), order),
        in_no_class=count_unmapped(found, mapping),
        by_session={s: _tally(cs, order) for s, cs in sorted(sessions.items())},
        by_speaker=_tally((_speaker(u) for u, _ in named), sorted({_speaker(u) for u in found})),
        by_style=_tally(str(u.labels["style"]) for u in found if "style" in u.labels),
        checked_for=checked_for,
        problems=sorted(problems, key=lambda problem: (problem.severity, problem.code)),
    )


def _release(name: str, root: Path) -> str:
    sheet = corpora.load_sheet(name)
    return sheet.release(root) if hasattr(sheet, "release") else ""


def _speaker(utterance: Utterance) -> str:
    return utterance.speaker if utterance.known_speaker else UNKNOWN_SPEAKER


def _tally(values: Iterable[str], order: list[str] | None = None) -> dict[str, int]:
    counts = Counter(values)
    return {name: counts[name] for name in (order or [name for name, _ in counts.most_common()])}


def _seconds(utterance: Utterance, lengths: dict[Path, float]) -> float:
    end = utterance.end_s if utterance.end_s is not None else lengths[utterance.path]
    return max(end - utterance.start_s, 0.0)


def _length(path: Path, problems: list[Problem]) -> float:
    """Seconds of a file by its header; 0 and a problem where it cannot be read."""
    try:
        return audio.inspect(path).duration_s
    except AudioError as error:
        problems.append(Problem(error.code, str(path), _without(path, error)))
        return 0.0


def _label_problems(found: list[Utterance]) -> list[Problem]:
    """Labels that are missing, rare, or look like slips of the pen."""
    emotions = Counter(str(u.labels["emotion"]) for u in found if "emotion" in u.labels)
    problems = []
    if missing := [u.id for u in found if "emotion" not in u.labels and "raw_emotion" not in u.labels]:
        message = summarise_names(missing, "utterance", "without an emotion, for other tasks only")
        problems.append(Problem("missing_label", missing[0], message, "note"))
    for name, count in emotions.items():
        near = difflib.get_close_matches(name, {*EMOTIONS, *SYNONYMS} - {name}, 1, 0.8)
        if name not in EMOTIONS and (near or count < 3):
            hint = f"; did you mean {near[0]!r}?" if near else ""
            first = next(u.id for u in found if u.labels.get("emotion") == name)
            problems.append(Problem("rare_label", first, f"{count} x emotion {name!r}{hint}", "note"))
    for u in found:
        if (gender := u.labels.get("gender", "female")) not in GENDERS:
            problems.append(Problem("unknown_gender", u.id, f"{gender!r}; expected female or male", "note"))
    return problems


def _rating_problems(found: list[Utterance], scales: dict[str, Scale]) -> list[Problem]:
    return [
        Problem(
            "rating_off_scale",
            u.id,
            f"{name} {value}; expected {scale.low} to {scale.high}",
            "note",
        )
        for u in found
        for name, scale in scales.items()
        if isinstance(value := u.labels.get(name), float) and not scale.low <= value <= scale.high
    ]


def _signal_problems(found: list[Utterance], lengths: dict[Path, float]) -> list[Problem]:
    """What shows only when an utterance is decoded, and stated durations that are not the file's."""
    problems = []
    for u in found:
        if not lengths[u.path]:
            continue
        try:
            recording = audio.read(u.path, start_s=u.start_s, end_s=u.end_s)
        except AudioError as error:
            problems.append(Problem(error.code, u.id, _without(u.path, error)))
            continue
        for code, message in recording.warnings.items():
            severity = "error" if code in ("truncated", "no_speech") else "note"
            problems.append(Problem(code, str(u.path), message, severity))
        stated = u.labels.get("duration_s")
        if isinstance(stated, float) and _differ(stated, recording.duration_s):
            message = f"{stated} s stated; found {recording.duration_s:.3f} s"
            problems.append(Problem("other_duration", u.id, message, "note"))
    return problems


def _without(path: Path, error: AudioError) -> str:
    return str(error).removeprefix(f"{path}: ")


def _differ(stated_s: float, found_s: float) -> bool:
    return abs(stated_s - found_s) > DURATION_TOLERANCE_S


def _twins(found: list[Utterance], readable: list[Path]) -> list[Problem]:
    """Files of the same bytes: harmless only where speaker and emotion are the same too.

    Files of a size of their own need not be read.
    """
    sizes = Counter(path.stat().st_size for path in readable)
    hashes = defaultdict(list)
    for path in readable:
        if sizes[path.stat().st_size] > 1:
            hashes[audio.file_hash(path)].append(path)
    said = {u.path: (u.speaker, u.labels.get("emotion")) for u in found}
    return [
        Problem(
            "same_audio",
            str(same[0]),
            f"the same bytes as {shorten_list([str(path) for path in same[1:]])}",
            "note" if len({said[path] for path in same}) == 1 else "error",
        )
        for same in hashes.values()
        if len(same) > 1
    ]

"""The corpus doctor: counts and problems of a corpus, never stopping at the first problem."""

import difflib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from sertone import audio, corpora
from sertone.corpora._durations import long_problems
from sertone.corpora._rows import row_problems
from sertone.errors import AudioError
from sertone.labels import (
    DIMENSIONS,
    EMOTIONS,
    GENDERS,
    SYNONYMS,
    Scale,
    class_map,
    class_names,
    has_words,
)
from sertone.schema import Problem, Utterance

DURATION_TOLERANCE_S = 0.025
UNKNOWN_SPEAKER = "(unknown)"
MANY_SPEAKERS = 100
"""From here on the text says how utterances spread over speakers, not how many each has."""


@dataclass(frozen=True)
class CorpusReport:
    """What `check` found.

    Attributes:
        corpus: name.
        root: where it was read.
        release: which release it looks like, and by what; empty where the data sheet does not tell.
        utterances: how many there are.
        voted: how many of them have annotators' votes.
        texts: how many have a transcript with a word in it.
        rated: rating -> utterances that have it.
        hours: of speech.
        speakers: how many are known.
        unknown_speakers: utterances of which the corpus does not say who speaks.
        by_label: raw label -> utterances.
        by_class: class -> utterances.
        by_session: session -> class -> utterances.
        by_speaker: speaker -> utterances in classes; UNKNOWN_SPEAKER for those of unknown ones.
        by_style: style -> utterances.
        problems: everything that was found.
    """

    corpus: str
    root: str
    release: str
    utterances: int
    voted: int
    texts: int
    rated: dict[str, int]
    hours: float
    speakers: int
    unknown_speakers: int
    by_label: dict[str, int]
    by_class: dict[str, int]
    by_session: dict[str, dict[str, int]]
    by_speaker: dict[str, int]
    by_style: dict[str, int]
    problems: list[Problem]

    @property
    def sound(self) -> bool:
        """Whether nothing was found that would change a result."""
        return all(problem.severity == "note" for problem in self.problems)

    def to_json(self) -> dict:
        """As a JSON object."""
        return asdict(self)

    def to_text(self) -> str:
        """For people."""
        title = f"{self.corpus} at {self.root}"
        parts = [f"{title}\n{self.utterances} utterances, {self.hours:.2f} h, {self.speakers} speakers"]
        parts += [f"release  {self.release}"] if self.release else []
        parts += [f"{self.unknown_speakers} utterances of unknown speakers"] if self.unknown_speakers else []
        parts += [f"{self.voted} utterances with annotators' votes"] if self.voted else []
        parts += [f"{self.texts} utterances with a transcript"] if self.texts else []
        for name, counts in (
            ("label", self.by_label),
            ("class", self.by_class),
            ("style", self.by_style),
            ("rating", self.rated),
        ):
            if counts:
                parts.append(f"by {name}\n" + _columns(counts))
        parts += ["by speaker (in classes)\n" + _speakers(self.by_speaker)] if self.by_speaker else []
        for session, counts in self.by_session.items():
            parts.append(f"{session}\n" + _columns(counts))
        parts += [f"{p.severity} [{p.code}] {p.path}: {p.message}" for p in self.problems]
        parts.append("nothing that would change a result" if self.sound else "mend the errors first")
        return "\n".join(parts)


def _columns(counts: dict[str, int]) -> str:
    return "  " + "  ".join(f"{name} {count}" for name, count in counts.items())


def _speakers(counts: dict[str, int]) -> str:
    if len(counts) < MANY_SPEAKERS:
        return _columns(counts)
    known = [count for name, count in counts.items() if name != UNKNOWN_SPEAKER]
    spread = f"{min(known)} to {max(known)} utterances each, median {median(known):g}"
    return f"  {len(known)} known speakers with {spread}"


def check(name: str, root: str | Path, classes: str | dict[str, str] = "all") -> CorpusReport:
    """Reads a whole corpus and lists every problem.

    Args:
        name: corpus.
        root: its folder, or the manifest's file.
        classes: the class map that results would be computed with.

    Raises:
        SertoneError: where there is no such corpus at that place.
    """
    problems: list[Problem] = []
    found = list(corpora.utterances(name, root, problems.append))
    problems += row_problems(found)
    problems += _label_problems(found, classes)
    problems += _rating_problems(found, corpora.sheet(name).SCALES)
    lengths = {path: _length(path, problems) for path in {u.path: None for u in found}}
    problems += _signal_problems(found, lengths)
    problems += long_problems({u.id: _seconds(u, lengths) for u in found})
    problems += _twins(found, [path for path, length in lengths.items() if length])
    return _count(name, root, classes, found, lengths, problems)


def _count(
    name: str,
    root: str | Path,
    classes: str | dict[str, str],
    found: list[Utterance],
    lengths: dict[Path, float],
    problems: list[Problem],
) -> CorpusReport:
    mapping = class_map(classes, {str(u.labels["emotion"]) for u in found if "emotion" in u.labels})
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
        by_session={s: _tally(cs, order) for s, cs in sorted(sessions.items())},
        by_speaker=_tally((_speaker(u) for u, _ in named), sorted({_speaker(u) for u in found})),
        by_style=_tally(str(u.labels["style"]) for u in found if "style" in u.labels),
        problems=sorted(problems, key=lambda problem: (problem.severity, problem.code)),
    )


def _release(name: str, root: Path) -> str:
    sheet = corpora.sheet(name)
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


def _label_problems(found: list[Utterance], classes: str | dict[str, str]) -> list[Problem]:
    """Labels that are missing, too few, or look like slips of the pen."""
    emotions = Counter(str(u.labels["emotion"]) for u in found if "emotion" in u.labels)
    mapping = class_map(classes, set(emotions))
    problems = []
    if len({mapping[name] for name in emotions if name in mapping}) < 2:
        message = f"emotions found: {', '.join(emotions) or 'none'}; expected at least two classes"
        problems.append(Problem("no_classes", "(labels)", message))
    if len(speakers := {u.speaker for u in found if u.known_speaker}) < 2:
        message = f"{len(speakers)} known speaker; no split is speaker-independent"
        problems.append(Problem("too_few_speakers", "(labels)", message))
    if missing := [u.id for u in found if "emotion" not in u.labels and "raw_emotion" not in u.labels]:
        message = f"{len(missing)} utterances without an emotion; they teach other tasks only"
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
            f"the same bytes as {', '.join(str(path) for path in same[1:])}",
            "note" if len({said[path] for path in same}) == 1 else "error",
        )
        for same in hashes.values()
        if len(same) > 1
    ]

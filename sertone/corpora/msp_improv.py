"""MSP-IMPROV: English, acted dialogues of two, written so that the same sentences come with four emotions.

Twelve actors in six sessions of a woman and a man each, 8438 turns: twenty target sentences in improvised
scenes and read aloud, the other turns of these scenes, and what was said between them. Labels and ratings of
activation, valence and dominance from 1 to 5, by at least five raters. Here activation is called arousal.

Source: https://lab-msp.com/MSP/MSP-Improv.html, Busso et al. (2017). Given on request, for research only.

Expected tree (session folders also in `Audio/`; Evaluation.txt may be misspelt Evalution.txt):
    session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01.wav     S sentence emotion - actor - scenario - turn
    Evaluation.txt                                     labels, ratings and votes
    All_human_transcriptions/MSP-IMPROV-S01A-F01-P-FM01.txt     may be missing

    UTD-IMPROV-S01A-F01-P-FM01.avi; N; A:2.800000; V:3.000000; D:3.200000 ; N:3.600000;
    rater-7; Neutral; Neutral,Other; A:3.000000; V:3.000000; D:3.000000; N:4.000000;
In Evaluation.txt names begin with UTD instead of MSP; a rating may be NaN, and naturalness (N) is not read.
Votes are the first category of each rater, of whom some are listed twice with the same words.

This sheet was written from descriptions and from what others read of the corpus, without a copy of it. Our
readings, to be checked on one: the actor in the name (F01) is the talker, and the two letters before the
turn's number say nothing that is needed; the scenarios are P natural interaction between takes, R target
sentence read, S other turns of an improvised scene, T target sentence improvised, which fits their published
counts (2785, 620, 4381, 652); activation 5 is excited, as in IEMOCAP.
"""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from random import Random

from sertone.corpora._files import (
    list_audio_files,
    parse_number,
    read_text,
    require_folder,
    summarise_names,
    write_tone,
)
from sertone.labels import Scale, make_emotion_labels, normalise_counts
from sertone.licences import Licence
from sertone.schema import Problem, ReportProblem, Utterance, raise_on_error

TITLE = "MSP-IMPROV"
LICENCE = Licence(
    "MSP-IMPROV release form: academic research only, not to be passed on",
    "other",
    False,
    "https://lab-msp.com/MSP/MSP-Improv.html",
)
LANGUAGE = "en"
CITATION = "Busso et al., MSP-IMPROV, IEEE Transactions on Affective Computing 2017"
NOTE = "Acted dialogues, improvised but for the read sentences; a third of the turns is natural interaction."
EMOTIONS = {
    "A": "angry",
    "H": "happy",
    "N": "neutral",
    "S": "sad",
    "O": "other",
    "X": "no_agreement",
}
RATINGS = {"A": "arousal", "V": "valence", "D": "dominance"}
SCALES = {name: Scale(1.0, 5.0) for name in RATINGS.values()}
PROTOCOL = {"split": "leave_one_session_out"}
SCENARIOS = {"P": "natural", "R": "target_read", "S": "other_improvised", "T": "target_improvised"}
CATEGORIES = ("angry", "happy", "neutral", "sad", "other")
EVALUATIONS = ("Evaluation.txt", "Evalution.txt")
PREFIXES = ("UTD-IMPROV-", "MSP-IMPROV-")
NAME = re.compile(r"MSP-IMPROV-S\d\d[A-Z]-([FM])(\d\d)-([PRST])-[FM]{2}\d+")
COUNTS = {
    "T": {"A": 115, "S": 106, "H": 136, "N": 283, "O": 1, "X": 11},
    "R": {"A": 169, "S": 80, "H": 88, "N": 241, "O": 3, "X": 39},
    "S": {"A": 470, "S": 633, "H": 1048, "N": 1789, "O": 70, "X": 371},
    "P": {"A": 38, "S": 66, "H": 1372, "N": 1164, "O": 11, "X": 134},
}
"""Scenario -> label -> turns, as published."""

Fields = list[str]


def utterances(root: Path, report: ReportProblem = raise_on_error) -> Iterator[Utterance]:
    """Reads the recordings of all sessions that `Evaluation.txt` has labels of."""
    paths = _recordings(root)
    evaluation = next((root / name for name in EVALUATIONS if (root / name).is_file()), root / EVALUATIONS[0])
    blocks = dict(_blocks(read_text(evaluation), report)) if evaluation.is_file() else {}
    names = {path.stem for path in paths}
    if bare := names - blocks.keys():
        report(
            Problem("missing_labels", str(evaluation), summarise_names(bare, "recording", "without labels"))
        )
    if silent := blocks.keys() - names:
        report(Problem("missing_audio", str(root), summarise_names(silent, "recording", "without a file")))
    texts = _transcripts(root)
    for path in paths:
        match = NAME.fullmatch(path.stem)
        if not match:
            report(Problem("bad_name", str(path), "expected a name such as MSP-IMPROV-S01A-F01-P-FM01"))
        if not match or path.stem not in blocks:
            continue
        letter, session, scenario = match.groups()
        head, raters = blocks[path.stem]
        labels = make_emotion_labels(head[1], EMOTIONS, path.stem, report) | {
            "gender": "female" if letter == "F" else "male",
            "style": "scripted" if scenario == "R" else "improvised",
            "scenario": SCENARIOS[scenario],
        }
        yield Utterance(
            id=path.stem,
            path=path,
            speaker=f"{letter}{session}",
            session=f"session{int(session)}",
            labels=labels | _ratings(head, path.stem, report),
            votes=_votes(raters, path.stem, report),
            text=(read_text(texts[path.stem]).strip() or None) if path.stem in texts else None,
        )


def _recordings(root: Path) -> list[Path]:
    for folder in (root / "Audio", root):
        if found := list_audio_files(folder, "session*/S*/*/*"):
            return found
    return list_audio_files(require_folder(root / "session1", "msp_improv"))


def _blocks(text: str, report: ReportProblem) -> Iterator[tuple[str, tuple[Fields, list[Fields]]]]:
    """Recording -> the fields of its line, and of the lines of its raters below."""
    lines = [[field.strip() for field in line.split(";")] for line in text.splitlines() if ";" in line]
    starts = [n for n, fields in enumerate(lines) if fields[0].startswith(PREFIXES)]
    seen = set()
    for start, end in pairwise([*starts, len(lines)]):
        name = "MSP" + Path(lines[start][0]).stem[3:]
        if name in seen:
            report(Problem("duplicate_row", name, "more than one line of labels; the last one counts"))
        seen.add(name)
        yield name, (lines[start], lines[start + 1 : end])


def _ratings(head: Fields, name: str, report: ReportProblem) -> dict[str, float]:
    ratings = {}
    for field in head[2:]:
        letter, _, cell = field.partition(":")
        if letter not in RATINGS or cell.strip().lower() == "nan":
            continue
        if (value := parse_number(cell)) is None:
            report(Problem("bad_number", name, f"{field!r}; expected a number"))
        else:
            ratings[RATINGS[letter]] = value
    return ratings


def _votes(raters: list[Fields], name: str, report: ReportProblem) -> dict[str, float]:
    """One vote per rater; a category that is not known is reported and does not count."""
    given = {fields[0]: fields[1].lower() for fields in raters}
    for rater, word in given.items():
        if word not in CATEGORIES:
            message = f"{word!r} by {rater}; expected one of {', '.join(CATEGORIES)}"
            report(Problem("unknown_vote", name, message, "note"))
    return normalise_counts(Counter(word for word in given.values() if word in CATEGORIES))


def _transcripts(root: Path) -> dict[str, Path]:
    folder = "All_human_transcriptions"
    places = (root / folder, root / "Human_transcriptions" / folder)
    return {path.stem: path for place in places for path in place.rglob("MSP-*.txt")}


def fake(root: Path, full: bool = False) -> None:
    """Writes 240 turns, or with `full` all 8438 with the published labels of each scenario."""
    draw = Random(0)
    kinds = [(scenario, label, n) for scenario, own in COUNTS.items() for label, n in own.items()]
    turns = [(scenario, label) for scenario, label, n in kinds for _ in range(n)]
    draw.shuffle(turns)
    lines = []
    for count, (scenario, label) in enumerate(turns if full else turns[:240]):
        session, letter = count // 2 % 6 + 1, "FM"[count % 2]
        scene = f"S{count % 20 + 1:02d}{'AHNS'[count // 20 % 4]}"
        pair = letter * 2 if scenario == "R" else "FM"
        name = f"IMPROV-{scene}-{letter}{session:02d}-{scenario}-{pair}{count:02d}"
        write_tone(root / f"session{session}/{scene}/{scenario}/MSP-{name}.wav", count, 0.1)
        lines += [_fake_head(name, label, count, draw), *_fake_raters(label, draw), ""]
        text = root / "All_human_transcriptions" / f"session{session}" / f"MSP-{name}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text(f"[LAUGHTER] That is turn {count}.\n")
    (root / "Evaluation.txt").write_text("\n".join(lines))
    (root / "session1" / "S01A" / "P").mkdir(parents=True, exist_ok=True)
    (root / "session1/S01A/P/._MSP-IMPROV-S01A-F01-P-FM01.wav").write_bytes(b"\0\5\x16\7AppleDouble")


def _fake_head(name: str, label: str, count: int, draw: Random) -> str:
    a, v, d, n = (f"{draw.randint(10, 50) / 10:.6f}" for _ in range(4))
    return f"UTD-{name}.avi; {label}; A:{'NaN' if count % 50 == 7 else a}; V:{v}; D:{d} ; N:{n};"


def _fake_raters(label: str, draw: Random) -> list[str]:
    """Five raters, of whom three give the label, or none of them where there is none; one is listed twice."""
    words = {emotion[0].upper(): emotion.title() for emotion in CATEGORIES}
    given = [words[label]] * 3 if label in words else ["Angry", "Happy", "Sad"]
    given += draw.sample(list(words.values()), 2) if label in words else ["Neutral", "Other"]
    lines = [
        f"rater-{rater}; {word}; {word},Other; A:3.000000; V:NaN; D:2.000000; N:4.000000;"
        for rater, word in zip(draw.sample(range(100), 5), given, strict=True)
    ]
    return [*lines, lines[0]]

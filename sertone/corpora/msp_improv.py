"""MSP-IMPROV: English, acted dialogues of two, written so that the same sentences come with four emotions.

Twelve actors in six sessions of a woman and a man each, 8438 turns: twenty target sentences in improvised
scenes and read aloud, the other turns of these scenes, and the conversation between them. Labels and ratings
of activation, valence and dominance from 1 to 5, by at least five raters. Activation is called arousal here.

Source: https://lab-msp.com/MSP/MSP-Improv.html, Busso et al. (2017). Available on request, for research only.

Expected tree (session folders also in `Audio/`; Evaluation.txt may be misspelt Evalution.txt):
    session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01.wav     S sentence emotion - actor - scenario - turn
    Evaluation.txt                                     labels, ratings and votes
    All_human_transcriptions/MSP-IMPROV-S01A-F01-P-FM01.txt     may be missing

    UTD-IMPROV-S01A-F01-P-FM01.avi; N; A:2.800000; V:3.000000; D:3.200000 ; N:3.600000;
    rater-7; Neutral; Neutral,Other; A:3.000000; V:3.000000; D:3.000000; N:4.000000;
In Evaluation.txt, names begin with UTD instead of MSP. A rating may be NaN, and naturalness (N) is not read.
The vote of a rater is the first category. Some raters are listed twice with the same words.

This sheet was written without a copy of the corpus, from descriptions and from the way others read it. These
assumptions are to be checked on a copy:
    - The actor in the name (F01) is the talker. The two letters before the turn's number carry no information
      that is needed.
    - The scenarios are P natural interaction between takes, R target sentence read, S other turns of an
      improvised scene, T target sentence improvised. This fits their published counts (2785, 620, 4381, 652).
    - Activation 5 is excited, as in IEMOCAP.
"""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from random import Random

from sertone.corpora._files import (
    list_audio_files,
    load_text,
    parse_number,
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
"""Scenario -> label -> number of turns, as published."""

Fields = list[str]


def load_utterances(root: Path, report: ReportProblem = raise_on_error) -> Iterator[Utterance]:
    """Read the recordings of all sessions that have labels in `Evaluation.txt`."""
    paths = _list_recordings(root)
    evaluation = next((root / name for name in EVALUATIONS if (root / name).is_file()), root / EVALUATIONS[0])
    blocks = dict(_parse_blocks(load_text(evaluation), report)) if evaluation.is_file() else {}
    # Both directions are checked: recordings without labels, and labels without a recording.
    names = {path.stem for path in paths}
    if unlabelled := names - blocks.keys():
        message = summarise_names(unlabelled, "recording", "without labels")
        report(Problem("missing_labels", str(evaluation), message))
    if missing := blocks.keys() - names:
        report(Problem("missing_audio", str(root), summarise_names(missing, "recording", "without a file")))
    texts = _list_transcripts(root)
    for path in paths:
        match = NAME.fullmatch(path.stem)
        if not match:
            report(Problem("bad_name", str(path), "expected a name such as MSP-IMPROV-S01A-F01-P-FM01"))
        if not match or path.stem not in blocks:
            continue
        head, raters = blocks[path.stem]
        text = load_text(texts[path.stem]).strip() if path.stem in texts else ""
        yield _build_utterance(path, match, head, raters, text, report)


def _build_utterance(
    path: Path, match: re.Match[str], head: Fields, raters: list[Fields], text: str, report: ReportProblem
) -> Utterance:
    letter, session, scenario = match.groups()
    labels = make_emotion_labels(head[1], EMOTIONS, path.stem, report) | {
        "gender": "female" if letter == "F" else "male",
        "style": "scripted" if scenario == "R" else "improvised",
        "scenario": SCENARIOS[scenario],
    }
    return Utterance(
        id=path.stem,
        path=path,
        speaker=f"{letter}{session}",
        session=f"session{int(session)}",
        labels=labels | _parse_ratings(head, path.stem, report),
        votes=_count_votes(raters, path.stem, report),
        text=text or None,
    )


def _list_recordings(root: Path) -> list[Path]:
    for folder in (root / "Audio", root):
        if recordings := list_audio_files(folder, "session*/S*/*/*"):
            return recordings
    return list_audio_files(require_folder(root / "session1", "msp_improv"))


def _parse_blocks(text: str, report: ReportProblem) -> Iterator[tuple[str, tuple[Fields, list[Fields]]]]:
    """Yield recording -> the fields of its line, and those of its raters' lines below it."""
    lines = [[field.strip() for field in line.split(";")] for line in text.splitlines() if ";" in line]
    starts = [n for n, fields in enumerate(lines) if fields[0].startswith(PREFIXES)]
    names = set()
    for start, end in pairwise([*starts, len(lines)]):
        name = "MSP" + Path(lines[start][0]).stem[3:]  # instead of UTD
        if name in names:
            report(Problem("duplicate_row", name, "more than one line of labels; the last one counts"))
        names.add(name)
        yield name, (lines[start], lines[start + 1 : end])


def _parse_ratings(head: Fields, name: str, report: ReportProblem) -> dict[str, float]:
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


def _count_votes(raters: list[Fields], name: str, report: ReportProblem) -> dict[str, float]:
    """Count one vote per rater; an unknown category is reported and does not count."""
    votes = {fields[0]: fields[1].lower() for fields in raters}  # a rater who is listed twice counts once
    for rater, word in votes.items():
        if word not in CATEGORIES:
            message = f"{word!r} by {rater}; expected one of {', '.join(CATEGORIES)}"
            report(Problem("unknown_vote", name, message, "note"))
    return normalise_counts(Counter(word for word in votes.values() if word in CATEGORIES))


def _list_transcripts(root: Path) -> dict[str, Path]:
    name = "All_human_transcriptions"
    folders = (root / name, root / "Human_transcriptions" / name)
    return {path.stem: path for folder in folders for path in folder.rglob("MSP-*.txt")}


def fake(root: Path, full: bool = False) -> None:
    """Write 240 turns, or with `full` all 8438 with the published labels of each scenario."""
    draw = Random(0)
    kinds = [(scenario, label, n) for scenario, counts in COUNTS.items() for label, n in counts.items()]
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
    # macOS leaves such files beside copies; the reader must skip them.
    (root / "session1" / "S01A" / "P").mkdir(parents=True, exist_ok=True)
    (root / "session1/S01A/P/._MSP-IMPROV-S01A-F01-P-FM01.wav").write_bytes(b"\0\5\x16\7AppleDouble")


def _fake_head(name: str, label: str, count: int, draw: Random) -> str:
    a, v, d, n = (f"{draw.randint(10, 50) / 10:.6f}" for _ in range(4))
    return f"UTD-{name}.avi; {label}; A:{'NaN' if count % 50 == 7 else a}; V:{v}; D:{d} ; N:{n};"


def _fake_raters(label: str, draw: Random) -> list[str]:
    """Return the lines of five raters, the first of them twice: three give the label, if there is one."""
    words = {emotion[0].upper(): emotion.title() for emotion in CATEGORIES}
    if label in words:
        votes = [words[label]] * 3 + draw.sample(list(words.values()), 2)
    else:
        votes = ["Angry", "Happy", "Sad", "Neutral", "Other"]
    lines = [
        f"rater-{rater}; {word}; {word},Other; A:3.000000; V:NaN; D:2.000000; N:4.000000;"
        for rater, word in zip(draw.sample(range(100), 5), votes, strict=True)
    ]
    return [*lines, lines[0]]

"""CREMA-D, the Crowd-sourced Emotional Multimodal Actors Dataset: English, acted, twelve sentences.

7442 recordings of 91 actors (48 men, 43 women), six emotions, 16 kHz mono.

Source: https://github.com/CheyneyComputerScience/CREMA-D, Cao et al. (2014).

Expected tree (WAV, or FLAC under the same names):
    AudioWAV/1001_IEO_ANG_HI.wav     actor_sentence_emotion_level
    VideoDemographics.csv            ActorID,Age,Sex,Race,Ethnicity
    processedResults/tabulatedVotes.csv      counts in the columns A, D, F, H, N, S; fileName
Votes come from the raters who rated the voice alone. The first column of the table has no name; it holds
100000 times the kind of query plus the clip's number. The kind is 1 for the voice alone, 2 for the face alone
and 3 for both.
1076_MTI_SAD_XX has no signal: it is reported and left out. A clone without git-LFS contains pointers of
130 bytes instead of audio.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from sertone.corpora._files import (
    list_audio_files,
    load_optional_table,
    parse_number,
    require_folder,
    write_tone,
)
from sertone.labels import Scale, make_emotion_labels, normalise_counts
from sertone.licences import KNOWN_LICENCES
from sertone.schema import Problem, ReportProblem, Utterance, raise_on_error

TITLE = "CREMA-D"
LICENCE = KNOWN_LICENCES["odbl"]
LANGUAGE = "en"
CITATION = "Cao et al., CREMA-D, IEEE Transactions on Affective Computing 2014"
NOTE = "Acted speech: spontaneous speech scores lower."
EMOTIONS = {
    "NEU": "neutral",
    "HAP": "happy",
    "SAD": "sad",
    "ANG": "angry",
    "FEA": "fearful",
    "DIS": "disgusted",
}
# The vote columns are in the order of EMOTIONS here.
VOTES = {letter: EMOTIONS[raw] for letter, raw in zip("NHSAFD", EMOTIONS, strict=True)}
VOICE_ONLY = 1
SCALES: dict[str, Scale] = {}
TEXTS = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
SILENT = "1076_MTI_SAD_XX"
NAME = re.compile(r"(1\d{3})_([A-Z]{3})_([A-Z]{3})_(LO|MD|HI|XX|X)")


def load_utterances(root: Path, report: ReportProblem = raise_on_error) -> Iterator[Utterance]:
    """Read `root/AudioWAV`, the actors' sex from `root/VideoDemographics.csv`, and the raters' votes."""
    genders = _load_genders(root / "VideoDemographics.csv", report)
    votes = _load_votes(root / "processedResults" / "tabulatedVotes.csv", report)
    for path in list_audio_files(require_folder(root / "AudioWAV", "crema_d")):
        match = NAME.fullmatch(path.stem)
        if not match:
            report(Problem("bad_name", str(path), "expected a name such as 1001_IEO_ANG_HI"))
            continue
        if path.stem == SILENT:
            report(Problem("no_signal", str(path), "known to have no signal: left out", "note"))
            continue
        actor, sentence, emotion, level = match.groups()
        labels = make_emotion_labels(emotion, EMOTIONS, str(path), report)
        labels |= {"style": "scripted", "intensity": level}
        if actor in genders:
            labels["gender"] = genders[actor]
        yield Utterance(
            id=path.stem,
            path=path,
            speaker=actor,
            labels=dict(labels),
            votes=votes.get(path.stem, {}),
            text=TEXTS.get(sentence),
        )


def _load_genders(path: Path, report: ReportProblem) -> dict[str, str]:
    if not path.is_file():
        report(Problem("missing_demographics", str(path), "no gender labels without it", "note"))
        return {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        return {row["ActorID"]: row["Sex"].strip().lower() for row in csv.DictReader(file)}


def _load_votes(path: Path, report: ReportProblem) -> dict[str, dict[str, float]]:
    """Return recording -> shares of the raters who rated the voice alone."""
    if not path.is_file():
        report(Problem("missing_votes", str(path), "no annotators' votes without it", "note"))
        return {}
    counts: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in load_optional_table(path, ("", *VOTES, "fileName"), report):
        key = parse_number(row[""])
        cells = [parse_number(row[letter]) for letter in VOTES]
        if key is None or any(cell is None or cell < 0 for cell in cells):
            report(Problem("bad_number", f"{path}, {row['fileName']}", "expected a key and six counts"))
        elif key // 100_000 == VOICE_ONLY:  # the last five digits are the clip's number
            for emotion, cell in zip(VOTES.values(), cells, strict=True):
                counts[row["fileName"]][emotion] += cell or 0
    return {name: normalise_counts(by_emotion) for name, by_emotion in counts.items()}


def fake(root: Path, full: bool = False) -> None:
    """Write six actors (91 with `full`), with the silent file."""
    actors = [str(n) for n in range(1001, 1092 if full else 1007)]
    sentences = list(TEXTS) if full else list(TEXTS)[:2]
    names = [f"{a}_{s}_{e}_XX" for a in actors for s in sentences for e in EMOTIONS]
    for seed, name in enumerate(name for name in names if name != SILENT):
        write_tone(root / "AudioWAV" / f"{name}.wav", seed)
    # The silent recording gets a header and no samples.
    write_tone(root / "AudioWAV" / f"{SILENT}.wav", 0, seconds=0.0)
    rows = [f"{a},30,{'Female' if int(a) % 2 else 'Male'},Unknown,Unknown" for a in actors]
    text = "\n".join(["ActorID,Age,Sex,Race,Ethnicity", *rows])
    (root / "VideoDemographics.csv").write_text(text + "\n")
    _fake_votes(root / "processedResults" / "tabulatedVotes.csv", names)


def _fake_votes(path: Path, names: list[str]) -> None:
    """Write votes of ten raters of the voice (correct or neutral) and ten of the face (always happy)."""
    lines = [",A,D,F,H,N,S,fileName,numResponses"]
    for query in (VOICE_ONLY, 2):
        for clip, name in enumerate(names, 1):
            correct = 10 - clip % 6 if query == VOICE_ONLY else 0
            emotion = EMOTIONS[name[9:12]]
            wrong = "neutral" if query == VOICE_ONLY else "happy"
            counts = [
                correct * (VOTES[letter] == emotion) + (10 - correct) * (VOTES[letter] == wrong)
                for letter in "ADFHNS"
            ]
            lines.append(f'"{100_000 * query + clip}",{",".join(map(str, counts))},"{name}",10')
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(lines) + "\n")

"""CREMA-D, the Crowd-sourced Emotional Multimodal Actors Dataset: English, acted, twelve sentences.

7442 recordings of 91 actors (48 men, 43 women), six emotions, 16 kHz mono.

Source: https://github.com/CheyneyComputerScience/CREMA-D, Cao et al. (2014).

Expected tree (WAV, or FLAC under the same names):
    AudioWAV/1001_IEO_ANG_HI.wav     actor_sentence_emotion_level
    VideoDemographics.csv            ActorID,Age,Sex,Race,Ethnicity
1076_MTI_SAD_XX has no signal: it is reported and left out. A clone without git-LFS holds pointers of
130 bytes instead of audio.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from sertone.corpora._files import audio_files, require, write_tone
from sertone.labels import Scale, emotion_labels
from sertone.licences import KNOWN
from sertone.schema import Problem, Report, Utterance, stop

TITLE = "CREMA-D"
LICENCE = KNOWN["odbl"]
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


def utterances(root: Path, report: Report = stop) -> Iterator[Utterance]:
    """Reads `root/AudioWAV` and the actors' sex from `root/VideoDemographics.csv`."""
    genders = _genders(root / "VideoDemographics.csv", report)
    for path in audio_files(require(root / "AudioWAV", "crema_d")):
        match = NAME.fullmatch(path.stem)
        if not match:
            report(Problem("bad_name", str(path), "expected a name such as 1001_IEO_ANG_HI"))
            continue
        if path.stem == SILENT:
            report(Problem("no_signal", str(path), "known to hold no signal: left out", "note"))
            continue
        actor, sentence, emotion, level = match.groups()
        labels = emotion_labels(emotion, EMOTIONS, str(path), report)
        labels |= {"style": "scripted", "intensity": level}
        if actor in genders:
            labels["gender"] = genders[actor]
        yield Utterance(
            id=path.stem,
            path=path,
            speaker=actor,
            labels=dict(labels),
            text=TEXTS.get(sentence),
        )


def _genders(path: Path, report: Report) -> dict[str, str]:
    if not path.is_file():
        report(Problem("missing_demographics", str(path), "no gender labels without it", "note"))
        return {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        return {row["ActorID"]: row["Sex"].strip().lower() for row in csv.DictReader(file)}


def fake(root: Path, full: bool = False) -> None:
    """Writes four actors (91 with `full`), with the silent file."""
    actors = [str(n) for n in range(1001, 1092 if full else 1005)]
    sentences = list(TEXTS) if full else list(TEXTS)[:2]
    names = [f"{a}_{s}_{e}_XX" for a in actors for s in sentences for e in EMOTIONS]
    for seed, name in enumerate(name for name in names if name != SILENT):
        write_tone(root / "AudioWAV" / f"{name}.wav", seed)
    write_tone(root / "AudioWAV" / f"{SILENT}.wav", 0, seconds=0.0)
    rows = [f"{a},30,{'Female' if int(a) % 2 else 'Male'},Unknown,Unknown" for a in actors]
    text = "\n".join(["ActorID,Age,Sex,Race,Ethnicity", *rows])
    (root / "VideoDemographics.csv").write_text(text + "\n")

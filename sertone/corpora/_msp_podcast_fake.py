"""A miniature of MSP-Podcast's tree with tones and invented words, and with the traps of the real corpus."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import soundfile

from sertone.corpora._files import write_tone

COLUMNS = ["FileName", "EmoClass", "EmoAct", "EmoVal", "EmoDom", "SpkrID", "Gender", "Split_Set"]
CLASSES = "NHASUFDCOX"
# Arousal and valence of the four usual classes.
CENTRES = {"N": (4, 4), "H": (5, 6), "A": (6, 2), "S": (3, 2)}
WORDS = ("so", "well", "we", "were", "going", "to", "say", "that", "it", "is", "about", "people", "here")
TAGS = ("[LAUGHTER] ", "<um> ", "", "", "")


@dataclass(frozen=True)
class _Layout:
    """Names of folders, files and partitions that differ between releases."""

    audio: str
    labels: str
    validation: str
    test3: bool


LAYOUTS = {
    "1.8": _Layout("Audio", "labels_concensus", "Validation", False),
    "1.11": _Layout("Audios", "labels_consensus", "Development", True),
}


def write_miniature(root: Path, segments: int, release: str) -> None:
    """Write the tree below `root`."""
    layout, draw = LAYOUTS[release], Random(0)
    rows = [_build_row(number, layout, draw) for number in range(segments)]
    for number, row in enumerate(rows):
        write_tone(root / layout.audio / row["FileName"], number, draw.uniform(0.1, 0.2))
        text = draw.choice(TAGS) + " ".join(draw.choices(WORDS, k=draw.randint(3, 12)))
        if number % 10 != 9:  # some recordings have no transcript
            _write_text(root / "Transcripts" / f"{row['FileName'][:-4]}.txt", f"{text}.\n")
    _write_labels(root / "Labels" / layout.labels, rows)
    test3 = [f"MSP-PODCAST_test3_{number:04d}.wav" for number in range(1, 7 if layout.test3 else 1)]
    for number, name in enumerate(test3):
        write_tone(root / layout.audio / name, segments + number, 0.1)
    partitions = [(row["Split_Set"], row["FileName"]) for row in rows]
    partitions += [("Test3", name) for name in test3]
    _write_text(root / "Partitions.txt", "".join(f"{word}; {name}\n" for word, name in partitions))
    _make_stereo(root / layout.audio / rows[0]["FileName"])
    _write_text(root / layout.audio / f"._{rows[0]['FileName']}", "\0\5\x16\7AppleDouble")


def _build_row(number: int, layout: _Layout, draw: Random) -> dict[str, str]:
    """Return a row; the speakers are twenty or more, each in one partition, and one in fifteen is unknown."""
    speaker = number % 20 + 20 * (number // 1000)  # twenty new speakers after every thousand rows
    emotion = CLASSES[(number // 20) % len(CLASSES)]
    ratings = (*CENTRES.get(emotion, (4, 3)), 4)
    values = [f"{centre + draw.choice((-0.8, -0.2, 0, 0.333333, 1)):.6f}" for centre in ratings]
    name = f"MSP-PODCAST_{speaker + 1:04d}_{number:04d}" + ("_0001" if number % 4 == 3 else "")
    gender = "Female" if speaker % 2 else "Male"
    is_known = number % 15 != 14
    person = [str(speaker + 100), gender] if is_known else ["Unknown", "Unknown"]
    cells = [f"{name}.wav", emotion, *values, *person, _choose_partition(speaker, layout)]
    return dict(zip(COLUMNS, cells, strict=True))


def _choose_partition(speaker: int, layout: _Layout) -> str:
    small = {12: layout.validation, 13: layout.validation, 14: layout.validation, 18: "Test2", 19: "Test2"}
    return small.get(speaker % 20, "Train" if speaker % 20 < 12 else "Test1")


def _write_labels(path: Path, rows: list[dict[str, str]]) -> None:
    """Write the same labels as CSV and as JSON, which has the ratings as strings."""
    path.parent.mkdir(parents=True)
    with open(path.with_suffix(".csv"), "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    by_name = {row["FileName"]: {name: row[name] for name in COLUMNS[1:]} for row in rows}
    _write_text(path.with_suffix(".json"), json.dumps(by_name, indent=1))


def _make_stereo(path: Path) -> None:
    # Some recordings of v1.8 are stereo with another rate.
    samples = np.random.default_rng(0).normal(0, 0.1, (11025, 1))
    soundfile.write(path, np.hstack([samples, 0.8 * samples]), 44100, subtype="PCM_16")


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")

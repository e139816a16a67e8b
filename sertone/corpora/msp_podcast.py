"""MSP-Podcast: English, spontaneous speech of podcasts; hundreds of hours, more with every release.

Speaking turns of 2.75 to 11 s, 16 kHz mono with known exceptions (stereo of 44.1 kHz in v1.8). The emotion
is the plurality vote of at least five raters. Arousal, valence and dominance are the means of their ratings
from 1 to 7.

Source: https://lab-msp.com/MSP/MSP-Podcast.html, Lotfian and Busso (2019). Available on request for research.

Expected tree, of any release (WAV, or FLAC under the same names):
    Audios/MSP-PODCAST_0001_0008.wav     or Audio/; a third group of four digits may follow
    Labels/labels_consensus.csv          or .json, or misspelt labels_concensus, or without the folder
    Partitions.txt                       or Partition.txt: `Train; MSP-PODCAST_0001_0008.wav`
    Transcripts/MSP-PODCAST_0001_0008.txt      may be missing
The CSV has the columns FileName, EmoClass, EmoAct, EmoVal, EmoDom, SpkrID, Gender, Split_Set, in any order.
The JSON is an object with the same names; its keys are the names of the recordings. The partition of a
recording comes from Split_Set, or from the file of partitions if Split_Set is empty.

The official split is Train, Validation (called Development from v1.11 on) and Test1, on which papers report.
Test2 (drawn without retrieval by emotion) and Test3 (from v1.11 on, without labels) are in none of its sets.
The corpus's own word is kept in the label `partition`.

The reader handles these traps:
    - Some speakers are Unknown. Each of their utterances counts as a speaker of its own (`known_speaker`), so
      it cannot be checked whether such a person is in two sets.
    - No label file lists the recordings of Test3.
    - The JSON contains numbers as strings.
    - Transcripts contain tags such as [LAUGHTER].
    - Copies made on macOS contain `._*` files.
The votes of single raters (`labels_detailed`) are not read.
"""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from sertone.corpora._files import (
    AUDIO_SUFFIXES,
    load_text,
    load_texts,
    parse_number,
    require_folder,
    summarise_names,
)
from sertone.corpora._msp_podcast_fake import write_miniature
from sertone.errors import SertoneError
from sertone.labels import Scale, make_emotion_labels
from sertone.licences import Licence
from sertone.schema import Problem, ReportProblem, Utterance, raise_on_error

TITLE = "MSP-Podcast"
LICENCE = Licence(
    "MSP-Podcast academic licence: research only, not to be passed on",
    "other",
    False,
    "https://lab-msp.com/MSP/MSP-Podcast.html",
)
LANGUAGE = "en"
CITATION = "Lotfian, Busso, MSP-Podcast, IEEE Transactions on Affective Computing 2019"
NOTE = "Spontaneous speech, found with the help of emotion recognisers; name the release beside a score."
EMOTIONS = {
    "A": "angry",
    "S": "sad",
    "H": "happy",
    "U": "surprised",
    "F": "fearful",
    "D": "disgusted",
    "C": "contempt",
    "N": "neutral",
    "O": "other",
    "X": "no_agreement",
}
RATINGS = {"EmoAct": "arousal", "EmoVal": "valence", "EmoDom": "dominance"}
SCALES = {name: Scale(1.0, 7.0) for name in RATINGS.values()}
PROTOCOL = {"split": "official"}
COLUMNS = ("FileName", "EmoClass", *RATINGS, "SpkrID", "Gender")
SPLITS = {
    "Train": "train",
    "Validation": "validation",
    "Development": "validation",
    "Test1": "test",
    "Test2": None,
    "Test3": None,
}
EMPTY = ("", "unknown", "nan", "none")
AUDIO_FOLDERS = ("Audios", "Audio")
LABEL_FILES = tuple(
    f"{folder}labels_{word}{suffix}"
    for folder in ("Labels/", "")
    for word in ("consensus", "concensus")
    for suffix in (".csv", ".json")
)
PARTITION_FILES = ("Partitions.txt", "Partition.txt")
TEST3 = "MSP-PODCAST_test3_"
"""Prefix of the names in Test3, for copies without a file of partitions."""
OLD_NAMES = {"labels_concensus", "Validation"}
"""Names that occur only in v1.10 and earlier."""
NEW_NAMES = {"Development", "Test3"}
"""Names that occur only in v1.11 and later."""

Rows = dict[str, dict[str, str]]
"""Utterance -> column -> cell."""


def load_utterances(root: Path, report: ReportProblem = raise_on_error) -> Iterator[Utterance]:
    """Read the recordings that have labels, and those of Test3, in the order of their names."""
    folder = _find_first(root, AUDIO_FOLDERS)
    labels = _find_first(root, LABEL_FILES)
    rows = _load_rows(labels, report)
    recordings = _list_files(folder, AUDIO_SUFFIXES)
    partitions = _find_partitions(root, rows, recordings, report)
    _compare(rows, partitions, recordings, folder, labels, report)
    transcripts = dict(load_texts(root / "Transcripts", _list_files(root / "Transcripts", (".txt",))))
    for name, file in recordings.items():
        row = rows.get(name, {})
        partition = partitions.get(name, "")
        if not row and partition != "Test3":
            continue  # _compare has reported it
        if partition and partition not in SPLITS:
            report(Problem("bad_split", name, f"{partition!r}; expected one of {', '.join(SPLITS)}"))
        speaker = _get_cell(row, "SpkrID")
        yield Utterance(
            id=name,
            path=folder / file,
            speaker=speaker or name,
            known_speaker=bool(speaker),
            labels=_parse_labels(row, name, report) | ({"partition": partition} if partition else {}),
            text=transcripts.get(name, "").strip() or None,
            split=SPLITS.get(partition),
        )


def guess_release(root: Path) -> str:
    """Return the release that a copy looks like, and the names that only older or newer releases have."""
    folder = _find_first(root, AUDIO_FOLDERS)
    labels = _find_first(root, LABEL_FILES)
    rows = _load_rows(labels, lambda problem: None)
    recordings = _list_files(folder, AUDIO_SUFFIXES)
    partitions = set(_find_partitions(root, rows, recordings, lambda problem: None).values())
    is_old = bool(OLD_NAMES & {labels.stem, *partitions})
    is_new = bool(NEW_NAMES & partitions)
    guess = {
        (True, False): "looks like v1.10 or earlier",
        (False, True): "looks like v1.11 or later",
        (True, True): "has names of older and of newer releases",
        (False, False): "cannot be told",
    }[is_old, is_new]
    return f"{guess}: {', '.join([*sorted(partitions), labels.name, folder.name])}"


def _find_first(root: Path, names: tuple[str, ...]) -> Path:
    """Return the first of several files or folders that exists.

    Raises:
        SertoneError: `not_this_corpus`.
    """
    for name in names:
        if (root / name).exists():
            return root / name
    return require_folder(root / names[0], "msp_podcast")


def _list_files(folder: Path, suffixes: tuple[str, ...]) -> dict[str, str]:
    """Return stem -> name of a folder's visible files, sorted."""
    # One listing of the folder, because asking for each of hundreds of thousands of files takes long.
    names = sorted(entry.name for entry in os.scandir(folder)) if folder.is_dir() else []
    files = (name for name in names if name.lower().endswith(suffixes) and not name.startswith("."))
    return {name.rpartition(".")[0]: name for name in files}


def _load_rows(path: Path, report: ReportProblem) -> Rows:
    """Return the rows of the label file; if a recording has several rows, the first one counts.

    Raises:
        SertoneError: `bad_table`.
    """
    parse = _parse_json if path.suffix == ".json" else _parse_csv
    try:
        rows = parse(load_text(path))
    except (ValueError, TypeError, csv.Error) as error:
        raise SertoneError("bad_table", f"{path}: {error}", "labels of MSP-Podcast, by recording") from None
    columns = set().union(*rows)
    if missing := [name for name in COLUMNS if name not in columns]:
        report(Problem("missing_column", str(path), f"no column {' and no column '.join(missing)}"))
    by_name: Rows = {}
    for row in rows:
        name = row.get("FileName", "").removesuffix(".wav")
        if name in by_name:
            report(Problem("duplicate_row", name, f"more than one row in {path.name}; the first one counts"))
        by_name.setdefault(name, row)
    by_name.pop("", None)  # rows without a recording
    return by_name


def _parse_csv(text: str) -> list[dict[str, str]]:
    lines = csv.reader(io.StringIO(text, newline=""))
    columns = [name.strip() for name in next(lines, [])]
    # Not strict: cells beyond the columns are ignored.
    return [dict(zip(columns, map(str.strip, row), strict=False)) for row in lines if row]


def _parse_json(text: str) -> list[dict[str, str]]:
    # As pairs, because objects would keep only the last of two rows of one recording.
    rows = json.loads(text, object_pairs_hook=list)
    return [
        {"FileName": name} | {key: "" if cell is None else str(cell).strip() for key, cell in cells}
        for name, cells in rows
    ]


def _find_partitions(
    root: Path, rows: Rows, recordings: Iterable[str], report: ReportProblem
) -> dict[str, str]:
    """Return utterance -> the corpus's word for its partition."""
    path = next((root / name for name in PARTITION_FILES if (root / name).is_file()), None)
    lines = load_text(path).splitlines() if path else []
    pairs = [line.split(";", 1) for line in lines if ";" in line]
    in_file = {name.strip().removesuffix(".wav"): partition.strip() for partition, name in pairs}
    in_table = {name: partition for name, row in rows.items() if (partition := row.get("Split_Set"))}
    if different := [name for name, word in in_table.items() if in_file.get(name, word) != word]:
        message = summarise_names(different, "recording", "in another partition than Split_Set says")
        report(Problem("other_partition", str(path), message))
    by_name = dict.fromkeys((name for name in recordings if name.startswith(TEST3)), "Test3")
    return by_name | in_file | in_table


def _compare(
    rows: Rows,
    partitions: dict[str, str],
    recordings: dict[str, str],
    folder: Path,
    labels: Path,
    report: ReportProblem,
) -> None:
    """Report labels without a recording and recordings without labels, except for Test3."""
    expected = {name for name in rows.keys() | partitions.keys() if partitions.get(name) != "Test3"}
    if missing := expected - recordings.keys():
        report(Problem("missing_audio", str(folder), summarise_names(missing, "recording", "without a file")))
    listed = rows.keys() | {name for name, partition in partitions.items() if partition == "Test3"}
    if unlabelled := recordings.keys() - listed:
        message = summarise_names(unlabelled, "recording", "without a row of labels")
        report(Problem("missing_labels", str(labels), message))


def _parse_labels(row: dict[str, str], name: str, report: ReportProblem) -> dict[str, str | float]:
    labels: dict[str, str | float] = {}
    if raw := _get_cell(row, "EmoClass"):
        labels |= make_emotion_labels(raw, EMOTIONS, name, report)
    if gender := _get_cell(row, "Gender"):
        labels["gender"] = gender.lower()
    for column, rating in RATINGS.items():
        if not (cell := _get_cell(row, column)):
            continue
        if (value := parse_number(cell)) is None:
            report(Problem("bad_number", name, f"{column} is {cell!r}; expected a number"))
        else:
            labels[rating] = value
    return labels


def _get_cell(row: dict[str, str], column: str) -> str:
    """Return a cell; empty if it contains a word for a missing value, such as Unknown."""
    cell = row.get(column, "")
    return "" if cell.lower() in EMPTY else cell


def fake(
    root: Path, full: bool = False, *, segments: int | None = None, release: Literal["1.8", "1.11"] = "1.11"
) -> None:
    """Write a miniature of one release: 200 segments, or 5000 with `full`.

    A release of the real size would be 270 000 sound files; `segments` writes any number of them.

    Args:
        root: the folder.
        full: 5000 segments.
        segments: number of segments, without those of Test3.
        release: the release from which the names of folders, files and partitions are taken.
    """
    write_miniature(root, segments or (5000 if full else 200), release)

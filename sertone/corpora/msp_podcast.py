"""MSP-Podcast: English, spontaneous speech of podcasts; hundreds of hours, more with every release.

Speaking turns of 2.75 to 11 s, 16 kHz mono with known exceptions (stereo of 44.1 kHz in v1.8). An emotion by
plurality of at least five raters, and their mean ratings of arousal, valence and dominance from 1 to 7.

Source: https://lab-msp.com/MSP/MSP-Podcast.html, Lotfian and Busso (2019). Given on request, for research.

Expected tree, of any release (WAV, or FLAC under the same names):
    Audios/MSP-PODCAST_0001_0008.wav     or Audio/; a third group of four digits may follow
    Labels/labels_consensus.csv          or .json, or misspelt labels_concensus, or without the folder
    Partitions.txt                       or Partition.txt: `Train; MSP-PODCAST_0001_0008.wav`
    Transcripts/MSP-PODCAST_0001_0008.txt      may be missing
The CSV has the columns FileName, EmoClass, EmoAct, EmoVal, EmoDom, SpkrID, Gender, Split_Set, in any order;
the JSON is an object with the same names, keyed by the name of the recording. The partition of a recording is
what Split_Set says, or the file of partitions where Split_Set says nothing.

The official split is Train, Validation (from v1.11 on called Development) and Test1, which papers report on.
Test2 (drawn without retrieval by emotion) and Test3 (from v1.11 on, without labels) are on no side of it. The
corpus's own word is kept in the label `partition`.

Traps survived here: speakers that are Unknown: each of their utterances is a speaker of its own
(`known_speaker`), so nothing tells whether such a person is on two sides; recordings of Test3 that no label
file lists; JSON whose numbers are strings; transcripts with tags such as [LAUGHTER]; copies made on macOS,
which bring `._*` files. The votes of single raters (`labels_detailed`) are not read.
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
    parse_number,
    read_text,
    read_texts,
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
"""How names of Test3 begin where no file of partitions tells them."""
OLD, NEW = {"labels_concensus", "Validation"}, {"Development", "Test3"}

Rows = dict[str, dict[str, str]]
"""Utterance -> column -> cell."""


def utterances(root: Path, report: ReportProblem = raise_on_error) -> Iterator[Utterance]:
    """Reads the recordings that have labels, and those of Test3, in the order of their names."""
    folder, labels = _first(root, AUDIO_FOLDERS), _first(root, LABEL_FILES)
    rows, recordings = _rows(labels, report), _listed(folder, AUDIO_SUFFIXES)
    sides = _sides(root, rows, recordings, report)
    _compare(rows, sides, recordings, folder, labels, report)
    transcripts = dict(read_texts(root / "Transcripts", _listed(root / "Transcripts", (".txt",))))
    for name, file in recordings.items():
        row, side = rows.get(name, {}), sides.get(name, "")
        if not row and side != "Test3":
            continue  # said by _compare
        if side and side not in SPLITS:
            report(Problem("bad_split", name, f"{side!r}; expected one of {', '.join(SPLITS)}"))
        speaker = _given(row, "SpkrID")
        yield Utterance(
            id=name,
            path=folder / file,
            speaker=speaker or name,
            known_speaker=bool(speaker),
            labels=_labels(row, name, report) | ({"partition": side} if side else {}),
            text=transcripts.get(name, "").strip() or None,
            split=SPLITS.get(side),
        )


def release(root: Path) -> str:
    """Which release a copy looks like, and by what: names that only older or only newer ones have."""
    folder, labels = _first(root, AUDIO_FOLDERS), _first(root, LABEL_FILES)
    rows = _rows(labels, lambda problem: None)
    words = set(_sides(root, rows, _listed(folder, AUDIO_SUFFIXES), lambda problem: None).values())
    guess = {
        (True, False): "looks like v1.10 or earlier",
        (False, True): "looks like v1.11 or later",
        (True, True): "has names of older and of newer releases",
    }.get((bool(OLD & {labels.stem, *words}), bool(NEW & words)), "cannot be told")
    return f"{guess}: {', '.join([*sorted(words), labels.name, folder.name])}"


def _first(root: Path, names: tuple[str, ...]) -> Path:
    """The first of several files or folders that is there.

    Raises:
        SertoneError: `not_this_corpus`.
    """
    for name in names:
        if (root / name).exists():
            return root / name
    return require_folder(root / names[0], "msp_podcast")


def _listed(folder: Path, suffixes: tuple[str, ...]) -> dict[str, str]:
    """Stem -> name of a folder's visible files, sorted; one listing, as asking for each file takes long."""
    names = sorted(entry.name for entry in os.scandir(folder)) if folder.is_dir() else []
    wanted = (name for name in names if name.lower().endswith(suffixes) and not name.startswith("."))
    return {name.rpartition(".")[0]: name for name in wanted}


def _rows(path: Path, report: ReportProblem) -> Rows:
    """The rows of the label file; of several about one recording the first one counts.

    Raises:
        SertoneError: `bad_table`.
    """
    read = _json_rows if path.suffix == ".json" else _csv_rows
    try:
        rows = read(read_text(path))
    except (ValueError, TypeError, csv.Error) as error:
        raise SertoneError("bad_table", f"{path}: {error}", "labels of MSP-Podcast, by recording") from None
    columns = set().union(*rows)
    if missing := [name for name in COLUMNS if name not in columns]:
        report(Problem("missing_column", str(path), f"no column {' and no column '.join(missing)}"))
    found: Rows = {}
    for row in rows:
        name = row.get("FileName", "").removesuffix(".wav")
        if name in found:
            report(Problem("duplicate_row", name, f"more than one row in {path.name}; the first one counts"))
        found.setdefault(name, row)
    found.pop("", None)
    return found


def _csv_rows(text: str) -> list[dict[str, str]]:
    """Cells beyond the columns are passed over."""
    lines = csv.reader(io.StringIO(text, newline=""))
    columns = [name.strip() for name in next(lines, [])]
    return [dict(zip(columns, map(str.strip, row), strict=False)) for row in lines if row]


def _json_rows(text: str) -> list[dict[str, str]]:
    """As pairs rather than objects, which would keep the last of two rows about one recording."""
    rows = json.loads(text, object_pairs_hook=list)
    return [
        {"FileName": name} | {key: "" if cell is None else str(cell).strip() for key, cell in cells}
        for name, cells in rows
    ]


def _sides(root: Path, rows: Rows, recordings: Iterable[str], report: ReportProblem) -> dict[str, str]:
    """Utterance -> the corpus's word for its partition."""
    path = next((root / name for name in PARTITION_FILES if (root / name).is_file()), None)
    lines = read_text(path).splitlines() if path else []
    pairs = [line.split(";", 1) for line in lines if ";" in line]
    listed = {name.strip().removesuffix(".wav"): side.strip() for side, name in pairs}
    own = {name: side for name, row in rows.items() if (side := row.get("Split_Set"))}
    if other := [name for name, side in own.items() if listed.get(name, side) != side]:
        message = summarise_names(other, "recording", "in another partition than Split_Set says")
        report(Problem("other_partition", str(path), message))
    return dict.fromkeys((name for name in recordings if name.startswith(TEST3)), "Test3") | listed | own


def _compare(
    rows: Rows,
    sides: dict[str, str],
    recordings: dict[str, str],
    folder: Path,
    labels: Path,
    report: ReportProblem,
) -> None:
    """Reports labels without a recording and recordings without labels; neither is asked of Test3."""
    expected = {name for name in rows.keys() | sides.keys() if sides.get(name) != "Test3"}
    if silent := expected - recordings.keys():
        report(Problem("missing_audio", str(folder), summarise_names(silent, "recording", "without a file")))
    known = rows.keys() | {name for name, side in sides.items() if side == "Test3"}
    if bare := recordings.keys() - known:
        report(
            Problem(
                "missing_labels", str(labels), summarise_names(bare, "recording", "without a row of labels")
            )
        )


def _labels(row: dict[str, str], name: str, report: ReportProblem) -> dict[str, str | float]:
    labels: dict[str, str | float] = {}
    if raw := _given(row, "EmoClass"):
        labels |= make_emotion_labels(raw, EMOTIONS, name, report)
    if gender := _given(row, "Gender"):
        labels["gender"] = gender.lower()
    for column, rating in RATINGS.items():
        if not (cell := _given(row, column)):
            continue
        if (value := parse_number(cell)) is None:
            report(Problem("bad_number", name, f"{column} is {cell!r}; expected a number"))
        else:
            labels[rating] = value
    return labels


def _given(row: dict[str, str], column: str) -> str:
    """A cell, empty where it says in a word that nothing is known."""
    cell = row.get(column, "")
    return "" if cell.lower() in EMPTY else cell


def fake(
    root: Path, full: bool = False, *, segments: int | None = None, release: Literal["1.8", "1.11"] = "1.11"
) -> None:
    """Writes a miniature of one release: 200 segments, or 5000 with `full`.

    A release of the real size would be 270 000 sound files; `segments` writes as many as wanted.

    Args:
        root: the folder.
        full: 5000 segments.
        segments: how many, without those of Test3.
        release: whose names of folders, files and partitions.
    """
    write_miniature(root, segments or (5000 if full else 200), release)

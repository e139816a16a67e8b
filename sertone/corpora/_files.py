"""What several readers and writers of miniatures share."""

import codecs
import csv
import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile

from sertone.errors import SertoneError
from sertone.schema import Problem, ReportProblem
from sertone.scoring.display import format_count, shorten_list

AUDIO_SUFFIXES = (".wav", ".flac")
PIECE = 4096
"""Bytes that are read of a file at once; most transcripts are shorter."""


def list_visible(files: Iterator[Path]) -> list[Path]:
    """Sorted, without hidden files (macOS leaves `._*` beside every file it copies)."""
    return sorted(path for path in files if not path.name.startswith("."))


def list_audio_files(folder: Path, pattern: str = "*") -> list[Path]:
    """The visible sound files of a folder (WAV, or FLAC re-coded from it), sorted."""
    files = (p for p in folder.glob(pattern) if p.suffix.lower() in AUDIO_SUFFIXES)
    return list_visible(files)


def require_folder(folder: Path, corpus: str) -> Path:
    """The folder, if it is there.

    Raises:
        SertoneError: `not_this_corpus`.
    """
    if not folder.is_dir():
        raise SertoneError(
            "not_this_corpus",
            f"no folder {folder}",
            f"the tree of {corpus} (`sertone corpora fake {corpus} DIR` writes a small one)",
        )
    return folder


def read_optional_table(path: Path, columns: Sequence[str], report: ReportProblem) -> list[dict[str, str]]:
    """The rows of a table that a corpus can do without; it is reported where it is not what it should be.

    Args:
        path: CSV file.
        columns: those that are wanted.
        report: told of a table that cannot be read or lacks one of them.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [{name: row[name] or "" for name in columns} for row in csv.DictReader(file)]
    except KeyError as error:
        report(Problem("missing_column", str(path), f"no column {error}; the table is passed over", "note"))
        return []
    except (UnicodeDecodeError, csv.Error) as error:
        report(Problem("bad_table", str(path), f"{error}; the table is passed over", "note"))
        return []
    return rows


def read_text(path: Path, fallback: str = "latin-1") -> str:
    """Return a text file as a string, without a byte order mark.

    Each line is decoded by itself: files of a corpus were edited on several machines, and one line in an
    older encoding must not garble the others.

    Args:
        path: of the file.
        fallback: encoding of the lines that are not UTF-8.
    """
    return _decoded(path.read_bytes(), fallback)


def read_texts(folder: Path, names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The contents of many small files, as `decoded` gives them.

    Three system calls per file; opening each by its path takes more than twice as long.

    Args:
        folder: of the files.
        names: key -> name of its file.
    """
    if not names:
        return
    where = os.open(folder, os.O_RDONLY)
    try:
        for key, name in names.items():
            yield key, _decoded(_content(os.open(name, os.O_RDONLY, dir_fd=where)), "latin-1")
    finally:
        os.close(where)


def _content(file: int) -> bytes:
    """All of an open file, which is closed."""
    try:
        content = piece = os.read(file, PIECE)
        while len(piece) == PIECE:
            content += (piece := os.read(file, PIECE))
        return content
    finally:
        os.close(file)


def _decoded(content: bytes, fallback: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        lines = content.removeprefix(codecs.BOM_UTF8).split(b"\n")
        return "\n".join(_decoded_line(line, fallback) for line in lines)


def _decoded_line(line: bytes, fallback: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode(fallback, errors="replace")


def summarise_names(names: Collection[str], thing: str, rest: str) -> str:
    """Say how many there are, and name the first three: for problems that many files have.

    Args:
        names: of what has the problem.
        thing: one of them: `recording`.
        rest: what is wrong with it, without a verb that depends on how many there are.
    """
    return f"{format_count(len(names), thing)} {rest}: {shorten_list(sorted(names))}"


def parse_number(cell: str) -> float | None:
    """A cell of a table as a finite number, or None."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def write_tone(path: Path, seed: int, seconds: float = 0.5, rate: int = 16000) -> None:
    """A short noisy tone, different for every seed, in the place of a recording."""
    draw = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    pitch = draw.uniform(90, 300)
    samples = 0.3 * np.sin(2 * np.pi * pitch * time) + 0.03 * draw.standard_normal(len(time))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype="PCM_16")

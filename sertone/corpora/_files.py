"""Helpers for the readers of corpora and for the writers of miniatures."""

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
from sertone.utils.wording import format_count, shorten_list

AUDIO_SUFFIXES = (".wav", ".flac")
BLOCK_BYTES = 4096
"""Bytes of one read call; most transcripts are shorter."""


def list_visible(files: Iterator[Path]) -> list[Path]:
    """Return the files sorted, without hidden ones (macOS leaves `._*` beside every file it copies)."""
    return sorted(path for path in files if not path.name.startswith("."))


def list_audio_files(folder: Path, pattern: str = "*") -> list[Path]:
    """Return the visible sound files of a folder (WAV, or FLAC re-coded from it), sorted."""
    files = (path for path in folder.glob(pattern) if path.suffix.lower() in AUDIO_SUFFIXES)
    return list_visible(files)


def require_folder(folder: Path, corpus: str) -> Path:
    """Return the folder if it exists.

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


def load_optional_table(path: Path, columns: Sequence[str], report: ReportProblem) -> list[dict[str, str]]:
    """Return the rows of a table that a corpus can do without; a damaged table is reported and skipped.

    Args:
        path: CSV file.
        columns: the columns to return.
        report: called if the table cannot be read or lacks a column.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [{name: row[name] or "" for name in columns} for row in csv.DictReader(file)]
    except KeyError as error:
        report(Problem("missing_column", str(path), f"no column {error}; the table is skipped", "note"))
        return []
    except (UnicodeDecodeError, csv.Error) as error:
        report(Problem("bad_table", str(path), f"{error}; the table is skipped", "note"))
        return []
    return rows


def load_text(path: Path, fallback: str = "latin-1") -> str:
    """Return a text file as a string, without a byte order mark.

    Each line is decoded by itself: files of a corpus were edited on several machines, and one line in an
    older encoding must not garble the others.

    Args:
        path: path of the file.
        fallback: encoding of the lines that are not UTF-8.
    """
    return _decode(path.read_bytes(), fallback)


def load_texts(folder: Path, names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the key and the content of many small files, decoded as in `load_text`.

    Args:
        folder: folder of the files.
        names: key -> name of its file.
    """
    if not names:
        return
    # Three system calls per file; opening each one by its path takes more than twice as long.
    directory = os.open(folder, os.O_RDONLY)
    try:
        for key, name in names.items():
            yield key, _decode(_load_bytes(os.open(name, os.O_RDONLY, dir_fd=directory)), "latin-1")
    finally:
        os.close(directory)


def _load_bytes(file: int) -> bytes:
    """Return the content of an open file, and close it."""
    try:
        content = block = os.read(file, BLOCK_BYTES)
        while len(block) == BLOCK_BYTES:  # a shorter block is the last one
            content += (block := os.read(file, BLOCK_BYTES))
        return content
    finally:
        os.close(file)


def _decode(content: bytes, fallback: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        lines = content.removeprefix(codecs.BOM_UTF8).split(b"\n")
        return "\n".join(_decode_line(line, fallback) for line in lines)


def _decode_line(line: bytes, fallback: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode(fallback, errors="replace")


def summarise_names(names: Collection[str], noun: str, description: str) -> str:
    """Return the number of files with a problem and the names of the first three.

    Args:
        names: names of the files or utterances with the problem.
        noun: the word for one of them, such as `recording`.
        description: the problem, in words that fit one and several.
    """
    return f"{format_count(len(names), noun)} {description}: {shorten_list(sorted(names))}"


def parse_number(cell: str) -> float | None:
    """Return a cell of a table as a finite number, or None."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None  # float() accepts nan and inf


def write_tone(path: Path, seed: int, seconds: float = 0.5, rate: int = 16000) -> None:
    """Write a short noisy tone instead of a recording; every seed gives a different one."""
    draw = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    pitch = draw.uniform(90, 300)  # Hz, as in speech
    samples = 0.3 * np.sin(2 * np.pi * pitch * time) + 0.03 * draw.standard_normal(len(time))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype="PCM_16")

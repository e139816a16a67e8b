"""The recordings to predict: files, folders, a list, or a table."""

import codecs
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sertone.audio import SUFFIXES
from sertone.audio.containers.source import AudioBytes
from sertone.errors import SertoneError


@dataclass(frozen=True, slots=True)
class Input:
    """One recording to predict.

    Attributes:
        file: as the user gave it.
        text: transcript; None where it is not known.
        duration_s: stated length in seconds; None where it is not known.
        content: the bytes of the file if they are in memory already; then `file` is only a name.
    """

    file: str
    text: str | None = None
    duration_s: float | None = None
    content: bytes | None = field(default=None, repr=False)

    @property
    def source(self) -> str | AudioBytes:
        """The recording in the form that the reader takes."""
        return self.file if self.content is None else AudioBytes(self.content, self.file)


def collect_inputs(
    paths: Sequence[str | Path] = (),
    *,
    listed: str | Path | None = None,
    manifest: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
) -> list[Input]:
    """Return all recordings, in the order in which they are predicted.

    Args:
        paths: recordings and folders. A folder stands for its recordings, sorted. Among several paths, a
            folder without recordings is an input that cannot be predicted.
        listed: a text file with one path per line, or one per NUL as `find -print0` writes; `-`: standard
            input.
        manifest: a table with the column `path` and, where they are known, `text` and `duration_s`; see
            `corpora.manifest`.
        columns: our name -> column of that table, where the names are not recognised.

    Raises:
        SertoneError: `no_files`, where nothing is given, more than one of the three, or a single folder
            without recordings; `missing_list`, `unreadable_folder`; errors of
            `corpora.manifest.load_recordings`.
    """
    _require_one_origin(paths, listed, manifest)
    if manifest:
        # Imported here: the other inputs need no corpus reader.
        from sertone.corpora.manifest import load_recordings

        return [
            Input(str(path), text, seconds)
            for path, text, seconds in load_recordings(Path(manifest), columns)
        ]
    names = _load_list(listed) if listed else _expand_paths(paths)
    if not names:
        raise SertoneError("no_files", f"{listed} lists no paths", "one path per line")
    return [Input(name) for name in names]


def _require_one_origin(
    paths: Sequence[str | Path], listed: str | Path | None, manifest: str | Path | None
) -> None:
    origins = sum(map(bool, (paths, listed, manifest)))
    if origins != 1:
        problem = "more than one of FILE..., --list and --manifest" if origins else "no recordings given"
        way_out = "the first path may be a model: sertone predict [MODEL] FILE..."
        raise SertoneError("no_files", problem, "one of FILE..., --list and --manifest", way_out)


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder; a path that cannot be examined is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _load_list(path: str | Path) -> list[str]:
    """Return the lines that are not empty; names that are not UTF-8 keep the bytes of the system."""
    try:
        content = sys.stdin.buffer.read() if str(path) == "-" else Path(path).read_bytes()
    except OSError as error:
        problem = f"{path}: {error.strerror}"
        raise SertoneError("missing_list", problem, "a text file with one path per line") from None
    if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise SertoneError("missing_list", f"{path} is UTF-16", "UTF-8", "save it as UTF-8")
    end = "\0" if b"\0" in content else "\n"
    lines = os.fsdecode(content.removeprefix(b"\xef\xbb\xbf")).split(end)
    return [line.removesuffix("\r") for line in lines if line.strip()]


def _list_recordings(path: Path) -> list[str]:
    """Return the path itself or, for a folder, its recordings; empty for a folder without any."""
    if not is_folder(path):
        return [str(path)]
    return [str(file) for file in sorted(_walk_files(path)) if file.suffix.lower() in SUFFIXES]


def _expand_paths(paths: Sequence[str | Path]) -> list[str]:
    """Return all recordings of files and folders.

    Among several paths, a folder without recordings stays in the list: its row then reports an error.
    """
    expanded = [_list_recordings(Path(path)) for path in paths]
    if expanded == [[]]:
        problem = f"{paths[0]} holds neither a model nor recordings"
        raise SertoneError("no_files", problem, f"files ending in {', '.join(SUFFIXES)}")
    return [name for path, names in zip(paths, expanded, strict=True) for name in names or [str(path)]]


def _walk_files(folder: Path) -> Iterator[Path]:
    """Yield the visible files below a folder. Links to folders are not followed: they may form a circle."""

    def stop(error: OSError) -> None:
        # os.walk skips such folders by default; their recordings would be missing without a message.
        problem = f"{error.filename}: {error.strerror}"
        raise SertoneError("unreadable_folder", problem, "readable folders", "name the others one by one")

    for parent, folders, files in os.walk(folder, onerror=stop):
        folders[:] = _select_visible(folders)  # os.walk descends into the names that stay in the list
        yield from (Path(parent, name) for name in _select_visible(files))


def _select_visible(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith(".")]

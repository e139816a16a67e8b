"""Which recordings to predict: files, folders, a list, a table."""

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
        file: as it was given.
        text: what is said in it, where that is known.
        duration_s: what it is said to last, in seconds, where that is known.
        content: the bytes of the file, where it was read already; then `file` is only a name.
    """

    file: str
    text: str | None = None
    duration_s: float | None = None
    content: bytes | None = field(default=None, repr=False)

    @property
    def source(self) -> str | AudioBytes:
        """What the reader takes."""
        return self.file if self.content is None else AudioBytes(self.content, self.file)


def collect_inputs(
    paths: Sequence[str | Path] = (),
    *,
    listed: str | Path | None = None,
    manifest: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
) -> list[Input]:
    """All recordings, in the order in which they are answered.

    Args:
        paths: recordings, and folders in the place of which their recordings stand, sorted; among several
            paths a folder without recordings is an input that cannot be predicted.
        listed: a text file with one path per line, or one per NUL as of `find -print0`; `-`: standard input.
        manifest: a table with the column `path` and, where they are known, `text` and `duration_s`; see
            `corpora.manifest`.
        columns: of that table, which is which where their names are not recognised.

    Raises:
        SertoneError: `no_files`, where nothing is given, more than one kind of thing, or one folder without
            recordings; `missing_list`, `unreadable_folder`; what `corpora.manifest.recordings` raises.
    """
    if sum(map(bool, (paths, listed, manifest))) != 1:
        some = paths or listed or manifest
        found = "more than one of FILE..., --list and --manifest" if some else "no recordings given"
        way_out = "the first path may be a model: sertone predict [MODEL] FILE..."
        raise SertoneError("no_files", found, "one of FILE..., --list and --manifest", way_out)
    if manifest:
        from sertone.corpora.manifest import read_recordings

        return [
            Input(str(path), text, seconds)
            for path, text, seconds in read_recordings(Path(manifest), columns)
        ]
    names = _lines(listed) if listed else _of_paths(paths)
    if not names:
        raise SertoneError("no_files", f"{listed} names none", "one path per line")
    return [Input(name) for name in names]


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; what cannot be looked at is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _lines(listed: str | Path) -> list[str]:
    """The lines that are not empty; names that are not UTF-8 are kept as the system has them."""
    try:
        content = sys.stdin.buffer.read() if str(listed) == "-" else Path(listed).read_bytes()
    except OSError as error:
        found = f"{listed}: {error.strerror}"
        raise SertoneError("missing_list", found, "a text file with one path per line") from None
    if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise SertoneError("missing_list", f"{listed} is UTF-16", "UTF-8", "save it as UTF-8")
    end = "\0" if b"\0" in content else "\n"
    lines = os.fsdecode(content.removeprefix(b"\xef\xbb\xbf")).split(end)
    return [line.removesuffix("\r") for line in lines if line.strip()]


def _expanded(path: Path) -> list[str]:
    """Return the path itself or, of a folder, its recordings; none where it holds none."""
    if not is_folder(path):
        return [str(path)]
    return [str(name) for name in sorted(_below(path)) if name.suffix.lower() in SUFFIXES]


def _of_paths(paths: Sequence[str | Path]) -> list[str]:
    """Return all recordings; of several, a folder without any stands for itself, and is refused as one."""
    expanded = [_expanded(Path(path)) for path in paths]
    if expanded == [[]]:
        raise SertoneError(
            "no_files",
            f"{paths[0]} holds neither a model nor recordings",
            f"files ending in {', '.join(SUFFIXES)}",
        )
    return [name for path, names in zip(paths, expanded, strict=True) for name in names or [str(path)]]


def _below(folder: Path) -> Iterator[Path]:
    """Visible files of a folder and of those in it. Links to folders are not followed: they may go round."""

    def stop(error: OSError) -> None:
        found = f"{error.filename}: {error.strerror}"  # it must not go missing without a word
        raise SertoneError("unreadable_folder", found, "folders that may be read", "name the others")

    for parent, folders, files in os.walk(folder, onerror=stop):
        folders[:] = _visible(folders)
        yield from (Path(parent, name) for name in _visible(files))


def _visible(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith(".")]

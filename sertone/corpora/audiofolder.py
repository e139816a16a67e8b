"""A folder per class, or an audio folder of Hugging Face, with or without a table beside the recordings.

The speaker, in this order:
    a column of the table      speaker, speaker_id, ... as in the corpus `manifest`
    `speaker_pattern`          a regular expression that is searched in the path below the root, with `/`
                               between folders; its first group that is not empty is the speaker, or else the
                               whole match
    unknown                    where neither says who speaks

The class is the table's column `emotion` or `label`. If no table has such a column, the first folder is the
class, in any spelling that the corpus `manifest` knows (`anger`, `Happiness`). Folders inside a class belong
to it. A recording outside all class folders has no emotion. `sertone corpora check` notes folders of emotions
inside other folders, such as `speaker/angry/`: there the speakers are the classes.

Folders train, validation and test, or their other usual names, are the official split. The folders at the top
are either all splits or all classes. Formats such as MP3 and Ogg are read too.

Tables are `metadata.csv`, `metadata.jsonl` or `metadata.parquet`, at the root or in a split folder. Their
column `file_name` is relative to the table. They may have all columns of the corpus `manifest`, and
`--columns` works as it does there. Recordings that no table names are left out and reported.

Expected tree:
    angry/anything.wav
    angry/deeper/other.flac
    happy/...
or
    train/angry/...            likewise, and train/metadata.csv if there is one
    validation/...
    test/...
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sertone.audio import SUFFIXES
from sertone.corpora._cells import SPLIT_SYNONYMS, build_utterance, normalise_emotion, select_filled
from sertone.corpora._columns import match_columns, note_synonyms
from sertone.corpora._files import list_visible, summarise_names, write_tone
from sertone.corpora._tables import get_first_line, read_table
from sertone.errors import SertoneError
from sertone.labels import EMOTIONS as KNOWN
from sertone.labels import NOT_CLASSES, SYNONYMS, Scale
from sertone.licences import UNKNOWN
from sertone.schema import Problem, ReportProblem, Utterance, raise_on_error
from sertone.scoring.display import shorten_list

TITLE = "a folder per class"
LICENCE = UNKNOWN
LANGUAGE = ""
CITATION = ""
NOTE = ""
EMOTIONS = SYNONYMS
SCALES: dict[str, Scale] = {}
CLASSES = "all"
TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
SIDES = ("train", "validation", "test")


def utterances(
    root: Path,
    report: ReportProblem = raise_on_error,
    *,
    columns: Mapping[str, str] | None = None,
    speaker_pattern: str = "",
) -> Iterator[Utterance]:
    """Reads the recordings below `root`, or the rows of the tables beside them.

    Args:
        root: the folder.
        report: called with every problem.
        columns: name used here -> column of the tables, where they are not called so.
        speaker_pattern: a regular expression that finds the speaker in a path.

    Raises:
        SertoneError: `not_this_corpus`, `mixed_folders`, `bad_pattern`; of a table as of a manifest.
    """
    tree = _Tree.of(root, speaker_pattern)
    found = list(_table_rows(tree, columns or {}, report) if tree.tables else tree.utterances())
    named = [tree.with_speaker(u) for u in found]
    if speaker_pattern and (unknown := [u.id for u in named if not u.known_speaker]):
        message = summarise_names(unknown, "path", "that speaker_pattern finds no speaker in")
        severity = "error" if len(unknown) == len(named) else "note"
        report(Problem("no_speaker", unknown[0], message, severity))
    if note := _inner_emotions(tree, named):
        report(note)
    yield from named


@dataclass(frozen=True)
class _Tree:
    """The files of a folder, and what their paths say."""

    root: Path
    files: list[Path]
    tables: list[Path]
    split: bool
    pattern: re.Pattern[str] | None

    @classmethod
    def of(cls, root: Path, speaker_pattern: str) -> "_Tree":
        """Look through a folder."""
        if not root.is_dir():
            raise SertoneError("not_this_corpus", f"{root} is no folder", "a folder per class")
        below = [p for p in root.rglob("*") if not any(part[0] == "." for part in p.relative_to(root).parts)]
        files = list_visible(p for p in below if p.suffix.lower() in SUFFIXES)
        if not files:
            raise SertoneError("not_this_corpus", f"no recording below {root}", "a folder per class")
        split = _has_split(root, files)
        tables = [p for p in below if p.name in TABLES and len(p.relative_to(root).parts) <= 1 + split]
        return cls(root, files, sorted(tables), split, _compiled(speaker_pattern))

    def utterances(self) -> Iterator[Utterance]:
        """Yield every recording, with the class and the side that its folders say."""
        for path in self.files:
            yield Utterance(
                id=self.id_of(path),
                path=path,
                speaker="",
                labels=self.labels(path),
                split=self.side(path),
            )

    def parts(self, path: Path) -> tuple[str, ...]:
        """Return the folders and the name of a file below the root; of one elsewhere its name alone."""
        path, root = _plain(path), _plain(self.root)
        return path.relative_to(root).parts if path.is_relative_to(root) else (path.name,)

    def folders(self, path: Path) -> list[str]:
        """Return the folders of a recording, without that of a split."""
        return [folder.strip() for folder in self.parts(path)[self.split : -1]]

    def id_of(self, path: Path) -> str:
        """Return the path below the root, without the suffix."""
        return "/".join(self.parts(path)).rsplit(".", 1)[0]

    def labels(self, path: Path) -> dict[str, str | float]:
        """Return the emotion that the folder of a recording says, if it is in one."""
        folders = self.folders(path)
        return {"emotion": normalise_emotion(folders[0]), "raw_emotion": folders[0]} if folders else {}

    def side(self, path: Path) -> str | None:
        """Return the side of the official split that a recording is on."""
        return _side(self.parts(path)[0]) if self.split else None

    def with_speaker(self, found: Utterance) -> Utterance:
        """Return an utterance with the speaker that its path says, unless a table has said it."""
        if found.speaker:
            return found
        match = self.pattern and self.pattern.search("/".join(self.parts(found.path)))
        if not match:
            return replace(found, speaker=found.id, known_speaker=False)
        speaker = next((group for group in match.groups() if group), match[0])
        return replace(found, speaker=speaker or found.id, known_speaker=bool(speaker))


def _plain(path: Path) -> Path:
    """Return an absolute path without `..`, which rows of a table may hold."""
    return Path(os.path.normpath(path.absolute()))


def _side(folder: str) -> str | None:
    name = folder.strip().lower()
    side = SPLIT_SYNONYMS.get(name, name)
    return side if side in SIDES else None


def _has_split(root: Path, files: list[Path]) -> bool:
    """Return whether the folders at the top are the sides of a split."""
    folders = sorted({path.relative_to(root).parts[0] for path in files if path.parent != root})
    classes = [folder for folder in folders if not _side(folder)]
    if classes and len(classes) < len(folders):
        raise SertoneError(
            "mixed_folders",
            f"{root} has folders of a split beside others: {', '.join(folders)}",
            "train, validation and test alone, or classes alone",
            "move the classes into a folder of the split",
        )
    return bool(folders) and not classes


def _compiled(pattern: str) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern) if pattern else None
    except re.error as error:
        raise SertoneError(
            "bad_pattern", f"speaker_pattern {pattern!r}: {error}", r"a regular expression, as `_(s\d+)_`"
        ) from None


def _table_rows(tree: _Tree, columns: Mapping[str, str], report: ReportProblem) -> Iterator[Utterance]:
    """Yield what the tables say of the recordings that they name."""
    named: set[Path] = set()
    for table in tree.tables:
        rows = read_table(table)
        written = dict.fromkeys(name for row in rows for name in row)
        names = match_columns(written, columns, table, ("path",))
        for note in note_synonyms(names, columns, table):
            report(note)
        for count, cells in enumerate(rows, get_first_line(table)):
            where, row = f"{table}, line {count}", select_filled(cells, names)
            if "path" not in row:
                report(Problem("missing_cell", where, "no path given"))
                continue
            path = table.parent / row["path"]
            named.add(_plain(path))
            found = build_utterance(row, where, report, id_=tree.id_of(path), path=path)
            folders = {} if "emotion" in names else tree.labels(path)
            side = tree.side(table) or tree.side(path)  # a table may name recordings outside its folder
            yield replace(found, labels=found.labels | folders, split=found.split or side)
    if left := [tree.id_of(path) for path in tree.files if _plain(path) not in named]:
        report(
            Problem(
                "not_in_table", left[0], summarise_names(left, "recording", "that no table names"), "note"
            )
        )


def _inner_emotions(tree: _Tree, found: Sequence[Utterance]) -> Problem | None:
    """Return a note where folders inside the classes are known emotions, and no class is one."""
    deep = [(folders, u) for u in found if len(folders := tree.folders(u.path)) > 1]
    taken = [(folders, u) for folders, u in deep if u.labels.get("raw_emotion") == folders[0]]
    classes = sorted({folders[0] for folders, _ in taken})
    inner = sorted({name for folders, _ in taken for name in folders[1:] if _is_emotion(name)})
    if not inner or any(_is_emotion(name) for name in classes):
        return None
    where = f"the classes are {shorten_list(classes)}, and the folders in them are emotions: {shorten_list(inner)}"
    way_out = "put the folders of emotions first, or write a table metadata.csv with the column emotion"
    return Problem("inner_emotions", taken[0][1].id, f"{where}; {way_out}", "note")


def _is_emotion(folder: str) -> bool:
    return normalise_emotion(folder) in KNOWN and normalise_emotion(folder) not in NOT_CLASSES


def fake(root: Path, full: bool = False) -> None:
    """Writes split folders with a folder per class, and a table that says who speaks."""
    lines = ["file_name,speaker_id,sex,transcription"]
    classes = ("Angry", "happiness", "neutral", "sadness")
    for row in range(400 if full else 64):
        speaker, side = row % 8, SIDES[(0, 0, 0, 0, 1, 1, 2, 2)[row % 8]]
        name = f"{side}/{classes[row // 8 % 4]}/s{speaker}_{row:03d}.wav"
        write_tone(root / name, row)
        lines.append(f"{name},s{speaker},{'F' if speaker % 2 else 'M'},hello there")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")

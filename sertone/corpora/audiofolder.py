"""A folder per class, or an audio folder of Hugging Face, with or without a table beside the recordings.

The speaker comes from the first of these that names one:
    a column of the table      speaker, speaker_id, ... as in the corpus `manifest`
    `speaker_pattern`          a regular expression that is searched in the path below the root, with `/`
                               between folders; the speaker is its first group that is not empty, or else the
                               whole match
    unknown                    if neither names a speaker

The class is the table's column `emotion` or `label`. If no table has such a column, the first folder is the
class, in any spelling that the corpus `manifest` recognises (`anger`, `Happiness`). Folders inside a class
belong to it. A recording outside all class folders has no emotion. `sertone corpora check` notes folders of
emotions inside other folders, such as `speaker/angry/`: there the speakers would be the classes.

Folders named train, validation and test, or their other usual names, are the official split. The folders at
the top are either all splits or all classes. Formats such as MP3 and Ogg are read too.

Tables are `metadata.csv`, `metadata.jsonl` or `metadata.parquet`, at the root or in a split folder. Their
column `file_name` is relative to the table. They may have all columns of the corpus `manifest`, and
`--columns` works as it does there. Recordings that no table names are left out and reported.

Expected tree:
    angry/anything.wav
    angry/deeper/other.flac
    happy/...
or
    train/angry/...            the same folders, and train/metadata.csv if there is one
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
from sertone.corpora._tables import get_first_line, load_table
from sertone.errors import SertoneError
from sertone.labels import EMOTIONS as KNOWN_EMOTIONS
from sertone.labels import NOT_CLASSES, SYNONYMS, Scale
from sertone.licences import UNKNOWN
from sertone.schema import Problem, ReportProblem, Utterance, raise_on_error
from sertone.utils.wording import shorten_list

TITLE = "a folder per class"
LICENCE = UNKNOWN
LANGUAGE = ""
CITATION = ""
NOTE = ""
EMOTIONS = SYNONYMS
SCALES: dict[str, Scale] = {}
CLASSES = "all"
TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
SETS = ("train", "validation", "test")


def load_utterances(
    root: Path,
    report: ReportProblem = raise_on_error,
    *,
    columns: Mapping[str, str] | None = None,
    speaker_pattern: str = "",
) -> Iterator[Utterance]:
    """Read the recordings below `root`, or the rows of the tables beside them.

    Args:
        root: the folder.
        report: called with every problem.
        columns: our name -> column of the tables, if the tables have other names.
        speaker_pattern: a regular expression that finds the speaker in a path.

    Raises:
        SertoneError: `not_this_corpus`, `mixed_folders`, `bad_pattern`; the errors of a manifest for tables.
    """
    tree = _Tree.scan(root, speaker_pattern)
    if tree.tables:
        utterances = list(_load_tables(tree, columns or {}, report))
    else:
        utterances = list(tree.list_utterances())
    utterances = [tree.add_speaker(u) for u in utterances]
    if speaker_pattern and (unknown := [u.id for u in utterances if not u.known_speaker]):
        message = summarise_names(unknown, "path", "without a match of speaker_pattern")
        severity = "error" if len(unknown) == len(utterances) else "note"
        report(Problem("no_speaker", unknown[0], message, severity))
    if note := _find_inner_emotions(tree, utterances):
        report(note)
    yield from utterances


@dataclass(frozen=True)
class _Tree:
    """The files of a folder, and the information in their paths."""

    root: Path
    files: list[Path]
    tables: list[Path]
    split: bool
    pattern: re.Pattern[str] | None

    @classmethod
    def scan(cls, root: Path, speaker_pattern: str) -> "_Tree":
        """Scan a folder for recordings, tables and split folders."""
        if not root.is_dir():
            raise SertoneError("not_this_corpus", f"{root} is not a folder", "a folder per class")
        # Hidden folders, such as .git or .cache, are not part of the corpus.
        below = [p for p in root.rglob("*") if not any(part[0] == "." for part in p.relative_to(root).parts)]
        files = list_visible(p for p in below if p.suffix.lower() in SUFFIXES)
        if not files:
            raise SertoneError("not_this_corpus", f"no recording below {root}", "a folder per class")
        split = _has_split(root, files)
        # Tables may be at the root or in the folders of a split, and nowhere else.
        tables = [p for p in below if p.name in TABLES and len(p.relative_to(root).parts) <= 1 + split]
        return cls(root, files, sorted(tables), split, _compile_pattern(speaker_pattern))

    def list_utterances(self) -> Iterator[Utterance]:
        """Yield every recording, with the class and the split of its folders."""
        for path in self.files:
            yield Utterance(
                id=self.build_id(path),
                path=path,
                speaker="",
                labels=self.find_labels(path),
                split=self.find_split(path),
            )

    def get_parts(self, path: Path) -> tuple[str, ...]:
        """Return the folders and the name of a file below the root; its name alone if it is elsewhere."""
        path = _normalise_path(path)
        root = _normalise_path(self.root)
        return path.relative_to(root).parts if path.is_relative_to(root) else (path.name,)

    def get_folders(self, path: Path) -> list[str]:
        """Return the folders of a recording, without the split folder."""
        return [folder.strip() for folder in self.get_parts(path)[self.split : -1]]

    def build_id(self, path: Path) -> str:
        """Return the path below the root, without the suffix."""
        return "/".join(self.get_parts(path)).rsplit(".", 1)[0]

    def find_labels(self, path: Path) -> dict[str, str | float]:
        """Return the emotion that the folder of a recording names; empty outside all class folders."""
        folders = self.get_folders(path)
        return {"emotion": normalise_emotion(folders[0]), "raw_emotion": folders[0]} if folders else {}

    def find_split(self, path: Path) -> str | None:
        """Return the set of the official split that a recording belongs to."""
        return _recognise_split(self.get_parts(path)[0]) if self.split else None

    def add_speaker(self, utterance: Utterance) -> Utterance:
        """Return an utterance with the speaker in its path, unless a table has named the speaker."""
        if utterance.speaker:
            return utterance
        match = self.pattern and self.pattern.search("/".join(self.get_parts(utterance.path)))
        if not match:
            return replace(utterance, speaker=utterance.id, known_speaker=False)
        speaker = next((group for group in match.groups() if group), match[0])
        # A pattern may match nothing, such as `(s9)?`; then the speaker is unknown.
        return replace(utterance, speaker=speaker or utterance.id, known_speaker=bool(speaker))


def _normalise_path(path: Path) -> Path:
    """Return an absolute path without `..`, which rows of a table may contain."""
    # Path.resolve would follow links, and linked recordings would then lie outside the root.
    return Path(os.path.normpath(path.absolute()))


def _recognise_split(folder: str) -> str | None:
    name = folder.strip().lower()
    split = SPLIT_SYNONYMS.get(name, name)
    return split if split in SETS else None


def _has_split(root: Path, files: list[Path]) -> bool:
    """Return whether the folders at the top are those of a split."""
    folders = sorted({path.relative_to(root).parts[0] for path in files if path.parent != root})
    classes = [folder for folder in folders if not _recognise_split(folder)]
    if classes and len(classes) < len(folders):
        raise SertoneError(
            "mixed_folders",
            f"{root} has folders of a split beside others: {', '.join(folders)}",
            "only train, validation and test, or only classes",
            "move the classes into a folder of the split",
        )
    return bool(folders) and not classes


def _compile_pattern(pattern: str) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern) if pattern else None
    except re.error as error:
        raise SertoneError(
            "bad_pattern",
            f"speaker_pattern {pattern!r}: {error}",
            r"a regular expression, such as `_(s\d+)_`",
        ) from None


def _load_tables(tree: _Tree, columns: Mapping[str, str], report: ReportProblem) -> Iterator[Utterance]:
    """Yield the recordings that the tables name, with their labels."""
    in_tables: set[Path] = set()
    for table in tree.tables:
        rows = load_table(table)
        names = dict.fromkeys(name for row in rows for name in row)  # a row of JSON lines may lack columns
        matched = match_columns(names, columns, table, ("path",))
        for note in note_synonyms(matched, columns, table):
            report(note)
        for line, cells in enumerate(rows, get_first_line(table)):
            location = f"{table}, line {line}"
            row = select_filled(cells, matched)
            if "path" not in row:
                report(Problem("missing_cell", location, "no path given"))
                continue
            path = table.parent / row["path"]
            in_tables.add(_normalise_path(path))
            utterance = build_utterance(row, location, report, id_=tree.build_id(path), path=path)
            labels = {} if "emotion" in matched else tree.find_labels(path)
            # The table's folder decides first, because a table may name recordings outside its folder.
            split = utterance.split or tree.find_split(table) or tree.find_split(path)
            yield replace(utterance, labels=utterance.labels | labels, split=split)
    if unlisted := [tree.build_id(path) for path in tree.files if _normalise_path(path) not in in_tables]:
        message = summarise_names(unlisted, "recording", "that no table names")
        report(Problem("not_in_table", unlisted[0], message, "note"))


def _find_inner_emotions(tree: _Tree, utterances: Sequence[Utterance]) -> Problem | None:
    """Return a note if folders inside the classes are known emotions, and no class is one."""
    nested = [(folders, u) for u in utterances if len(folders := tree.get_folders(u.path)) > 1]
    # Only folders that are the class count; a table may have given another one.
    labelled = [(folders, u) for folders, u in nested if u.labels.get("raw_emotion") == folders[0]]
    classes = sorted({folders[0] for folders, _ in labelled})
    inner = sorted({name for folders, _ in labelled for name in folders[1:] if _is_emotion(name)})
    if not inner or any(_is_emotion(name) for name in classes):
        return None
    message = (
        f"the classes are {shorten_list(classes)}, and the folders in them are emotions: "
        f"{shorten_list(inner)}; put the folders of emotions first, or write a table metadata.csv with the "
        "column emotion"
    )
    return Problem("inner_emotions", labelled[0][1].id, message, "note")


def _is_emotion(folder: str) -> bool:
    emotion = normalise_emotion(folder)
    return emotion in KNOWN_EMOTIONS and emotion not in NOT_CLASSES


def fake(root: Path, full: bool = False) -> None:
    """Write split folders with a folder per class, and a table that names the speakers."""
    lines = ["file_name,speaker_id,sex,transcription"]
    classes = ("Angry", "happiness", "neutral", "sadness")
    for row in range(400 if full else 64):
        speaker = row % 8
        split = SETS[(0, 0, 0, 0, 1, 1, 2, 2)[speaker]]  # no speaker is in two sets
        name = f"{split}/{classes[row // 8 % 4]}/s{speaker}_{row:03d}.wav"
        write_tone(root / name, row)
        lines.append(f"{name},s{speaker},{'F' if speaker % 2 else 'M'},hello there")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")

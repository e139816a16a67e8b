"""A corpus of one's own: one table, one row per utterance. CSV, JSON lines or Parquet.

Columns:
    path                       relative paths resolve against the manifest's folder
    speaker                    who speaks; folds never share a speaker
    emotion, gender, style     any label columns; an empty cell is a missing label
    arousal, valence, dominance, duration_s   numbers
    vote_happy, vote_sad, ...  annotators who heard that emotion, as counts or shares
    id, text, session, start_s, end_s   optional
    split                      `train`, `validation` (or `dev`, `val`), `test`
    known_speaker              `no` where the speaker is a name of this row alone, for want of a better one
    any other                  a label; words in it can be the text (`data.text.column`)

Other names of columns that are recognised, in upper or lower case, with blanks or hyphens for underscores:
    path       file, file_name, filename, file_path, filepath, audio, audio_file, audio_path, wav, wav_file,
               wav_path
    speaker    speaker_id, spk, spk_id, actor, actor_id
    emotion    label
    gender     sex
    text       transcript, transcription
`sertone corpora check` notes which columns are recognised under such a name. Two columns that mean the same
are an error. `--columns path=clip,emotion=feeling` on a command line, or
`data.columns: {path: clip, emotion: feeling}` in a recipe, says which column is which; it overrides the names
above. Columns of a text table are separated by commas, semicolons or tabs.

Names such as `anger` and `joy` are read as `angry` and `happy`; any other emotion is its own class.
Its licence is what the recipe says in `data.licence`, an identifier such as `cc-by-4.0`; the scales of
its ratings are what it says in `data.scales`, as `{valence: [1, 7]}`.

Expected tree:
    metadata.csv, and the files that it names
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from sertone.corpora._cells import build_utterance, read_number, select_filled
from sertone.corpora._columns import match_columns, note_synonyms
from sertone.corpora._files import write_tone
from sertone.corpora._tables import get_first_line, read_table
from sertone.errors import SertoneError
from sertone.labels import SYNONYMS, Scale
from sertone.licences import UNKNOWN
from sertone.schema import Problem, ReportProblem, Utterance, raise_on_error

TITLE = "a manifest"
LICENCE = UNKNOWN
LANGUAGE = ""
CITATION = ""
NOTE = ""
EMOTIONS = SYNONYMS
SCALES: dict[str, Scale] = {}
CLASSES = "all"


def utterances(
    root: Path,
    report: ReportProblem = raise_on_error,
    *,
    labelled: bool = True,
    columns: Mapping[str, str] | None = None,
) -> Iterator[Utterance]:
    """Reads a manifest: the file, or the `metadata.csv` of a folder.

    Args:
        root: the file or folder.
        report: called with every problem.
        labelled: or else no label is read, and no speaker required: one that is not given is empty.
        columns: name used here -> column of the table, where they are not called so.

    Raises:
        SertoneError: `not_a_manifest`, `missing_column`, `unknown_column`, `column_twice`, `no_rows`.
    """
    seen: Counter[str] = Counter()
    for where, row, table in _rows(root, columns, ("path", "speaker") if labelled else ("path",), report):
        path = row.get("path")
        if not path or (labelled and "speaker" not in row):
            report(Problem("missing_cell", where, f"no {'speaker' if path else 'path'} given"))
            continue
        stem = path.rsplit(".", 1)[0]
        seen[stem] += 1
        id_ = stem if seen[stem] == 1 else f"{stem}#{seen[stem]}"
        yield build_utterance(row, where, report, id_=id_, path=table.parent / path, labelled=labelled)


def read_recordings(
    path: Path, columns: Mapping[str, str] | None = None
) -> list[tuple[Path, str | None, float | None]]:
    """The recordings that a table names, in its order: what predicting needs.

    Args:
        path: a manifest: the file, or a folder with a `metadata.csv`; only the path is required.
        columns: name used here -> column of the table, where they are not called so.

    Returns:
        file, text and duration in seconds of each, None where the table does not say.

    Raises:
        SertoneError: `not_a_manifest`, `missing_column`, `unknown_column`, `column_twice`, `no_rows`,
            `missing_cell`, `bad_number`, `parts_of_files`.
    """
    found = []
    for where, row, table in _rows(path, columns, ("path",), raise_on_error):
        if not (name := row.get("path")):
            raise SertoneError("missing_cell", f"{where}: no path given", "one in every row")
        if cut := [name for name in ("start_s", "end_s") if name in row]:
            raise SertoneError(
                "parts_of_files",
                f"{where}: {cut[0]} of {name}",
                "whole recordings",
                "an RTTM file of the parts answers each: `sertone predict --speakers`",
            )
        found.append(
            (table.parent / name, row.get("text"), read_number(row, "duration_s", where, raise_on_error))
        )
    return found


def _rows(
    root: Path, columns: Mapping[str, str] | None, required: tuple[str, ...], report: ReportProblem
) -> Iterator[tuple[str, dict[str, str], Path]]:
    """Yield where each row stands, its cells under the names used here, and the table's file."""
    path = root / "metadata.csv" if root.is_dir() else root
    rows = read_table(path)
    written = dict.fromkeys(name for row in rows for name in row)
    named = match_columns(written, columns or {}, path, required)
    for note in note_synonyms(named, columns or {}, path):
        report(note)
    for count, cells in enumerate(rows, get_first_line(path)):
        yield f"{path}, line {count}", select_filled(cells, named), path


def fake(root: Path, full: bool = False) -> None:
    """Writes a manifest of six speakers; with missing labels and votes, and an emotion of its own."""
    lines = ["path,speaker,gender,emotion,text,valence,vote_joy,vote_awe"]
    for row in range(400 if full else 40):
        speaker, emotion = row % 6, ("joy", "anger", "neutral", "sadness", "awe", "")[row // 6 % 6]
        write_tone(root / f"clips/{row:03d}.wav", row)
        gender = "female" if speaker % 2 else "male"
        votes = f"{row % 4},{4 - row % 4}" if emotion in ("joy", "awe") else ","
        lines.append(f"clips/{row:03d}.wav,0{speaker},{gender},{emotion},hello there,{row % 5},{votes}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")

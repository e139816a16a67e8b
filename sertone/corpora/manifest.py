"""Your own corpus: one table with one row per utterance. CSV, JSON lines or Parquet.

Columns:
    path                       relative paths start at the manifest's folder
    speaker                    the person who speaks; folds never share a speaker
    emotion, gender, style     any label columns; an empty cell is a missing label
    arousal, valence, dominance, duration_s   numbers
    vote_happy, vote_sad, ...  annotators who chose that emotion, as counts or shares
    id, text, session, start_s, end_s   optional
    split                      `train`, `validation` (or `dev`, `val`), `test`
    known_speaker              `no` if the speaker is unknown and `speaker` is a name for this row only
    any other                  a label; its words can be the text (`data.text.column`)

Other column names that are recognised, in upper or lower case, with blanks or hyphens for underscores:
    path       file, file_name, filename, file_path, filepath, audio, audio_file, audio_path, wav, wav_file,
               wav_path
    speaker    speaker_id, spk, spk_id, actor, actor_id
    emotion    label
    gender     sex
    text       transcript, transcription
`sertone corpora check` notes which columns are recognised under such a name. Two columns with the same
meaning are an error. `--columns path=clip,emotion=feeling` on a command line, or
`data.columns: {path: clip, emotion: feeling}` in a recipe, says which column is which. It overrides the names
above. Columns of a text table are separated by commas, semicolons or tabs.

Names such as `anger` and `joy` are read as `angry` and `happy`; any other emotion is a class of its own.
Its licence is given in the recipe in `data.licence`, as an identifier such as `cc-by-4.0`. The scales of its
ratings are given in `data.scales`, as `{valence: [1, 7]}`.

Expected tree:
    metadata.csv, and the files that it names
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from sertone.corpora._cells import build_utterance, parse_cell, select_filled
from sertone.corpora._columns import match_columns, note_synonyms
from sertone.corpora._files import write_tone
from sertone.corpora._tables import get_first_line, load_table
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


def load_utterances(
    root: Path,
    report: ReportProblem = raise_on_error,
    *,
    labelled: bool = True,
    columns: Mapping[str, str] | None = None,
) -> Iterator[Utterance]:
    """Read a manifest: the file, or the `metadata.csv` of a folder.

    Args:
        root: the file or folder.
        report: called with every problem.
        labelled: if false, no label is read and no speaker is required; a missing speaker is empty.
        columns: our name -> column of the table, if the table has other names.

    Raises:
        SertoneError: `not_a_manifest`, `missing_column`, `unknown_column`, `column_twice`, `no_rows`.
    """
    stems: Counter[str] = Counter()
    required = ("path", "speaker") if labelled else ("path",)
    for location, row, table in _load_rows(root, columns, required, report):
        path = row.get("path")
        if not path or (labelled and "speaker" not in row):
            report(Problem("missing_cell", location, f"no {'speaker' if path else 'path'} given"))
            continue
        # Several utterances of one file are numbered, so that their ids differ.
        stem = path.rsplit(".", 1)[0]
        stems[stem] += 1
        id_ = stem if stems[stem] == 1 else f"{stem}#{stems[stem]}"
        yield build_utterance(row, location, report, id_=id_, path=table.parent / path, labelled=labelled)


def load_recordings(
    path: Path, columns: Mapping[str, str] | None = None
) -> list[tuple[Path, str | None, float | None]]:
    """Return the recordings of a table in its order, with the columns that prediction uses.

    Args:
        path: a manifest: the file, or a folder with a `metadata.csv`; only the column `path` is required.
        columns: our name -> column of the table, if the table has other names.

    Returns:
        file, text and duration in seconds of each recording; None if the table has no text or duration.

    Raises:
        SertoneError: `not_a_manifest`, `missing_column`, `unknown_column`, `column_twice`, `no_rows`,
            `missing_cell`, `bad_number`, `parts_of_files`.
    """
    recordings = []
    for location, row, table in _load_rows(path, columns, ("path",), raise_on_error):
        if not (name := row.get("path")):
            raise SertoneError("missing_cell", f"{location}: no path given", "a path in every row")
        # Prediction takes whole files; an RTTM file states the parts.
        if limits := [limit for limit in ("start_s", "end_s") if limit in row]:
            raise SertoneError(
                "parts_of_files",
                f"{location}: {limits[0]} of {name}",
                "whole recordings",
                "write the parts to an RTTM file to predict each of them: `sertone predict --speakers`",
            )
        duration_s = parse_cell(row, "duration_s", location, raise_on_error)
        recordings.append((table.parent / name, row.get("text"), duration_s))
    return recordings


def _load_rows(
    root: Path, columns: Mapping[str, str] | None, required: tuple[str, ...], report: ReportProblem
) -> Iterator[tuple[str, dict[str, str], Path]]:
    """Yield the location of each row, its cells under our names, and the table's file."""
    path = root / "metadata.csv" if root.is_dir() else root
    rows = load_table(path)
    names = dict.fromkeys(name for row in rows for name in row)  # a row of JSON lines may lack columns
    matched = match_columns(names, columns or {}, path, required)
    for note in note_synonyms(matched, columns or {}, path):
        report(note)
    for line, cells in enumerate(rows, get_first_line(path)):
        yield f"{path}, line {line}", select_filled(cells, matched), path


def fake(root: Path, full: bool = False) -> None:
    """Write a manifest of six speakers, with missing labels and votes and with an unusual emotion."""
    lines = ["path,speaker,gender,emotion,text,valence,vote_joy,vote_awe"]
    for row in range(400 if full else 40):
        speaker = row % 6
        emotion = ("joy", "anger", "neutral", "sadness", "awe", "")[row // 6 % 6]
        write_tone(root / f"clips/{row:03d}.wav", row)
        gender = "female" if speaker % 2 else "male"
        votes = f"{row % 4},{4 - row % 4}" if emotion in ("joy", "awe") else ","
        lines.append(f"clips/{row:03d}.wav,0{speaker},{gender},{emotion},hello there,{row % 5},{votes}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")

"""Export of a corpus as a manifest: one CSV with a row per utterance."""

import csv
from pathlib import Path
from typing import Any

from sertone import corpora
from sertone.errors import SertoneError
from sertone.schema import Utterance
from sertone.utils.spreadsheet import guard_formula

FIELDS = ("id", "path", "start_s", "end_s", "speaker", "session", "split", "text")


def export(name: str, root: Path, out: Path, **options: Any) -> int:
    """Write a manifest, with paths relative to it if possible.

    Args:
        name: corpus.
        root: its folder.
        out: CSV file.
        options: options of the corpus's reader.

    Returns:
        number of utterances.

    Raises:
        SertoneError: `not_empty`; the corpus's first problem that would change a result.
    """
    if out.exists():
        raise SertoneError("not_empty", f"{out} already exists", "a new file")
    utterances = list(corpora.load_utterances(name, root, **options))
    known_speaker = [] if all(u.known_speaker for u in utterances) else ["known_speaker"]
    # The raw labels are left out: the manifest's emotions have our names already.
    tasks = sorted({task for u in utterances for task in u.labels} - {"raw_emotion"})
    votes = sorted({f"vote_{emotion}" for u in utterances for emotion in u.votes})
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(out, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*FIELDS, *known_speaker, *tasks, *votes])
        writer.writeheader()
        writer.writerows(_build_row(u, out.parent.resolve()) for u in utterances)
    return len(utterances)


def _build_row(utterance: Utterance, folder: Path) -> dict:
    path = utterance.path.resolve()
    relative = path.relative_to(folder) if path.is_relative_to(folder) else path
    values = {name: getattr(utterance, name) for name in FIELDS} | {"path": relative.as_posix()}
    values["start_s"] = utterance.start_s or ""
    if not utterance.known_speaker:
        values["known_speaker"] = "no"
    values |= {f"vote_{emotion}": share for emotion, share in utterance.votes.items()}
    return {
        # Spreadsheets would run a cell that begins like a formula.
        name: "" if value is None else guard_formula(value)
        for name, value in (values | utterance.labels).items()
        if name != "raw_emotion"
    }

"""The files of an audit.

out/audit.json         everything
    tests.csv          one row for each test, with its verdict
    robustness.csv     one row for each perturbation and strength
    report.html        a page for people
    answers/           the answers, from which an audit that was stopped resumes
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sertone.errors import SertoneError
from sertone.files import load_json, write_json, write_text
from sertone.report import audit as report
from sertone.schema import Utterance
from sertone.utils.spreadsheet import guard_formula, read_rows
from sertone.version import __version__

AUDIT, ANSWERS = "audit.json", "answers"
SETTINGS, UTTERANCES = "settings.json", "utterances.csv"
RESULTS = (AUDIT, "tests.csv", "robustness.csv", "report.html")


def claim_folder(out: Path, about: dict[str, Any], *, fresh: bool) -> None:
    """Refuse a folder with an audit of another model or of other recordings, and note those of this one.

    Args:
        out: folder of the audit.
        about: hashes of the model and of the recordings.
        fresh: remove the other audit's answers instead.

    Raises:
        SertoneError: `other_audit`.
    """
    marker, about = out / ANSWERS / SETTINGS, about | {"version": __version__}
    found = load_json(marker, "other_audit") if marker.is_file() else None
    # Answers without a marker are left of a removal that was stopped.
    if found != about and (found or any((out / ANSWERS).glob("*.csv"))):
        if not fresh:
            way_out = "choose another --out, or replace it with --fresh"
            raise SertoneError("other_audit", f"{out} holds another audit", "a folder of this audit", way_out)
        # The marker goes last: what is still there belongs to it.
        for path in [*(out / name for name in RESULTS), *(out / ANSWERS).glob("*.csv"), marker]:
            path.unlink(missing_ok=True)
    marker.parent.mkdir(parents=True, exist_ok=True)
    write_json(marker, about)


def save_utterances(out: Path, utterances: Sequence[Utterance], targets: Sequence[str]) -> None:
    """Write ids, speakers and classes of the utterances.

    Args:
        out: folder of the audit.
        utterances: in the order of the answers.
        targets: class of each; empty without one.
    """
    pairs = zip(utterances, targets, strict=True)
    rows = [
        {"id": guard_formula(u.id), "speaker": guard_formula(u.speaker), "target": guard_formula(target)}
        for u, target in pairs
    ]
    write_text(out / ANSWERS / UTTERANCES, _to_csv(rows))


def load_utterances(out: Path) -> list[dict[str, str]]:
    """Return what `save_utterances` has written; empty for an audit without a corpus."""
    path = out / ANSWERS / UTTERANCES
    return [dict(row) for row in read_rows(path)] if path.is_file() else []


def write_files(out: Path, content: dict[str, Any]) -> None:
    """Write an audit.

    Args:
        out: folder of the audit.
        content: what `audit.json` is to hold.
    """
    write_json(out / AUDIT, content)
    write_text(out / "tests.csv", _to_csv(content["tests"]))
    points = [
        {"perturbation": name, "strength": point["strength"], "unit": entry.get("unit", "")}
        | {key: value["value"] for key, value in point.items() if key != "strength"}
        | {"ua_low": point["ua"]["low"], "ua_high": point["ua"]["high"]}
        for name, entry in content["robustness"].items()
        for point in entry["points"]
    ]
    write_text(out / "robustness.csv", _to_csv(points))
    report.write(out, content)


def _to_csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def replace_nan(value: Any) -> Any:
    """Return a value in which NaN is None, which JSON can hold."""
    if isinstance(value, dict):
        return {key: replace_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [replace_nan(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value

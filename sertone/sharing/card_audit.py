"""The summary of an audit for model cards: tests by part, and those that failed."""

from pathlib import Path
from typing import Any

from sertone.errors import SertoneError
from sertone.files import load_json

VERDICTS = ("passed", "failed", "not testable")


def summarise_audit(folder: Path, model_hash: str) -> dict[str, Any]:
    """Summarise an audit, see `runtime.card_shapes.AUDIT_SHAPE`.

    Args:
        folder: that `sertone audit` wrote.
        model_hash: hash of the model that the card describes, see `model_folder.hash_model`.

    Raises:
        SertoneError: `not_an_audit`; `other_model`, for an audit of another model.
    """
    if not (folder / "audit.json").is_file():
        raise SertoneError(
            "not_an_audit", f"no audit.json in {folder}", "a folder that `sertone audit` wrote"
        )
    content = load_json(folder / "audit.json", "not_an_audit")
    about = content["about"]
    if about["hash"] != model_hash:
        problem = f"{folder} is an audit of {about['model']}, with other weights"
        raise SertoneError("other_model", problem, "an audit of the model to export")
    emotion = content["correctness"].get("emotion")
    parts = dict.fromkeys(test["part"] for test in content["tests"])
    return {
        "corpus": about.get("title"),
        "utterances": about.get("utterances", 0),
        "speakers": about.get("speakers", 0),
        "ua": emotion["ua"]["value"] if emotion else None,
        "parts": {part: count_verdicts(content["tests"], part) for part in parts},
        "failed": [
            f"{test['part']}: {test['name']}" for test in content["tests"] if test["verdict"] == "failed"
        ],
    }


def count_verdicts(tests: list[dict[str, Any]], part: str) -> dict[str, int]:
    """Return verdict -> number of tests of a part."""
    found = [test["verdict"] for test in tests if test["part"] == part]
    return {verdict: found.count(verdict) for verdict in VERDICTS}

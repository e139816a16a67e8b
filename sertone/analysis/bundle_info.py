"""What a bundle is: for `sertone info`, without torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sertone import licences
from sertone.audio import SAMPLING_RATE
from sertone.labels import Scale, describe_scale
from sertone.runtime import bundle
from sertone.scoring import display
from sertone.scoring.display import format_count


def describe(folder: Path) -> dict[str, Any]:
    """What there is to say about a bundle.

    Args:
        folder: of the bundle.

    Returns:
        what `bundle.json` holds, but for the hashes and the protocol card, of which `corpus` is left; and
        `megabytes`.

    Raises:
        SertoneError: `not_a_bundle`, `other_format`, `bad_bundle`.
    """
    about = bundle.read_metadata(folder)
    kept = {name: value for name, value in about.items() if name not in ("files", "card")}
    size = sum((folder / name).stat().st_size for name in about["files"])
    return kept | {"corpus": about["card"]["corpus"]["title"], "megabytes": size / 1e6}


def to_text(found: Mapping[str, Any]) -> str:
    """As lines for people."""
    shortest = f"mono speech at 16 kHz, at least {1000 * found['min_samples'] / SAMPLING_RATE:.0f} ms"
    scales = {name: Scale(**scale) if scale else None for name, scale in found["scales"].items()}
    rated = [f"{name} {describe_scale(scale)}" for name, scale in scales.items()]
    classes = [f"emotion: {', '.join(found['classes'])}"] if found["classes"] else []
    rows = {
        "bundle": f"{found['name']}, {found['precision']}, {found['megabytes']:.1f} MB",
        "model": _model_in_words(found),
        "input": ", and ".join([shortest] * found["hears"] + ["text"] * found["reads"]),
        "answers": "; ".join(classes + rated),
        "scores": _scores_in_words(found.get("scores") or {}),
        "elsewhere": "; ".join(
            f"{corpus}: {_scores_in_words(scores)}" for corpus, scores in found.get("elsewhere", {}).items()
        ),
        "unsure": _threshold_in_words(found["calibration"]),
        "parity": _parity_in_words(found["parity"]),
        "loss": _loss_in_words(found),
        "corpus": found["corpus"],
        "licences": "; ".join(
            f"{e['what']} {e['of']}: {licences.describe_licence(e)}" for e in found["licences"]
        ),
    }
    return "\n".join(f"{name:11} {text}" for name, text in rows.items() if text)


def _model_in_words(found: Mapping[str, Any]) -> str:
    if not (model := found.get("model")):
        return ""
    mean = f", mean of {found['models']} models" if found["models"] > 1 else ""
    return f"{model['name']}, {model['encoders']}{mean}"


def _scores_in_words(scores: Mapping[str, Any]) -> str:
    if not scores:
        return ""
    said = [
        f"{display.get_score_format(n).label} {_score(n, v, scores)}" for n, v in scores["values"].items()
    ]
    chosen = ", answered by settings chosen without them" if scores.get("among") else ""
    spoken = f"{format_count(scores['utterances'], 'utterance')}, {display.describe_speakers(scores)}"
    return f"{', '.join(said)} ({spoken}{chosen})"


def _score(name: str, value: float, scores: Mapping[str, Any]) -> str:
    """With its 95 % interval, where there is one."""
    text = display.get_score_format(name).format_value
    bounds = "-".join(map(text, scores["intervals"].get(name, ())))
    return f"{text(value)} ({bounds})" if bounds else text(value)


def _threshold_in_words(calibration: Mapping[str, Any]) -> str:
    threshold = calibration.get("threshold")
    return "" if threshold is None else f"below a confidence of {threshold:.2f}"


def _parity_in_words(parity: Mapping[str, Any]) -> str:
    worst = max(parity.get("largest_difference", {}).values(), default=None)
    return "" if worst is None else f"differs from torch by {worst:.1e} at most"


def _loss_in_words(found: Mapping[str, Any]) -> str:
    if found["precision"] == "fp32":
        return ""
    if not (measured := found.get("measured")):
        return "not measured"
    if measured["loss_points"] is None:
        return f"no label of {measured['corpus']} to score"
    where = f"{measured['utterances']} recordings of {measured['corpus']}"
    return f"{measured['loss_points']:.2f} points on {where}"

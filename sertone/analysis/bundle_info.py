"""Description of a bundle for `sertone info`. It needs no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sertone import licences
from sertone.audio import SAMPLING_RATE
from sertone.labels import Scale, describe_scale
from sertone.runtime import bundle
from sertone.scoring import display
from sertone.utils.wording import format_count


def describe(folder: Path) -> dict[str, Any]:
    """Return the metadata of a bundle.

    Args:
        folder: folder of the bundle.

    Returns:
        the content of `bundle.json` without hashes and protocol card, the title of its `corpus`, and its
        size in `megabytes`.

    Raises:
        SertoneError: `not_a_bundle`, `other_format`, `bad_bundle`.
    """
    metadata = bundle.read_metadata(folder)
    # Hashes and the protocol card are long, and meant for programs.
    public = {name: value for name, value in metadata.items() if name not in ("files", "card")}
    size = sum((folder / name).stat().st_size for name in metadata["files"])
    return public | {"corpus": metadata["card"]["corpus"]["title"], "megabytes": size / 1e6}


def to_text(metadata: Mapping[str, Any]) -> str:
    """Format the result of `describe` as lines for people."""
    scales = {name: Scale(**scale) if scale else None for name, scale in metadata["scales"].items()}
    outputs = [f"emotion: {', '.join(metadata['classes'])}"] if metadata["classes"] else []
    outputs += [f"{name} {describe_scale(scale)}" for name, scale in scales.items()]
    elsewhere = metadata.get("elsewhere", {})
    rows = {
        "bundle": f"{metadata['name']}, {metadata['precision']}, {metadata['megabytes']:.1f} MB",
        "model": _describe_model(metadata),
        "input": describe_input(metadata),
        "outputs": "; ".join(outputs),
        "scores": _describe_scores(metadata.get("scores") or {}),
        "elsewhere": "; ".join(
            f"{corpus}: {_describe_scores(scores)}" for corpus, scores in elsewhere.items()
        ),
        "unsure": _describe_threshold(metadata["calibration"]),
        "parity": _describe_parity(metadata["parity"]),
        "loss": _describe_loss(metadata),
        "corpus": metadata["corpus"],
        "licences": describe_licences(metadata),
    }
    return format_rows(rows)


def format_rows(rows: Mapping[str, str]) -> str:
    """Format names and texts as lines. Empty texts have no line."""
    # The longest name, `parameters`, has ten letters.
    return "\n".join(f"{name:11} {text}" for name, text in rows.items() if text)


def describe_input(description: Mapping[str, Any]) -> str:
    """Describe the input of a model.

    Args:
        description: description with `min_samples`, `hears` and `reads`.
    """
    shortest_ms = 1000 * description["min_samples"] / SAMPLING_RATE
    inputs = []
    if description["hears"]:
        inputs.append(f"mono speech at 16 kHz, at least {shortest_ms:.0f} ms")
    if description["reads"]:
        inputs.append("text")
    return ", and ".join(inputs)


def describe_licences(description: Mapping[str, Any]) -> str:
    """Describe the licences of corpora and pretrained parts."""
    return "; ".join(
        f"{entry['what']} {entry['of']}: {licences.describe_licence(entry)}"
        for entry in description["licences"]
    )


def _describe_model(metadata: Mapping[str, Any]) -> str:
    model = metadata.get("model")
    if not model:
        return ""
    mean = f", mean of {metadata['models']} models" if metadata["models"] > 1 else ""
    return f"{model['name']}, {model['encoders']}{mean}"


def _describe_scores(scores: Mapping[str, Any]) -> str:
    if not scores:
        return ""
    values = [
        f"{display.get_score_format(name).label} {_format_score(name, value, scores)}"
        for name, value in scores["values"].items()
    ]
    chosen = ", predicted with settings chosen without them" if scores.get("among") else ""
    utterances = format_count(scores["utterances"], "utterance")
    return f"{', '.join(values)} ({utterances}, {display.describe_speakers(scores)}{chosen})"


def _format_score(name: str, value: float, scores: Mapping[str, Any]) -> str:
    """Format a score, with its 95 % interval where it has one."""
    score_format = display.get_score_format(name)
    bounds = "-".join(map(score_format.format_value, scores["intervals"].get(name, ())))
    return f"{score_format.format_value(value)} ({bounds})" if bounds else score_format.format_value(value)


def _describe_threshold(calibration: Mapping[str, Any]) -> str:
    threshold = calibration.get("threshold")
    return "" if threshold is None else f"below a confidence of {threshold:.2f}"


def _describe_parity(parity: Mapping[str, Any]) -> str:
    # The bundle states one difference per output. The largest counts.
    worst = max(parity.get("largest_difference", {}).values(), default=None)
    return "" if worst is None else f"differs from torch by at most {worst:.1e}"


def _describe_loss(metadata: Mapping[str, Any]) -> str:
    """Describe the score that a reduced precision costs."""
    if metadata["precision"] == "fp32":
        return ""
    measured = metadata.get("measured")
    if not measured:
        return "not measured"
    if measured["loss_points"] is None:
        return f"not measured: {measured['corpus']} has no label to score"
    return (
        f"{measured['loss_points']:.2f} points on {measured['utterances']} recordings of {measured['corpus']}"
    )

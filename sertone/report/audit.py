"""One self-contained HTML page for an audit: verdicts, curves, groups, sounds that are no speech."""

from pathlib import Path
from typing import Any

from sertone.report import page
from sertone.report.strength_plot import plot_strengths
from sertone.sharing.card_audit import count_verdicts
from sertone.utils.wording import format_count

PARTS = ("correctness", "robustness", "fairness", "not speech")
CURVES = {"ua": "UA", "unchanged": "unchanged labels", "wrong_sure": "wrong among the sure labels"}
"""Field of a point -> name of its curve."""
GROUPS = {
    "room": "Rooms",
    "noise": "Noise",
    "microphone": "Microphones and levels",
    "codec": "Coding",
    "timing": "Time and pitch",
    "voice": "Voices",
}


def write(folder: Path, content: dict[str, Any]) -> Path:
    """Write `report.html` beside `audit.json`.

    Args:
        folder: folder of the audit.
        content: content of `audit.json`.

    Returns:
        the page's path.
    """
    clean = content["robustness"].get("unchanged", {"points": [None]})["points"][0]
    perturbations = {name: entry for name, entry in content["robustness"].items() if name != "unchanged"}
    return page.write(
        folder / "report.html",
        "audit.html",
        title=f"Audit of {Path(content['about']['model']).name}",
        subtitle=_describe(content["about"]),
        uses_text=content["about"].get("uses_text", False),
        warnings=content["about"].get("warnings", []),
        counts={part: count_verdicts(content["tests"], part) for part in PARTS},
        tests=content["tests"],
        failed=[test for test in content["tests"] if test["verdict"] == "failed"],
        skipped=[test for test in content["tests"] if test["verdict"] == "not testable"],
        emotion=content["correctness"].get("emotion"),
        ratings={name: scores for name, scores in content["correctness"].items() if name != "emotion"},
        clean=clean,
        groups=_group(perturbations, clean),
        curves=CURVES,
        fairness=content["fairness"],
        sounds=content["not_speech"],
        format_value=_format_value,
    )


def summarise(content: dict[str, Any]) -> list[str]:
    """Return one line for each part of an audit: passed, failed and not testable tests.

    Args:
        content: content of `audit.json`.
    """
    counts = {part: count_verdicts(content["tests"], part) for part in PARTS}
    return [
        f"{part}: {count['passed']} passed, {count['failed']} failed, {count['not testable']} not testable"
        for part, count in counts.items()
    ]


def _describe(about: dict[str, Any]) -> str:
    if not about["corpus"]:
        return "Without a corpus, on synthetic sounds alone."
    by_fold = ", each predicted by the fold that has not seen it" if about["by_fold"] else ""
    utterances = format_count(about["utterances"], "utterance")
    return f"{about['title']}: {utterances} of {format_count(about['speakers'], 'speaker')}{by_fold}."


def _group(perturbations: dict[str, Any], clean: dict[str, Any] | None) -> dict[str, list[dict[str, Any]]]:
    """Return the perturbations by group, each with its plot."""
    from markupsafe import Markup

    groups: dict[str, list[dict[str, Any]]] = {}
    for entry in perturbations.values():
        points = [clean, *entry["points"]]
        ticks = ["none", *(f"{point['strength']:g}" for point in entry["points"])]
        curves = {name: [point[key] for point in points] for key, name in CURVES.items()}
        first, last = (f"{point['ua']['value']:.0%}" for point in (points[0], points[-1]))
        alt = f"{entry['label']}: UA from {first} without to {last} at {ticks[-1]} {entry['unit']}"
        svg = Markup(plot_strengths(ticks, curves, entry["unit"], alt))
        groups.setdefault(GROUPS[entry["group"]], []).append(entry | {"svg": svg, "strongest": points[-1]})
    return groups


def _format_value(test: dict[str, Any], key: str) -> str:
    """Return a value or a threshold: CCC as a number, all else in percent."""
    value = test[key]
    if value is None:
        return "–"
    return f"{value:.2f}" if test["name"].endswith("CCC") else f"{value:.1%}"

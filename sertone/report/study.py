"""The page of a study: its table, the differences between its rows, the paper's figures beside."""

import json
from pathlib import Path
from typing import Any

from sertone import licences
from sertone.report import page, plots


def write(study: Path) -> Path:
    """Writes `report.html` from `results.json` of a study's folder.

    Args:
        study: the folder.

    Returns:
        the page's path.
    """
    from markupsafe import Markup

    found = json.loads((study / "results.json").read_text(encoding="utf-8"))
    return page.write(
        study / "report.html",
        "study.html",
        title=found["title"],
        subtitle=_subtitle(found),
        found=found,
        shown=[column for column in found["columns"] if any(column in row["cells"] for row in found["rows"])],
        plots=[
            {"name": column, "svg": Markup(svg)}
            for column in found["columns"]
            if (svg := _differences(found, column))
        ],
        licence=licences.in_words(found["corpus"]["licence"]),
        comparisons=_comparisons(found),
    )


def _subtitle(found: dict[str, Any]) -> str:
    corpus, split = found["corpus"], found["split"]["split"].replace("_", " ")
    seeds = "seed " if len(found["seeds"]) == 1 else "seeds "
    return (
        f"{corpus['title']}: {corpus['utterances_used']} utterances of {corpus['speakers']} speakers, "
        f"{found['folds']} folds ({split}), speaker-independent, "
        f"{seeds}{', '.join(map(str, found['seeds']))}"
    )


def _differences(found: dict[str, Any], column: str) -> str:
    """Every row's difference in the first score from the one compared to, with its interval."""
    score, label = next(iter(found["scores"].items()))
    shown = []
    for row in found["rows"]:
        difference = row["cells"].get(column, {"scores": {}})["scores"].get(score, {}).get("difference")
        if difference:
            low, value, high = (100 * difference[key] for key in ("low", "value", "high"))
            shown.append((row["name"], low, value, high))
    if not shown:
        return ""
    words = "; ".join(f"{name} {value:+.1f} ({low:+.1f} to {high:+.1f})" for name, low, value, high in shown)
    return plots.differences(
        shown, f"{label} of {column}: difference from {found['compared_to']} in points. {words}"
    )


def _comparisons(found: dict[str, Any]) -> int:
    """How many differences the page shows: so many chances of a false alarm."""
    score = next(iter(found["scores"]))
    cells = [cell for row in found["rows"] for cell in row["cells"].values()]
    return sum(bool(cell["scores"][score]["difference"]) for cell in cells)

"""The page of a study: its table, the differences between its rows, the paper's figures beside."""

import json
import math
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
        plots=[{"name": column, "svg": Markup(svg)} for column, svg in _plots(found).items()],
        licence=licences.in_words(found["corpus"]["licence"]),
        comparisons=_comparisons(found),
        forced=any(cell["other_settings"] for row in found["rows"] for cell in row["cells"].values()),
    )


def _subtitle(found: dict[str, Any]) -> str:
    corpus, split = found["corpus"], found["split"]["split"].replace("_", " ")
    seeds = "seed " if len(found["seeds"]) == 1 else "seeds "
    return (
        f"{corpus['title']}: {corpus['utterances_used']} utterances of {corpus['speakers']} speakers, "
        f"{found['folds']} folds ({split}), speaker-independent, "
        f"{seeds}{', '.join(map(str, found['seeds']))}"
    )


def _plots(found: dict[str, Any]) -> dict[str, str]:
    """Column -> plot of its rows' differences in the first score, all on one scale."""
    score = found["main_score"]
    label = found["scores"][score]
    rows = {column: _differences(found, column, score) for column in found["columns"]}
    bounds = [abs(bound) for own in rows.values() for _, low, _, high in own for bound in (low, high)]
    reach = 10.0 * max(1, math.ceil(max(bounds, default=0.0) / 10))
    made = {}
    for column, own in rows.items():
        words = "; ".join(
            f"{name} {value:+.1f} ({low:+.1f} to {high:+.1f})" for name, low, value, high in own
        )
        alt = f"{label} of {column}: difference from {found['compared_to']} in points. {words}"
        if own:
            made[column] = plots.differences(own, reach, alt)
    return made


def _differences(found: dict[str, Any], column: str, score: str) -> list[tuple[str, float, float, float]]:
    """Name, lower bound, value and upper bound of every row's difference, in points."""
    shown = []
    for row in found["rows"]:
        difference = row["cells"].get(column, {"scores": {}})["scores"].get(score, {}).get("difference")
        if difference:
            low, value, high = (100 * difference[key] for key in ("low", "value", "high"))
            shown.append((row["name"], low, value, high))
    return shown


def _comparisons(found: dict[str, Any]) -> int:
    """How many differences the page shows: so many chances of a false alarm."""
    score = found["main_score"]
    cells = [cell for row in found["rows"] for cell in row["cells"].values()]
    return sum(bool(cell["scores"][score]["difference"]) for cell in cells)

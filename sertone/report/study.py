"""The page of a study: its table, the differences between its rows, the paper's figures beside."""

import json
import math
from pathlib import Path
from typing import Any

from sertone import licences
from sertone.report import cost_plot, page, plots
from sertone.report.cost_plot import System
from sertone.scoring import display
from sertone.scoring.display import ScoreFormat, format_count


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
        licence=licences.describe_licence(found["corpus"]["licence"]),
        cost_plots=[{"name": column, "svg": Markup(svg)} for column, svg in _cost_plots(found).items()],
        plotted=f"from left to right {', '.join(found['scores'][name] for name in _evident(found))}",
        cost_words=display.describe_costs(found["rows"]),
        cost=display.format_cost,
        comparisons=_comparisons(found),
        units=display.describe_units(found["scores"]),
        unknown=display.describe_unknown_speakers(found),
        drawn=display.describe_drawn_units(found["tested"]),
        published=display.describe_published_scores(found),
        forced=any(cell["other_settings"] for row in found["rows"] for cell in row["cells"].values()),
    )


def _subtitle(found: dict[str, Any]) -> str:
    corpus, split = found["corpus"], found["split"]["split"].replace("_", " ")
    seeds = "seed " if len(found["seeds"]) == 1 else "seeds "
    return (
        f"{corpus['title']}: {format_count(corpus['utterances_used'], 'utterance')} of {display.describe_speakers(corpus)}, "
        f"{format_count(found['folds'], 'fold')} ({split}), {display.describe_independence(found)}, "
        f"{seeds}{', '.join(map(str, found['seeds']))}"
    )


def _plots(found: dict[str, Any]) -> dict[str, str]:
    """Column -> plot of its rows' differences in the main score, all on one scale."""
    figure = display.get_score_format(found["main_score"])
    rows = {column: _differences(found, column, figure) for column in found["columns"]}
    bounds = [abs(bound) for own in rows.values() for _, low, _, high in own for bound in (low, high)]
    step = figure.display_factor / 10
    reach = step * max(1, math.ceil(max(bounds, default=0.0) / step))
    made = {}
    for column, own in rows.items():
        words = "; ".join(
            f"{name} {value:+.3g} ({low:+.3g} to {high:+.3g})" for name, low, value, high in own
        )
        points = " in points" if figure.is_percent else ""
        alt = f"{figure.label} of {column}: difference from {found['compared_to']}{points}. {words}"
        if own:
            made[column] = plots.plot_differences(own, reach, alt)
    return made


def _cost_plots(found: dict[str, Any]) -> dict[str, str]:
    """Column -> plot of its rows' scores against what they cost; none without costs."""
    made = {}
    for column in found["columns"] if found["costs"] else ():
        cells = {row["name"]: row["cells"][column] for row in found["rows"] if column in row["cells"]}
        systems = [_system(name, cell, found) for name, cell in cells.items() if cell.get("cost")]
        if systems := [system for system in systems if system.scores]:
            words = "; ".join(
                f"{s.name} {s.cost:.3g} M: " + ", ".join(f"{k} {v[1]:.3f}" for k, v in s.scores.items())
                for s in systems
            )
            alt = f"{column}: scores against millions of trained parameters. {words}"
            made[column] = cost_plot.plot_cost(systems, "trained parameters, millions", "score", alt)
    return made


def _evident(found: dict[str, Any]) -> list[str]:
    """The scores that have intervals."""
    cells = [cell for row in found["rows"] for cell in row["cells"].values()]
    return [name for name in found["scores"] if any(cell["scores"][name]["interval"] for cell in cells)]


def _system(name: str, cell: dict[str, Any], found: dict[str, Any]) -> System:
    scores = {label: cell["scores"][key] for key, label in found["scores"].items()}
    spans = {
        label: (score["interval"][0], score["value"], score["interval"][1])
        for label, score in scores.items()
        if score["interval"]
    }
    return System(name, cell["cost"]["trained"] / 1e6, spans)


def _differences(
    found: dict[str, Any], column: str, figure: ScoreFormat
) -> list[tuple[str, float, float, float]]:
    """Name, lower bound, value and upper bound of every row's difference, in points or as printed."""
    shown, score = [], found["main_score"]
    for row in found["rows"]:
        difference = row["cells"].get(column, {"scores": {}})["scores"].get(score, {}).get("difference")
        if difference:
            low, value, high = (figure.display_factor * difference[key] for key in ("low", "value", "high"))
            shown.append((row["name"], low, value, high))
    return shown


def _comparisons(found: dict[str, Any]) -> int:
    """How many differences the page shows: so many chances of a false alarm."""
    score = found["main_score"]
    cells = [cell for row in found["rows"] for cell in row["cells"].values()]
    return sum(bool(cell["scores"][score]["difference"]) for cell in cells)

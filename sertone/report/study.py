"""The page of a study: its table beside the paper's scores, and the differences between its rows."""

import json
import math
from pathlib import Path
from typing import Any

from sertone import licences
from sertone.report import cost_plot, page, plots
from sertone.report.cost_plot import System
from sertone.scoring import display
from sertone.scoring.display import ScoreFormat
from sertone.utils.wording import format_count


def write(study: Path) -> Path:
    """Write `report.html` from `results.json` of a study's folder.

    Args:
        study: the folder.

    Returns:
        the page's path.
    """
    from markupsafe import Markup

    results = json.loads((study / "results.json").read_text(encoding="utf-8"))
    rows = results["rows"]
    labels = [results["scores"][name] for name in _list_scores_with_intervals(results)]
    return page.write(
        study / "report.html",
        "study.html",
        title=results["title"],
        subtitle=_build_subtitle(results),
        results=results,
        # A study in progress may have columns without a cell.
        shown=[column for column in results["columns"] if any(column in row["cells"] for row in rows)],
        plots=[{"name": column, "svg": Markup(svg)} for column, svg in _plot_differences(results).items()],
        licence=licences.describe_licence(results["corpus"]["licence"]),
        cost_plots=[{"name": column, "svg": Markup(svg)} for column, svg in _plot_costs(results).items()],
        plotted=", ".join(labels),
        cost_note=display.describe_costs(rows),
        cost=display.format_cost,
        comparisons=_count_comparisons(results),
        units=display.describe_units(results["scores"]),
        unknown=display.describe_unknown_speakers(results),
        drawn=display.describe_drawn_units(results["tested"]),
        published=display.describe_published_scores(results),
        forced=any(cell["other_settings"] for row in rows for cell in row["cells"].values()),
    )


def _build_subtitle(results: dict[str, Any]) -> str:
    corpus = results["corpus"]
    split = results["split"]["split"].replace("_", " ")
    utterances = format_count(corpus["utterances_used"], "utterance")
    seeds = "seed " if len(results["seeds"]) == 1 else "seeds "
    return (
        f"{corpus['title']}: {utterances} of {display.describe_speakers(corpus)}, "
        f"{format_count(results['folds'], 'fold')} ({split}), {display.describe_independence(results)}, "
        f"{seeds}{', '.join(map(str, results['seeds']))}"
    )


def _plot_differences(results: dict[str, Any]) -> dict[str, str]:
    """Return column -> plot of its rows' differences in the main score, all on one scale."""
    score_format = display.get_score_format(results["main_score"])
    rows = {column: _collect_differences(results, column, score_format) for column in results["columns"]}
    bounds = [
        abs(bound)
        for differences in rows.values()
        for _, low, _, high in differences
        for bound in (low, high)
    ]
    # The axis ends at the next tenth of the score's unit, such as 10 points.
    step = score_format.display_factor / 10
    reach = step * max(1, math.ceil(max(bounds, default=0.0) / step))
    plots_by_column = {}
    for column, differences in rows.items():
        values = "; ".join(
            f"{name} {value:+.3g} ({low:+.3g} to {high:+.3g})" for name, low, value, high in differences
        )
        points = " in points" if score_format.is_percent else ""
        alt = f"{score_format.label} of {column}: difference from {results['compared_to']}{points}. {values}"
        if differences:
            plots_by_column[column] = plots.plot_differences(differences, reach, alt)
    return plots_by_column


def _plot_costs(results: dict[str, Any]) -> dict[str, str]:
    """Return column -> plot of its rows' scores against their cost; empty without costs."""
    plots_by_column = {}
    for column in results["columns"] if results["costs"] else ():
        cells = {row["name"]: row["cells"][column] for row in results["rows"] if column in row["cells"]}
        systems = [_build_system(name, cell, results) for name, cell in cells.items() if cell.get("cost")]
        if systems := [system for system in systems if system.scores]:
            values = "; ".join(map(_describe_system, systems))
            alt = f"{column}: scores against millions of trained parameters. {values}"
            plots_by_column[column] = cost_plot.plot_cost(
                systems, "trained parameters, millions", "score", alt
            )
    return plots_by_column


def _describe_system(system: System) -> str:
    scores = ", ".join(f"{label} {value:.3f}" for label, (_, value, _) in system.scores.items())
    return f"{system.name} {system.cost:.3g} M: {scores}"


def _list_scores_with_intervals(results: dict[str, Any]) -> list[str]:
    cells = [cell for row in results["rows"] for cell in row["cells"].values()]
    return [name for name in results["scores"] if any(cell["scores"][name]["interval"] for cell in cells)]


def _build_system(name: str, cell: dict[str, Any], results: dict[str, Any]) -> System:
    scores = {label: cell["scores"][key] for key, label in results["scores"].items()}
    intervals = {
        label: (score["interval"][0], score["value"], score["interval"][1])
        for label, score in scores.items()
        if score["interval"]
    }
    return System(name, cell["cost"]["trained"] / 1e6, intervals)  # parameters in millions


def _collect_differences(
    results: dict[str, Any], column: str, score_format: ScoreFormat
) -> list[tuple[str, float, float, float]]:
    """Return name, lower bound, value and upper bound of every row's difference, in points or as printed."""
    differences = []
    for row in results["rows"]:
        scores = row["cells"].get(column, {"scores": {}})["scores"]
        difference = scores.get(results["main_score"], {}).get("difference")
        if difference:
            low, value, high = (
                score_format.display_factor * difference[key] for key in ("low", "value", "high")
            )
            differences.append((row["name"], low, value, high))
    return differences


def _count_comparisons(results: dict[str, Any]) -> int:
    """Return the number of differences on the page: each one can be a false alarm."""
    score = results["main_score"]
    cells = [cell for row in results["rows"] for cell in row["cells"].values()]
    return sum(bool(cell["scores"][score]["difference"]) for cell in cells)

"""The page's section on ratings: scores by dimension, predictions against ratings, valence and arousal."""

from collections.abc import Sized
from typing import Any

import numpy as np

from sertone.report import scatter_plot
from sertone.report.plots import Axis
from sertone.scoring import display
from sertone.scoring.sufficient_statistics import get_task_columns, select_labelled

PLANE = ("valence", "arousal")
MAX_DOTS = 800
"""Most dots in a plot; more would make the page heavy and cover the plot."""


def build_section(results: dict, rows: list[dict]) -> dict | None:
    """Return the values that `_ratings.html` shows; None if nothing was rated.

    Args:
        results: results of a run, as in results.json.
        rows: rows of predictions.csv.
    """
    scales = {name: scale for name, scale in results["ratings"].items() if name in results["pooled"]}
    if not scales:
        return None
    return {
        "table": [_build_line(results, name, scale) for name, scale in scales.items()],
        "plots": [_plot_predictions(name, scale, rows) for name, scale in scales.items()],
        "planes": _plot_planes(results, rows),
    }


def _build_line(results: dict, name: str, scale: dict) -> dict[str, Any]:
    pooled = results["pooled"][name]
    return {
        "name": name,
        "scale": f"{scale['low']:g} to {scale['high']:g} {scale['unit']}",
        "utterances": pooled["utterances"],
        "scores": [_build_cell(pooled, score) for score in display.RATING_SCORES],
    }


def _build_cell(pooled: dict, score: str) -> dict[str, str]:
    score_format = display.SCORE_FORMATS[score]
    interval = display.find_speaker_interval(pooled["intervals"])
    bounds = interval[1][score] if interval else ()
    return {
        "value": score_format.format_value(pooled[score]),
        "interval": " – ".join(map(score_format.format_value, bounds)),
    }


def _plot_predictions(name: str, scale: dict, rows: list[dict]) -> dict[str, Any]:
    """Plot the prediction against the target of every utterance, with the diagonal."""
    from markupsafe import Markup

    pairs = np.array(
        [[float(row[column]) for column in get_task_columns(name)] for row in select_labelled(rows, name)]
    )
    axes = (
        Axis.from_scale(f"{name}, annotators", scale, pairs),
        Axis.from_scale(f"{name}, predicted", scale, pairs),
    )
    drawn = pairs[_sample_utterances(len(pairs))]
    svg = scatter_plot.plot_scatter({"": drawn}, *axes, _describe_thirds(name, pairs), diagonal=True)
    note = _describe_sample(drawn, pairs)
    return {"title": name.capitalize(), "svg": Markup(svg), "note": note, "names": []}


def _describe_thirds(name: str, pairs: np.ndarray) -> str:
    """Return the text alternative: mean predictions for low, middle and high targets."""
    # A stable sort keeps the text the same on every machine.
    thirds = np.array_split(pairs[pairs[:, 0].argsort(kind="stable")], min(3, len(pairs)))
    means = "; ".join(f"rated {t:.2f}, predicted {p:.2f}" for t, p in (third.mean(0) for third in thirds))
    return f"Predictions of {name} and the annotators' ratings, means from the lowest to the highest: {means}"


def _plot_planes(results: dict, rows: list[dict]) -> list[dict[str, Any]]:
    """Plot valence and arousal as rated and as predicted; empty if one of them was not rated."""
    if not all(rating in results["ratings"] for rating in PLANE):
        return []
    rows = select_labelled(select_labelled(rows, PLANE[0]), PLANE[1])
    if not rows:
        return []
    # The columns of a task are its target and its prediction, in this order.
    return [_plot_plane(results, rows, 0, "annotators"), _plot_plane(results, rows, 1, "predicted")]


def _plot_plane(results: dict, rows: list[dict], column: int, source: str) -> dict[str, Any]:
    """Plot targets or predictions (`column` of a task's columns), coloured by the true emotion."""
    from markupsafe import Markup

    points = np.array([[float(row[get_task_columns(rating)[column]]) for rating in PLANE] for row in rows])
    x, y = (
        Axis.from_scale(f"{rating}, {source}", results["ratings"][rating], points[:, axis])
        for axis, rating in enumerate(PLANE)
    )
    sample = _sample_utterances(len(rows))
    emotions = np.array([row.get("target", "") for row in rows])
    classes = [name for name in results["classes"] if (emotions == name).any()]
    drawn = points[sample]
    if column == 0:
        drawn = drawn + _jitter(len(sample), x, y)
    groups = {name: drawn[emotions[sample] == name] for name in ("", *classes)}
    means = {name: points[emotions == name].mean(0) for name in classes}
    svg = scatter_plot.plot_scatter(groups, x, y, _describe_means(source, points, means), marked=means)
    title = f"Valence and arousal, {source}"
    return {"title": title, "svg": Markup(svg), "note": _describe_sample(sample, rows), "names": classes}


def _jitter(count: int, x: Axis, y: Axis) -> np.ndarray:
    """Return small shifts, (N, 2): mean ratings take few values, so dots would hide each other."""
    return np.random.default_rng(0).uniform(-0.02, 0.02, (count, 2)) * (x.high - x.low, y.high - y.low)


def _describe_means(source: str, points: np.ndarray, means: dict[str, np.ndarray]) -> str:
    named = means or {"all": points.mean(0)}
    values = "; ".join(f"{name} {v:.2f} and {a:.2f}" for name, (v, a) in named.items())
    return f"Valence and arousal, {source}, means by true emotion: {values}"


def _sample_utterances(count: int) -> np.ndarray:
    """Return the indices of the utterances to draw; the same ones on every call."""
    if count <= MAX_DOTS:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, MAX_DOTS, replace=False))


def _describe_sample(drawn: Sized, rows: Sized) -> str:
    if len(drawn) == len(rows):
        return ""
    return f"{len(drawn)} of {len(rows)} utterances, chosen at random"

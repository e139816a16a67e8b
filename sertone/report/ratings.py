"""The page's section on ratings: scores by dimension, answers beside the annotators', valence and arousal."""

from collections.abc import Sized
from typing import Any

import numpy as np

from sertone.report import plots
from sertone.report.plots import Axis
from sertone.scoring import display
from sertone.scoring.sufficient_statistics import get_task_columns, select_labelled

PLANE = ("valence", "arousal")
MOST = 800
"""Dots in a plot; more would make the page heavy and the plot black."""


def build_section(results: dict, rows: list[dict]) -> dict | None:
    """What `_ratings.html` shows; None where nothing was rated.

    Args:
        results: of a run, as in results.json.
        rows: of predictions.csv.
    """
    scored = {name: scale for name, scale in results["ratings"].items() if name in results["pooled"]}
    if not scored:
        return None
    shown = [_against_truth(name, scale, rows) for name, scale in scored.items()]
    return {
        "table": [_line(results, name, scale) for name, scale in scored.items()],
        "plots": shown,
        "planes": _planes(results, rows),
    }


def _line(results: dict, name: str, scale: dict) -> dict[str, Any]:
    pooled = results["pooled"][name]
    return {
        "name": name,
        "scale": f"{scale['low']:g} to {scale['high']:g} {scale['unit']}",
        "utterances": pooled["utterances"],
        "scores": [_cell(pooled, score) for score in display.RATING_SCORES],
    }


def _cell(pooled: dict, score: str) -> dict[str, str]:
    figure, over = display.SCORE_FORMATS[score], display.find_speaker_interval(pooled["intervals"])
    span = " – ".join(map(figure.format_value, over[1][score])) if over else ""
    return {"value": figure.format_value(pooled[score]), "interval": span}


def _against_truth(name: str, scale: dict, rows: list[dict]) -> dict[str, Any]:
    """Every utterance's answer over its target, with the diagonal."""
    from markupsafe import Markup

    pairs = np.array(
        [[float(row[column]) for column in get_task_columns(name)] for row in select_labelled(rows, name)]
    )
    axes = (
        Axis.from_scale(f"{name}, annotators", scale, pairs),
        Axis.from_scale(f"{name}, answered", scale, pairs),
    )
    drawn = pairs[_chosen(len(pairs))]
    svg = plots.plot_scatter({"": drawn}, *axes, _thirds(name, pairs), diagonal=True)
    return {"title": name.capitalize(), "svg": Markup(svg), "note": _note(drawn, pairs), "names": []}


def _thirds(name: str, pairs: np.ndarray) -> str:
    """What the plot shows, in words: mean answers for low, middle and high targets."""
    parts = np.array_split(pairs[pairs[:, 0].argsort(kind="stable")], min(3, len(pairs)))
    words = "; ".join(f"rated {t:.2f}, answered {p:.2f}" for t, p in (part.mean(0) for part in parts))
    return (
        f"Answers about {name} against the annotators' ratings, means from the lowest to the highest: {words}"
    )


def _planes(results: dict, rows: list[dict]) -> list[dict[str, Any]]:
    """Valence and arousal as rated and as answered; nothing where one of them has not been rated."""
    if not all(side in results["ratings"] for side in PLANE):
        return []
    rows = select_labelled(select_labelled(rows, PLANE[0]), PLANE[1])
    words = ("annotators", "answered")
    return [_plane(results, rows, number, word) for number, word in enumerate(words)] if rows else []


def _plane(results: dict, rows: list[dict], number: int, word: str) -> dict[str, Any]:
    """Targets or answers (`number` of the columns), coloured by the true emotion."""
    from markupsafe import Markup

    points = np.array([[float(row[get_task_columns(side)[number]]) for side in PLANE] for row in rows])
    x, y = (
        Axis.from_scale(f"{side}, {word}", results["ratings"][side], points[:, axis])
        for axis, side in enumerate(PLANE)
    )
    chosen, emotions = _chosen(len(rows)), np.array([row.get("target", "") for row in rows])
    classes = [name for name in results["classes"] if (emotions == name).any()]
    shown = points[chosen] + (_spread(len(chosen), x, y) if number == 0 else 0)
    groups = {name: shown[emotions[chosen] == name] for name in ("", *classes)}
    means = {name: points[emotions == name].mean(0) for name in classes}
    svg = plots.plot_scatter(groups, x, y, _means(word, points, means), marked=means)
    title, note = f"Valence and arousal, {word}", _note(chosen, rows)
    return {"title": title, "svg": Markup(svg), "note": note, "names": classes}


def _spread(count: int, x: Axis, y: Axis) -> np.ndarray:
    """Small shifts, (N, 2): mean ratings are few values, and dots would hide each other."""
    return np.random.default_rng(0).uniform(-0.02, 0.02, (count, 2)) * (x.high - x.low, y.high - y.low)


def _means(word: str, points: np.ndarray, means: dict[str, np.ndarray]) -> str:
    shown = means or {"all": points.mean(0)}
    words = "; ".join(f"{name} {v:.2f} and {a:.2f}" for name, (v, a) in shown.items())
    return f"Valence and arousal, {word}, means by true emotion: {words}"


def _chosen(count: int) -> np.ndarray:
    """Which of so many utterances are drawn; always the same."""
    if count <= MOST:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, MOST, replace=False))


def _note(drawn: Sized, every: Sized) -> str:
    return "" if len(drawn) == len(every) else f"{len(drawn)} of {len(every)} utterances, chosen at random"

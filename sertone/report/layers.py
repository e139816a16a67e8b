"""The page of `sertone layers`: scores by layer, where each target is encoded, learned weights, protocol."""

import json
import math
from pathlib import Path
from typing import Any

from sertone import licences
from sertone.report import layer_plots, page, plots
from sertone.scoring import display
from sertone.scoring.display import ScoreFormat
from sertone.utils.wording import format_count

KINDS = {"ccc": "Ratings", "ua": "Classes", "wa": "Classes"}
"""Main score -> heading of the plot that shows it."""


def write(folder: Path) -> Path:
    """Write `report.html` from `layers.json`.

    Args:
        folder: the output folder of `sertone layers`.

    Returns:
        the page's path.
    """
    from markupsafe import Markup

    results = json.loads((folder / "layers.json").read_text(encoding="utf-8"))
    return page.write(
        folder / "report.html",
        "layers.html",
        title=f"Layers of {results['encoder']}",
        subtitle=_build_subtitle(results),
        results=results,
        plots=[{"name": name, "svg": Markup(svg)} for name, svg in _plot_scores(results).items()],
        statements=describe_results(results),
        differences=Markup(_plot_distances(results)) if _select_pairs(results) else "",
        weights=[weights | {"svg": Markup(_plot_weights(weights))} for weights in results["weights"]],
        format_label=format_label,
        get_figure=get_figure,
        format_interval=format_interval,
        licence=licences.describe_licence(results["corpus"]["licence"]),
        drawn=describe_drawn_units(results),
        unknown=results["corpus"].get("unknown_speakers", 0),
    )


def describe_results(results: dict[str, Any]) -> list[str]:
    """Return the results as sentences: one per target, one per pair of ratings, one per clear distance."""
    drawn = describe_drawn_units(results)
    targets = [
        _describe_target(name, target, "speakers" if name == "speaker" else drawn)
        for name, target in results["targets"].items()
    ]
    return targets + [_describe_pair(pair) for pair in _select_pairs(results)]


def describe_drawn_units(results: dict[str, Any]) -> str:
    """Return the units that intervals draw: `speakers`, or utterances where their speakers are unknown."""
    drawn = display.describe_drawn_units(results["tested"])
    return drawn if results["tested"]["speakers"] else f"{drawn} of unknown speakers"


def _select_pairs(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the pairs of targets to report: all pairs of ratings, and all pairs with a clear distance."""
    ratings = {name for name, target in results["targets"].items() if target["score"] == "ccc"}
    return [
        pair
        for pair in results["apart"]
        if _excludes_zero(pair) or {pair["first"], pair["second"]} <= ratings
    ]


def format_label(name: str, target: dict[str, Any]) -> str:
    """Return a target with its score: `CCC arousal`, `UA emotion`, `accuracy speaker`."""
    return f"{get_figure(target).label} {name}"


def get_figure(target: dict[str, Any]) -> ScoreFormat:
    """Return the format of a target's main score; the weighted accuracy of speakers is called accuracy."""
    return display.SCORE_FORMATS["accuracy" if target["score"] == "wa" else target["score"]]


def format_interval(target: dict[str, Any], layer: dict[str, Any]) -> str:
    """Return the interval of the main score, such as `.310 – .452`; empty if there is none."""
    bounds = layer["intervals"].get(target["score"], ())
    return " – ".join(map(get_figure(target).format_number, bounds))


def _build_subtitle(results: dict[str, Any]) -> str:
    corpus = results["corpus"]
    split = results["split"]["split"].replace("_", " ")
    utterances = format_count(corpus["utterances_used"], "utterance")
    return (
        f"{corpus['title']}: {utterances} of {display.describe_speakers(corpus)}; "
        f"frozen encoder, {results['modality']}, {results['pooling']} over time, one linear probe per layer; "
        f"{results['folds']} folds ({split})"
    )


def _describe_target(name: str, target: dict[str, Any], drawn: str) -> str:
    best = target["best"]
    centre = target["centre"]
    score = target["layers"][best["layer"]]["scores"][target["score"]]
    label = format_label(name, target)
    # str.capitalize would make the rest of the label lower case.
    text = f"{label[0].upper()}{label[1:]} is highest at layer {best['layer']} "
    text += f"({get_figure(target).format_value(score)})"
    if "range" in best:
        low, high = best["range"]
        layers = f"at layer {low}" if low == high else f"between layers {low} and {high}"
        text += f"; in 95 % of the draws of {drawn}, the highest layer is {layers}"
    if centre is None:
        return f"{text}. All layers together are not above chance, so it has no centre."
    low, high = centre["interval"]
    return f"{text}. Its centre is at layer {centre['value']:.1f} ({low:.1f} to {high:.1f})."


def _describe_pair(pair: dict[str, Any]) -> str:
    first, second = pair["first"], pair["second"]
    value, low, high = pair["value"], pair["low"], pair["high"]
    if value < 0:  # name the earlier target first
        first, second = second, first
        value, low, high = -value, -high, -low
    distance = f"{value:.1f} layers before {second} ({low:.1f} to {high:.1f}), p {pair['p']:.3f}"
    if _excludes_zero(pair):
        return f"{first.capitalize()} lies {distance}."
    return f"The data do not show whether {first} or {second} lies deeper: {first} lies {distance}."


def _excludes_zero(pair: dict[str, Any]) -> bool:
    return not pair["low"] <= 0 <= pair["high"]


def _plot_scores(results: dict[str, Any]) -> dict[str, str]:
    """Return title -> plot: one plot for the ratings, one for the classes."""
    by_kind: dict[str, dict[str, list[layer_plots.Point]]] = {}
    for name, target in results["targets"].items():
        points = [_build_point(target, layer) for layer in target["layers"]]
        by_kind.setdefault(KINDS[target["score"]], {})[name] = points
    plots_by_title = {}
    for kind, series in by_kind.items():
        scores = {name: get_figure(results["targets"][name]).label for name in series}
        curves = "; ".join(
            f"{scores[name]} of {name} {_describe_curve(points)}" for name, points in series.items()
        )
        title = f"{kind}: {', '.join(dict.fromkeys(scores.values()))}"
        alt = f"{title} by layer, with 95 % intervals. {curves}"
        plots_by_title[title] = layer_plots.plot_layers(series, "", alt)
    return plots_by_title


def _build_point(target: dict[str, Any], layer: dict[str, Any]) -> layer_plots.Point:
    value = layer["scores"][target["score"]]
    low, high = layer["intervals"].get(target["score"], (value, value))
    return low, value, high


def _describe_curve(points: list[layer_plots.Point]) -> str:
    """Return such as `from 0.12 at layer 0 to 0.45 at layer 12, highest 0.61 at layer 4`."""
    values = [value for _, value, _ in points]
    best = values.index(max(values))
    return (
        f"from {values[0]:.2f} at layer 0 to {values[-1]:.2f} at layer {len(values) - 1}, "
        f"highest {values[best]:.2f} at layer {best}"
    )


def _plot_distances(results: dict[str, Any]) -> str:
    rows = [
        (f"{pair['second']} - {pair['first']}", pair["low"], pair["value"], pair["high"])
        for pair in _select_pairs(results)
    ]
    # The axis reaches the next whole layer beyond the widest interval.
    reach = max(1, math.ceil(max(abs(bound) for _, low, _, high in rows for bound in (low, high))))
    values = "; ".join(f"{name} {value:+.1f} ({low:+.1f} to {high:+.1f})" for name, low, value, high in rows)
    return plots.plot_differences(rows, reach, f"Distances of the centres, in layers. {values}")


def _plot_weights(weights: dict[str, Any]) -> str:
    spread = weights["spread"] or [0.0] * len(weights["mean"])  # a single model has no spread
    points = [
        (value - reach, value, value + reach) for value, reach in zip(weights["mean"], spread, strict=True)
    ]
    values = ", ".join(f"{number}: {value:.3f}" for number, value in enumerate(weights["mean"], 1))
    name = weights["target"] or "all"
    alt = f"Softmax weight by layer. {values}"
    return layer_plots.plot_layers({name: points}, "", alt, first=1)  # the encoder's input has no weight

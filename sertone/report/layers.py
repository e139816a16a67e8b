"""The page of `sertone layers`: scores by layer, where each target lies, learned weights, protocol."""

import json
import math
from pathlib import Path
from typing import Any

from sertone import licences
from sertone.report import layer_plots, page, plots
from sertone.scoring import display
from sertone.scoring.display import ScoreFormat, format_count

KINDS = {"ccc": "Ratings", "ua": "Classes", "wa": "Classes"}
"""Main score -> heading of the plot that shows it."""


def write(folder: Path) -> Path:
    """Writes `report.html` from `layers.json`.

    Args:
        folder: what `analysis.layers` wrote.

    Returns:
        the page's path.
    """
    from markupsafe import Markup

    found = json.loads((folder / "layers.json").read_text(encoding="utf-8"))
    return page.write(
        folder / "report.html",
        "layers.html",
        title=f"Layers of {found['encoder']}",
        subtitle=_subtitle(found),
        found=found,
        plots=[{"name": name, "svg": Markup(svg)} for name, svg in _plots(found).items()],
        statements=describe_results(found),
        differences=Markup(_differences(found)) if _told(found) else "",
        weights=[own | {"svg": Markup(_weights(own))} for own in found["weights"]],
        label=format_label,
        figure_of=get_figure,
        span=format_interval,
        licence=licences.describe_licence(found["corpus"]["licence"]),
        over=describe_drawn_units(found),
        unknown=found["corpus"].get("unknown_speakers", 0),
    )


def describe_results(found: dict[str, Any]) -> list[str]:
    """What was found, in sentences: of each target, of every two ratings, and of others that lie apart."""
    return [
        *(
            _of_target(name, target, "speakers" if name == "speaker" else describe_drawn_units(found))
            for name, target in found["targets"].items()
        ),
        *(_apart(pair) for pair in _told(found)),
    ]


def describe_drawn_units(found: dict[str, Any]) -> str:
    """Return what intervals draw: `speakers`, or utterances where their speakers are unknown."""
    drawn = display.describe_drawn_units(found["tested"])
    return drawn if found["tested"]["speakers"] else f"{drawn} of unknown speakers"


def _told(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The pairs that are spoken of."""
    rated = {name for name, target in found["targets"].items() if target["score"] == "ccc"}
    return [pair for pair in found["apart"] if _known(pair) or {pair["first"], pair["second"]} <= rated]


def format_label(name: str, target: dict[str, Any]) -> str:
    """`CCC arousal`, `UA emotion`, `accuracy speaker`."""
    return f"{get_figure(target).label} {name}"


def get_figure(target: dict[str, Any]) -> ScoreFormat:
    """How its main score is printed; of speakers the share of right answers is called accuracy."""
    return display.SCORE_FORMATS["accuracy" if target["score"] == "wa" else target["score"]]


def format_interval(target: dict[str, Any], layer: dict[str, Any]) -> str:
    """`.310 – .452`, the interval of the main score; empty where there is none."""
    bounds = layer["intervals"].get(target["score"], ())
    return " – ".join(map(get_figure(target).format_number, bounds))


def _subtitle(found: dict[str, Any]) -> str:
    corpus, split = found["corpus"], found["split"]["split"].replace("_", " ")
    return (
        f"{corpus['title']}: {format_count(corpus['utterances_used'], 'utterance')} of {display.describe_speakers(corpus)}; "
        f"frozen, {found['modality']}, {found['pooling']} over time, a linear probe per layer; "
        f"{found['folds']} folds ({split})"
    )


def _of_target(name: str, target: dict[str, Any], drawn: str) -> str:
    best, centre = target["best"], target["centre"]
    score = target["layers"][best["layer"]]["scores"][target["score"]]
    name = format_label(name, target)
    said = f"{name[0].upper()}{name[1:]} is highest at layer {best['layer']} ({get_figure(target).format_value(score)})"
    if "range" in best:
        low, high = best["range"]
        where = f"layer {low}" if low == high else f"layers {low} to {high}"
        said += f", in 95 % of the draws of {drawn} at {where}"
    if centre is None:
        return f"{said}; all layers together are not above chance, so it has no centre."
    return "{}; its centre is {:.1f} ({:.1f} to {:.1f}).".format(said, centre["value"], *centre["interval"])


def _apart(pair: dict[str, Any]) -> str:
    first, second, value = pair["first"], pair["second"], pair["value"]
    low, high = pair["low"], pair["high"]
    if value < 0:
        first, second, value, low, high = second, first, -value, -high, -low
    said = f"{value:.1f} layers before {second} ({low:.1f} to {high:.1f}), p {pair['p']:.3f}"
    if _known(pair):
        return f"{first.capitalize()} lies {said}."
    return f"Which of {first} and {second} lies deeper these data do not tell: {first} {said}."


def _known(pair: dict[str, Any]) -> bool:
    """Whether the interval leaves out zero."""
    return not pair["low"] <= 0 <= pair["high"]


def _plots(found: dict[str, Any]) -> dict[str, str]:
    """One for ratings, one for classes."""
    shown: dict[str, dict[str, list[layer_plots.Point]]] = {}
    for name, target in found["targets"].items():
        points = [_point(target, layer) for layer in target["layers"]]
        shown.setdefault(KINDS[target["score"]], {})[name] = points
    made = {}
    for kind, series in shown.items():
        scores = {name: get_figure(found["targets"][name]).label for name in series}
        words = "; ".join(f"{scores[name]} of {name} {_ends(points)}" for name, points in series.items())
        title = f"{kind}: {', '.join(dict.fromkeys(scores.values()))}"
        made[title] = layer_plots.plot_layers(series, "", f"{title} by layer, with 95 % intervals. {words}")
    return made


def _point(target: dict[str, Any], layer: dict[str, Any]) -> layer_plots.Point:
    value = layer["scores"][target["score"]]
    low, high = layer["intervals"].get(target["score"], (value, value))
    return low, value, high


def _ends(points: list[layer_plots.Point]) -> str:
    """`from 0.12 at layer 0 to 0.45 at layer 12, highest 0.61 at layer 4`."""
    values = [value for _, value, _ in points]
    best, last = values.index(max(values)), len(values) - 1
    return (
        f"from {values[0]:.2f} at layer 0 to {values[-1]:.2f} at layer {last}, "
        f"highest {values[best]:.2f} at layer {best}"
    )


def _differences(found: dict[str, Any]) -> str:
    rows = [
        (f"{pair['second']} - {pair['first']}", pair["low"], pair["value"], pair["high"])
        for pair in _told(found)
    ]
    reach = max(1, math.ceil(max(abs(bound) for _, low, _, high in rows for bound in (low, high))))
    words = "; ".join(f"{name} {value:+.1f} ({low:+.1f} to {high:+.1f})" for name, low, value, high in rows)
    return plots.plot_differences(rows, reach, f"Distances of the centres, in layers. {words}")


def _weights(own: dict[str, Any]) -> str:
    spread = own["spread"] or [0.0] * len(own["mean"])
    points = [(value - reach, value, value + reach) for value, reach in zip(own["mean"], spread, strict=True)]
    words = ", ".join(f"{number}: {value:.3f}" for number, value in enumerate(own["mean"], 1))
    name = own["target"] or "all"
    return layer_plots.plot_layers({name: points}, "", f"Softmax weight by layer. {words}", first=1)

"""The score cards at the top of a run's page, with their intervals, and the table of the folds."""

from typing import Any

from sertone.scoring import display
from sertone.scoring.display import ScoreFormat

MAIN_SCORES = ("ua", "wa", "macro_f1", "ccc")


def build_cards(results: dict) -> list[list[dict]]:
    """Return one card per main score: a row of cards for emotion, then a row for the ratings.

    Args:
        results: results of a run, as in results.json.
    """
    names = select_main_scores(results)
    emotion = [name for name in names if name in display.EMOTION_SCORES]
    ratings = [name for name in names if name not in display.EMOTION_SCORES]
    return [[_build_card(results, name) for name in row] for row in (emotion, ratings) if row]


def select_main_scores(results: dict) -> list[str]:
    """Return the names of the main scores: those of emotion, and the CCC of every rating."""
    return [
        name
        for name in display.find_score_names(results["pooled"])
        if display.parse_score_name(name)[1] in MAIN_SCORES
    ]


def _build_card(results: dict, name: str) -> dict[str, Any]:
    task, score = display.parse_score_name(name)
    score_format = display.get_score_format(name)
    pooled = results["pooled"][task]
    value = pooled[score]
    intervals = [
        (display.count_interval_units(kind, bounds), *bounds[score])
        for kind, bounds in pooled["intervals"].items()
    ]
    bar = None
    if intervals:
        # results.json lists the interval over speakers, or over utterances of unknown ones, before the folds.
        bar = _build_bar(score_format, value, intervals[0][1:], _find_chance(results, score))
    return {
        "name": score_format.title,
        "value": score_format.format_value(value),
        "bar": bar,
        "intervals": [
            {"over": units, "low": score_format.format_value(low), "high": score_format.format_value(high)}
            for units, low, high in intervals
        ],
        "mean": score_format.format_value(results["mean"][task][score]),
    }


def _build_bar(
    score_format: ScoreFormat, value: float, bounds: tuple[float, float], chance: float | None
) -> dict[str, float | str | None]:
    """Return positions on the bar of a card, in percent of the score's range, and its text alternative."""

    def scale(number: float) -> float:
        return 100 * (number - score_format.low) / (score_format.high - score_format.low)

    low, high = bounds
    text = f"95 % interval {score_format.format_value(low)} to {score_format.format_value(high)}"
    if chance is not None:
        text += f", chance {score_format.format_value(chance)}"
    return {
        "low": scale(low),
        "width": scale(high) - scale(low),
        "value": scale(value),
        "chance": None if chance is None else scale(chance),
        "text": text,
    }


def _find_chance(results: dict, score: str) -> float | None:
    # A constant prediction has a UA of one over the number of classes, and a CCC of zero.
    return {"ua": 1 / max(1, len(results["classes"])), "ccc": 0.0}.get(score)


def describe_chance(results: dict) -> str:
    """Return what the dashed lines of the cards stand for, such as `a UA of 25.0% for 4 classes`."""
    scores = [display.parse_score_name(name)[1] for name in select_main_scores(results)]
    classes = results["classes"]
    parts = []
    if "ua" in scores:
        parts.append(f"a UA of {1 / len(classes):.1%} for {len(classes)} classes")
    if "ccc" in scores:
        parts.append("a CCC of 0, which is the CCC of a constant prediction")
    return "; ".join(parts)


def build_fold_table(results: dict) -> dict[str, Any]:
    """Return the table of the folds: `head`, and `rows` with the held-out part, its size and the scores.

    `chosen` is true if the settings were chosen for every fold separately. They are then in the fold's row.
    """
    names = select_main_scores(results)
    return {
        "chosen": "chosen" in results,
        "head": [display.get_score_format(name).label for name in names],
        "rows": [
            {key: fold[key] for key in ("name", "train", "test", "settings") if key in fold}
            | {"scores": [_format_fold_score(fold["metrics"], name) for name in names]}
            for fold in results["folds"]
        ],
    }


def _format_fold_score(metrics: dict[str, dict], name: str) -> str:
    task, score = display.parse_score_name(name)
    if task not in metrics:
        return "–"
    return display.get_score_format(name).format_value(metrics[task][score])

"""The head of a run's page: the scores to look at first, with their intervals, and those of every fold."""

from typing import Any

from sertone.scoring import display
from sertone.scoring.display import ScoreFormat

MAIN = ("ua", "wa", "macro_f1", "ccc")


def build_cards(results: dict) -> list[list[dict]]:
    """A card for every score to look at first: those of emotion in a row, then those of ratings.

    Args:
        results: of a run, as in results.json.
    """
    names = select_main_scores(results)
    rows = (
        [name for name in names if (name in display.EMOTION_SCORES) == emotion] for emotion in (True, False)
    )
    return [[_card(results, name) for name in row] for row in rows if row]


def select_main_scores(results: dict) -> list[str]:
    """Names of the scores to look at first: those of emotion, and the CCC of every rating."""
    return [
        name
        for name in display.find_score_names(results["pooled"])
        if display.parse_score_name(name)[1] in MAIN
    ]


def _card(results: dict, name: str) -> dict[str, Any]:
    (task, score), figure = display.parse_score_name(name), display.get_score_format(name)
    pooled, chance = results["pooled"][task], _chance(results, score)
    value = pooled[score]
    spans = [
        (display.count_interval_units(kind, own), *own[score]) for kind, own in pooled["intervals"].items()
    ]
    return {
        "name": figure.title,
        "value": figure.format_value(value),
        "bar": _bar(figure, value, spans[0][1:], chance) if spans else None,
        "intervals": [
            {"over": over, "low": figure.format_value(low), "high": figure.format_value(high)}
            for over, low, high in spans
        ],
        "mean": figure.format_value(results["mean"][task][score]),
    }


def _bar(
    figure: ScoreFormat, value: float, bounds: tuple[float, float], chance: float | None
) -> dict[str, float | str | None]:
    """Where things stand on a bar from the lowest value a score can have to the highest, in percent of it."""

    def place(of: float) -> float:
        return 100 * (of - figure.low) / (figure.high - figure.low)

    low, high = bounds
    words = f"95 % interval {figure.format_value(low)} to {figure.format_value(high)}"
    return {
        "low": place(low),
        "width": place(high) - place(low),
        "value": place(value),
        "chance": None if chance is None else place(chance),
        "words": words if chance is None else f"{words}, chance {figure.format_value(chance)}",
    }


def _chance(results: dict, score: str) -> float | None:
    return {"ua": 1 / max(1, len(results["classes"])), "ccc": 0.0}.get(score)


def describe_chance(results: dict) -> str:
    """What the dashed lines of the cards stand for."""
    scores, classes = (
        [display.parse_score_name(name)[1] for name in select_main_scores(results)],
        results["classes"],
    )
    said = [f"chance, {1 / len(classes):.1%} for {len(classes)} classes"] if "ua" in scores else []
    said += ["a CCC of 0, that of an answer that is always the same"] if "ccc" in scores else []
    return "; ".join(said)


def build_fold_table(results: dict) -> dict[str, Any]:
    """The table of the folds: `head`, and `rows` with what was held out, how much, and the scores.

    `chosen` says whether every fold has settings of its own, which are in its row.
    """
    names = select_main_scores(results)
    return {
        "chosen": "chosen" in results,
        "head": [display.get_score_format(name).label for name in names],
        "rows": [
            {key: fold[key] for key in ("name", "train", "test", "settings") if key in fold}
            | {"scores": [_of_fold(fold["metrics"], name) for name in names]}
            for fold in results["folds"]
        ],
    }


def _of_fold(metrics: dict[str, dict], name: str) -> str:
    task, score = display.parse_score_name(name)
    return display.get_score_format(name).format_value(metrics[task][score]) if task in metrics else "–"

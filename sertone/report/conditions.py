"""The page's section on scores of a model with less input, such as audio only, or with degraded input."""

from sertone.report import cards
from sertone.scoring import display


def build_section(results: dict) -> dict | None:
    """Return one line per condition with a cell per main score; None if no condition was tested.

    Args:
        results: results of a run, as in results.json.
    """
    conditions = results.get("modalities")
    if not conditions:
        return None
    names = [name for name in cards.select_main_scores(results) if name != "macro_f1"]
    return {
        "head": [display.get_score_format(name).label for name in names],
        "rows": [
            (condition, [_build_cell(pooled, name) for name in names])
            for condition, pooled in conditions.items()
        ],
        "summary": " ".join(_describe_extremes(conditions, name) for name in names if name != "wa"),
    }


def _build_cell(pooled: dict[str, dict], name: str) -> dict[str, str]:
    task, score = display.parse_score_name(name)
    if task not in pooled:
        return {"value": "–", "interval": ""}
    score_format = display.get_score_format(name)
    interval = display.find_speaker_interval(pooled[task]["intervals"])
    bounds = interval[1][score] if interval else ()
    return {
        "value": score_format.format_value(pooled[task][score]),
        "interval": " – ".join(map(score_format.format_value, bounds)),
    }


def _describe_extremes(conditions: dict[str, dict], name: str) -> str:
    """Return a sentence on the conditions with the highest and the lowest score."""
    task, score = display.parse_score_name(name)
    score_format = display.get_score_format(name)
    values = {condition: pooled[task][score] for condition, pooled in conditions.items() if task in pooled}
    if not values:
        return ""
    best = max(values, key=values.__getitem__)
    worst = min(values, key=values.__getitem__)
    if values[best] == values[worst]:  # there is no highest and no lowest condition
        return (
            f"{score_format.label} is the same in all conditions, {score_format.format_value(values[best])}."
        )
    return (
        f"{score_format.label} is highest with {best} ({score_format.format_value(values[best])}) and lowest "
        f"with {worst} ({score_format.format_value(values[worst])})."
    )

"""The page's section on what a model answers when it is given less of its input, or a poorer one."""

from sertone.report import cards
from sertone.scoring import display


def build_section(results: dict) -> dict | None:
    """A line for every condition, a cell for every score to look at first; None where there are none.

    Args:
        results: of a run, as in results.json.
    """
    found = results.get("modalities")
    if not found:
        return None
    names = [name for name in cards.select_main_scores(results) if name != "macro_f1"]
    return {
        "head": [display.get_score_format(name).label for name in names],
        "rows": [(condition, [_cell(own, name) for name in names]) for condition, own in found.items()],
        "words": " ".join(_words(found, name) for name in names if name != "wa"),
    }


def _cell(pooled: dict[str, dict], name: str) -> dict[str, str]:
    (task, score), figure = display.parse_score_name(name), display.get_score_format(name)
    if task not in pooled:
        return {"value": "–", "interval": ""}
    over = display.find_speaker_interval(pooled[task]["intervals"])
    span = " – ".join(map(figure.format_value, over[1][score])) if over else ""
    return {"value": figure.format_value(pooled[task][score]), "interval": span}


def _words(found: dict[str, dict], name: str) -> str:
    """Where a score is highest, and where lowest."""
    (task, score), figure = display.parse_score_name(name), display.get_score_format(name)
    values = {condition: own[task][score] for condition, own in found.items() if task in own}
    if not values:
        return ""
    best, worst = max(values, key=values.__getitem__), min(values, key=values.__getitem__)
    if values[best] == values[worst]:
        return f"{figure.label} is the same everywhere, {figure.format_value(values[best])}."
    return (
        f"{figure.label} is highest with {best} ({figure.format_value(values[best])}) and lowest with {worst} "
        f"({figure.format_value(values[worst])})."
    )

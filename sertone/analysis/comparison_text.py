"""Text of a comparison of runs, as `sertone compare` prints it."""

from typing import Any

from sertone.scoring.display import count_drawn_units, get_score_format


def describe_difference(
    difference: dict[str, float], units: str, *, single_training: bool, score: str = "ua"
) -> str:
    """Describe a difference in a sentence.

    Args:
        difference: its `value`, `low`, `high` and `p`.
        units: what was drawn, such as `10 speakers`.
        single_training: true where one side is a single training, so the effect of its seed is not known.
        score: name of the score.
    """
    score_format = get_score_format(score)
    value = difference["value"]
    p_text = format_p(difference["p"])
    if not value:
        return f"It scores the same {score_format.label} ({p_text})."
    direction = "higher" if value > 0 else "lower"
    amount = score_format.format_number(abs(value))
    claim = f"Its {score_format.label} is {amount} {direction}"
    if score_format.is_percent:
        claim = f"It scores {amount} points of {score_format.label} {direction}"
    if difference["p"] < 0.05:
        # The interval excludes zero, so both bounds have the sign of the value.
        least, most = sorted(abs(difference[bound]) for bound in ("low", "high"))
        text = (
            f"{claim}, by {score_format.format_number(least)} to {score_format.format_number(most)} with "
            f"95 % confidence: {units} do show this difference ({p_text})."
        )
        if single_training:
            text += " With a single training, another seed may reverse it: compare several seeds."
        return text
    low = score_format.format_number(difference["low"], "+")
    high = score_format.format_number(difference["high"], "+")
    return (
        f"{claim}, but differences from {low} to {high} are compatible with these {units} ({p_text}): "
        "they do not show which one is better."
    )


def format_p(p: float) -> str:
    """Format a p value: `p = 0.031`."""
    # Smaller values rest on fewer than five of the ten thousand draws.
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def to_text(comparison: dict[str, Any]) -> str:
    """Format a comparison as lines for people.

    Args:
        comparison: result of `compare.compare`.
    """
    lines = []
    if comparison["unlike"]:
        lines += [
            f"NOT THE SAME PROTOCOL: the runs differ in {'; '.join(comparison['unlike'])}.",
            f"Compared on the {comparison['utterances']} utterances that all runs have in common. "
            "Interpret the result with care.",
            "",
        ]
    runs = comparison["runs"]
    width = max(len(get_score_format(name).label) for name in runs[0]["scores"]) + 1
    for run in runs:
        lines += _format_run(run, width)
    for difference in comparison["differences"]:
        lines += ["", f"{difference['path']} against {runs[0]['path']}"]
        lines += _format_differences(difference, width)
    seeds = " and seeds" if any(run["seeds"] > 1 for run in runs) else ""
    lines += ["", f"Intervals: 95 %, drawing {count_drawn_units(comparison)}{seeds}; differences are paired."]
    if comparison["unknown_speakers"]:
        lines.append("Speakers are unknown: test speakers may also occur in the training set.")
    return "\n".join(lines)


def _format_run(run: dict[str, Any], width: int) -> list[str]:
    """Return the lines of one run: its path and its scores."""
    seeds = f", mean of {run['seeds']} seeds" if run["seeds"] > 1 else ""
    lines = [f"{run['path']}{seeds}"]
    for name in run["scores"]:
        lines.append(f"    {get_score_format(name).label:{width}}{_format_score(run, name)}")
    if run["best_of"]:
        # The run of `choose` with the best settings was chosen by its own test scores.
        lines.append(f"    FLATTERED: settings that scored best of {run['best_of']} on these speakers")
    return lines


def _format_score(run: dict[str, Any], name: str) -> str:
    """Format a score, with its interval where it has one."""
    score_format = get_score_format(name)
    # Six characters hold `100.0%`, so the scores of a run line up.
    text = f"{score_format.format_value(run['scores'][name]):>6}"
    if name in run["intervals"]:
        low, high = map(score_format.format_value, run["intervals"][name])
        text += f"   {low} to {high}"
    return text


def _format_differences(difference: dict[str, Any], width: int) -> list[str]:
    """Return the lines of one run's differences from the first."""
    lines = []
    for name, bounds in difference["scores"].items():
        score_format = get_score_format(name)
        value, low, high = (score_format.format_number(bounds[key], "+") for key in ("value", "low", "high"))
        lines.append(
            f"    {score_format.label:{width}}{value}{score_format.difference_unit}   {low} to {high}   "
            f"{format_p(bounds['p'])}"
        )
    if test := difference["mcnemar"]:
        lines.append(
            f"    McNemar  right only in the first: {test['only_first']}, only in this one: "
            f"{test['only_second']}, {format_p(test['p'])} (assumes independent utterances)"
        )
    lines.append(f"    {difference['sentence']}")
    return lines

"""Is one run better than another? Only where both followed one protocol can that be said."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sertone.analysis.run_predictions import (
    RunPredictions,
    get_target_column,
    load_predictions,
    sum_statistics,
)
from sertone.errors import SertoneError
from sertone.files import read_json
from sertone.scoring import intervals
from sertone.scoring.display import build_score_name, count_drawn_units, get_score_format
from sertone.scoring.sufficient_statistics import SufficientStatistics
from sertone.sharing.card_scores import describe_choice

PARTS = {
    "file_hashes": "the recordings",
    "segments": "where utterances start and end",
    "split": "the split",
    "test_speakers": "who is held out in which fold",
    "labels": "the labels",
}
"""Parts of a protocol card that have to be equal; `_classes_apart` compares the classes."""
MOST = 5
"""Labels of which an error says how runs class them."""
SAID = ("ua", "ccc")
"""Scores whose differences are said in a sentence."""


def compare(paths: Sequence[str | Path], *, force: bool = False) -> dict[str, Any]:
    """Compares runs with the first one.

    Args:
        paths: run folders, or folders of runs that differ in their seeds (`seed_0`, `seed_1`, as a study
            writes them), whose scores are averaged.
        force: compare although the protocols differ, on the utterances that all have in common.

    Returns:
        a JSON object: scores with intervals, paired differences, McNemar's test, a sentence for each.

    Raises:
        SertoneError: `too_few_runs`, `not_a_run`, `unlike_runs`, `unlike_protocols`, `nothing_in_common`.
    """
    if len(paths) < 2:
        raise SertoneError("too_few_runs", f"runs given: {len(paths)}", "two or more to compare")
    sides = [[load_predictions(run) for run in _runs(Path(path))] for path in paths]
    tasks = _tasks(sides)
    differing = _differing([str(path) for path in paths], [_protocol(side[0], tasks) for side in sides])
    if differing and not force:
        raise SertoneError(
            "unlike_protocols",
            f"{', '.join(map(str, paths))} differ in {'; '.join(differing)}",
            "runs of one protocol: their scores do not measure the same thing",
            "--force compares what they have in common and says so",
        )
    sides = _in_common(sides, tasks) if differing else sides
    sums = [{task: found for task in tasks if (found := sum_statistics([side], task))} for side in sides]
    rows = sides[0][0].rows
    return {
        "unlike": differing,
        "utterances": len(rows),
        **sides[0][0].speaker_counts,
        "runs": [
            {"path": str(path), "seeds": len(side), "best_of": describe_choice(Path(path))} | _scores(own)
            for path, side, own in zip(paths, sides, sums, strict=True)
        ],
        "differences": [
            {"path": str(path)} | _difference(sides[0], side, sums[0], own)
            for path, side, own in list(zip(paths, sides, sums, strict=True))[1:]
        ],
    }


def _tasks(sides: list[list[RunPredictions]]) -> list[str]:
    """What all runs answer: emotion, ratings.

    Raises:
        SertoneError: `nothing_in_common`.
    """
    runs = [run for side in sides for run in side]
    tasks = [task for task in runs[0].tasks if all(task in run.tasks for run in runs)]
    if not tasks:
        raise SertoneError(
            "nothing_in_common",
            f"no task that all runs answer: {'; '.join(', '.join(run.tasks) for run in runs)}",
            "emotion or a rating in all of them",
        )
    return tasks


def _runs(path: Path) -> list[Path]:
    """One run, or its repetitions with other seeds."""
    return sorted(folder for folder in path.glob("seed_*") if folder.is_dir()) or [path]


def _protocol(run: RunPredictions, tasks: list[str]) -> dict[str, Any]:
    """Return the card with what it does not hold: who is held out, the labels, the classes answered."""
    card = read_json(run.folder / "protocol.json", "not_a_run")
    labels = {row["id"]: own for row in run.rows if any(own := _labels(row, tasks))}
    classes = run.classes if "emotion" in tasks else []
    held_out = [fold["test_speakers"] for fold in card["folds"]]
    held_out.append({row["id"]: row["fold"] for row in run.rows if not row["speaker"]})
    # An encoder that has heard unknown speakers makes no other split.
    split = {name: value for name, value in card["split"].items() if name != "speaker_independent"}
    return card | {"split": split, "test_speakers": held_out, "labels": labels, "classes": classes}


def _labels(row: dict[str, str], tasks: list[str]) -> tuple[str, ...]:
    return tuple(row[get_target_column(task)] for task in tasks)


def _differing(paths: list[str], cards: list[dict[str, Any]]) -> list[str]:
    """Return in words what is not the same in all protocols."""
    found = [words for part, words in PARTS.items() if any(card[part] != cards[0][part] for card in cards)]
    first, *others = zip(paths, cards, strict=True)
    apart = list(dict.fromkeys(words for other in others for words in _classes_apart(first, other)))
    more = f"; and {len(apart) - MOST} more" if len(apart) > MOST else ""
    return found + ([f"the classes ({'; '.join(apart[:MOST])}{more})"] if apart else [])


Named = tuple[str, dict[str, Any]]
"""Path and card of a run."""


def _classes_apart(*runs: Named) -> list[str]:
    """Return in words which labels two runs class in different ways, and which classes one of them lacks.

    A label that does not occur in the data of either makes no difference. Older cards do not say which occur.
    """
    (first, one), (second, two) = ((path, card["class_map"]) for path, card in runs)
    known = [card.get("corpus", {}).get("by_emotion") for _, card in runs]
    occurring = {*one, *two} if None in known else set().union(*known)
    apart = [
        f"{label} counts as {own} in {first} and as {other} in {second}"
        for label in dict.fromkeys([*one, *two])
        if (own := one.get(label, "no class")) != (other := two.get(label, "no class"))
        if label in occurring
    ]
    for (path, card), (_, other) in (runs, runs[::-1]):
        if alone := [name for name in card["classes"] if name not in other["classes"]]:
            apart.append(f"only {path} answers {', '.join(alone)}")
    return apart


def _in_common(sides: list[list[RunPredictions]], tasks: list[str]) -> list[list[RunPredictions]]:
    """The utterances that all runs were tested on, with the same labels."""

    def known(row: dict[str, str]) -> tuple:
        return row["id"], row["speaker"], _labels(row, tasks)

    runs = [run for side in sides for run in side]
    common = set.intersection(*({known(row) for row in run.rows} for run in runs))
    if not common:
        raise SertoneError(
            "nothing_in_common",
            "no utterance that all runs were tested on, with the same label",
            "some, to compare on",
        )
    classes = sorted({name for run in runs for name in run.classes})

    def kept(run: RunPredictions) -> RunPredictions:
        return replace(run, classes=classes, rows=[row for row in run.rows if known(row) in common])

    return [[kept(run) for run in side] for side in sides]


def _scores(sums: dict[str, SufficientStatistics]) -> dict[str, Any]:
    """Scores and intervals by name; no intervals of a task with one speaker."""
    scores, bounds = {}, {}
    for task, own in sums.items():
        scores |= {build_score_name(task, score): value for score, value in own.compute_scores().items()}
        bounds |= {
            build_score_name(task, score): pair
            for score, pair in (intervals.compute_intervals(own) or {}).items()
        }
    return {"scores": scores, "intervals": bounds}


def _difference(
    first: list[RunPredictions],
    second: list[RunPredictions],
    first_sums: dict[str, SufficientStatistics],
    second_sums: dict[str, SufficientStatistics],
) -> dict[str, Any]:
    """How a run differs from the first one; McNemar's test of emotion where each is one run."""
    found: dict[str, Any] = {"scores": {}, "mcnemar": None}
    once, said = min(len(first), len(second)) == 1, []
    for task, own in first_sums.items():
        units = count_drawn_units(first[0].select_task(task).speaker_counts)
        apart = intervals.compute_differences(own, second_sums[task]) if own.unit_count > 1 else {}
        found["scores"] |= {build_score_name(task, score): each.to_json() for score, each in apart.items()}
        said += [
            describe_difference(
                found["scores"][build_score_name(task, score)],
                units,
                single_training=once,
                score=build_score_name(task, score),
            )
            for score in SAID
            if score in apart
        ]
    if "emotion" in first_sums and len(first) == len(second) == 1:
        runs = (first[0].select_task("emotion"), second[0].select_task("emotion"))
        found["mcnemar"] = intervals.mcnemar(
            *(np.array(run.get_column("target")) == np.array(run.get_column("prediction")) for run in runs)
        )
    return found | {"sentence": " ".join(said) or "With one speaker nothing can be said about others."}


def describe_difference(
    found: dict[str, float], units: str, *, single_training: bool, score: str = "ua"
) -> str:
    """What a difference says, in plain words.

    Args:
        found: the difference.
        units: what was drawn, such as `10 speakers`.
        once: one side is a single training, whose seed nobody has varied.
        score: whose difference it is.
    """
    figure, p = get_score_format(score), found["p"]
    if not found["value"]:
        return f"It scores the same {figure.label} ({p_text(p)})."
    way = "higher" if found["value"] > 0 else "lower"
    amount = figure.format_number(abs(found["value"]))
    said = (
        f"It scores {amount} points of {figure.label}"
        if figure.is_percent
        else f"Its {figure.label} is {amount}"
    )
    if p < 0.05:
        reach = sorted(abs(found[bound]) for bound in ("low", "high"))
        least, most = map(figure.format_number, reach)
        return (
            f"{said} {way}, by {least} to {most} with 95 % "
            f"confidence: a difference that {units} do show ({p_text(p)})."
            + (" Of one training each; another seed may turn it: compare several." if single_training else "")
        )
    low, high = (figure.format_number(found[bound], "+") for bound in ("low", "high"))
    return (
        f"{said} {way}, but anything from {low} to "
        f"{high} is compatible with these {units} ({p_text(p)}): they do not "
        "show which one is better."
    )


def p_text(p: float) -> str:
    """`p = 0.031`."""
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def to_text(found: dict[str, Any]) -> str:
    """A comparison as it is printed."""
    lines = []
    if found["unlike"]:
        lines += [
            f"NOT THE SAME PROTOCOL: the runs differ in {'; '.join(found['unlike'])}.",
            f"Compared on the {found['utterances']} utterances that all have in common; take it with care.",
            "",
        ]
    width = max(len(get_score_format(name).label) for name in found["runs"][0]["scores"]) + 1
    for run in found["runs"]:
        seeds = f", mean of {run['seeds']} seeds" if run["seeds"] > 1 else ""
        lines.append(f"{run['path']}{seeds}")
        lines += [f"    {get_score_format(name).label:{width}}{_score(run, name)}" for name in run["scores"]]
        if run["best_of"]:
            lines.append(f"    FLATTERED: settings that scored best of {run['best_of']} on these speakers")
    for difference in found["differences"]:
        lines += ["", f"{difference['path']} against {found['runs'][0]['path']}"]
        for name, apart in difference["scores"].items():
            figure = get_score_format(name)
            value, low, high = (figure.format_number(apart[key], "+") for key in ("value", "low", "high"))
            reach, p = f"{low} to {high}", p_text(apart["p"])
            lines.append(f"    {figure.label:{width}}{value}{figure.difference_unit}   {reach}   {p}")
        if test := difference["mcnemar"]:
            lines.append(
                f"    McNemar  only the first right: {test['only_first']}, only this one: "
                f"{test['only_second']}, {p_text(test['p'])} (takes utterances for independent)"
            )
        lines.append(f"    {difference['sentence']}")
    seeds = " and seeds" if any(run["seeds"] > 1 for run in found["runs"]) else ""
    lines += ["", f"Intervals: 95 %, drawing {count_drawn_units(found)}{seeds}; differences are paired."]
    if found["unknown_speakers"]:
        lines += ["Speakers are unknown: nobody knows whether test speakers were heard in training."]
    return "\n".join(lines)


def _score(run: dict[str, Any], name: str) -> str:
    figure = get_score_format(name)
    text = f"{figure.format_value(run['scores'][name]):>6}"
    if name in run["intervals"]:
        low, high = map(figure.format_value, run["intervals"][name])
        text += f"   {low} to {high}"
    return text

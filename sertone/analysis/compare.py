"""Comparison of runs by paired differences, where all runs follow one protocol."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sertone.analysis.comparison_text import describe_difference
from sertone.analysis.run_predictions import (
    RunPredictions,
    get_target_column,
    load_predictions,
    sum_statistics,
)
from sertone.errors import SertoneError
from sertone.files import load_json
from sertone.scoring import intervals
from sertone.scoring.display import build_score_name, count_drawn_units
from sertone.scoring.sufficient_statistics import SufficientStatistics
from sertone.sharing.card_scores import describe_choice

PROTOCOL_PARTS = {
    "file_hashes": "the recordings",
    "segments": "where utterances start and end",
    "split": "the split",
    "test_speakers": "who is held out in which fold",
    "labels": "the labels",
}
"""Parts of a protocol card that have to be equal. `_find_class_differences` compares the classes."""
MAX_LISTED = 5
"""Number of differences between classes that an error lists."""
SENTENCE_SCORES = ("ua", "ccc")
"""Scores whose differences are described in a sentence."""

System = list[RunPredictions]
"""Runs of one system, which differ in their seeds."""
NamedCard = tuple[str, dict[str, Any]]
"""Path and protocol card of a run."""


def compare(paths: Sequence[str | Path], *, force: bool = False) -> dict[str, Any]:
    """Compare runs with the first one.

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
    systems = [[load_predictions(run) for run in _find_runs(Path(path))] for path in paths]
    tasks = _find_common_tasks(systems)
    cards = [_complete_card(system[0], tasks) for system in systems]
    problems = _find_protocol_differences([str(path) for path in paths], cards)
    if problems and not force:
        raise SertoneError(
            "unlike_protocols",
            f"{', '.join(map(str, paths))} differ in {'; '.join(problems)}",
            "runs of one protocol: scores of different protocols do not measure the same thing",
            "--force compares the utterances that they have in common, and says so",
        )
    if problems:
        systems = _select_common_utterances(systems, tasks)
    sums = [_sum_by_task(system, tasks) for system in systems]
    first = systems[0][0]
    return {
        "unlike": problems,
        "utterances": len(first.rows),
        **first.speaker_counts,
        "runs": [
            {"path": str(path), "seeds": len(system), "best_of": describe_choice(Path(path))}
            | _score_system(system_sums)
            for path, system, system_sums in zip(paths, systems, sums, strict=True)
        ],
        "differences": [
            {"path": str(path)} | _compare_systems(systems[0], system, sums[0], system_sums)
            for path, system, system_sums in list(zip(paths, systems, sums, strict=True))[1:]
        ],
    }


def _find_common_tasks(systems: list[System]) -> list[str]:
    """Return the tasks that all runs predict: emotion, ratings.

    Raises:
        SertoneError: `nothing_in_common`.
    """
    runs = [run for system in systems for run in system]
    tasks = [task for task in runs[0].tasks if all(task in run.tasks for run in runs)]
    if not tasks:
        raise SertoneError(
            "nothing_in_common",
            f"no task that all runs predict: {'; '.join(', '.join(run.tasks) for run in runs)}",
            "emotion or a rating in all of them",
        )
    return tasks


def _find_runs(path: Path) -> list[Path]:
    """Return a run, or its repetitions with other seeds."""
    # A cell of a study has a folder per seed. A single run has none.
    return sorted(folder for folder in path.glob("seed_*") if folder.is_dir()) or [path]


def _complete_card(run: RunPredictions, tasks: list[str]) -> dict[str, Any]:
    """Return the protocol card with the test speakers, labels and classes of the predictions."""
    card = load_json(run.folder / "protocol.json", "not_a_run")
    labels = {row["id"]: row_labels for row in run.rows if any(row_labels := _get_labels(row, tasks))}
    classes = run.classes if "emotion" in tasks else []
    held_out = [fold["test_speakers"] for fold in card["folds"]]
    # Utterances of unknown speakers are units of their own, so their folds count one by one.
    held_out.append({row["id"]: row["fold"] for row in run.rows if not row["speaker"]})
    # An encoder that was trained on unknown speakers sets `speaker_independent`, but the split is the same.
    split = {name: value for name, value in card["split"].items() if name != "speaker_independent"}
    return card | {"split": split, "test_speakers": held_out, "labels": labels, "classes": classes}


def _get_labels(row: dict[str, str], tasks: list[str]) -> tuple[str, ...]:
    return tuple(row[get_target_column(task)] for task in tasks)


def _find_protocol_differences(paths: list[str], cards: list[dict[str, Any]]) -> list[str]:
    """Describe the parts of the protocol that are not the same in all runs."""
    problems = [
        description
        for part, description in PROTOCOL_PARTS.items()
        if any(card[part] != cards[0][part] for card in cards)
    ]
    first, *remaining = zip(paths, cards, strict=True)
    class_problems = [text for run in remaining for text in _find_class_differences(first, run)]
    # Several runs may differ from the first in the same way.
    class_problems = list(dict.fromkeys(class_problems))
    if not class_problems:
        return problems
    listed = "; ".join(class_problems[:MAX_LISTED])
    if len(class_problems) > MAX_LISTED:
        listed += f"; and {len(class_problems) - MAX_LISTED} more"
    return [*problems, f"the classes ({listed})"]


def _find_class_differences(first: NamedCard, second: NamedCard) -> list[str]:
    """Describe the labels that two runs map to different classes, and the classes that one of them lacks.

    A label that does not occur in the data of either run makes no difference. Older cards do not say which
    labels occur.
    """
    first_map = first[1]["class_map"]
    second_map = second[1]["class_map"]
    label_counts = [card.get("corpus", {}).get("by_emotion") for _, card in (first, second)]
    occurring = {*first_map, *second_map} if None in label_counts else set().union(*label_counts)
    problems = []
    for label in dict.fromkeys([*first_map, *second_map]):
        first_class = first_map.get(label, "no class")
        second_class = second_map.get(label, "no class")
        if label in occurring and first_class != second_class:
            problems.append(
                f"{label} counts as {first_class} in {first[0]} and as {second_class} in {second[0]}"
            )
    for (path, card), (_, other_card) in ((first, second), (second, first)):
        if extra := [name for name in card["classes"] if name not in other_card["classes"]]:
            problems.append(f"only {path} predicts {', '.join(extra)}")
    return problems


def _select_common_utterances(systems: list[System], tasks: list[str]) -> list[System]:
    """Return only the utterances on which all runs were tested, with the same labels.

    Raises:
        SertoneError: `nothing_in_common`.
    """

    def get_identity(row: dict[str, str]) -> tuple:
        return row["id"], row["speaker"], _get_labels(row, tasks)

    runs = [run for system in systems for run in system]
    common = set.intersection(*({get_identity(row) for row in run.rows} for run in runs))
    if not common:
        raise SertoneError(
            "nothing_in_common",
            "no utterance on which all runs were tested, with the same label",
            "common utterances to compare on",
        )
    classes = sorted({name for run in runs for name in run.classes})

    def select_common(run: RunPredictions) -> RunPredictions:
        return replace(run, classes=classes, rows=[row for row in run.rows if get_identity(row) in common])

    return [[select_common(run) for run in system] for system in systems]


def _sum_by_task(system: System, tasks: list[str]) -> dict[str, SufficientStatistics]:
    """Return the statistics of each task that has targets."""
    return {task: sums for task in tasks if (sums := sum_statistics([system], task))}


def _score_system(sums_by_task: dict[str, SufficientStatistics]) -> dict[str, Any]:
    """Return scores and intervals by name. A task with one speaker has no intervals."""
    scores = {}
    bounds = {}
    for task, sums in sums_by_task.items():
        task_bounds = intervals.compute_intervals(sums) or {}
        scores |= {build_score_name(task, score): value for score, value in sums.compute_scores().items()}
        bounds |= {build_score_name(task, score): pair for score, pair in task_bounds.items()}
    return {"scores": scores, "intervals": bounds}


def _compare_systems(
    first: System,
    second: System,
    first_sums: dict[str, SufficientStatistics],
    second_sums: dict[str, SufficientStatistics],
) -> dict[str, Any]:
    """Return the differences of a system from the first, with McNemar's test where both are single runs."""
    scores: dict[str, Any] = {}
    sentences = []
    single_training = min(len(first), len(second)) == 1
    for task, sums in first_sums.items():
        if sums.unit_count < 2:
            continue  # one speaker has no variation to draw
        units = count_drawn_units(first[0].select_task(task).speaker_counts)
        for score, difference in intervals.compute_differences(sums, second_sums[task]).items():
            name = build_score_name(task, score)
            scores[name] = difference.to_json()
            if score in SENTENCE_SCORES:
                sentences.append(
                    describe_difference(scores[name], units, single_training=single_training, score=name)
                )
    return {
        "scores": scores,
        "mcnemar": _test_mcnemar(first, second) if "emotion" in first_sums else None,
        "sentence": " ".join(sentences) or "One speaker says nothing about other speakers.",
    }


def _test_mcnemar(first: System, second: System) -> dict[str, float] | None:
    """Return McNemar's test of the emotions of two single runs, or None for systems with several seeds."""
    if len(first) > 1 or len(second) > 1:
        return None
    is_right = [
        np.array(run.get_column("target")) == np.array(run.get_column("prediction"))
        for run in (first[0].select_task("emotion"), second[0].select_task("emotion"))
    ]
    return intervals.mcnemar(*is_right)

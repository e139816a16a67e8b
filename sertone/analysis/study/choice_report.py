"""Report of a choice among settings: the chosen predictions as runs, choice.json and choice.md.

`scores` are those of the choice: every fold is predicted with the settings that were chosen without it.
`overall` names the best settings on all speakers, whose score has used the test sets.
"""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sertone.analysis.study import table
from sertone.analysis.study.study import Study, TableCell
from sertone.analysis.study.table_formats import format_markdown_table
from sertone.files import write_json, write_text
from sertone.report import run as report
from sertone.scoring import display
from sertone.sharing.card_scores import CHOICE
from sertone.training.experiment.experiment import LINEAGE_KEYS, Experiment
from sertone.training.runs import results
from sertone.utils.wording import format_count


class ScoredSettings(NamedTuple):
    """Settings of a study, and their main score where they were compared."""

    row: str
    column: str
    score: float

    @property
    def name(self) -> str:
        """Name for people: `ROW / COLUMN`."""
        return f"{self.row} / {self.column}"

    def get_cell(self, seed: int) -> TableCell:
        """Return the cell of these settings with a training seed."""
        return TableCell(self.row, self.column, seed)


def remove_choice(out: Path) -> None:
    """Delete the files of `write_choice`, because the runs that they describe are about to change."""
    for name in (CHOICE, "choice.md"):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / "chosen", ignore_errors=True)


def write_choice(
    study: Study, out: Path, experiment: Experiment, chosen: list[ScoredSettings], overall: ScoredSettings
) -> None:
    """Write the runs in `chosen`, choice.md and choice.json, and write the page of `run` again.

    Args:
        study: study with all settings.
        out: folder of the choice, whose studies are finished.
        experiment: experiment of any of the settings; its folds are those of all.
        chosen: for each fold, the best settings on its training set.
        overall: the best settings on all speakers.
    """
    runs = [_write_chosen_run(study, out, chosen, seed) for seed in study.seeds]
    choice = _summarise(study, runs, experiment, chosen, overall)
    write_text(out / "choice.md", format_choice(choice))
    # Last, because choice.json marks the folder of a finished choice.
    write_json(out / CHOICE, choice)
    # The page of the best settings now warns that their score was chosen on the test sets.
    report.write(out / "run")


def _write_chosen_run(study: Study, out: Path, chosen: list[ScoredSettings], seed: int) -> Path:
    """Write a run in which every fold has the predictions of the settings chosen without it."""
    run = out / "chosen" / f"seed_{seed}"
    cells = [out / "all" / settings.get_cell(seed).folder for settings in chosen]
    folds = [
        _load_json(cell / f"fold_{number}" / "result.json") | {"settings": settings.name}
        for number, (cell, settings) in enumerate(zip(cells, chosen, strict=True))
    ]
    _drop_unshared(folds)
    note = (
        f"on the training side of every fold the best of {len(study.rows) * len(study.columns)}, in "
        f"{display.get_score_format(study.main_score).label}, of “{study.title}”"
    )
    card = _load_json(cells[0] / "protocol.json")
    # What a model was trained on before depends on its settings, so the common card leaves it out.
    card = {key: value for key, value in card.items() if key not in LINEAGE_KEYS}
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / "protocol.json", card | {"settings": note})
    cell_results = [_load_json(cell / "results.json") for cell in cells]
    shared_keys = ("corpus", "classes", "ratings", "folds_of_other_settings")
    about = {key: cell_results[0][key] for key in shared_keys}
    for key in ("model", "encoder"):
        about[key] = " or ".join(dict.fromkeys(cell[key] for cell in cell_results))
    results.write_results(run, folds, about | {"chosen": note}, seed=seed)
    return run


def _drop_unshared(folds: list[dict[str, Any]]) -> None:
    """Delete from fold results, in place, what only some settings have. It cannot be pooled over folds."""
    for fold in folds:
        # The stages of different settings are different, too.
        fold.pop("after_stages", None)
    for part in ("auxiliary", "modalities"):
        common = set.intersection(*(set(fold.get(part, {})) for fold in folds))
        for fold in folds:
            fold[part] = {name: value for name, value in fold.get(part, {}).items() if name in common}


def _load_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _summarise(
    study: Study,
    runs: list[Path],
    experiment: Experiment,
    chosen: list[ScoredSettings],
    overall: ScoredSettings,
) -> dict[str, Any]:
    """Return the content of choice.json. Each run has one seed."""
    run_results = [_load_json(run / "results.json") for run in runs]
    card = experiment.card
    names = display.find_score_names(run_results[0]["pooled"])
    bounds, _ = table.compute_evidence(names, [runs], [[]])
    values = {name: [_get_score(result["pooled"], name) for result in run_results] for name in names}
    test = experiment.select_labelled(u for fold in experiment.folds for u in fold.test)
    return {
        "title": study.title,
        "corpus": card["corpus"]["title"],
        "utterances": sum(fold["test"] for fold in run_results[0]["folds"]),
        "speakers": len({u.speaker for u in test if u.known_speaker}),
        "unknown_speakers": sum(not u.known_speaker for u in test),
        "split": card["split"],
        "versions": card["versions"],
        "among": len(study.rows) * len(study.columns),
        "seeds": study.seeds,
        "main_score": study.main_score,
        "scores": {
            name: {"value": _average(by_seed), "seeds": by_seed, "interval": bounds.get(name)}
            for name, by_seed in values.items()
        },
        "folds": _summarise_folds(study, run_results, experiment, chosen),
        "overall": overall._asdict(),
    }


def _summarise_folds(
    study: Study, run_results: list[dict[str, Any]], experiment: Experiment, chosen: list[ScoredSettings]
) -> list[dict[str, Any]]:
    """Return the settings of each fold, with their score `inside` its training set and on its test set."""
    folds = []
    for number, (fold, settings) in enumerate(zip(experiment.folds, chosen, strict=True)):
        metrics = [result["folds"][number]["metrics"] for result in run_results]
        outside = _average([_get_score(by_task, study.main_score) for by_task in metrics])
        folds.append(
            {"name": fold.name, "row": settings.row, "column": settings.column}
            | {"inside": settings.score, "outside": outside}
        )
    return folds


def _get_score(scores_by_task: dict[str, dict], name: str) -> float | None:
    task, score = display.parse_score_name(name)
    return scores_by_task.get(task, {}).get(score)


def _average(scores: list[float | None]) -> float | None:
    """Return the mean over the seeds. Return None for a fold in which nobody has a label."""
    values = [score for score in scores if score is not None]
    return float(np.mean(values)) if values else None


def format_choice(choice: dict[str, Any]) -> str:
    """Format choice.md: the scores of the choice, and the settings of each fold.

    Args:
        choice: content of choice.json.
    """
    score_format = display.get_score_format(choice["main_score"])
    overall = ScoredSettings(**choice["overall"])
    seeds = ", ".join(map(str, choice["seeds"]))
    has_seeds = len(choice["seeds"]) > 1
    seeds = f"mean of seeds {seeds}" if has_seeds else f"seed {seeds}"
    drawn_units = display.describe_drawn_units(choice) + (" and seeds" if has_seeds else "")
    utterances = format_count(choice["utterances"], "utterance")
    speakers = display.describe_speakers(choice)
    parts = [
        f"# {choice['title']}: chosen inside every fold",
        "\n".join(f"- {_format_score(name, score)}" for name, score in choice["scores"].items()),
        f"These are the scores of choosing among {choice['among']} settings, for each fold without its own "
        f"speakers: {utterances} of {speakers} of {choice['corpus']}, {seeds}; 95 % intervals over "
        f"{drawn_units}. They do not correct for earlier decisions that used scores on these speakers.",
        format_markdown_table(_build_fold_rows(choice)),
        f"Best on all speakers, and in recipe.yaml: {overall.name}. Its "
        f"{score_format.format_value(overall.score)} is the best of {choice['among']} scores on the test "
        "sets; do not report it.",
    ]
    return "\n\n".join(parts) + "\n"


def _build_fold_rows(choice: dict[str, Any]) -> list[list[str]]:
    """Return the table of folds and their settings, with the header first."""
    score_format = display.get_score_format(choice["main_score"])
    label = score_format.label
    rows = [["held out", "chosen without it", f"{label} inside", f"{label} of the fold"]]
    for fold in choice["folds"]:
        settings = ScoredSettings(fold["row"], fold["column"], fold["inside"])
        outside = "–" if fold["outside"] is None else score_format.format_number(fold["outside"])
        rows.append([fold["name"], settings.name, score_format.format_number(settings.score), outside])
    return rows


def _format_score(name: str, score: dict[str, Any]) -> str:
    """Format a score: `UA 86.9% (82.6% to 91.2%)`, then the scores of the seeds where there are several."""
    score_format = display.get_score_format(name)
    text = f"{score_format.label} {score_format.format_value(score['value'])}"
    if score["interval"]:
        low, high = map(score_format.format_value, score["interval"])
        text += f" ({low} to {high})"
    if len(score["seeds"]) > 1:
        text += f"; {', '.join(map(score_format.format_value, score['seeds']))}"
    return text

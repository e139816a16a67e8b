"""What choosing among settings has found: the runs that were put together, one JSON object, and its words.

`scores` are those of the choosing: of every fold the answers of what was chosen without it. `overall` is
the best of all speakers, whose score has seen the test sides.
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
from sertone.scoring.display import format_count
from sertone.sharing.card_scores import CHOICE
from sertone.training.experiment.experiment import LINEAGE_KEYS, Experiment
from sertone.training.runs import results


class ScoredSettings(NamedTuple):
    """Settings of a study, and their main score where they were compared."""

    row: str
    column: str
    score: float

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.row} / {self.column}"

    def get_cell(self, seed: int) -> TableCell:
        """Where a training of them stands."""
        return TableCell(self.row, self.column, seed)


def remove_choice(out: Path) -> None:
    """Removes what `write` has written: it is of trainings that are about to change."""
    for name in (CHOICE, "choice.md"):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / "chosen", ignore_errors=True)


def write_choice(
    study: Study, out: Path, experiment: Experiment, chosen: list[ScoredSettings], overall: ScoredSettings
) -> None:
    """Writes the runs in `chosen`, choice.md, choice.json when all is there, and the page of `run` again.

    Args:
        study: of all settings.
        out: folder of the choice, whose studies are done.
        experiment: of any settings, with the folds.
        chosen: for each fold, on its training side.
        overall: what is best on all speakers.
    """
    runs = [_gathered(study, out, chosen, seed) for seed in study.seeds]
    found = _summary(study, runs, experiment, chosen, overall)
    write_text(out / "choice.md", markdown(found))
    write_json(out / CHOICE, found)
    report.write(out / "run")  # which says from now on what its settings are the best of


def _gathered(study: Study, out: Path, chosen: list[ScoredSettings], seed: int) -> Path:
    """A run of every fold's answers of the settings that were chosen without it."""
    run, cells = out / "chosen" / f"seed_{seed}", [out / "all" / own.get_cell(seed).folder for own in chosen]
    folds: list[dict[str, Any]] = [
        _read(cell / f"fold_{number}" / "result.json") | {"settings": own.name}
        for number, (cell, own) in enumerate(zip(cells, chosen, strict=True))
    ]
    for fold in folds:  # a stage of one setting is no stage of another
        fold.pop("after_stages", None)
    for part in ("auxiliary", "modalities"):  # what only some settings have cannot be pooled
        common = set.intersection(*(set(fold.get(part, {})) for fold in folds))
        for fold in folds:
            fold[part] = {name: own for name, own in fold.get(part, {}).items() if name in common}
    how = (
        f"on the training side of every fold the best of {len(study.rows) * len(study.columns)}, in "
        f"{display.get_score_format(study.main_score).label}, of “{study.title}”"
    )
    card = {key: value for key, value in _read(cells[0] / "protocol.json").items() if key not in LINEAGE_KEYS}
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / "protocol.json", card | {"settings": how})
    told = [_read(cell / "results.json") for cell in cells]
    about = {key: told[0][key] for key in ("corpus", "classes", "ratings", "folds_of_other_settings")}
    about |= {key: " or ".join(dict.fromkeys(own[key] for own in told)) for key in ("model", "encoder")}
    results.write_results(run, folds, about | {"chosen": how}, seed=seed)
    return run


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _summary(
    study: Study,
    runs: list[Path],
    experiment: Experiment,
    chosen: list[ScoredSettings],
    overall: ScoredSettings,
) -> dict[str, Any]:
    """What choice.json holds."""
    found, card = [_read(run / "results.json") for run in runs], experiment.card
    names = display.find_score_names(found[0]["pooled"])
    bounds, _ = table.compute_evidence(names, [runs], [[]])
    values = {name: [_of(run["pooled"], name) for run in found] for name in names}
    tested = experiment.select_labelled(u for fold in experiment.folds for u in fold.test)
    return {
        "title": study.title,
        "corpus": card["corpus"]["title"],
        "utterances": sum(fold["test"] for fold in found[0]["folds"]),
        "speakers": len({u.speaker for u in tested if u.known_speaker}),
        "unknown_speakers": sum(not u.known_speaker for u in tested),
        "split": card["split"],
        "versions": card["versions"],
        "among": len(study.rows) * len(study.columns),
        "seeds": study.seeds,
        "main_score": study.main_score,
        "scores": {
            name: {"value": _mean(own), "seeds": own, "interval": bounds.get(name)}
            for name, own in values.items()
        },
        "folds": [
            {"name": fold.name, "row": own.row, "column": own.column, "inside": own.score}
            | {"outside": _mean([_of(run["folds"][n]["metrics"], study.main_score) for run in found])}
            for n, (fold, own) in enumerate(zip(experiment.folds, chosen, strict=True))
        ],
        "overall": overall._asdict(),
    }


def _of(scored: dict[str, dict], name: str) -> float | None:
    task, score = display.parse_score_name(name)
    return scored.get(task, {}).get(score)


def _mean(scores: list[float | None]) -> float | None:
    """Of a fold over the seeds; None where nobody in it has a label."""
    known = [score for score in scores if score is not None]
    return float(np.mean(known)) if known else None


def markdown(found: dict[str, Any]) -> str:
    """What was chosen, and what that is worth.

    Args:
        found: what choice.json holds.
    """
    figure, overall = display.get_score_format(found["main_score"]), ScoredSettings(**found["overall"])
    several = len(found["seeds"]) > 1
    seeds = f"{'mean of seeds' if several else 'seed'} {', '.join(map(str, found['seeds']))}"
    rows = [["held out", "chosen without it", f"{figure.label} inside", f"{figure.label} of the fold"]]
    for fold in found["folds"]:
        own = ScoredSettings(fold["row"], fold["column"], fold["inside"])
        outside = "–" if fold["outside"] is None else figure.format_number(fold["outside"])
        rows.append([fold["name"], own.name, figure.format_number(own.score), outside])
    drawn = display.describe_drawn_units(found)
    speakers = f"{format_count(found['utterances'], 'utterance')} of {display.describe_speakers(found)} of {found['corpus']}"
    parts = [
        f"# {found['title']}: chosen inside every fold",
        "\n".join(f"- {_score(name, own)}" for name, own in found["scores"].items()),
        f"The score of choosing among {found['among']} settings, each fold without its own speakers: "
        f"{speakers}, {seeds}; 95 % intervals over {drawn}{' and seeds' if several else ''}. What was "
        "decided before by looking at scores on these speakers is not undone by it.",
        format_markdown_table(rows),
        f"Best on all speakers, and in recipe.yaml: {overall.name}. Its {figure.format_value(overall.score)} is the "
        f"best of {found['among']} figures of the test sides; do not report it.",
    ]
    return "\n\n".join(parts) + "\n"


def _score(name: str, own: dict[str, Any]) -> str:
    """`UA 86.9% (82.6% to 91.2%)`, and the seeds' where there are several."""
    text = display.get_score_format(name).format_value
    span = f" ({text(own['interval'][0])} to {text(own['interval'][1])})" if own["interval"] else ""
    seeds = f"; {', '.join(map(text, own['seeds']))}" if len(own["seeds"]) > 1 else ""
    return f"{display.get_score_format(name).label} {text(own['value'])}{span}{seeds}"

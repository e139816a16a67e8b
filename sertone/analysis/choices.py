"""What choosing among settings has found: the runs that were put together, one JSON object, and its words.

`scores` are those of the choosing: of every fold the answers of what was chosen without it. `everywhere` is
the best of all speakers, whose score has seen the test sides.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sertone import figures
from sertone.analysis import tables
from sertone.analysis.forms import table
from sertone.analysis.study import Place, Study
from sertone.files import write_json, write_text
from sertone.sharing.scores import CHOICE
from sertone.training import results
from sertone.training.experiment import Experiment


class Choice(NamedTuple):
    """Settings of a study, and their main score where they were compared."""

    row: str
    column: str
    score: float

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.row}, {self.column}"

    def place(self, seed: int) -> Place:
        """Where a training of them stands."""
        return Place(self.row, self.column, seed)


def write(study: Study, out: Path, experiment: Experiment, inside: list[Choice], everywhere: Choice) -> None:
    """Writes the runs in `chosen`, choice.json and choice.md.

    Args:
        study: of all settings.
        out: folder of the choice, whose studies are done.
        experiment: of any settings, with the folds.
        inside: what was chosen inside each fold.
        everywhere: what is best on all speakers.
    """
    runs = [_gathered(study, out, inside, seed) for seed in study.seeds]
    found = _summary(study, runs, experiment, inside, everywhere)
    write_json(out / CHOICE, found)
    write_text(out / "choice.md", markdown(found))


def _gathered(study: Study, out: Path, inside: list[Choice], seed: int) -> Path:
    """A run of every fold's answers of the settings that were chosen without it."""
    run, cells = out / "chosen" / f"seed_{seed}", [out / "all" / own.place(seed).folder for own in inside]
    told = [_read(cell / "results.json") for cell in cells]
    folds = [
        _read(cell / f"fold_{number}" / "result.json") | {"settings": own.name}
        for number, (cell, own) in enumerate(zip(cells, inside, strict=True))
    ]
    forced = [name for own, fold in zip(told, folds, strict=True) for name in _forced(own, fold["name"])]
    how = (
        f"inside the training side of every fold the best of {count(study)}, in "
        f"{figures.named(study.main_score).label}, of “{study.title}”"
    )
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / "protocol.json", _read(cells[0] / "protocol.json") | {"settings": how})
    about = {key: told[0][key] for key in ("corpus", "classes", "ratings")}
    about |= {key: " or ".join(dict.fromkeys(own[key] for own in told)) for key in ("model", "encoder")}
    results.write(run, folds, about | {"folds_of_other_settings": forced, "settings": how}, seed=seed)
    return run


def _forced(told: dict[str, Any], fold: str) -> list[str]:
    return [name for name in told["folds_of_other_settings"] if name == fold]


def count(study: Study) -> int:
    """How many settings there are to choose from."""
    return len(study.rows) * len(study.columns)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _summary(
    study: Study, runs: list[Path], experiment: Experiment, inside: list[Choice], everywhere: Choice
) -> dict[str, Any]:
    """What choice.json holds."""
    found, score = [_read(run / "results.json") for run in runs], study.main_score
    task, name = figures.parts(score)
    names = figures.found(found[0]["pooled"])
    bounds, _ = tables.evidence(names, [runs], [[]])
    folds = [
        {
            "name": fold.name,
            "row": own.row,
            "column": own.column,
            "inside": own.score,
            "outside": float(np.mean([run["folds"][n]["metrics"][task][name] for run in found])),
        }
        for n, (fold, own) in enumerate(zip(experiment.folds, inside, strict=True))
    ]
    corpus = experiment.card["corpus"]
    return {
        "title": study.title,
        "corpus": corpus["title"],
        "utterances": sum(fold["test"] for fold in found[0]["folds"]),
        "speakers": len({u.speaker for fold in experiment.folds for u in fold.test}),
        "settings": count(study),
        "seeds": study.seeds,
        "main_score": score,
        "scores": {name: {"value": _mean(found, name), "interval": bounds.get(name)} for name in names},
        "folds": folds,
        "everywhere": everywhere._asdict(),
    }


def _mean(found: list[dict[str, Any]], name: str) -> float:
    """Of a pooled score over the seeds."""
    task, score = figures.parts(name)
    return float(np.mean([run["pooled"][task][score] for run in found]))


def markdown(found: dict[str, Any]) -> str:
    """What was chosen, and what that is worth.

    Args:
        found: what choice.json holds.
    """
    figure = figures.named(found["main_score"])
    own, everywhere = found["scores"][found["main_score"]], found["everywhere"]
    span = " to ".join(map(figure.text, own["interval"])) if own["interval"] else "one speaker: no interval"
    seeds = f"seed{'s' * (len(found['seeds']) > 1)} {', '.join(map(str, found['seeds']))}"
    rows = [["held out", "chosen without it", f"{figure.label} inside", f"{figure.label} of the fold"]]
    for fold in found["folds"]:
        scores = [figure.bare(fold[side]) for side in ("inside", "outside")]
        rows.append([fold["name"], f"{fold['row']}, {fold['column']}", *scores])
    score = (
        f"{figure.label} {figure.text(own['value'])} (95 % interval {span}): what to expect of new speakers "
        f"of {found['corpus']}, the choosing among {found['settings']} settings included. "
        f"{found['utterances']} utterances of {found['speakers']} speakers, {seeds}."
    )
    best = (
        f"Best on all speakers, and in recipe.yaml: {everywhere['row']}, {everywhere['column']}. Its "
        f"{figure.text(everywhere['score'])} is the best of {found['settings']} figures of the test sides; "
        "do not report it."
    )
    title = f"# {found['title']}: chosen inside every fold"
    return "\n\n".join([title, score, table(rows), best]) + "\n"

"""What a model card says about scores: of one fold's test side, or of a whole cross-validation."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sertone.errors import SertoneError
from sertone.files import read_json
from sertone.scoring import display
from sertone.sharing import model_folder

CHOICE = "choice.json"
"""Marks the folder of a choice among settings, which `analysis.choose` writes."""


@dataclass(frozen=True)
class Scores:
    """Scores of emotion and of ratings with 95 % intervals.

    Attributes:
        values: by score, as `ua` and `valence.ccc`.
        intervals: by score, [low, high]; empty where there is nothing to draw.
        drawn: what the intervals draw: `speakers`, `utterances`, or `known speakers and utterances of unknown
            ones`.
        utterances: how many were scored.
        speakers: how many known speakers spoke them.
        folds: how many models were scored together; None for the model itself.
        among: of how many settings the best was taken, for every speaker without them; None: of no others
            that we know of.
        seeds: over how many trainings the scores are means, which the intervals then draw too.
        unknown_speakers: how many of the utterances are of unknown speakers.
    """

    values: dict[str, float]
    intervals: dict[str, list[float]]
    drawn: str
    utterances: int
    speakers: int
    folds: int | None = None
    among: int | None = None
    seeds: int = 1
    unknown_speakers: int = 0

    @property
    def people(self) -> str:
        """Return who spoke, in words."""
        return display.describe_speakers(vars(self))

    @property
    def of_new_speakers(self) -> bool:
        """Whether nobody who was scored was heard in training; False where that is not known."""
        return not self.unknown_speakers

    @property
    def pooled_over(self) -> str:
        """In words, what scores of several folds are pooled over."""
        if self.among is None:
            return f"the {self.folds} models of a cross-validation of the same recipe"
        seeds = f", each trained with {self.seeds} seeds" if self.seeds > 1 else ""
        return f"{self.folds} folds of a nested cross-validation{seeds}"

    @classmethod
    def from_fold(cls, result: dict) -> Self:
        """Of the test side of a fold, from its `result.json`."""
        from sertone.scoring import intervals
        from sertone.scoring.sufficient_statistics import (
            SufficientStatistics,
            count_speakers,
            get_task_columns,
            get_unit,
            select_labelled,
        )

        rows, metrics = result["rows"], result["metrics"]
        names = display.find_score_names(metrics)
        counts = count_speakers(rows)
        few = sum(counts.values()) < intervals.FEW  # an interval over them would be as wide as the axis
        bounds = {}
        for task in dict.fromkeys(display.parse_score_name(name)[0] for name in names):
            known = select_labelled(rows, task)
            classes = sorted({str(row[key]) for row in known for key in get_task_columns(task)})
            units = [row["id"] if few else get_unit(row) for row in known]
            drawn = (
                intervals.compute_intervals(SufficientStatistics.from_rows(known, task, classes, units)) or {}
            )
            bounds |= {display.build_score_name(task, score): pair for score, pair in drawn.items()}
        values = {name: _of(metrics, name) for name in names}
        over = "utterances" if few else display.describe_drawn_units(counts)
        return cls(values, bounds, over, len(rows), **counts)

    @classmethod
    def from_run(cls, run: Path, about: dict) -> Self:
        """Pooled over the folds of a cross-validation of the same recipe, or of what `choose` put together.

        Args:
            run: its folder, or that of a choice, or a run inside one: the best one's own score is too high.
            about: what the model says of itself (`folder.about`).

        Raises:
            SertoneError: `not_a_run`, `other_recipe`.
        """
        choice, trained = find_choice(run), find_cross_validation(run)
        results = _results(trained, "crossval` or `sertone choose")
        _require_same(trained, results, about)
        return cls._of_choice(choice) if choice else cls._pooled(run, results, len(results["folds"]))

    @classmethod
    def _of_choice(cls, folder: Path) -> Self:
        found = read_json(folder / CHOICE, "not_a_run")
        values = {name: each["value"] for name, each in found["scores"].items()}
        bounds = {name: each["interval"] for name, each in found["scores"].items() if each["interval"]}
        counted = (found["utterances"], found["speakers"], len(found["folds"]), found["among"])
        unknown = found.get("unknown_speakers", 0)  # older choices have none
        drawn = display.describe_drawn_units(found)
        return cls(values, bounds, drawn, *counted, len(found["seeds"]), unknown_speakers=unknown)

    @classmethod
    def from_evaluation(cls, folder: Path) -> "tuple[str, Self]":
        """Of a model on another corpus, as `sertone evaluate` left them.

        Returns:
            the corpus's title, and the scores.

        Raises:
            SertoneError: `not_a_run`.
        """
        results, card = _results(folder, "evaluate"), _card(folder)
        if "evaluated" not in card:
            raise SertoneError("not_a_run", f"{folder} is a run", "what `sertone evaluate` wrote")
        return card["corpus"]["title"], cls._pooled(folder, results, None)

    @classmethod
    def _pooled(cls, run: Path, results: dict[str, Any], folds: int | None) -> Self:
        pooled = results["pooled"]
        scored = sum(fold["test"] for fold in results["folds"])
        people = display.count_test_speakers(_card(run))
        values = {name: _of(pooled, name) for name in display.find_score_names(pooled)}
        over = {
            task: display.find_speaker_interval(scores.get("intervals", {}))
            for task, scores in pooled.items()
        }
        known = {task: own[1] for task, own in over.items() if own}
        bounds = {name: _of(known, name) for name in values if display.parse_score_name(name)[0] in known}
        return cls(values, bounds, display.describe_drawn_units(people), scored, **people, folds=folds)


def find_choice(folder: Path) -> Path | None:
    """The choice among settings whose folder this is, or one of whose runs; None: of none."""
    folder = folder.resolve()
    within = [folder.parent] if folder.name == "run" else []
    within += [folder.parent.parent] if folder.parent.name == "chosen" else []
    return next((place for place in [folder, *within] if (place / CHOICE).is_file()), None)


def describe_choice(run: Path) -> str:
    """`4 in UA`, where the settings of a run were chosen by the very answers that it holds; else nothing."""
    choice = find_choice(run)
    if choice is None or run.resolve() != choice / "run":
        return ""
    found = read_json(choice / CHOICE, "not_a_run")
    return f"{found['among']} in {display.get_score_format(found['main_score']).label}"


def find_cross_validation(folder: Path) -> Path:
    """The run itself, or of a choice the run of what is best on all speakers."""
    choice = find_choice(folder)
    return choice / "run" if choice else folder


def _results(folder: Path, command: str) -> dict[str, Any]:
    if not (folder / "results.json").is_file():
        expected = f"the folder of a finished `sertone {command}`"
        raise SertoneError("not_a_run", f"no results.json in {folder}", expected)
    return read_json(folder / "results.json", "not_a_run")


def _of(scored: Mapping[str, Mapping], name: str) -> Any:
    task, score = display.parse_score_name(name)
    return scored[task][score]


def _card(run: Path) -> dict:
    return read_json(run / "protocol.json", "not_a_run")


def _require_same(run: Path, results: dict, about: dict) -> None:
    """Scores of one recipe say nothing about a model of another."""
    own, theirs = _identity(about), _identity(model_folder.read_about(model_folder.find_checkpoints(run)[0]))
    differing = [
        f"{part}.{key}"
        for part in own
        for key in sorted({*own[part], *theirs[part]})
        if own[part].get(key) != theirs[part].get(key)
    ]
    differing += [f"settings of {name}" for name in results["folds_of_other_settings"]]
    if differing:
        raise SertoneError(
            "other_recipe",
            f"{run} and the model differ in {', '.join(differing)}",
            "a cross-validation of the recipe that the model was trained with",
            "`sertone crossval` it into a new folder, or leave out --scores",
        )


def _identity(about: dict) -> dict[str, dict[str, Any]]:
    """All that decides what a model is, but for which utterances it was trained on."""
    corpus, model = about["card"]["corpus"], about["model"]
    if text := model.get("text"):  # a small tokenizer has as many entries as its training texts gave
        config = {key: value for key, value in text["config"].items() if key != "vocab_size"}
        model = model | {"text": text | {"config": config}}
    return {
        "model": model,
        "classes": about["vocabulary"]["class_map"],
        "ratings": about["vocabulary"].get("ratings", {}),
        "corpus": {key: corpus[key] for key in ("name", "utterances_found")},
        "made of": {entry["what"]: entry["of"] for entry in about["licences"]},
        # `auto` is settled by each machine: the same recipe trains in bf16 here and in fp32 there.
        "train": {key: value for key, value in about["card"]["train"].items() if key != "precision"},
    }

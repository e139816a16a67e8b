"""The scores on a model card: of one fold's test set, of a whole cross-validation, or of another corpus."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sertone.errors import SertoneError
from sertone.files import load_json
from sertone.scoring import display
from sertone.sharing import model_folder

CHOICE = "choice.json"
"""Marks the folder of a choice among settings, which `analysis.study.choose` writes."""


@dataclass(frozen=True)
class Scores:
    """Scores of emotion and of ratings with 95 % intervals.

    Attributes:
        values: values by score, as `ua` and `valence.ccc`.
        intervals: intervals by score, [low, high]; empty where there is nothing to draw.
        drawn: the units that the intervals draw: `speakers`, `utterances`, or `known speakers and utterances
            of unknown ones`.
        utterances: number of utterances scored.
        speakers: number of their known speakers.
        folds: number of models scored together; None for the model itself.
        among: the number of settings from which the best was taken, for every speaker without that speaker;
            None: no other settings are known.
        seeds: the number of trainings over which the scores are means. The intervals then draw them too.
        unknown_speakers: number of utterances of unknown speakers.
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
        """Return who spoke the utterances, such as `10 speakers`."""
        return display.describe_speakers(vars(self))

    @property
    def has_unknown_speakers(self) -> bool:
        """Return whether the speaker of some scored utterance is unknown."""
        return self.unknown_speakers > 0

    @property
    def pooling(self) -> str:
        """Return over which models the scores of several folds are pooled."""
        if self.among is None:
            return f"the {self.folds} models of a cross-validation of the same recipe"
        seeds = f", each trained with {self.seeds} seeds" if self.seeds > 1 else ""
        return f"{self.folds} folds of a nested cross-validation{seeds}"

    def tests_unseen_speakers(self, card: Mapping[str, Any]) -> bool:
        """Return whether no scored speaker was seen in training; False where that is not known.

        It is not known where the speaker of a scored utterance is unknown. The same holds where the model,
        its encoder or its teachers were trained on recordings of unknown speakers.

        Args:
            card: the protocol card of the model.
        """
        training_data = card.get("heard", {})  # a bundle may leave it out
        return not (self.has_unknown_speakers or training_data.get("unknown_speakers", 0))

    @classmethod
    def from_fold(cls, result: dict) -> Self:
        """Return the scores on the test set of a fold, from its `result.json`."""
        # Imported here: rendering a card from known scores needs neither SciPy nor scikit-learn.
        from sertone.scoring import intervals
        from sertone.scoring.sufficient_statistics import count_speakers

        rows, metrics = result["rows"], result["metrics"]
        names = display.find_score_names(metrics)
        counts = count_speakers(rows)
        # An interval over few speakers would be as wide as the axis.
        few = sum(counts.values()) < intervals.MIN_UNITS_FOR_QUANTILES
        bounds = {}
        for task in dict.fromkeys(display.parse_score_name(name)[0] for name in names):
            bounds |= _compute_bounds(result["rows"], task, by_utterance=few)
        values = {name: _get_score(result["metrics"], name) for name in names}
        drawn = "utterances" if few else display.describe_drawn_units(counts)
        return cls(values, bounds, drawn, len(rows), **counts)

    @classmethod
    def from_run(cls, run: Path, about: dict) -> Self:
        """Return scores pooled over the folds of a cross-validation of the same recipe, or of a choice.

        Args:
            run: its folder, or that of a choice, or a run inside a choice. For such a run the scores are
                those of the choice: the score of the best run itself is too high.
            about: the content of the model's `checkpoint.json`.

        Raises:
            SertoneError: `not_a_run`, `other_recipe`.
        """
        choice = find_choice(run)
        trained = find_cross_validation(run)
        results = _load_results(trained, "crossval` or `sertone choose")
        _require_same_recipe(trained, results, about)
        return cls._from_choice(choice) if choice else cls._pool(run, results, len(results["folds"]))

    @classmethod
    def _from_choice(cls, folder: Path) -> Self:
        choice = load_json(folder / CHOICE, "not_a_run")
        scores = choice["scores"]
        return cls(
            values={name: score["value"] for name, score in scores.items()},
            intervals={name: score["interval"] for name, score in scores.items() if score["interval"]},
            drawn=display.describe_drawn_units(choice),
            utterances=choice["utterances"],
            speakers=choice["speakers"],
            folds=len(choice["folds"]),
            among=choice["among"],
            seeds=len(choice["seeds"]),
            unknown_speakers=choice.get("unknown_speakers", 0),  # older choices have none
        )

    @classmethod
    def from_evaluation(cls, folder: Path) -> "tuple[str, Self]":
        """Return the scores of a model on another corpus, as `sertone evaluate` wrote them.

        Returns:
            the corpus's title, and the scores.

        Raises:
            SertoneError: `not_a_run`.
        """
        results = _load_results(folder, "evaluate")
        card = _load_card(folder)
        if "evaluated" not in card:
            raise SertoneError("not_a_run", f"{folder} is a run", "what `sertone evaluate` wrote")
        return card["corpus"]["title"], cls._pool(folder, results, None)

    @classmethod
    def _pool(cls, run: Path, results: dict[str, Any], folds: int | None) -> Self:
        pooled = results["pooled"]
        utterances = sum(fold["test"] for fold in results["folds"])
        speaker_counts = display.count_test_speakers(_load_card(run))
        values = {name: _get_score(pooled, name) for name in display.find_score_names(pooled)}
        intervals = {}
        for task, scores in pooled.items():
            if interval := display.find_speaker_interval(scores.get("intervals", {})):
                _, intervals[task] = interval
        bounds = {
            name: _get_score(intervals, name)
            for name in values
            if display.parse_score_name(name)[0] in intervals
        }
        drawn = display.describe_drawn_units(speaker_counts)
        return cls(values, bounds, drawn, utterances, **speaker_counts, folds=folds)


def _compute_bounds(rows: list[dict], task: str, *, by_utterance: bool) -> dict[str, list[float]]:
    """Return score -> [low, high] of a task; empty where there is nothing to draw."""
    from sertone.scoring import intervals
    from sertone.scoring.sufficient_statistics import (
        SufficientStatistics,
        get_task_columns,
        get_unit,
        select_labelled,
    )

    labelled = select_labelled(rows, task)
    classes = sorted({str(row[column]) for row in labelled for column in get_task_columns(task)})
    units = [row["id"] if by_utterance else get_unit(row) for row in labelled]
    statistics = SufficientStatistics.from_rows(labelled, task, classes, units)
    bounds = intervals.compute_intervals(statistics) or {}
    return {display.build_score_name(task, score): pair for score, pair in bounds.items()}


def find_choice(folder: Path) -> Path | None:
    """Return the folder of the choice among settings that a folder belongs to; None where it has none.

    Args:
        folder: that of the choice itself, its `run`, or one of the runs in `chosen`.
    """
    folder = folder.resolve()
    candidates = [folder]
    if folder.name == "run":
        candidates.append(folder.parent)
    if folder.parent.name == "chosen":
        candidates.append(folder.parent.parent)
    return next((candidate for candidate in candidates if (candidate / CHOICE).is_file()), None)


def describe_choice(run: Path) -> str:
    """Return how the settings of a run were chosen by its own scores, such as `4 in UA`; else nothing."""
    choice = find_choice(run)
    if choice is None or run.resolve() != choice / "run":
        return ""
    about = load_json(choice / CHOICE, "not_a_run")
    return f"{about['among']} in {display.get_score_format(about['main_score']).label}"


def find_cross_validation(folder: Path) -> Path:
    """Return the run itself; of a choice the run of the settings that are best on all speakers."""
    choice = find_choice(folder)
    return choice / "run" if choice else folder


def _load_results(folder: Path, command: str) -> dict[str, Any]:
    if not (folder / "results.json").is_file():
        expected = f"the folder of a finished `sertone {command}`"
        raise SertoneError("not_a_run", f"no results.json in {folder}", expected)
    return load_json(folder / "results.json", "not_a_run")


def _get_score(by_task: Mapping[str, Mapping], name: str) -> Any:
    """Return the entry of a score such as `valence.ccc`."""
    task, score = display.parse_score_name(name)
    return by_task[task][score]


def _load_card(run: Path) -> dict:
    return load_json(run / "protocol.json", "not_a_run")


def _require_same_recipe(run: Path, results: dict, about: dict) -> None:
    """Refuse the scores of another recipe, which say nothing about the model."""
    of_model = _describe_recipe(about)
    first_fold = model_folder.find_checkpoints(run)[0]
    of_run = _describe_recipe(model_folder.read_about(first_fold))
    differing = [
        f"{part}.{key}"
        for part in of_model
        for key in sorted({*of_model[part], *of_run[part]})
        if of_model[part].get(key) != of_run[part].get(key)
    ]
    differing += [f"settings of {name}" for name in results["folds_of_other_settings"]]
    if differing:
        raise SertoneError(
            "other_recipe",
            f"{run} and the model differ in {', '.join(differing)}",
            "a cross-validation of the recipe that the model was trained with",
            "`sertone crossval` it into a new folder, or leave out --scores",
        )


def _describe_recipe(about: dict) -> dict[str, dict[str, Any]]:
    """Return everything that defines a model, except the utterances that it was trained on."""
    corpus, model = about["card"]["corpus"], about["model"]
    if text := model.get("text"):
        # The vocabulary of a small tokenizer depends on the texts of each fold's training set.
        config = {key: value for key, value in text["config"].items() if key != "vocab_size"}
        model = model | {"text": text | {"config": config}}
    return {
        "model": model,
        "classes": about["vocabulary"]["class_map"],
        "ratings": about["vocabulary"].get("ratings", {}),
        "corpus": {key: corpus[key] for key in ("name", "utterances_found")},
        "built from": {entry["what"]: entry["of"] for entry in about["licences"]},
        # `auto` is settled by each machine: the same recipe trains in bf16 here and in fp32 there.
        "train": {key: value for key, value in about["card"]["train"].items() if key != "precision"},
    }

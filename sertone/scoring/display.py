"""Names, bounds and printed form of the scores, and the wording of what they are based on.

Accuracies and error rates are printed in percent, correlations as papers print them (.748), and errors of
ratings in points of the rating scale. A score of emotion has its bare name (`ua`). A score of another task
has the task before it (`valence.ccc`).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sertone.utils.wording import format_count

EMOTION_SCORES = ("ua", "wa", "macro_f1")
RATING_SCORES = ("ccc", "pearson", "rmse")
UNIT_TEXTS = {"percent": "in percent", "correlation": "from -1 to 1", "scale": "in points of the scale"}


@dataclass(frozen=True)
class ScoreFormat:
    """Format in which one score is printed.

    Attributes:
        label: short name, for the header of a table.
        title: long name, where there is room.
        low: lowest possible value.
        high: highest possible value.
        unit: `percent`; `correlation`; `scale`, points of the rating scale.
        lower_is_better: true for errors.
    """

    label: str
    title: str
    low: float = 0.0
    high: float = 1.0
    unit: str = "percent"
    lower_is_better: bool = False

    @property
    def is_percent(self) -> bool:
        """True for scores that are printed in percent."""
        return self.unit == "percent"

    @property
    def display_factor(self) -> float:
        """Factor between a value and its printed number."""
        return 100.0 if self.is_percent else 1.0

    @property
    def difference_unit(self) -> str:
        """Unit that follows a printed difference: ` points`, or nothing."""
        return " points" if self.is_percent else ""

    def format_number(self, value: float, sign: str = "") -> str:
        """Format a value without its unit: `71.2`, `.748` or `0.612`.

        Args:
            value: value of the score, or a difference of two.
            sign: `+` for a difference, which then always has a sign.
        """
        if self.is_percent:
            return f"{100 * value:{sign}.1f}"
        text = f"{value:{sign}.3f}"
        # Papers print correlations without the leading zero.
        return text.replace("0.", ".", 1) if self.unit == "correlation" else text

    def format_value(self, value: float) -> str:
        """Format a value with its unit: `71.2%`, `.748` or `0.612`."""
        return self.format_number(value) + ("%" if self.is_percent else "")

    def format_published(self, value: float) -> str:
        """Format a score that a paper printed.

        A study file holds it as printed, so percentages are in percent already and keep their digits.
        """
        return self.format_number(value) if self.unit == "correlation" else f"{value:g}"


SCORE_FORMATS = {
    "ua": ScoreFormat("UA", "Unweighted accuracy (UA)"),
    "wa": ScoreFormat("WA", "Weighted accuracy (WA)"),
    "macro_f1": ScoreFormat("macro-F1", "Macro-F1"),
    "accuracy": ScoreFormat("accuracy", "accuracy"),
    # Insertions can make an error rate exceed 1.
    "cer": ScoreFormat("CER", "character error rate", high=math.inf, lower_is_better=True),
    "wer": ScoreFormat("WER", "word error rate", high=math.inf, lower_is_better=True),
    "ccc": ScoreFormat("CCC", "Concordance (CCC)", -1.0, 1.0, "correlation"),
    "pearson": ScoreFormat("Pearson", "Pearson's correlation", -1.0, 1.0, "correlation"),
    "rmse": ScoreFormat("RMSE", "Root mean square error", 0.0, math.inf, "scale", lower_is_better=True),
}


def build_score_name(task: str, score: str) -> str:
    """Return the name of a task's score: `ua`, `valence.ccc`."""
    return score if task == "emotion" else f"{task}.{score}"


def parse_score_name(name: str) -> tuple[str, str]:
    """Return the task and the score of a name."""
    task, _, score = name.rpartition(".")
    return task or "emotion", score


def get_score_format(name: str) -> ScoreFormat:
    """Return the format of a score. The label of a rating's score names the rating: `CCC valence`."""
    task, score = parse_score_name(name)
    score_format = SCORE_FORMATS[score]
    if score not in RATING_SCORES:
        return score_format
    label = f"{score_format.label} {task}"
    return replace(score_format, label=label, title=f"{score_format.title}, {task}")


def list_score_names(classes: Sequence[str], ratings: Iterable[str]) -> list[str]:
    """Return the names of all scores of a model with these classes, if any, and these ratings."""
    emotion_names = list(EMOTION_SCORES) if classes else []
    return emotion_names + [build_score_name(rating, score) for rating in ratings for score in RATING_SCORES]


def find_score_names(scores_by_task: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the names of the emotion and rating scores among scores by task.

    Args:
        scores_by_task: such as `pooled` in results.json.
    """
    known = (*EMOTION_SCORES, *RATING_SCORES)
    return [
        build_score_name(task, score)
        for task, scores in scores_by_task.items()
        for score in scores
        if score in known
    ]


def describe_units(scores: Iterable[str]) -> str:
    """Describe the units of printed scores: `Percent`, or `UA and WA in percent, CCC from -1 to 1`."""
    labels_by_unit: dict[str, list[str]] = {}
    for score in scores:
        score_format = SCORE_FORMATS[parse_score_name(score)[1]]
        labels_by_unit.setdefault(score_format.unit, []).append(score_format.label)
    if list(labels_by_unit) == ["percent"]:
        return "Percent"
    # dict.fromkeys drops repeated labels and keeps their order.
    return ", ".join(
        f"{' and '.join(dict.fromkeys(labels))} {UNIT_TEXTS[unit]}" for unit, labels in labels_by_unit.items()
    )


COST_LABELS = {
    "total": "parameters, M",
    "trained": "trained, M",
    "real_time_factor": "real-time factor",
    "memory_mb": "memory, MB",
}
"""Costs of a model (`analysis.cost`) that a table shows, with their labels."""
MILLION = 1e6


def format_cost(cost: Mapping[str, Any] | None, name: str) -> str:
    """Format a cost: `61.8`, `0.046`. Return an empty text where it is not known."""
    if not cost:
        return ""
    value = cost[name] / MILLION if name in ("total", "trained") else cost[name]
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def describe_costs(rows: Iterable[Mapping[str, Any]]) -> str:
    """Describe how the costs in a study's rows were measured. Return an empty text where there are none."""
    if not any(cell.get("cost") for row in rows for cell in row["cells"].values()):
        return ""
    return (
        "Real-time factor: seconds of computing per second of audio, for one clip of 5 s on one CPU core, "
        "the fastest of several runs. Memory: what the weights and one prediction need."
    )


def describe_speakers(counts: Mapping[str, Any]) -> str:
    """Return who speaks: `10 speakers`, `40 known speakers and, in 12 utterances, unknown ones`.

    Args:
        counts: number of known `speakers` and, where some are unknown, of their utterances
            (`unknown_speakers`); such as the part `corpus` of a protocol card.
    """
    known_count = counts["speakers"]
    unknown_count = counts.get("unknown_speakers", 0)
    if not unknown_count:
        return format_count(known_count, "speaker")
    if not known_count:
        return "unknown speakers"
    utterances = format_count(unknown_count, "utterance")
    return f"{format_count(known_count, 'known speaker')} and, in {utterances}, unknown ones"


def count_drawn_units(counts: Mapping[str, Any]) -> str:
    """Return how many units an interval draws: `10 speakers`, `339 utterances of unknown speakers`.

    Args:
        counts: see `describe_speakers`.
    """
    known_count = counts["speakers"]
    unknown_count = counts.get("unknown_speakers", 0)
    if not unknown_count:
        return format_count(known_count, "speaker")
    utterances = format_count(unknown_count, "utterance")
    if not known_count:
        return f"{utterances} of unknown speakers"
    return f"{format_count(known_count, 'known speaker')} and {utterances} of unknown ones"


def describe_drawn_units(counts: Mapping[str, Any]) -> str:
    """Return the kind of units that intervals draw: `speakers`, `utterances`, or both.

    Args:
        counts: see `describe_speakers`.
    """
    if not counts.get("unknown_speakers", 0):
        return "speakers"
    return "known speakers and utterances of unknown ones" if counts["speakers"] else "utterances"


def count_test_speakers(card: Mapping[str, Any]) -> dict[str, int]:
    """Count the speakers of all test sets, in the form that `describe_speakers` takes.

    Args:
        card: protocol card.
    """
    folds = card["folds"]
    return {
        "speakers": len({name for fold in folds for name in fold["test_speakers"]}),
        "unknown_speakers": sum(fold.get("test_unknown_speakers", 0) for fold in folds),
    }


def count_interval_units(kind: str, interval: Mapping[str, Any]) -> str:
    """Return how many units one interval draws: `5 folds`, or as `count_drawn_units`.

    Args:
        kind: key of the interval in the result of `intervals.compute_intervals_by_unit`.
        interval: its number of `units` and, among them, of utterances of `unknown_speakers`.
    """
    if kind == "folds":
        return format_count(interval["units"], "fold")
    unknown = interval["units"] if kind == "utterances" else interval.get("unknown_speakers", 0)
    return count_drawn_units({"speakers": interval["units"] - unknown, "unknown_speakers": unknown})


def find_speaker_interval(
    intervals: Mapping[str, Mapping[str, Any]],
) -> tuple[str, Mapping[str, Any]] | None:
    """Return kind and bounds of the interval that draws speakers, or utterances of unknown speakers."""
    return next(((kind, bounds) for kind, bounds in intervals.items() if kind != "folds"), None)


def describe_unknown_speakers(card: Mapping[str, Any]) -> str:
    """Return a warning where a corpus does not name all its speakers. Return an empty text where it does.

    Args:
        card: protocol card.
    """
    corpus = card["corpus"]
    unknown = corpus.get("unknown_speakers", 0)
    if not unknown:
        return ""
    warning = (
        f"The speakers of {unknown} of {format_count(corpus['utterances_used'], 'utterance')} are unknown: "
        "test speakers may also occur in the training set."
    )
    if corpus["speakers"]:
        return warning
    return (
        f"{warning} Intervals draw single utterances. They are too narrow where one person spoke several of "
        "these."
    )


def describe_independence(card: Mapping[str, Any]) -> str:
    """Return whether training and test share no speaker, as far as it is known."""
    unknown = card["corpus"].get("unknown_speakers", 0)
    # The split says "not known" where the encoder was trained on unknown speakers.
    is_doubtful = unknown or card.get("split", {}).get("speaker_independent") == "not known"
    return "independence of speakers not known" if is_doubtful else "speaker-independent"


def describe_published_scores(results: Mapping[str, Any]) -> str:
    """Return the source and the convention of a paper's scores. Return an empty text where there are none.

    Args:
        results: results.json of a study.
    """
    if not results["published"]:
        return ""
    conventions = {
        "not stated": "which does not say whether a score is pooled or a mean over folds; papers of this "
        "field commonly print the mean over folds",
        "pooled": "which prints pooled scores",
        "mean over folds": "which prints means over folds",
    }
    return f"Paper: {results['published']}, {conventions[results['published_convention']]}."

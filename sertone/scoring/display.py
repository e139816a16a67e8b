"""Scores as they are called, bounded and printed.

Shares and error rates are printed in percent, correlations as papers do (.748), errors of ratings in the
units of the scale. A score of emotion has its bare name (`ua`), one of another task is `valence.ccc`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

EMOTION_SCORES = ("ua", "wa", "macro_f1")
RATING_SCORES = ("ccc", "pearson", "rmse")
SPANS = {"percent": "percent", "unit": "from -1 to 1", "scale": "in points of the scale"}


@dataclass(frozen=True)
class ScoreFormat:
    """How one score is printed.

    Attributes:
        label: in the head of a table.
        title: where there is room.
        low: the lowest value that the score can have.
        high: the highest.
        span: `percent`; `unit`, a correlation; `scale`, in the units of what was rated.
        lower_is_better: of an error.
    """

    label: str
    title: str
    low: float = 0.0
    high: float = 1.0
    unit: str = "percent"
    lower_is_better: bool = False

    @property
    def is_percent(self) -> bool:
        """Whether it is printed in percent."""
        return self.unit == "percent"

    @property
    def display_factor(self) -> float:
        """From the value to what is printed."""
        return 100.0 if self.is_percent else 1.0

    @property
    def difference_unit(self) -> str:
        """What differences are counted in."""
        return " points" if self.is_percent else ""

    def format_number(self, value: float, sign: str = "") -> str:
        """`71.2`, `.748` or `0.612`; with the sign of a difference where `sign` is `+`."""
        if self.is_percent:
            return f"{100 * value:{sign}.1f}"
        text = f"{value:{sign}.3f}"
        return text.replace("0.", ".", 1) if self.unit == "unit" else text

    def format_value(self, value: float) -> str:
        """`71.2%`, `.748` or `0.612`."""
        return self.format_number(value) + ("%" if self.is_percent else "")

    def format_published(self, value: float) -> str:
        """A figure that a paper printed: as it stands there, and a correlation as ours."""
        return self.format_number(value) if self.unit == "unit" else f"{value:g}"


SCORE_FORMATS = {
    "ua": ScoreFormat("UA", "Unweighted accuracy (UA)"),
    "wa": ScoreFormat("WA", "Weighted accuracy (WA)"),
    "macro_f1": ScoreFormat("macro-F1", "Macro-F1"),
    "accuracy": ScoreFormat("accuracy", "accuracy"),
    "cer": ScoreFormat("CER", "character error rate", high=math.inf, lower_is_better=True),
    "wer": ScoreFormat("WER", "word error rate", high=math.inf, lower_is_better=True),
    "ccc": ScoreFormat("CCC", "Concordance (CCC)", -1.0, 1.0, "unit"),
    "pearson": ScoreFormat("Pearson", "Pearson's correlation", -1.0, 1.0, "unit"),
    "rmse": ScoreFormat("RMSE", "Root mean square error", 0.0, math.inf, "scale", lower_is_better=True),
}


def build_score_name(task: str, score: str) -> str:
    """The name of a task's score."""
    return score if task == "emotion" else f"{task}.{score}"


def parse_score_name(name: str) -> tuple[str, str]:
    """Task and score of a name."""
    task, _, score = name.rpartition(".")
    return task or "emotion", score


def get_score_format(name: str) -> ScoreFormat:
    """The figure of a score; one of a rating says which: `CCC valence`."""
    task, score = parse_score_name(name)
    figure = SCORE_FORMATS[score]
    if score not in RATING_SCORES:
        return figure
    return replace(figure, label=f"{figure.label} {task}", title=f"{figure.title}, {task}")


def list_score_names(classes: Sequence[str], ratings: Iterable[str]) -> list[str]:
    """Names of all scores of a model that answers these classes, if any, and these ratings."""
    own = list(EMOTION_SCORES) if classes else []
    return own + [build_score_name(rating, score) for rating in ratings for score in RATING_SCORES]


def find_score_names(scored: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names of the scores of emotion and of ratings among scores by task, as `pooled` in results.json."""
    known = (*EMOTION_SCORES, *RATING_SCORES)
    return [
        build_score_name(task, score) for task, scores in scored.items() for score in scores if score in known
    ]


def describe_units(scores: Iterable[str]) -> str:
    """What the printed figures are: `Percent`, or `UA and WA in percent, CCC from -1 to 1`."""
    by_span: dict[str, list[str]] = {}
    for score in scores:
        figure = SCORE_FORMATS[parse_score_name(score)[1]]
        by_span.setdefault(figure.unit, []).append(figure.label)
    if list(by_span) == ["percent"]:
        return "Percent"
    said = [
        f"{' and '.join(dict.fromkeys(labels))} {'in ' * (span == 'percent')}{SPANS[span]}"
        for span, labels in by_span.items()
    ]
    return ", ".join(said)


COST_LABELS = {
    "total": "parameters, M",
    "trained": "trained, M",
    "real_time_factor": "real-time factor",
    "memory_mb": "memory, MB",
}
"""What a table shows of what a model costs (`analysis.cost`)."""
MILLION = 1e6


def format_cost(cost: Mapping[str, Any] | None, name: str) -> str:
    """A cost as printed: `61.8`, `0.046`; empty where it is not known."""
    if not cost:
        return ""
    value = cost[name] / MILLION if name in ("total", "trained") else cost[name]
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def describe_costs(rows: Iterable[Mapping[str, Any]]) -> str:
    """What the costs in a study's rows are; empty where there are none."""
    if not any(cell.get("cost") for row in rows for cell in row["cells"].values()):
        return ""
    return (
        "Real-time factor: seconds of computing per second of audio, one clip of 5 s at a time on one CPU "
        "core, the fastest of several; memory: of weights and that answer."
    )


def describe_speakers(counts: Mapping[str, Any]) -> str:
    """Return who speaks: `10 speakers`, `40 known speakers and, in 12 utterances, unknown ones`.

    Args:
        counts: how many `speakers` are known and, where some are not, how many utterances are of
            `unknown_speakers`; such as the part `corpus` of a protocol card.
    """
    known, unknown = counts["speakers"], counts.get("unknown_speakers", 0)
    if not unknown:
        return format_count(known, "speaker")
    if not known:
        return "unknown speakers"
    return (
        f"{format_count(known, 'known speaker')} and, in {format_count(unknown, 'utterance')}, unknown ones"
    )


def count_drawn_units(counts: Mapping[str, Any]) -> str:
    """Return how many units an interval draws: `10 speakers`, `339 utterances of unknown speakers`.

    Args:
        counts: as of `people`.
    """
    known, unknown = counts["speakers"], counts.get("unknown_speakers", 0)
    if not unknown:
        return format_count(known, "speaker")
    if not known:
        return f"{format_count(unknown, 'utterance')} of unknown speakers"
    return f"{format_count(known, 'known speaker')} and {format_count(unknown, 'utterance')} of unknown ones"


def describe_drawn_units(counts: Mapping[str, Any]) -> str:
    """Return what intervals draw: `speakers`, `utterances`, or both; as `drawn`, without the numbers."""
    if not counts.get("unknown_speakers", 0):
        return "speakers"
    return "known speakers and utterances of unknown ones" if counts["speakers"] else "utterances"


def count_test_speakers(card: Mapping[str, Any]) -> dict[str, int]:
    """Return who speaks on the test sides, counted as `people` takes it.

    Args:
        card: protocol card.
    """
    folds = card["folds"]
    return {
        "speakers": len({name for fold in folds for name in fold["test_speakers"]}),
        "unknown_speakers": sum(fold.get("test_unknown_speakers", 0) for fold in folds),
    }


def count_interval_units(kind: str, interval: Mapping[str, Any]) -> str:
    """Return how many units an interval draws, as `drawn` does.

    Args:
        kind: key of the interval, as `intervals.compute_intervals_by_unit` names it.
        interval: its `units`, and utterances of `unknown_speakers` among them.
    """
    if kind == "folds":
        return format_count(interval["units"], "fold")
    unknown = interval["units"] if kind == "utterances" else interval.get("unknown_speakers", 0)
    return count_drawn_units({"speakers": interval["units"] - unknown, "unknown_speakers": unknown})


def find_speaker_interval(intervals: Mapping[str, Mapping[str, Any]]) -> tuple[str, Mapping[str, Any]] | None:
    """Return kind and bounds of the interval that draws speakers, or utterances of unknown ones."""
    return next(((kind, own) for kind, own in intervals.items() if kind != "folds"), None)


def describe_unknown_speakers(card: Mapping[str, Any]) -> str:
    """Return a warning where a corpus does not name all its speakers; empty where it does.

    Args:
        card: protocol card.
    """
    corpus = card["corpus"]
    if not (unknown := corpus.get("unknown_speakers", 0)):
        return ""
    narrow = " Intervals draw single utterances: too narrow where one person spoke several."
    return (
        f"The speakers of {unknown} of {format_count(corpus['utterances_used'], 'utterance')} are unknown: nobody "
        "knows whether people of the test side were also heard in training."
        + ("" if corpus["speakers"] else narrow)
    )


def describe_independence(card: Mapping[str, Any]) -> str:
    """Return whether training and test share no speaker, as far as it is known."""
    unknown = card["corpus"].get("unknown_speakers", 0)
    doubtful = unknown or card.get("split", {}).get("speaker_independent") == "not known"  # by its encoder
    return "independence of speakers not known" if doubtful else "speaker-independent"


def describe_published_scores(found: Mapping[str, Any]) -> str:
    """Return where the paper's figures are printed, and by which convention; empty where there are none."""
    if not found["published"]:
        return ""
    convention = found["published_convention"]
    said = (
        "which does not say whether a score is pooled or a mean over folds; papers of this field commonly "
        "print the mean over folds"
        if convention == "not stated"
        else f"which prints {'pooled scores' if convention == 'pooled' else 'means over folds'}"
    )
    return f"Paper: {found['published']}, {said}."


def format_duration(seconds: float) -> str:
    """A time as printed: `3:07`, `2:03:07`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_count(number: int, thing: str) -> str:
    """How many there are: `1 file`, `2 files`."""
    return f"{number} {thing}{'s' * (number != 1)}"


def format_axis_value(value: float, high: float) -> str:
    """Return a value as an axis that ends at `high` shows it: learning rates need powers of ten."""
    return f"{value:.2f}" if high >= 0.1 or not value else f"{value:.1e}".replace("e-0", "e-")


def shorten_list(names: Sequence[str]) -> str:
    """Name the first three of many: `a, b, c, ...`."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")

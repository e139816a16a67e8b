"""The page's sections on the emotion classes: confusion, speakers, the annotators' votes."""

from collections import defaultdict

from sertone.report import confidence, plots
from sertone.scoring import intervals, metrics
from sertone.scoring.sufficient_statistics import SufficientStatistics, select_labelled

MAX_SPEAKERS = 40
"""Most speakers in one plot."""


def build_section(results: dict, rows: list[dict]) -> dict | None:
    """Return the parts of the page on emotion; None if there are no classes or no emotion was known.

    Args:
        results: results of a run, as in results.json.
        rows: rows of predictions.csv.
    """
    from markupsafe import Markup

    pooled = results["pooled"].get("emotion")
    if not pooled:
        return None
    labelled = [row for row in select_labelled(rows, "emotion") if row["speaker"]]
    return {
        "classes": results["classes"],
        "confusion": _build_confusion(pooled["confusion"]),
        "speakers": Markup(_plot_speakers(labelled, results["classes"])) if labelled else "",
        "left_out": _describe_left_out(labelled),
        "soft": _describe_soft_scores(pooled["soft"]),
        "confidence": confidence.build_section(results),
    }


def _describe_soft_scores(scores: dict | None) -> str:
    """Return a line on how well the probabilities agree with the annotators' votes; empty without votes."""
    if not scores:
        return ""
    return (
        f"Compared with the annotators' votes, which {scores['utterances']} test utterances have: "
        f"Jensen-Shannon divergence {scores['jsd']:.3f} bits (0: equal, 1: nothing in common), "
        f"cosine similarity {scores['cosine']:.3f} (1: equal)."
    )


def _build_confusion(counts: list[list[int]]) -> list[list[dict]]:
    # A class that no test utterance has would divide by zero.
    return [[{"count": count, "share": count / max(1, sum(row))} for count in row] for row in counts]


def _group_by_speaker(rows: list[dict]) -> dict[str, list[dict]]:
    by_speaker = defaultdict(list)
    for row in rows:
        by_speaker[row["speaker"]].append(row)
    return by_speaker


def _describe_left_out(rows: list[dict]) -> str:
    """Return a note if the plot leaves out speakers; empty if it shows all of them."""
    count = len(_group_by_speaker(rows))
    if count <= MAX_SPEAKERS:
        return ""
    return f"Shown are the {MAX_SPEAKERS} of {count} speakers with the most utterances."


def _plot_speakers(rows: list[dict], classes: list[str]) -> str:
    """Plot the UA of the speakers with the most utterances, with intervals over each speaker's utterances."""
    by_speaker = _group_by_speaker(rows)
    # The name decides between speakers with equally many utterances, so that the page is reproducible.
    largest = sorted(by_speaker, key=lambda name: (-len(by_speaker[name]), name))[:MAX_SPEAKERS]
    scores = []
    for speaker in sorted(largest):
        utterances = by_speaker[speaker]
        targets = [row["target"] for row in utterances]
        predictions = [row["prediction"] for row in utterances]
        ua = metrics.emotion_scores(targets, predictions)["ua"]
        statistics = SufficientStatistics.from_rows(utterances, "emotion", classes, range(len(utterances)))
        bounds = intervals.compute_intervals(statistics)
        low, high = bounds["ua"] if bounds else (ua, ua)
        scores.append((f"{speaker} ({len(utterances)})", low, ua, high))
    values = ", ".join(f"{name} {ua:.0%}" for name, _, ua, _ in scores)
    return plots.plot_intervals(scores, 1 / len(classes), f"Unweighted accuracy by speaker: {values}")

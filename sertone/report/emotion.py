"""The page's sections on the emotion classes: confusion, speakers, the annotators' votes."""

from collections import defaultdict

from sertone.report import confidence, plots
from sertone.scoring import intervals, metrics
from sertone.scoring.sufficient_statistics import SufficientStatistics, select_labelled

MOST = 40
"""Speakers in a plot."""


def build_section(results: dict, rows: list[dict]) -> dict | None:
    """What the page shows of emotions; None where there are no classes, or none of them was known.

    Args:
        results: of a run, as in results.json.
        rows: of predictions.csv.
    """
    from markupsafe import Markup

    pooled = results["pooled"].get("emotion")
    if not pooled:
        return None
    spoken = [row for row in select_labelled(rows, "emotion") if row["speaker"]]
    return {
        "classes": results["classes"],
        "confusion": _confusion(pooled["confusion"]),
        "speakers": Markup(_plot_speakers(spoken, results["classes"])) if spoken else "",
        "left_out": _describe_left_out(spoken),
        "soft": _soft(pooled["soft"]),
        "confidence": confidence.build_section(results),
    }


def _soft(scores: dict | None) -> str:
    """How the probabilities agree with the annotators' votes, in one line."""
    if not scores:
        return ""
    return (
        f"Against the votes of the annotators, which {scores['utterances']} test utterances have: "
        f"Jensen-Shannon divergence {scores['jsd']:.3f} bits (0: equal, 1: nothing in common), "
        f"cosine {scores['cosine']:.3f} (1: equal)."
    )


def _confusion(table: list[list[int]]) -> list[list[dict]]:
    return [[{"count": count, "share": count / max(1, sum(row))} for count in row] for row in table]


def _by_speaker(rows: list[dict]) -> dict[str, list[dict]]:
    by_speaker = defaultdict(list)
    for row in rows:
        by_speaker[row["speaker"]].append(row)
    return by_speaker


def _describe_left_out(rows: list[dict]) -> str:
    """What the speakers' plot does not show; empty where it shows all."""
    count = len(_by_speaker(rows))
    return f"Shown are the {MOST} of {count} speakers who said most." if count > MOST else ""


def _plot_speakers(rows: list[dict], classes: list[str]) -> str:
    """Scores of the speakers who said most; the interval draws a speaker's utterances one by one."""
    by_speaker = _by_speaker(rows)
    most = sorted(by_speaker, key=lambda name: (-len(by_speaker[name]), name))[:MOST]
    shown = []
    for speaker, own in sorted((name, by_speaker[name]) for name in most):
        targets, predictions = [r["target"] for r in own], [r["prediction"] for r in own]
        ua = metrics.emotion_scores(targets, predictions)["ua"]
        bounds = intervals.compute_intervals(
            SufficientStatistics.from_rows(own, "emotion", classes, range(len(own)))
        )
        low, high = bounds["ua"] if bounds else (ua, ua)
        shown.append((f"{speaker} ({len(own)})", low, ua, high))
    words = ", ".join(f"{name} {ua:.0%}" for name, _, ua, _ in shown)
    return plots.plot_intervals(shown, 1 / len(classes), f"Unweighted accuracy by speaker: {words}")

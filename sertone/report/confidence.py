"""The page's section on confidence: calibration before and after, reliability, risk and coverage."""

from sertone.report import plots
from sertone.scoring.calibration import NOT_FITTED
from sertone.utils.wording import format_count


def build_section(results: dict) -> dict:
    """Return the values that `_confidence.html` shows.

    Args:
        results: results of a run with emotions, as in results.json.
    """
    from markupsafe import Markup

    pooled = results["pooled"]["emotion"]["confidence"]
    folds = [fold for fold in results["folds"] if "confidence" in fold]
    return {
        "scores": pooled,
        "reliability": Markup(_plot_reliability(pooled["reliability"])),
        "risk": Markup(_plot_risk(pooled["risk_coverage"])),
        "folds": [_build_fold(fold) for fold in folds],
        "fitted": any(fold["confidence"]["calibration"]["fitted_on"] for fold in folds),
        "not_fitted": NOT_FITTED,
        "coverage": _describe_coverage(folds, pooled),
    }


def _plot_reliability(bins: list[dict]) -> str:
    points = ", ".join(f"{b['accuracy']:.0%} at {b['confidence']:.0%}" for b in bins)
    total = sum(b["utterances"] for b in bins)
    marks = [
        (
            b["confidence"],
            b["accuracy"],
            b["utterances"] / total,
            f"{format_count(b['utterances'], 'utterance')}: mean confidence {b['confidence']:.1%}, "
            f"correct {b['accuracy']:.1%}",
        )
        for b in bins
    ]
    alt = f"Share of correct predictions by confidence: {points}"
    return plots.plot_diagonal(marks, "confidence", "share of correct predictions", alt)


def _plot_risk(points: list[list[float]]) -> str:
    # Four points, evenly spaced, are enough for the text alternative.
    shown = points[max(0, len(points) // 4 - 1) :: max(1, len(points) // 4)]
    values = ", ".join(f"{risk:.0%} at {coverage:.0%}" for coverage, risk in shown)
    alt = f"Share of wrong predictions by share of recordings predicted, most confident first: {values}"
    return plots.plot_curve(points, "share of recordings predicted", "share of wrong predictions", alt)


def _build_fold(fold: dict) -> dict:
    confidence = fold["confidence"]
    fitted_on = confidence["calibration"]["fitted_on"]
    unknown = f"{fitted_on['utterances']} utterances, speakers unknown" if fitted_on else ""
    speakers = ", ".join(fitted_on.get("speakers", ())) or unknown
    return {"name": fold["name"], "speakers": speakers} | confidence


def _describe_coverage(folds: list[dict], pooled: dict) -> str:
    """Return a sentence on the coverage that the thresholds reach on speakers never seen in training."""
    # All folds have the same requested coverage.
    coverage = folds[0]["confidence"]["calibration"]["coverage"]
    if coverage is None:
        return ""
    total = sum(b["utterances"] for b in pooled["reliability"])
    sure = pooled["sure"]
    correct = f", and {pooled['sure_and_right'] / sure:.1%} of these predictions are correct" if sure else ""
    return (
        f"Requested coverage: {coverage:.0%} of the recordings. With the thresholds of the validation "
        f"speakers, {sure / total:.1%} of the test recordings receive a prediction{correct}. The others are "
        "marked unsure."
    )

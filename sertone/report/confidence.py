"""The page's section on confidence: calibration before and after, reliability, risk and coverage."""

from sertone.report import plots
from sertone.scoring.calibration import NOT_FITTED
from sertone.scoring.display import format_count


def build_section(results: dict) -> dict:
    """What `_confidence.html` shows.

    Args:
        results: of a run with emotions, as in results.json.
    """
    from markupsafe import Markup

    pooled = results["pooled"]["emotion"]["confidence"]
    folds = [fold for fold in results["folds"] if "confidence" in fold]
    return {
        "scores": pooled,
        "reliability": Markup(_reliability(pooled["reliability"])),
        "risk": Markup(_risk(pooled["risk_coverage"])),
        "folds": [_fold(fold) for fold in folds],
        "fitted": any(fold["confidence"]["calibration"]["fitted_on"] for fold in folds),
        "not_fitted": NOT_FITTED,
        "answered": _answered(folds, pooled),
    }


def _reliability(bins: list[dict]) -> str:
    words = ", ".join(f"{b['accuracy']:.0%} at {b['confidence']:.0%}" for b in bins)
    total = sum(b["utterances"] for b in bins)
    marks = [
        (
            b["confidence"],
            b["accuracy"],
            b["utterances"] / total,
            f"{format_count(b['utterances'], 'utterance')}: mean confidence {b['confidence']:.1%}, "
            f"right {b['accuracy']:.1%}",
        )
        for b in bins
    ]
    return plots.plot_diagonal(
        marks, "confidence", "share of right answers", f"Share of right answers: {words}"
    )


def _risk(points: list[list[float]]) -> str:
    shown = points[max(0, len(points) // 4 - 1) :: max(1, len(points) // 4)]
    words = ", ".join(f"{risk:.0%} at {coverage:.0%}" for coverage, risk in shown)
    alt = f"Share of wrong answers by share of recordings answered, most confident first: {words}"
    return plots.plot_curve(points, "share of recordings answered", "share of wrong answers", alt)


def _fold(fold: dict) -> dict:
    own = fold["confidence"]
    fitted_on = own["calibration"]["fitted_on"]
    unknown = f"{fitted_on['utterances']} utterances, speakers unknown" if fitted_on else ""
    speakers = ", ".join(fitted_on.get("speakers", ())) or unknown
    return {"name": fold["name"], "speakers": speakers} | own


def _answered(folds: list[dict], pooled: dict) -> str:
    """What the thresholds for the wanted coverage come to on speakers never heard."""
    coverage = folds[0]["confidence"]["calibration"]["coverage"]
    if coverage is None:
        return ""
    total = sum(b["utterances"] for b in pooled["reliability"])
    sure = pooled["sure"]
    right = f" and {pooled['sure_and_right'] / sure:.1%} of these answers are right" if sure else ""
    return (
        f"Wanted: an answer for {coverage:.0%} of the recordings. With the thresholds of the validation "
        f"speakers {sure / total:.1%} of the test recordings get one{right}; the others are marked unsure."
    )

"""The tests of an audit: what was measured, the threshold, and whether it was met."""

import math
from dataclasses import dataclass, replace
from typing import Literal

PASSED, FAILED, NOT_TESTABLE = "passed", "failed", "not testable"
ROUNDING = 1e-9
"""A loss of exactly the threshold passes, whatever the rounding of its difference."""
Verdict = Literal["passed", "failed", "not testable"]
Part = Literal["correctness", "robustness", "fairness", "not speech"]


@dataclass(frozen=True)
class Test:
    """One test.

    Attributes:
        part: part of the audit.
        name: what is tested.
        verdict: the result.
        value: what was measured; None where it could not be.
        threshold: limit of the value; None where nothing could be measured.
        is_upper: whether the value has to be at most the threshold; otherwise at least.
        note: what the numbers mean, or why the test was not possible.
    """

    part: Part
    name: str
    verdict: Verdict
    value: float | None = None
    threshold: float | None = None
    is_upper: bool = True
    note: str = ""


def require_at_most(
    part: Part, name: str, value: float, threshold: float, note: str = "", missing: str = "nothing to measure"
) -> Test:
    """Return the test that a value is at most a threshold.

    Args:
        part: part of the audit.
        name: what is tested.
        value: what was measured; NaN for nothing.
        threshold: limit of the value; NaN where there is none.
        note: what the numbers mean.
        missing: reason where nothing was measured.
    """
    if math.isnan(value) or math.isnan(threshold):
        return skip(part, name, missing)
    verdict = PASSED if value <= threshold + ROUNDING else FAILED
    return Test(part, name, verdict, float(value), float(threshold), True, note)


def require_at_least(
    part: Part, name: str, value: float, threshold: float, note: str = "", missing: str = "nothing to measure"
) -> Test:
    """Return the test that a value is at least a threshold; the arguments are those of `require_at_most`."""
    test = require_at_most(part, name, -value, -threshold, note, missing)
    if test.value is None:
        return test
    return replace(test, value=float(value), threshold=float(threshold), is_upper=False)


def skip(part: Part, name: str, reason: str) -> Test:
    """Return a test that is not possible."""
    return Test(part, name, NOT_TESTABLE, note=reason)

"""The tests of an audit: what was measured, the threshold, and whether it was met."""

import math
from dataclasses import dataclass
from typing import Literal

PASSED, FAILED, NOT_TESTABLE = "passed", "failed", "not testable"
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


def require_at_most(part: Part, name: str, value: float, threshold: float, note: str = "") -> Test:
    """Return the test that a value is at most a threshold."""
    return _judge(part, name, value, threshold, True, note)


def require_at_least(part: Part, name: str, value: float, threshold: float, note: str = "") -> Test:
    """Return the test that a value is at least a threshold."""
    return _judge(part, name, value, threshold, False, note)


def skip(part: Part, name: str, reason: str) -> Test:
    """Return a test that is not possible."""
    return Test(part, name, NOT_TESTABLE, note=reason)


def _judge(part: Part, name: str, value: float, threshold: float, is_upper: bool, note: str) -> Test:
    if math.isnan(value) or math.isnan(threshold):
        return skip(part, name, note or "nothing to measure")
    is_met = value <= threshold if is_upper else value >= threshold
    return Test(part, name, PASSED if is_met else FAILED, float(value), float(threshold), is_upper, note)

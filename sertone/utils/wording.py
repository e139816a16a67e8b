"""Format counts, lists, durations and axis values for people."""

from collections.abc import Sequence


def format_duration(seconds: float) -> str:
    """Format a duration as a clock does: `3:07`, `2:03:07`."""
    minutes, seconds_left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds_left:02}" if hours else f"{minutes}:{seconds_left:02}"


def format_count(number: int, noun: str) -> str:
    """Format a number with its noun, in the plural where it is not one: `1 file`, `2 files`."""
    plural = "" if number == 1 else "s"
    return f"{number} {noun}{plural}"


def format_axis_value(value: float, high: float) -> str:
    """Format a value for the labels of a plot's axis.

    Args:
        value: value to format.
        high: end of the axis. Below 0.1, values such as learning rates need powers of ten.
    """
    if high >= 0.1 or not value:
        return f"{value:.2f}"
    return f"{value:.1e}".replace("e-0", "e-")


def shorten_list(names: Sequence[str]) -> str:
    """Join the first three names, with an ellipsis where there are more: `a, b, c, ...`."""
    ellipsis = ", ..." if len(names) > 3 else ""
    return ", ".join(names[:3]) + ellipsis

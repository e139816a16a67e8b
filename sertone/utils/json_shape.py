"""Checks of the shape of JSON values, for files that come from other people.

A shape is one of:

str, int, bool             a value of this type; `int` is not bool
float                      a finite number, whole or not
None                       null
{"name": shape, ...}       an object with at least these keys; `"name?"` may be missing
{str: shape}               an object of any keys
[shape]                    a list
(shape, shape)             one of these
a function                 a value for which it returns True
"""

import math
from collections.abc import Iterator
from typing import Any


def find_misfits(value: Any, shape: Any, name: str = "") -> list[str]:
    """Return the names of the parts that do not fit, such as `card.corpus.name`.

    Args:
        value: the JSON value.
        shape: its required shape.
        name: the name of the whole value.
    """
    return list(dict.fromkeys(_iterate_misfits(value, shape, name)))


def _iterate_misfits(value: Any, shape: Any, name: str) -> Iterator[str]:
    if isinstance(shape, dict) and isinstance(value, dict):
        if str in shape:
            yield from (name for part in value.values() if find_misfits(part, shape[str]))
            return
        for key, part in shape.items():
            field = key.removesuffix("?")
            path = f"{name}.{field}".lstrip(".")
            if field in value:
                yield from _iterate_misfits(value[field], part, path)
            elif field == key:  # without a question mark: required
                yield path
    elif isinstance(shape, list) and isinstance(value, list):
        yield from (name for part in value if find_misfits(part, shape[0]))
    elif not _fits_scalar(value, shape):
        yield name


def _fits_scalar(value: Any, shape: Any) -> bool:
    if isinstance(shape, tuple):
        return any(not find_misfits(value, option, "value") for option in shape)
    # bool is a subclass of int in Python, but `true` is no number in JSON.
    if shape is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value)
    if isinstance(shape, type):
        return isinstance(value, shape) and not (shape is int and isinstance(value, bool))
    return bool(shape(value)) if callable(shape) else shape is None and value is None


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer larger than every float
        return False

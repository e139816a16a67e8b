"""The shape that a JSON object must have: what a file of somebody else's is compared with before it is used.

str, int, bool             a value of this type; `int` is not bool
float                      a finite number, whole or not
None                       null
{"name": shape, ...}       an object with at least these keys; `"name?"` may be missing
{str: shape}               an object of any keys
[shape]                    a list
(shape, shape)             one of these
a function                 what it says of the value
"""

import math
from collections.abc import Iterator
from typing import Any


def find_misfits(value: Any, shape: Any, name: str = "") -> list[str]:
    """Return the names of what does not fit, as `card.corpus.name`; of all of it, the name given."""
    return list(dict.fromkeys(_misfits(value, shape, name)))


def _misfits(value: Any, shape: Any, name: str) -> Iterator[str]:
    if isinstance(shape, dict) and isinstance(value, dict):
        if str in shape:
            yield from (name for part in value.values() if find_misfits(part, shape[str]))
            return
        for key, part in shape.items():
            own = key.removesuffix("?")
            inner = f"{name}.{own}".lstrip(".")
            if own in value:
                yield from _misfits(value[own], part, inner)
            elif own == key:
                yield inner
    elif isinstance(shape, list) and isinstance(value, list):
        yield from (name for part in value if find_misfits(part, shape[0]))
    elif not _is(value, shape):
        yield name


def _is(value: Any, shape: Any) -> bool:
    if isinstance(shape, tuple):
        return any(not find_misfits(value, one, "it") for one in shape)
    if shape is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and _finite(value)
    if isinstance(shape, type):
        return isinstance(value, shape) and not (shape is int and isinstance(value, bool))
    return bool(shape(value)) if callable(shape) else shape is None and value is None


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False

"""The error class of Sertone: a stable code, what was found, what was expected, and the way out."""


def join_parts(*parts: str) -> str:
    """Return the non-empty parts of a message, joined by semicolons; a question mark ends its part."""
    return "; ".join(part for part in parts if part).replace("?;", "?")


class SertoneError(Exception):
    """An error that the caller can fix.

    Args:
        code: stable short name, such as `missing_file`.
        found: what was found.
        expected: what was expected instead.
        way_out: what to do about it.
    """

    def __init__(self, code: str, found: str, expected: str = "", way_out: str = "") -> None:
        self.code, self.found, self.expected, self.way_out = code, found, expected, way_out
        super().__init__(join_parts(found, f"expected {expected}" if expected else "", way_out))

    def __reduce__(self) -> tuple:
        """Return how to pickle the error, so that it crosses process borders with its parts."""
        return type(self), (self.code, self.found, self.expected, self.way_out)


OUT_OF_MEMORY = (
    "can't allocate memory",
    "cannot allocate memory",
    "failed to allocate memory",
    "not enough memory",
    "bad_alloc",
    "out of memory",
)
"""Phrases of torch and ONNX Runtime for a lack of memory, in errors without a separate class."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that no memory is left, on the CPU or a GPU."""
    message = str(error).lower()
    return isinstance(error, MemoryError) or any(phrase in message for phrase in OUT_OF_MEMORY)


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error message, or the name of its class if it has no message."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


class AudioError(SertoneError):
    """A recording that cannot be used; other recordings are not affected."""

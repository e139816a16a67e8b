"""The one error users meet: a stable code, what was found, what was expected, the way out."""


def join_parts(*parts: str) -> str:
    """Return the parts of a message as one line, without those that are empty; a question ends itself."""
    return "; ".join(part for part in parts if part).replace("?;", "?")


class SertoneError(Exception):
    """Something the caller can mend.

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
        """Lets the error cross process borders with its parts."""
        return type(self), (self.code, self.found, self.expected, self.way_out)


MEMORY = (
    "can't allocate memory",
    "cannot allocate memory",
    "failed to allocate memory",
    "not enough memory",
    "bad_alloc",
    "out of memory",
)
"""What torch and ONNX Runtime say where no memory is left, in errors that have no class of their own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that no memory is left, on the CPU or a GPU."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(words in said for words in MEMORY)


def first_line(error: BaseException) -> str:
    """Return the first line of what an error of a library says, or its name where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


class AudioError(SertoneError):
    """A recording that cannot be used; other recordings are not affected."""

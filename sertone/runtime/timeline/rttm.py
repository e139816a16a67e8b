"""Speaker turns from RTTM files.

Each line is a turn with ten fields. The fields with names below are used:
    SPEAKER file 1 start_s duration_s <NA> <NA> speaker <NA> <NA>

Source: NIST, The 2009 (RT-09) Rich Transcription Meeting Recognition Evaluation Plan, appendix A.
"""

from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path

from sertone.audio import SAMPLING_RATE
from sertone.errors import AudioError, SertoneError
from sertone.runtime.timeline.segmentation import Span

TYPES = ("SEGMENT", "NOSCORE", "NO_RT_METADATA", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER", "EDIT", "SU")
TYPES += ("IP", "CB", "A/P", "SPEAKER", "SPKR-INFO")
"""Types of lines in RTTM files."""
MAX_NAMES = 3
"""Most recordings that a message names."""


def read_rttm(path: str | Path) -> dict[str, list[Span]]:
    """Return the speaker turns of an RTTM file: name of the recording -> spans, which may overlap.

    The names are as in the file, usually without a suffix. Lines of other types, comments and empty lines are
    skipped.

    Raises:
        SertoneError: `missing_rttm`; `bad_rttm`, with the number of the line, or for another kind of file.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise SertoneError("missing_rttm", f"{path}: {error.strerror}", "an RTTM file") from None
    except UnicodeDecodeError:
        raise SertoneError("bad_rttm", f"{path}: not UTF-8", "text") from None
    spans: dict[str, list[Span]] = {}
    for number, line in enumerate(lines, 1):
        if _get_type(line) == "SPEAKER":
            file, span = _parse_turn(line, f"{path}, line {number}")
            spans.setdefault(file, []).append(span)
    foreign = next((line for line in lines if _get_type(line) and _get_type(line) not in TYPES), "")
    if not spans and foreign:  # a file without turns is fine, a file of another kind is not
        problem = f"{path}: no line of type SPEAKER, but {foreign[:60]!r}"
        raise SertoneError("bad_rttm", problem, "an RTTM file")
    return spans


def select_spans(spans: Mapping[str, Sequence[Span]], source: str, *, alone: bool) -> list[Span]:
    """Return the spans of one recording, by its name with or without suffix.

    Args:
        spans: name of a recording -> its spans.
        source: the recording.
        alone: the recording is the only one. If `spans` has a single name, they belong to it, whatever the
            name.

    Raises:
        AudioError: `no_turns`.
    """
    matching = spans.keys() & {Path(source).stem, Path(source).name}
    if not matching and alone and len(spans) == 1:
        matching = set(spans)
    if not matching:
        names = sorted(spans)[:MAX_NAMES]
        if len(spans) > MAX_NAMES:
            names.append("...")
        problem = f"{source}: no turns among those of {', '.join(names)}"
        way_out = "name the recording in the second field"
        raise AudioError("no_turns", problem, f"turns of {Path(source).stem!r}", way_out)
    return [span for name in spans if name in matching for span in spans[name]]


def _get_type(line: str) -> str:
    """Return the type of a line; empty for empty lines and comments."""
    return "" if line.startswith(";;") else "".join(line.split(maxsplit=1)[:1])


def _parse_turn(line: str, place: str) -> tuple[str, Span]:
    """Return the name of the recording and the span; `place` is the line's place, for messages."""
    fields = line.split()
    try:
        start_s, duration_s = float(fields[3]), float(fields[4])
        if not (0 <= start_s < inf and 0 < duration_s < inf):
            raise ValueError
        start, end = (round(time_s * SAMPLING_RATE) for time_s in (start_s, start_s + duration_s))
        return fields[1], Span(start, end, fields[7])
    except (IndexError, ValueError, OverflowError):  # OverflowError: more samples than a float can hold
        raise SertoneError(
            "bad_rttm",
            f"{place}: {line!r}",
            "SPEAKER file 1 start duration <NA> <NA> name <NA> <NA>, in seconds, the duration above 0",
        ) from None

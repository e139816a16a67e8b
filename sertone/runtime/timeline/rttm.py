"""Who speaks when: speaker turns from RTTM files.

One turn a line, ten fields, of which those used here have names:
    SPEAKER file 1 start_s duration_s <NA> <NA> speaker <NA> <NA>

Source: NIST, The 2009 (RT-09) Rich Transcription Meeting Recognition Evaluation Plan, appendix A.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

from sertone.errors import AudioError, SertoneError

TYPES = ("SEGMENT", "NOSCORE", "NO_RT_METADATA", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER", "EDIT", "SU")
TYPES += ("IP", "CB", "A/P", "SPEAKER", "SPKR-INFO")
"""Of the lines of RTTM files."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A stretch in which one person speaks; turns may overlap.

    Attributes:
        file: name of the recording, without suffix as a rule.
        start_s: where it starts, in seconds.
        end_s: where it ends, in seconds.
        speaker: who speaks.
    """

    file: str
    start_s: float
    end_s: float
    speaker: str


def read_rttm(path: str | Path) -> list[Turn]:
    """All turns of an RTTM file; lines of other types, comments and empty lines are passed over.

    Raises:
        SertoneError: `missing_rttm`; `bad_rttm`, with the number of the line, or where it is no RTTM file.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise SertoneError("missing_rttm", f"{path}: {error.strerror}", "an RTTM file") from None
    except UnicodeDecodeError:
        raise SertoneError("bad_rttm", f"{path}: not UTF-8", "text") from None
    turns = [_turn(line, f"{path}, line {n}") for n, line in enumerate(lines, 1) if _type(line) == "SPEAKER"]
    other = next((line for line in lines if _type(line) and _type(line) not in TYPES), "")
    if not turns and other:
        raise SertoneError("bad_rttm", f"{path}: no line of SPEAKER, but {other[:60]!r}", "an RTTM file")
    return turns


def select_spans(turns: Sequence[Turn], source: str, *, alone: bool) -> list[Turn]:
    """The turns of one recording, by its name without suffix.

    Args:
        turns: of any recordings.
        source: the recording.
        alone: no other one is answered, so that turns of a single name are its own, whatever that is.

    Raises:
        AudioError: `no_turns`.
    """
    files = {turn.file for turn in turns}
    own = files & {Path(source).stem, Path(source).name} or (files if alone and len(files) == 1 else set())
    if not own:
        found = (
            f"{source}: no turns among those of {', '.join(sorted(files)[:3])}{', ...' * (len(files) > 3)}"
        )
        way_out = "name the recording in the second field"
        raise AudioError("no_turns", found, f"turns of {Path(source).stem!r}", way_out)
    return [turn for turn in turns if turn.file in own]


def _type(line: str) -> str:
    """Of a line; empty of an empty one and of a comment."""
    return "" if line.startswith(";;") else "".join(line.split(maxsplit=1)[:1])


def _turn(line: str, where: str) -> Turn:
    fields = line.split()
    try:
        start, duration = float(fields[3]), float(fields[4])
        if not (0 <= start < inf and 0 < duration < inf):
            raise ValueError
        return Turn(fields[1], start, start + duration, fields[7])
    except (IndexError, ValueError):
        raise SertoneError(
            "bad_rttm",
            f"{where}: {line!r}",
            "SPEAKER file 1 start duration <NA> <NA> name <NA> <NA>, in seconds, the duration above 0",
        ) from None

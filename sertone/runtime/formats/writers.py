"""Timelines as files: one writer per format, chosen by the suffix of the file.

What each format holds and what opens it: `docs/timeline-formats.md`.
"""

import csv
import io
import json
import re
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from sertone import files
from sertone.errors import SertoneError
from sertone.runtime.formats.canvas import require_pillow
from sertone.runtime.formats.elan import format_eaf
from sertone.runtime.formats.html import render_page
from sertone.runtime.formats.media import Media, link_media
from sertone.runtime.formats.png import draw_picture
from sertone.runtime.formats.textgrid import format_textgrid
from sertone.runtime.formats.tiers import (
    NAMELESS,
    format_caption,
    make_printable,
    pick_free_name,
    sort_segments,
)
from sertone.schema import Prediction, Segment
from sertone.utils.spreadsheet import guard_formula

Writer = Callable[[Prediction, Media | None], str | bytes]


def write(prediction: Prediction, path: str | Path, audio: str | Path | None = None) -> Path:
    """Writes a timeline, whole or not at all.

    Args:
        prediction: a recording with its segments.
        path: file to write; its suffix chooses the format, one of FORMATS.
        audio: the recording, for the formats that play it or name it (HTML, EAF).

    Returns:
        the path.

    Raises:
        SertoneError: `unknown_suffix`; `not_answered`, for a prediction with status `error`;
            `missing_extra`, where a picture is wanted and Pillow is not installed.
    """
    path = Path(path)
    make = select_writer(path)
    if prediction.status == "error":
        raise SertoneError(
            "not_answered",
            f"{make_printable(prediction.file)} has no timeline: {prediction.message}",
            "a prediction with status ok or warning",
        )
    made = make(prediction, None if audio is None else link_media(audio, path))
    files.write_bytes(path, made.encode("utf-8", "backslashreplace") if isinstance(made, str) else made)
    return path


def select_writer(path: Path) -> Writer:
    """The writer that a file's suffix chooses, in capitals or not.

    Raises:
        SertoneError: `unknown_suffix`.
    """
    by_suffix = {suffix.lower(): make for suffix, make in FORMATS.items()}
    if path.suffix.lower() not in by_suffix:
        raise SertoneError("unknown_suffix", f"no format {path.suffix!r} ({path.name})", ", ".join(FORMATS))
    return by_suffix[path.suffix.lower()]


def require_writable(path: Path) -> None:
    """Refuses, before anything is answered, what could not be written afterwards.

    Raises:
        SertoneError: `unknown_suffix`, `missing_folder`; `missing_extra`, see `write`.
    """
    if select_writer(path) is draw_picture:
        require_pillow()
    if not path.parent.is_dir():
        raise SertoneError("missing_folder", f"no folder {path.parent} for {path.name}", "one that is there")


def format_json(prediction: Prediction, _: Media | None = None) -> str:
    """JSON: the prediction as it is."""
    return json.dumps(prediction.to_json(), indent=1, ensure_ascii=False) + "\n"


def format_csv(prediction: Prediction, _: Media | None = None) -> str:
    """CSV: a row per segment, with a column per class (`p_angry`) and dimension, and no formulas."""
    rows = [_row(prediction, segment) for segment in sort_segments(prediction.segments)]
    shares, rated = prediction.probabilities, prediction.dimensions
    head = _row(prediction, Segment(start_s=0, end_s=0, probabilities=shares, dimensions=rated))
    columns = list(dict.fromkeys(name for row in [head, *rows] for name in row))
    made = io.StringIO()
    sheet = csv.DictWriter(made, columns, restval="", lineterminator="\n")
    sheet.writerow({name: guard_formula(name) for name in columns})
    sheet.writerows({name: guard_formula(value) for name, value in row.items()} for row in rows)
    return made.getvalue()


def _row(prediction: Prediction, segment: Segment) -> dict[str, Any]:
    row: dict[str, Any] = {
        "file": make_printable(prediction.file),
        "start_s": f"{segment.start_s:.3f}",
        "end_s": f"{segment.end_s:.3f}",
        "speaker": make_printable(segment.speaker),
        "label": make_printable(segment.label or ""),
        "confidence": "" if segment.confidence is None else round(segment.confidence, 4),
        "unsure": segment.unsure,
    }
    row |= {f"p_{make_printable(name)}": round(share, 4) for name, share in segment.probabilities.items()}
    return row | {make_printable(name): round(value, 4) for name, value in segment.dimensions.items()}


def format_rttm(prediction: Prediction, _: Media | None = None) -> str:
    """RTTM: a SPEAKER line per segment, the label as its subtype, the label's confidence as its own.

    Readers of speakers pass over both fields. Spaces in names become underscores.
    """
    taken: set[str] = set()
    segments = sort_segments(prediction.segments)
    speakers = dict.fromkeys(segment.speaker for segment in segments)
    names = {name: pick_free_name(_word(name) or NAMELESS, taken, "{}_{}") for name in speakers}
    file = _word(Path(prediction.file).stem) or "<NA>"
    return "".join(f"{_turn(file, segment, names[segment.speaker])}\n" for segment in segments)


def _turn(file: str, segment: Segment, speaker: str) -> str:
    length = segment.end_s - segment.start_s
    sure = "<NA>" if segment.confidence is None else f"{segment.confidence:.3f}"
    times = f"{segment.start_s:.3f} {length:.3f}"
    return f"SPEAKER {file} 1 {times} <NA> {_word(segment.label or '') or '<NA>'} {speaker} {sure} <NA>"


def _word(text: str) -> str:
    return re.sub(r"\s+", "_", make_printable(text))


def format_srt(prediction: Prediction, _: Media | None = None) -> str:
    """SubRip: a caption per segment, `speaker: label (confidence)`; overlapping ones are shown together."""
    cues = [
        f"{number}\n{_span(segment, ',')}\n{_said(segment).replace('-->', '→')}\n"
        for number, segment in enumerate(sort_segments(prediction.segments), 1)
    ]
    return "\n".join(cues)


def format_vtt(prediction: Prediction, _: Media | None = None) -> str:
    """WebVTT: a cue per segment, the speaker as its voice."""
    cues = [
        f"{_span(segment, '.')}\n{_voice(segment)}{escape(format_caption(segment), quote=False)}\n"
        for segment in sort_segments(prediction.segments)
    ]
    return "\n".join(["WEBVTT\n", *cues])


def format_audacity(prediction: Prediction, _: Media | None = None) -> str:
    """Labels of Audacity: start, end and text, separated by tabs."""
    lines = [
        f"{segment.start_s:.6f}\t{segment.end_s:.6f}\t{_said(segment)}\n"
        for segment in sort_segments(prediction.segments)
    ]
    return "".join(lines)


def _said(segment: Segment) -> str:
    speaker = make_printable(segment.speaker)
    return f"{speaker}: {format_caption(segment)}" if speaker else format_caption(segment)


def _voice(segment: Segment) -> str:
    speaker = make_printable(segment.speaker)
    return f"<v {escape(speaker, quote=False)}>" if speaker else ""


def _span(segment: Segment, point: str) -> str:
    return f"{_clock(segment.start_s, point)} --> {_clock(segment.end_s, point)}"


def _clock(seconds: float, point: str) -> str:
    """Such as `01:02:03,250`."""
    whole_seconds, milliseconds = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(whole_seconds, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours:02}:{minute:02}:{second:02}{point}{milliseconds:03}"


FORMATS: dict[str, Writer] = {
    ".json": format_json,
    ".csv": format_csv,
    ".rttm": format_rttm,
    ".TextGrid": format_textgrid,
    ".eaf": format_eaf,
    ".srt": format_srt,
    ".vtt": format_vtt,
    ".txt": format_audacity,
    ".html": render_page,
    ".png": draw_picture,
}
"""Suffix -> writer; `.txt`, and so `.labels.txt`, is Audacity's."""

"""Timelines as files: one writer per format; the suffix of the file chooses the writer.

`docs/timeline-formats.md` describes each format and the programs that open it.
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
    """Write a timeline, completely or not at all.

    Args:
        prediction: a recording with its segments.
        path: file to write; its suffix chooses the format, one of FORMATS.
        audio: the recording, for the formats that play or name it (HTML, EAF).

    Returns:
        the path.

    Raises:
        SertoneError: `unknown_suffix`; `not_answered`, for a prediction with status `error`;
            `missing_extra`, for a picture without Pillow.
    """
    path = Path(path)
    format_timeline = select_writer(path)
    if prediction.status == "error":
        raise SertoneError(
            "not_answered",
            f"{make_printable(prediction.file)} has no timeline: {prediction.message}",
            "a prediction with status ok or warning",
        )
    content = format_timeline(prediction, None if audio is None else link_media(audio, path))
    # File names may hold lone surrogates, which UTF-8 cannot encode.
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    files.write_bytes(path, data)
    return path


def select_writer(path: Path) -> Writer:
    """Return the writer for the suffix of a file, in upper or lower case.

    Raises:
        SertoneError: `unknown_suffix`.
    """
    by_suffix = {suffix.lower(): writer for suffix, writer in FORMATS.items()}
    if path.suffix.lower() not in by_suffix:
        raise SertoneError("unknown_suffix", f"no format {path.suffix!r} ({path.name})", ", ".join(FORMATS))
    return by_suffix[path.suffix.lower()]


def require_writable(path: Path) -> None:
    """Refuse, before any prediction, a file that could not be written afterwards.

    Raises:
        SertoneError: `unknown_suffix`, `missing_folder`; `missing_extra`, see `write`.
    """
    if select_writer(path) is draw_picture:
        require_pillow()
    if not path.parent.is_dir():
        problem = f"no folder {path.parent} for {path.name}"
        raise SertoneError("missing_folder", problem, "an existing folder")


def format_json(prediction: Prediction, _: Media | None = None) -> str:
    """Return the prediction as JSON."""
    return json.dumps(prediction.to_json(), indent=1, ensure_ascii=False) + "\n"


def format_csv(prediction: Prediction, _: Media | None = None) -> str:
    """Return a CSV table: a row per segment, a column per class (`p_angry`) and dimension, no formulas."""
    rows = [_list_cells(prediction, segment) for segment in sort_segments(prediction.segments)]
    # The columns come from the whole recording too: a table without segments has the same ones.
    summary = Segment(
        start_s=0, end_s=0, probabilities=prediction.probabilities, dimensions=prediction.dimensions
    )
    columns = list(dict.fromkeys(name for row in [_list_cells(prediction, summary), *rows] for name in row))
    buffer = io.StringIO()
    sheet = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    sheet.writerow({name: guard_formula(name) for name in columns})
    sheet.writerows({name: guard_formula(value) for name, value in row.items()} for row in rows)
    return buffer.getvalue()


def _list_cells(prediction: Prediction, segment: Segment) -> dict[str, Any]:
    """Return column -> cell of a segment."""
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
    """Return RTTM: a SPEAKER line per segment, with the label as subtype and its confidence as confidence.

    Programs that read speakers ignore both fields. Spaces in names become underscores.
    """
    used_names: set[str] = set()
    segments = sort_segments(prediction.segments)
    speakers = dict.fromkeys(segment.speaker for segment in segments)
    names = {name: pick_free_name(_join_words(name) or NAMELESS, used_names, "{}_{}") for name in speakers}
    file = _join_words(Path(prediction.file).stem) or "<NA>"
    return "".join(f"{_format_turn(file, segment, names[segment.speaker])}\n" for segment in segments)


def _format_turn(file: str, segment: Segment, speaker: str) -> str:
    length = segment.end_s - segment.start_s
    confidence = "<NA>" if segment.confidence is None else f"{segment.confidence:.3f}"
    times = f"{segment.start_s:.3f} {length:.3f}"
    label = _join_words(segment.label or "") or "<NA>"
    return f"SPEAKER {file} 1 {times} <NA> {label} {speaker} {confidence} <NA>"


def _join_words(text: str) -> str:
    """Return the text without spaces, which separate the fields of RTTM."""
    return re.sub(r"\s+", "_", make_printable(text))


def format_srt(prediction: Prediction, _: Media | None = None) -> str:
    """Return SubRip: a caption `speaker: label (confidence)` per segment.

    Players show captions that overlap in time together.
    """
    cues = [
        # An arrow in a name would look like a line of times.
        f"{number}\n{_format_times(segment, ',')}\n{_format_line(segment).replace('-->', '→')}\n"
        for number, segment in enumerate(sort_segments(prediction.segments), 1)
    ]
    return "\n".join(cues)


def format_vtt(prediction: Prediction, _: Media | None = None) -> str:
    """Return WebVTT: a cue per segment, with the speaker as its voice."""
    cues = [
        f"{_format_times(segment, '.')}\n"
        f"{_format_voice(segment)}{escape(format_caption(segment), quote=False)}\n"
        for segment in sort_segments(prediction.segments)
    ]
    return "\n".join(["WEBVTT\n", *cues])


def format_audacity(prediction: Prediction, _: Media | None = None) -> str:
    """Return labels for Audacity: start, end and text, separated by tabs."""
    lines = [
        f"{segment.start_s:.6f}\t{segment.end_s:.6f}\t{_format_line(segment)}\n"
        for segment in sort_segments(prediction.segments)
    ]
    return "".join(lines)


def _format_line(segment: Segment) -> str:
    speaker = make_printable(segment.speaker)
    return f"{speaker}: {format_caption(segment)}" if speaker else format_caption(segment)


def _format_voice(segment: Segment) -> str:
    speaker = make_printable(segment.speaker)
    return f"<v {escape(speaker, quote=False)}>" if speaker else ""


def _format_times(segment: Segment, point: str) -> str:
    return f"{_format_clock(segment.start_s, point)} --> {_format_clock(segment.end_s, point)}"


def _format_clock(seconds: float, point: str) -> str:
    """Return a time such as `01:02:03,250`; SubRip has a comma, WebVTT a point."""
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
"""Suffix -> writer. `.txt`, and so `.labels.txt`, is Audacity's format."""

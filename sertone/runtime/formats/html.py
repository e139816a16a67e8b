"""A timeline as one self-contained HTML page: coloured, playable, printable."""

import base64
import json
import os
import re
from collections.abc import Iterator
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sertone.runtime.formats.colours import UNLABELLED_COLOUR, assign_colours, choose_text_colour
from sertone.runtime.formats.media import Media
from sertone.runtime.formats.tiers import (
    NAMELESS,
    build_tiers,
    find_ranges,
    get_duration_s,
    make_printable,
    sort_segments,
)
from sertone.schema import Prediction, Segment, Speaker

TEMPLATE = "timeline.html"
EMBEDDED_BYTES = 10_000_000
"""Larger recordings are linked: a page should open at once and pass as an attachment."""


def render_page(prediction: Prediction, media: Media | None = None) -> str:
    """Return the page.

    Args:
        prediction: a recording with its segments.
        media: the recording. The page embeds up to EMBEDDED_BYTES, and links larger files by relative path.
    """
    name = make_printable(Path(prediction.file).name)
    parts = {
        "title": escape(name),
        "audio": _render_player(media) if media else "",
        "data": _embed_json(_collect_data(prediction)),
    }
    template = files("sertone.runtime.formats").joinpath(TEMPLATE).read_text(encoding="utf-8")
    # One pass over the template: a name such as `{{ data }}` in a title is not replaced again.
    return re.sub(r"\{\{ (\w+) \}\}", lambda match: parts[match[1]], template)


def list_labels(prediction: Prediction) -> list[str]:
    """Return the labels that the timeline may show, in the order of the model's classes."""
    segments = (segment for segment in prediction.segments if segment.label is not None)
    shown = (name for segment in segments for name in (*segment.probabilities, segment.label))
    return list(dict.fromkeys([*prediction.probabilities, *filter(None, shown)]))


def _render_player(media: Media) -> str:
    source = quote(os.fsencode(media.link))
    if media.path.stat().st_size <= EMBEDDED_BYTES:
        content = base64.b64encode(media.path.read_bytes()).decode("ascii")
        source = f"data:{media.mime_type};base64,{content}"
    return f'<audio id="audio" controls preload="metadata" src="{source}"></audio>'


def _embed_json(value: Any) -> str:
    """Return JSON for a script element. `<` would end the element, so its escape sequence is written."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _collect_data(prediction: Prediction) -> dict[str, Any]:
    """Return the data that the script of the page draws from."""
    palette = assign_colours(list_labels(prediction))
    return {
        "duration": get_duration_s(prediction),
        "message": prediction.message,
        "answer": _collect_answer(prediction),
        "colours": {
            label: {"fill": fill, "ink": choose_text_colour(fill)} for label, fill in palette.items()
        },
        "unlabelled": UNLABELLED_COLOUR,
        "dimensions": find_ranges(prediction),
        "speakers": list(_collect_rows(prediction)),
        "summary": [_collect_summary(speaker) for speaker in prediction.speakers],
    }


def _collect_answer(record: Prediction | Segment | Speaker) -> dict[str, Any]:
    return {
        "label": record.label,
        "confidence": record.confidence,
        "probabilities": record.probabilities,
        "dimensions": record.dimensions,
    }


def _collect_rows(prediction: Prediction) -> Iterator[dict[str, Any]]:
    """Yield the speakers in the order in which they first speak, each with rows of separate segments."""
    tiers = build_tiers(prediction.segments)
    for speaker in dict.fromkeys(segment.speaker for segment in sort_segments(prediction.segments)):
        rows = [tier.segments for tier in tiers if tier.segments[0].speaker == speaker]
        yield {
            "name": _format_name(speaker),
            "rows": [[_collect_segment(segment) for segment in row] for row in rows],
        }


def _collect_segment(segment: Segment) -> dict[str, Any]:
    times = {"start": segment.start_s, "end": segment.end_s, "unsure": segment.unsure}
    return times | _collect_answer(segment)


def _collect_summary(speaker: Speaker) -> dict[str, Any]:
    return {
        "name": _format_name(speaker.name),
        "segments": speaker.segments,
        "speech": speaker.speech_s,
        "unsure": speaker.unsure_s,
        "seconds": speaker.seconds_by_label,
        **_collect_answer(speaker),
    }


def _format_name(speaker: str) -> str:
    return make_printable(speaker) or NAMELESS

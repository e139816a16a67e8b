"""A timeline as one HTML page that needs nothing else: coloured, playable, printable."""

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
    """The page.

    Args:
        prediction: a recording with its segments.
        media: the recording: within the page up to EMBEDDED_BYTES, beyond that linked by its relative path.
    """
    name = make_printable(Path(prediction.file).name)
    parts = {"title": escape(name), "audio": _audio(media) if media else "", "data": _json(_data(prediction))}
    template = files("sertone.runtime.formats").joinpath(TEMPLATE).read_text(encoding="utf-8")
    return re.sub(r"\{\{ (\w+) \}\}", lambda found: parts[found[1]], template)


def list_labels(prediction: Prediction) -> list[str]:
    """Labels that the timeline may show, in the order of the model's classes."""
    segments = (segment for segment in prediction.segments if segment.label is not None)
    shown = (name for segment in segments for name in (*segment.probabilities, segment.label))
    return list(dict.fromkeys([*prediction.probabilities, *filter(None, shown)]))


def _audio(media: Media) -> str:
    source = quote(os.fsencode(media.link))
    if media.path.stat().st_size <= EMBEDDED_BYTES:
        content = base64.b64encode(media.path.read_bytes()).decode("ascii")
        source = f"data:{media.mime_type};base64,{content}"
    return f'<audio id="audio" controls preload="metadata" src="{source}"></audio>'


def _json(value: Any) -> str:
    """JSON within a script element: `<` would end it, and so is written as its number."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _data(prediction: Prediction) -> dict[str, Any]:
    palette = assign_colours(list_labels(prediction))
    return {
        "duration": get_duration_s(prediction),
        "message": prediction.message,
        "answer": _answer(prediction),
        "colours": {
            label: {"fill": fill, "ink": choose_text_colour(fill)} for label, fill in palette.items()
        },
        "unlabelled": UNLABELLED_COLOUR,
        "dimensions": find_ranges(prediction),
        "speakers": list(_rows(prediction)),
        "summary": [_summary(speaker) for speaker in prediction.speakers],
    }


def _answer(told: Prediction | Segment | Speaker) -> dict[str, Any]:
    return {
        "label": told.label,
        "confidence": told.confidence,
        "probabilities": told.probabilities,
        "dimensions": told.dimensions,
    }


def _rows(prediction: Prediction) -> Iterator[dict[str, Any]]:
    """Speakers in the order in which they are heard, each with rows of segments that do not overlap."""
    made = build_tiers(prediction.segments)
    for speaker in dict.fromkeys(segment.speaker for segment in sort_segments(prediction.segments)):
        rows = [tier.segments for tier in made if tier.segments[0].speaker == speaker]
        yield {"name": _name(speaker), "rows": [[_segment(segment) for segment in row] for row in rows]}


def _segment(segment: Segment) -> dict[str, Any]:
    times = {"start": segment.start_s, "end": segment.end_s, "unsure": segment.unsure}
    return times | _answer(segment)


def _summary(speaker: Speaker) -> dict[str, Any]:
    heard = {"segments": speaker.segments, "speech": speaker.speech_s, "unsure": speaker.unsure_s}
    shares = {"seconds": speaker.seconds_by_label}
    return {"name": _name(speaker.name)} | heard | shares | _answer(speaker)


def _name(speaker: str) -> str:
    return make_printable(speaker) or NAMELESS

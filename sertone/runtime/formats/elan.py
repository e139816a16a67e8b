"""ELAN's annotation format, EAF 3.0.

The format: https://www.mpi.nl/tools/elan/EAF_Annotation_Format_3.0_and_ELAN.pdf
"""

from collections.abc import Iterable
from datetime import datetime
from itertools import count
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from sertone.runtime.formats.media import Media
from sertone.runtime.formats.tiers import Tier, build_tiers, format_values, make_printable
from sertone.schema import Prediction

SCHEMA_INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"
SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
ASSOCIATION = "Symbolic_Association"
EXPLAINED = "1-1 association with a parent annotation"


def format_eaf(prediction: Prediction, media: Media | None = None) -> str:
    """An EAF document: per speaker a tier of labels, and tiers of its values that depend on it.

    Args:
        prediction: a recording with its segments.
        media: the recording; named by its relative path only.
    """
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    root = Element("ANNOTATION_DOCUMENT", AUTHOR="", DATE=now, FORMAT="3.0", VERSION="3.0")
    root.attrib |= {"xmlns:xsi": SCHEMA_INSTANCE, "xsi:noNamespaceSchemaLocation": SCHEMA}
    header = SubElement(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    if media:
        _describe(header, media)
    made = build_tiers(prediction.segments)
    slots = _time_order(root, made)
    ids = count(1)
    for tier in made:
        _add_tiers(root, tier, slots, ids)
    SubElement(header, "PROPERTY", NAME="lastUsedAnnotationId").text = str(next(ids) - 1)
    _add_types(root)
    indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(root, encoding="unicode")}\n'


def _describe(header: Element, media: Media) -> None:
    """ELAN looks at MEDIA_URL, then for the relative one beside the document."""
    link = make_printable(media.link)
    relative = link if link.startswith("../") else f"./{link}"
    urls = {"MEDIA_URL": relative, "RELATIVE_MEDIA_URL": relative}
    SubElement(header, "MEDIA_DESCRIPTOR", urls, MIME_TYPE=media.mime_type)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _time_order(root: Element, made: Iterable[Tier]) -> dict[int, str]:
    """Milliseconds -> id of the time slot; slots stand in the order of time."""
    order = SubElement(root, "TIME_ORDER")
    segments = [segment for tier in made for segment in tier.segments]
    times = {_milliseconds(time) for segment in segments for time in (segment.start_s, segment.end_s)}
    slots = {time: f"ts{number}" for number, time in enumerate(sorted(times), 1)}
    for time, name in slots.items():
        SubElement(order, "TIME_SLOT", TIME_SLOT_ID=name, TIME_VALUE=str(time))
    return slots


def _add_tiers(root: Element, tier: Tier, slots: dict[int, str], ids: Iterable[int]) -> None:
    """The tier of labels, then those of values: each annotation belongs to that of a label."""
    ids = iter(ids)
    parent = _tier(root, tier, tier.name, "label")
    parents = []
    for segment in tier.segments:
        parents.append(f"a{next(ids)}")
        times = {"TIME_SLOT_REF1": segment.start_s, "TIME_SLOT_REF2": segment.end_s}
        places = {name: slots[_milliseconds(time)] for name, time in times.items()}
        _annotate(parent, "ALIGNABLE_ANNOTATION", parents[-1], segment.label or "", places)
    for key, name in tier.values.items():
        child = _tier(root, tier, name, "value", {"PARENT_REF": tier.name})
        for segment, of in zip(tier.segments, parents, strict=True):
            if key in format_values(segment):
                reference = {"ANNOTATION_REF": of}
                _annotate(child, "REF_ANNOTATION", f"a{next(ids)}", format_values(segment)[key], reference)


def _tier(root: Element, tier: Tier, name: str, kind: str, more: dict[str, str] | None = None) -> Element:
    attributes = {"LINGUISTIC_TYPE_REF": kind, "TIER_ID": name, "PARTICIPANT": tier.speaker}
    return SubElement(root, "TIER", attributes | (more or {}))


def _annotate(tier: Element, kind: str, name: str, text: str, where: dict[str, str]) -> None:
    annotation = SubElement(SubElement(tier, "ANNOTATION"), kind, {"ANNOTATION_ID": name} | where)
    SubElement(annotation, "ANNOTATION_VALUE").text = make_printable(text)


def _add_types(root: Element) -> None:
    plain = {"GRAPHIC_REFERENCES": "false"}
    SubElement(root, "LINGUISTIC_TYPE", plain, LINGUISTIC_TYPE_ID="label", TIME_ALIGNABLE="true")
    dependent = plain | {"CONSTRAINTS": ASSOCIATION}
    SubElement(root, "LINGUISTIC_TYPE", dependent, LINGUISTIC_TYPE_ID="value", TIME_ALIGNABLE="false")
    SubElement(root, "CONSTRAINT", STEREOTYPE=ASSOCIATION, DESCRIPTION=EXPLAINED)

"""ELAN's annotation format, EAF 3.0.

The format: https://www.mpi.nl/tools/elan/EAF_Annotation_Format_3.0_and_ELAN.pdf
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import count
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from sertone.runtime.formats.media import Media
from sertone.runtime.formats.tiers import Tier, build_tiers, format_values, make_printable
from sertone.schema import Prediction

SCHEMA_INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"
SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
ASSOCIATION = "Symbolic_Association"
ASSOCIATION_DESCRIPTION = "1-1 association with a parent annotation"


def format_eaf(prediction: Prediction, media: Media | None = None) -> str:
    """Return an EAF document: each speaker has a tier of labels, and tiers of values that depend on it.

    Args:
        prediction: a recording with its segments.
        media: the recording; the document names only its relative path.
    """
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    root = Element("ANNOTATION_DOCUMENT", AUTHOR="", DATE=now, FORMAT="3.0", VERSION="3.0")
    root.attrib |= {"xmlns:xsi": SCHEMA_INSTANCE, "xsi:noNamespaceSchemaLocation": SCHEMA}
    header = SubElement(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    if media:
        _add_media(header, media)
    tiers = build_tiers(prediction.segments)
    slots = _add_time_slots(root, tiers)
    ids = count(1)
    for tier in tiers:
        _add_tiers(root, tier, slots, ids)
    # ELAN continues the numbering from here when a person adds annotations.
    SubElement(header, "PROPERTY", NAME="lastUsedAnnotationId").text = str(next(ids) - 1)
    _add_types(root)
    indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(root, encoding="unicode")}\n'


def _add_media(header: Element, media: Media) -> None:
    """Name the recording. ELAN tries MEDIA_URL first, then the relative URL beside the document."""
    link = make_printable(media.link)
    relative = link if link.startswith("../") else f"./{link}"
    # Both are relative: an absolute path would reveal the author's folders, and break elsewhere.
    urls = {"MEDIA_URL": relative, "RELATIVE_MEDIA_URL": relative}
    SubElement(header, "MEDIA_DESCRIPTOR", urls, MIME_TYPE=media.mime_type)


def _to_milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _add_time_slots(root: Element, tiers: Iterable[Tier]) -> dict[int, str]:
    """Add the time slots, in order of time; return the slot id of each time in milliseconds."""
    order = SubElement(root, "TIME_ORDER")
    segments = [segment for tier in tiers for segment in tier.segments]
    times = {_to_milliseconds(time) for segment in segments for time in (segment.start_s, segment.end_s)}
    slots = {time: f"ts{number}" for number, time in enumerate(sorted(times), 1)}
    for time, slot in slots.items():
        SubElement(order, "TIME_SLOT", TIME_SLOT_ID=slot, TIME_VALUE=str(time))
    return slots


def _add_tiers(root: Element, tier: Tier, slots: Mapping[int, str], ids: Iterator[int]) -> None:
    """Add the tier of labels, then the tiers of values; each value refers to the annotation of a label."""
    parent = _add_tier(root, tier, tier.name, "label")
    label_ids = []
    for segment in tier.segments:
        label_ids.append(f"a{next(ids)}")
        start, end = (slots[_to_milliseconds(time)] for time in (segment.start_s, segment.end_s))
        place = {"TIME_SLOT_REF1": start, "TIME_SLOT_REF2": end}
        _add_annotation(parent, "ALIGNABLE_ANNOTATION", label_ids[-1], segment.label or "", place)
    for key, name in tier.values.items():
        child = _add_tier(root, tier, name, "value", {"PARENT_REF": tier.name})
        for segment, label_id in zip(tier.segments, label_ids, strict=True):
            values = format_values(segment)
            if key in values:
                reference = {"ANNOTATION_REF": label_id}
                _add_annotation(child, "REF_ANNOTATION", f"a{next(ids)}", values[key], reference)


def _add_tier(
    root: Element, tier: Tier, name: str, kind: str, attributes: Mapping[str, str] | None = None
) -> Element:
    common = {"LINGUISTIC_TYPE_REF": kind, "TIER_ID": name, "PARTICIPANT": tier.speaker}
    return SubElement(root, "TIER", common | dict(attributes or {}))


def _add_annotation(tier: Element, kind: str, name: str, text: str, place: Mapping[str, str]) -> None:
    annotation = SubElement(SubElement(tier, "ANNOTATION"), kind, {"ANNOTATION_ID": name} | dict(place))
    SubElement(annotation, "ANNOTATION_VALUE").text = make_printable(text)


def _add_types(root: Element) -> None:
    """Declare the two types of tiers: labels carry times, values take them from their label."""
    plain = {"GRAPHIC_REFERENCES": "false"}
    SubElement(root, "LINGUISTIC_TYPE", plain, LINGUISTIC_TYPE_ID="label", TIME_ALIGNABLE="true")
    dependent = plain | {"CONSTRAINTS": ASSOCIATION}
    SubElement(root, "LINGUISTIC_TYPE", dependent, LINGUISTIC_TYPE_ID="value", TIME_ALIGNABLE="false")
    SubElement(root, "CONSTRAINT", STEREOTYPE=ASSOCIATION, DESCRIPTION=ASSOCIATION_DESCRIPTION)

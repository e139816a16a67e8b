"""Timelines as files: what independent readers, or parsers written from the formats' own rules, find in them."""

import csv
import html
import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import parselmouth
import pympi
import pysrt
import pytest
from conversation import CLASSES, conversation
from hypothesis import example, given, settings
from hypothesis import strategies as st
from parselmouth.praat import call

from sertone.errors import SertoneError
from sertone.runtime.formats.writers import FORMATS, write
from sertone.schema import Prediction, Segment
from sertone.utils import spreadsheet

HOSTILE = [
    "A --> B",
    'say ""hi"',
    "a\nb\r\nc",
    "</script><script>alert(1)",
    "<v x>&amp;",
    " ",
    "",
    "Ω 日本",
    "A (2)",
    "\udcff\x00",
]
names = st.sampled_from([*HOSTILE, "Anna"]) | st.text(max_size=8)
seconds = st.floats(0, 4000, allow_nan=False)


UNKNOWN = st.none()


@st.composite
def segments(draw, confidence=UNKNOWN):
    start, length = draw(seconds), draw(st.floats(0.01, 30))
    said = {"speaker": draw(names), "label": draw(names), "confidence": draw(confidence)}
    return Segment(start_s=start, end_s=start + length, **said)


def timelines(**how):
    """Of up to eight segments, overlapping as they come."""
    return st.builds(
        lambda rows, name: Prediction(file=name, status="ok", duration_s=60.0, label="x", segments=rows),
        st.lists(segments(**how), max_size=8),
        names,
    )


def line(text):
    """Text as every format shows it: no control characters, no line breaks, no halves of characters."""
    kept = "".join(
        "\0"
        if ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u2028\u2029\ufffe\uffff" or 0xD800 <= ord(c) < 0xE000
        else c
        for c in text
    )
    return re.sub("\0+", " ", kept).strip()


def milliseconds(seconds):
    """Round the exact value: 0.0025 is a little over two and a half, which its product with 1000 no longer is."""
    return int(Decimal(seconds).scaleb(3).to_integral_value(ROUND_HALF_EVEN))


def told(prediction, *, empty=True):
    """Start and end in ms and label of every segment, however often."""
    found = ((milliseconds(s.start_s), milliseconds(s.end_s), line(s.label)) for s in prediction.segments)
    return Counter(row for row in found if empty or row[2])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("timelines")


@pytest.fixture(scope="module")
def call_0417(folder):
    """The conversation in every format: suffix -> path."""
    recording = folder / "recordings" / "call 0417.wav"
    recording.parent.mkdir()
    recording.write_bytes(b"RIFF")
    return {suffix: write(conversation(), folder / f"call{suffix}", recording) for suffix in FORMATS}


def praat_tiers(path):
    """Tier -> its intervals as Praat reads them, (start, end, text) in seconds."""
    grid = parselmouth.read(str(path))
    found = []
    for number in range(1, call(grid, "Get number of tiers") + 1):
        rows = [
            (call(grid, "Get start time of interval", number, i), call(grid, "Get end time of interval", number, i),
             call(grid, "Get label of interval", number, i))
            for i in range(1, call(grid, "Get number of intervals", number) + 1)
        ]  # fmt: skip
        found.append((call(grid, "Get tier name", number), rows))
    return found, call(grid, "Get total duration")


@settings(max_examples=60, deadline=None)
@given(timelines())
def test_praat_reads_every_segment_and_gaps_between(folder, prediction):
    tiers, duration = praat_tiers(write(prediction, folder / "any.TextGrid"))
    rows = [row for _, intervals in tiers for row in intervals if row[2]]
    assert Counter((milliseconds(a), milliseconds(b), text) for a, b, text in rows) == told(
        prediction, empty=False
    )
    assert len({name for name, _ in tiers}) == len(tiers) >= 1
    for _, intervals in tiers:
        assert intervals[0][0] == 0 and intervals[-1][1] == pytest.approx(duration)
        assert all(before[1] == after[0] for before, after in pairwise(intervals))


def test_praat_has_a_tier_of_labels_and_of_each_value(call_0417):
    tiers, duration = praat_tiers(call_0417[".TextGrid"])
    kinds = ["", " confidence", " arousal", " valence", " unsure"]
    assert {name for name, _ in tiers} == {name + kind for name in ("Agent", "Customer") for kind in kinds}
    assert duration == 183.4
    found = {name: {(a, b): text for a, b, text in rows if text} for name, rows in tiers}
    for s in conversation().segments:
        at = (s.start_s, s.end_s)
        assert found[s.speaker][at] == s.label
        assert float(found[f"{s.speaker} confidence"][at]) == pytest.approx(s.confidence, abs=5e-4)
        assert float(found[f"{s.speaker} valence"][at]) == pytest.approx(s.dimensions["valence"], abs=5e-4)
        assert (at in found[f"{s.speaker} unsure"]) == s.unsure


def test_another_reader_of_textgrid_agrees(call_0417):
    read = pympi.Praat.TextGrid(str(call_0417[".TextGrid"]), codec="utf-8")
    rows = Counter(
        row for name in ("Agent", "Customer") for row in read.get_tier(name).get_intervals() if row[2]
    )
    assert rows == Counter((s.start_s, s.end_s, s.label) for s in conversation().segments)


EAF_ORDER = ["HEADER", "TIME_ORDER", "TIER", "LINGUISTIC_TYPE", "CONSTRAINT"]


def check_eaf(path):
    """What the schema of EAF 3.0 asks of the elements used here, and ELAN of tiers."""
    root = ElementTree.parse(path).getroot()
    assert root.tag == "ANNOTATION_DOCUMENT" and {"AUTHOR", "DATE", "VERSION"} <= set(root.attrib)
    order = [EAF_ORDER.index(child.tag) for child in root]
    assert order == sorted(order)
    slots = {slot.get("TIME_SLOT_ID"): int(slot.get("TIME_VALUE")) for slot in root.find("TIME_ORDER")}
    assert list(slots.values()) == sorted(slots.values())
    tiers = {tier.get("TIER_ID"): tier for tier in root.findall("TIER")}
    types = {kind.get("LINGUISTIC_TYPE_ID") for kind in root.findall("LINGUISTIC_TYPE")}
    assert len(tiers) == len(root.findall("TIER")) and "" not in tiers
    assert all(tier.get("LINGUISTIC_TYPE_REF") in types for tier in tiers.values())
    assert all(tier.get("PARENT_REF", name) in tiers for name, tier in tiers.items())
    ids = [node.get("ANNOTATION_ID") for node in root.iter() if node.get("ANNOTATION_ID")]
    assert len(set(ids)) == len(ids) and str(len(ids)) == root.find("HEADER/PROPERTY").text
    assert all(node.get("ANNOTATION_REF") in ids for node in root.iter("REF_ANNOTATION"))
    for tier in tiers.values():
        refs = [(a.get("TIME_SLOT_REF1"), a.get("TIME_SLOT_REF2")) for a in tier.iter("ALIGNABLE_ANNOTATION")]
        spans = [(slots[first], slots[last]) for first, last in refs]
        assert all(start < end for start, end in spans)
        assert all(before[1] <= after[0] for before, after in pairwise(spans))
    return root


@settings(max_examples=60, deadline=None)
@given(timelines())
def test_elan_reads_every_segment(folder, prediction):
    path = write(prediction, folder / "any.eaf")
    check_eaf(path)
    read = pympi.Elan.Eaf(str(path))
    rows = [row for tier in read.get_tier_names() for row in read.get_annotation_data_for_tier(tier)]
    assert Counter((start, end, text or "") for start, end, text in rows) == told(prediction)


def test_elan_has_tiers_per_speaker_with_values_that_belong_to_labels(call_0417):
    root = check_eaf(call_0417[".eaf"])
    media = root.find("HEADER/MEDIA_DESCRIPTOR")
    assert media.attrib == {
        "MEDIA_URL": "./recordings/call 0417.wav",
        "RELATIVE_MEDIA_URL": "./recordings/call 0417.wav",
        "MIME_TYPE": "audio/x-wav",
    }
    read = pympi.Elan.Eaf(str(call_0417[".eaf"]))
    assert {
        read.get_parameters_for_tier(f"{name}{kind}")["PARTICIPANT"]
        for name in ("Agent", "Customer")
        for kind in ("", " valence")
    } == {"Agent", "Customer"}
    for s in conversation().segments:
        at = (milliseconds(s.start_s), milliseconds(s.end_s))
        values = {row[:2]: row[2] for row in read.get_ref_annotation_data_for_tier(f"{s.speaker} confidence")}
        labels = {row[:2]: row[2] for row in read.get_annotation_data_for_tier(s.speaker)}
        assert labels[at] == s.label and values[at] == f"{s.confidence:.3f}"


def captions(prediction, arrow="-->"):
    rows = sorted(prediction.segments, key=lambda s: (milliseconds(s.start_s), milliseconds(s.end_s)))
    sure = [f" ({s.confidence:.0%})" if s.confidence is not None else "" for s in rows]
    said = [
        f"{line(s.speaker)}: " * bool(line(s.speaker)) + line(s.label) + c
        for s, c in zip(rows, sure, strict=True)
    ]
    times = [(milliseconds(s.start_s), milliseconds(s.end_s)) for s in rows]
    return Counter(zip(times, (text.replace("-->", arrow).strip() for text in said), strict=True))


HALF_A_MILLISECOND = Segment(start_s=0.0025, end_s=1.0025, speaker="A", label="x", confidence=0.0)


@settings(max_examples=60, deadline=None)
@example(Prediction(file="x", status="ok", duration_s=60.0, label="x", segments=[HALF_A_MILLISECOND]))
@given(timelines(confidence=st.floats(0, 1)))
def test_srt_by_pysrt(folder, prediction):
    read = pysrt.open(
        str(write(prediction, folder / "any.srt")), encoding="utf-8", error_handling=pysrt.ERROR_RAISE
    )
    assert [cue.index for cue in read] == list(range(1, len(prediction.segments) + 1))
    rows = Counter(((cue.start.ordinal, cue.end.ordinal), cue.text.strip()) for cue in read)
    assert rows == captions(prediction, arrow="→")


VTT_TIME = r"(\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3})"


@settings(max_examples=60, deadline=None)
@given(timelines(confidence=st.floats(0, 1)))
def test_webvtt_by_its_rules(folder, prediction):
    """Blocks of a timing line and one line of text, in which `<`, `&` and `-->` stand for nothing but markup."""
    head, *blocks = write(prediction, folder / "any.vtt").read_text("utf-8").split("\n\n")
    assert head.strip() == "WEBVTT"
    found = Counter()
    for block in filter(None, blocks):
        timing, text = block.removesuffix("\n").split("\n")
        times = [int(part) for part in re.fullmatch(f"{VTT_TIME} --> {VTT_TIME}", timing).groups()]
        start, end = (h * 3600000 + m * 60000 + s * 1000 + ms for h, m, s, ms in (times[:4], times[4:]))
        voice, body = re.fullmatch(r"(?:<v ([^>]*)>)?([^<>]*)", text).groups()
        assert "-->" not in text and not re.search(r"&(?!amp;|lt;|gt;)", text)
        said = f"{html.unescape(voice)}: " if voice else ""
        found[(start, end), (said + html.unescape(body)).strip()] += 1
    assert found == captions(prediction)


@settings(max_examples=60, deadline=None)
@given(timelines(confidence=st.floats(0, 1)))
def test_audacity_by_its_rules(folder, prediction):
    text = write(prediction, folder / "any.labels.txt").read_text("utf-8")
    rows = [row.split("\t") for row in text.removesuffix("\n").split("\n") if row]
    found = Counter(((milliseconds(float(a)), milliseconds(float(b))), said.strip()) for a, b, said in rows)
    assert found == captions(prediction)


@settings(max_examples=60, deadline=None)
@given(timelines(confidence=st.floats(0, 1)))
def test_rttm_by_its_rules(folder, prediction):
    """Ten fields without spaces; two speakers stay two."""
    rows = [
        row.split() for row in write(prediction, folder / "any.rttm").read_text("utf-8").split("\n") if row
    ]
    assert all(len(row) == 10 and row[0] == "SPEAKER" and row[2] == "1" for row in rows)
    assert all(row[5] == row[9] == "<NA>" for row in rows)
    found = Counter(
        (milliseconds(float(r[3])), milliseconds(float(r[3]) + float(r[4])), r[6].replace("_", ""))
        for r in rows
    )
    kept = Counter((a, b, re.sub(r"[\s_]", "", text) or "<NA>") for a, b, text in told(prediction).elements())
    assert found == kept
    assert len({row[7] for row in rows}) == len({s.speaker for s in prediction.segments})


def test_rttm_of_a_conversation(call_0417):
    first = conversation().segments[0]
    fields = call_0417[".rttm"].read_text().split("\n")[0].split(" ")
    assert fields[1] == "call_0417" and fields[6:9] == [first.label, first.speaker, f"{first.confidence:.3f}"]


@settings(max_examples=60, deadline=None)
@given(timelines(confidence=st.floats(0, 1)))
def test_csv_has_a_row_per_segment(folder, prediction):
    """With an apostrophe before what a spreadsheet would take for a formula; see `test_names`."""
    rows = spreadsheet.read_rows(write(prediction, folder / "any.csv"))
    found = Counter(
        (milliseconds(float(r["start_s"])), milliseconds(float(r["end_s"])), r["label"]) for r in rows
    )
    assert found == told(prediction)
    assert {row["file"] for row in rows} <= {line(prediction.file)}
    assert Counter(row["speaker"] for row in rows) == Counter(line(s.speaker) for s in prediction.segments)


def test_csv_has_a_column_per_class_and_dimension(call_0417):
    with open(call_0417[".csv"], newline="") as file:
        rows = list(csv.DictReader(file))
    for row, s in zip(rows, sorted(conversation().segments, key=lambda s: s.start_s), strict=True):
        assert [float(row[f"p_{name}"]) for name in CLASSES] == pytest.approx(
            list(s.probabilities.values()), abs=1e-4
        )
        assert float(row["arousal"]) == pytest.approx(s.dimensions["arousal"], abs=1e-4)
        assert row["unsure"] == str(s.unsure)


@settings(max_examples=60, deadline=None)
@given(timelines(confidence=st.floats(0, 1)))
def test_json_is_the_prediction(folder, prediction):
    assert json.loads(write(prediction, folder / "any.json").read_text("utf-8")) == asdict(prediction)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_timeline_without_speech_or_names_is_written(tmp_path, suffix):
    silent = Prediction(file="a.wav", status="warning", code="no_speech", duration_s=2.0)
    assert write(silent, tmp_path / f"silent{suffix}").is_file()
    rated = replace(silent, segments=[Segment(start_s=0, end_s=2, dimensions={"valence": 2.5})])
    path = write(rated, tmp_path / f"rated{suffix.upper()}")
    assert suffix == ".png" or "valence" in path.read_text("utf-8") or suffix == ".rttm"


def test_overlapping_windows_of_a_speaker_take_two_tiers(tmp_path):
    windows = [Segment(start_s=2.0 * n, end_s=2.0 * n + 4, speaker="Anna", label="sad") for n in range(5)]
    path = write(
        Prediction(file="a.wav", status="ok", duration_s=12, segments=windows), tmp_path / "a.TextGrid"
    )
    assert [name for name, _ in praat_tiers(path)[0]] == ["Anna", "Anna (2)"]


def test_what_is_there_stays_when_writing_fails(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    path = tmp_path / "out.png"
    path.write_text("before")
    with pytest.raises(SertoneError, match=r"\[png\]") as caught:
        write(conversation(), path)
    assert caught.value.code == "missing_extra"
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_an_unknown_suffix_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(SertoneError, match=r"\.docx.*\.TextGrid.*\.png") as caught:
        write(conversation(), tmp_path / "out.docx")
    assert caught.value.code == "unknown_suffix"


def test_an_error_has_no_timeline(tmp_path):
    failed = Prediction(file="a.wav", status="error", code="empty_file", message="no bytes")
    with pytest.raises(SertoneError, match="no bytes") as caught:
        write(failed, tmp_path / "out.csv")
    assert caught.value.code == "not_answered" and not list(tmp_path.iterdir())


def test_the_writers_are_part_of_the_light_half():
    heavy = ("torch", "jinja2", "PIL", "matplotlib", "pydantic", "yaml", "rich")
    code = f"import sys, sertone.runtime.formats.writers; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_format_is_in_the_docs():
    page = (Path(__file__).parent.parent / "docs" / "timeline-formats.md").read_text()
    assert all(f"| `{suffix}" in page for suffix in FORMATS)

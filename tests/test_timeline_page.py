"""Timelines to look at: the HTML page, read by a parser and by a browser, the picture, and their colours."""

import base64
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations

import numpy as np
import pytest
import soundfile
from conftest import REPOSITORY
from conversation import CLASSES, SECONDS, conversation
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sertone.labels import EMOTIONS, NOT_CLASSES
from sertone.runtime.formats import html as pages
from sertone.runtime.formats import png as pictures
from sertone.runtime.formats.canvas import SCALE
from sertone.runtime.formats.colours import PALETTE, assign_colours, choose_text_colour, parse_colour
from sertone.runtime.formats.writers import write
from sertone.schema import Prediction, Segment

BROWSERS = [path for path in map(shutil.which, ("chromium", "google-chrome", "chrome")) if path]
NASTY = "</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>{{ data }}\\\"'&amp;"


class Read(HTMLParser):
    """Elements with their attributes, and what stands in scripts and headings."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self._within = [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._within.append(tag)

    def handle_endtag(self, tag):
        self._within.pop() if tag in self._within else None

    def handle_data(self, data):
        last = next(reversed(self.elements), ("", {}))
        self.text.setdefault(last[1].get("id") or last[0], []).append(data)

    @property
    def data(self):
        return json.loads(self.text["data"][0])


def hostile(name):
    """The conversation with everything that has a name renamed."""
    said = conversation()

    def named(answer):
        shares = {f"{label}{name}": share for label, share in answer.probabilities.items()}
        return replace(answer, label=f"{answer.label}{name}", probabilities=shares)

    rows = [replace(named(s), speaker=f"{s.speaker}{name}") for s in said.segments]
    speakers = [replace(s, name=f"{s.name}{name}") for s in said.speakers]
    return replace(named(said), file=f"{name}.wav", message=name, segments=rows, speakers=speakers)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("talks") / "a talk; #1.wav"
    soundfile.write(path, np.zeros(4000), 8000)
    return path


def test_the_page_holds_every_segment(tmp_path):
    data = Read(write(conversation(), tmp_path / "a.html").read_text()).data
    rows = [
        (s["start"], who["name"], s["label"], s["probabilities"])
        for who in data["speakers"]
        for row in who["rows"]
        for s in row
    ]
    assert sorted(rows, key=lambda row: row[0]) == sorted(
        ((s.start_s, s.speaker, s.label, s.probabilities) for s in conversation().segments),
        key=lambda row: row[0],
    )
    assert {label: colour["fill"] for label, colour in data["colours"].items()} == {
        name: PALETTE[name] for name in CLASSES
    }
    assert [(who["name"], who["seconds"]) for who in data["summary"]] == [
        (who.name, who.seconds_by_label) for who in conversation().speakers
    ]


def test_nothing_comes_from_elsewhere(tmp_path, recording):
    text = write(conversation(), tmp_path / "a.html", recording).read_text()
    sources = [
        value
        for _, attrs in Read(text).elements
        for name, value in attrs.items()
        if name in ("src", "href", "data", "srcset")
    ]
    assert len(sources) == 1 and sources[0].startswith("data:audio/x-wav;base64,")
    assert base64.b64decode(sources[0].split(",")[1]) == recording.read_bytes()
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|innerHTML|eval\(", text)


def test_a_large_recording_is_linked(tmp_path, recording, monkeypatch):
    monkeypatch.setattr(pages, "EMBEDDED_BYTES", 100)
    write(conversation(), recording.parent / "a.html", recording)
    (tmp_path / "pages").mkdir()
    for path, link in (
        (recording.parent / "a.html", ""),
        (tmp_path / "pages" / "b.html", f"../../{recording.parent.name}/"),
    ):
        text = write(conversation(), path, recording).read_text()
        (audio,) = (attrs for tag, attrs in Read(text).elements if tag == "audio")
        assert audio["src"].endswith(f"{link}a%20talk%3B%20%231.wav") and audio["src"].startswith(link[:3])


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([NASTY, "\udcff\u2028", "<!--<script>"]) | st.text(max_size=20))
def test_names_are_text_and_nothing_else(name):
    said = hostile(name)
    read = Read(pages.render_page(said))
    assert [tag for tag, _ in read.elements if tag in ("script", "img", "audio", "iframe")] == [
        "script",
        "script",
    ]
    assert set(read.data["colours"]) == set(said.probabilities) and read.data["message"] == name
    assert not any(attr.startswith("on") for _, attrs in read.elements for attr in attrs)


def test_the_look_is_that_of_the_reports():
    def values(path):
        sheets = re.findall(r":root \{(.*?)\}", path.read_text().split("</style>")[0], re.S)[:2]
        return [dict(re.findall(r"(--\w+): (#\w+)", sheet)) for sheet in sheets]

    base = values(REPOSITORY / "sertone/report/templates/base.html")
    own = values(REPOSITORY / "sertone/runtime/formats/timeline.html")
    for mine, theirs in zip(own, base, strict=True):
        shared = mine.keys() & theirs.keys()
        assert len(shared) >= 12 and all(mine[name] == theirs[name] for name in shared)


def seen(browser, folder, text, probe):
    """What a script says that runs in the page after its own, and what the console said."""
    script = f"<script>addEventListener('load', () => {{ document.title = JSON.stringify((() => {{ {probe} }})()); }})</script>"
    path = folder / "seen.html"
    path.write_text(text.replace("</body>", f"{script}</body>"), encoding="utf-8")
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--enable-logging=stderr",
    ]
    command += [
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1200,900",
    ]
    command += [
        f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=2000",
        "--dump-dom",
        path.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.S)[1]
    console = [row for row in done.stderr.splitlines() if "CONSOLE" in row]
    return json.loads(title.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")), console


MOVES = """
  const found = [...document.querySelectorAll('.seg')], lane = found[0].parentElement;
  const before = document.getElementById('details').textContent;
  found[0].focus();
  found[0].dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}));
  const moved = document.activeElement === lane.children[1], shown = document.getElementById('details').textContent;
  document.activeElement.click();
  const width = document.getElementById('track').offsetWidth, left = found[0].offsetLeft / width;
  document.getElementById('in').click();
  return {segments: found.length, unsure: document.querySelectorAll('.seg.unsure').length, moved, before, shown,
    label: found[0].getAttribute('aria-label'), colour: getComputedStyle(found[0]).backgroundColor,
    left, stops: document.querySelectorAll('.seg[tabindex="0"]').length,
    time: document.getElementById('audio') ? document.getElementById('audio').currentTime : null,
    zoomed: document.getElementById('track').offsetWidth / width, lines: document.querySelectorAll('path.value').length,
    rows: document.querySelectorAll('#body tr').length, scrolls: document.documentElement.scrollWidth > innerWidth};
"""


@pytest.mark.parametrize("browser", BROWSERS)
def test_a_browser_shows_and_plays_it(browser, tmp_path):
    said = conversation()
    agent = [s for s in said.segments if s.speaker == "Agent"]
    long = tmp_path / "long.wav"
    soundfile.write(long, np.zeros(round(SECONDS * 1000)), 1000, subtype="PCM_U8")
    found, console = seen(browser, tmp_path, write(said, tmp_path / "a.html", long).read_text(), MOVES)
    assert not console
    assert found["segments"] == len(said.segments) and found["unsure"] == sum(s.unsure for s in said.segments)
    assert found["moved"] and found["stops"] == 2 and found["time"] == pytest.approx(agent[1].start_s)
    assert "Point at" in found["before"] and f"{agent[1].confidence:.0%}" in found["shown"]
    assert found["label"].startswith(
        f"0:01.2 to 0:{agent[0].end_s:04.1f}, Agent, {agent[0].label} {agent[0].confidence:.0%}"
    )
    assert found["colour"] == f"rgb{parse_colour(PALETTE[agent[0].label])}"
    assert found["left"] == pytest.approx(agent[0].start_s / SECONDS, abs=0.002)
    assert found["zoomed"] == pytest.approx(2, abs=0.01) and found["rows"] == 2
    assert found["lines"] == 4 + 2 and not found["scrolls"]


@pytest.mark.parametrize("browser", BROWSERS)
def test_a_browser_runs_nothing_that_a_name_says(browser, tmp_path):
    probe = MOVES + "; return {}"
    found, console = seen(browser, tmp_path, pages.render_page(hostile(NASTY)), probe)
    assert not console and found["segments"] == len(conversation().segments) and found["time"] is None
    assert NASTY in found["shown"] and "Enter plays" not in found["before"]
    bare = Prediction(file="a.wav", status="ok", duration_s=1.0)
    assert seen(
        browser, tmp_path, pages.render_page(bare), "return document.querySelectorAll('.seg').length"
    ) == (
        0,
        [],
    )


def pixels(prediction, path):
    return np.asarray(Image.open(write(prediction, path)).convert("RGB"))


def place(seconds, start_s=0.0, length_s=SECONDS):
    width = pictures.WIDTH - pictures.LEFT - pictures.RIGHT
    return round(SCALE * (pictures.LEFT + (seconds - start_s) / length_s * width))


def holds(column, colour, least):
    return (column == parse_colour(colour)).all(axis=1).sum() >= least


def test_the_picture_has_colours_where_segments_are(tmp_path):
    said = conversation()
    image = pixels(said, tmp_path / "a.png")
    assert image.shape[1] == SCALE * pictures.WIDTH
    sure = [s for s in said.segments if not s.unsure and s.end_s - s.start_s > 2]
    for s in sure:
        near = [place(at) for at in (s.start_s + 0.3, s.end_s - 0.3)]
        assert all(holds(image[:, x], PALETTE[s.label], SCALE * 20) for x in near), s
    silent = next(
        at
        for at in np.arange(0.3, SECONDS, 0.1)
        if not any(s.start_s - 0.3 < at < s.end_s + 0.3 for s in said.segments)
    )
    top = SCALE * (pictures.HEAD + pictures.LINE)
    assert not any(holds(image[top:, place(silent)], colour, SCALE * 10) for colour in PALETTE.values())


def test_an_unsure_segment_is_hatched(tmp_path):
    one = Segment(start_s=2, end_s=8, label="sad", confidence=0.3, unsure=True)
    said = Prediction(file="a.wav", status="ok", duration_s=10, label="sad", segments=[one])
    for unsure in (True, False):
        image = pixels(replace(said, segments=[replace(one, unsure=unsure)]), tmp_path / "a.png")
        assert holds(image[:, place(3, length_s=10)], PALETTE["sad"], SCALE * 20) != unsure


def test_a_long_recording_goes_on_in_further_rows(tmp_path):
    rows = [
        Segment(start_s=at, end_s=at + 20, label=label)
        for at, label in ((100, "happy"), (290, "angry"), (610, "sad"))
    ]
    said = Prediction(file="a.wav", status="ok", duration_s=700, segments=rows)
    image = pixels(said, tmp_path / "a.png")
    height = np.flatnonzero((image[:, place(105, 0, 300)] == parse_colour(PALETTE["happy"])).all(axis=1))
    ends = [
        np.flatnonzero((image[:, x] == parse_colour(PALETTE["angry"])).all(axis=1))
        for x in (place(299, 0, 300), place(301, 300, 300))
    ]
    last = np.flatnonzero((image[:, place(615, 600, 300)] == parse_colour(PALETTE["sad"])).all(axis=1))
    assert (
        abs(ends[0].max() - height.max()) <= 1 and ends[1].min() > height.max() and last.min() > ends[1].max()
    )


def test_ratings_are_joined_across_silence_where_a_row_ends(tmp_path):
    """Silent segments have no rating, and do not break the line of those that have one."""

    def drawn(*segments):
        said = Prediction(file="a.wav", status="ok", duration_s=400, segments=list(segments))
        line = parse_colour(pictures.LINES[0])
        return np.argwhere((pixels(said, tmp_path / "a.png") == line).all(axis=-1)).tolist()

    first, last = (
        Segment(start_s=at, end_s=at + 10, label="sad", dimensions={"arousal": value})
        for at, value in ((250, 1.0), (340, 5.0))
    )
    pauses = [Segment(start_s=at, end_s=at + 10) for at in (270, 285, 305, 320)]
    joined = drawn(first, last)
    assert joined == drawn(first, *pauses, last) and len(joined) > len(drawn(first)) + len(drawn(last))


def test_names_that_are_too_long_or_not_latin_do_no_harm(tmp_path):
    for name in (NASTY * 5, "日本語" * 30, ""):
        said = hostile(name)
        assert pixels(said, tmp_path / "a.png").shape[1] == SCALE * pictures.WIDTH


CONES = {
    "all": np.eye(3),
    "no red": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no green": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "no blue": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
"""Machado, Oliveira and Fernandes (2009), severity 1: linear RGB to what is seen."""
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def linear(colour):
    share = np.array(parse_colour(colour)) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def lab(colour, cones):
    shares = XYZ @ np.clip(np.asarray(cones) @ linear(colour), 0, 1) / XYZ.sum(axis=1)
    x, y, z = np.where(shares > 216 / 24389, np.cbrt(shares), (24389 / 27 * shares + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("cones", CONES.values(), ids=CONES)
def test_everybody_can_tell_emotions_apart(cones):
    assert set(PALETTE) == set(EMOTIONS) - set(NOT_CLASSES)
    assert all(
        np.linalg.norm(lab(a, cones) - lab(b, cones)) >= 19 for a, b in combinations(PALETTE.values(), 2)
    )


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_letters_can_be_read_on_any_colour(values):
    colour = f"#{bytes(values).hex()}"
    light, dark = sorted(
        (float(XYZ[1] @ linear(each)) for each in (colour, choose_text_colour(colour))), reverse=True
    )
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_an_emotion_has_one_colour_and_other_labels_have_what_is_left():
    assert assign_colours(["anger", "neutral"]) == {"anger": PALETTE["angry"], "neutral": PALETTE["neutral"]}
    found = assign_colours(["urgent", "sad", "pleased"])
    assert found["sad"] == PALETTE["sad"] and len(set(found.values())) == 3
    assert len(assign_colours(map(str, range(40)))) == 40

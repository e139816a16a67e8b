"""Foreign names and texts are exact in JSON, no formula in a spreadsheet, and harmless on a terminal."""

import ast
import csv
import io
import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st

from sertone.corpora import manifest
from sertone.runtime.batch.row_formats import Csv, JsonLines
from sertone.runtime.formats.writers import format_csv
from sertone.schema import Prediction, Segment
from sertone.training.fit.progress import RunProgress
from sertone.utils import spreadsheet
from sertone.utils.terminal import CONTROL_CHARACTERS, escape_control

TITLE = "\x1b]0;mine\x07\x9b31m\u202e\r[red]x[/red]"
FORMULAS = ["=1+1", "+x", "-x y", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''-x", "＝1"]
ANYTHING = st.text(st.characters(exclude_categories=()), max_size=12)
TEXTS = st.one_of(ANYTHING, st.builds("{}{}".format, st.sampled_from(FORMULAS), ANYTHING))


def make_prediction(file, text=None, **values):
    return Prediction(file=file, status="ok", label="sad", probabilities={"sad": 1.0}, text=text, **values)


@given(TEXTS)
def test_no_cell_is_a_formula_and_every_text_is_restored(text):
    cell = spreadsheet.guard_formula(text)
    assert spreadsheet.unguard_formula(cell) == text
    assert cell[:1] not in ("=", "+", "-", "@", "\t", "\r", "\n") or spreadsheet.NUMBER.fullmatch(cell)


@pytest.mark.parametrize("value", [-1.5, 0, None, True, "-1.5", "+3", "-1e-7", "-inf", "plain", "'tis"])
def test_numbers_and_plain_texts_are_unchanged(value):
    assert spreadsheet.guard_formula(value) == value and (
        not isinstance(value, str) or spreadsheet.unguard_formula(value) == value
    )


@given(TEXTS, TEXTS)
def test_a_row_with_any_name_is_parsed_again(file, text):
    """Resuming parses the written row, and the file name in JSON is exact."""
    form, content = Csv(["sad"], ["valence"]), make_prediction(file, text, dimensions={"valence": -1.25})
    raw = form.format_row(content)
    (cells,) = csv.reader(io.StringIO(raw.decode(), newline=""))
    assert (
        form.is_complete(raw)
        and form.parse_row(raw).file == file.encode("utf-8", "backslashreplace").decode()
    )
    assert cells[-2] == "-1.25" and not [
        c for c in (cells[0], cells[-1]) if c[:1] in tuple("=+-@\t\r") and not spreadsheet.NUMBER.fullmatch(c)
    ]
    line = JsonLines().format_row(content)
    assert json.loads(line)["file"] == file and json.loads(line)["text"] == text
    assert not CONTROL_CHARACTERS.search(line.decode().removesuffix("\n"))


@pytest.mark.parametrize("name", ["=1+1.wav", "-x.wav", "@a.wav", "'=b.wav", b"\xff=.wav", "a\nb.wav"])
def test_finished_rows_with_such_names_are_recognised(toy, tone, tmp_path, name):
    shutil.move(tone(), tmp_path / os.fsdecode(name))
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}

    def predict(*options):
        command = [
            sys.executable,
            "-m",
            "sertone",
            "predict",
            toy,
            b"./" + os.fsencode(name),
            "--out",
            "r.csv",
            *options,
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return (tmp_path / "r.csv").read_bytes(), done.stderr

    whole, _ = predict()
    again, said = predict("--resume")
    assert again == whole and "1 row from before" in said


def test_a_table_of_segments_has_no_formula():
    segment = Segment(
        start_s=0, end_s=1, speaker="=cmd|x", label="-x", probabilities={"sad": 1}, dimensions={"@v": -2.5}
    )
    content = make_prediction("=file.wav", segments=[segment])
    (row,) = csv.DictReader(io.StringIO(format_csv(content)))
    assert (row["file"], row["speaker"], row["label"], row["'@v"]) == ("'=file.wav", "'=cmd|x", "'-x", "-2.5")


def test_a_manifest_reads_what_an_export_guards(tmp_path):
    (tmp_path / "m.csv").write_text("path,speaker,emotion,text\n'-a.wav,'=s,sad,'tis so\n")
    (found,) = manifest.load_utterances(tmp_path / "m.csv")
    assert (found.path.name, found.speaker, found.text) == ("-a.wav", "=s", "'tis so")


@given(ANYTHING)
def test_escaped_text_has_no_effect_and_equals_its_json(text):
    assert not CONTROL_CHARACTERS.search(escape_control(text))
    assert json.loads(escape_control(json.dumps(text, ensure_ascii=False))) == text


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", TITLE + ".wav"],
        ["predict", TITLE, "x.wav"],
        ["--" + TITLE],
        ["predict", "x.wav", "--out", TITLE],
        ["corpora", "check", "manifest", TITLE],
    ],
)
def test_no_name_controls_the_terminal(tmp_path, arguments):
    command = [sys.executable, "-m", "sertone", *arguments]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, env=environment)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode and not CONTROL_CHARACTERS.search(said.replace("\n", "")), said
    assert r"\u001b]0;mine\u0007\u009b31m\u202e" in said and "[red]x[/red]" in said


def test_progress_shows_names_without_their_effect(monkeypatch):
    """Progress on a terminal, by rich, and in a log."""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with RunProgress(2) as progress:
        assert progress._live
        progress.epoch(TITLE, 1, 2, {}, False)
        progress._bars.refresh()
        progress.say(TITLE)
    said = stream.getvalue()
    assert "\x1b]0;mine" not in said and "\x9b" not in said and "\u202e" not in said
    assert said.count("[red]x[/red]") >= 2
    monkeypatch.delenv("TTY_COMPATIBLE")
    monkeypatch.delenv("FORCE_COLOR")
    with RunProgress(1) as progress:
        progress.say(TITLE)
    assert stream.getvalue().removeprefix(said).startswith(escape_control(TITLE) + "\n")


def test_all_output_passes_one_function():
    for path in (REPOSITORY / "sertone").rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        printed = [
            call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"
        ]
        assert not printed or path.name == "terminal.py" or path.name == "prediction_progress.py", path

"""Many recordings: what is taken, what is written, going on after any interruption."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import CLASSES

import sertone
from sertone import cli
from sertone.errors import SertoneError
from sertone.runtime import shipped
from sertone.runtime.batch import predict_many, resumable, row_formats
from sertone.runtime.batch.inputs import Input, collect_inputs
from sertone.runtime.batch.prediction_progress import PredictionProgress, StatusCounts
from sertone.schema import Prediction


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve recordings, two of which cannot be answered, in a tree with other things."""
    root = tmp_path_factory.mktemp("many")
    for number in range(10):
        path = root / f"{'b/c' if number % 3 else 'a'}" / f"{number}.{('wav', 'FLAC')[number % 2]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = 0.02 * (number + 1) * np.random.default_rng(number).standard_normal(4000)
        soundfile.write(path, samples, 16000)
    (root / "z.wav").touch()
    (root / "a" / "y.mp3").write_text("no sound")
    (root / ".hidden.wav").touch()
    (root / ".git").mkdir()
    (root / ".git" / "x.wav").touch()
    (root / "readme.txt").write_text("not a recording")
    (root / "a" / "round").symlink_to(root)
    return root


FILES = ["a/0.wav", "a/3.FLAC", "a/6.wav", "a/9.FLAC", "a/y.mp3"]
FILES += [f"b/c/{n}.{('wav', 'FLAC')[n % 2]}" for n in (1, 2, 4, 5, 7, 8)] + ["z.wav"]


def predict(*arguments):
    return cli.app(["predict", *map(str, arguments)])


def table(path):
    """Rows of an output, of whichever form."""
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_folder_is_its_visible_recordings_in_order(folder):
    assert [Path(each.file).relative_to(folder).as_posix() for each in collect_inputs([folder])] == FILES
    first = folder / "z.wav"
    assert [each.file for each in collect_inputs([first, folder / "a"])] == [
        str(folder / name) for name in ["z.wav", *FILES[:5]]
    ]


def test_an_empty_folder_among_others_is_one_row(toy, folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert predict(toy, folder / "a" / "0.wav", tmp_path / "empty", folder / "b") == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["file"] for row in rows[:2]] == [str(folder / "a" / "0.wav"), str(tmp_path / "empty")]
    assert [row["code"] for row in rows] == ["", "not_a_file", *[""] * 6]


def test_lists_and_tables(folder, tmp_path, monkeypatch):
    content = b"\xef\xbb\xbf one.wav\r\n\n/x/\xff.wav\n"
    (tmp_path / "list.txt").write_bytes(content)
    expected = [Input(" one.wav"), Input("/x/\udcff.wav")]
    assert collect_inputs(listed=tmp_path / "list.txt") == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert collect_inputs(listed="-") == expected
    (tmp_path / "m.jsonl").write_text(
        '{"path": "x.wav", "text": "so", "duration_s": 1.5}\n{"path": "/y.wav"}\n'
    )
    expected = [Input(str(tmp_path / "x.wav"), "so", 1.5), Input("/y.wav")]
    assert collect_inputs(manifest=tmp_path / "m.jsonl") == expected


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "no recordings given"),
        ({"paths": ["a.wav"], "listed": "x"}, "more than one"),
        ({"listed": os.devnull}, "names none"),
        ({"paths": ["empty"]}, "neither a model nor recordings"),
    ],
)
def test_nothing_to_predict_is_an_error(tmp_path, monkeypatch, given, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SertoneError, match=said) as caught:
        collect_inputs(**given)
    assert caught.value.code == "no_files"


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_one_row_each_and_the_same_as_alone(toy, folder, tmp_path, form, capsys):
    out = tmp_path / f"results.{form}"
    assert predict(toy, folder, "--out", out) == 1
    said = capsys.readouterr()
    assert not said.out and "12 files" in said.err and "2 errors (1 not_audio, 1 empty_file)" in said.err
    found, model = table(out), sertone.load(toy)
    assert [row["file"] for row in found] == [str(folder / name) for name in FILES]
    for row in found:
        alone = model.predict(row["file"])
        assert (row["status"], row["code"], row["label"] or None) == (alone.status, alone.code, alone.label)
        if form == "jsonl":
            assert row == json.loads(json.dumps(alone.to_json()))
        elif alone.label:
            shares = {name: float(row[f"p_{name}"]) for name in CLASSES}
            assert shares == pytest.approx(alone.probabilities, abs=1e-6)
            assert float(row["arousal"]) == pytest.approx(alone.dimensions["arousal"], abs=1e-6)
        else:
            assert row["p_sad"] == row["arousal"] == row["duration_s"] == ""
    if form == "csv":
        fixed = ["file", "status", "code", "message", "duration_s", "label", "confidence", "unsure"]
        assert list(found[0]) == [*fixed, *(f"p_{name}" for name in CLASSES), "arousal", "text"]


def test_what_goes_to_stdout_is_the_same(toy, folder, tmp_path, capsys):
    assert predict(toy, folder, "--out", tmp_path / "r.jsonl") == 1
    capsys.readouterr()
    assert predict(toy, folder) == 1
    assert capsys.readouterr().out == (tmp_path / "r.jsonl").read_text()
    assert predict(toy, folder / "a" / "0.wav", folder / "b" / "c") == 0


def test_an_output_is_neither_overwritten_nor_mixed(toy, folder, tmp_path, capsys):
    out = tmp_path / "r.csv"
    assert predict(toy, folder / "a", "--out", out) == 1
    before = out.read_bytes()

    def refusal(*arguments):
        with pytest.raises(SertoneError) as caught:
            predict(toy, folder / "a", "--out", out, *arguments)
        assert out.read_bytes() == before
        return caught.value

    assert refusal().code == "output_exists"
    for other in (
        ("--strict",),
        ("--classes", "angry,sad"),
        ("--min-confidence", "0.9"),
        ("--dimensions", "unit"),
    ):
        assert refusal("--resume", *other).code == "other_output"
    assert "expected dimensions 'unit'" in str(refusal("--resume", "--dimensions", "unit"))
    with pytest.raises(SertoneError) as caught:
        predict(toy, folder / "a", "--resume")
    assert caught.value.code == "no_output"
    with pytest.raises(SertoneError) as caught:
        predict(toy, folder / "a", "--out", tmp_path / "r.xlsx")
    assert caught.value.code == "bad_output"
    (tmp_path / "foreign.csv").write_text("file\n")
    with pytest.raises(SertoneError) as caught:
        predict(toy, folder / "a", "--out", tmp_path / "foreign.csv", "--resume")
    assert caught.value.code == "not_resumable"
    out.write_bytes(before.replace(b"ok", b"ok,", 1))
    with pytest.raises(SertoneError, match="row 2") as caught:
        predict(toy, folder / "a", "--out", out, "--resume")
    assert caught.value.code == "bad_rows"


def test_another_model_does_not_go_on(toy, folder, tmp_path):
    from toys import write_toy

    other = write_toy(tmp_path / "other", threshold=0.9)
    assert predict(toy, folder / "b", "--out", tmp_path / "r.csv") == 0
    with pytest.raises(SertoneError, match="model") as caught:
        predict(other, folder / "b", "--out", tmp_path / "r.csv", "--resume")
    assert caught.value.code == "other_output"


def test_two_processes_do_not_write_one_output(toy, folder, tmp_path):
    model, out = sertone.load(toy), tmp_path / "r.csv"
    inputs, form = collect_inputs([folder / "a"]), row_formats.select_format(out, model)
    with resumable.open_output(out, form, {}, inputs, resume=False):
        with pytest.raises(SertoneError) as caught, resumable.open_output(out, form, {}, inputs, resume=True):
            pass
        assert caught.value.code == "output_in_use"


def test_what_has_changed_is_answered_again(toy, tmp_path, capsys):
    for name in ("a", "b", "c"):
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * np.ones(4000), 16000)
    files = [tmp_path / f"{name}.wav" for name in ("a", "b", "c", "missing")]
    out = tmp_path / "r.jsonl"
    assert predict(toy, *files, "--out", out) == 1
    before = table(out)
    capsys.readouterr()
    soundfile.write(files[1], 0.1 * np.random.default_rng(0).standard_normal(5000), 16000)
    soundfile.write(files[3], 0.1 * np.random.default_rng(1).standard_normal(4000), 16000)
    assert predict(toy, *files, "--out", out, "--resume") == 0
    assert "2 changed inputs" in capsys.readouterr().err
    after = table(out)
    assert [row["file"] for row in after] == [str(files[n]) for n in (0, 2, 1, 3)]
    assert after[:2] == [before[0], before[2]]
    assert [row["status"] for row in after[2:]] == ["ok", "ok"] and after[2]["duration_s"] == 5000 / 16000
    assert predict(toy, *files, "--out", out, "--resume") == 0 and table(out) == after


def test_a_text_or_a_duration_that_has_changed(tmp_path):
    soundfile.write(tmp_path / "a.wav", 0.1 * np.ones(4000), 16000)
    source = Input(str(tmp_path / "a.wav"), "so", 1.0)
    stamps = {
        resumable.compute_stamp(each)
        for each in (source, replace(source, text="no"), replace(source, duration_s=2.0))
    }
    assert len(stamps) == 3 and resumable.compute_stamp(source) in stamps
    assert resumable.compute_stamp(Input("a\0b")) == resumable.compute_stamp(Input("missing.wav"))


NAMES = st.text(st.characters(codec=None, exclude_characters="\0"), min_size=1, max_size=6)
NAMES |= st.sampled_from(['"', "\r", "\n", '"\n,', "\udcff", "a.wav", "\u2028", "\\udcff"])


def answers(names, model):
    status = ("ok", "warning", "error")
    return [
        Prediction(
            file=name,
            status=status[number % 3],
            code=("", "padded", "empty_file")[number % 3],
            message=f'"{name}"\n{number}',
            duration_s=number / 3,
            label=None if number % 3 == 2 else "sad",
            probabilities={} if number % 3 == 2 else dict.fromkeys(CLASSES, 0.25),
            text=name if number % 2 else None,
        )
        for number, name in enumerate(names)
    ]


@settings(max_examples=150, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=8), st.sampled_from(["csv", "jsonl"]), st.data())
def test_no_row_is_lost_or_doubled_wherever_it_was_torn(toy, names, form, data):
    """Output and journal are cut at any byte, as often as one likes."""
    model = sertone.load(toy)
    inputs, made = [Input(name) for name in names], answers(names, model)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / f"r.{form}"
        journal = out.with_name(f"{out.name}.journal")
        form_, whole = row_formats.select_format(out, model), None
        for attempt in range(4):
            with resumable.open_output(out, form_, {"model": "x"}, inputs, resume=True) as opened:
                left = opened.select_unfinished(inputs)
                stop = data.draw(st.integers(0, len(left))) if attempt < 3 else len(left)
                for source in left[:stop]:
                    opened.write(resumable.compute_stamp(source), made[names.index(source.file)])
            whole = out.read_bytes()
            if attempt < 3:
                os.truncate(out, data.draw(st.integers(0, len(whole))))
                kept = journal.read_bytes()
                os.truncate(journal, data.draw(st.integers(kept.index(b"\n") + 1, len(kept))))
        expected = Counter(row_formats.normalise_name(name) for name in names)
        with open(out, "rb") as file:
            found = [form_.parse_row(row) for row in row_formats.iterate_complete_rows(file, form_)][
                form == "csv" :
            ]
        assert Counter(row_formats.normalise_name(row.file) for row in found) == expected
        assert whole.decode() and not out.with_name(f".{out.name}.part").exists()


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_killed_again_and_again(toy, tmp_path, form):
    """SIGKILL at any moment: in the end every recording has one row; once with one process, once with two."""
    sound = 0.1 * np.random.default_rng(0).standard_normal(3000)
    for number in range(300):
        soundfile.write(tmp_path / f"{number:03}.wav", sound, 16000)
    out = tmp_path / f"r.{form}"
    command = [
        sys.executable,
        "-m",
        "sertone",
        "predict",
        str(toy),
        str(tmp_path),
        "--resume",
        "--out",
        str(out),
        *(("--jobs", "2") if form == "jsonl" else ()),
    ]
    sizes = []
    for wait in (1, 2000, 9000):  # bytes that are new when it is killed
        running = subprocess.Popen(command, stderr=subprocess.PIPE)
        start = sizes[-1] if sizes else 0
        while running.poll() is None and (out.stat().st_size if out.exists() else 0) < start + wait:
            time.sleep(0.001)
        running.send_signal(signal.SIGKILL)
        running.communicate()
        sizes.append(out.stat().st_size)
    assert len(table(out)) < 300
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "from before" in done.stderr, done.stderr
    assert sorted(row["file"] for row in table(out)) == [str(tmp_path / f"{n:03}.wav") for n in range(300)]


def test_memory_stays_where_it_is(toy, tmp_path):
    """From the hundredth recording to the last; they are one file with many names."""
    (tmp_path / "wav").mkdir()
    soundfile.write(tmp_path / "one.wav", 0.1 * np.random.default_rng(0).standard_normal(32000), 16000)
    for number in range(1200):
        (tmp_path / "wav" / f"{number:04}.wav").symlink_to(tmp_path / "one.wav")
    out = tmp_path / "r.csv"
    command = [sys.executable, "-m", "sertone", "predict", str(toy), str(tmp_path / "wav"), "--out", str(out)]
    running, sizes = subprocess.Popen(command, stderr=subprocess.DEVNULL), []
    while running.poll() is None:
        held = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{running.pid}/status").read_text())
        if held and out.exists() and len(out.read_bytes().splitlines()) > 100:
            sizes.append(int(held[1]))
        time.sleep(0.01)
    assert running.returncode == 0 and len(sizes) > 10
    assert max(sizes[-10:]) < 1.05 * sizes[0]


def test_names_that_are_not_unicode(toy, tmp_path, capfd):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n.wav")
    soundfile.write(os.fsencode(name), 0.1 * np.random.default_rng(0).standard_normal(4000), 16000)
    assert predict(toy, tmp_path) == 0
    assert json.loads(capfd.readouterr().out)["file"] == name
    for out in (tmp_path / "r.csv", tmp_path / "r.jsonl"):
        assert predict(toy, tmp_path, "--out", out) == 0 == predict(toy, tmp_path, "--out", out, "--resume")
        assert len(table(out)) == 1


def test_progress_says_rate_and_time_left():
    now, log = [0.0], io.StringIO()
    progress = PredictionProgress(100, log, lambda: now[0])
    for number in range(50):
        now[0] += 1.0
        status = "error" if number == 3 else "ok"
        progress.add(Prediction(file="x", status=status, duration_s=None if number == 3 else 2.0))
    assert log.getvalue() == "30 of 100 files, 1 error, 1.0 files/s, 1.9 s of audio/s, 1:10 left\n"
    assert progress.format_summary() == "50 files, 98.0 s of audio in 50.0 s, 1.0 files/s"
    log.isatty = lambda: True
    live = PredictionProgress(8000, log, lambda: now[0])
    now[0] += 1.0
    live.add(Prediction(file="x", status="ok", duration_s=1.0))
    live.close()
    assert "\r1 of 8000 files" in log.getvalue() and "2:13:19 left" in log.getvalue()
    assert log.getvalue().endswith("\r\x1b[K")


def test_a_tally():
    tally = StatusCounts(
        [row_formats.RowStatus("a", "ok", ""), row_formats.RowStatus("b", "error", "empty_file")]
    )
    tally.add(Prediction(file="c", status="warning", code="padded"))
    assert str(tally) == "1 ok, 1 warning (1 padded), 1 error (1 empty_file)"


@pytest.fixture
def bundled(toy, monkeypatch, tmp_path):
    """A copy of the package with a model."""
    package = tmp_path / "sertone"
    (package / "bundled").mkdir(parents=True)
    (package / "bundled" / "compact").symlink_to(toy)
    monkeypatch.setattr(sertone, "__file__", str(package / "__init__.py"))


def test_without_a_model_the_one_of_the_package_answers(bundled, toy, folder, capsys):
    sound = folder / "a" / "0.wav"
    assert shipped.find_folder().resolve() == toy
    assert sertone.load().predict(sound) == sertone.load(toy).predict(sound)
    assert predict(sound, "wav/missing.wav") == 1
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["status"] == "ok" and second["code"] == "missing_file"
    assert predict(folder / "b") == 0


@pytest.mark.parametrize("name", ["runs/none", "owner/model", "runs/mine/fold_9", "/nowhere"])
def test_what_is_no_recording_is_taken_for_a_model(bundled, folder, name):
    """A model that is misspelt must not be answered by another one."""
    with pytest.raises(SertoneError) as caught:
        predict(name, folder / "a" / "0.wav")
    assert caught.value.code == "not_a_checkpoint"


def test_a_copy_without_a_model(monkeypatch, tmp_path, folder):
    monkeypatch.setattr(sertone, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(SertoneError, match="predict MODEL FILE") as caught:
        predict(folder / "a" / "0.wav")
    assert caught.value.code == "no_model"


def test_speech_in_a_folder(toy, tmp_path, small_demo):
    out = tmp_path / "r.jsonl"
    found = collect_inputs([small_demo])
    tally = predict_many.write_predictions(sertone.load(toy), found, out, model="toy")
    assert tally.count("error") == 0 and len(found) == 40
    for row in table(out):
        assert row["duration_s"] == pytest.approx(soundfile.info(row["file"]).duration, abs=1e-4)

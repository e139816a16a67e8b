"""Many recordings: the inputs, the rows, progress, and the bundled model."""

import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from many_files import FILES, predict, read_rows
from toys import CLASSES

import sertone
from sertone.errors import SertoneError
from sertone.runtime import shipped
from sertone.runtime.batch import predict_many, row_formats
from sertone.runtime.batch.inputs import Input, collect_inputs
from sertone.runtime.batch.prediction_progress import PredictionProgress, StatusCounts
from sertone.schema import Prediction


def test_a_folder_stands_for_its_visible_recordings_in_order(folder_tree):
    assert [
        Path(each.file).relative_to(folder_tree).as_posix() for each in collect_inputs([folder_tree])
    ] == FILES
    first = folder_tree / "z.wav"
    assert [each.file for each in collect_inputs([first, folder_tree / "a"])] == [
        str(folder_tree / name) for name in ["z.wav", *FILES[:5]]
    ]


def test_an_empty_folder_among_other_paths_is_one_row(toy, folder_tree, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert predict(toy, folder_tree / "a" / "0.wav", tmp_path / "empty", folder_tree / "b") == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["file"] for row in rows[:2]] == [str(folder_tree / "a" / "0.wav"), str(tmp_path / "empty")]
    assert [row["code"] for row in rows] == ["", "not_a_file", *[""] * 6]


def test_lists_and_tables(folder_tree, tmp_path, monkeypatch):
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
    ("given", "message"),
    [
        ({}, "no recordings given"),
        ({"paths": ["a.wav"], "listed": "x"}, "more than one"),
        ({"listed": os.devnull}, "lists no paths"),
        ({"paths": ["empty"]}, "neither a model nor recordings"),
    ],
)
def test_nothing_to_predict_is_an_error(tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SertoneError, match=message) as caught:
        collect_inputs(**given)
    assert caught.value.code == "no_files"


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_each_recording_has_a_row_equal_to_its_single_prediction(toy, folder_tree, tmp_path, form, capsys):
    out = tmp_path / f"results.{form}"
    assert predict(toy, folder_tree, "--out", out) == 1
    output = capsys.readouterr()
    assert (
        not output.out and "12 files" in output.err and "2 errors (1 not_audio, 1 empty_file)" in output.err
    )
    rows, model = read_rows(out), sertone.load(toy)
    assert [row["file"] for row in rows] == [str(folder_tree / name) for name in FILES]
    for row in rows:
        alone = model.predict(row["file"])
        assert (row["status"], row["code"], row["label"] or None) == (alone.status, alone.code, alone.label)
        if form == "jsonl":
            assert row == json.loads(json.dumps(alone.to_json()))
        elif alone.label:
            probabilities = {name: float(row[f"p_{name}"]) for name in CLASSES}
            assert probabilities == pytest.approx(alone.probabilities, abs=1e-6)
            assert float(row["arousal"]) == pytest.approx(alone.dimensions["arousal"], abs=1e-6)
        else:
            assert row["p_sad"] == row["arousal"] == row["duration_s"] == ""
    if form == "csv":
        fixed = ["file", "status", "code", "message", "duration_s", "label", "confidence", "unsure"]
        assert list(rows[0]) == [*fixed, *(f"p_{name}" for name in CLASSES), "arousal", "text"]


def test_stdout_has_the_same_rows(toy, folder_tree, tmp_path, capsys):
    assert predict(toy, folder_tree, "--out", tmp_path / "r.jsonl") == 1
    capsys.readouterr()
    assert predict(toy, folder_tree) == 1
    assert capsys.readouterr().out == (tmp_path / "r.jsonl").read_text()
    assert predict(toy, folder_tree / "a" / "0.wav", folder_tree / "b" / "c") == 0


def test_memory_does_not_grow(toy, tmp_path):
    """Memory is compared from the hundredth recording to the last; all are links to one file."""
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


def test_names_that_are_not_valid_unicode(toy, tmp_path, capfd):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n.wav")
    soundfile.write(os.fsencode(name), 0.1 * np.random.default_rng(0).standard_normal(4000), 16000)
    assert predict(toy, tmp_path) == 0
    assert json.loads(capfd.readouterr().out)["file"] == name
    for out in (tmp_path / "r.csv", tmp_path / "r.jsonl"):
        assert predict(toy, tmp_path, "--out", out) == 0 == predict(toy, tmp_path, "--out", out, "--resume")
        assert len(read_rows(out)) == 1


def test_progress_shows_rate_and_remaining_time():
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


def test_status_counts():
    tally = StatusCounts(
        [row_formats.RowStatus("a", "ok", ""), row_formats.RowStatus("b", "error", "empty_file")]
    )
    tally.add(Prediction(file="c", status="warning", code="padded"))
    assert str(tally) == "1 ok, 1 warning (1 padded), 1 error (1 empty_file)"


@pytest.fixture
def package_with_model(toy, monkeypatch, tmp_path):
    """A copy of the package with a model."""
    package = tmp_path / "sertone"
    (package / "bundled").mkdir(parents=True)
    (package / "bundled" / "compact").symlink_to(toy)
    monkeypatch.setattr(shipped, "PACKAGE", package)


def test_without_a_model_the_one_of_the_package_predicts(package_with_model, toy, folder_tree, capsys):
    sound = folder_tree / "a" / "0.wav"
    assert shipped.find_folder().resolve() == toy
    assert sertone.load().predict(sound) == sertone.load(toy).predict(sound)
    assert predict(sound, "wav/missing.wav") == 1
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["status"] == "ok" and second["code"] == "missing_file"
    assert predict(folder_tree / "b") == 0


@pytest.mark.parametrize("name", ["runs/none", "owner/model", "runs/mine/fold_9", "/nowhere"])
def test_a_path_that_is_no_recording_is_taken_for_a_model(package_with_model, folder_tree, name):
    """Another model must not predict if the name of the wanted one is misspelt."""
    with pytest.raises(SertoneError) as caught:
        predict(name, folder_tree / "a" / "0.wav")
    assert caught.value.code == "not_a_checkpoint"


def test_a_copy_without_a_model(monkeypatch, tmp_path, folder_tree):
    monkeypatch.setattr(shipped, "PACKAGE", tmp_path)
    with pytest.raises(SertoneError, match="predict MODEL FILE") as caught:
        predict(folder_tree / "a" / "0.wav")
    assert caught.value.code == "no_model"


def test_speech_in_a_folder(toy, tmp_path, small_demo):
    out = tmp_path / "r.jsonl"
    inputs = collect_inputs([small_demo])
    tally = predict_many.write_predictions(sertone.load(toy), inputs, out, model="toy")
    assert tally.count("error") == 0 and len(inputs) == 40
    for row in read_rows(out):
        assert row["duration_s"] == pytest.approx(soundfile.info(row["file"]).duration, abs=1e-4)

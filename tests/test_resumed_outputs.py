"""Outputs of predictions: never overwritten or mixed, and resumed after any interruption."""

import os
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
from many_files import predict, read_rows
from toys import CLASSES

import sertone
from sertone.errors import SertoneError
from sertone.runtime.batch import resumable, row_formats
from sertone.runtime.batch.inputs import Input, collect_inputs
from sertone.schema import Prediction


def test_an_output_is_never_overwritten_or_mixed(toy, folder_tree, tmp_path, capsys):
    out = tmp_path / "r.csv"
    assert predict(toy, folder_tree / "a", "--out", out) == 1
    before = out.read_bytes()

    def refuse(*arguments):
        with pytest.raises(SertoneError) as caught:
            predict(toy, folder_tree / "a", "--out", out, *arguments)
        assert out.read_bytes() == before
        return caught.value

    assert refuse().code == "output_exists"
    for other in (
        ("--strict",),
        ("--classes", "angry,sad"),
        ("--min-confidence", "0.9"),
        ("--dimensions", "unit"),
    ):
        assert refuse("--resume", *other).code == "other_output"
    assert "expected dimensions 'unit'" in str(refuse("--resume", "--dimensions", "unit"))
    with pytest.raises(SertoneError) as caught:
        predict(toy, folder_tree / "a", "--resume")
    assert caught.value.code == "no_output"
    with pytest.raises(SertoneError) as caught:
        predict(toy, folder_tree / "a", "--out", tmp_path / "r.xlsx")
    assert caught.value.code == "bad_output"
    (tmp_path / "foreign.csv").write_text("file\n")
    with pytest.raises(SertoneError) as caught:
        predict(toy, folder_tree / "a", "--out", tmp_path / "foreign.csv", "--resume")
    assert caught.value.code == "not_resumable"
    out.write_bytes(before.replace(b"ok", b"ok,", 1))
    with pytest.raises(SertoneError, match="row 2") as caught:
        predict(toy, folder_tree / "a", "--out", out, "--resume")
    assert caught.value.code == "bad_rows"


def test_another_model_cannot_resume(toy, folder_tree, tmp_path):
    from toys import write_toy

    other = write_toy(tmp_path / "other", threshold=0.9)
    assert predict(toy, folder_tree / "b", "--out", tmp_path / "r.csv") == 0
    with pytest.raises(SertoneError, match="model") as caught:
        predict(other, folder_tree / "b", "--out", tmp_path / "r.csv", "--resume")
    assert caught.value.code == "other_output"


def test_two_processes_cannot_write_one_output(toy, folder_tree, tmp_path):
    model, out = sertone.load(toy), tmp_path / "r.csv"
    inputs, form = collect_inputs([folder_tree / "a"]), row_formats.select_format(out, model.answer_format)
    with resumable.open_output(out, form, {}, inputs, resume=False):
        with pytest.raises(SertoneError) as caught, resumable.open_output(out, form, {}, inputs, resume=True):
            pass
        assert caught.value.code == "output_in_use"


def test_changed_files_are_predicted_again(toy, tmp_path, capsys):
    for name in ("a", "b", "c"):
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * np.ones(4000), 16000)
    files = [tmp_path / f"{name}.wav" for name in ("a", "b", "c", "missing")]
    out = tmp_path / "r.jsonl"
    assert predict(toy, *files, "--out", out) == 1
    before = read_rows(out)
    capsys.readouterr()
    soundfile.write(files[1], 0.1 * np.random.default_rng(0).standard_normal(5000), 16000)
    soundfile.write(files[3], 0.1 * np.random.default_rng(1).standard_normal(4000), 16000)
    assert predict(toy, *files, "--out", out, "--resume") == 0
    assert "2 changed inputs" in capsys.readouterr().err
    after = read_rows(out)
    assert [row["file"] for row in after] == [str(files[n]) for n in (0, 2, 1, 3)]
    assert after[:2] == [before[0], before[2]]
    assert [row["status"] for row in after[2:]] == ["ok", "ok"] and after[2]["duration_s"] == 5000 / 16000
    assert predict(toy, *files, "--out", out, "--resume") == 0 and read_rows(out) == after


def test_a_changed_text_or_duration_changes_the_stamp(tmp_path):
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


def make_predictions(names, model):
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
def test_no_row_is_lost_or_repeated_wherever_the_file_is_cut(toy, names, form, data):
    """The test cuts output and journal at any byte, several times."""
    model = sertone.load(toy)
    inputs, predictions = [Input(name) for name in names], make_predictions(names, model)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / f"r.{form}"
        journal = out.with_name(f"{out.name}.journal")
        form_, whole = row_formats.select_format(out, model.answer_format), None
        for attempt in range(4):
            with resumable.open_output(out, form_, {"model": "x"}, inputs, resume=True) as opened:
                unfinished = opened.select_unfinished(inputs)
                stop = data.draw(st.integers(0, len(unfinished))) if attempt < 3 else len(unfinished)
                for source in unfinished[:stop]:
                    opened.write(resumable.compute_stamp(source), predictions[names.index(source.file)])
            whole = out.read_bytes()
            if attempt < 3:
                os.truncate(out, data.draw(st.integers(0, len(whole))))
                kept = journal.read_bytes()
                os.truncate(journal, data.draw(st.integers(kept.index(b"\n") + 1, len(kept))))
        expected = Counter(row_formats.normalise_name(name) for name in names)
        with open(out, "rb") as file:
            rows = [form_.parse_row(row) for row in row_formats.iterate_complete_rows(file, form_)][
                form == "csv" :
            ]
        assert Counter(row_formats.normalise_name(row.file) for row in rows) == expected
        assert whole.decode() and not out.with_name(f".{out.name}.part").exists()


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_repeated_kills_lose_no_row(toy, tmp_path, form):
    """After SIGKILL at several moments every recording has one row, with one process and with two."""
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
    assert len(read_rows(out)) < 300
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "from before" in done.stderr, done.stderr
    assert sorted(row["file"] for row in read_rows(out)) == [
        str(tmp_path / f"{n:03}.wav") for n in range(300)
    ]

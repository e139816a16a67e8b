"""Decoder processes: one that dies or hangs costs one recording, an interrupted call leaves no result behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from apart import HERE, Deadly, Stuck, read_and_measure
from sounds import RATE, wav

import sertone
from sertone import audio
from sertone.audio import isolated
from sertone.runtime.timeline.plan import TimelineSettings
from sertone.utils.processes import ChildProcess


@pytest.fixture
def model(toy):
    return sertone.load(toy, any_sound=True)


def list_decoders():
    """Return the ids of this process's decoders."""
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    children = [int(pid) for task in tasks for pid in task.read_text().split()]
    return [
        pid for pid in children if b"sertone.utils.child_process" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def test_a_dying_decoder_loses_one_recording(model, tmp_path, monkeypatch):
    """Fault 21: each error is in its place, whichever process died."""
    monkeypatch.setenv("PYTHONPATH", HERE["PYTHONPATH"])
    wav()(tmp_path / "a.wav")
    files = [Deadly("b.wav") if number % 4 == 1 else tmp_path / "a.wav" for number in range(12)]
    predictions = list(model.predict_files(files))
    assert [answer.code for answer in predictions] == [
        "decoder_crashed" if n % 4 == 1 else "" for n in range(12)
    ]
    assert [answer.file for answer in predictions] == [str(file) for file in files]
    isolated.close_decoders()
    assert not list_decoders()


@pytest.fixture
def short_timeout(monkeypatch):
    """Start a decoder, then set a short timeout."""
    isolated.close_decoders()
    monkeypatch.setenv("PYTHONPATH", HERE["PYTHONPATH"])
    with isolated.borrow_decoder() as child:
        child(read_and_measure, "none")
    monkeypatch.setattr(isolated, "DECODER_TIMEOUT_S", 0.5)
    yield
    isolated.close_decoders()
    assert not list_decoders()


def test_a_hanging_decoder_loses_one_recording(model, tmp_path, short_timeout):
    """The decoder hangs in C code, where no signal handler and no other thread can run."""
    wav()(tmp_path / "a.wav")
    with pytest.raises(audio.AudioError) as caught:
        isolated.read_isolated(Stuck("b.wav"), 30.0)
    assert caught.value.code == "decode_timeout"
    isolated.DECODER_TIMEOUT_S = 4.0  # a new process has to start within this time
    files = [Stuck("b.wav"), tmp_path / "a.wav"]
    assert [answer.code for answer in model.predict_files(files)] == ["decode_timeout", ""]
    assert model.predict(tmp_path / "a.wav").status == "ok"


def test_a_hanging_decoder_ends_one_timeline(model, tmp_path, short_timeout):
    (stuck,) = model.predict_files([Stuck("b.wav")], settings=TimelineSettings(window_s=0.5))
    assert stuck.code == "decode_timeout"


def test_a_decoder_killed_between_two_recordings_loses_none(tmp_path):
    wav()(tmp_path / "a.wav")
    with ChildProcess() as isolated:
        pid = isolated(os.getpid)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert len(isolated(audio.read, tmp_path / "a.wav").samples) == RATE


INTERRUPTED = """
import signal, sys
import sertone

def stop(*_):
    raise KeyboardInterrupt

predictor, long, short = sertone.load(any_sound=True), sys.argv[1], sys.argv[2]
predictor.predict(short)
signal.signal(signal.SIGALRM, stop)
for ask in (predictor.predict, predictor.timeline):
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        ask(long)
        print("not interrupted")
    except KeyboardInterrupt:
        print("interrupted")
    for each in (predictor.predict, predictor.timeline):
        print(each(short).duration_s)
"""


def test_an_interrupted_call_leaves_no_result_for_the_next_one(tmp_path):
    """The decoder may still send the result of the call before."""
    soundfile.write(
        tmp_path / "long.flac", 0.1 * np.random.default_rng(0).standard_normal(16000 * 400), 16000
    )
    soundfile.write(tmp_path / "short.wav", 0.1 * np.random.default_rng(1).standard_normal(16000), 16000)
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, tmp_path / "long.flac", tmp_path / "short.wav"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == 2 * ["interrupted", "1.0", "1.0"]


def test_relative_names_start_at_the_folder_of_the_caller(toy, tmp_path, monkeypatch):
    """This also holds for a decoder that was started in another folder."""
    predictor = sertone.load(toy, any_sound=True)
    for place, seconds in (("one", 1.0), ("two", 3.0)):
        (tmp_path / place).mkdir()
        soundfile.write(tmp_path / place / "a.wav", np.full(round(16000 * seconds), 0.1), 16000)
        monkeypatch.chdir(tmp_path / place)
        assert predictor.predict("a.wav").duration_s == seconds
        assert predictor.timeline("a.wav").duration_s == seconds

"""Progress of a training in a log: a line at least every 30 seconds, with the time left."""

import re

import pytest

from sertone.training.experiment.experiment import prepare
from sertone.training.fit import progress as module
from sertone.training.fit.progress import LabelledProgress, ProgressRelay, RunProgress
from sertone.training.runs.folds import prepare_data, train_fold


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves: clock[0] += 10."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def log(monkeypatch, capsys):
    """No terminal; log() gives the lines since the last call."""
    monkeypatch.setenv("TTY_COMPATIBLE", "0")
    return lambda: [line for line in capsys.readouterr().err.splitlines() if line]


def test_a_long_epoch_reports_its_progress_every_30_seconds(clock, log):
    with RunProgress(4) as progress:
        for step in range(1, 21):  # an epoch of 200 s in steps of 10 s
            clock[0] += 10
            LabelledProgress(progress, "row ").step("fold 0", 1, 2, step / 20)
        lines = log()
        assert len(lines) == 6  # after 30, 60, ... 180 s
        assert lines[0] == "row fold 0  epoch 1 of 2, 15%  12:50 left"  # 770 s: 4 epochs less 30 s of 200
        assert lines[5] == "row fold 0  epoch 1 of 2, 90%  10:20 left"
        progress.epoch("row fold 0", 1, 2, {"loss": 0.5}, False)
        assert log() == []  # the last line is 20 s old
        clock[0] += 40
        progress.step("row fold 0", 2, 2, 0.2)
        assert log() == ["row fold 0  epoch 2 of 2, 20%  9:20 left"]  # 240 s for 1.2 epochs, 2.8 to go


def test_short_epochs_are_reported_every_30_seconds(clock, log):
    with RunProgress(100) as progress:
        for epoch in range(1, 101):
            clock[0] += 4
            progress.epoch("fold 0", epoch, 100, {"loss": 1.0}, epoch == 100)
    lines = log()
    assert len(lines) == 13, lines
    assert lines[0] == "fold 0  epoch 8 of 100  loss 1.000  6:08 left"
    assert lines[-1] == "fold 0  100 epochs  loss 1.000  0:00 left"


def test_a_stage_that_ends_early_leaves_a_line_and_counts_as_done(clock, log):
    with RunProgress(20) as progress:
        for epoch in (1, 2, 3):
            clock[0] += 4
            progress.epoch("fold 0", epoch, 10, {"loss": 1.0}, epoch == 3)
    # 4 s for each of the ten epochs of the next stage
    assert log() == ["fold 0  ended after epoch 3 of 10  loss 1.000  0:40 left"]


def test_a_relay_reports_steps_once_a_second(clock, monkeypatch):
    events = []
    monkeypatch.setattr(module, "emit", events.append)
    relay = ProgressRelay()
    for step in range(1, 101):
        clock[0] += 0.1
        relay.step("fold 0", 1, 1, step / 100)
    assert 9 <= len(events) <= 11 and events[0] == ("step", "fold 0", 1, 1, 0.01)


def test_training_reports_every_step(demo_recipe, tmp_path, monkeypatch, log):
    monkeypatch.setattr(module, "EVERY_S", 0.0)
    experiment = prepare(demo_recipe(epochs=[1, 1]))
    with RunProgress(2) as progress:
        train_fold(experiment, 0, tmp_path, prepare_data(experiment, progress), progress)
    lines = log()
    shares = [int(found[1]) for line in lines if (found := re.search(r"epoch 1 of 1, (\d+)%  .* left", line))]
    assert len(shares) >= 4 and max(shares) == 100 and shares[0] < 100

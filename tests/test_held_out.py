"""A model trained on all data is calibrated by the held-out answers of a cross-validation of its recipe."""

import json

import numpy as np
import pytest
from exported import COMPACT, write_checkpoint

from sertone.cli import app
from sertone.errors import SertoneError
from sertone.export import from_checkpoint
from sertone.runtime.bundle import Bundle, read_metadata
from sertone.scoring.calibration import HELD_OUT, NOT_FITTED, softmax
from sertone.training.testing.calibrate import calibrate_on_held_out

CLASSES = ("neutral", "happy", "angry", "sad")
TRUE = 0.6
"""The temperature at which the logits below are the truth."""


def write_run(folder, temperatures=(1.0, 1.0, 1.0), each=400):
    """Folds whose answers were told at temperatures of their own."""
    draw = np.random.default_rng(0)
    for fold, temperature in enumerate(temperatures):
        logits = draw.normal(0, 1.5, (each, 4))
        truth = softmax(logits, TRUE)
        targets = [CLASSES[draw.choice(4, p=row)] for row in truth]
        rows = [
            {"id": f"{fold}_{n}", "fold": fold, "speaker": f"s{fold}", "target": target, "prediction": "",
             **{f"p_{name}": share for name, share in zip(CLASSES, told, strict=True)}}
            for n, (target, told) in enumerate(zip(targets, softmax(logits, temperature), strict=True))
        ]  # fmt: skip
        (folder / f"fold_{fold}" / "checkpoint").mkdir(parents=True)
        (folder / f"fold_{fold}" / "checkpoint" / "checkpoint.json").write_text("{}")
        found = {"rows": rows, "confidence": {"calibration": {"temperature": temperature}}}
        (folder / f"fold_{fold}" / "result.json").write_text(json.dumps(found))
    return folder


def told_of(run):
    rows = [
        row for file in sorted(run.glob("fold_*/result.json")) for row in json.loads(file.read_text())["rows"]
    ]
    return np.array([[row[f"p_{name}"] for name in CLASSES] for row in rows]), [row["target"] for row in rows]


def test_the_temperature_and_the_threshold_are_those_of_the_held_out_answers(tmp_path):
    run = write_run(tmp_path / "run")
    found = calibrate_on_held_out(run, coverage=0.7)
    shares, targets = told_of(run)
    own = np.array([CLASSES.index(target) for target in targets])

    def loss(temperature):  # a second formula: powers of the probabilities, on a grid
        powers = shares ** (1 / temperature)
        return -np.log(powers[range(len(own)), own] / powers.sum(1)).mean()

    best = min(np.arange(0.3, 1.5, 0.001), key=loss)
    assert found.temperature == pytest.approx(best, abs=0.001) == pytest.approx(TRUE, abs=0.06)
    powers = shares ** (1 / found.temperature)
    confident = (powers / powers.sum(1, keepdims=True)).max(1) >= found.threshold
    assert confident.mean() == pytest.approx(0.7, abs=1e-3)
    assert found.fitted_on == {"speakers": ["s0", "s1", "s2"], "utterances": 1200}
    assert found.note.startswith(HELD_OUT)
    before, after = (float(part.split()[0]) for part in found.note.split("error ")[1].split(", ")[:2])
    assert after < before / 2


@pytest.mark.filterwarnings("error")
def test_one_fold_alone_says_nothing_of_its_worth(tmp_path):
    found = calibrate_on_held_out(write_run(tmp_path / "run", (1.0,)), 0.8)
    assert found.note == HELD_OUT and found.fitted_on["speakers"] == ["s0"]


def test_what_each_fold_was_told_with_makes_no_difference(tmp_path):
    plain = calibrate_on_held_out(write_run(tmp_path / "plain"), 0.8)
    own = calibrate_on_held_out(write_run(tmp_path / "own", (2.0, 0.5, 1.3)), 0.8)
    assert (own.temperature, own.threshold) == pytest.approx((plain.temperature, plain.threshold), abs=1e-5)


def test_the_bundle_answers_at_that_temperature(tmp_path, experiment, monkeypatch):
    """The scores themselves are those of a cross-validation, and tested with it."""
    monkeypatch.setattr(
        from_checkpoint.Scores,
        "of_run",
        lambda run, about: from_checkpoint.Scores({}, {}, "speakers", 1, 1, 3),
    )
    run = write_run(tmp_path / "run")
    checkpoint = write_checkpoint(
        tmp_path / "model", experiment, name="baseline", encoder=COMPACT | {"depth": 1}, temperature=1.0
    )
    command = ["export", str(checkpoint)]
    for name, options in (("plain", []), ("own", ["--scores", str(run), "--coverage", "0.8"])):
        assert app([*command, str(tmp_path / name), *options], exit_on_error=False) == 0
    expected = calibrate_on_held_out(run, 0.8)
    said = read_metadata(tmp_path / "own")["calibration"]
    assert (said["temperature"], said["threshold"]) == (expected.temperature, expected.threshold)
    assert read_metadata(tmp_path / "plain")["calibration"]["note"] == NOT_FITTED
    noise = np.random.default_rng(0).standard_normal((1, 16000)).astype(np.float32)
    plain, own = (Bundle(tmp_path / name) for name in ("plain", "own"))
    powers = plain.outputs(noise).probabilities ** (1 / expected.temperature)
    assert own.outputs(noise).probabilities == pytest.approx(powers / powers.sum(), abs=1e-5)
    assert (plain.threshold, own.threshold) == (0.4, expected.threshold)


@pytest.mark.parametrize(
    "options, code", [(["--coverage", "0.8"], "no_held_out"), (["--coverage", "1"], "bad_coverage")]
)
def test_a_coverage_needs_held_out_answers(tmp_path, experiment, options, code):
    checkpoint = write_checkpoint(
        tmp_path / "model", experiment, name="baseline", encoder=COMPACT | {"depth": 1}, temperature=1.0
    )
    with pytest.raises(SertoneError) as caught:
        app(["export", str(checkpoint), str(tmp_path / "x"), *options], exit_on_error=False)
    assert caught.value.code == code and not (tmp_path / "x").exists()

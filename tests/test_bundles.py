"""Bundles: what they answer, what is refused, how answers are told."""

import json
import shutil

import numpy as np
import pytest
from toys import CLASSES, expected, write_toy

import sertone
from sertone.errors import SertoneError
from sertone.runtime.answering import Answering


def noise(seconds=1.0, level=0.1, seed=0):
    return (level * np.random.default_rng(seed).standard_normal(round(seconds * 16000))).astype(np.float32)


@pytest.mark.parametrize("level", [0.001, 0.02, 0.3])
def test_a_bundle_answers_what_its_graph_says(toy, level):
    samples = noise(level=level)
    answer = sertone.load(toy).predict(samples, 16000)
    shares, arousal = expected(samples)
    assert list(answer.probabilities) == CLASSES
    assert np.allclose(list(answer.probabilities.values()), shares, atol=1e-5)
    assert answer.dimensions == {"arousal": pytest.approx(arousal, abs=1e-4)}
    assert answer.label == CLASSES[int(shares.argmax())] and answer.confidence == pytest.approx(max(shares))


def change(name, value):
    def mend(folder):
        about = json.loads((folder / "bundle.json").read_text())
        (folder / "bundle.json").write_text(json.dumps(about | {name: value}))

    return mend


def cut(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-20])


@pytest.mark.parametrize(
    ("damage", "code", "said"),
    [
        (cut("model.onnx"), "bad_bundle", "model.onnx is not what was exported"),
        (cut("bundle.json"), "bad_bundle", "bundle.json"),
        (lambda folder: (folder / "model.onnx").unlink(), "bad_bundle", "no model.onnx"),
        (lambda folder: (folder / "bundle.json").unlink(), "not_a_checkpoint", "no checkpoint"),
        (change("format", 99), "other_format", "format 99"),
        (change("classes", "angry"), "bad_bundle", "no sound classes"),
        (change("classes", CLASSES[:3]), "bad_bundle", "outputs"),
        (change("files", {}), "bad_bundle", "no sound files"),
        (change("files", {"bundle.json": "0"}), "bad_bundle", "no sound files"),
        (change("calibration", {}), "bad_bundle", "no sound calibration"),
        (change("calibration", {"threshold": "high"}), "bad_bundle", "no sound calibration"),
        (change("scales", {"arousal": {"low": 5.0, "high": 1.0}}), "bad_bundle", "no sound scales"),
        (change("scales", {"arousal": [1, 5]}), "bad_bundle", "no sound scales"),
        (change("classes", [1, 2, 3, 4]), "bad_bundle", "no sound classes"),
        (change("sampling_rate", 8000), "bad_bundle", "no sound sampling_rate"),
    ],
)
def test_a_damaged_bundle_is_refused_before_use(toy, tmp_path, damage, code, said):
    folder = shutil.copytree(toy, tmp_path / "copy")
    damage(folder)
    with pytest.raises(SertoneError, match=said) as caught:
        sertone.load(folder)
    assert caught.value.code == code


def test_a_file_that_lies_elsewhere_is_refused(toy, tmp_path):
    folder = shutil.copytree(toy, tmp_path / "copy")
    files = json.loads((folder / "bundle.json").read_text())["files"]
    change("files", files | {"../model.onnx": "0"})(folder)
    with pytest.raises(SertoneError, match=r"no \.\./model\.onnx"):
        sertone.load(folder)


def test_no_threads_are_refused(toy):
    with pytest.raises(SertoneError, match="0 threads") as caught:
        sertone.load(toy, threads=0)
    assert caught.value.code == "bad_threads"


def test_a_graph_that_is_none_is_refused(tmp_path, toy):
    from sertone.export.bundles import write_bundle

    folder = shutil.copytree(toy, tmp_path / "copy")
    (folder / "model.onnx").write_bytes(b"no graph")
    write_bundle(folder, json.loads((folder / "bundle.json").read_text()))
    with pytest.raises(SertoneError, match=r"model\.onnx") as caught:
        sertone.load(folder)
    assert caught.value.code == "bad_bundle"


def test_classes_are_chosen_merged_and_renamed(toy):
    samples = noise()
    whole = sertone.load(toy).predict(samples, 16000).probabilities
    some = sertone.load(toy, classes={"angry": "angry", "sad": "sad"}).predict(samples, 16000)
    both = whole["angry"] + whole["sad"]
    assert some.probabilities == pytest.approx({name: whole[name] / both for name in ("angry", "sad")})
    merged = sertone.load(toy, classes={"happy": "up", "neutral": "up", "sad": "down", "angry": "down"})
    answer = merged.predict(samples, 16000)
    assert answer.probabilities == pytest.approx({"up": whole["happy"] + whole["neutral"], "down": both})
    assert answer.confidence == pytest.approx(max(answer.probabilities.values()))
    with pytest.raises(SertoneError, match="bored, which the model does not know") as caught:
        sertone.load(toy, classes={"bored": "sad"})
    assert caught.value.code == "unknown_class"


def test_what_is_too_unsure_is_said(tmp_path):
    samples = noise()
    folder = write_toy(tmp_path / "toy", threshold=0.99)
    assert sertone.load(folder).predict(samples, 16000).unsure
    assert not sertone.load(folder, min_confidence=0.1).predict(samples, 16000).unsure
    with pytest.raises(SertoneError) as caught:
        sertone.load(folder, min_confidence=1.1)
    assert caught.value.code == "bad_confidence"


def test_dimensions_from_zero_to_one(toy):
    samples = noise()
    own, unit = (sertone.load(toy, dimensions=kind).predict(samples, 16000) for kind in ("corpus", "unit"))
    assert unit.dimensions["arousal"] == pytest.approx((own.dimensions["arousal"] - 1) / 4)
    model, telling = sertone.load(toy).model, Answering(dimensions="unit")
    beyond = [telling.answer(model, np.ones(4) / 4, np.array([rated])) for rated in (0.9, 5.2)]
    assert [answer["dimensions"]["arousal"] for answer in beyond] == [0.0, 1.0]


def test_a_card_that_is_not_there_is_refused(toy):
    with pytest.raises(SertoneError, match="onnxruntime-gpu") as caught:
        sertone.load(toy, device="cuda")
    assert caught.value.code == "no_device"

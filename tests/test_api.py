"""Python API: inputs of `predict`, tables, several processes, pickles, recipes as mappings."""

import csv
import io
import json
import pickle
import sys
from pathlib import Path

import apart
import numpy as np
import pytest
import soundfile
from conftest import TINY_MODEL
from cyclopts import CycloptsError
from exported import write_hub_folder
from toys import write_toy

import sertone
from sertone import cli
from sertone.errors import SertoneError
from sertone.export.from_huggingface import load_exportable
from sertone.recipe import Recipe
from sertone.runtime.answering import AnswerFormat
from sertone.runtime.predictor import Predictor

SOUND = 0.1 * np.random.default_rng(0).standard_normal(8000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return eleven recordings: one is damaged, one too long for one prediction of the toy, one very loud."""
    root = tmp_path_factory.mktemp("recordings")
    for number in range(8):
        soundfile.write(root / f"{number}.wav", (number + 1) * 0.02 * SOUND, 16000)
    (root / "a.wav").write_bytes(b"RIFF no sound at all")
    soundfile.write(root / "b.flac", np.tile(0.05 * SOUND, 64), 16000)
    soundfile.write(root / "c.wav", np.clip(9 * SOUND, -0.95, 0.95), 16000)
    return root


def test_types_are_at_the_top_level(toy, folder):
    model = sertone.load(toy, any_sound=True)
    assert isinstance(model.predict(folder / "0.wav"), sertone.Prediction)
    timeline = model.timeline(folder / "b.flac", settings=sertone.TimelineSettings(window_s=5.0))
    assert len(timeline.segments) > 5
    with pytest.raises(sertone.SertoneError):
        sertone.load("runs/nowhere", any_sound=True)
    with pytest.raises(AttributeError, match="nothing"):
        _ = sertone.nothing


def test_a_model_names_its_outputs(toy):
    model = sertone.load(toy, any_sound=True)
    assert model.classes == ["neutral", "happy", "angry", "sad"]
    assert (model.scales["arousal"].low, model.scales["arousal"].high) == (1.0, 5.0)
    assert model.card["corpus"]["title"] == "Toy"
    assert sertone.load(toy, classes="angry,sad=low", any_sound=True).classes == ["angry", "low"]


@pytest.mark.parametrize("name", ["0.wav", "b.flac", "a.wav"])
def test_bytes_and_open_files_are_predicted_as_paths(toy, folder, name):
    model, path = sertone.load(toy, any_sound=True), folder / name
    expected = model.predict(path).to_json()
    with open(path, "rb") as file:
        answers = {
            "<bytes>": model.predict(path.read_bytes()),
            "<file>": model.predict(io.BytesIO(path.read_bytes())),
            str(path): model.predict(file),
        }
    for source, answer in answers.items():
        message = expected["message"].replace(str(path), source)
        assert answer.to_json() == expected | {"file": source, "message": message}
    timelines = [model.timeline(source).to_json() for source in (path, path.read_bytes())]
    assert timelines[0]["segments"] == timelines[1]["segments"]


def test_other_types_are_a_type_error(toy):
    model = sertone.load(toy, any_sound=True)
    for wrong in (7, ["a.wav"], io.StringIO("text")):
        with pytest.raises(TypeError, match="expected one path, bytes"):
            model.predict(wrong)
    assert model.predict(b"").code == "empty_file"


def test_flat_columns_are_those_of_the_csv_file(toy, folder, tmp_path):
    out = tmp_path / "rows.csv"
    assert cli.app(["predict", str(toy), str(folder), "--any-sound", "--out", str(out)]) == 1
    with open(out, newline="") as file:
        expected = list(csv.DictReader(file))
    files = [row["file"] for row in expected]
    rows = [answer.to_row() for answer in sertone.load(toy, any_sound=True).predict_files(files)]
    assert max(map(list, rows), key=len) == list(expected[0])
    for row, written in zip(rows, expected, strict=True):
        texts = {
            k: "" if v is None else str(round(v, 6) if isinstance(v, float) else v) for k, v in row.items()
        }
        assert texts == {name: written[name] for name in texts}
        assert all(written[name] == "" for name in written.keys() - texts.keys())


def feed_stdin(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_a_recording_on_standard_input(toy, folder, tmp_path, monkeypatch, capsys):
    path = folder / "0.wav"
    feed_stdin(monkeypatch, path.read_bytes())
    assert cli.app(["predict", str(toy), "-", "--any-sound"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer == sertone.load(toy, any_sound=True).predict(path).to_json() | {"file": "-"}
    feed_stdin(monkeypatch, b"no sound")
    assert cli.app(["predict", str(toy), "-"]) == 1
    assert json.loads(capsys.readouterr().out)["code"] == "not_audio"
    out = tmp_path / "rows.csv"
    for content, more, message in (
        (path, [], ""),
        (path, ["--resume"], "1 row from before"),
        (folder / "1.wav", ["--resume"], "1 changed input predicted again"),
    ):
        feed_stdin(monkeypatch, content.read_bytes())
        assert cli.app(["predict", str(toy), "-", "--out", str(out), *more]) == 0
        assert message in capsys.readouterr().err
    feed_stdin(monkeypatch, path.read_bytes())
    assert cli.app(["predict", "-", "--any-sound"]) == 0, "by the model of the package"
    assert json.loads(capsys.readouterr().out)["label"]


@pytest.mark.parametrize("others", [["a.wav"], ["-"], ["--list", "a.txt"], ["--manifest", "a.csv"]])
def test_standard_input_stands_alone(toy, others):
    for paths in (["-", *others], [*others, "-"]):
        with pytest.raises(SertoneError, match=r"`-` alone .*\./-") as caught:
            cli.app(["predict", str(toy), *paths])
        assert caught.value.code == "many_files"


def test_standard_input_without_an_end_is_refused(toy, monkeypatch):
    monkeypatch.setattr("sertone.files.MAX_BYTES", 1 << 20)
    feed_stdin(monkeypatch, bytes(1 << 21))
    with pytest.raises(SertoneError, match="more than 1 MB") as caught:
        cli.app(["predict", str(toy), "-"])
    assert caught.value.code == "too_large" and len(sys.stdin.buffer.read()) == (1 << 20) - 1


def test_in_python_a_hyphen_is_the_name_of_a_file(toy, folder, tmp_path, monkeypatch):
    (tmp_path / "-").write_bytes((folder / "0.wav").read_bytes())
    monkeypatch.chdir(tmp_path)
    answer = sertone.load(toy, any_sound=True).predict("-")
    assert answer.probabilities == sertone.load(toy, any_sound=True).predict(folder / "0.wav").probabilities


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_several_processes_write_the_same_bytes_and_resume(toy, folder, tmp_path, form, capsys):
    outs = [tmp_path / f"{name}.{form}" for name in ("one", "two")]
    command = ["predict", str(toy), str(folder)]
    assert cli.app([*command, "--threads", "1", "--out", str(outs[0])]) == 1
    assert cli.app([*command, "--jobs", "2", "--out", str(outs[1])]) == 1
    expected = outs[0].read_bytes()
    assert outs[1].read_bytes() == expected
    outs[1].write_bytes(expected[: len(expected) // 2])  # as a kill leaves it: torn in the middle of a row
    assert cli.app([*command, "--jobs", "2", "--out", str(outs[1]), "--resume"]) == 1
    assert outs[1].read_bytes() == expected


def test_a_process_that_dies_costs_one_recording(toy, folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", apart.HERE["PYTHONPATH"])
    files = [folder / f"{name}.wav" for name in (0, "c", 1, "c", 2)]
    predictions = list(Predictor(AnswerFormat(apart.Fatal(toy), any_sound=True)).predict_files(files, jobs=2))
    assert [answer.status for answer in predictions] == ["ok", "error", "ok", "error", "ok"]
    assert predictions[1].code == "failed" and "ended" in predictions[1].message


def test_timelines_and_strictness_in_several_processes(toy, folder):
    files = [folder / "b.flac", folder / "0.wav"]
    settings = sertone.TimelineSettings(segmentation="windows", window_s=4.0)
    model = sertone.load(toy, threads=1, any_sound=True)
    for options in ({"settings": settings}, {"durations": [32.0, 9.0], "strict": True}):
        serial, parallel = (list(model.predict_files(files, jobs=jobs, **options)) for jobs in (1, 2))
        assert serial == parallel
    assert [answer.status for answer in parallel] == ["ok", "error"]


@pytest.mark.parametrize("jobs", [0, 1000])
def test_invalid_numbers_of_jobs(toy, folder, jobs):
    with pytest.raises(SertoneError) as caught:
        list(sertone.load(toy, any_sound=True).predict_files([folder / "0.wav"], jobs=jobs))
    assert caught.value.code == "bad_jobs"


@pytest.fixture(scope="module")
def recipe(small_demo):
    return {
        "data": {"corpus": "demo", "root": str(small_demo)},
        "protocol": {"split": "grouped_k_fold", "folds": 2},
        "model": {"name": "baseline", "encoder": TINY_MODEL["encoder"]},
        "train": {"epochs": [1], "batch_size": 8},
    }


def test_recipes_as_mappings_and_models_as_pickles(recipe, folder, tmp_path, monkeypatch):
    before = json.dumps(recipe)
    checkpoint = sertone.train(recipe, tmp_path / "all", ["train.seed=3"])
    assert "seed: 3" in (tmp_path / "all" / "recipe.yaml").read_text() and json.dumps(recipe) == before
    with pytest.raises(SertoneError) as caught:
        sertone.train(Recipe.model_validate(recipe), tmp_path / "all")
    assert caught.value.code == "other_experiment"
    assert sertone.train(Recipe.model_validate(recipe), tmp_path / "all", fresh=True) == checkpoint
    assert "seed: 0" in (tmp_path / "all" / "recipe.yaml").read_text()
    model = sertone.load(checkpoint, classes="angry,sad", min_confidence=0.6, any_sound=True)
    copy = pickle.loads(pickle.dumps(model))
    assert copy.predict(folder / "0.wav") == model.predict(folder / "0.wav")
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps(sertone.load("all", any_sound=True))
    monkeypatch.chdir(folder)
    assert pickle.loads(content).predict("0.wav").label
    run = sertone.crossval(recipe, tmp_path / "run", jobs=1)
    assert (run / "report.html").is_file()
    with pytest.raises(SertoneError, match="trian"):
        sertone.crossval(recipe | {"trian": {}}, tmp_path / "other")


def test_a_bundle_pickles_as_its_path(toy, folder):
    model = sertone.load(toy, threads=1, dimensions="unit", any_sound=True)
    content = pickle.dumps(model)
    assert len(content) < 1000
    copies = [pickle.loads(content) for _ in range(2)]
    assert copies[0].model is copies[1].model, "loaded once"
    assert copies[0].predict(folder / "0.wav") == model.predict(folder / "0.wav")


@pytest.fixture(scope="module")
def unscaled(tmp_path_factory):
    """Return a bundle with a rating on no known scale."""
    return write_toy(tmp_path_factory.mktemp("unscaled") / "bundle", scales={"arousal": None})


def test_a_rating_without_a_scale_states_none(unscaled, toy, folder, tmp_path, capsys):
    model, path = sertone.load(unscaled, any_sound=True), folder / "0.wav"
    assert model.scales == {"arousal": None} and repr(model).endswith("sad, arousal)")
    assert model.predict(path).dimensions == sertone.load(toy, any_sound=True).predict(path).dimensions
    out = tmp_path / "rows.csv"
    assert cli.app(["predict", str(unscaled), str(path), "--any-sound", "--out", str(out), "--resume"]) == 0
    assert float(next(iter(csv.DictReader(out.open())))["arousal"]) > 1
    page = tmp_path / "page.html"
    assert cli.app(["predict", str(unscaled), str(path), "--timeline", "--to", str(page)]) == 0
    assert page.is_file()
    with pytest.raises(SertoneError, match="does not state their scale") as caught:
        sertone.load(unscaled, dimensions="unit", any_sound=True)
    assert caught.value.code == "no_scale"
    capsys.readouterr()
    assert cli.app(["info", str(unscaled)]) == 0
    assert "arousal on no known scale" in capsys.readouterr().out
    assert "on a scale that is not known" in (unscaled / "README.md").read_text()


def test_only_audeerings_layout_has_a_known_scale(tmp_path):
    folder = write_hub_folder(tmp_path / "f", labels=("arousal", "valence"), problem_type="regression")
    assert load_exportable(str(folder)).model.scales == {"arousal": None, "valence": None}


def test_type_hints_are_shipped():
    """The marker of PEP 561 is in the folder that the wheel packs."""
    assert (Path(sertone.__file__).parent / "py.typed").is_file()


def test_a_misspelt_option_is_not_a_recording(toy, folder, capsys):
    """An option is refused, although `-` is a recording."""
    with pytest.raises(CycloptsError, match="Did you mean") as caught:
        cli.app(["predict", str(toy), str(folder / "0.wav"), "--resum"])
    assert "--resume" in str(caught.value)
    assert "UnknownOptionError" not in str(caught.value) and not capsys.readouterr().out


@pytest.mark.parametrize(
    "beside",
    [{"root": "x"}, {"text": "corpus"}, {"scales": {}}, {"only": {"speaker": ["s0"]}}, {"reader": {}}],
)
def test_options_beside_a_recipe_are_refused(toy, tmp_path, beside):
    data = {"corpus": "manifest", "root": str(tmp_path / "table.csv")}
    with pytest.raises(TypeError, match=f"takes {next(iter(beside))} from the recipe"):
        sertone.evaluate(toy, data, out=tmp_path / "out", **beside)

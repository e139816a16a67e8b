"""Evaluation of bundles, Hugging Face models and the model of the package."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from conftest import TINY_MODEL
from exported import COMPACT, write_checkpoint, write_hub_folder
from toys import CLASSES, write_toy

import sertone
from sertone import cli, corpora
from sertone.analysis.compare import compare
from sertone.errors import SertoneError
from sertone.export import bundle_cache
from sertone.export.bundles import export
from sertone.recipe import Recipe
from sertone.training.runs import train


@pytest.fixture(scope="module")
def emodb(tmp_path_factory):
    root = tmp_path_factory.mktemp("emodb") / "corpus"
    corpora.fake("emodb", root)
    return root


def read_rows(out):
    with open(out / "predictions.csv", newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def probabilities(row):
    return np.asarray([float(row[f"p_{name}"]) for name in CLASSES])


@pytest.fixture(scope="module")
def trained(small_demo, tmp_path_factory):
    """Return a checkpoint that was trained on the demo corpus, with a temperature, and its bundle."""
    values = {
        "data": {"corpus": "demo", "root": str(small_demo)},
        "model": {"name": "baseline", "encoder": TINY_MODEL["encoder"]},
        "train": {"epochs": [2], "batch_size": 8},
        "protocol": {"validation": "speaker"},
    }
    checkpoint = train.train(Recipe.model_validate(values), tmp_path_factory.mktemp("run"), quiet=True)
    marker = checkpoint / "checkpoint.json"
    about = json.loads(marker.read_text())
    about["calibration"]["temperature"] = 2.5
    marker.write_text(json.dumps(about))
    bundle = tmp_path_factory.mktemp("bundle") / "b"
    export(checkpoint, bundle)
    return checkpoint, bundle


def test_a_bundle_scores_as_the_checkpoint_that_it_was_exported_from(trained, emodb, tmp_path):
    first, second = (
        sertone.evaluate(model, "emodb", emodb, tmp_path / name)
        for model, name in zip(trained, ("checkpoint", "bundle"), strict=True)
    )
    assert second.scores == pytest.approx(first.scores, abs=1e-6)
    assert second.intervals.keys() == first.intervals.keys() >= {"ua", "wa"}
    assert (second.utterances, second.speakers) == (40, 10) and second.folder == tmp_path / "bundle"
    assert second.warnings == first.warnings
    rows = [read_rows(tmp_path / name) for name in ("checkpoint", "bundle")]
    for name, row in rows[0].items():
        assert probabilities(rows[1][name]) == pytest.approx(probabilities(row), abs=1e-4)
    confidence = [
        json.loads((tmp_path / name / "results.json").read_text())["folds"][0]["confidence"]
        for name in ("checkpoint", "bundle")
    ]
    assert confidence[0]["before"]["ece"] != confidence[0]["after"]["ece"]
    for side in ("before", "after"):
        assert confidence[1][side] == pytest.approx(confidence[0][side], abs=1e-3)
    comparison = compare([tmp_path / "checkpoint", tmp_path / "bundle"])
    assert comparison["differences"][0]["scores"]["ua"]["value"] == 0


def test_a_bundle_knows_its_training_data(trained, small_demo, tmp_path):
    warnings = sertone.evaluate(trained[1], "demo", small_demo, tmp_path / "out").warnings
    assert "trained on 40 of these recordings" in warnings[0] and "10 of these speakers" in warnings[1]


def test_the_bundled_model_is_the_default(emodb, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.app(["evaluate", "emodb", str(emodb), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "interval over 10 speakers" in printed.out and "30 of 70 utterances" in printed.err
    assert json.loads((out / "protocol.json").read_text())["evaluated"]["model"].startswith("compact, which")
    predictor = sertone.load(any_sound=True)
    for name, row in list(read_rows(out).items())[::9]:
        answer = predictor.predict(emodb / "wav" / f"{name}.wav")
        assert probabilities(row) == pytest.approx(list(answer.probabilities.values()), abs=1e-4)
    with pytest.raises(SertoneError, match="CORPUS ROOT"):
        cli.app(["evaluate", "emodb"])


def write_manifest(folder, lengths, **columns):
    folder.mkdir()
    draw = np.random.default_rng(0)
    lines = [",".join(["path", "speaker", *columns])]
    for number, seconds in enumerate(lengths):
        samples = 0.02 * (number + 1) * draw.standard_normal(round(16000 * seconds))
        soundfile.write(folder / f"{number}.wav", samples, 16000)
        values = [str(values[number]) for values in columns.values()]
        lines.append(",".join([f"{number}.wav", f"s{number % 2}", *values]))
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder / "table.csv"


def test_a_bundle_whose_training_is_unknown_and_long_recordings(toy, tmp_path):
    """Long recordings are predicted by windows and short ones are padded, as by `predict`."""
    table = write_manifest(tmp_path / "own", (0.03, 0.5, 31.0, 2.0), emotion=CLASSES)
    evaluation = sertone.evaluate(toy, "manifest", table, tmp_path / "out")
    assert any("nothing is known of the model's training" in warning for warning in evaluation.warnings)
    page = (tmp_path / "out" / "report.html").read_text()
    assert (
        "Nothing is known about the model&#39;s training" in page
        or "Nothing is known about the model's" in page
    )
    assert "trained on none of these" not in page
    predictor = sertone.load(toy, any_sound=True)
    for name, row in read_rows(tmp_path / "out").items():
        answer = predictor.predict(table.parent / f"{name.removesuffix('.wav')}.wav")
        assert probabilities(row) == pytest.approx(list(answer.probabilities.values()), abs=1e-4)


def confidence(out):
    return json.loads((out / "results.json").read_text())["folds"][0]["confidence"]


def test_long_recordings_and_silence_are_predicted_as_by_predict(trained, tmp_path):
    """A checkpoint and its bundle agree, and a silent recording stops neither."""
    table = write_manifest(tmp_path / "own", (31.0, 0.5, 32.0), emotion=CLASSES)
    soundfile.write(table.parent / "2.wav", np.zeros(32 * 16000), 16000)
    for name, model in zip(("checkpoint", "bundle"), trained, strict=True):
        sertone.evaluate(model, "manifest", table, tmp_path / name)
    first, second = (read_rows(tmp_path / name) for name in ("checkpoint", "bundle"))
    for name, row in first.items():
        assert probabilities(second[name]) == pytest.approx(probabilities(row), abs=1e-4)
    answer = sertone.load(trained[0], any_sound=True).predict(table.parent / "0.wav")
    long = next(row for name, row in first.items() if name.startswith("0"))
    assert probabilities(long) == pytest.approx(list(answer.probabilities.values()), abs=1e-4)


@pytest.fixture(scope="module")
def pair(experiment, tmp_path_factory):
    """Return a run of two models, each with its own temperature, and its bundle."""
    root = tmp_path_factory.mktemp("pair")
    two = replace(experiment, card=experiment.card | {"folds": experiment.card["folds"][:2]})
    for k in (0, 1):
        folder = root / f"run/fold_{k}/checkpoint"
        values = {"name": "baseline", "encoder": COMPACT | {"depth": 1}}
        write_checkpoint(folder, two, seed=k, temperature=2 + 6 * k, fold=k, **values)
        about = json.loads((folder / "checkpoint.json").read_text())
        about["calibration"]["fitted_on"] = {"speakers": [f"voice{k}"], "utterances": 5}
        (folder / "checkpoint.json").write_text(json.dumps(about))
    export(root / "run", root / "bundle")
    return root / "run", root / "bundle"


def test_a_bundle_of_several_models_states_no_temperature(pair, tmp_path):
    table = write_manifest(tmp_path / "own", (31.0, 0.6, 0.7, 0.8), emotion=CLASSES)
    for name, model in zip(("run", "bundle"), pair, strict=True):
        sertone.evaluate(model, "manifest", table, tmp_path / name)
    run, bundle = (confidence(tmp_path / name) for name in ("run", "bundle"))
    assert bundle["after"] == pytest.approx(run["after"], abs=1e-3)
    assert run["before"]["nll"] > run["after"]["nll"] + 0.01 and run["calibration"]["temperature"] == 5
    assert "before" not in bundle and "mean of 2 models" in bundle["calibration"]["note"]
    run, bundle = ((tmp_path / name / "report.html").read_text() for name in ("run", "bundle"))
    assert "ECE before" in run and "voice0, voice1" in run
    assert "ECE before" not in bundle and "voice0" not in bundle


def test_the_corpus_of_a_recipe(toy, tmp_path):
    table = write_manifest(tmp_path / "own", (0.5, 0.6, 0.7, 0.8), emotion=CLASSES, arousal=[1, 2, 3, 4])
    data = {"corpus": "manifest", "root": str(table), "scales": {"arousal": [1, 5]}}
    recipe = {"data": data, "model": {"name": "baseline"}, "train": {"epochs": [1], "batch_size": 8}}
    by_name = sertone.evaluate(toy, "manifest", table, tmp_path / "a", scales={"arousal": (1, 5)})
    assert {"ua", "arousal.ccc"} <= by_name.scores.keys()
    for number, corpus in enumerate((data, recipe, Recipe.model_validate(recipe))):
        assert sertone.evaluate(toy, corpus, out=tmp_path / str(number)).scores == by_name.scores
    with pytest.raises(TypeError, match="out, the folder"):
        sertone.evaluate(toy, data)
    with pytest.raises(SertoneError, match="rooot"):
        sertone.evaluate(toy, {"corpus": "manifest", "rooot": "x"}, out=tmp_path / "x")


def test_another_evaluation_is_replaced_only_with_fresh(toy, tmp_path):
    table = write_manifest(tmp_path / "own", (0.5, 0.5, 0.6, 0.7), emotion=CLASSES)
    other_model = write_toy(tmp_path / "other")
    sertone.evaluate(toy, "manifest", table, tmp_path / "out")
    with pytest.raises(SertoneError, match="--fresh") as caught:
        sertone.evaluate(other_model, "manifest", table, tmp_path / "out")
    assert caught.value.code == "other_experiment"
    sertone.evaluate(other_model, "manifest", table, tmp_path / "out", fresh=True)
    card = json.loads((tmp_path / "out" / "protocol.json").read_text())
    assert card["evaluated"]["model"] == str(other_model)


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory):
    return write_hub_folder(tmp_path_factory.mktemp("hub") / "voices")


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def home(shared_home, monkeypatch):
    """Return a separate home folder."""
    monkeypatch.setenv("HOME", str(shared_home))
    return shared_home


def test_a_folder_of_hugging_face_is_exported_once(hub_folder, home, tmp_path, tone, capsys):
    assert cli.app(["predict", str(hub_folder), str(tone()), "--any-sound"]) == 0
    output = capsys.readouterr()
    assert "is a Hugging Face model: exporting it once" in output.err
    (bundle,) = (home / ".cache" / "sertone" / "bundles").iterdir()
    answer, before = json.loads(output.out), (bundle / "bundle.json").stat().st_mtime_ns
    assert answer["probabilities"].keys() == set(CLASSES)
    copy = shutil.copytree(hub_folder, tmp_path / "copy")
    assert cli.app(["predict", f"hf:{copy}", str(tone()), "--any-sound"]) == 0
    again = capsys.readouterr()
    assert "exporting" not in again.err and json.loads(again.out) == answer
    assert (bundle / "bundle.json").stat().st_mtime_ns == before and len(list(bundle.parent.iterdir())) == 1
    values = json.loads((copy / "config.json").read_text())
    values["id2label"] = {"0": "sad", "1": "ang", "2": "hap", "3": "neu"}
    (copy / "config.json").write_text(json.dumps(values))
    assert bundle_cache._compute_key(copy) != bundle_cache._compute_key(hub_folder) == bundle.name, (
        "another model, another bundle"
    )


def test_a_hugging_face_model_is_scored_and_its_card_says_so(hub_folder, home, tmp_path):
    table = write_manifest(tmp_path / "own", (0.5, 0.6, 0.7, 0.8), emotion=CLASSES)
    evaluation = sertone.evaluate(f"hf:{hub_folder}", "manifest", table, tmp_path / "out")
    assert "nothing is known of the model's training" in evaluation.warnings[0]
    predictor = sertone.load(hub_folder, any_sound=True)
    for name, row in read_rows(tmp_path / "out").items():
        answer = predictor.predict(table.parent / f"{name.removesuffix('.wav')}.wav")
        assert probabilities(row) == pytest.approx(list(answer.probabilities.values()), abs=1e-4)
    command = ["export", f"hf:{hub_folder}", str(tmp_path / "b"), "--scores", str(tmp_path / "out")]
    assert cli.app(command) == 0
    card = (tmp_path / "b" / "README.md").read_text()
    assert (
        f"{evaluation.scores['ua']:.1%}" in card
        and "It is not known whether these recordings were used in training" in card
    )
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(SertoneError, match=r"no results\.json") as caught:
        export(f"hf:{hub_folder}", tmp_path / "c", scores=tmp_path / "out")
    assert caught.value.code == "not_a_run"


def test_a_cache_that_cannot_be_written_names_the_export_command(hub_folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("where the home folder should be")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    with pytest.raises(SertoneError, match=r"sertone export hf:.* bundles/voices") as caught:
        sertone.load(hub_folder, any_sound=True)
    assert caught.value.code == "no_cache"


def test_ratings_on_no_known_scale_are_not_converted(tmp_path):
    table = write_manifest(tmp_path / "own", (0.5, 0.6, 0.7, 0.8), arousal=[1.5, 2.0, 3.5, 3.0])
    scores = {}
    for name, scale in (("known", {"low": 1.0, "high": 5.0, "unit": "points"}), ("unknown", None)):
        model = write_toy(tmp_path / name, scales={"arousal": scale})
        evaluation = sertone.evaluate(
            model, "manifest", table, tmp_path / f"{name}-out", scales={"arousal": (1, 5)}
        )
        scores[name] = evaluation.scores
        warning = "arousal of the model is on no known scale: it is not converted"
        assert (warning in evaluation.warnings) == (scale is None)
    assert scores["known"] == scores["unknown"] and "arousal.ccc" in scores["known"]

"""Cross-validation from a recipe to a run folder, on the command line too; prediction; the demo."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from conftest import TINY_MODEL

import sertone
from sertone import cli, corpora
from sertone import recipe as recipes
from sertone.errors import SertoneError
from sertone.scoring import metrics
from sertone.training.experiment.experiment import prepare
from sertone.training.fit.progress import RunProgress
from sertone.training.runs.crossval import cross_validate


@pytest.fixture(scope="module")
def run(tmp_path_factory, small_demo):
    """A finished run of two folds."""
    folder = tmp_path_factory.mktemp("run")
    values = {
        "data": {"corpus": "demo", "root": str(small_demo)},
        "protocol": {"split": "grouped_k_fold", "folds": 2},
        "model": TINY_MODEL,
        "train": {"epochs": [1, 2], "batch_size": 8},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    assert (
        cli.app(["crossval", str(path), "--out", str(folder / "run"), "--jobs", "1", "--set", "train.seed=3"])
        == 0
    )
    return folder / "run"


def results_of(run):
    return json.loads((run / "results.json").read_text())


def rows_of(run):
    with open(run / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_results_follow_from_the_predictions(run, small_demo):
    results, rows = results_of(run), rows_of(run)
    found = {u.id: u for u in corpora.load_utterances("demo", small_demo)}
    assert sorted(row["id"] for row in rows) == sorted(found)
    for row in rows:
        assert row["target"] == found[row["id"]].labels["emotion"]
        assert row["speaker"] == found[row["id"]].speaker
        probabilities = [float(row[f"p_{name}"]) for name in results["classes"]]
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert row["prediction"] == results["classes"][int(np.argmax(probabilities))]
    for number, fold in enumerate(results["folds"]):
        own = [row for row in rows if row["fold"] == str(number)]
        expected = metrics.emotion_scores([r["target"] for r in own], [r["prediction"] for r in own])
        assert fold["metrics"]["emotion"] == pytest.approx(expected)
        assert fold["test"] == len(own)
    pooled = metrics.emotion_scores([r["target"] for r in rows], [r["prediction"] for r in rows])
    for score in ("ua", "wa", "macro_f1"):
        assert results["pooled"]["emotion"][score] == pytest.approx(pooled[score])
        for unit in ("speakers", "folds"):
            low, high = results["pooled"]["emotion"]["intervals"][unit][score]
            assert low <= pooled[score] <= high
        mean = np.mean([fold["metrics"]["emotion"][score] for fold in results["folds"]])
        assert results["mean"]["emotion"][score] == pytest.approx(mean)


def test_auxiliary_scores(run):
    results = results_of(run)
    mean, pooled = results["mean"], results["pooled"]
    assert pooled["gender"]["accuracy"] == pytest.approx(mean["gender"]["accuracy"])  # folds of one size
    assert pooled["asr"].keys() == {"cer", "wer"} and "auxiliary" not in results["folds"][0]
    tables = np.array([fold["confusion"] for fold in results["folds"]])
    assert tables.sum(0).tolist() == pooled["emotion"]["confusion"] and tables.sum() == 40
    assert set(mean) == {"emotion", "gender", "speaker", "style", "asr"}
    assert 0 <= mean["gender"]["accuracy"] <= 1 and 0 <= mean["style"]["accuracy"] <= 1
    assert mean["asr"].keys() == {"cer", "wer"} and all(np.isfinite(v) for v in mean["asr"].values())
    assert mean["speaker"] == {"note": "not defined: speakers are disjoint"}


def test_the_run_folder(run):
    assert {p.name for p in run.iterdir() if not p.name.startswith(".")} == {
        "recipe.yaml", "protocol.json", "results.json", "predictions.csv", "report.html", "fold_0", "fold_1",
    }  # fmt: skip
    recipe = recipes.load(run / "recipe.yaml")
    assert recipe.train.seed == 3
    card = json.loads((run / "protocol.json").read_text())
    assert card == json.loads(json.dumps(prepare(recipe).card))
    assert len(card["file_hashes"]) == 40 and len(card["leaks"]) == 2


def test_the_same_seed_gives_the_same_scores_side_by_side_and_another_gives_others(run, tmp_path):
    recipe = recipes.load(run / "recipe.yaml")
    cross_validate(recipe, tmp_path / "again", jobs=2, quiet=True)
    assert rows_of(tmp_path / "again") == rows_of(run)
    other = recipe.model_copy(update={"train": recipe.train.model_copy(update={"seed": 4})})
    cross_validate(other, tmp_path / "other", jobs=1, quiet=True)
    assert rows_of(tmp_path / "other") != rows_of(run)


def test_a_finished_run_is_not_run_again_and_another_is_refused(run, capsys):
    before = (run / "fold_0" / "checkpoint" / "model.safetensors").stat().st_mtime_ns
    path = str(run / "recipe.yaml")
    assert cli.app(["crossval", path, "--out", str(run)]) == 0
    assert (run / "fold_0" / "checkpoint" / "model.safetensors").stat().st_mtime_ns == before
    assert "95 % interval over 10 speakers" in capsys.readouterr().out
    with pytest.raises(SertoneError) as caught:
        cli.app(["crossval", path, "--out", str(run), "--set", "train.clip_norm=2"])
    assert caught.value.code == "other_experiment" and "clip_norm" in str(caught.value)


def test_the_report_is_one_self_contained_page(run):
    page = (run / "report.html").read_text()
    results = results_of(run)
    assert not re.findall(r'(?:src|href)="(?!#)', page) and "@import" not in page
    assert f"{results['pooled']['emotion']['ua']:.1%}" in page
    assert "not defined: speakers are disjoint" in page
    assert "Synthetic speech" in page
    for speaker in {row["speaker"] for row in rows_of(run)}:
        assert f"{speaker} (4)" in page
    assert page.count('role="img"') >= 5 and page.count("<svg") == page.count("aria-label") - 4
    assert "words that also occur in training" in page
    assert "seed: 3" in page


def test_predict_gives_a_prediction_for_every_file(run, small_demo, tmp_path, tone, capsys):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("hello")
    stereo, slow, short = tone("stereo.flac", 1.0, 48000, 2), tone("slow.wav", 1.0, 8000), tone("s.wav", 0.03)
    good = small_demo / "wav" / "S1F_sad_00.wav"
    files = [good, "missing.wav", tmp_path / "empty.wav", stereo, tmp_path / "text.wav", slow, short]
    assert cli.app(["predict", str(run), *map(str, files), "--any-sound"]) == 1
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [a["file"] for a in answers] == [str(f) for f in files]
    assert [a["status"] for a in answers] == ["ok", "error", "error", "ok", "error", "ok", "ok"]
    assert [a["code"] for a in answers] == ["", "missing_file", "empty_file", "", "not_audio", "", ""]
    for answer in answers:
        keys = "file status code message duration_s label probabilities confidence unsure dimensions text "
        keys += "segments speakers"
        assert list(answer) == keys.split() and not answer["unsure"]
        if answer["status"] == "error":
            assert answer["label"] is None and answer["probabilities"] == {} and answer["message"]
            assert answer["confidence"] is None
        else:
            assert answer["confidence"] == answer["probabilities"][answer["label"]]
            assert sum(answer["probabilities"].values()) == pytest.approx(1)
            assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get)
    assert answers[3]["duration_s"] == 1.0
    assert cli.app(["predict", str(run / "fold_0"), str(good)]) == 0


def test_a_run_predicts_the_mean_of_its_folds(run, small_demo):
    path = small_demo / "wav" / "S2M_angry_00.wav"
    whole = sertone.load(run, any_sound=True).predict(path)
    folds = [sertone.load(run / f"fold_{n}", any_sound=True).predict(path).probabilities for n in (0, 1)]
    for name, p in whole.probabilities.items():
        assert p == pytest.approx((folds[0][name] + folds[1][name]) / 2, abs=1e-6)


def test_the_scores_of_a_run_are_what_its_checkpoints_predict(run, small_demo):
    for number in (0, 1):
        predictor = sertone.load(run / f"fold_{number}" / "checkpoint", any_sound=True)
        for row in [row for row in rows_of(run) if row["fold"] == str(number)][:8]:
            found = predictor.predict(small_demo / f"{row['id']}.wav")
            assert found.label == row["prediction"]
            for name, p in found.probabilities.items():
                assert p == pytest.approx(float(row[f"p_{name}"]), abs=2e-5)


def test_arrays_and_very_short_clips(run, tone):
    predictor = sertone.load(run, any_sound=True)
    samples, rate = soundfile.read(tone(rate=44100, channels=2))
    assert predictor.predict(samples, rate).status == "ok"
    assert "at least 400 samples" in repr(predictor)
    with pytest.raises(ValueError, match="sampling_rate"):
        predictor.predict(samples)
    predictor.model.min_samples = 2000
    answer = predictor.predict(np.full(500, 0.1, np.float32) * np.sin(np.arange(500)), 16000)
    assert (answer.status, answer.code) == ("warning", "padded") and answer.label


def test_train_trains_one_model_on_the_whole_corpus(run, tmp_path, small_demo, capsys):
    out = tmp_path / "final"
    assert cli.app(["train", str(run / "recipe.yaml"), "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out / "checkpoint")
    predictor = sertone.load(out, any_sound=True)
    assert len(predictor.model.models) == 1 and predictor.model.card["split"]["split"] == "everything"
    assert predictor.model.card["corpus"]["utterances_used"] == 40
    assert predictor.predict(small_demo / "wav" / "S1F_sad_00.wav").status == "ok"
    assert json.loads((out / "protocol.json").read_text())["folds"][0]["test_utterances"] == 0


def test_a_leak_is_refused_before_training(tmp_path, small_demo):
    rows = (small_demo / "metadata.csv").read_text().replace("wav/", f"{small_demo}/wav/").splitlines()
    shutil.copy(small_demo / "wav" / "S1F_neutral_00.wav", tmp_path / "copy.wav")
    table = tmp_path / "leaky.csv"
    table.write_text("\n".join([*rows, "copy.wav,S9X," + rows[1].split(",", 2)[2]]))
    values = {
        "data": {"corpus": "manifest", "root": str(table)},
        "protocol": {"split": "leave_one_speaker_out"},
        "model": TINY_MODEL,
        "train": {"epochs": [1, 1], "batch_size": 8},
    }
    with pytest.raises(SertoneError) as caught:
        cross_validate(recipes.Recipe.model_validate(values), tmp_path / "run")
    assert caught.value.code == "audio_leak" and not (tmp_path / "run").exists()


def test_utterances_without_an_emotion_train_the_other_tasks(tmp_path, small_demo):
    lines = (
        (small_demo / "metadata.csv")
        .read_text()
        .replace(",angry,", ",,")
        .replace("wav/", f"{small_demo}/wav/")
    )
    (tmp_path / "m.csv").write_text(lines)
    values = {
        "data": {"corpus": "manifest", "root": str(tmp_path / "m.csv"), "classes": "all"},
        "protocol": {"split": "grouped_k_fold", "folds": 2},
        "model": TINY_MODEL,
        "train": {"epochs": [1, 1], "batch_size": 8},
    }
    experiment = prepare(recipes.Recipe.model_validate(values))
    assert experiment.classes == ["neutral", "happy", "sad"]
    assert len(experiment.utterances) == 40
    run = cross_validate(experiment.recipe, tmp_path / "run", jobs=1, quiet=True)
    assert len(rows_of(run)) == 30


@pytest.mark.parametrize("family, norm", [("wav2vec2", "group"), ("wavlm", "layer")])
def test_a_pretrained_encoder_from_training_to_prediction(
    tiny_encoder, demo_recipe, tmp_path, small_demo, family, norm
):
    source = tiny_encoder(family, norm)
    model = TINY_MODEL | {"encoder": {"name": "pretrained", "source": str(source)}}
    run = cross_validate(demo_recipe(model=model), tmp_path / "run", jobs=1, quiet=True)
    source.rename(tmp_path / "gone")  # the checkpoint needs the folder no more
    answer = sertone.load(run / "fold_0", any_sound=True).predict(small_demo / "wav" / "S1F_sad_00.wav")
    row = next(r for r in rows_of(run) if r["fold"] == "0")
    assert answer.status == "ok"
    again = sertone.load(run / "fold_0", any_sound=True).predict(small_demo / f"{row['id']}.wav")
    assert again.probabilities["sad"] == pytest.approx(float(row["p_sad"]), abs=2e-5)


def sertone_command(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "sertone", *arguments], capture_output=True, text=True, **options
    )


def test_exit_status_and_messages(tmp_path):
    usage = sertone_command("predict")
    assert usage.returncode == 2
    missing = sertone_command("predict", str(tmp_path))
    assert missing.returncode == 2 and missing.stderr.startswith("error [no_files]")
    assert "Traceback" not in missing.stderr
    help_text = sertone_command("crossval", "--help")
    assert help_text.returncode == 0 and "--set" in help_text.stdout
    listed = sertone_command("corpora", "list")
    assert all(name in listed.stdout for name in corpora.list_names())


def test_strict_refuses_predictions_with_warnings(run, tone, capsys):
    path = tone()
    path.write_bytes(path.read_bytes()[:20000])
    assert cli.app(["predict", str(run), str(path), "--any-sound"]) == 0
    assert cli.app(["predict", str(run), str(path), "--any-sound", "--strict"]) == 1
    lenient, strict = map(json.loads, capsys.readouterr().out.splitlines())
    assert (lenient["status"], lenient["code"]) == ("warning", "truncated") and lenient["label"]
    assert (strict["status"], strict["code"], strict["label"]) == ("error", "truncated", None)


def test_conflicting_rows_are_refused_before_training(tmp_path, small_demo):
    lines = (small_demo / "metadata.csv").read_text().replace("wav/", f"{small_demo}/wav/").splitlines()
    twice = lines[1].replace("neutral,", "happy,", 1) if ",neutral," in lines[1] else lines[1]
    (tmp_path / "m.csv").write_text("\n".join([*lines, twice]))
    with pytest.raises(SertoneError) as caught:
        corpora.load("manifest", tmp_path / "m.csv")
    assert caught.value.code == "conflicting_labels" and "happy, neutral" in str(caught.value)


def test_a_manifest_without_emotions_is_refused(tmp_path, small_demo):
    lines = (small_demo / "metadata.csv").read_text().replace("wav/", f"{small_demo}/wav/")
    (tmp_path / "m.csv").write_text(lines.replace(",emotion,", ",feeling,", 1))
    values = {
        "data": {"corpus": "manifest", "root": str(tmp_path / "m.csv"), "classes": "all"},
        "model": TINY_MODEL,
        "train": {"epochs": [1, 1], "batch_size": 8},
    }
    with pytest.raises(SertoneError, match="a manifest needs a column `emotion`"):
        prepare(recipes.Recipe.model_validate(values))


def test_folds_kept_from_other_settings_are_named(run, tmp_path):
    recipe = recipes.load(run / "recipe.yaml")
    copy = shutil.copytree(run, tmp_path / "run")
    assert results_of(copy)["folds_of_other_settings"] == []
    shutil.rmtree(copy / "fold_1")
    changed = recipe.model_copy(update={"train": recipe.train.model_copy(update={"clip_norm": 2.0})})
    cross_validate(changed, copy, jobs=1, force=True, quiet=True)
    assert results_of(copy)["folds_of_other_settings"] == [results_of(copy)["folds"][0]["name"]]
    assert "other settings" in (copy / "report.html").read_text()


def test_the_report_leaves_out_the_loss_of_an_epoch_without_a_step(run, tmp_path):
    from sertone.report.run import write

    copy = shutil.copytree(run, tmp_path / "copy")
    results = results_of(copy)
    results["folds"][0]["history"][0]["loss"] = float("nan")
    (copy / "results.json").write_text(json.dumps(results))
    assert not re.search(r"\bnan\b", write(copy).read_text())


def test_an_unexpected_error_concerns_one_recording_only(run, small_demo, monkeypatch):
    predictor = sertone.load(run, any_sound=True)
    monkeypatch.setattr("sertone.runtime.recording_source.read_isolated", None)
    answer = predictor.predict(small_demo / "wav" / "S1F_sad_00.wav")
    assert (answer.status, answer.code) == ("error", "failed") and "TypeError" in answer.message


def kill_itself(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_fold_that_fails_or_dies_ends_the_run_with_its_error(run, tmp_path, monkeypatch):
    recipe = recipes.load(run / "recipe.yaml", ["train.learning_rate={encoder: 1e30, downstream: 1e30}"])
    with pytest.raises(SertoneError) as caught:
        cross_validate(recipe, tmp_path / "diverges", jobs=1, quiet=True)
    assert caught.value.code == "not_finite"
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setattr("sertone.training.runs.scheduler._in_child", kill_itself)
    with pytest.raises(SertoneError, match=r"status -9.*--jobs") as caught:
        cross_validate(recipe, tmp_path / "dies", jobs=2, quiet=True)
    assert caught.value.code == "fold_died"


@pytest.mark.parametrize("terminal", [True, False])
def test_one_view_of_all_folds(terminal, monkeypatch, capsys):
    monkeypatch.setenv("TTY_COMPATIBLE", "1" if terminal else "0")
    with RunProgress(8) as progress:
        progress.skip(2)
        for fold in (0, 1):
            progress.say("the front end is kept in memory")
            progress.epoch(f"fold {fold}", 1, 2, {"loss": 0.5}, False)
        if terminal:
            tasks = {task.description: (task.completed, task.total) for task in progress._bars.tasks}
            assert tasks == {"all epochs": (4, 8), "fold 0": (1, 2), "fold 1": (1, 2)}
        progress.epoch("fold 1", 2, 2, {"loss": 0.25}, True)
        if terminal:
            assert {task.description for task in progress._bars.tasks} == {"all epochs", "fold 0"}
    shown = capsys.readouterr()
    assert not shown.out and shown.err.count("the front end is kept in memory") == 1
    assert "fold 1  2 epochs  loss 0.250" in shown.err
    if not terminal:
        assert "\x1b" not in shown.err and "fold 0" not in shown.err
    RunProgress(1, quiet=True).say("nothing")
    assert capsys.readouterr().err == ""

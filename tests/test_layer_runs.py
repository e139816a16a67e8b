"""Runs of `sertone layers`: features, resuming, learned weights, the command, pages, errors."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import REPOSITORY, SMALL_EMOTION2VEC, TINY_MODEL
from test_layers import DEPTH, Planted, build_source, probe_planted
from torch import nn

import sertone
from sertone import cli
from sertone.analysis.layers import features, learned_weights, probe_layers
from sertone.errors import SertoneError
from sertone.nn.fusions import WeightedSum
from sertone.recipe import Recipe
from sertone.scoring import sufficient_statistics
from sertone.training.data.array_store import ArrayStore
from sertone.training.experiment.experiment import prepare
from sertone.training.runs.crossval import cross_validate

READER = {
    "name": "ispas2023",
    "encoder": TINY_MODEL["encoder"],
    "text": {"name": "tiny", "width": 16, "depth": 2, "attention_heads": 2},
    "attention_heads": 2,
}


def rows(source, utterances, pooling="mean"):
    store = ArrayStore()
    features.extract_features(source, utterances, pooling, store, lambda _: None)
    return np.stack([store.get(key) for key in features.compute_keys(source, utterances, pooling)])


@pytest.mark.parametrize(
    "family", ["wav2vec2", "wavlm", "whisper", "wav2vec2-bert", "compact", "emotion2vec_architecture"]
)
def test_batches_make_no_difference_and_pooling_is_over_the_real_frames(tiny_encoder, experiment, family):
    """Compare with the encoder on each recording alone, and with a second formula of mean and deviation."""
    from sertone.nn.encoders.huggingface import PretrainedEncoderConfig
    from sertone.nn.encoders.saved import build_from_description

    sizes = {settings["name"]: settings for settings in (TINY_MODEL["encoder"], SMALL_EMOTION2VEC)}
    torch.manual_seed(0)
    if family in sizes:
        encoder = build_from_description(sizes[family])
    else:
        encoder = PretrainedEncoderConfig(source=str(tiny_encoder(family))).build()
    source, utterances = build_source(experiment, encoder), experiment.utterances[:12]
    means, statistics = rows(source, utterances), rows(source, utterances, "statistics")
    assert means.shape == (12, encoder.depth + 1, encoder.width) and means.dtype == np.float32
    for mean_row, statistics_row, utterance in zip(means, statistics, utterances, strict=True):
        with torch.no_grad():
            hidden, frames = source.compute_states([utterance])
        alone = hidden[0, :, : frames[0]].numpy()
        np.testing.assert_allclose(mean_row, alone.mean(1), atol=1e-5)
        np.testing.assert_allclose(
            statistics_row, np.concatenate([mean_row, np.sqrt(alone.var(1) + 1e-5)], -1), atol=2e-5
        )


def test_features_follow_from_encoder_samples_and_pooling(experiment):
    first = build_source(experiment, Planted((1,), (2,)))
    keys = features.compute_keys(first, experiment.utterances, "mean")
    assert len(set(keys)) == len(keys)
    assert keys == features.compute_keys(
        build_source(experiment, Planted((1,), (2,))), experiment.utterances, "mean"
    )
    other_sources = [
        build_source(experiment, Planted((1,), (3,))),
        build_source(experiment, Planted((1,), (2,))),
    ]
    with torch.no_grad():
        other_sources[1].encoder.mixing[0, 0, 0] += 1
    other_sources[1] = build_source(experiment, other_sources[1].encoder)
    for other_source in other_sources:
        assert not set(keys) & set(features.compute_keys(other_source, experiment.utterances, "mean"))
    assert not set(keys) & set(features.compute_keys(first, experiment.utterances, "statistics"))


def test_results_are_kept_and_only_changed_targets_are_probed_again(tmp_path, experiment):
    encoder, lines = Planted((1,), (2,)), []
    first = probe_planted(experiment, encoder, tmp_path, target_names=["arousal"])
    names = [tmp_path / "probes" / f"{layer}.json" for layer in range(DEPTH + 1)]
    before = [(path.stat().st_mtime_ns, path.read_text()) for path in names]
    size = (tmp_path / "features.store").stat().st_size
    assert probe_planted(experiment, encoder, tmp_path, target_names=["arousal"], say=lines.append) == first
    assert before == [(path.stat().st_mtime_ns, path.read_text()) for path in names]
    assert lines == ["features from before: 160 utterances", "probes from before: 7 layers"]
    names[3].write_text("{")
    assert probe_planted(experiment, encoder, tmp_path, target_names=["arousal"]) == first
    two_targets = probe_planted(experiment, encoder, tmp_path, target_names=["arousal", "valence"])
    assert two_targets["targets"]["arousal"] == first["targets"]["arousal"]
    assert (tmp_path / "features.store").stat().st_size == size
    saved = json.loads(names[0].read_text())
    assert saved["arousal"] == json.loads(before[0][1])["arousal"] and "valence" in saved


def recipe_file(folder, root, model=None):
    path = folder / "mine.yaml"
    values = {
        "data": {"corpus": "demo", "root": str(root)},
        "protocol": {"split": "grouped_k_fold", "folds": 2},
        "model": model or {"name": "baseline", "encoder": TINY_MODEL["encoder"]},
        "train": {"batch_size": 8, "device": "cpu"},
    }
    path.write_text(yaml.safe_dump(values))
    return path


def test_the_command(tmp_path, small_demo, monkeypatch, capsys):
    recipe = recipe_file(tmp_path, small_demo)
    monkeypatch.chdir(tmp_path)
    assert cli.app(["layers", str(recipe), "--targets", "arousal", "emotion"]) == 0
    out, err = capsys.readouterr()
    assert "warning  the encoder compact is not pretrained: its weights are random" in err
    assert re.search(r"features: 40 of 40 utterances, .* a second, 0 s left", err)
    assert "CCC arousal" in out and "UA emotion" in out and "report  runs/layers-mine/report.html" in out
    folder = tmp_path / "runs" / "layers-mine"
    results = json.loads((folder / "layers.json").read_text())
    with open(folder / "layers.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * 3
    for line in lines:
        layer = results["targets"][line["target"]]["layers"][int(line["layer"])]
        assert float(line["value"]) == layer["scores"][line["score"]] and len(layer["penalties"]) == 2
        assert [float(line["low"]), float(line["high"])] == layer["intervals"][line["score"]]
    page = (folder / "report.html").read_text()
    assert "its weights are random" in page and page.count("<svg") == 2
    assert sertone.layers(recipe, folder, targets=["arousal", "emotion"]) == results


def test_text_is_probed_as_well(tmp_path, small_demo, capsys):
    recipe = recipe_file(tmp_path, small_demo, READER)
    results = sertone.layers(recipe, tmp_path / "out", targets=["valence", "emotion"], encoder="text")
    assert results["depth"] == 2 and results["modality"] == "text" and results["encoder"] == "tiny"
    assert len(results["warnings"]) == 2 and "subwords" in capsys.readouterr().err
    assert all(len(target["layers"]) == 3 for target in results["targets"].values())


def test_rows_of_text_are_means_over_its_tokens(tmp_path, small_demo):
    experiment = prepare(
        Recipe.model_validate(yaml.safe_load(recipe_file(tmp_path, small_demo, READER).read_text()))
    )
    source, utterances = features.build_probed_encoder(experiment, "text", lambda _: None)
    features_by_row = rows(source, utterances)
    for row, utterance in zip(features_by_row, utterances, strict=True):
        with torch.no_grad():
            hidden, counts = source.compute_states([utterance])
        np.testing.assert_allclose(row, hidden[0, :, : counts[0]].mean(1), atol=1e-5)


def start_command(*arguments, cwd):
    """Start the command in a separate process."""
    return subprocess.Popen(
        [sys.executable, "-m", "sertone", "layers", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_killed_extraction_is_resumed_with_the_same_bits(tmp_path, small_demo, tiny_encoder, capsys):
    """SIGKILL ends a real process, and the rows that it wrote are not written again."""
    model = {"name": "baseline", "encoder": {"name": "pretrained", "source": str(tiny_encoder())}}
    recipe = recipe_file(tmp_path, small_demo, model)
    results = sertone.layers(recipe, tmp_path / "whole", targets=["arousal"])
    expected_store = (tmp_path / "whole" / "features.store").read_bytes()
    killed = start_command(recipe, "--targets", "arousal", "--out", "killed", cwd=tmp_path)
    store = tmp_path / "killed" / "features.store"
    while killed.poll() is None and (not store.is_file() or store.stat().st_size < len(expected_store) * 0.6):
        time.sleep(0.0005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    before = store.read_bytes()
    end = int.from_bytes(before[8:16], "little")
    assert 0.5 * len(expected_store) < end < len(expected_store), "killed in the middle"
    capsys.readouterr()
    assert sertone.layers(recipe, tmp_path / "killed", targets=["arousal"]) == results
    skipped, computed = re.findall(
        r"features.* (\d+) (?:utterance|of \d+ utterances)", capsys.readouterr().err
    )
    assert int(skipped) > 0 and int(skipped) + int(computed) == 40
    assert store.read_bytes()[16:end] == before[16:end] and store.read_bytes() == expected_store


@pytest.fixture(scope="module")
def weighted(tmp_path_factory, small_demo):
    """Return a run of two folds whose models learn weights for their layers."""
    out = tmp_path_factory.mktemp("weighted") / "run"
    recipe = {
        "data": {"corpus": "demo", "root": str(small_demo)},
        "protocol": {"split": "grouped_k_fold", "folds": 2},
        "model": TINY_MODEL | {"fusion": "weighted_sum", "tasks": {"gender": 0.3}},
        "train": {"epochs": [1, 1], "batch_size": 8},
    }
    cross_validate(Recipe.model_validate(recipe), out, jobs=1, quiet=True)
    return out


def test_learned_weights_are_the_softmax_of_every_fold(weighted):
    from safetensors.torch import load_file

    (entry,) = learned_weights.load_layer_weights(weighted)
    raw = [
        load_file(path)["fusion.weights"] for path in sorted(weighted.glob("fold_*/checkpoint/*.safetensors"))
    ]
    expected = np.stack([np.exp(w.numpy()) / np.exp(w.numpy()).sum() for w in raw])
    assert entry["module"] == "fusion" and entry["target"] == "" and len(entry["models"]) == 2
    np.testing.assert_allclose(entry["mean"], expected.mean(0), atol=1e-6)
    np.testing.assert_allclose(entry["spread"], np.abs(expected[0] - expected[1]) / np.sqrt(2), atol=1e-6)
    assert learned_weights.load_layer_weights(weighted / "fold_0")[0]["spread"] is None


def test_a_weighted_sum_named_after_a_target_belongs_to_it():
    model = nn.Module()
    model.fusions = nn.ModuleDict({"valence": WeightedSum(3, 4), "shared": WeightedSum(3, 4)})
    named = {
        name: module.weights.softmax(0).detach().numpy()[None]
        for name, module in model.named_modules()
        if isinstance(module, WeightedSum)
    }
    targets = {
        entry["module"]: entry["target"]
        for entry in (learned_weights._summarise(*item) for item in named.items())
    }
    assert targets == {"fusions.valence": "valence", "fusions.shared": ""}


def test_learned_weights_stand_beside_the_probes(tmp_path, small_demo, weighted):
    results = sertone.layers(
        recipe_file(tmp_path, small_demo), tmp_path / "out", targets=["emotion"], weights=weighted
    )
    assert results["weights"] == learned_weights.load_layer_weights(weighted)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Learned weights" in page and "does not measure relevance" in page
    assert f"models of {weighted.name};" in page and str(weighted.parent) not in page


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"targets": ["mood"]}, "unknown_target", "some of arousal, valence"),
        ({"encoder": "text"}, "no_text_encoder", "uses no text"),
        ({"overrides": ["model.encoder.name=nothing"]}, "bad_recipe", "encoder"),
        ({"weights": "nowhere"}, "not_a_checkpoint", "nowhere"),
    ],
)
def test_errors_name_the_way_out(tmp_path, small_demo, options, code, words):
    with pytest.raises(SertoneError, match=words) as caught:
        sertone.layers(recipe_file(tmp_path, small_demo), tmp_path / "out", **options)
    assert caught.value.code == code


def test_missing_labels_are_named(tmp_path, experiment):
    for name, code in (("gender", "no_labels"), ("dominance", "no_scale")):
        with pytest.raises(SertoneError, match=name) as caught:
            probe_planted(experiment, Planted((1,), (2,)), tmp_path, target_names=[name])
        assert caught.value.code == code


def test_models_without_layer_weights_are_refused(tmp_path, demo_recipe):
    cross_validate(demo_recipe(), tmp_path / "run", jobs=1, quiet=True)
    with pytest.raises(SertoneError, match="no weighted sum") as caught:
        learned_weights.load_layer_weights(tmp_path / "run" / "fold_0")
    assert caught.value.code == "no_layer_weights"


def test_results_of_other_code_or_libraries_are_probed_again(tmp_path, experiment, monkeypatch):
    encoder, lines = Planted((1,), (2,)), []
    first = probe_planted(experiment, encoder, tmp_path, target_names=["arousal"])
    changed = tmp_path / "statistics.py"
    changed.write_text(Path(sufficient_statistics.__file__).read_text() + "\n")
    for module, name, value in (
        (sufficient_statistics, "__file__", str(changed)),
        (np, "__version__", "0.1"),
    ):
        monkeypatch.setattr(module, name, value)
        assert (
            probe_planted(experiment, encoder, tmp_path, target_names=["arousal"], say=lines.append) == first
        )
        assert any(line.startswith("probes: 7 of 7 layers") for line in lines)
        lines.clear()


def test_an_encoder_is_shown_without_the_folders_above_it(tmp_path, small_demo, tiny_encoder):
    source = tiny_encoder()
    model = {"name": "baseline", "encoder": {"name": "pretrained", "source": str(source)}}
    results = sertone.layers(recipe_file(tmp_path, small_demo, model), tmp_path / "out", targets=["arousal"])
    assert results["encoder"] == source.name
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"Layers of {source.name}" in page and str(source) not in page
    assert probe_layers._shorten_source("facebook/hubert-base-ls960") == "facebook/hubert-base-ls960"


@pytest.mark.parametrize("folder", ["fold_0", "checkpoint", "resume"])
def test_the_folder_of_an_unfinished_run_keeps_its_recipe(tmp_path, experiment, folder):
    (tmp_path / folder).mkdir()
    (tmp_path / "recipe.yaml").write_text("a run")
    with pytest.raises(SertoneError, match="use --out") as caught:
        probe_planted(experiment, Planted((1,), (2,)), tmp_path)
    assert caught.value.code == "other_experiment" and (tmp_path / "recipe.yaml").read_text() == "a run"


def test_the_folder_of_a_run_is_not_overwritten(tmp_path, experiment):
    (tmp_path / "report.html").write_text("a run")
    with pytest.raises(SertoneError, match="use --out"):
        probe_planted(experiment, Planted((1,), (2,)), tmp_path)
    assert (tmp_path / "report.html").read_text() == "a run"

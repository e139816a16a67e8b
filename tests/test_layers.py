"""`sertone layers`: what is planted in layers is found there; features, resuming, pages, the command."""

import csv
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import torch
import yaml
from conftest import REPOSITORY, TINY_MODEL
from torch import nn

import sertone
from sertone.analysis import features, layer_weights, layers
from sertone.errors import SertoneError
from sertone.nn.encoder import Encoder
from sertone.nn.fusions import WeightedSum
from sertone.recipe import Recipe
from sertone.training import ranks
from sertone.training.crossval import cross_validate
from sertone.training.experiment import prepare
from sertone.training.recordings import Recordings
from sertone.training.store import Store

FRAME, DEPTH, WIDTH = 320, 6, 12
READER = {
    "name": "ispas2023",
    "encoder": TINY_MODEL["encoder"],
    "text": {"name": "tiny", "width": 16, "depth": 2, "attention_heads": 2},
    "attention_heads": 2,
}


class Planted(Encoder):
    """Every layer is noise of its own, made from the noise of the recording; some carry its level or offset.

    Args:
        arousal: layers in which the level shows.
        valence: layers in which the offset shows.
    """

    width, depth, min_samples = WIDTH, DEPTH, FRAME

    def __init__(self, arousal, valence):
        super().__init__()
        self.where = {"level": arousal, "offset": valence}
        draw = torch.Generator().manual_seed(0)
        self.mixing = nn.Parameter(
            torch.randn(DEPTH + 1, FRAME, WIDTH, generator=draw) / FRAME**0.5, requires_grad=False
        )

    def describe(self):
        return {"name": "planted", "where": self.where}

    def front(self, waveforms, lengths):
        frames = waveforms[:, : waveforms.shape[1] // FRAME * FRAME].unflatten(1, (-1, FRAME))
        return frames, torch.div(lengths, FRAME, rounding_mode="floor")

    def embed(self, features, mask):
        offset, level = features.mean(-1, keepdim=True), features.std(-1, keepdim=True)
        self.seen = {"level": level * 40, "offset": offset * 40}
        self.noise = torch.einsum("btf,lfd->lbtd", (features - offset) / (level + 1e-6), self.mixing)
        return self._state(0)

    def _state(self, index):
        planted = sum(self.seen[name] for name, where in self.where.items() if index in where)
        return self.noise[index] + planted * torch.linspace(-1, 1, WIDTH)

    def context(self, mask):
        return {}

    def layer(self, index, hidden, context):
        return self._state(index)

    def parts(self):
        return [[self]] + [[] for _ in range(DEPTH)]


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """Ten speakers, 16 recordings of noise each: its level follows arousal, its offset valence."""
    root, random = tmp_path_factory.mktemp("planted"), np.random.default_rng(0)
    lines = ["path,speaker,emotion,arousal,valence"]
    for number in range(160):
        arousal, valence = random.uniform(1, 5, 2)
        samples = 0.02 * arousal * random.standard_normal(int(random.integers(3000, 9000))) + 0.05 * (
            valence - 3
        )
        soundfile.write(root / f"{number}.wav", np.clip(samples, -1, 1), 16000)
        emotion = ("happy", "sad", "angry", "neutral")[number % 4]
        lines.append(f"{number}.wav,s{number % 10},{emotion},{arousal:.3f},{valence:.3f}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root / "metadata.csv"


@pytest.fixture
def experiment(spoken):
    return prepare(
        Recipe.model_validate(
            {
                "data": {
                    "corpus": "manifest",
                    "root": str(spoken),
                    "scales": {"arousal": [1, 5], "valence": [1, 5]},
                },
                "protocol": {"split": "grouped_k_fold", "folds": 5},
                "model": {"name": "baseline", "encoder": TINY_MODEL["encoder"]},
                "train": {"batch_size": 8, "device": "cpu"},
            }
        )
    )


def heard(experiment, encoder):
    recordings = Recordings(1.0)
    recordings.load(experiment.utterances)
    return features.Heard(encoder, recordings, ranks.fabric(experiment.recipe.train))


ABOUT = {"encoder": "planted", "modality": "audio", "warnings": [], "weights": [], "weights_of": ""}


def examined(experiment, encoder, out, **options):
    return layers.examine(
        experiment, heard(experiment, encoder), experiment.utterances, out, ABOUT, **options
    )


@pytest.mark.parametrize(("early", "late"), [("arousal", "valence"), ("valence", "arousal")])
def test_what_is_planted_in_layers_is_found_there(tmp_path, experiment, early, late):
    """The claim of oliveira2023 where it holds, and its reverse where that does."""
    encoder = Planted(**{early: (1, 2), late: (4, 5)})
    found = examined(experiment, encoder, tmp_path, names=["arousal", "valence"])
    for name, where in ((early, (1, 2)), (late, (4, 5))):
        target = found["targets"][name]
        for layer in target["layers"]:
            low, high = layer["intervals"]["ccc"]
            assert (low > 0.7) if layer["layer"] in where else (layer["scores"]["ccc"] < 0.3 and low < 0.1)
        assert target["best"]["layer"] in where and set(target["best"]["range"]) <= set(where)
        low, high = target["centre"]["interval"]
        assert where[0] - 0.6 < low <= target["centre"]["value"] <= high < where[1] + 0.6
    (pair,) = found["apart"]
    sign = 1 if early == "arousal" else -1
    assert 1.8 < sign * pair["value"] < 3.5 and pair["low"] * pair["high"] > 0 and pair["p"] < 0.01
    said = layers.to_text(found)
    assert f"{early.capitalize()} lies" in said and f"layers before {late}" in said
    page = (tmp_path / "report.html").read_text()
    assert f"{early.capitalize()} lies" in page and "Ratings: CCC" in page


def test_classes_are_probed_beside_ratings_and_noise_tells_nothing(tmp_path, experiment):
    found = examined(experiment, Planted((), ()), tmp_path)
    assert set(found["targets"]) == {"arousal", "valence", "emotion", "speaker"}
    for name, target in found["targets"].items():
        scores = [layer["scores"][target["score"]] for layer in target["layers"]]
        assert np.mean(scores) == pytest.approx(target["chance"], abs=0.12), name
    held = [
        layer["intervals"][target["score"]][0] <= target["chance"] <= layer["intervals"][target["score"]][1]
        for target in found["targets"].values()
        for layer in target["layers"]
    ]
    assert np.mean(held) > 0.8
    assert found["apart"] == [] and all(target["centre"] is None for target in found["targets"].values())
    assert "it has no centre" in layers.to_text(found)


def test_the_order_of_the_utterances_makes_no_difference(tmp_path, experiment):
    encoder = Planted((1,), (2,))
    source = heard(experiment, encoder)
    orders = (experiment.utterances, experiment.utterances[::-1])
    first, second = (
        layers.examine(experiment, source, order, tmp_path / str(number), ABOUT)
        for number, order in enumerate(orders)
    )
    assert first == second


def rows(source, utterances, pooling="mean"):
    store = Store()
    features.extract(source, utterances, pooling, store, lambda _: None)
    return np.stack([store.get(key) for key in features.keys(source, utterances, pooling)])


@pytest.mark.parametrize("family", ["wav2vec2", "wavlm", "compact"])
def test_batches_make_no_difference_and_pooling_is_over_the_real_frames(tiny_encoder, experiment, family):
    """Against the encoder on each recording alone, and a second formula of mean and deviation."""
    from sertone.nn.compact import CompactEncoderConfig
    from sertone.nn.huggingface import PretrainedEncoderConfig

    if family == "compact":
        encoder = CompactEncoderConfig(width=16, depth=2, attention_heads=2).build()
    else:
        encoder = PretrainedEncoderConfig(source=str(tiny_encoder(family))).build()
    source, utterances = heard(experiment, encoder), experiment.utterances[:12]
    means, statistics = rows(source, utterances), rows(source, utterances, "statistics")
    assert means.shape == (12, encoder.depth + 1, encoder.width) and means.dtype == np.float32
    for own, both, utterance in zip(means, statistics, utterances, strict=True):
        with torch.no_grad():
            hidden, frames = source.states([utterance])
        alone = hidden[0, :, : frames[0]].numpy()
        np.testing.assert_allclose(own, alone.mean(1), atol=1e-5)
        np.testing.assert_allclose(both, np.concatenate([own, np.sqrt(alone.var(1) + 1e-5)], -1), atol=2e-5)


def test_features_follow_from_encoder_samples_and_pooling(experiment):
    first = heard(experiment, Planted((1,), (2,)))
    keys = features.keys(first, experiment.utterances, "mean")
    assert len(set(keys)) == len(keys)
    assert keys == features.keys(heard(experiment, Planted((1,), (2,))), experiment.utterances, "mean")
    others = [heard(experiment, Planted((1,), (3,))), heard(experiment, Planted((1,), (2,)))]
    with torch.no_grad():
        others[1].encoder.mixing[0, 0, 0] += 1
    others[1] = heard(experiment, others[1].encoder)
    for other in others:
        assert not set(keys) & set(features.keys(other, experiment.utterances, "mean"))
    assert not set(keys) & set(features.keys(first, experiment.utterances, "statistics"))


def test_what_is_done_is_kept_and_only_what_changed_is_done_again(tmp_path, experiment):
    encoder, said = Planted((1,), (2,)), []
    first = examined(experiment, encoder, tmp_path, names=["arousal"])
    names = [tmp_path / "probes" / f"{layer}.json" for layer in range(DEPTH + 1)]
    before = [(path.stat().st_mtime_ns, path.read_text()) for path in names]
    size = (tmp_path / "features.store").stat().st_size
    assert examined(experiment, encoder, tmp_path, names=["arousal"], say=said.append) == first
    assert before == [(path.stat().st_mtime_ns, path.read_text()) for path in names]
    assert said == ["features of 160 utterances are there already", "probes of 7 layers are there already"]
    names[3].write_text("{")
    assert examined(experiment, encoder, tmp_path, names=["arousal"]) == first
    both = examined(experiment, encoder, tmp_path, names=["arousal", "valence"])
    assert both["targets"]["arousal"] == first["targets"]["arousal"]
    assert (tmp_path / "features.store").stat().st_size == size
    kept = json.loads(names[0].read_text())
    assert kept["arousal"] == json.loads(before[0][1])["arousal"] and "valence" in kept


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


def command(*arguments, cwd, **options):
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "sertone", "layers", *map(str, arguments)],
        cwd=cwd,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def test_the_command(tmp_path, small_demo):
    recipe = recipe_file(tmp_path, small_demo)
    done = command(recipe, "--targets", "arousal", "emotion", cwd=tmp_path)
    out, err = done.communicate()
    assert done.returncode == 0, err
    assert "warning  the encoder compact is not pretrained: its weights are random" in err
    assert re.search(r"features: 40 of 40 utterances, .* a second, 0 s left", err)
    assert "CCC arousal" in out and "UA emotion" in out and "report  runs/layers-mine/report.html" in out
    folder = tmp_path / "runs" / "layers-mine"
    found = json.loads((folder / "layers.json").read_text())
    with open(folder / "layers.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * 3
    for line in lines:
        layer = found["targets"][line["target"]]["layers"][int(line["layer"])]
        assert float(line["value"]) == layer["scores"][line["score"]] and len(layer["penalties"]) == 2
        assert [float(line["low"]), float(line["high"])] == layer["intervals"][line["score"]]
    page = (folder / "report.html").read_text()
    assert "its weights are random" in page and page.count("<svg") == 2
    assert sertone.layers(recipe, folder, targets=["arousal", "emotion"]) == found


def test_text_is_probed_as_well(tmp_path, small_demo, capsys):
    recipe = recipe_file(tmp_path, small_demo, READER)
    found = sertone.layers(recipe, tmp_path / "out", targets=["valence", "emotion"], encoder="text")
    assert found["depth"] == 2 and found["modality"] == "text" and found["encoder"] == "tiny"
    assert len(found["warnings"]) == 2 and "subwords" in capsys.readouterr().err
    assert all(len(target["layers"]) == 3 for target in found["targets"].values())


def test_rows_of_text_are_means_over_its_tokens(tmp_path, small_demo):
    experiment = prepare(
        Recipe.model_validate(yaml.safe_load(recipe_file(tmp_path, small_demo, READER).read_text()))
    )
    source, utterances = features.source(experiment, "text", lambda _: None)
    found = rows(source, utterances)
    for own, utterance in zip(found, utterances, strict=True):
        with torch.no_grad():
            hidden, counts = source.states([utterance])
        np.testing.assert_allclose(own, hidden[0, :, : counts[0]].mean(1), atol=1e-5)


def test_a_killed_extraction_goes_on_and_ends_with_the_same_bits(tmp_path, small_demo, tiny_encoder, capsys):
    """SIGKILL in the middle of a real process; what it had written is not written again."""
    model = {"name": "baseline", "encoder": {"name": "pretrained", "source": str(tiny_encoder())}}
    recipe = recipe_file(tmp_path, small_demo, model)
    found = sertone.layers(recipe, tmp_path / "whole", targets=["arousal"])
    whole = (tmp_path / "whole" / "features.store").read_bytes()
    killed = command(recipe, "--targets", "arousal", "--out", "killed", cwd=tmp_path)
    store = tmp_path / "killed" / "features.store"
    while killed.poll() is None and (not store.is_file() or store.stat().st_size < len(whole) * 0.6):
        time.sleep(0.0005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    before = store.read_bytes()
    end = int.from_bytes(before[8:16], "little")
    assert 0.5 * len(whole) < end < len(whole), "killed in the middle"
    capsys.readouterr()
    assert sertone.layers(recipe, tmp_path / "killed", targets=["arousal"]) == found
    there, left = re.findall(
        r"features.* (\d+) (?:utterances are|of \d+ utterances)", capsys.readouterr().err
    )
    assert int(there) > 0 and int(there) + int(left) == 40
    assert store.read_bytes()[16:end] == before[16:end] and store.read_bytes() == whole


@pytest.fixture(scope="module")
def weighted(tmp_path_factory, small_demo):
    """A run of two folds whose models learn weights for their layers."""
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

    (own,) = layer_weights.learned(weighted)
    raw = [
        load_file(path)["fusion.weights"] for path in sorted(weighted.glob("fold_*/checkpoint/*.safetensors"))
    ]
    expected = np.stack([np.exp(w.numpy()) / np.exp(w.numpy()).sum() for w in raw])
    assert own["module"] == "fusion" and own["target"] == "" and len(own["models"]) == 2
    np.testing.assert_allclose(own["mean"], expected.mean(0), atol=1e-6)
    np.testing.assert_allclose(own["spread"], np.abs(expected[0] - expected[1]) / np.sqrt(2), atol=1e-6)
    assert layer_weights.learned(weighted / "fold_0")[0]["spread"] is None


def test_a_weighted_sum_named_after_a_target_belongs_to_it():
    model = nn.Module()
    model.fusions = nn.ModuleDict({"valence": WeightedSum(3, 4), "shared": WeightedSum(3, 4)})
    named = {
        name: module.weights.softmax(0).detach().numpy()[None]
        for name, module in model.named_modules()
        if isinstance(module, WeightedSum)
    }
    found = {
        own["module"]: own["target"] for own in (layer_weights._summary(*item) for item in named.items())
    }
    assert found == {"fusions.valence": "valence", "fusions.shared": ""}


def test_learned_weights_stand_beside_the_probes(tmp_path, small_demo, weighted):
    found = sertone.layers(
        recipe_file(tmp_path, small_demo), tmp_path / "out", targets=["emotion"], weights=weighted
    )
    assert found["weights"] == layer_weights.learned(weighted)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Learned weights" in page and "no relevance by itself" in page


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"targets": ["mood"]}, "unknown_target", "some of arousal, valence"),
        ({"encoder": "text"}, "no_text_encoder", "reads no text"),
        ({"overrides": ["model.encoder.name=nothing"]}, "bad_recipe", "encoder"),
        ({"weights": "nowhere"}, "not_a_checkpoint", "nowhere"),
    ],
)
def test_errors_say_the_way_out(tmp_path, small_demo, options, code, words):
    with pytest.raises(SertoneError, match=words) as caught:
        sertone.layers(recipe_file(tmp_path, small_demo), tmp_path / "out", **options)
    assert caught.value.code == code


def test_labels_that_are_not_there_are_named(tmp_path, experiment):
    for name, code in (("gender", "no_labels"), ("dominance", "no_scale")):
        with pytest.raises(SertoneError, match=name) as caught:
            examined(experiment, Planted((1,), (2,)), tmp_path, names=[name])
        assert caught.value.code == code


def test_models_without_layer_weights_are_refused(tmp_path, demo_recipe):
    cross_validate(demo_recipe(), tmp_path / "run", jobs=1, quiet=True)
    with pytest.raises(SertoneError, match="no weighted sum") as caught:
        layer_weights.learned(tmp_path / "run" / "fold_0")
    assert caught.value.code == "no_layer_weights"


def test_the_folder_of_a_run_is_not_written_over(tmp_path, experiment):
    (tmp_path / "report.html").write_text("a run")
    with pytest.raises(SertoneError, match="use --out"):
        examined(experiment, Planted((1,), (2,)), tmp_path)
    assert (tmp_path / "report.html").read_text() == "a run"


def test_official_partitions_test_the_test_side_alone(tmp_path, spoken):
    """Training and validation sides together train; nobody of theirs is scored."""
    lines = spoken.read_text().splitlines()
    side = {**{f"s{n}": "train" for n in range(5)}, "s5": "validation", "s6": "validation"}
    table = [lines[0] + ",split", *(f"{line},{side.get(line.split(',')[1], 'test')}" for line in lines[1:])]
    path = spoken.with_name("official.csv")
    path.write_text("\n".join(table) + "\n")
    recipe = Recipe.model_validate(
        {
            "data": {"corpus": "manifest", "root": str(path), "scales": {"arousal": [1, 5]}},
            "protocol": {"split": "official"},
            "model": {"name": "baseline", "encoder": TINY_MODEL["encoder"]},
            "train": {"batch_size": 8, "device": "cpu"},
        }
    )
    found = examined(prepare(recipe), Planted((1, 2), ()), tmp_path, names=["arousal"])["targets"]["arousal"]
    assert found["speakers"] == 3 and found["utterances"] == 48 and len(found["layers"][1]["penalties"]) == 1
    assert found["layers"][1]["scores"]["ccc"] > 0.7


def test_processes_probe_as_one_does(tmp_path, experiment):
    encoder = Planted((1,), (2,))
    alone = examined(experiment, encoder, tmp_path / "one", names=["arousal"], jobs=1)
    together = examined(experiment, encoder, tmp_path / "two", names=["arousal"], jobs=2)
    for own, other in zip(
        alone["targets"]["arousal"]["layers"], together["targets"]["arousal"]["layers"], strict=True
    ):
        assert own["scores"] == pytest.approx(other["scores"], abs=1e-5)
        assert own["penalties"] == other["penalties"]


def test_the_benchmark_runs(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(REPOSITORY / "bench"))
    bench = importlib.import_module("layers")
    monkeypatch.setattr(sys, "argv", ["layers.py", "--utterances", "300", "--layers", "2", "--width", "24"])
    bench.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(found["seconds_of_25"]) == {"arousal", "emotion", "all"}
    assert all(
        found["seconds_of_25"][name] == pytest.approx(12.5 * s) for name, s in found["seconds"].items()
    )

"""Probes of layers: planted information is found in its layers, in any order, with any number of processes."""

import importlib
import itertools
import json
import sys

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, TINY_MODEL
from torch import nn

from sertone.analysis.layers import features, linear_probes, probe_layers
from sertone.analysis.layers.targets import build_targets
from sertone.errors import SertoneError
from sertone.nn.encoders.base import Encoder, Footprint
from sertone.recipe import Recipe
from sertone.training.data.recordings import Recordings
from sertone.training.experiment.experiment import prepare
from sertone.training.fit import distributed

FRAME, DEPTH, WIDTH = 320, 6, 12


class Planted(Encoder):
    """Encoder whose layers are different noise made from the recording; some carry its level or offset.

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

    def footprint(self, fused):
        return Footprint(FRAME, 0, WIDTH, 4.0)

    def front(self, waveforms, lengths):
        frames = waveforms[:, : waveforms.shape[1] // FRAME * FRAME].unflatten(1, (-1, FRAME))
        return frames, torch.div(lengths, FRAME, rounding_mode="floor")

    def embed(self, features, mask):
        offset, level = features.mean(-1, keepdim=True), features.std(-1, keepdim=True)
        self.seen = {"level": level * 40, "offset": offset * 40}
        self.noise = torch.einsum("btf,lfd->lbtd", (features - offset) / (level + 1e-6), self.mixing)
        return self._state(0)

    def _state(self, index):
        planted = sum(self.seen[name] for name, layers in self.where.items() if index in layers)
        return self.noise[index] + planted * torch.linspace(-1, 1, WIDTH)

    def context(self, mask):
        return {}

    def layer(self, index, hidden, context):
        return self._state(index)

    def parts(self):
        return [[self]] + [[] for _ in range(DEPTH)]


def build_source(experiment, encoder):
    recordings = Recordings(1.0)
    recordings.load(experiment.utterances)
    return features.ProbedSpeechEncoder(encoder, recordings, distributed.make_fabric(experiment.recipe.train))


ABOUT = {"encoder": "planted", "modality": "audio", "warnings": [], "weights": [], "weights_of": ""}


def probe_planted(experiment, encoder, out, **options):
    return probe_layers.probe_encoder(
        experiment, build_source(experiment, encoder), experiment.utterances, out, ABOUT, **options
    )


@pytest.mark.parametrize(("early", "late"), [("arousal", "valence"), ("valence", "arousal")])
def test_planted_information_is_found_in_its_layers(tmp_path, experiment, early, late):
    """The claim of oliveira2023 is found where it holds, and its reverse where that holds."""
    encoder = Planted(**{early: (1, 2), late: (4, 5)})
    results = probe_planted(experiment, encoder, tmp_path, target_names=["arousal", "valence"])
    for name, expected_layers in ((early, (1, 2)), (late, (4, 5))):
        target = results["targets"][name]
        for layer in target["layers"]:
            low, high = layer["intervals"]["ccc"]
            assert (
                (low > 0.7)
                if layer["layer"] in expected_layers
                else (layer["scores"]["ccc"] < 0.3 and low < 0.1)
            )
        assert target["best"]["layer"] in expected_layers and set(target["best"]["range"]) <= set(
            expected_layers
        )
        low, high = target["centre"]["interval"]
        assert expected_layers[0] - 0.6 < low <= target["centre"]["value"] <= high < expected_layers[1] + 0.6
    (pair,) = results["apart"]
    sign = 1 if early == "arousal" else -1
    assert 1.8 < sign * pair["value"] < 3.5 and pair["low"] * pair["high"] > 0 and pair["p"] < 0.01
    text = probe_layers.to_text(results)
    assert f"{early.capitalize()} lies" in text and f"layers before {late}" in text
    page = (tmp_path / "report.html").read_text()
    assert f"{early.capitalize()} lies" in page and "Ratings: CCC" in page


def test_classes_are_probed_beside_ratings_and_noise_scores_chance(tmp_path, experiment):
    results = probe_planted(experiment, Planted((), ()), tmp_path)
    assert set(results["targets"]) == {"arousal", "valence", "emotion", "speaker"}
    for name, target in results["targets"].items():
        scores = [layer["scores"][target["score"]] for layer in target["layers"]]
        assert np.mean(scores) == pytest.approx(target["chance"], abs=0.12), name
    contains_chance = [
        layer["intervals"][target["score"]][0] <= target["chance"] <= layer["intervals"][target["score"]][1]
        for target in results["targets"].values()
        for layer in target["layers"]
    ]
    assert np.mean(contains_chance) > 0.8
    assert results["apart"] == [] and all(target["centre"] is None for target in results["targets"].values())
    assert "it has no centre" in probe_layers.to_text(results)


def test_the_order_of_the_utterances_makes_no_difference(tmp_path, experiment):
    encoder = Planted((1,), (2,))
    source = build_source(experiment, encoder)
    orders = (experiment.utterances, experiment.utterances[::-1])
    first, second = (
        probe_layers.probe_encoder(experiment, source, order, tmp_path / str(number), ABOUT)
        for number, order in enumerate(orders)
    )
    assert first == second


def test_official_partitions_test_only_the_test_set(tmp_path, noises):
    """Training and validation sets together train the probes, and none of their speakers is scored."""
    lines = noises.read_text().splitlines()
    side = {**{f"s{n}": "train" for n in range(5)}, "s5": "validation", "s6": "validation"}
    rows = [f"{noises.parent}/{line},{side.get(line.split(',')[1], 'test')}" for line in lines[1:]]
    path = tmp_path / "official.csv"
    path.write_text("\n".join([lines[0] + ",split", *rows]) + "\n")
    recipe = Recipe.model_validate(
        {
            "data": {"corpus": "manifest", "root": str(path), "scales": {"arousal": [1, 5]}},
            "protocol": {"split": "official"},
            "model": {"name": "baseline", "encoder": TINY_MODEL["encoder"]},
            "train": {"batch_size": 8, "device": "cpu"},
        }
    )
    result = probe_planted(prepare(recipe), Planted((1, 2), ()), tmp_path, target_names=["arousal"])[
        "targets"
    ]["arousal"]
    assert (
        result["speakers"] == 3 and result["utterances"] == 48 and len(result["layers"][1]["penalties"]) == 1
    )
    assert result["layers"][1]["scores"]["ccc"] > 0.7


@pytest.fixture
def add_columns(tmp_path, noises):
    """Return a function that adds columns to the noises: `add(name={speaker: values})` -> Experiment."""

    def write(rule="grouped_k_fold", **columns):
        head, *lines = noises.read_text().splitlines()
        for name, values in columns.items():
            turns = {f"s{n}": itertools.cycle(values.get(f"s{n}", [""])) for n in range(10)}
            head, lines = f"{head},{name}", [f"{line},{next(turns[line.split(',')[1]])}" for line in lines]
        path = tmp_path / "noted.csv"
        path.write_text("\n".join([head, *(f"{noises.parent}/{line}" for line in lines)]) + "\n")
        recipe = {
            "data": {"corpus": "manifest", "root": str(path)},
            "protocol": {"split": rule, "unknown_speakers": "accept"},
            "model": {"name": "baseline", "encoder": TINY_MODEL["encoder"]},
            "train": {"batch_size": 8, "device": "cpu"},
        }
        return prepare(Recipe.model_validate(recipe))

    return write


def build_by_name(experiment, names=None):
    return {target.name: target for target in build_targets(experiment, experiment.utterances, names)}


def test_unknown_speakers_are_no_classes(add_columns):
    """Their utterances are used for all other targets."""
    strangers = {f"s{n}": ["no"] for n in (7, 8, 9)}
    targets = build_by_name(add_columns(known_speaker={f"s{n}": ["yes"] for n in range(7)} | strangers))
    assert (
        targets["speaker"].classes == [f"s{n}" for n in range(7)] and len(targets["speaker"].labels) == 7 * 16
    )
    assert len(targets["emotion"].labels) == 160


def test_a_target_that_cannot_be_probed_is_left_out_unless_requested(add_columns):
    """Two speakers have a known gender. The folds that test one of them train on the other alone."""
    sides = [sorted({u.speaker for u in fold.test}) for fold in add_columns().folds]
    experiment = add_columns(gender={side[0]: ["female", "male"] for side in sides[:2]})
    assert set(build_by_name(experiment)) == {"emotion", "speaker"}
    with pytest.raises(SertoneError, match=f"gender, fold 0: .* {sides[1][0]} alone.*--targets") as caught:
        build_by_name(experiment, ["emotion", "gender"])
    assert caught.value.code == "too_few_speakers"
    pairs = add_columns(gender={speaker: ["female", "male"] for side in sides[:2] for speaker in side})
    assert set(build_by_name(pairs)) == {"emotion", "gender", "speaker"}


def test_chance_is_the_score_of_a_constant_class(add_columns):
    """A third style occurs in training only, so no prediction of it is ever wrong."""
    sides = {f"s{n}": ["train" if n < 6 else "test"] for n in range(10)}
    styles = {f"s{n}": ["read", "free"] for n in range(10)} | {"s0": ["sung", "read"]}
    style = build_by_name(add_columns("official", split=sides, style=styles))["style"]
    assert style.classes == ["free", "read", "sung"] and style.chance == 1 / 2
    always = linear_probes.ProbeOutput(np.zeros_like(style.labels), [1.0])
    assert linear_probes.build_statistics(
        style, linear_probes.sum_by_speaker(style, always)[None]
    ).compute_scores()["ua"] == pytest.approx(style.chance)


def test_several_processes_give_the_same_results(tmp_path, experiment):
    encoder = Planted((1,), (2,))
    alone = probe_planted(experiment, encoder, tmp_path / "one", target_names=["arousal"], jobs=1)
    together = probe_planted(experiment, encoder, tmp_path / "two", target_names=["arousal"], jobs=2)
    for first, second in zip(
        alone["targets"]["arousal"]["layers"], together["targets"]["arousal"]["layers"], strict=True
    ):
        assert first["scores"] == pytest.approx(second["scores"], abs=1e-5)
        assert first["penalties"] == second["penalties"]


def test_the_benchmark_runs(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(REPOSITORY / "bench"))
    bench = importlib.import_module("layers")
    monkeypatch.setattr(sys, "argv", ["layers.py", "--utterances", "300", "--layers", "2", "--width", "24"])
    bench.main()
    results = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(results["seconds_of_25"]) == {"arousal", "emotion", "all"}
    assert all(
        results["seconds_of_25"][name] == pytest.approx(12.5 * s) for name, s in results["seconds"].items()
    )

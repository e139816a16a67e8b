"""Which layer tells what: what is planted in layers is found there, in any order, by any processes."""

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
        planted = sum(self.seen[name] for name, where in self.where.items() if index in where)
        return self.noise[index] + planted * torch.linspace(-1, 1, WIDTH)

    def context(self, mask):
        return {}

    def layer(self, index, hidden, context):
        return self._state(index)

    def parts(self):
        return [[self]] + [[] for _ in range(DEPTH)]


def heard(experiment, encoder):
    recordings = Recordings(1.0)
    recordings.load(experiment.utterances)
    return features.ProbedSpeechEncoder(encoder, recordings, distributed.make_fabric(experiment.recipe.train))


ABOUT = {"encoder": "planted", "modality": "audio", "warnings": [], "weights": [], "weights_of": ""}


def examined(experiment, encoder, out, **options):
    return probe_layers.probe_encoder(
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
    said = probe_layers.to_text(found)
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
    assert "it has no centre" in probe_layers.to_text(found)


def test_the_order_of_the_utterances_makes_no_difference(tmp_path, experiment):
    encoder = Planted((1,), (2,))
    source = heard(experiment, encoder)
    orders = (experiment.utterances, experiment.utterances[::-1])
    first, second = (
        probe_layers.probe_encoder(experiment, source, order, tmp_path / str(number), ABOUT)
        for number, order in enumerate(orders)
    )
    assert first == second


def test_official_partitions_test_the_test_side_alone(tmp_path, noises):
    """Training and validation sides together train; nobody of theirs is scored."""
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
    found = examined(prepare(recipe), Planted((1, 2), ()), tmp_path, names=["arousal"])["targets"]["arousal"]
    assert found["speakers"] == 3 and found["utterances"] == 48 and len(found["layers"][1]["penalties"]) == 1
    assert found["layers"][1]["scores"]["ccc"] > 0.7


@pytest.fixture
def noted(tmp_path, noises):
    """The noises with more columns, a speaker's values in turn: noted(name={speaker: values}) -> Experiment."""

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


def asked(experiment, names=None):
    return {target.name: target for target in build_targets(experiment, experiment.utterances, names)}


def test_unknown_speakers_are_no_classes(noted):
    """Their utterances answer everything else."""
    strangers = {f"s{n}": ["no"] for n in (7, 8, 9)}
    own = asked(noted(known_speaker={f"s{n}": ["yes"] for n in range(7)} | strangers))
    assert own["speaker"].classes == [f"s{n}" for n in range(7)] and len(own["speaker"].labels) == 7 * 16
    assert len(own["emotion"].labels) == 160


def test_a_target_that_cannot_be_probed_is_left_out_unless_asked_for(noted):
    """The folds that test one of the two speakers whose gender is known train on the other alone."""
    sides = [sorted({u.speaker for u in fold.test}) for fold in noted().folds]
    experiment = noted(gender={side[0]: ["female", "male"] for side in sides[:2]})
    assert set(asked(experiment)) == {"emotion", "speaker"}
    with pytest.raises(SertoneError, match=f"gender, fold 0: .* {sides[1][0]} alone.*--targets") as caught:
        asked(experiment, ["emotion", "gender"])
    assert caught.value.code == "too_few_speakers"
    pairs = noted(gender={speaker: ["female", "male"] for side in sides[:2] for speaker in side})
    assert set(asked(pairs)) == {"emotion", "gender", "speaker"}


def test_chance_is_what_the_same_class_always_scores(noted):
    """A third style is heard in training alone, so no answer about it is ever wrong."""
    sides = {f"s{n}": ["train" if n < 6 else "test"] for n in range(10)}
    styles = {f"s{n}": ["read", "free"] for n in range(10)} | {"s0": ["sung", "read"]}
    own = asked(noted("official", split=sides, style=styles))["style"]
    assert own.classes == ["free", "read", "sung"] and own.chance == 1 / 2
    always = linear_probes.ProbeOutput(np.zeros_like(own.labels), [1.0])
    assert linear_probes.build_statistics(
        own, linear_probes.sum_by_speaker(own, always)[None]
    ).compute_scores()["ua"] == pytest.approx(own.chance)


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

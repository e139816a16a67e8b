"""The benchmark: its operation counts, its data, and a run of each script."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModel

from sertone.recipe.train_config import TrainConfig

BENCH = REPOSITORY / "bench"


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))


@pytest.mark.parametrize(
    "shape", [{}, {"feat_extract_norm": "layer", "num_hidden_layers": 3, "hidden_size": 96}]
)
def test_operations_are_those_that_torch_counts(shape):
    from floor import Counts

    config = AutoConfig.for_model("wav2vec2", **shape)
    model = AutoModel.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 48000))
    counts = Counts(config, 48000)
    ours = counts.convolutions + counts.embedding + config.num_hidden_layers * counts.layer
    assert ours == pytest.approx(counter.get_total_flops(), rel=1e-3)
    assert counts.frames == 149


def test_the_speech_has_iemocaps_durations():
    from pairs import plan_bucketed
    from speech import COUNT, Speech, durations

    from sertone.training.data.batches import padding_factor

    found = durations()
    assert len(found) == COUNT == 5531 and found.mean() == pytest.approx(4.55, rel=0.01)
    assert found.min() >= 0.58 and found.max() <= 34.14
    order = np.random.default_rng(1).permutation(COUNT).tolist()
    random_fours = [order[i : i + 4] for i in range(0, COUNT, 4)]
    assert padding_factor(found.tolist(), random_fours) == pytest.approx(1.70, abs=0.03)
    assert plan_bucketed(found.tolist(), 60.0).padding <= 1.05
    speech = Speech(20)
    first = speech.utterances[0]
    assert len(speech.samples(first)) == speech.lengths[first.id]
    assert np.array_equal(speech.samples(first), Speech(20).samples(first))


def test_both_ways_train_the_same_model():
    """The first losses agree, from the same weights, without dropout and padding."""
    from train import TINY
    from ways import TrainingRun, Way

    losses = []
    for usual in (True, False):
        running = TrainingRun(Way("", "wav2vec2", TINY, usual, precision="32-true", device="cpu", scale=0.3))
        model = running.trainer.model
        if usual:
            weights = {k: v.clone() for k, v in model.encoder.hf.state_dict().items()}
            heads = {k: v.clone() for k, v in model.state_dict().items() if not k.startswith("encoder.")}
        else:
            renamed = {
                "feature_extractor.conv_layers": "convolutions",
                "feature_projection": "projection",
                "encoder": "transformer",
            }
            for old, new in renamed.items():
                weights = {
                    (new + k.removeprefix(old)) if k.startswith(f"{old}.") else k: v
                    for k, v in weights.items()
                }
            model.encoder.load_state_dict({k: v for k, v in weights.items() if k != "masked_spec_embed"})
            model.load_state_dict(heads, strict=False)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            elif type(module).__name__.endswith("Attention"):
                module.dropout = 0.0
        running.begin(0)
        running.fill([5])
        losses.append(running.step([5])[1])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
def test_the_benchmark_runs_and_ends_with_one_json_object():
    command = [sys.executable, str(BENCH / "train.py"), "--quick", "--tiny", "--json", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {"speedup_vs_usual", "padding_factor", "floor_fraction", "shares", "device"} <= set(found)
    assert found["speedup_vs_usual"] > 0 and 0 < found["floor_fraction"] < 1
    assert found["padding_factor_60s"] <= 1.1 < found["padding_factor_usual"]
    bf16 = TrainConfig(batch_size=4, precision="auto", device="cpu").precision == "bf16-mixed"
    assert found["precision"] == ("bf16-mixed" if bf16 else "32-true")
    assert set(found["shares"]) - {"precision"} == {"cache", "buckets", "kernels", "side_by_side"}
    assert ("precision" in found["shares"]) == ("loss_distance_bf16" in found) == bf16
    sizes = [found["linear"][f"{k}x"]["cache_gb_per_hour"] for k in (1, 2, 4)]
    assert max(sizes) == pytest.approx(min(sizes), rel=0.02), "the cache grows linearly with the audio"


class Clock:
    """A way that takes a given time for every prediction, and notes its turn."""

    def __init__(self, name, times, turns):
        self.name, self.times, self.turns = name, iter(times), turns

    def predict(self):
        self.turns.append(self.name)
        return next(self.times), None


def test_pairs_swap_their_order_and_count_by_their_median():
    from infer import race

    turns = []
    ratio, usual, own = race(Clock("a", [9, 4, 6, 80], turns), Clock("b", [9, 2, 2, 2], turns), 3)
    assert (ratio, usual, own) == (3, 6, 2)
    assert turns == ["a", "b", "b", "a", "a", "b", "b", "a"]


def test_a_long_recording_is_heard_from_end_to_end(toy):
    """Windows cut by hand give the same probabilities as Sertone's timeline."""
    from backends import Backend, LoadedBackend, make_clip

    samples = make_clip(25.0, seed=3)
    by_hand, ours = (LoadedBackend(Backend(kind, str(toy), 1)) for kind in ("onnxruntime", "sertone"))
    assert np.abs(by_hand._predict_windows(samples) - ours._predict_long(samples)).max() <= 1e-5
    windows = []
    by_hand._predict = lambda clips: windows.append(clips[0]) or np.zeros((1, 4))
    assert by_hand._predict_windows(samples).shape == (3, 4)
    assert np.array_equal(np.concatenate(windows), samples)
    assert np.array_equal(make_clip(25.0, seed=3), samples)
    assert not np.array_equal(make_clip(25.0, seed=4), samples)


@pytest.mark.slow
def test_the_benchmark_of_answers_runs_and_ends_with_one_json_object():
    command = [sys.executable, str(BENCH / "infer.py"), "--tiny", "--pairs", "1", "--json", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    ways = {"fp32", "int8", "bf16", "onnxruntime"}
    assert ways <= set(found["clip"]) and ways <= set(found["directory"]) and ways <= set(found["long"])
    assert all(found["clip"][way]["speed"] > 0 for way in (*ways, "null pair"))
    assert found["agreement"]["fp32"]["largest_difference"] <= 1e-4
    assert found["agreement"]["pipeline, batches of 8"]["largest_difference"] > 1e-3, "padding tells"
    assert all(row["speed"] > 0 and row["s"] > 0 for row in found["whisper"].values())
    assert list(found["whisper"]) == ["3", "10", "30"]
    assert found["megabytes"]["int8"] < found["megabytes"]["fp32"]
    assert 0 < found["memory_mb"]["fp32"] < found["memory_mb"]["pipeline"]


def test_the_first_step_with_the_rates_as_printed_moves_ari_ten_times_as_far(tmp_path):
    from first_steps import change_recipe, load_recipe, train_first_steps, write_miniature

    from sertone.training.experiment.experiment import prepare
    from sertone.training.fit.progress import RunProgress
    from sertone.training.runs.folds import prepare_data

    write_miniature(tmp_path)
    experiment = prepare(load_recipe(tmp_path, tiny=True, device="cpu"))
    material = prepare_data(experiment, RunProgress(0, quiet=True))
    losses, ratios = [], {}
    for fusion, rates in (
        ("ari_full", "power_of_ten"),
        ("ari_full", "printed"),
        ("ari_diagonal", "printed"),
    ):
        recipe = change_recipe(experiment.recipe, fusion, rates)
        loss, ratios[fusion, rates] = train_first_steps(experiment.with_recipe(recipe), material, 1)
        losses += loss
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-3)  # the same start: H = H_12
    full = ratios["ari_full", "printed"]
    assert full == pytest.approx(10 * ratios["ari_full", "power_of_ten"], rel=0.2)
    assert full > 5 * ratios["ari_diagonal", "printed"] > 0


@pytest.mark.slow
def test_the_benchmark_of_encoders_runs_and_ends_with_one_json_object():
    command = [sys.executable, str(BENCH / "encoders.py"), "--tiny", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])["encoders"]
    assert len(rows) == 12
    for row in rows.values():
        assert row["parameters"] > 1e6 and row["memory_mb"] > 4 * row["parameters"] / 1e6
        assert row["seconds_per_hour"] > 0

"""Fine-tuning: rates by layer, large batches in parts, averages of the weights."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import clips, padded
from hypothesis import given, settings
from hypothesis import strategies as st
from training_runs import change_training, interrupt, load_weights, train_first_fold

from sertone import models
from sertone.labels import FOUR_CLASSES
from sertone.nn.batch import Batch
from sertone.nn.vocabulary import Vocabulary
from sertone.recipe.train_config import TrainConfig
from sertone.schema import Utterance
from sertone.training.fit import distributed
from sertone.training.fit.averaging import WeightAverage
from sertone.training.fit.epoch_statistics import EpochStatistics
from sertone.training.fit.optimizer import make_optimizer
from sertone.training.fit.step import Stepper

EMOTIONS = ["happy", "sad", "angry", "neutral"]
ROWS = [
    Utterance(
        id=f"u{n}",
        path=Path("x"),
        speaker=f"s{n % 2}",
        text="yes" if n % 3 else None,
        labels={"emotion": EMOTIONS[n % 4 if n % 5 else 0]} if n != 7 else {},
    )
    for n in range(12)
]
NOISE = clips(*(9000 + 977 * n for n in range(12)))
VOCABULARY = Vocabulary.from_utterances(ROWS, FOUR_CLASSES)
WAN = {
    "name": "wan2025",
    "encoder": {"name": "compact", "width": 16, "depth": 2, "dropout": 0.0},
    "tasks": {"gender": 0.0, "speaker": 0.5, "style": 0.0, "asr": 0.7},
    "hidden": 8,
    "dropout": 0.0,
    "frozen_layers": 0,
}


def make_stepper(values, **train):
    config = TrainConfig.model_validate({"batch_size": 4, "device": "cpu"} | train)
    torch.manual_seed(0)
    model = models.build(values, VOCABULARY)
    head = model.heads["emotion"]
    head.class_weights.copy_(torch.tensor([0.5, 1.0, 2.0, 3.0]))
    stepper = Stepper(model, model.stages()[-1], config, distributed.make_fabric(config))
    stepper.begin_epoch()
    return stepper


def make_batch(rows, tasks):
    """Return a batch of noise; each utterance has its own length and samples."""
    waveforms = [NOISE[ROWS.index(row)] for row in rows]
    targets = {task: VOCABULARY.make_targets(task, rows) for task in tasks}
    return Batch(*padded(waveforms), targets)


def gradients_of(stepper, parts):
    tasks = list(stepper.stage.weights)
    statistics = EpochStatistics(5)
    stepper.step([make_batch(part, tasks) for part in parts], 1.0, parts, statistics)
    gradients = {n: p.grad for n, p in stepper.model.named_parameters() if p.grad is not None}
    return gradients, statistics.summarise()


# Rates by layer


@pytest.mark.parametrize("family", ["wav2vec2", "whisper", "sew"])
def test_the_rate_falls_from_layer_to_layer(family):
    values = {"name": "baseline", "encoder": {"name": "tiny", "family": family, "depth": 3}}
    rates = {"encoder": 2e-4, "downstream": 1e-3}
    stepper = make_stepper(values, layer_decay=0.5, learning_rate=rates)
    encoder = stepper.model.encoder
    peaks = {name: group["peak"] for group in stepper.optimizer.param_groups for name in group["param_names"]}
    assert set(peaks) == {name for name, p in stepper.model.named_parameters() if p.requires_grad}
    expected = {}
    for layer, modules in enumerate(encoder.parts()):
        for module in modules:
            expected |= {id(p): 2e-4 * 0.5 ** (3 - layer) for p in module.parameters()}
    names = {name: id(p) for name, p in stepper.model.named_parameters()}
    for name, peak in peaks.items():
        assert peak == pytest.approx(expected.get(names[name], 1e-3))
    assert len(set(peaks.values())) == 4  # three layers and the head
    layers = "encoder.layers" if family == "whisper" else "encoder.transformer.layers"
    for layer, peak in ((2, 2e-4), (1, 1e-4), (0, 5e-5)):
        found = [peaks[name] for name in peaks if name.startswith(f"{layers}.{layer}.")]
        assert found and found == pytest.approx([peak] * len(found))
    gradients_of(stepper, [ROWS[:4]])
    assert stepper.rates == {"encoder": pytest.approx(2e-4), "downstream": pytest.approx(1e-3)}


def test_an_encoder_without_frozen_parts_has_a_rate_for_its_front_end_too():
    model = models.build({"name": "baseline", "encoder": {"name": "tiny"}, "frozen_layers": -1}, VOCABULARY)
    model.encoder.freeze(-1)
    config = TrainConfig(batch_size=4, layer_decay=0.5)
    peaks = [group["peak"] for group in make_optimizer(model, config).param_groups]
    assert peaks == pytest.approx([1e-4, 5e-5, 2.5e-5, 1e-3])


# Large batches in parts


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=4, unique=True))
def test_accumulated_gradients_are_those_of_the_large_batch(bounds):
    """With class weights, missing labels and transcripts, and parts of any size."""
    bounds = [0, *sorted(bounds)]
    parts = [ROWS[first:last] for first, last in pairwise(bounds)]
    whole, entry = gradients_of(make_stepper(WAN, clip_norm=1e9), [[u for part in parts for u in part]])
    sums, parts_entry = gradients_of(make_stepper(WAN, clip_norm=1e9), parts)
    assert whole.keys() == sums.keys()
    largest = max(g.abs().max() for g in whole.values())
    for name, gradient in whole.items():
        torch.testing.assert_close(sums[name], gradient, atol=float(1e-5 * largest), rtol=1e-4)
    for key in ("loss", "loss_emotion", "loss_speaker", "loss_asr", "gradient_norm"):
        assert parts_entry[key] == pytest.approx(entry[key], rel=1e-4)


def test_one_step_takes_several_batches_of_the_plan(demo_recipe, tmp_path, monkeypatch):
    counts = []
    step = Stepper.step

    def count(self, batches, progress, utterances, statistics):
        counts.append([len(rows) for rows in utterances])
        assert [len(batch.lengths) for batch in batches] == counts[-1]
        step(self, batches, progress, utterances, statistics)

    monkeypatch.setattr(Stepper, "step", count)
    recipe = demo_recipe(
        {"name": "baseline", "encoder": {"name": "tiny"}}, epochs=[1], accumulate=3, batch_size=2
    )
    trainer = train_first_fold(recipe, tmp_path)
    assert sum(map(sum, counts)) == len(trainer.fold.train)
    assert {len(rows) for rows in counts[:-1]} == {3} and 1 <= len(counts[-1]) <= 3
    assert trainer.history[0]["batches"] == sum(map(len, counts))


def test_a_batch_without_a_label_of_a_task_adds_nothing_to_its_loss():
    unlabelled, labelled = [ROWS[7]], [ROWS[1]]
    together, _ = gradients_of(make_stepper(WAN, clip_norm=1e9), [labelled, unlabelled])
    alone, _ = gradients_of(make_stepper(WAN, clip_norm=1e9), [labelled])
    name = "heads.emotion.output.1.weight"
    torch.testing.assert_close(together[name], alone[name], atol=1e-6, rtol=1e-5)


# Average of the weights


@torch.no_grad()
def test_the_average_is_the_sum_of_its_formula():
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 2)
    module.bias.requires_grad_(False)
    average = WeightAverage(module, 0.9)
    expected, bias = module.weight.numpy().copy(), module.bias.clone()
    for step in range(1, 41):
        module.weight += torch.randn_like(module.weight)
        average.update()
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * module.weight.numpy()
    current = module.weight.clone()
    with average.applied():
        np.testing.assert_allclose(module.weight.numpy(), expected, rtol=1e-5)
    assert torch.equal(module.weight, current) and torch.equal(module.bias, bias)
    again = WeightAverage(module, 0.9)
    again.load_state_dict({name: tensor.clone() for name, tensor in average.state_dict().items()})
    for one in (average, again):
        one.update()
    assert all(
        torch.equal(a, b) for a, b in zip(average.averages.values(), again.averages.values(), strict=True)
    )


@pytest.mark.parametrize("validation", ["none", "speaker"])
def test_the_average_is_kept_and_a_resumed_training_has_the_same(
    demo_recipe, tmp_path, monkeypatch, validation
):
    tiny = {"name": "baseline", "encoder": {"name": "tiny"}, "hidden": 8}
    protocol = {"validation": validation} if validation == "speaker" else {}
    recipe = demo_recipe(tiny, protocol, epochs=[3], save_every=1, ema=0.8)
    averages = []
    swap = WeightAverage.swap

    def note(self):
        averages.append({name: tensor.clone() for name, tensor in self.averages.items()})
        swap(self)

    with monkeypatch.context() as patch:
        patch.setattr(WeightAverage, "swap", note)
        trainer = train_first_fold(recipe, tmp_path / "whole")
    weights = load_weights(tmp_path / "whole")
    # A swap and a swap back per epoch, and without validation one in the end.
    best = int(np.argmax([entry["score"] for entry in trainer.history])) if validation == "speaker" else 3
    assert all(torch.equal(weights[name], tensor) for name, tensor in averages[2 * best].items())
    interrupt(monkeypatch, recipe, tmp_path / "parts", 2)
    train_first_fold(recipe, tmp_path / "parts")
    assert all(torch.equal(weights[name], t) for name, t in load_weights(tmp_path / "parts").items())
    plain = change_training(recipe, ema=None)
    train_first_fold(plain, tmp_path / "plain")
    other = load_weights(tmp_path / "plain")
    assert any(not torch.equal(weights[name], other[name]) for name in weights)


@pytest.mark.parametrize("stopped_after", [1, 3])
def test_an_interrupted_training_of_two_stages_with_everything_ends_with_the_same_weights(
    demo_recipe, tmp_path, monkeypatch, stopped_after
):
    model = WAN | {
        "encoder": {"name": "tiny"},
        "dropout": 0.2,
        "pooling": "standardised",
        "fusion": "weighted_sum",
    }
    recipe = demo_recipe(
        model | {"frozen_layers": 1}, epochs=[2, 2], save_every=1, device="cpu", batch_size=4, accumulate=2,
        layer_decay=0.8, ema=0.7, lora={"rank": 2, "dropout": 0.1}, sampling="balanced", focal_gamma=2.0,
        precision="16-mixed",
    )  # fmt: skip
    train_first_fold(recipe, tmp_path / "whole")
    interrupt(monkeypatch, recipe, tmp_path / "parts", stopped_after)
    train_first_fold(recipe, tmp_path / "parts")
    whole, parts = (load_weights(tmp_path / name) for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)

"""Half precision: products in fp16 or bf16, waveforms and sums in fp32, scaled losses."""

import copy
import json
import math

import pytest
import torch
from test_fine_tuning import ROWS, VOCABULARY, WAN, gradients_of, make_batch, make_stepper
from training_runs import interrupt, load_weights, train_first_fold

from sertone import models
from sertone.errors import SertoneError
from sertone.nn.masks import masked_statistics
from sertone.recipe.train_config import TrainConfig
from sertone.training.fit import distributed
from sertone.training.fit.epoch_statistics import EpochStatistics
from sertone.training.fit.step import Stepper


def record_dtypes(model):
    """Return a mapping that a forward pass fills: the dtypes of the waveforms and of the emotion head's product."""
    dtypes = {}
    front = model.encoder.front
    product = model.heads["emotion"].inner[1]

    def record_input(waveforms, lengths):
        dtypes["waveforms"] = waveforms.dtype
        return front(waveforms, lengths)

    model.encoder.front = record_input
    product.register_forward_hook(lambda module, inputs, output: dtypes.update(product=output.dtype))
    return dtypes


@pytest.mark.parametrize(
    "precision, product",
    [("16-mixed", torch.float16), ("bf16-mixed", torch.bfloat16), ("32-true", torch.float32)],
)
def test_waveforms_are_not_rounded(precision, product):
    """Predictions and cached prefixes come from exact waveforms, so a training step must, too."""
    stepper = make_stepper(WAN, precision=precision)
    dtypes = record_dtypes(stepper.model)
    gradients_of(stepper, [ROWS[:4]])
    assert dtypes == {"waveforms": torch.float32, "product": product}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_over_a_long_clip_stay_finite(dtype):
    """2 000 frames of 60 add up to 120 000, which fp16 does not hold; neither does it hold the square of 300."""
    features = torch.full((1, 2000, 2), 60.0, dtype=dtype)
    features[:, ::2, 1] = 660.0
    statistics = masked_statistics(features, torch.tensor([2000]))
    torch.testing.assert_close(statistics[0], torch.tensor([60.0, 360.0, 0.0, 300.0]), atol=0.5, rtol=0.0)


def test_fp16_computes_in_half_precision_and_scales_the_loss():
    stepper = make_stepper(WAN, precision="16-mixed")
    dtypes = record_dtypes(stepper.model)
    assert stepper.loss_scaler.get_scale() > 1
    gradients, entry = gradients_of(stepper, [ROWS[:4]])
    exact, _ = gradients_of(make_stepper(WAN), [ROWS[:4]])
    assert dtypes["product"] == torch.float16
    assert math.isfinite(entry["loss"]) and entry["skipped_steps"] == 0
    assert entry["gradient_norm"] < 100, "the norm is that of the gradient before scaling"
    largest = max(g.abs().max() for g in exact.values())
    for name, gradient in exact.items():
        torch.testing.assert_close(gradients[name], gradient, atol=float(0.05 * largest), rtol=0.05)


def test_a_scale_that_is_too_large_skips_the_step_and_is_halved():
    stepper = make_stepper(WAN, precision="16-mixed")
    stepper.loss_scaler.load_state_dict(stepper.loss_scaler.state_dict() | {"scale": 2.0**100})
    before = copy.deepcopy(stepper.model.state_dict())
    statistics = EpochStatistics(max_bad_steps=1)
    for _ in range(3):
        tasks = list(stepper.stage.weights)
        stepper.step([make_batch(ROWS[:4], tasks)], 1.0, [ROWS[:4]], statistics)
    assert statistics.skipped == 3 and statistics.bad_in_a_row == 0
    assert stepper.loss_scaler.get_scale() == 2.0**97
    assert all(torch.equal(before[name], tensor) for name, tensor in stepper.model.state_dict().items())


def test_a_gradient_that_is_no_number_is_a_bad_step_once_the_scale_cannot_be_the_reason():
    statistics, losses = EpochStatistics(max_bad_steps=2), {"emotion": torch.tensor(1.0)}
    nan = torch.tensor(math.nan)
    for scale in (65536.0, 2.0):
        assert not statistics.add_step(losses, losses["emotion"], nan, ROWS[:1], scale)
    assert statistics.bad_in_a_row == 0 and statistics.skipped == 2
    statistics.add_step(losses, losses["emotion"], nan, ROWS[:1], 1.0)
    with pytest.raises(SertoneError, match="2 steps in a row"):
        statistics.add_step(losses, losses["emotion"], nan, ROWS[:1], 0.5)
    with pytest.raises(SertoneError, match="1 step in a row"):  # a loss that is no number always is
        EpochStatistics(max_bad_steps=1).add_step(losses, nan, nan, ROWS[:1], 65536.0)


def test_every_stage_begins_with_the_same_scale():
    config = TrainConfig(batch_size=4, device="cpu", precision="16-mixed")
    model, fabric = models.build(WAN, VOCABULARY), distributed.make_fabric(config)
    first = Stepper(model, model.stages()[0], config, fabric).loss_scaler
    scale = first.get_scale()
    first.load_state_dict(first.state_dict() | {"scale": 4.0})
    assert Stepper(model, model.stages()[1], config, fabric).loss_scaler.get_scale() == scale


def test_an_interrupted_training_in_fp16_keeps_its_scale(demo_recipe, tmp_path, monkeypatch):
    tiny = {"name": "baseline", "encoder": {"name": "tiny"}, "hidden": 8}
    recipe = demo_recipe(tiny, epochs=[3], save_every=1, precision="16-mixed", device="cpu")
    train_first_fold(recipe, tmp_path / "whole")
    interrupt(monkeypatch, recipe, tmp_path / "parts", 2)
    train_first_fold(recipe, tmp_path / "parts")
    whole, parts = (load_weights(tmp_path / name) for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    states = [sorted((tmp_path / n / "resume").glob("*/state.json"))[-1] for n in ("whole", "parts")]
    scales = [json.loads(path.read_text())["loss_scale"] for path in states]
    assert scales[0] == scales[1] and scales[0]["scale"] > 1 and scales[0]["_growth_tracker"] > 0


def test_the_run_says_that_it_is_in_fp16():
    assert TrainConfig(batch_size=1, precision="16-mixed").arithmetic == "in fp16 and fp32"

"""LoRA: adapters start without effect, are what is trained, and end as part of the weights."""

import copy
import json
import re
import sys

import pytest
import torch
import yaml
from conftest import REPOSITORY, SMALL_EMOTION2VEC, clips, padded
from safetensors.torch import load_file
from training_runs import interrupt, load_weights, train_first_fold

from sertone import models
from sertone.analysis import info
from sertone.errors import SertoneError
from sertone.nn.adapters import add_lora, merge_lora
from sertone.nn.encoders.compact import CompactEncoderConfig
from sertone.nn.encoders.emotion2vec import Emotion2vecArchitectureConfig
from sertone.nn.encoders.huggingface import FAMILIES, TinyEncoderConfig
from sertone.recipe.train_parts import LoraConfig
from sertone.training.experiment.experiment import prepare
from sertone.training.fit.progress import RunProgress
from sertone.training.runs.folds import prepare_data

ENCODERS = {family: TinyEncoderConfig(family=family) for family in FAMILIES}
ENCODERS["layer norm"] = TinyEncoderConfig(norm="layer")
ENCODERS["emotion2vec"] = Emotion2vecArchitectureConfig.model_validate(SMALL_EMOTION2VEC)
EVERYWHERE = LoraConfig(rank=3, alpha=6, where=["attention", "feed_forward"])
BASELINE = {"name": "baseline", "encoder": {"name": "tiny"}, "hidden": 8}


def adapters(encoder):
    """Return name of each adapted module -> the module."""
    return {name: module for name, module in encoder.named_modules() if hasattr(module, "lora_A")}


def move(encoder):
    """Give the adapters values, as training does."""
    draw = torch.Generator().manual_seed(1)
    for module in adapters(encoder).values():
        weight = module.lora_B["default"].weight
        weight.data = 0.3 * torch.randn(weight.shape, generator=draw)


@pytest.fixture(params=ENCODERS)
def encoder(request):
    torch.manual_seed(0)
    return ENCODERS[request.param].build().eval()


@torch.no_grad()
def test_adapters_change_nothing_at_first_and_add_their_product_in_the_end(encoder):
    inputs = padded(clips(9000, 6000))
    plain, names = encoder(*inputs)[0], list(encoder.state_dict())
    expected = copy.deepcopy(encoder)
    add_lora(encoder, EVERYWHERE, -1, seed=0)
    torch.testing.assert_close(encoder(*inputs)[0], plain, atol=1e-6, rtol=1e-6)
    move(encoder)
    for name, module in adapters(encoder).items():
        first, second = module.lora_A["default"].weight, module.lora_B["default"].weight
        expected.get_submodule(name).weight += 6 / 3 * second @ first
    adapted = encoder(*inputs)[0]
    assert (adapted - plain).abs().max() > 1e-3
    torch.testing.assert_close(adapted, expected(*inputs)[0], atol=1e-5, rtol=1e-4)
    merge_lora(encoder)
    assert list(encoder.state_dict()) == names and not adapters(encoder)
    torch.testing.assert_close(encoder(*inputs)[0], expected(*inputs)[0], atol=1e-5, rtol=1e-4)


def test_every_layer_is_adapted_and_only_adapters_above_the_cut_are_trained(encoder):
    add_lora(encoder, EVERYWHERE, -1, seed=0)
    per_layer = len(adapters(encoder)) / encoder.depth
    assert per_layer == int(per_layer) >= 4
    for cut in range(-1, encoder.depth + 1):
        encoder.freeze(cut)
        trained = {id(p) for p in encoder.parameters() if p.requires_grad}
        above = [m for part in encoder.parts()[max(1, cut + 1) :] for m in part]
        lora = {id(p) for m in above for name, p in m.named_parameters() if "lora_" in name}
        assert trained == lora and bool(lora) == (cut < encoder.depth)
    merge_lora(encoder)
    encoder.freeze(0)
    assert all(p.requires_grad for module in encoder.parts()[-1] for p in module.parameters())


def test_the_place_decides_what_is_adapted():
    encoder = TinyEncoderConfig().build()
    add_lora(encoder, LoraConfig(where=["feed_forward"]), -1, seed=0)
    assert {name.rsplit(".", 1)[1] for name in adapters(encoder)} == {"intermediate_dense", "output_dense"}


def test_layers_that_are_always_frozen_get_no_adapters():
    """Their output is the same in all folds and runs, which share its cache."""
    encoder = TinyEncoderConfig(depth=3).build()
    names = list(encoder.state_dict())
    add_lora(encoder, LoraConfig(), 2, seed=0)
    assert {name.split(".")[2] for name in adapters(encoder)} == {"2"}
    assert [n for n in names if n.startswith("transformer.layers.1.")] == [
        n for n in encoder.state_dict() if n.startswith("transformer.layers.1.")
    ]


def test_the_first_values_depend_on_the_seed_alone():
    values = []
    for earlier, seed in ((0, 5), (1, 5), (1, 6)):
        encoder = TinyEncoderConfig().build()
        torch.manual_seed(earlier)
        expected = torch.random.get_rng_state()
        add_lora(encoder, LoraConfig(), -1, seed)
        assert torch.equal(torch.random.get_rng_state(), expected), "random numbers of the run stay the same"
        values.append(torch.cat([m.lora_A["default"].weight.flatten() for m in adapters(encoder).values()]))
    assert torch.equal(values[0], values[1]) and not torch.equal(values[1], values[2])


def test_an_encoder_that_is_not_pretrained_is_refused():
    encoder = CompactEncoderConfig(width=16, depth=2).build()
    with pytest.raises(SertoneError, match="CompactEncoder has no pretrained attention layers") as caught:
        add_lora(encoder, LoraConfig(), -1, seed=0)
    assert caught.value.code == "no_lora" and "train.lora: null" in caught.value.way_out


def test_the_example_of_the_fine_tuning_page_can_be_trained(demo_recipe):
    page = (REPOSITORY / "docs" / "fine-tuning.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.S)
    values = yaml.safe_load(example)
    assert set(values) == {"protocol", "train"} and len(values["train"]) == 4
    experiment = prepare(demo_recipe(BASELINE, values["protocol"], epochs=[1], **values["train"]))
    prepare_data(experiment, RunProgress(1, quiet=True))


def test_without_peft_the_error_names_the_extra(demo_recipe, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)  # its import fails
    with pytest.raises(SertoneError, match="peft is not installed") as caught:
        train_first_fold(demo_recipe(BASELINE, epochs=[1], lora={}), tmp_path)
    assert caught.value.code == "missing_extra" and "[lora]" in caught.value.way_out


def test_adapters_need_a_layer_that_is_trained(demo_recipe, tmp_path):
    frozen = demo_recipe(BASELINE | {"frozen_layers": 2}, epochs=[1], lora={})
    with pytest.raises(SertoneError, match="all 2 layers of the encoder are frozen") as caught:
        train_first_fold(frozen, tmp_path)
    assert caught.value.code == "no_lora" and "lower model.frozen_layers" in caught.value.way_out


def test_training_moves_the_adapted_weights_alone_and_saves_a_plain_encoder(demo_recipe, tmp_path):
    recipe = demo_recipe(BASELINE, epochs=[2], lora={"rank": 2})
    trainer = train_first_fold(recipe, tmp_path)
    torch.manual_seed(recipe.train.seed * 1000)
    before = models.build(recipe.model, trainer.vocabulary).state_dict()
    after = load_weights(tmp_path)
    assert set(after) == set(before)
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    projections = ("q_proj.weight", "k_proj.weight", "v_proj.weight", "out_proj.weight")
    assert {name for name in moved if name.startswith("encoder.")} == {
        name for name in before if name.endswith(projections)
    }
    product = after["encoder.transformer.layers.0.attention.q_proj.weight"]
    product = product - before["encoder.transformer.layers.0.attention.q_proj.weight"]
    assert torch.linalg.matrix_rank(product, rtol=1e-4) == 2


def test_an_interrupted_training_of_adapters_ends_with_the_same_weights(demo_recipe, tmp_path, monkeypatch):
    recipe = demo_recipe(
        BASELINE, {"validation": "speaker"}, epochs=[3], save_every=1, lora={"rank": 2, "dropout": 0.2}
    )
    train_first_fold(recipe, tmp_path / "whole")
    interrupt(monkeypatch, recipe, tmp_path / "parts", 2)
    train_first_fold(recipe, tmp_path / "parts")
    first, second = (load_weights(tmp_path / name) for name in ("whole", "parts"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_info_counts_the_adapters_as_trained_without_peft(demo_recipe, tmp_path, monkeypatch):
    recipe = demo_recipe(BASELINE, epochs=[1], lora={"rank": 2})
    train_first_fold(recipe, tmp_path)
    monkeypatch.setitem(sys.modules, "peft", None)  # a checkpoint holds a plain encoder
    cost = info.describe(tmp_path / "checkpoint")["cost"]
    tensors = load_file(tmp_path / "checkpoint" / "model.safetensors")
    assert cost["total"] == sum(t.numel() for t in tensors.values())
    # Two layers of four projections from 32 to 32.
    assert cost["parts"]["encoder"]["trained"] == 2 * 4 * 2 * (32 + 32)
    assert cost["parts"]["encoder"]["total"] == sum(
        t.numel() for name, t in tensors.items() if name.startswith("encoder.")
    )
    assert cost["trained"] == cost["parts"]["encoder"]["trained"] + cost["parts"]["rest"]["trained"]


@pytest.mark.parametrize(
    ("train", "intact"), [(None, True), ({"lora": None}, True), ({"lora": {"rank": -3}}, False)]
)
def test_info_of_a_card_without_adapters_or_with_damaged_ones(demo_recipe, tmp_path, train, intact):
    train_first_fold(demo_recipe(BASELINE, epochs=[1]), tmp_path)
    path = tmp_path / "checkpoint" / "checkpoint.json"
    content = json.loads(path.read_text())
    content["card"] |= {"train": train}
    path.write_text(json.dumps(content))
    if not intact:
        with pytest.raises(SertoneError, match=r"the card's train\.lora") as caught:
            info.describe(tmp_path / "checkpoint")
        assert caught.value.code == "bad_weights"
    else:
        cost = info.describe(tmp_path / "checkpoint")["cost"]
        assert cost["parts"]["encoder"]["trained"] > 10000, "the layers themselves"

"""Dropout and attention in their fast forms: the mathematics of torch's and of Hugging Face's."""

import math

import pytest
import torch
from conftest import clips, load_hugging_face, padded
from torch.nn import functional as F

from sertone.nn import kernels
from sertone.nn.encoders.huggingface import FAMILIES, PretrainedEncoderConfig, TinyEncoderConfig
from sertone.recipe.train_config import TrainConfig


@pytest.fixture(autouse=True)
def own_kernels():
    kernels.choose("own")
    yield
    kernels.choose("torch")


def test_torchs_kernels_are_a_switch_away_and_the_default():
    values = torch.randn(50, 40)
    for kind in ("own", "torch"):
        kernels.choose(kind)
        torch.manual_seed(1)
        ours = kernels.dropout(values, 0.3)
        torch.manual_seed(1)
        assert torch.equal(ours, F.dropout(values, 0.3)) == (kind == "torch")
    assert TrainConfig(batch_size=1).kernels == "torch"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("p", [0.1, 0.37])
def test_dropout_keeps_the_mean_and_drops_the_share_asked_for(p, dtype):
    torch.manual_seed(0)
    values = torch.ones(1001, 999, dtype=dtype)
    dropped = kernels.dropout(values, p)
    assert dropped.dtype == dtype and set(dropped.unique().tolist()) == {0.0, dropped.max().item()}
    assert dropped.max().item() == pytest.approx(1 / (1 - p), rel=1e-2 if dtype == torch.bfloat16 else 1e-4)
    share = (dropped == 0).double().mean().item()
    assert share == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / values.numel()))
    zeros = (
        dropped == 0
    ).double() - share  # neighbours share a random word, and are independent all the same
    for shift in range(1, 9):
        together = (zeros.flatten()[shift:] * zeros.flatten()[:-shift]).mean() / (share * (1 - share))
        assert abs(together) < 5 / math.sqrt(values.numel())


def test_dropout_follows_the_seed_and_masks_the_gradient():
    values = torch.randn(7, 13, requires_grad=True)
    torch.manual_seed(3)
    first = kernels.dropout(values, 0.5)
    torch.manual_seed(3)
    assert torch.equal(first, kernels.dropout(values, 0.5))
    assert not torch.equal(first, kernels.dropout(values, 0.5))
    first.sum().backward()
    torch.testing.assert_close(values.grad, (first != 0) * 2.0)
    assert torch.equal(kernels.dropout(values, 0.0), values) and not kernels.dropout(values, 1.0).any()
    layer = kernels.Dropout(0.5)
    assert torch.equal(layer.eval()(values), values) and not torch.equal(layer.train()(values), values)


def attend_naively(query, key, value, mask):
    """Attend one query at a time, without the keys that do not count."""
    result = torch.zeros_like(value)
    batch, heads, frames, width = query.shape
    for b in range(batch):
        real = mask[b, 0, 0].nonzero()[:, 0].tolist()
        for h in range(heads):
            for t in range(frames):
                scores = torch.stack([query[b, h, t] @ key[b, h, k] for k in real]) / math.sqrt(width)
                weights = scores.exp() / scores.exp().sum()
                result[b, h, t] = sum(w * value[b, h, k] for w, k in zip(weights, real, strict=True))
    return result


@pytest.mark.parametrize("form", ["boolean", "added"])
def test_attention_is_that_of_a_loop_and_dropout_leaves_its_mean(form):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, 5, 4, dtype=torch.float64).unbind(0)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=torch.bool)[:, None, None]
    given = mask if form == "boolean" else torch.zeros(2, 1, 1, 5).double().masked_fill(~mask, -math.inf)
    expected = attend_naively(query, key, value, mask)
    torch.testing.assert_close(kernels.attention(query, key, value, given), expected)
    draws = torch.stack([kernels.attention(query, key, value, given, 0.1) for _ in range(4000)])
    error = (draws.mean(0) - expected).abs() / (draws.std(0) / math.sqrt(4000) + 1e-12)
    assert error.max() < 5 and not torch.equal(draws[0], draws[1])


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_the_hugging_face_module(tiny_encoder, family, norm):
    """In training mode without dropout, one clip, so that its own attention sees no padding."""
    folder = tiny_encoder(family, norm)
    waveform = torch.randn(16000, generator=torch.Generator().manual_seed(0)) * 0.1
    theirs, inputs = load_hugging_face(folder, waveform)
    theirs.config.update({"apply_spec_augment": False, "layerdrop": 0.0})
    ours = PretrainedEncoderConfig(source=str(folder)).build()
    for module in (*theirs.modules(), *ours.modules()):
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif type(module).__name__.endswith("Attention") and isinstance(module.dropout, float):
            module.dropout = 0.0
    ours.train()
    theirs.train()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.eval()
    hidden, _ = ours(waveform[None], torch.tensor([16000]))
    draw = torch.randn(hidden[:, -1].shape, generator=torch.Generator().manual_seed(1))
    (hidden[:, -1] * draw).sum().backward()
    (theirs(inputs).last_hidden_state[:, : draw.shape[1]] * draw).sum().backward()
    expected = dict(theirs.named_parameters())
    compared = 0
    for name, parameter in ours.to_model().named_parameters():
        gradient = expected[name].grad
        assert (gradient is None) == (parameter.grad is None), name
        if gradient is not None:
            scale = gradient.abs().max().clamp(min=1e-3)
            assert (parameter.grad - gradient).abs().max() / scale < 1e-3, name
            compared += 1
    assert compared > (30 if family == "whisper" else 40)  # a layer of Whisper has fewer parameters


@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_of_every_kind_is_on_in_training_and_off_in_evaluation(family):
    torch.manual_seed(0)
    encoder = TinyEncoderConfig(family=family, depth=1).build()
    encoder.freeze(0)
    inputs = padded(clips(9000, 6000))
    for module in encoder.modules():
        assert type(module) is not torch.nn.Dropout
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for module in encoder.modules():
        if type(module).__name__.endswith("Attention"):
            if isinstance(module.dropout, torch.nn.Dropout):
                module.dropout.p = 0.5
            else:
                module.dropout = 0.5
    encoder.train()
    assert not torch.equal(encoder(*inputs)[0], encoder(*inputs)[0]), "attention drops weights"
    encoder.eval()
    assert torch.equal(encoder(*inputs)[0], encoder(*inputs)[0])


def test_a_gpu_uses_the_kernels_of_torch(monkeypatch):
    """Only the device decides; here a device without data stands for the GPU."""
    values = torch.ones(2, 3, 5, 4, device="meta")
    seen = []
    monkeypatch.setattr(F, "dropout", lambda *a: seen.append("dropout"))
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: seen.append(k["dropout_p"]))
    kernels.dropout(values, 0.1)
    kernels.attention(values, values, values, None, 0.1)
    assert seen == ["dropout", 0.1]

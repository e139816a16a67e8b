"""LayerDrop and time masking inside pretrained encoders: in training only, and no cache hides them."""

import numpy as np
import pytest
import torch
from conftest import TINY_MODEL, clips, padded
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from test_ranks import train_with_two_ranks
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices

from sertone.errors import SertoneError
from sertone.nn.encoders.config import EncoderConfig
from sertone.nn.encoders.huggingface import PretrainedEncoderConfig
from sertone.nn.encoders.saved import SavedEncoderConfig, save_encoder
from sertone.nn.masks import frame_mask, span_mask
from sertone.training.experiment.experiment import prepare
from sertone.training.fit import training_state
from sertone.training.fit.progress import RunProgress
from sertone.training.runs.folds import prepare_data, train_fold

FAMILIES = [("wav2vec2", "group"), ("hubert", "layer"), ("wavlm", "group")]
MASKED = {"mask_time_prob": 0.5, "mask_time_length": 4}


@pytest.fixture(scope="module")
def folders(tiny_encoder):
    return {family: tiny_encoder(family, norm) for family, norm in FAMILIES}


def build(folder, **options):
    encoder = PretrainedEncoderConfig(source=str(folder), **options).build()
    encoder.transformer.dropout.p = 0.0
    return encoder


@pytest.mark.parametrize("family", [family for family, _ in FAMILIES])
def test_only_trained_layers_are_dropped_and_only_in_training(family, folders):
    inputs = padded(clips(16000, 7000))
    encoder = build(folders[family], layerdrop=0.5)
    off = build(folders[family])
    assert torch.equal(encoder.eval()(*inputs)[0], off.eval()(*inputs)[0])
    for cut, droppable in ((0, {1, 2}), (1, {2})):
        encoder.freeze(cut)
        encoder.train()
        torch.manual_seed(0)
        dropped = []
        for _ in range(60):
            hidden, _ = encoder(*inputs)
            last = encoder.last_norm or torch.nn.Identity()
            same = [torch.equal(hidden[:, 1], hidden[:, 0]), torch.allclose(hidden[0, 2], last(hidden[0, 1]))]
            dropped += [layer for layer, skipped in zip((1, 2), same, strict=True) if skipped]
        assert set(dropped) == droppable
        assert all(15 <= dropped.count(layer) <= 45 for layer in droppable)


@pytest.mark.parametrize("probability, length", [(0.05, 10), (0.5, 4), (0.2, 30)])
def test_spans_are_as_many_and_as_long_as_hugging_faces(probability, length):
    frames, total = torch.tensor([200, 90, 200, 61] * 100), 210
    torch.manual_seed(0)
    np.random.seed(0)
    ours = span_mask(frames, total, probability, length)
    real = frame_mask(frames, total)
    assert not (ours & ~real).any(), "padding is never masked"
    few = real[:4].long()
    draws = [_compute_mask_indices(tuple(few.shape), probability, length, few) for _ in range(200)]
    theirs = np.mean([draw.sum(1) for draw in draws], 0) / frames[:4].numpy()
    shares = ours.sum(1).reshape(-1, 4).float().mean(0) / frames[:4]
    assert shares.tolist() == pytest.approx(theirs, abs=0.04)
    edges = torch.nn.functional.pad(ours.int(), (1, 1)).diff(dim=1)
    starts, ends = (edges == 1).nonzero()[:, 1], (edges == -1).nonzero()[:, 1]
    assert (ends - starts).min() == length
    torch.manual_seed(0)
    assert torch.equal(ours, span_mask(frames, total, probability, length))
    assert not span_mask(torch.tensor([length, 1]), total, 1.0, length).any(), "a short utterance stays whole"


@pytest.mark.parametrize("family", [family for family, _ in FAMILIES])
def test_masked_frames_become_the_mask_vector_of_the_model(family, folders):
    waveforms, lengths = padded(clips(16000, 7000))
    encoder, off = build(folders[family], **MASKED), build(folders[family])
    stored = load_file(folders[family] / "model.safetensors")["masked_spec_embed"]
    assert torch.equal(encoder.masking.vector, stored)
    assert torch.equal(encoder.eval()(waveforms, lengths)[0], off.eval()(waveforms, lengths)[0])
    encoder.train()
    features, frames = encoder.front(waveforms, lengths)
    mask = frame_mask(frames, features.shape[1])
    torch.manual_seed(3)
    given = torch.randn(*mask.shape, encoder.width)
    torch.manual_seed(4)
    changed = encoder.masking(given, mask)
    torch.manual_seed(4)
    masked = span_mask(frames, mask.shape[1], probability=0.5, length=4)
    assert 0.1 < masked[0].float().mean() < 0.9
    assert (changed[masked] == stored).all() and torch.equal(changed[~masked], given[~masked])
    encoder(waveforms, lengths)[0].square().sum().backward()
    assert encoder.masking.vector.grad is not None


def test_a_prefix_below_which_frames_are_masked_is_not_cached(folders):
    encoder = build(folders["wav2vec2"], **MASKED, layerdrop=0.5)
    inputs = padded(clips(16000))
    for mode in (True, False):
        encoder.train(mode)
        encoder.freeze(0)
        assert encoder.explain_varying_prefix() == "", "the front end's output is not masked"
        encoder.freeze(1)
        assert "mask_time_prob" in encoder.explain_varying_prefix()
        once, twice = encoder.prefix(*inputs).states, encoder.prefix(*inputs).states
        assert torch.equal(once, twice) != mode, "masked in training as Hugging Face's, never otherwise"
    plain = build(folders["wav2vec2"], layerdrop=0.5)
    plain.freeze(1)
    assert plain.explain_varying_prefix() == "", "frozen layers are never dropped"


def test_a_checkpoint_holds_the_mask_vector_and_a_file_without_it_is_refused(folders, tmp_path):
    encoder = build(folders["hubert"], **MASKED, layerdrop=0.25)
    again = TypeAdapter(EncoderConfig).validate_python(encoder.describe()).build()
    again.load_state_dict(encoder.state_dict())
    assert (again.layerdrop, again.masking.probability, again.masking.length) == (0.25, 0.5, 4)
    listed = [id(p) for part in encoder.parts() for module in part for p in module.parameters()]
    assert sorted(listed) == sorted(id(p) for p in encoder.parameters())
    for file in folders["hubert"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    del weights["masked_spec_embed"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(SertoneError, match="masked_spec_embed") as caught:
        build(tmp_path, **MASKED)
    assert caught.value.code == "missing_weights"
    build(tmp_path, layerdrop=0.25)


def train(recipe, folder):
    experiment = prepare(recipe)
    return train_fold(
        experiment,
        0,
        folder,
        prepare_data(experiment, RunProgress(2, quiet=True)),
        RunProgress(2, quiet=True),
    )


def test_an_interrupted_training_drops_and_masks_the_same(folders, demo_recipe, tmp_path, monkeypatch):
    """With the front end's output cached in stage 1, and nothing in stage 2, where a layer is frozen."""
    source = {"name": "pretrained", "source": str(folders["wav2vec2"])}
    model = TINY_MODEL | {"encoder": source | MASKED | {"layerdrop": 0.3}}
    recipe = demo_recipe(model, save_every=1, epochs=[2, 1], speeds=[1.0])
    whole = train(recipe, tmp_path / "whole")
    assert whole.loader.cache is None
    save = training_state.save_training_state

    def save_and_stop(folder, number, *rest):
        save(folder, number, *rest)
        if number == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training_state, "save_training_state", save_and_stop)
        train(recipe, tmp_path / "parts")
    train(recipe, tmp_path / "parts")
    first, second = (load_file(tmp_path / n / "checkpoint" / "model.safetensors") for n in ("whole", "parts"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    saved = SavedEncoderConfig(source=str(tmp_path / "whole" / "checkpoint")).build()
    assert torch.equal(saved.masking.vector, first["encoder.masking.vector"]) and saved.layerdrop == 0.3
    save_encoder(saved, tmp_path)
    again = build(tmp_path, **MASKED)
    assert torch.equal(again.masking.vector, saved.masking.vector)
    plain = train(
        demo_recipe(TINY_MODEL | {"encoder": source}, epochs=[1, 0], speeds=[1.0]), tmp_path / "plain"
    )
    assert plain.loader.cache is not None and plain.history[0]["loss"] != whole.history[0]["loss"]


@pytest.mark.slow
def test_two_processes_that_drop_and_mask_end_with_the_same_weights(folders, demo_recipe, tmp_path):
    """Each process skips other layers, whose weights then have no gradient there."""
    source = {"name": "pretrained", "source": str(folders["wav2vec2"])}
    model = TINY_MODEL | {"encoder": source | MASKED | {"layerdrop": 0.5}}
    recipe = demo_recipe(model, epochs=[1, 1], batch_size=5, device="cpu")
    (first, weights, world, _), (second, others, *_) = train_with_two_ranks(recipe, tmp_path)
    assert world == 2 and [e["loss"] for e in first] == [e["loss"] for e in second]
    assert all((weights[name] == others[name]).all() for name in weights)

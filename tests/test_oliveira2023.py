"""Small models of audio and text that rate emotions: every option, missing modalities, layer weights."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ispas2023 import SCALES, UTTERANCES, WAVEFORMS, batch, compute_loss

from sertone import models
from sertone import recipe as recipes
from sertone.errors import SertoneError
from sertone.labels import DIMENSIONS
from sertone.models import oliveira2023
from sertone.nn.modality_fusion import MODALITY_FUSIONS
from sertone.nn.pooling import POOLINGS
from sertone.recipe.train_config import TrainConfig
from sertone.training.data.caches import PrefixCaches

AUDIO = {"name": "compact", "width": 16, "depth": 2, "attention_heads": 2}
TEXT = {"name": "tiny", "width": 24, "depth": 1, "attention_heads": 2, "subwords": 120}
INPUTS = {"both": (AUDIO, TEXT), "audio": (AUDIO, None), "text": (None, TEXT)}


def build(inputs="both", **options):
    encoder, text = INPUTS[inputs]
    values = {"name": "oliveira2023", "encoder": encoder, "text": text, "hidden": 8} | options
    vocabulary = models.build_vocabulary(values, UTTERANCES, {}, SCALES)
    torch.manual_seed(0)
    return models.build(values, vocabulary), vocabulary


def predict(vocabulary, model, **changes):
    given = batch(vocabulary, **changes) if model.text else batch(vocabulary, texts=[None] * 4, **changes)
    return model.eval()(given)


def test_the_docstring_says_what_the_recipe_does():
    recipe = recipes.load(recipes.find_shipped_recipe("oliveira2023"))
    train, text = recipe.train, " ".join(oliveira2023.__doc__.split())
    config = oliveira2023.Config(**{key: value for key, value in recipe.model.items() if key != "name"})
    assert (train.schedule, train.speeds, config.separate) == ("cosine", [1.0], False)
    for phrase in (
        *(f"`{option}: {getattr(config, option)}`" for option in ("layers", "pooling", "joining")),
        f"one hidden layer of {config.hidden} units",
        f"weight decay {train.weight_decay:g} and dropout {config.dropout:g}",
        f"rates of {train.rates.encoder:g} for both encoders and {train.rates.downstream:g} for all else",
        f"the first {train.warmup:.0%} of the steps".replace("%", " %"),
        f"{train.epochs[0]} epochs of batches of up to {train.batch_seconds:g} s",
    ):
        assert phrase in text, phrase


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("joining", MODALITY_FUSIONS)
@pytest.mark.parametrize("separate", [True, False])
def test_every_form_learns(inputs, pooling, joining, separate):
    options = {"pooling": pooling, "joining": joining, "separate": separate, "freeze_embeddings": False}
    model, vocabulary = build(inputs, **options)
    data = batch(vocabulary, texts=None if model.text else [None] * 4)
    outputs = model(data)
    assert list(outputs) == list(DIMENSIONS)
    assert all(output.logits.shape == (4, 1) for output in outputs.values())
    assert set(model.poolings) == set(model.joinings) == (set(DIMENSIONS) if separate else {"shared"})
    data.targets |= {task: torch.tensor([1.0, 4.0, 2.0, 5.0]) for task in DIMENSIONS}
    compute_loss(model, data).backward()
    unmoved = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert not unmoved, "every weight has a gradient"


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("joining", MODALITY_FUSIONS)
def test_outputs_do_not_depend_on_padding_or_the_rest_of_the_batch(inputs, pooling, joining):
    model, vocabulary = build(inputs, pooling=pooling, joining=joining)
    together = model.eval()(batch(vocabulary, texts=None if model.text else [None] * 4))
    for row, utterance in enumerate(UTTERANCES):
        alone = model(batch(vocabulary, [utterance], texts=None if model.text else [None]))
        for task in DIMENSIONS:
            torch.testing.assert_close(
                alone[task].logits[0], together[task].logits[row], atol=1e-5, rtol=1e-5
            )


@pytest.mark.parametrize("joining", MODALITY_FUSIONS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_withheld_modality_makes_no_difference(joining, pooling):
    model, vocabulary = build(joining=joining, pooling=pooling)
    texts, heard = ["yes we can"] * 4, torch.tensor([False, True, False, True])
    some = predict(vocabulary, model, texts=texts, audio_mask=heard)["valence"].logits
    louder = torch.where(heard[:, None], WAVEFORMS, 5 * WAVEFORMS.flip(0))
    other = predict(vocabulary, model, texts=texts, audio_mask=heard, waveforms=louder)["valence"].logits
    silent = predict(vocabulary, model, texts=texts, waveforms=None)["valence"].logits
    torch.testing.assert_close(some, other)
    torch.testing.assert_close(some[~heard], silent[~heard], atol=1e-5, rtol=1e-5)
    assert (some[heard] - silent[heard]).abs().min() > 1e-4
    unread = predict(vocabulary, model, texts=["no", None, None, None])["valence"].logits
    without = predict(vocabulary, model, texts=[None] * 4)["valence"].logits
    torch.testing.assert_close(unread[1:], without[1:], atol=1e-5, rtol=1e-5)
    assert (unread[0] - without[0]).abs() > 1e-4


def test_a_model_of_one_modality_ignores_the_other():
    reader, vocabulary = build("text")
    first = predict(vocabulary, reader)
    second = predict(vocabulary, reader, waveforms=WAVEFORMS.flip(0))
    assert reader.encoder.describe() == {} and not list(reader.encoder.parameters())
    hearer, other = build("audio")
    heard, deaf = predict(other, hearer), predict(other, hearer, waveforms=WAVEFORMS.flip(0))
    for task in DIMENSIONS:
        torch.testing.assert_close(first[task].logits, second[task].logits)
        assert (heard[task].logits - deaf[task].logits).abs().max() > 1e-4


def test_layer_weights_are_equal_at_first_and_separate_for_every_rating():
    model, vocabulary = build("audio", separate=True)
    assert {name: len(fusion.weights) for name, fusion in model.fusions.items()} == dict.fromkeys(
        DIMENSIONS, 2
    )
    last, _ = build("audio", layers="last")
    assert model.stages()[0].needs == (1, 2) and last.stages()[0].needs == (2,)
    before = predict(vocabulary, model)
    with torch.no_grad():
        model.fusions["valence"].weights.copy_(torch.tensor([5.0, -5.0]))
    after = predict(vocabulary, model)
    moved = {task: (before[task].logits - after[task].logits).abs().max().item() for task in DIMENSIONS}
    assert moved["arousal"] == moved["dominance"] == 0 and moved["valence"] > 1e-4


@pytest.mark.parametrize("weights", [{"arousal": 0}, {"arousal": 0, "dominance": 0}])
def test_ratings_that_weigh_nothing_are_left_out(weights):
    model, _ = build(tasks=weights)
    assert set(model.heads) == set(model.regressors) == set(DIMENSIONS) - set(weights)
    assert models.configure(
        {"name": "oliveira2023", "encoder": AUDIO, "text": None, "tasks": weights}
    ).main_tasks


@pytest.mark.parametrize(
    "options", [{"encoder": None, "text": None}, {"tasks": dict.fromkeys(DIMENSIONS, 0)}, {"encoder": {}}]
)
def test_a_model_without_modality_or_task_is_refused(options):
    values = {"name": "oliveira2023", "encoder": AUDIO, "text": None}
    with pytest.raises(SertoneError, match=r"neither|all weights|encoder"):
        models.configure(values | options)


def test_embeddings_and_front_end_are_frozen():
    from sertone.training.fit.preparation import freeze

    model, _ = build()
    freeze(model, model.stages()[0])
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert not any(name.startswith(("text.model.embeddings", "encoder.frontend")) for name in trained)
    assert any(name.startswith("text.model.encoder") for name in trained)


@given(
    st.lists(st.integers(0, 7), min_size=1, max_size=4), st.sampled_from(sorted(POOLINGS)), st.integers(0, 99)
)
@settings(max_examples=30, deadline=None)
def test_poolings_against_loops(frames, kind, seed):
    torch.manual_seed(seed)
    pooling, features = POOLINGS[kind](5).eval(), torch.randn(len(frames), 7, 5)
    given = pooling(features, torch.tensor(frames)).detach().double().numpy()
    for row, count in enumerate(frames):
        h = features[row, :count].double().numpy()
        shares = np.full(count, 1 / max(count, 1))
        if kind == "attentive" and count:
            w, b, v, c = (p.detach().double().numpy() for p in pooling.attention.parameters())
            scores = np.tanh(h @ w.T + b) @ v[0] + c
            shares = np.exp(scores) / np.exp(scores).sum()
        mean = (shares[:, None] * h).sum(0)
        expected = mean
        if kind != "mean":
            deviation = np.sqrt((shares[:, None] * (h - mean) ** 2).sum(0) + 1e-5)
            both = np.concatenate([mean, deviation])
            expected = (both - both.mean()) / np.sqrt(both.var() + 1e-5)
            if kind == "standardised":  # before any training its moments are 0 and 1
                expected = both / np.sqrt(1 + 1e-5)
        np.testing.assert_allclose(given[row], expected, atol=2e-4)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=5), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_modality_fusions_against_loops(rows, seed):
    torch.manual_seed(seed)
    there, vectors = torch.tensor(rows), [torch.randn(len(rows), 3), torch.randn(len(rows), 4)]
    gate, side_by_side = MODALITY_FUSIONS["gate"]([3, 4]), MODALITY_FUSIONS["concatenation"]([3, 4])
    together = torch.stack(
        [torch.cat([v[n] * t for v, t in zip(vectors, row, strict=True)]) for n, row in enumerate(rows)]
    )
    torch.testing.assert_close(side_by_side(vectors, there), together)
    given = gate(vectors, there)
    for n, row in enumerate(rows):
        scores = (gate.gate.weight @ together[n] + gate.gate.bias).exp() * torch.tensor(row)
        values = [torch.tanh(linear(v[n])) for linear, v in zip(gate.inputs, vectors, strict=True)]
        expected = sum(s * v for s, v in zip(scores, values, strict=True)) / scores.sum().clamp(min=1e-30)
        torch.testing.assert_close(given[n], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("joining", MODALITY_FUSIONS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_half_precision_gives_about_the_same_ratings(joining, pooling):
    model, vocabulary = build(joining=joining, pooling=pooling)
    exact = predict(vocabulary, model)
    with torch.autocast("cpu", torch.bfloat16):
        rough = predict(vocabulary, model)
    for task in DIMENSIONS:
        torch.testing.assert_close(rough[task].logits.float(), exact[task].logits, atol=0.1, rtol=0.1)


def test_no_encoder_has_no_frozen_part_and_no_cache():
    model, _ = build("text", frozen_layers=2)
    for stage in model.stages():
        model.encoder.freeze(stage.cut)
    assert (
        PrefixCaches(TrainConfig(batch_size=1, cache="file")).choose_layers(
            model.encoder, (0,), None, None, print
        )
        is None
    )

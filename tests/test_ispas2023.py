"""Audio and text together: the model, withheld modalities, training, and scores without one of them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import clips, padded
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_ranks import train_with_two_ranks

from sertone import models
from sertone.errors import SertoneError
from sertone.labels import DIMENSIONS, FOUR_CLASSES, Scale
from sertone.models.stage import Masking
from sertone.nn.batch import Batch
from sertone.recipe import TextConfig
from sertone.recipe.train_config import TrainConfig
from sertone.schema import Utterance
from sertone.training.experiment.experiment import prepare
from sertone.training.fit import distributed, training_state
from sertone.training.fit.inference import predict_utterances, score_tasks
from sertone.training.fit.progress import RunProgress
from sertone.training.fit.step import Stepper
from sertone.training.runs.folds import prepare_data, train_fold

TINY = {
    "name": "ispas2023",
    "encoder": {"name": "compact", "width": 16, "depth": 2, "attention_heads": 2},
    "text": {"name": "tiny", "width": 24, "depth": 1, "attention_heads": 2, "subwords": 120},
    "attention_heads": 4,
    "bridge_tokens": 3,
    "hidden": 16,
}
SCALES = {name: Scale(1.0, 5.0) for name in DIMENSIONS}
UTTERANCES = [
    Utterance(
        id=str(n),
        path=Path(str(n)),
        speaker="xy"[n % 2],
        text=text,
        labels={"emotion": emotion, "valence": v},
    )
    for n, (text, emotion, v) in enumerate(
        [
            ("what a lovely day", "happy", 4.5),
            (None, "sad", 1.5),
            ("no", "angry", 2.0),
            ("so it is", "neutral", 3.0),
        ]
    )
]
LENGTHS = (9000, 16000, 5000, 12000)
WAVEFORMS, COUNTS = padded(clips(*LENGTHS))


def build(**options):
    values = TINY | options
    vocabulary = models.build_vocabulary(values, UTTERANCES, FOUR_CLASSES, SCALES)
    torch.manual_seed(0)
    return models.build(values, vocabulary), vocabulary


def batch(vocabulary, utterances=UTTERANCES, texts=None, **changes):
    rows = [UTTERANCES.index(u) for u in utterances]
    longest = int(COUNTS[rows].max())
    texts = [u.text for u in utterances] if texts is None else texts
    read = dict(zip(("tokens", "counts"), vocabulary.encode_texts(texts), strict=True)) if any(texts) else {}
    tasks = ("emotion", *vocabulary.ratings)
    targets = {
        t: vocabulary.make_targets(t, utterances) for t in tasks if t in vocabulary.classes or t in SCALES
    }
    given = {"waveforms": WAVEFORMS[rows, :longest], "lengths": COUNTS[rows], "targets": targets}
    return Batch(**given | read | changes)


def compute_loss(model, data):
    outputs = model(data)
    weights = model.stages()[0].weights
    return sum(w * model.heads[t].loss(outputs[t], data.targets[t]) for t, w in weights.items())


@pytest.mark.parametrize("interaction", ["none", "cross", "bridge"])
@pytest.mark.parametrize(
    "self_attention, pooling", [(True, "mean"), (True, "attentive"), (False, "standardised")]
)
@pytest.mark.parametrize("separate", [True, False])
def test_every_form_learns_from_both_modalities(interaction, self_attention, pooling, separate):
    options = {"interaction": interaction, "self_attention": self_attention, "separate_regressors": separate}
    model, vocabulary = build(**options, pooling=pooling, freeze_embeddings=False)
    data = batch(vocabulary)
    outputs = model(data)
    assert list(outputs) == list(model.heads) == ["emotion", "valence", "arousal"]
    assert outputs["emotion"].logits.shape == (4, 4) and outputs["valence"].logits.shape == (4, 1)
    assert set(model.regressors) == ({"valence", "arousal"} if separate else {"shared"})
    compute_loss(model, data).backward()
    unmoved = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert not unmoved, "every weight has a gradient"


@pytest.mark.parametrize("interaction", ["none", "cross", "bridge"])
@pytest.mark.parametrize(
    "pairing, pooling", [("pad", "mean"), ("stretch", "statistics"), ("stretch", "attentive")]
)
def test_outputs_do_not_depend_on_padding_or_the_rest_of_the_batch(interaction, pairing, pooling):
    """With text and without, alone and in a batch."""
    model, vocabulary = build(interaction=interaction, pairing=pairing, pooling=pooling)
    together = model.eval()(batch(vocabulary))
    for row, utterance in enumerate(UTTERANCES):
        alone = model(batch(vocabulary, [utterance]))
        for task in model.heads:
            torch.testing.assert_close(
                alone[task].logits[0], together[task].logits[row], atol=1e-5, rtol=1e-5
            )


@pytest.mark.parametrize("interaction", ["none", "cross", "bridge"])
def test_withheld_is_missing(interaction):
    """A withheld modality makes no difference to the output, whatever else is in the batch."""
    model, vocabulary = build(interaction=interaction)
    model.eval()
    texts = [u.text or "yes" for u in UTTERANCES]
    silent = batch(vocabulary, texts=texts, waveforms=None)
    some = batch(vocabulary, texts=texts, audio_mask=torch.tensor([False, True, False, True]))
    other = batch(vocabulary, texts=texts, audio_mask=torch.tensor([False, True, False, True]))
    other.waveforms = torch.where(some.audio_mask[:, None], some.waveforms, some.waveforms.flip(1))
    for task in model.heads:
        without, mixed, changed = (model(data)[task].logits for data in (silent, some, other))
        torch.testing.assert_close(mixed[[0, 2]], without[[0, 2]], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(mixed, changed, atol=1e-6, rtol=1e-5)
        unread = model(batch(vocabulary, texts=[None, None, None, "yes"]))[task].logits
        torch.testing.assert_close(unread[:3], model(batch(vocabulary, texts=[None] * 4))[task].logits[:3])
        assert not torch.allclose(without, model(batch(vocabulary, texts=texts))[task].logits, atol=1e-4)


def test_a_batch_without_audio_trains_the_text_encoder_and_one_without_text_the_speech_encoder():
    model, vocabulary = build(freeze_embeddings=False)
    compute_loss(model, batch(vocabulary, texts=["yes"] * 4, waveforms=None)).backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert any(p.grad is not None for p in model.text.parameters())
    model, vocabulary = build()
    compute_loss(model, batch(vocabulary, texts=[None] * 4)).backward()
    assert all(p.grad is None for p in model.text.parameters())


def test_a_model_of_audio_alone_uses_no_text():
    model, vocabulary = build(text=None)
    assert vocabulary.tokenizer == "" and model.text is None and model.stages()[0].masking is None
    assert model(batch(build()[1]))["valence"].logits.shape == (4, 1)


@pytest.mark.parametrize(
    "tasks, heads",
    [
        ({"emotion": 1, "valence": 0, "arousal": 0}, ["emotion"]),
        ({"emotion": 0, "valence": 1, "arousal": 1, "dominance": 1}, ["valence", "arousal", "dominance"]),
    ],
)
def test_categories_alone_and_dimensions_alone(tasks, heads):
    model, vocabulary = build(tasks=tasks)
    assert list(model.heads) == heads == list(model.config.main_tasks)
    assert list(vocabulary.ratings) == [name for name in heads if name in DIMENSIONS]
    assert compute_loss(model, batch(vocabulary)).isfinite()
    assert model.stages()[0].weights == {task: weight for task, weight in tasks.items() if weight}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"tasks": {"emotion": 0, "valence": 0, "arousal": 0}}, "at least one"),
        ({"interaction": "bridges"}, "bridge"),
        ({"masking": {"probabilty": 0.1}}, "did you mean 'probability'"),
        ({"text": {"name": "tiny", "widht": 3}}, "did you mean 'width'"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(SertoneError, match=message):
        models.configure(TINY | options)


def test_the_probability_of_masking_is_the_papers_cosine():
    masking, epochs = Masking(), 20
    for epoch in range(epochs):
        cosine = 0.8 * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        expected = 0.0 if cosine < 0.1 else cosine
        assert masking.probability_after(epoch / epochs) == pytest.approx(expected)
    assert Masking(per="off").probability_after(0.0) == 0.0


@settings(deadline=None, max_examples=20)
@given(st.floats(0, 0.99), st.integers(1, 30), st.integers(0, 999))
def test_an_epoch_withholds_one_modality_of_all_or_nothing(done, count, seed):
    drawn = Masking().draw(np.random.default_rng(seed), done, count)
    assert len(drawn) == count and len(set(drawn)) == 1 and drawn[0] in ("", "audio", "text")
    assert drawn == Masking().draw(np.random.default_rng(seed), done, count)


def test_masking_by_utterance_has_the_shares_that_it_should():
    drawn = Masking(per="utterance").draw(np.random.default_rng(0), 0.0, 20000)
    assert drawn.count("text") / 20000 == pytest.approx(0.8 * 0.6, abs=0.015)
    assert drawn.count("audio") / 20000 == pytest.approx(0.8 * 0.4, abs=0.015)
    often = [Masking().draw(np.random.default_rng(n), 0.0, 1)[0] for n in range(3000)]
    assert often.count("text") / 3000 == pytest.approx(0.48, abs=0.03)


def train_first_fold(recipe, folder):
    experiment, progress = prepare(recipe), RunProgress(1, quiet=True)
    return train_fold(experiment, 0, folder, prepare_data(experiment, progress), progress)


@pytest.mark.parametrize(
    "withheld, still, moved", [("text", "text.", "encoder."), ("audio", "encoder.", "text.")]
)
def test_the_encoder_of_a_withheld_modality_is_not_trained(demo_recipe, tmp_path, withheld, still, moved):
    """Masked at every epoch: neither gradient nor weight decay nor momentum moves it."""
    masking = {"probability": 1.0, "least": 0.0, "text": float(withheld == "text")}
    options = TINY | {"masking": masking, "freeze_embeddings": False}
    recipe = demo_recipe(options, epochs=[1], weight_decay=0.5)
    trainer = train_first_fold(recipe, tmp_path)
    torch.manual_seed(recipe.train.seed * 1000)
    before = models.build(options, trainer.vocabulary).state_dict()
    after = trainer.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any(name.startswith(still) for name in changed)
    assert any(name.startswith(moved) for name in changed)
    assert trainer.history[0][f"without_{withheld}"] == len(trainer.fold.train)


def test_audio_is_never_withheld_from_an_utterance_without_text(demo_recipe, tmp_path):
    """Nor is its encoder left untrained in an epoch in which others' audio is withheld."""
    masking = {"probability": 1.0, "least": 0.0, "text": 0.0}
    recipe = demo_recipe(TINY | {"masking": masking}, epochs=[1])
    data = recipe.data.model_copy(update={"text": TextConfig(source="none")})
    trainer = train_first_fold(recipe.model_copy(update={"data": data}), tmp_path)
    assert "without_audio" not in trainer.history[0]
    torch.manual_seed(recipe.train.seed * 1000)
    before = models.build(recipe.model, trainer.vocabulary).state_dict()
    moved = {n for n, t in trainer.model.state_dict().items() if not torch.equal(t, before[n])}
    assert any(name.startswith("encoder.") for name in moved)


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_embeddings_of_text_have_no_dropout_in_training(frozen):
    model, vocabulary = build(freeze_embeddings=frozen)
    config = TrainConfig(batch_size=4, device="cpu")
    stepper = Stepper(model, model.stages()[0], config, distributed.make_fabric(config))
    stepper.begin_epoch()
    tokens = vocabulary.encode_texts(["what a lovely day"] * 8)
    first, second = model.text(*tokens), model.text(*tokens)
    assert torch.equal(first[:, 0], second[:, 0]) == frozen
    assert not torch.equal(first[:, 1], second[:, 1]), "the layers are trained, with dropout"


@pytest.mark.parametrize("per", ["off", "epoch", "utterance"])
def test_an_interrupted_training_ends_with_the_same_weights(demo_recipe, tmp_path, monkeypatch, per):
    masking = {"per": per, "probability": 0.9}
    recipe = demo_recipe(TINY | {"masking": masking}, {"validation": "speaker"}, epochs=[4], save_every=1)
    whole = train_first_fold(recipe, tmp_path / "whole")
    save = training_state.save_training_state

    def save_and_stop(folder, number, *rest):
        save(folder, number, *rest)
        if number == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training_state, "save_training_state", save_and_stop)
        train_first_fold(recipe, tmp_path / "parts")
    parts = train_first_fold(recipe, tmp_path / "parts")
    withheld = [[e.get("without_text"), e.get("without_audio")] for e in whole.history]
    assert withheld == [[e.get("without_text"), e.get("without_audio")] for e in parts.history]
    assert any(any(epoch) for epoch in withheld) == (per != "off")
    first, second = (load_file(tmp_path / n / "checkpoint" / "model.safetensors") for n in ("whole", "parts"))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "masking",
    [
        {"per": "utterance", "probability": 0.9},
        pytest.param({"probability": 1.0, "text": 1.0}, marks=pytest.mark.slow),
    ],
)
def test_two_processes_that_withhold_end_with_the_same_weights(demo_recipe, tmp_path, masking):
    """Some steps leave an encoder out, in one process or in both."""
    recipe = demo_recipe(TINY | {"masking": masking}, epochs=[2], batch_size=3, device="cpu")
    (first, weights, world, _), (second, others, *_) = train_with_two_ranks(recipe, tmp_path)
    assert world == 2 and [e["loss"] for e in first] == [e["loss"] for e in second]
    assert all((weights[name] == others[name]).all() for name in weights)
    assert all(np.isfinite(weight).all() for weight in weights.values())


def test_a_validation_speaker_chooses_by_the_mean_of_all_scores(demo_recipe, tmp_path):
    recipe = demo_recipe(TINY | {"masking": {"per": "off"}}, {"validation": "speaker"}, epochs=[3])
    trainer = train_first_fold(recipe, tmp_path)
    means = [np.mean([e["val_ua"], e["val_valence"], e["val_arousal"]]) for e in trainer.history]
    assert len(set(means)) > 1
    side = trainer.fold.validation
    labels = {"valence": [trainer.vocabulary.find_label("valence", u) for u in side]}
    answers = predict_utterances(trainer.model, trainer.vocabulary, side, trainer.loader, trainer.fabric)
    kept = score_tasks(answers, labels, {"valence": "ratings"})["valence"]["ccc"]
    assert kept == pytest.approx(trainer.history[int(np.argmax(means))]["val_valence"], abs=1e-5)

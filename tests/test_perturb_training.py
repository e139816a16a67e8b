"""Perturbed training: what a recipe asks for, from seeds, in every order of cache and resume, without leaks."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from conftest import SMALL_MODEL
from test_fine_tuning import ROWS, WAN, make_batch, make_stepper
from training_runs import interrupt, load_weights, train_first_fold

from sertone import corpora
from sertone.errors import SertoneError
from sertone.nn.losses import consistency_loss
from sertone.perturb import PERTURBATIONS
from sertone.perturb.speech_level import active_level
from sertone.recipe import Recipe
from sertone.recipe.perturb_config import PerturbConfig
from sertone.recipe.settings import parse
from sertone.recipe.train_config import TrainConfig
from sertone.training.data.loader import BatchItem
from sertone.training.data.perturber import Perturber
from sertone.training.data.recordings import Recordings
from sertone.training.data.waveforms import Waveforms
from sertone.training.experiment.experiment import prepare
from sertone.training.fit.epoch_plan import draw_items
from sertone.training.fit.epoch_statistics import EpochStatistics
from sertone.training.fit.progress import RunProgress
from sertone.training.runs.folds import prepare_data

ALL = {"noise": {"p": 1.0}, "reverb": {"p": 0.5}, "microphone": {"p": 0.5}, "codec": {"p": 0.5}}
NOISE = {"noise": {"p": 1.0, "kinds": ["pink_noise"]}}


@pytest.fixture(scope="module")
def recordings(small_demo):
    recordings = Recordings(1.0)
    recordings.utterances = list(corpora.load_utterances("demo", small_demo))[:8]
    recordings.load(recordings.utterances)
    return recordings


def config(perturb, **train):
    return TrainConfig(batch_size=4, speeds=[1.0], perturb=PerturbConfig(**perturb), **train)


def test_the_ratio_is_drawn_between_the_limits(recordings):
    perturber = Perturber(PerturbConfig(noise={"p": 1.0, "kinds": ["white_noise"], "snr_db": [5, 15]}), [])
    samples = recordings.samples(recordings.utterances[0])
    ratios = []
    for seed in range(60):
        added = perturber(samples, seed) - samples
        ratios.append(20 * np.log10(active_level(samples) / np.sqrt(np.mean(np.square(added)))))
    assert 4.9 < min(ratios) < 6.5 and 13.5 < max(ratios) < 15.1
    assert np.mean(ratios) == pytest.approx(10, abs=1.5)


def test_parts_get_their_share_of_the_recordings_and_their_kinds(recordings, monkeypatch):
    applied = []
    for name, kind in PERTURBATIONS.items():
        spy = type(kind)(kind.group, kind.label, kind.unit, kind.strengths, None, kind.material)
        object.__setattr__(
            spy, "apply", lambda x, *_, name=name, group=kind.group: applied.append((group, name)) or x
        )
        monkeypatch.setitem(PERTURBATIONS, name, spy)
    parts = {
        "codec": {"p": 0.2, "kinds": ["opus"]},
        "noise": {"p": 0.6, "kinds": ["hum", "music"]},
        "reverb": {},
    }
    perturber = Perturber(PerturbConfig(**parts), [])
    for seed in range(1000):
        perturber(recordings.samples(recordings.utterances[0]), seed)
    counts = {name: sum(n == name for _, n in applied) for _, name in applied}
    assert set(counts) == {"opus", "hum", "music", "reverb"}
    assert counts["reverb"] == pytest.approx(300, abs=45) and counts["opus"] == pytest.approx(200, abs=40)
    assert counts["hum"] == pytest.approx(300, abs=45) and counts["music"] == pytest.approx(300, abs=45)


def test_sound_passes_the_room_before_the_noise_and_the_codec_last(recordings):
    """Each part alone, in this order, with the draws of one generator, is the whole."""
    samples = recordings.samples(recordings.utterances[0])
    parts = {
        "reverb": {"p": 1.0, "rt60_s": [0.5, 0.5]},
        "noise": {"p": 1.0, "kinds": ["hum"], "snr_db": [10, 10]},
        "codec": {"p": 1.0, "kinds": ["mu_law"]},
    }
    rng = np.random.default_rng([7, 1])
    expected = samples.astype(np.float32) / 2**15
    for name, strength in (("reverb", 0.5), ("hum", 10.0), ("mu_law", None)):
        rng.random(), rng.integers(1)
        drawn = rng.choice((8.0, 6.0, 4.0)) if strength is None else rng.uniform(strength, strength)
        expected = PERTURBATIONS[name].apply(expected, drawn, rng, None)
    assert np.allclose(Perturber(PerturbConfig(**parts), [])(samples, 7) / 2**15, expected, atol=1e-6)


def test_versions_limit_the_seeds_and_the_epochs_draw_all_of_them(recordings):
    utterances = recordings.utterances
    seeds = {u.id: set() for u in utterances}
    for epoch in range(60):
        rng = np.random.default_rng(epoch)
        items, _ = draw_items(utterances, recordings.lengths, [""] * 8, config(NOISE, versions=3), rng)
        for item in items:
            seeds[item.utterance.id].add(item.seed)
    assert {len(drawn) for drawn in seeds.values()} == {3}
    assert len(set().union(*seeds.values())) == 3 * len(utterances)
    first_epoch, second_epoch = (
        draw_items(utterances, recordings.lengths, [""] * 8, config(NOISE), np.random.default_rng(epoch))[0]
        for epoch in (0, 1)
    )
    assert not {item.seed for item in first_epoch} & {item.seed for item in second_epoch}


def test_babble_is_made_of_training_recordings_only(recordings, monkeypatch):
    """What the voices are made of is read; those of the test set never are, and other folds have other entries."""
    training, test = recordings.utterances[:4], recordings.utterances[4:]
    babble = config({"noise": {"p": 1.0, "kinds": ["babble"]}})
    changes = Waveforms(recordings, babble, training)
    read = []
    samples = recordings.samples
    monkeypatch.setattr(recordings, "samples", lambda u, speed=1.0: read.append(u.id) or samples(u, speed))
    for seed in range(30):
        changes.load(training[0], 1.0, 400, seed)
    assert set(read) == {u.id for u in training}
    other_fold = Waveforms(recordings, babble, test)
    assert changes.is_fold_specific
    assert changes.make_key(test[0], 1.0, 5) != other_fold.make_key(test[0], 1.0, 5)
    assert changes.make_key(test[0], 1.0, None) == other_fold.make_key(test[0], 1.0, None)
    plain = [Waveforms(recordings, config(NOISE), part) for part in (training, test)]
    assert not plain[0].is_fold_specific
    assert plain[0].make_key(test[0], 1.0, 5) == plain[1].make_key(test[0], 1.0, 5)


@pytest.mark.parametrize("perturb", [NOISE, {"noise": {"p": 1.0, "kinds": ["babble"]}}])
@pytest.mark.parametrize("where", ["memory", "file"])
def test_training_from_cached_versions_equals_training_without_a_cache(demo_recipe, tmp_path, where, perturb):
    model = SMALL_MODEL | {"frozen_layers": 1}
    options = {"epochs": [3], "perturb": perturb, "versions": 2, "augmentation": {"drop_chunks": 3}}
    cached = train_first_fold(
        demo_recipe(model, cache={"where": where, "folder": str(tmp_path / "c")}, **options), tmp_path / "a"
    )
    plain = train_first_fold(demo_recipe(model, cache="off", **options), tmp_path / "b")
    assert [e["loss"] for e in cached.history] == pytest.approx([e["loss"] for e in plain.history], abs=1e-4)
    clean = train_first_fold(demo_recipe(model, cache="off", epochs=[3]), tmp_path / "c")
    assert clean.history[0]["loss"] != pytest.approx(plain.history[0]["loss"], abs=1e-4)


def test_other_noises_in_the_folder_are_other_entries(recordings, tmp_path, tone):
    noise = {"noise": {"p": 1.0, "kinds": ["recorded_noise"], "folder": str(tmp_path)}}
    tone("a.wav", 1.0)
    first = Waveforms(recordings, config(noise))
    tone("a.wav", 2.0)
    second = Waveforms(recordings, config(noise))
    utterance = recordings.utterances[0]
    assert first.make_key(utterance, 1.0, 5) != second.make_key(utterance, 1.0, 5)
    assert first.make_key(utterance, 1.0, None) == second.make_key(utterance, 1.0, None)


def test_perturbation_and_augmentation_draw_independently(recordings):
    """The ratio of the noise says nothing about the bands that the augmentation removes."""
    both = config(NOISE, augmentation={"drop_frequencies": 1})
    ratios, centres = [], []
    for seed in range(200):
        rng = np.random.default_rng([seed, 1])
        rng.random(), rng.integers(1)
        ratios.append(rng.uniform(*both.perturb.noise.snr_db))
        centres.append(np.random.default_rng(seed).uniform(0, 8000))
    assert abs(np.corrcoef(ratios, centres)[0, 1]) < 0.2
    samples = recordings.samples(recordings.utterances[0])
    added = Perturber(both.perturb, [])(samples, 3) - samples
    measured = 20 * np.log10(active_level(samples) / np.sqrt(np.mean(np.square(added))))
    assert measured == pytest.approx(ratios[3], abs=0.01)


def test_without_versions_nothing_is_cached(demo_recipe):
    experiment = prepare(demo_recipe(perturb=NOISE, cache="memory"))
    with pytest.raises(SertoneError, match=r"train.perturb changes the waveforms.*set train.versions"):
        prepare_data(experiment, RunProgress(2, quiet=True))


def test_a_resumed_training_draws_the_same_perturbations(demo_recipe, tmp_path, monkeypatch):
    recipe = demo_recipe(SMALL_MODEL, perturb=ALL, save_every=1, epochs=[3])
    train_first_fold(recipe, tmp_path / "whole")
    interrupt(monkeypatch, recipe, tmp_path / "parts", 2)
    train_first_fold(recipe, tmp_path / "parts")
    whole, parts = load_weights(tmp_path / "whole"), load_weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_the_consistency_loss_is_the_divergence_from_the_clean_prediction():
    logits, reference = (torch.randn(5, 4, generator=torch.Generator().manual_seed(n)) for n in (0, 1))
    logits.requires_grad_()
    reference.requires_grad_()
    loss = consistency_loss(logits, reference)
    clean, perturbed = (scipy.special.softmax(x.detach().numpy(), 1) for x in (reference, logits))
    assert loss.item() == pytest.approx(scipy.stats.entropy(clean, perturbed, axis=1).mean(), rel=1e-5)
    loss.backward()
    assert logits.grad.abs().sum() > 0 and reference.grad is None
    ratings = [1 / (1 + np.exp(-x[:, :1].detach().numpy())) for x in (logits, reference)]
    assert consistency_loss(logits[:, :1], reference[:, :1]).item() == pytest.approx(
        np.mean((ratings[0] - ratings[1]) ** 2), rel=1e-5
    )


def test_consistency_is_one_more_loss_and_accumulates_like_the_others():
    """With dropout off, the loss of two batches is that of one, and 0 where nothing was changed."""
    options = {"consistency": 1000.0, "perturb": NOISE, "clip_norm": 1e9}

    def run(parts, power):
        stepper = make_stepper(WAN, **options)
        statistics = EpochStatistics(5)
        batches = []
        for part in parts:
            batch = make_batch(part, list(stepper.stage.weights))
            batches.append(replace(batch, clean=replace(batch, waveforms=batch.waveforms**power)))
        stepper.step(batches, 1.0, parts, statistics)
        return statistics.summarise()

    whole, parts = run([ROWS], 5), run([ROWS[:5], ROWS[5:]], 5)
    assert whole["loss_consistency"] == pytest.approx(parts["loss_consistency"], rel=1e-4)
    assert whole["loss_consistency"] > 1e-6
    assert whole["loss"] == pytest.approx(parts["loss"], rel=1e-4)
    unchanged = run([ROWS], 1)
    assert unchanged["loss_consistency"] == pytest.approx(0, abs=1e-6)
    assert whole["loss"] - unchanged["loss"] == pytest.approx(1000 * whole["loss_consistency"], rel=1e-3)


@pytest.mark.parametrize("pooling", ["mean", "standardised"])
def test_the_clean_prediction_has_no_dropout_and_changes_no_moments(pooling):
    """The model stays as it is without `consistency`, whose reference is the model after training."""
    options = {"perturb": NOISE, "clip_norm": 1e9, "learning_rate": {"encoder": 1e-9, "downstream": 1e-9}}
    model = WAN | {"dropout": 0.5, "pooling": pooling}
    buffers = []
    for weight in (0.0, 0.5):
        stepper = make_stepper(model, consistency=weight, **options)
        batch = make_batch(ROWS, list(stepper.stage.weights))
        torch.manual_seed(1)
        clean = replace(batch, waveforms=batch.waveforms**5)
        stepper.step([replace(batch, clean=clean)], 1.0, [ROWS], EpochStatistics(5))
        assert stepper.model.training and stepper.model.heads["emotion"].training
        buffers.append(dict(stepper.model.named_buffers()))
    assert all(torch.equal(value, buffers[1][name]) for name, value in buffers[0].items())


@pytest.mark.parametrize("cache", ["off", "memory"])
def test_training_compares_changed_waveforms_with_the_recordings(demo_recipe, tmp_path, cache):
    model = SMALL_MODEL | {"frozen_layers": 1}
    recipe = demo_recipe(
        model, epochs=[2], perturb=NOISE, versions=2, consistency=1.0, cache=cache, speeds=[1.0]
    )
    trained = train_first_fold(recipe, tmp_path / "run")
    assert all(entry["loss_consistency"] > 0 for entry in trained.history)
    (batch,) = trained.loader.batches([[BatchItem(u, seed=3) for u in trained.fold.train[:3]]], [])
    (plain,) = trained.loader.batches([[BatchItem(u) for u in trained.fold.train[:3]]], [])
    kind = "waveforms" if cache == "off" else "prefix"
    clean, expected = (getattr(b, kind) for b in (batch.clean, plain))
    if cache == "memory":
        clean, expected = clean.states, expected.states
        assert not torch.equal(batch.prefix.states, clean)
    assert torch.equal(clean, expected) and plain.clean is None


@pytest.mark.parametrize(
    ("perturb", "message"),
    [
        ({"noise": {"snr_db": [30, 5]}}, "lower number first"),
        ({"reverb": {"rt60_s": [1.0, 0.2]}}, "lower number first"),
        ({"noise": {"kinds": ["recorded_noise"]}}, "noise.folder"),
        ({"noise": {"folder": "noises"}}, "recorded_noise"),
        ({"noise": {"kinds": ["traffic"]}}, "white_noise"),
        ({"noise": {"kinds": []}}, "kinds"),
        ({"codec": {"p": 1.5}}, "codec.p"),
    ],
)
def test_wrong_settings_are_errors_that_name_the_way_out(perturb, message, demo_recipe):
    values = demo_recipe().model_dump(mode="json")
    values["train"]["perturb"] = perturb
    with pytest.raises(SertoneError, match=message):
        parse(Recipe, values, "recipe")


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"consistency": 0.5}, "set perturb too"),
        ({"versions": 4}, "set perturb or augmentation too"),
        ({"consistency": 0.5, "augmentation": {"crop_seconds": 1.0}}, "leave crop_seconds null"),
    ],
)
def test_settings_that_would_do_nothing_are_errors(demo_recipe, train, message):
    values = demo_recipe().model_dump(mode="json")
    values["train"] |= train
    with pytest.raises(SertoneError, match=message):
        parse(Recipe, values, "recipe")


def test_an_empty_folder_of_noises_is_an_error_before_training(demo_recipe, tmp_path):
    noise = {"kinds": ["recorded_noise"], "folder": str(tmp_path)}
    experiment = prepare(demo_recipe(SMALL_MODEL, epochs=[1], perturb={"noise": noise}))
    with pytest.raises(SertoneError) as caught:
        prepare_data(experiment, RunProgress(1, quiet=True))
    assert caught.value.code == "no_audio_files"

"""Augmentation of waveforms: its effects, its seeds, and that no cache hides it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_MODEL
from safetensors.torch import load_file

from sertone.errors import SertoneError
from sertone.nn.vocabulary import Vocabulary
from sertone.recipe.settings import parse
from sertone.recipe.train_config import TrainConfig
from sertone.recipe.train_parts import Augmentation
from sertone.schema import Utterance
from sertone.training.data.augmentation import augment, design_band_stop
from sertone.training.data.loader import BatchItem, Loader
from sertone.training.data.recordings import Recordings
from sertone.training.data.waveforms import Waveforms
from sertone.training.experiment.experiment import prepare
from sertone.training.fit import training_state
from sertone.training.fit.epoch_plan import draw_items
from sertone.training.fit.progress import RunProgress
from sertone.training.runs.folds import prepare_data, train_fold
from sertone.training.runs.run_folder import fingerprint
from sertone.training.runs.scheduler import _make_cache_key

DROPS = {"drop_frequencies": 3, "drop_chunks": 5}
NOTHING = Vocabulary({}, {}, [])


def noise(samples, seed=0):
    return np.random.default_rng(seed).integers(-9000, 9000, samples).astype(np.int16)


def spectrum_db(before, after):
    """Return Hz and gain in dB of a filter, from the ratio of the powers in 40 Hz bins."""
    powers = [
        np.abs(np.fft.rfft(x.astype(float)[: 400 * (len(x) // 400)].reshape(-1, 400))) ** 2
        for x in (before, after)
    ]
    return np.fft.rfftfreq(400, 1 / 16000), 10 * np.log10(powers[1].mean(0) / powers[0].mean(0))


@pytest.mark.parametrize(
    "direction, samples", [("slower", [40000, 32000, 26667]), ("shorter", [25600, 32000, 38400])]
)
def test_both_directions_of_the_speeds(tone, direction, samples):
    """A speed of 0.8 turns 32 000 samples into 40 000, or, as SpeechBrain resamples, into 25 600."""
    config = TrainConfig(batch_size=4, speeds=[0.8, 1.0, 1.2], speed_direction=direction)
    utterance = Utterance(id="x", path=tone(seconds=2.0), speaker="s")
    recordings = Recordings(1.0, config.playback_speeds)
    recordings.load([utterance])
    variants = [recordings.samples(utterance, speed) for speed in config.playback_speeds]
    assert [len(variant) for variant in variants] == samples
    pitches = [np.argmax(np.abs(np.fft.rfft(variant))) * 16000 / len(variant) for variant in variants]
    assert pitches == pytest.approx([200 * speed for speed in config.playback_speeds], abs=1)
    items, seconds = draw_items([utterance] * 50, {"x": 32000}, [""] * 50, config, np.random.default_rng(0))
    speeds = [item.speed for item in items]
    assert set(speeds) == set(config.playback_speeds) and {item.seed for item in items} == {None}
    assert seconds == pytest.approx([2.0 / speed for speed in speeds])


def test_a_band_is_removed_and_the_rest_stays():
    before = noise(160000)
    after = np.convolve(before.astype(np.float32), design_band_stop(np.array([1000.0, 5000.0]), 760), "same")
    hz, gain = spectrum_db(before, after)
    inside = np.minimum(np.abs(hz - 1000), np.abs(hz - 5000)) < 160
    outside = np.minimum(np.abs(hz - 1000), np.abs(hz - 5000)) > 760
    assert gain[inside].max() < -18 and np.abs(gain[outside]).max() < 0.5


def test_drops_follow_from_the_seed_and_stay_within_the_utterance():
    config = Augmentation(**DROPS)
    before = noise(32000)
    first, again, other = (augment(before, seed, config) for seed in (7, 7, 8))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert first.dtype == np.float32 and len(first) == len(before)
    chunks = Augmentation(drop_chunks=5)
    shares = []
    for seed in range(200):
        after = augment(before, seed, chunks)
        zeroed = (after == 0) & (before != 0)
        assert np.array_equal(after[~zeroed], before[~zeroed])
        shares.append(zeroed.sum())
    assert min(shares) == 0 and 5000 < max(shares) <= 10000, "0 to 5 chunks of 1000 to 2000 samples"
    bands = [
        spectrum_db(before, augment(before, seed, Augmentation(drop_frequencies=3)))[1] for seed in range(60)
    ]
    removed = [(gain < -10).sum() * 40 for gain in bands]
    assert min(removed) == 0 and 1500 < max(removed) < 2500, "0 to 3 bands of 760 Hz"


@pytest.mark.parametrize("samples", [1, 300, 1500, 9000])
def test_a_short_utterance_is_never_silenced_completely(samples):
    before = np.full(samples, 1000, np.int16)
    for seed in range(50):
        assert (augment(before, seed, Augmentation(drop_chunks=5)) != 0).any()


def test_a_crop_is_a_part_of_the_recording_and_a_shorter_one_stays_complete():
    before = np.arange(16000, dtype=np.int16)
    config = Augmentation(crop_seconds=0.25)
    starts = set()
    for seed in range(50):
        piece = augment(before, seed, config)
        assert len(piece) == 4000 and np.array_equal(piece, np.arange(piece[0], piece[0] + 4000))
        starts.add(piece[0])
    assert len(starts) > 40 and np.array_equal(augment(before[:3000], 0, config), before[:3000])
    utterances = [Utterance(id=name, path=Path(name), speaker="s") for name in ("long", "short")]
    recipe = TrainConfig(batch_size=4, speeds=[1.0], augmentation=config)
    items, seconds = draw_items(
        utterances, {"long": 16000, "short": 3000}, ["", ""], recipe, np.random.default_rng(0)
    )
    assert seconds == [0.25, 3000 / 16000] and len({item.seed for item in items}) == 2


def test_padding_and_items_without_a_seed_are_never_changed(tone):
    recordings = Recordings(1.0)
    long, short = (Utterance(id=n, path=tone(n, s), speaker="s") for n, s in (("a.wav", 2.0), ("b.wav", 0.5)))
    recordings.load([long, short])
    config = TrainConfig(batch_size=4, augmentation=Augmentation(**DROPS))
    loader = Loader(Waveforms(recordings, config), NOTHING, 400)
    (plain,) = loader.batches([[BatchItem(long), BatchItem(short)]], [])
    (changed,) = loader.batches([[BatchItem(long, seed=3), BatchItem(short, seed=5)]], [])
    assert plain.lengths.tolist() == changed.lengths.tolist() == [32000, 8000]
    assert not changed.waveforms[1, 8000:].any()
    assert np.array_equal(plain.waveforms[0].numpy(), recordings.samples(long) / np.float32(32768))
    for row, (utterance, seed) in enumerate(((long, 3), (short, 5))):
        expected = augment(recordings.samples(utterance), seed, Augmentation(**DROPS)) / 32768
        assert np.array_equal(changed.waveforms[row, : len(expected)].numpy(), expected.astype(np.float32))


@pytest.mark.parametrize("where", ["auto", "memory", "file", "off"])
def test_augmented_waveforms_are_not_cached(demo_recipe, where, tmp_path):
    cache = {"where": where, "folder": str(tmp_path)}
    experiment = prepare(demo_recipe(augmentation=DROPS, cache=cache))
    lines = []
    progress = RunProgress(2, quiet=True)
    progress.say = lines.append
    if where in ("auto", "off"):
        prepare_data(experiment, progress)
        lines = [line for line in lines if "train.augmentation" in line]
        assert bool(lines) == (where == "auto")
        return
    with pytest.raises(SertoneError) as caught:
        prepare_data(experiment, progress)
    assert caught.value.code == "not_cacheable" and "set train.versions" in str(caught.value)


def test_crops_of_transcripts_are_refused_before_training(demo_recipe):
    with pytest.raises(SertoneError, match="model learns transcripts"):
        prepare_data(prepare(demo_recipe(augmentation={"crop_seconds": 1})), RunProgress(2, quiet=True))
    silent = TINY_MODEL | {"tasks": {"asr": 0}}
    prepare_data(prepare(demo_recipe(silent, augmentation={"crop_seconds": 1})), RunProgress(2, quiet=True))


def train(recipe, folder):
    experiment = prepare(recipe)
    return train_fold(
        experiment,
        0,
        folder,
        prepare_data(experiment, RunProgress(2, quiet=True)),
        RunProgress(2, quiet=True),
    )


def test_a_resumed_training_draws_the_same_augmentation(demo_recipe, tmp_path, monkeypatch):
    recipe = demo_recipe(augmentation=DROPS, speed_direction="shorter", save_every=1, epochs=[1, 2])
    whole = train(recipe, tmp_path / "whole")
    assert all(entry["loss"] > 0 for entry in whole.history)
    save = training_state.save_training_state

    def save_and_stop(folder, number, *rest):
        save(folder, number, *rest)
        if number == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training_state, "save_training_state", save_and_stop)
        train(recipe, tmp_path / "parts")
    train(recipe, tmp_path / "parts")
    first, second = (load_file(tmp_path / n / "checkpoint" / "model.safetensors") for n in ("whole", "parts"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    plain = train(demo_recipe(speed_direction="shorter", epochs=[1, 0]), tmp_path / "plain")
    assert plain.history[0]["loss"] != whole.history[0]["loss"]


class CellOf:
    def __init__(self, experiment):
        self.experiment = experiment


@pytest.mark.parametrize(
    "change",
    [{"speed_direction": "shorter"}, {"augmentation": {"drop_chunks": 1}}],
    ids=lambda c: next(iter(c)),
)
def test_the_settings_are_part_of_every_fingerprint(demo_recipe, change):
    """They change the fingerprint of an experiment, shared first stages, and the data that runs share."""
    from sertone.models import build
    from sertone.training.fit.first_stages import hash_first_stage

    sides = []
    for recipe in (demo_recipe(), demo_recipe(**change)):
        experiment = prepare(recipe)
        torch.manual_seed(0)
        model = build(recipe.model, experiment.build_vocabulary(0))
        key = hash_first_stage(model, model.stages()[0], recipe.train, experiment.folds[0], {})
        sides.append(
            (fingerprint(recipe.model_dump(mode="json"), {}), key, _make_cache_key(CellOf(experiment)))
        )
    assert all(first != second for first, second in zip(*sides, strict=True))


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="shortest chunk first"):
        Augmentation(chunk_samples=(2000, 1000))
    with pytest.raises(SertoneError, match="did you mean 'drop_chunks'"):
        parse(Augmentation, {"drop_chunk": 3}, "train.augmentation")

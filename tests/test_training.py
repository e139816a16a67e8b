"""Batches, recordings, the best epoch, and steps that cannot be taken."""

import math
from pathlib import Path

import apart
import numpy as np
import pytest
import soundfile
import torch
from conftest import TINY_MODEL
from hypothesis import given
from hypothesis import strategies as st
from training_runs import load_weights, train_first_fold

from sertone import corpora
from sertone.errors import SertoneError
from sertone.schema import Utterance
from sertone.training.data.batches import padding_factor, plan_batches
from sertone.training.data.recordings import Recordings
from sertone.training.fit.epoch_statistics import EpochStatistics
from sertone.training.runs.crossval import cross_validate

durations = st.lists(st.floats(0.3, 35.0), min_size=1, max_size=200)


@given(durations, st.integers(1, 40), st.integers(0, 5) | st.none())
def test_batches_by_size(lengths, size, seed):
    draw = None if seed is None else np.random.default_rng(seed)
    batches = plan_batches(lengths, batch_size=size, rng=draw)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert len(batches) == math.ceil(len(lengths) / size)


@given(durations, st.floats(1.0, 90.0), st.integers(0, 5))
def test_batches_by_seconds(lengths, seconds, seed):
    options = {"batch_seconds": seconds, "mixing": seed / 3}
    batches = plan_batches(lengths, **options, rng=np.random.default_rng(seed))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= seconds
    assert batches == plan_batches(lengths, **options, rng=np.random.default_rng(seed))


def test_little_padding_on_lengths_like_iemocaps():
    draw = np.random.default_rng(0)
    sigma = 0.65
    lengths = np.clip(draw.lognormal(math.log(4.55) - sigma**2 / 2, sigma, 5531), 0.58, 34.14).tolist()
    one = plan_batches(lengths, batch_seconds=60, mixing=0.03, rng=np.random.default_rng(1))
    other = plan_batches(lengths, batch_seconds=60, mixing=0.03, rng=np.random.default_rng(2))
    assert padding_factor(lengths, one) < 1.05
    assert {frozenset(b) for b in one} != {frozenset(b) for b in other}


def test_random_batches_mix_all_lengths():
    lengths = np.random.default_rng(0).uniform(1, 10, 400).tolist()
    ratio = {}
    for mixing in (0.03, "random"):
        plan = plan_batches(lengths, batch_size=4, mixing=mixing, rng=np.random.default_rng(1))
        assert sorted(i for batch in plan for i in batch) == list(range(400))
        assert plan == plan_batches(lengths, batch_size=4, mixing=mixing, rng=np.random.default_rng(1))
        ratio[mixing] = np.mean([max(lengths[i] for i in b) / min(lengths[i] for i in b) for b in plan])
    assert ratio[0.03] < 1.15 and ratio["random"] > 2.5
    seconds = plan_batches(lengths, batch_seconds=30, mixing="random", rng=np.random.default_rng(1))
    assert all(len(batch) * max(lengths[i] for i in batch) <= 30 for batch in seconds)


def test_speed_changes_length_and_pitch(tone):
    utterance = Utterance(id="x", path=tone(seconds=2.0), speaker="s")
    recordings = Recordings(1.0, [0.8, 1.25])
    recordings.load([utterance])
    assert recordings.lengths == {"x": 32000}
    assert len(recordings.samples(utterance, 0.8)) == 40000
    fast = recordings.samples(utterance, 1.25)
    assert len(fast) == 25600 and fast.dtype == np.int16
    peak = np.argmax(np.abs(np.fft.rfft(fast))) * 16000 / len(fast)
    assert peak == pytest.approx(250, abs=2)
    without_room = Recordings(0.0, [0.8])
    without_room.load([utterance])
    np.testing.assert_array_equal(without_room.samples(utterance, 0.8), recordings.samples(utterance, 0.8))


@pytest.mark.parametrize("children", [1, 2])
def test_doubtful_recordings_are_reported_once(tmp_path, tone, children):
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    utterances = [
        Utterance(id="silent", path=tmp_path / "silent.wav", speaker="s"),
        Utterance(id="sound", path=tone(seconds=0.1), speaker="s"),
    ]
    recordings = Recordings(1.0)
    assert recordings.load(utterances, children) == {"no_speech": ["silent"]}
    assert recordings.load(utterances, children) == {}
    assert recordings.lengths == {"silent": 16000, "sound": 1600}


def test_decoding_in_several_children_gives_the_same_and_survives_a_crash(small_demo, monkeypatch):
    utterances = list(corpora.load_utterances("demo", small_demo))[:6]
    single, parallel = Recordings(1.0, [0.8]), Recordings(1.0, [0.8])
    single.load(utterances, 1)
    parallel.load(utterances, 2)
    assert single.lengths == parallel.lengths and single.hashes == parallel.hashes
    for utterance in utterances:
        np.testing.assert_array_equal(single.samples(utterance, 0.8), parallel.samples(utterance, 0.8))
    monkeypatch.setattr("sertone.training.data.recordings.decode", apart.die)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    with pytest.raises(SertoneError) as caught:
        Recordings(1.0).load(utterances[:2], 2)
    assert caught.value.code == "unreadable_audio" and "decoder_crashed" in str(caught.value)


def test_all_unreadable_recordings_are_named_before_training(demo_recipe, tmp_path, small_demo):
    import shutil

    root = shutil.copytree(small_demo, tmp_path / "copy")
    broken = sorted((root / "wav").iterdir())[:2]
    broken[0].write_bytes(b"RIFF")
    broken[1].write_bytes(b"")
    recipe = demo_recipe()
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": str(root)})})
    with pytest.raises(SertoneError) as caught:
        cross_validate(recipe, tmp_path / "run", quiet=True)
    assert caught.value.code == "unreadable_audio"
    assert all(path.name in str(caught.value) for path in broken)


def test_a_plan_that_would_fail_in_a_later_stage_is_refused_first(demo_recipe, tmp_path, monkeypatch):
    recipe = demo_recipe(model=TINY_MODEL | {"frozen_layers": 3})
    monkeypatch.setattr(Recordings, "load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(SertoneError) as caught:
        cross_validate(recipe, tmp_path, quiet=True)
    assert caught.value.code == "bad_cut" and not list(tmp_path.glob("fold_*"))


def test_the_weights_of_the_best_epoch_are_kept(demo_recipe, tmp_path):
    """Weights after n epochs of a constant rate do not depend on how many follow."""
    protocol = {"validation": "speaker"}
    trainer = train_first_fold(demo_recipe(epochs=[1, 5], seed=1, protocol=protocol), tmp_path / "five")
    scores = [entry["val_ua"] for entry in trainer.history[1:]]
    best = scores.index(max(scores)) + 1
    assert best < 5, "choose another seed: the last epoch must not be the best one"
    train_first_fold(demo_recipe(epochs=[1, best], seed=1, protocol=protocol), tmp_path / "best")
    five, expected = load_weights(tmp_path / "five"), load_weights(tmp_path / "best")
    assert all(torch.equal(five[name], expected[name]) for name in five)


def test_steps_that_are_not_finite_are_skipped_then_end_the_training(small_demo):
    clips = list(corpora.load_utterances("demo", small_demo))[:2]
    tally = EpochStatistics(max_bad_steps=3)
    one, nan, inf = (torch.tensor(value) for value in (1.0, math.nan, math.inf))
    losses = {"emotion": one}
    assert tally.add_step(losses, one, one, clips)
    assert not tally.add_step(losses, nan, one, clips)
    assert not tally.add_step(losses, one, inf, clips)
    assert tally.add_step(losses, one, one, clips)
    assert tally.summarise()["skipped_steps"] == 2 and tally.summarise()["loss"] == 1.0
    tally.add_step(losses, nan, one, clips)
    tally.add_step(losses, nan, one, clips)
    with pytest.raises(SertoneError, match=clips[0].id) as caught:
        tally.add_step(losses, nan, one, clips)
    assert caught.value.code == "not_finite"


def test_bad_steps_in_a_row_are_counted_across_epochs(small_demo):
    clips, nan, row = list(corpora.load_utterances("demo", small_demo))[:2], torch.tensor(math.nan), 0
    for _ in range(4):
        tally = EpochStatistics(5, row)
        assert not tally.add_step({"emotion": nan}, nan, nan, clips)
        assert tally.summarise()["skipped_steps"] == 1
        row = tally.bad_in_a_row
    with pytest.raises(SertoneError, match="5 steps in a row") as caught:
        EpochStatistics(5, row).add_step({"emotion": nan}, nan, nan, clips)
    assert caught.value.code == "not_finite" and "--fresh" in str(caught.value)


def test_a_stage_without_a_single_step_has_trained_nothing(demo_recipe, tmp_path):
    """There are too few bad steps to stop the training at once, and the weights are finite."""
    rates = {"encoder": 1e30, "downstream": 1e30}
    recipe = demo_recipe(epochs=[1, 1], batch_size=100, learning_rate=rates, clip_norm=1e30)
    for _ in range(2):  # nor does it resume as if it had
        with pytest.raises(SertoneError, match="no finite loss or gradient in 1 step") as caught:
            train_first_fold(recipe, tmp_path)
        assert caught.value.code == "not_finite" and "--fresh" in str(caught.value)


def test_a_diverging_run_stops(demo_recipe, tmp_path):
    recipe = demo_recipe(learning_rate={"encoder": 1e30, "downstream": 1e30}, epochs=[3, 3], clip_norm=1e30)
    with pytest.raises(SertoneError) as caught:
        train_first_fold(recipe, tmp_path)
    assert caught.value.code == "not_finite"


def test_the_number_of_epochs_is_that_of_the_stages(demo_recipe, tmp_path):
    with pytest.raises(SertoneError, match="auxiliary, emotion"):
        train_first_fold(demo_recipe(epochs=[1]), tmp_path)


def test_a_task_whose_texts_do_not_fit_is_counted(demo_recipe, tmp_path):
    trainer = train_first_fold(demo_recipe(speeds=[2.0]), tmp_path)
    assert trainer.history[0]["unfit_transcripts"] > 0
    assert all(math.isfinite(entry["loss"]) for entry in trainer.history)


def test_class_weights_are_inverse_frequencies(demo_recipe, tmp_path):
    trainer = train_first_fold(demo_recipe(class_weights=True), tmp_path)
    counts = trainer.vocabulary.make_targets("emotion", trainer.fold.train).sum(0)
    class_weights = trainer.model.heads["emotion"].class_weights
    torch.testing.assert_close(class_weights * counts, (counts.sum() / 4).expand(4))


def test_training_in_bf16_learns_the_same(demo_recipe, tmp_path):
    exact = train_first_fold(demo_recipe(epochs=[2, 2]), tmp_path / "a")
    rounded = train_first_fold(demo_recipe(epochs=[2, 2], precision="bf16-mixed"), tmp_path / "b")
    for a, b in zip(exact.history, rounded.history, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=0.05) and b["loss"] != a["loss"]

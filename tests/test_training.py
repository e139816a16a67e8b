"""Batches, resuming, steps that cannot be taken, checkpoints."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import apart
import numpy as np
import pytest
import soundfile
import torch
from conftest import TINY_MODEL
from damage import rehash
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from sertone import corpora
from sertone import recipe as recipes
from sertone.errors import SertoneError
from sertone.schema import Utterance
from sertone.training.data.batches import padding_factor, plan_batches
from sertone.training.data.recordings import Recordings
from sertone.training.experiment.experiment import prepare
from sertone.training.fit import checkpoint, training_state
from sertone.training.fit.epoch_statistics import EpochStatistics
from sertone.training.fit.progress import RunProgress
from sertone.training.fit.training_state import TrainingState
from sertone.training.runs.crossval import cross_validate
from sertone.training.runs.folds import prepare_data, train_fold
from sertone.training.runs.run_folder import claim

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
    utterances = list(corpora.read_utterances("demo", small_demo))[:6]
    here, there = Recordings(1.0, [0.8]), Recordings(1.0, [0.8])
    here.load(utterances, 1)
    there.load(utterances, 2)
    assert here.lengths == there.lengths and here.hashes == there.hashes
    for utterance in utterances:
        np.testing.assert_array_equal(here.samples(utterance, 0.8), there.samples(utterance, 0.8))
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


def weights(folder):
    return load_file(folder / "checkpoint" / "model.safetensors")


def test_a_plan_that_would_fail_in_a_later_stage_is_refused_first(demo_recipe, tmp_path, monkeypatch):
    recipe = demo_recipe(model=TINY_MODEL | {"frozen_layers": 3})
    monkeypatch.setattr(Recordings, "load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(SertoneError) as caught:
        cross_validate(recipe, tmp_path, quiet=True)
    assert caught.value.code == "bad_cut" and not list(tmp_path.glob("fold_*"))


def train_first_fold(recipe, folder):
    experiment, progress = prepare(recipe), RunProgress(1, quiet=True)
    return train_fold(experiment, 0, folder, prepare_data(experiment, progress), progress)


def interrupt(monkeypatch, recipe, folder, stop_after):
    """Train until this many epochs are saved, then stop."""
    save = training_state.save_training_state

    def save_and_stop(where, number, *rest):
        save(where, number, *rest)
        if number == stop_after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training_state, "save_training_state", save_and_stop)
        train_first_fold(recipe, folder)


@pytest.mark.parametrize("stop_after", [1, 2, 3, 5])
def test_an_interrupted_training_ends_with_the_same_weights(demo_recipe, tmp_path, monkeypatch, stop_after):
    recipe = demo_recipe(epochs=[2, 4], save_every=1, schedule="cosine", warmup=0.1)
    train_first_fold(recipe, tmp_path / "whole")
    interrupt(monkeypatch, recipe, tmp_path / "parts", stop_after)
    assert len(train_first_fold(recipe, tmp_path / "parts").history) == 6
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_statistics_and_perturbations_survive_an_interruption(demo_recipe, tmp_path, monkeypatch):
    encoder = {"name": "functionals", "perturbation": {"colour_db": 2.0, "warp": 0.1, "gain_db": 6.0}}
    model = {"name": "baseline", "encoder": encoder, "hidden": 8, "members": 2}
    recipe = demo_recipe(model, epochs=[4], save_every=1)
    train_first_fold(recipe, tmp_path / "whole")
    interrupt(monkeypatch, recipe, tmp_path / "parts", 2)
    train_first_fold(recipe, tmp_path / "parts")
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_the_best_epoch_of_a_validation_speaker_survives_an_interruption(demo_recipe, tmp_path, monkeypatch):
    recipe = demo_recipe(epochs=[1, 4], save_every=2, protocol={"validation": "speaker"})
    trainer = train_first_fold(recipe, tmp_path / "whole")
    scores = [entry["val_ua"] for entry in trainer.history if entry["stage"] == "emotion"]
    assert len(scores) == 4
    interrupt(monkeypatch, recipe, tmp_path / "parts", 3)
    again = train_first_fold(recipe, tmp_path / "parts")
    assert [e.get("val_ua") for e in again.history] == [e.get("val_ua") for e in trainer.history]
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_the_weights_of_the_best_epoch_are_kept(demo_recipe, tmp_path):
    """Weights after n epochs of a constant rate do not depend on how many follow."""
    protocol = {"validation": "speaker"}
    trainer = train_first_fold(demo_recipe(epochs=[1, 5], seed=1, protocol=protocol), tmp_path / "five")
    scores = [entry["val_ua"] for entry in trainer.history[1:]]
    best = scores.index(max(scores)) + 1
    assert best < 5, "choose another seed: the last epoch must not be the best one"
    train_first_fold(demo_recipe(epochs=[1, best], seed=1, protocol=protocol), tmp_path / "best")
    five, expected = weights(tmp_path / "five"), weights(tmp_path / "best")
    assert all(torch.equal(five[name], expected[name]) for name in five)


def test_a_killed_run_resumes(demo_recipe, tmp_path):
    """After SIGKILL at any instant, the same command ends with the same scores."""
    recipe = demo_recipe(epochs=[3, 3], save_every=1)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipes.dump(recipe))
    command = [sys.executable, "-m", "sertone", "crossval", str(path), "--out", str(tmp_path / "run")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "run").glob("fold_1/resume/*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "run" / "results.json").exists()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    cross_validate(recipe, tmp_path / "whole", jobs=1, quiet=True)
    killed, whole = (json.loads((tmp_path / d / "results.json").read_text()) for d in ("run", "whole"))
    assert killed["pooled"] == whole["pooled"]
    for number in (0, 1):
        a, b = (weights(tmp_path / d / f"fold_{number}") for d in ("run", "whole"))
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_saves_of_another_version_are_refused(tmp_path):
    for name in ("000002", "000007", ".part"):
        (tmp_path / name).mkdir()
    (tmp_path / "000002" / "state.json").write_text("{}")
    assert training_state.find_training_state(tmp_path) == tmp_path / "000002"
    assert training_state.find_training_state(tmp_path / "nowhere") is None
    with pytest.raises(SertoneError, match="has format None"):
        training_state.load_training_state(tmp_path / "000002", torch.nn.Linear(1, 1))


def test_the_file_of_a_training_state_keeps_its_keys():
    """Saves of older versions load, also those without scores after stages."""
    older = {"stage": 0, "epoch": 3, "best": None, "history": [{"loss": 1.0}], "experiment": "abc"}
    state = TrainingState.from_json(older)
    assert state.history == [{"loss": 1.0}] and state.after_stages == {} and state.best_weights == {}
    assert list(state.to_json().items()) == list((older | {"after_stages": {}}).items())


def test_a_run_folder_belongs_to_one_experiment_and_one_process(tmp_path):
    card = {"seed": 1}
    with claim(tmp_path, "a: 1\n...\n", card, force=False, fresh=False):
        with (
            pytest.raises(SertoneError) as caught,
            claim(tmp_path, "a: 1\n...\n", card, force=False, fresh=False),
        ):
            pass
        assert caught.value.code == "run_in_use"
    with claim(tmp_path, "a: 1\n...\n", card, force=False, fresh=False):
        (tmp_path / "fold_0").mkdir()
    for recipe, other in (("a: 2\n...\n", card), ("a: 1\n...\n", {"seed": 2})):
        with (
            pytest.raises(SertoneError, match="--fresh") as caught,
            claim(tmp_path, recipe, other, force=False, fresh=False),
        ):
            pass
        assert caught.value.code == "other_experiment" and "was 1, now 2" in str(caught.value)
    (tmp_path / "thesis").mkdir()
    with claim(tmp_path, "a: 2\n...\n", card, force=True, fresh=False):
        assert (tmp_path / "fold_0").exists()
    with claim(tmp_path, "a: 3\n...\n", card, force=False, fresh=True):
        assert not (tmp_path / "fold_0").exists() and (tmp_path / "thesis").exists()


def test_steps_that_are_not_finite_are_skipped_then_end_the_training(small_demo):
    clips = list(corpora.read_utterances("demo", small_demo))[:2]
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
    clips, nan, row = list(corpora.read_utterances("demo", small_demo))[:2], torch.tensor(math.nan), 0
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


@pytest.fixture(scope="module")
def trained(tmp_path_factory, small_demo):
    from sertone.recipe import Recipe

    values = {
        "data": {"corpus": "demo", "root": str(small_demo)},
        "protocol": {"split": "grouped_k_fold", "folds": 2},
        "model": TINY_MODEL,
        "train": {"epochs": [1, 1], "batch_size": 8},
    }
    folder = tmp_path_factory.mktemp("trained")
    trainer = train_first_fold(Recipe.model_validate(values), folder)
    return trainer, folder / "checkpoint"


def test_a_checkpoint_explains_itself(trained):
    trainer, folder = trained
    model, vocabulary, about = checkpoint.load_model(folder)
    assert vocabulary == trainer.vocabulary
    assert about["card"]["split"]["split"] == "grouped_k_fold" and "file_hashes" not in about["card"]
    before = trainer.model.state_dict()
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert not any(p.suffix in (".pt", ".bin", ".pkl") for p in folder.iterdir())


def damaged(trained, tmp_path):
    import shutil

    return shutil.copytree(trained[1], tmp_path / "checkpoint")


def test_damaged_checkpoints_are_refused(trained, tmp_path):
    def code():
        with pytest.raises(SertoneError) as caught:
            checkpoint.load_model(folder)
        return caught.value.code

    folder = damaged(trained, tmp_path)
    path, marker = folder / "model.safetensors", folder / checkpoint.MARKER
    good, about = path.read_bytes(), json.loads(marker.read_text())
    path.write_bytes(good[:-100])
    assert code() == "bad_weights"
    path.write_bytes(good)
    tensors = load_file(path)
    name = "fusion.weights"
    remaining = {k: v for k, v in tensors.items() if k != name}
    for changed in ({name: tensors[name] + math.nan}, {}, {name: tensors[name].int()}, {"x": tensors[name]}):
        save_file(remaining | changed, path)
        assert code() == "bad_weights"
        rehash(folder)
        with pytest.raises(SertoneError, match=name) as caught:
            checkpoint.load_model(folder)
        assert caught.value.code == "bad_weights"
    path.write_bytes(good)
    about["vocabulary"]["classes"]["emotion"].pop()
    marker.write_text(json.dumps(about))
    assert code() == "bad_weights"
    marker.write_text(json.dumps(about | {"format": 99}))
    assert code() == "other_format"
    marker.write_text('{"format": 1, ')
    assert code() == "bad_weights"
    marker.unlink()
    assert code() == "not_a_checkpoint"


def put(*path, value):
    """Return a function that sets a value of `checkpoint.json`."""

    def change(about):
        for key in path[:-1]:
            about = about[key]
        about[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("licences", value=[{"what": "corpus"}]), "no valid licences"),
        (put("licences", value=None), "no valid licences"),
        (
            put("vocabulary", "classes", "emotion", value=["sad", "sad", "x", "y"]),
            "vocabulary.classes.emotion",
        ),
        (put("vocabulary", "ratings", value={"arousal": {"low": 5, "high": 1}}), "vocabulary.ratings"),
        (put("calibration", "temperature", value=0), "calibration.temperature"),
        (put("calibration", "threshold", value="high"), "calibration.threshold"),
        (put("min_samples", value=10**30), "min_samples"),
        (put("card", "corpus", value="demo"), "card.corpus"),
        (put("card", "fold", value="nobody"), "card.fold"),
        (put("card", "heard", value={}), "card.heard.recordings"),
        (put("files", value={}), "files.model.safetensors"),
        (put("model", value=[]), "no valid model"),
        (put("model", "encoder", "depth", value=10**9), "no valid model"),
        (put("model", "encoder", "depth", value=900), "as checkpoint.json describes the model"),
        (put("model", "encoder", "width", value=999_998), "as checkpoint.json describes the model"),
        (put("model", "encoder", "attention_heads", value=3), "no multiple of attention_heads"),
        (put("model", "name", value="nothing"), "model.name 'nothing'"),
    ],
)
def test_the_content_of_a_checkpoint_is_compared_with_its_shape(trained, tmp_path, change, said):
    folder = damaged(trained, tmp_path)
    about = json.loads((folder / checkpoint.MARKER).read_text())
    change(about)
    (folder / checkpoint.MARKER).write_text(json.dumps(about))
    with pytest.raises(SertoneError, match=said) as caught:
        checkpoint.load_model(folder)
    assert caught.value.code == "bad_weights"


@pytest.mark.parametrize("name", ["model.safetensors", "checkpoint.json"])
def test_a_pipe_instead_of_a_file_does_not_block(trained, tmp_path, name):
    folder = damaged(trained, tmp_path)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(SertoneError) as caught:
        checkpoint.load_model(folder)
    assert caught.value.code == ("not_a_checkpoint" if name == "checkpoint.json" else "bad_weights")


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 100))
def test_the_optimizer_survives_the_disk(seed):
    import tempfile
    from pathlib import Path

    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    model[0].bias.requires_grad_(False)

    def optimizer_of(model):
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        return torch.optim.AdamW(trained, fused=True)

    def step(model, optimizer):
        optimizer.zero_grad()
        model(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()

    first = optimizer_of(model)
    step(model, first)
    with tempfile.TemporaryDirectory() as folder:
        saved = TrainingState(stage=1, epoch=2, best_score=0.5, experiment="this one")
        training_state.save_training_state(Path(folder), 1, model, first, saved)
        copy = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
        copy[0].bias.requires_grad_(False)
        state = training_state.load_training_state(Path(folder) / "000001", copy)
    second = optimizer_of(copy)
    training_state.restore_optimizer(second, state.moments)
    step(model, first)
    step(copy, second)
    assert state == replace(saved, moments=state.moments)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), copy.parameters(), strict=True))


def test_a_device_that_fails_is_no_fault_of_the_model(trained):
    """The model works on the CPU; the device `meta` computes nothing at all."""
    from sertone.training.testing.trained import TorchModel

    model = TorchModel(trained[1], device="meta")
    assert model.device == "meta" and next(model.models[0].parameters()).is_meta
    with pytest.raises(NotImplementedError):
        model.outputs(np.zeros((1, 16000), np.float32))

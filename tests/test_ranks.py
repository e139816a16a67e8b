"""Several processes train one model: equal shares, one gradient, one writer."""

import contextlib
import csv
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_MODEL
from hypothesis import given, settings
from hypothesis import strategies as st

from sertone import models
from sertone import recipe as recipes
from sertone.errors import SertoneError
from sertone.nn.vocabulary import Vocabulary
from sertone.recipe.train_config import TrainConfig
from sertone.training.data.batches import plan_batches
from sertone.training.experiment.experiment import prepare
from sertone.training.fit import distributed
from sertone.training.fit.epoch_plan import plan_epoch
from sertone.training.fit.memory import StepMemory
from sertone.training.fit.progress import RunProgress
from sertone.training.fit.trainer import Trainer
from sertone.training.runs.folds import prepare_data, train_fold
from sertone.utils.processes import ChildProcess


def test_fabric_does_not_announce_itself():
    distributed.make_fabric(TrainConfig(batch_size=1, device="cpu"))
    assert logging.getLogger("lightning_fabric").level == logging.WARNING


@settings(deadline=None)
@given(st.lists(st.floats(0.3, 35.0), min_size=1, max_size=150), st.integers(1, 9), st.floats(5.0, 60.0))
def test_all_processes_get_the_same_number_of_batches_and_nothing_is_lost(lengths, count, seconds):
    try:
        batches = plan_batches(lengths, batch_seconds=seconds, rng=np.random.default_rng(0), world_size=count)
    except SertoneError as error:
        assert error.code == "too_few_utterances"
        alone = plan_batches(lengths, batch_seconds=seconds)
        assert -(-len(alone) // count) * count > len(lengths), "there was nothing left to halve"
        return
    shares = [batches[number::count] for number in range(count)]
    assert len({len(share) for share in shares}) == 1
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(len(b) == 1 or len(b) * max(lengths[i] for i in b) <= seconds for b in batches)


def ranks_environment(count):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "NODE_RANK": "0"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    shared |= {"PYTHONPATH": os.path.dirname(__file__)}  # noqa: PTH120
    return [shared | {"RANK": str(n), "LOCAL_RANK": str(n)} for n in range(count)]


def train(recipe, folder):
    distributed.init(recipe.train.device)
    experiment, progress = prepare(recipe), RunProgress(1, quiet=True)
    trainer = train_fold(experiment, 0, folder, prepare_data(experiment, progress), progress)
    weights = {name: tensor.numpy() for name, tensor in trainer.model.state_dict().items()}
    return trainer.history, weights, trainer.fabric.world_size, trainer.after_stages


def train_with_two_ranks(recipe, folder):
    children = [ChildProcess(environment) for environment in ranks_environment(2)]
    try:
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda child: child(train, recipe, folder), children))
    finally:
        for child in children:
            child.close()


def test_two_processes_end_with_the_same_weights_and_the_losses_of_one(demo_recipe, tmp_path):
    """Without dropout and almost without learning, the epoch's mean loss is that of a single process."""
    encoder = TINY_MODEL["encoder"] | {"dropout": 0.0}
    still = {"model": TINY_MODEL | {"encoder": encoder, "dropout": 0.0}, "batch_size": 5, "device": "cpu"}
    still["learning_rate"] = {"encoder": 1e-12, "downstream": 1e-12}
    (first, weights, world, scored), (second, others, _, scored_too) = train_with_two_ranks(
        demo_recipe(**still), tmp_path / "two"
    )
    assert world == 2
    assert all((weights[name] == others[name]).all() for name in weights)
    alone, _, _, scored_alone = train(demo_recipe(**still), tmp_path / "one")
    assert scored == scored_too == scored_alone != {}
    for a, b, c in zip(alone, first, second, strict=True):
        assert b["loss"] == c["loss"] == pytest.approx(a["loss"], rel=1e-5)
        assert b.get("ua") == c.get("ua") == pytest.approx(a["ua"]) if "ua" in a else True
        assert b["unfit_transcripts"] == a["unfit_transcripts"]


@pytest.mark.slow
def test_two_processes_take_the_step_of_their_mean_loss(demo_recipe, tmp_path):
    """One step on two batches of ten, against the gradient of the mean of both losses in one process."""
    encoder = TINY_MODEL["encoder"] | {"dropout": 0.0}
    model = TINY_MODEL | {"encoder": encoder, "dropout": 0.0}
    recipe = demo_recipe(model=model, batch_size=10, device="cpu", epochs=[1, 0], speeds=[1.0], clip_norm=1e9)
    (_, weights, *_), (_, others, *_) = train_with_two_ranks(recipe, tmp_path)
    assert all((weights[name] == others[name]).all() for name in weights)

    experiment = prepare(recipe)
    material = prepare_data(experiment, RunProgress(1, quiet=True))
    torch.manual_seed(recipe.train.seed * 1000)
    fold = experiment.folds[0]
    vocabulary = Vocabulary.from_utterances(fold.train, experiment.class_map)
    alone = models.build(recipe.model, vocabulary)
    trainer = Trainer(
        alone, vocabulary, fold, 0, recipe.train, material, tmp_path / "x", RunProgress(1, True)
    )
    stepper = trainer.begin_stage(0)
    stepper.begin_epoch()
    memory = StepMemory(alone.encoder, recipe.train, "cpu", stepper.stage.cut)
    lengths, withheld = material.recordings.lengths, [""] * len(fold.train)
    plan, _ = plan_epoch(fold.train, lengths, withheld, recipe.train, memory, np.random.default_rng(0))
    assert len(plan) == 2
    shares = stepper.stage.weights
    for batch in trainer.loader.batches(plan, list(shares)):
        outputs = alone(batch, tuple(shares))
        losses = {task: alone.heads[task].loss(outputs[task], batch.targets[task]) for task in shares}
        (sum(weight * losses[task] for task, weight in shares.items()) / 2).backward()
    for group in stepper.optimizer.param_groups:
        group["lr"] = group["peak"]
    before = {name: tensor.clone() for name, tensor in alone.state_dict().items()}
    stepper.optimizer.step()
    for name, tensor in alone.state_dict().items():
        torch.testing.assert_close(torch.from_numpy(weights[name]), tensor, atol=1e-6, rtol=1e-4)
    moved = [name for name, tensor in alone.state_dict().items() if not torch.equal(tensor, before[name])]
    assert len(moved) > 20


def test_two_processes_decide_alike_with_every_setting_of_fine_tuning(demo_recipe, tmp_path):
    """Adapters, averages, batches in parts, a batch norm and an early end: equal weights and histories."""
    model = {"name": "baseline", "encoder": {"name": "tiny"}, "hidden": 8, "pooling": "standardised"}
    recipe = demo_recipe(
        model, {"validation": "speaker"}, epochs=[6], batch_size=4, device="cpu", accumulate=2, ema=0.8,
        layer_decay=0.9, patience=1, lora={"rank": 2}, sampling="balanced", log=["tensorboard"],
    )  # fmt: skip
    (first, weights, *_), (second, others, *_) = train_with_two_ranks(recipe, tmp_path / "run")
    assert all((weights[name] == others[name]).all() for name in weights)
    assert [entry["score"] for entry in first] == [entry["score"] for entry in second]
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1, "one process writes"


def test_jobs_and_several_processes_exclude_each_other(demo_recipe, tmp_path, monkeypatch):
    from sertone.training.runs.crossval import cross_validate

    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "init", lambda _: None)
    with pytest.raises(SertoneError, match="--jobs 2") as caught:
        cross_validate(demo_recipe(), tmp_path / "run", jobs=2)
    assert caught.value.code == "jobs_and_ranks"


def processes_of(folder):
    """Return the processes whose command line names a folder."""
    processes = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            processes += [int(path.parent.name)] if str(folder).encode() in path.read_bytes() else []
    return processes


def wait_until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()


def test_processes_end_when_their_launcher_is_killed(demo_recipe, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(recipes.dump(demo_recipe(device="cpu", epochs=[500, 500], save_every=1)))
    port = ranks_environment(1)[0]["MASTER_PORT"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port]
    command += ["-m", "sertone", "crossval", str(path), "--out", str(tmp_path / "run")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    launcher = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        assert wait_until(lambda: list(tmp_path.glob("run/fold_0/resume/0*"))), "nothing was trained"
        assert len(processes_of(path)) == 3
        launcher.kill()
        launcher.wait()
        assert wait_until(lambda: not processes_of(path), 20)
    finally:
        for process in processes_of(path):
            os.kill(process, signal.SIGKILL)


def test_torchrun_cross_validates_with_one_writer(demo_recipe, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(recipes.dump(demo_recipe(device="cpu")))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += [
        "--master-port",
        ranks_environment(1)[0]["MASTER_PORT"],
        "-m",
        "sertone",
        "crossval",
        str(path),
    ]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("95 % interval") == 1 and done.stderr.count("test UA") == 2
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert sum(fold["test"] for fold in results["folds"]) == 40
    with open(tmp_path / "run" / "predictions.csv", newline="") as file:
        assert len({row["id"] for row in csv.DictReader(file)}) == 40

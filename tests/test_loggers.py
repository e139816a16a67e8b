"""Loggers: TensorBoard's event files, read back; MLflow and Weights & Biases where they are installed."""

import sys
from typing import ClassVar, get_args

import pytest
from conftest import SMALL_MODEL
from training_runs import interrupt, train_first_fold

from sertone.errors import SertoneError
from sertone.recipe.train_config import TrainConfig
from sertone.training.fit.loggers import LOGGERS, OWN_PACKAGES, Loggers, _Logger, select_numbers

TINY = {"name": "baseline", "encoder": {"name": "tiny"}, "hidden": 8}


def read_events(folder):
    """Return name -> [(step, value)] of the event files in a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_tensorboard_gets_every_number_of_the_history(demo_recipe, tmp_path):
    recipe = demo_recipe(TINY, {"validation": "speaker"}, epochs=[3], log=["tensorboard"])
    trainer = train_first_fold(recipe, tmp_path)
    logged = read_events(tmp_path / "tensorboard")
    assert {"loss", "ua", "val_ua", "gradient_norm", "learning_rates/encoder", "seconds"} <= set(logged)
    for name, values in logged.items():
        expected = [select_numbers(entry)[name] for entry in trainer.history]
        assert [step for step, _ in values] == [1, 2, 3]
        assert [value for _, value in values] == pytest.approx(expected, rel=1e-6)


def test_a_resumed_training_replaces_the_epochs_after_its_save(demo_recipe, tmp_path, monkeypatch):
    recipe = demo_recipe(TINY, epochs=[4], save_every=2, log=["tensorboard"])
    interrupt(monkeypatch, recipe, tmp_path, 2)
    with Loggers(["tensorboard"], tmp_path, [{"loss": 1.0}] * 2, print) as loggers:
        loggers.log({"loss": 77.0})  # an epoch after the last save, which is trained again
    trainer = train_first_fold(recipe, tmp_path)
    losses = read_events(tmp_path / "tensorboard")["loss"]
    assert losses == [
        (n + 1, pytest.approx(entry["loss"], rel=1e-6)) for n, entry in enumerate(trainer.history)
    ]


def test_the_recipe_names_every_logger():
    (names,) = get_args(TrainConfig.model_fields["log"].annotation)
    assert set(get_args(names)) == set(LOGGERS)


def test_without_loggers_there_is_no_file(demo_recipe, tmp_path):
    train_first_fold(demo_recipe(TINY, epochs=[1]), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint", "resume"}


def test_loggers_change_no_result_and_may_be_added_to_a_resumed_run(demo_recipe):
    from sertone import recipe as recipes

    plain, logged = demo_recipe(), demo_recipe(log=["tensorboard"])
    assert recipes.drop_neutral(plain.model_dump()) == recipes.drop_neutral(logged.model_dump())


class Failing(_Logger):
    """A logger that fails where the test says, and records what it receives."""

    fails_at = "start"
    received: ClassVar[list] = []

    def __init__(self, folder):
        self._do("start", folder.name)

    @staticmethod
    def load():
        pass

    def log(self, values, step):
        self._do("epoch", step)

    def close(self, *, failed):
        self._do("end", failed)

    def _do(self, place, value):
        if place == self.fails_at:
            raise ConnectionError("no answer")
        self.received.append((place, value))


@pytest.mark.parametrize(
    ("fails_at", "received"),
    [("start", []), ("epoch", [("start", "run")]), ("end", [("start", "run"), ("epoch", 1), ("epoch", 2)])],
)
def test_a_logger_that_fails_is_left_out_and_training_goes_on(
    demo_recipe, tmp_path, monkeypatch, fails_at, received
):
    monkeypatch.setitem(LOGGERS, "wandb", Failing)
    monkeypatch.setattr(Failing, "fails_at", fails_at)
    monkeypatch.setattr(Failing, "received", [])
    lines = []
    trainer = train_first_fold(
        demo_recipe(TINY, epochs=[2], log=["wandb", "tensorboard"]), tmp_path / "run", lines
    )
    assert [line for line in lines if "train.log" in line] == [
        "train.log: wandb failed and receives no further epochs: no answer"
    ]
    assert Failing.received == received
    assert len(read_events(tmp_path / "run" / "tensorboard")["loss"]) == len(trainer.history) == 2
    assert (tmp_path / "run" / "checkpoint" / "model.safetensors").is_file()


def test_loggers_learn_that_a_training_has_failed(tmp_path, monkeypatch):
    monkeypatch.setitem(LOGGERS, "wandb", Failing)
    monkeypatch.setattr(Failing, "fails_at", "")
    monkeypatch.setattr(Failing, "received", [])
    with pytest.raises(KeyboardInterrupt), Loggers(["wandb"], tmp_path, [{"loss": 1.0}], print):
        raise KeyboardInterrupt
    assert Failing.received == [("start", tmp_path.name), ("epoch", 1), ("end", True)]


def test_only_numbers_are_logged():
    entry = {
        "loss": 1,
        "stage": "emotion",
        "rates": {"encoder": 1e-4, "note": "x"},
        "counts": [1, 2],
        "ua": 0.5,
    }
    assert select_numbers(entry) == {"loss": 1.0, "rates/encoder": 1e-4, "ua": 0.5}


@pytest.mark.parametrize(
    ("name", "module", "command"),
    [
        ("tensorboard", "tensorboard", "[log]"),
        ("mlflow", "mlflow", "mlflow-skinny"),
        ("wandb", "wandb", "wandb"),
    ],
)
def test_a_logger_that_is_not_installed_is_an_error_before_training(
    demo_recipe, tmp_path, monkeypatch, name, module, command
):
    monkeypatch.setitem(sys.modules, module, None)  # its import fails
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(SertoneError, match=f"train.log has {name}") as caught:
        train_first_fold(demo_recipe(SMALL_MODEL, epochs=[1], log=[name]), tmp_path)
    assert caught.value.code == "missing_extra" and command in caught.value.way_out
    assert not (tmp_path / "checkpoint").exists()


def test_mlflow_gets_the_history(demo_recipe, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason=OWN_PACKAGES["mlflow"])
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    trainer = train_first_fold(demo_recipe(TINY, epochs=[2], log=["mlflow"]), tmp_path / "run")
    client = mlflow.MlflowClient()
    (run,) = client.search_runs(["0"])
    assert run.info.run_name == str(tmp_path / "run") and run.info.status == "FINISHED"
    losses = [metric.value for metric in client.get_metric_history(run.info.run_id, "loss")]
    assert losses == pytest.approx([entry["loss"] for entry in trainer.history])


def test_weights_and_biases_gets_the_history(demo_recipe, tmp_path, monkeypatch):
    """Offline, its files are binary: only its own summary is read back."""
    pytest.importorskip("wandb", reason=OWN_PACKAGES["wandb"])
    monkeypatch.setenv("WANDB_MODE", "offline")
    summaries = []
    import wandb

    finish = wandb.Run.finish
    monkeypatch.setattr(
        wandb.Run, "finish", lambda self, **k: (summaries.append(dict(self.summary)), finish(self, **k))
    )
    trainer = train_first_fold(demo_recipe(TINY, epochs=[2], log=["wandb"]), tmp_path)
    assert summaries[0]["loss"] == pytest.approx(trainer.history[-1]["loss"])
    assert list((tmp_path / "wandb").glob("offline-run-*"))

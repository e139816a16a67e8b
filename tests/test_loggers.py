"""Loggers: TensorBoard's event files, read back; MLflow and Weights & Biases where they are installed."""

import sys

import pytest
from conftest import SMALL_MODEL
from training_runs import interrupt, train_first_fold

from sertone.errors import SertoneError
from sertone.training.fit.loggers import OWN_PACKAGES, Loggers, select_numbers

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
    with Loggers(["tensorboard"], tmp_path, "fold 0", 2, print) as loggers:
        loggers.log({"loss": 77.0}, 3)  # an epoch after the last save, which is trained again
    trainer = train_first_fold(recipe, tmp_path)
    losses = read_events(tmp_path / "tensorboard")["loss"]
    assert losses == [
        (n + 1, pytest.approx(entry["loss"], rel=1e-6)) for n, entry in enumerate(trainer.history)
    ]


def test_without_loggers_there_is_no_file(demo_recipe, tmp_path):
    train_first_fold(demo_recipe(TINY, epochs=[1]), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint", "resume"}


def test_loggers_change_no_result_and_may_be_added_to_a_resumed_run(demo_recipe):
    from sertone import recipe as recipes

    plain, logged = demo_recipe(), demo_recipe(log=["tensorboard"])
    assert recipes.drop_neutral(plain.model_dump()) == recipes.drop_neutral(logged.model_dump())


def test_a_logger_that_fails_is_left_out_and_training_goes_on(demo_recipe, tmp_path, monkeypatch):
    from torch.utils.tensorboard import SummaryWriter

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(SummaryWriter, "add_scalar", fail)
    lines = []
    train_first_fold(demo_recipe(TINY, epochs=[2], log=["tensorboard"]), tmp_path, lines)
    assert [line for line in lines if "gets no more" in line] == [
        "TensorBoard failed and gets no more: no space left"
    ]
    assert (tmp_path / "checkpoint" / "model.safetensors").is_file()


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
    assert run.info.run_name == "fold 0" and run.info.status == "FINISHED"
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

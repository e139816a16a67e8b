"""Loggers of other tools that get the history of a training: TensorBoard, MLflow, Weights & Biases.

The report and the results of a run need none of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any, Self

from sertone.errors import SertoneError, first_line
from sertone.utils.extras import install_command

OWN_PACKAGES = {"mlflow": "pip install mlflow-skinny", "wandb": "pip install wandb"}
"""Name in `train.log` -> the command that installs it, where the extra `log` does not."""


def require_loggers(names: Sequence[str]) -> None:
    """Refuse loggers that are not installed.

    Raises:
        SertoneError: `missing_extra`.
    """
    for name in names:
        try:
            LOGGERS[name].load()
        except ImportError:
            raise SertoneError(
                "missing_extra",
                f"train.log has {name}, which is not installed",
                way_out=OWN_PACKAGES.get(name, install_command("log")),
            ) from None


class Loggers:
    """The loggers of one training, open within the context.

    A logger that fails, also at its start or end, receives nothing further, and training goes on.

    Args:
        names: `train.log`.
        folder: folder of the fold, where they keep their files. It also names the run in MLflow and W&B.
        history: epochs that are done already. They are logged again, so every log is complete.
        say: receives a line about a logger that fails.
    """

    def __init__(
        self, names: Sequence[str], folder: Path, history: Sequence[dict], say: Callable[[str], None]
    ) -> None:
        self._names = names
        self._folder = folder
        self._history = history
        self._say = say
        self._open: dict[str, _Logger] = {}
        self._step = 0

    def __enter__(self) -> Self:
        for name in self._names:
            with self._guard(name):
                self._folder.mkdir(parents=True, exist_ok=True)
                self._open[name] = LOGGERS[name](self._folder)
        for entry in self._history:
            self.log(entry)
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        for name, logger in list(self._open.items()):
            with self._guard(name):
                logger.close(failed=error is not None)

    def log(self, entry: Mapping[str, Any]) -> None:
        """Log the numbers of the next epoch, from its entry in the history."""
        self._step += 1
        values = select_numbers(entry)
        for name, logger in list(self._open.items()):
            with self._guard(name):
                logger.log(values, self._step)

    @contextmanager
    def _guard(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of any class: a server may not answer, a disk may be full
            self._open.pop(name, None)
            self._say(f"train.log: {name} failed and receives no further epochs: {first_line(error)}")


def select_numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a history entry: `loss`, `val_ua`, `learning_rates/encoder`."""
    numbers: dict[str, float] = {}
    for name, value in entry.items():
        if isinstance(value, Mapping):
            numbers |= {f"{name}/{key}": number for key, number in select_numbers(value).items()}
        elif isinstance(value, Real):
            numbers[name] = float(value)
    return numbers


class _Logger(ABC):
    """Base of all loggers: a log of one training.

    Args:
        folder: folder of the fold.
    """

    @abstractmethod
    def __init__(self, folder: Path) -> None: ...

    @staticmethod
    @abstractmethod
    def load() -> Any:
        """Import the tool, which is optional."""

    @abstractmethod
    def log(self, values: dict[str, float], step: int) -> None:
        """Log the numbers of an epoch; `step` counts the epochs of all stages from 1."""

    @abstractmethod
    def close(self, *, failed: bool) -> None:
        """End the log; `failed` says whether the training ended with an error."""


class _TensorBoard(_Logger):
    """Event files in `tensorboard/`. Those of an interrupted training count no longer."""

    def __init__(self, folder: Path) -> None:
        self._writer = self.load()(str(folder / "tensorboard"), purge_step=1)

    @staticmethod
    def load() -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter

    def log(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()  # a run that is killed keeps what it has logged

    def close(self, *, failed: bool) -> None:
        self._writer.close()


class _MLflow(_Logger):
    """A run of MLflow, on the server in `MLFLOW_TRACKING_URI`, or else in MLflow's local store."""

    def __init__(self, folder: Path) -> None:
        self._mlflow = self.load()
        self._mlflow.start_run(run_name=str(folder), nested=True)

    @staticmethod
    def load() -> Any:
        import mlflow  # pyright: ignore[reportMissingImports]

        return mlflow

    def log(self, values: dict[str, float], step: int) -> None:
        self._mlflow.log_metrics(values, step=step)

    def close(self, *, failed: bool) -> None:
        self._mlflow.end_run("FAILED" if failed else "FINISHED")


class _WeightsAndBiases(_Logger):
    """A run of Weights & Biases, with its files in `wandb/`."""

    def __init__(self, folder: Path) -> None:
        self._run = self.load().init(
            project="sertone", name=str(folder), dir=str(folder), reinit="create_new"
        )

    @staticmethod
    def load() -> Any:
        import wandb  # pyright: ignore[reportMissingImports]

        return wandb

    def log(self, values: dict[str, float], step: int) -> None:
        self._run.log(values, step=step, commit=True)

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


LOGGERS: dict[str, type[_Logger]] = {
    "tensorboard": _TensorBoard,
    "mlflow": _MLflow,
    "wandb": _WeightsAndBiases,
}
"""The table of loggers. To add one, add its class and a line here, and its name in `TrainConfig.log`."""

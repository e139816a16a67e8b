"""Loggers of other tools that get the history of a training: TensorBoard, MLflow, Weights & Biases.

The report and the results of a run need none of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from numbers import Real
from pathlib import Path
from typing import Any

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


class Loggers(ExitStack):
    """The loggers of one training, open within the context.

    Args:
        names: `train.log`.
        folder: folder of the fold, where they keep their files.
        run: name of the run in MLflow and Weights & Biases.
        step: number of epochs that are done already: what was logged after them is replaced in TensorBoard.
        say: receives a line about a logger that fails. It gets no further epochs, and training goes on.
    """

    def __init__(
        self, names: Sequence[str], folder: Path, run: str, step: int, say: Callable[[str], None]
    ) -> None:
        super().__init__()
        self._say = say
        folder.mkdir(parents=True, exist_ok=True)
        self._loggers = [LOGGERS[name](folder, run, step) for name in names]

    def __enter__(self) -> "Loggers":
        super().__enter__()
        for logger in self._loggers:
            self.enter_context(logger)
        return self

    def log(self, entry: Mapping[str, Any], step: int) -> None:
        """Log the numbers of an epoch; entries of other kinds are left out.

        Args:
            entry: its entry in the history.
            step: number of the epoch over all stages, from 1.
        """
        values = select_numbers(entry)
        for logger in list(self._loggers):
            try:
                logger.log(values, step)
            except Exception as error:  # of any class: a server may not answer, a disk may be full
                self._loggers.remove(logger)
                self._say(f"{type(logger).__name__.lstrip('_')} failed and gets no more: {first_line(error)}")


def select_numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a history entry: `loss`, `val_ua`, `learning_rates/encoder`."""
    numbers: dict[str, float] = {}
    for name, value in entry.items():
        if isinstance(value, Mapping):
            numbers |= {f"{name}/{key}": number for key, number in select_numbers(value).items()}
        elif isinstance(value, Real):
            numbers[name] = float(value)
    return numbers


class _Logger(AbstractContextManager, ABC):
    """Base of all loggers."""

    @abstractmethod
    def __init__(self, folder: Path, run: str, step: int) -> None: ...

    @staticmethod
    @abstractmethod
    def load() -> Any:
        """Import the tool, which is optional."""

    @abstractmethod
    def log(self, values: dict[str, float], step: int) -> None:
        """Log the numbers of an epoch."""


class _TensorBoard(_Logger):
    """Event files in `tensorboard/`."""

    def __init__(self, folder: Path, run: str, step: int) -> None:
        self._writer = self.load()(str(folder / "tensorboard"), purge_step=step + 1)

    @staticmethod
    def load() -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def log(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()  # a run that is killed keeps what it has logged


class _MLflow(_Logger):
    """A run of MLflow, on the server that its environment names, else in its folder."""

    def __init__(self, folder: Path, run: str, step: int) -> None:
        self._mlflow, self._run = self.load(), run

    @staticmethod
    def load() -> Any:
        import mlflow  # pyright: ignore[reportMissingImports]

        return mlflow

    def __enter__(self) -> "_MLflow":
        self._mlflow.start_run(run_name=self._run, nested=True)
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._mlflow.end_run("FAILED" if error else "FINISHED")

    def log(self, values: dict[str, float], step: int) -> None:
        self._mlflow.log_metrics(values, step=step)


class _WeightsAndBiases(_Logger):
    """A run of Weights & Biases, with its files in `wandb/`."""

    def __init__(self, folder: Path, run: str, step: int) -> None:
        self._run = self.load().init(project="sertone", name=run, dir=str(folder), reinit="create_new")

    @staticmethod
    def load() -> Any:
        import wandb  # pyright: ignore[reportMissingImports]

        return wandb

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._run.finish(exit_code=int(error is not None))

    def log(self, values: dict[str, float], step: int) -> None:
        self._run.log(values, step=step, commit=True)


LOGGERS: dict[str, type[_Logger]] = {
    "tensorboard": _TensorBoard,
    "mlflow": _MLflow,
    "wandb": _WeightsAndBiases,
}
"""The table of loggers. To add one, add its class and a line here."""

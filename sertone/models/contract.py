"""The contract of models: what training, scoring, probing and export ask of a model and its options.

A file of this folder that is a model has `Config`, a `ModelConfig`, and `Config.build` returns the model, an
`EmotionModel`. The annotation of its return value lets pyright check every model where it is written.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from sertone.models.stage import Stage
from sertone.nn.batch import Batch
from sertone.nn.encoders.base import Encoder
from sertone.nn.encoders.config import EncoderConfig
from sertone.nn.heads import HeadOutput, Heads
from sertone.nn.text import TextEncoder, TextEncoderConfig
from sertone.nn.vocabulary import Vocabulary


class TaskConfig(Protocol):
    """The options that training asks of every model, also of the student of a distillation.

    Attributes:
        later_options: the options that the first of several stages does not depend on.
        main_tasks: the tasks that the model is for; auxiliary tasks are not among them.
    """

    later_options: ClassVar[tuple[str, ...]]

    @property
    def main_tasks(self) -> tuple[str, ...]: ...

    def model_dump(self, *, mode: str = "python", exclude: Any = None) -> dict[str, Any]:
        """Return the options, in `json` mode as JSON values."""
        ...


class ModelConfig(TaskConfig, Protocol):
    """The model's part of a recipe.

    Attributes:
        encoder: the speech encoder; None where the model uses the text alone.
        text: the text encoder; None where the model uses the audio alone.
    """

    @property
    def encoder(self) -> EncoderConfig | None: ...

    @property
    def text(self) -> TextEncoderConfig | None: ...

    def build(self, vocabulary: Vocabulary) -> "EmotionModel":
        """Build the model, with pretrained or random weights.

        Raises:
            SertoneError: as the encoders' `build`.
        """
        ...


class EmotionModel(Protocol):
    """A model, which is an `nn.Module` as well.

    Attributes:
        training: whether the module is in training mode.
        config: its options.
        encoder: the speech encoder; a `NoEncoder` where the model uses the text alone.
        text: the text encoder; None where the model uses the audio alone.
        heads: task -> head.
    """

    training: bool

    @property
    def config(self) -> TaskConfig: ...

    @property
    def encoder(self) -> Encoder: ...

    @property
    def text(self) -> TextEncoder | None: ...

    @property
    def heads(self) -> Heads: ...

    def forward(self, batch: Batch, tasks: Collection[str] = ...) -> dict[str, HeadOutput]:
        """Return the outputs by task, at least those of `tasks`."""
        ...

    def stages(self) -> list[Stage]:
        """Return the stages of training, in order."""
        ...

    # The rest is that of `nn.Module`: a protocol cannot inherit it.

    def __call__(self, batch: Batch, tasks: Collection[str] = ...) -> dict[str, HeadOutput]: ...
    def train(self, mode: bool = True) -> Self: ...
    def eval(self) -> Self: ...
    def to(self, device: torch.device | str) -> Self: ...
    def requires_grad_(self, requires_grad: bool = True) -> Self: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...
    def named_modules(self) -> Iterator[tuple[str, nn.Module]]: ...
    def get_submodule(self, target: str) -> nn.Module: ...
    def state_dict(self) -> dict[str, Tensor]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> Any: ...

"""What any model has to offer to be exported."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sertone.runtime.answering import Model


@dataclass(frozen=True)
class ExportableModel:
    """A model on its way to a bundle.

    Attributes:
        model: answers with torch; what the bundle is compared with.
        module: inputs by their names -> probabilities (B, K), ratings (B, R): what becomes the graph.
        inputs: examples, two rows of each.
        class_map: emotion -> class.
        calibration: as in `bundle.json`.
        about: what the model is: `name`, `encoders` in words.
        scores: what is known of it, as `sharing.scores.Scores` has it; empty: nothing.
        models: how many answer together.
        tokenizer: JSON of a model that reads.
        note: what the user should know of its loading, in one line; empty: nothing.
    """

    model: Model
    module: nn.Module
    inputs: Mapping[str, Tensor]
    class_map: Mapping[str, str]
    calibration: Mapping[str, Any]
    about: Mapping[str, str]
    scores: Mapping[str, Any]
    models: int = 1
    tokenizer: str = ""
    note: str = ""

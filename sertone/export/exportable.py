"""The form in which any model enters the export."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sertone.runtime.answering import Model


@dataclass(frozen=True)
class ExportableModel:
    """A model ready to be exported.

    Attributes:
        model: predicts with torch; the bundle is compared with it.
        module: inputs by their names -> probabilities (B, K), ratings (B, R); it becomes the graph.
        inputs: examples, two rows of each.
        class_map: emotion -> class.
        calibration: as in `bundle.json`.
        about: kind of model: its `name`, and a description of its `encoders`.
        scores: known scores, as `sharing.card_scores.Scores` has them; empty: none are known.
        models: number of models whose outputs are averaged.
        tokenizer: JSON of the tokenizer of a model that uses text.
        note: what the user should know about its loading, in one line; empty: nothing.
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

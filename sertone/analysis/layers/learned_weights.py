"""Learned weights of trained models for the layers of their encoders.

A softmax weight is not a relevance. If the states of one layer are longer vectors than those of another, a
small weight can let more of that layer through.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from sertone.analysis.layers.targets import TARGETS
from sertone.errors import SertoneError
from sertone.nn.fusions import WeightedSum
from sertone.sharing.model_folder import find_checkpoints
from sertone.training.fit.checkpoint import load_model


def load_layer_weights(run: str | Path) -> list[dict[str, Any]]:
    """Load the softmax weights of every `weighted_sum` of a run's models, over the layers 1 to L.

    Args:
        run: a run, a fold, a checkpoint, or OWNER/NAME on the hub.

    Returns:
        for each weighted sum: name of the `module`; its `target` (empty: all); `mean` and `spread` over the
        models (standard deviation; None for a single model); weights of each of the `models`.

    Raises:
        SertoneError: `not_a_checkpoint`, `bad_weights`, `other_format`, `no_layer_weights`.
    """
    weights: dict[str, list[np.ndarray]] = defaultdict(list)
    for folder in find_checkpoints(run):
        for name, module in load_model(folder)[0].named_modules():
            if isinstance(module, WeightedSum):
                weights[name].append(module.weights.detach().softmax(0).double().numpy())
    if not weights:
        raise SertoneError(
            "no_layer_weights",
            f"the models of {run} have no weighted sum of layers",
            "models with model.fusion: weighted_sum, or others that learn softmax weights",
            "omit --weights: the probes need no trained model",
        )
    return [_summarise(name, np.stack(rows)) for name, rows in weights.items()]


def _summarise(name: str, rows: np.ndarray) -> dict[str, Any]:
    # A model with a weighted sum for each task names it after the task.
    last = name.rpartition(".")[2]
    return {
        "module": name,
        "target": last if last in TARGETS else "",
        "mean": rows.mean(0).tolist(),
        # A single model has no spread.
        "spread": rows.std(0, ddof=1).tolist() if len(rows) > 1 else None,
        "models": rows.tolist(),
    }

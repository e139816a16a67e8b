"""The weights that trained models have learnt for the layers of their encoders.

A softmax weight is no relevance by itself: where the states of one layer are longer than those of another, a
small weight lets more of them through.
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
    """Softmax weights of every `weighted_sum` of a run's models, over the layers 1 to L.

    Args:
        run: a run, a fold, a checkpoint, or OWNER/NAME on the hub.

    Returns:
        of every module its `module`, the `target` that it is for (empty: all), `mean` and `spread` over the
        models (the standard deviation; None of a single one), and the weights of each of the `models`.

    Raises:
        SertoneError: `not_a_checkpoint`, `bad_weights`, `other_format`, `no_layer_weights`.
    """
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    for folder in find_checkpoints(run):
        for name, module in load_model(folder)[0].named_modules():
            if isinstance(module, WeightedSum):
                found[name].append(module.weights.detach().softmax(0).double().numpy())
    if not found:
        raise SertoneError(
            "no_layer_weights",
            f"the models of {run} have no weighted sum of layers",
            "models with model.fusion: weighted_sum, or others that learn softmax weights",
            "leave out --weights: the probes need no trained model",
        )
    return [_summary(name, np.stack(rows)) for name, rows in found.items()]


def _summary(name: str, rows: np.ndarray) -> dict[str, Any]:
    last = name.rpartition(".")[2]
    return {
        "module": name,
        "target": last if last in TARGETS else "",
        "mean": rows.mean(0).tolist(),
        "spread": rows.std(0, ddof=1).tolist() if len(rows) > 1 else None,
        "models": rows.tolist(),
    }

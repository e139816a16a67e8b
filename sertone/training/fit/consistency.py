"""Compare the predictions for changed waveforms with those for unchanged ones (`train.consistency`)."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from sertone.models.contract import EmotionModel
from sertone.nn.batch import Batch
from sertone.nn.heads import HeadOutput
from sertone.nn.losses import consistency_loss

CONSISTENCY = "consistency"
"""The name of this loss among those of the tasks."""


def predict_clean(
    model: EmotionModel, batch: Batch, tasks: Sequence[str], fabric: Fabric
) -> dict[str, HeadOutput]:
    """Predict the unchanged waveforms of a batch as after training: no dropout, and no moments change.

    Args:
        model: not wrapped for several processes: others may have no such batch, so nothing may be exchanged.
        batch: has the unchanged waveforms in `clean`, or None there.
        tasks: tasks to predict.
        fabric: precision.

    Returns:
        The outputs by task, without gradients; empty where the batch has no unchanged waveforms.
    """
    if batch.clean is None:
        return {}
    modes = {module: module.training for module in cast(nn.Module, model).modules()}
    model.eval()
    with torch.no_grad(), fabric.autocast():
        outputs = model(batch.clean, tasks)
    # Frozen parts stay in evaluation mode, so each module gets back its own.
    for module, mode in modes.items():
        module.training = mode
    return outputs


def compare_predictions(
    outputs: Mapping[str, HeadOutput], clean: Mapping[str, HeadOutput], tasks: Sequence[str]
) -> Tensor:
    """Return the mean `consistency_loss` of some tasks, 0 without predictions for unchanged waveforms."""
    logits = {task: outputs[task].logits for task in tasks}
    if not clean:
        return torch.zeros((), device=logits[tasks[0]].device)
    return torch.stack([consistency_loss(logits[task], clean[task].logits) for task in tasks]).mean()

"""torch -> ONNX: one graph for any number of samples and tokens.

Fourier transforms become matrix products: ONNX Runtime's own take several times as long at these sizes.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from sertone.errors import SertoneError
from sertone.files import write_bytes

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 20
OUTPUTS = ("probabilities", "ratings")
FIXED = "front_end/"
"""Beginning of the names of nodes whose numbers are no weights: Fourier transforms, mel filters, windows."""


def to_onnx(module: nn.Module, inputs: Mapping[str, Tensor]) -> "ModelProto":
    """The graph of a module in eval mode that answers `OUTPUTS`.

    Args:
        module: takes the inputs by their names.
        inputs: examples with at least two rows; every axis of theirs may have any length later.
    """
    any_length = torch.export.Dim.DYNAMIC
    shapes = {name: dict.fromkeys(range(tensor.ndim), any_length) for name, tensor in inputs.items()}
    with _quiet(), torch.inference_mode():
        program = torch.onnx.export(
            module,
            kwargs=dict(inputs),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=list(inputs),
            output_names=list(OUTPUTS),
            opset_version=OPSET,
            custom_translation_table={torch.ops.aten._fft_r2c.default: _real_to_complex},
            optimize=False,
            verbose=False,
        )
        assert program is not None
        _fold(program.model)
    return _bare(program.model_proto)


def save(graph: "ModelProto", path: Path) -> None:
    """Writes a graph.

    Raises:
        SertoneError: `too_large`, `disk_full`.
    """
    import onnx

    if graph.ByteSize() >= onnx.checker.MAXIMUM_PROTOBUF:
        raise SertoneError("too_large", f"a graph of {graph.ByteSize() / 1e9:.1f} GB", "less than 2 GB")
    write_bytes(path, graph.SerializeToString())


def _fold(model: Any) -> None:
    """Does what the exporter itself would, but for its rule that x + 1e-8 is x: logarithms need that."""
    from onnx_ir.passes import Sequential, common
    from onnxscript import optimizer

    common.InlinePass()(model)
    optimizer.fold_constants(model)
    Sequential(
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),
        common.RemoveUnusedOpsetsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
    )(model)


def _bare(model: "ModelProto") -> "ModelProto":
    """Without the names of modules and source files that the exporter leaves in every node.

    What remains of them is `FIXED`.
    """
    for place in (model.graph, *model.functions):
        for node in place.node:
            if any("FrontEnd'" in entry.value for entry in node.metadata_props):
                node.name = f"{FIXED}{node.name}"
            node.ClearField("metadata_props")
            node.ClearField("doc_string")
    for value in (*model.graph.value_info, *model.graph.initializer, *model.graph.input, *model.graph.output):
        value.ClearField("metadata_props")
        value.ClearField("doc_string")
    model.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leaves out what the exporter says of itself; its errors still come."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _real_to_complex(self: Any, dim: Sequence[int], normalization: int, onesided: bool) -> Any:
    """The exporter's form of a real Fourier transform: (..., n) -> (..., n // 2 + 1, 2)."""
    import onnxscript
    from onnx.numpy_helper import from_array

    op: Any = onnxscript.opset20
    size = self.shape[-1]
    assert (normalization, onesided, isinstance(size, int)) == (0, True, True)
    angles = 2 * np.pi * np.outer(np.arange(size), np.arange(size // 2 + 1)) / size
    matrices = (from_array(part.astype(np.float32)) for part in (np.cos(angles), -np.sin(angles)))
    parts = [op.MatMul(self, op.Constant(value=matrix)) for matrix in matrices]
    last = op.Constant(value_ints=[-1])
    return op.Concat(*(op.Unsqueeze(part, last) for part in parts), axis=-1)

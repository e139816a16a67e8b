"""torch -> ONNX: one graph for any number of samples and tokens.

What ONNX Runtime computes slowly is written in another form where it stands, under
`torch.compiler.is_exporting`: Fourier transforms as matrix products, frames as blocks (`nn.frontend`).
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sertone.errors import SertoneError
from sertone.files import write_bytes

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 20
OUTPUTS = ("probabilities", "ratings")
FRONT_END_PREFIX = "front_end/"
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
            optimize=False,
            verbose=False,
        )
        assert program is not None
        _fold(program.model)
    return _bare(program.model_proto)


def save_graph(graph: "ModelProto", path: Path) -> None:
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
                node.name = f"{FRONT_END_PREFIX}{node.name}"
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

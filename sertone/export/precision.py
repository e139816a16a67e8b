"""Smaller numbers in a graph: int8 computes with them, bf16 stores them.

int8: the weights of matrix products with a scale for every column, their inputs with one that is found anew
    for every recording (ONNX Runtime's dynamic quantisation). Convolutions of layers become such products;
    those with groups or padding stay in fp32, and so do the front end's Fourier transforms and mel filters,
    which are no weights. Weights take 7 of the 8 bits, -64 to 64: processors without VNNI add two products
    with 8-bit inputs in 16 bits, and 2 x 255 x 64 is the most that fits. So the sums are exact everywhere.
bf16: all weights, rounded to 8 bits of precision: half the disk. ONNX Runtime has no products in bf16 on a
    CPU, so they become fp32 again when a bundle is loaded, and the speed is that of fp32.
"""

import contextlib
import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from sertone.export.convolutions import replace_convolutions
from sertone.export.onnx_graph import FRONT_END_PREFIX, save_graph
from sertone.files import remove_partial_file

if TYPE_CHECKING:
    from onnx import TensorProto

Precision = Literal["fp32", "int8", "bf16"]
WORTH_ROUNDING = 256
"""Numbers of a weight from which on bf16 pays: biases and norms stay as they are."""


def convert_precision(graph: Path, out: Path, precision: Precision) -> None:
    """Writes a graph in int8 or bf16.

    Args:
        graph: in fp32, of `graphs.to_onnx`.
        out: file to write.
        precision: of the weights.

    Raises:
        SertoneError: `disk_full`.
    """
    _WAYS[precision](graph, out)


def _int8(graph: Path, out: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(graph)
    replace_convolutions(model, excluded_prefix=FRONT_END_PREFIX)
    fixed = [node.name for node in model.graph.node if node.name.startswith(FRONT_END_PREFIX)]
    with _quiet_quantiser(), remove_partial_file(out):
        quantize_dynamic(
            model,
            out,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=True,  # within LARGEST_WEIGHT, see `convolutions`
            weight_type=QuantType.QInt8,
            nodes_to_exclude=fixed,
        )


def _bf16(graph: Path, out: Path) -> None:
    """Weights are rounded and cast back by the graph itself, once, when it is loaded."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(graph)
    fixed = {
        name for node in model.graph.node if node.name.startswith(FRONT_END_PREFIX) for name in node.input
    }
    casts = []
    for weight in model.graph.initializer:
        if weight.name not in fixed and _is_large(weight):
            name, stored = weight.name, f"{weight.name}_bf16"
            _round(weight, stored)
            casts.append(helper.make_node("Cast", [stored], [name], f"cast/{name}", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    save_graph(model, out)


def _is_large(weight: "TensorProto") -> bool:
    from onnx import TensorProto

    return weight.data_type == TensorProto.FLOAT and math.prod(weight.dims) >= WORTH_ROUNDING


def _round(weight: "TensorProto", name: str) -> None:
    """To the nearest number of 8 bits, an even one where two are as near."""
    from onnx import TensorProto, helper, numpy_helper

    bits = np.ascontiguousarray(numpy_helper.to_array(weight)).view(np.uint32)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    data = rounded.astype("<u2").tobytes()
    weight.CopyFrom(helper.make_tensor(name, TensorProto.BFLOAT16, weight.dims, data, raw=True))


@contextlib.contextmanager
def _quiet_quantiser() -> Iterator[None]:
    """Without its advice to pre-process the graph, which the exporter has done."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


_WAYS: dict[Precision, Callable[[Path, Path], None]] = {"int8": _int8, "bf16": _bf16}

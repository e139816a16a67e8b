"""Smaller numbers in a graph: int8 computes with them, bf16 only stores them.

int8: weights of matrix products get one scale per column. Their inputs get one scale, found anew for every
    recording (ONNX Runtime's dynamic quantisation). Convolutions of layers become such products. Those with
    groups or padding stay in fp32, and so do the Fourier transforms and mel filters of the front end, which
    are not weights. Weights use 7 of the 8 bits, -64 to 64: processors without VNNI add two products with
    8-bit inputs in 16 bits, and 2 x 255 x 64 is the most that fits. So the sums are exact on every processor.
bf16: weights are rounded to 8 bits of precision, which halves the file; small ones and those of the front
    end stay in fp32. ONNX Runtime has no products in bf16 on a CPU, so weights become fp32 again when a
    bundle is loaded, and the speed is that of fp32.
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
MIN_ROUNDED_SIZE = 256
"""Numbers of the smallest weight that bf16 rounds; rounding smaller ones would save hardly any space."""


def convert_precision(graph: Path, out: Path, precision: Precision) -> None:
    """Write a graph in int8 or bf16.

    Args:
        graph: graph in fp32, as `onnx_graph.to_onnx` makes it.
        out: file to write.
        precision: precision of the weights.

    Raises:
        SertoneError: `disk_full`.
    """
    _CONVERTERS[precision](graph, out)


def _write_int8(graph: Path, out: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(graph)
    replace_convolutions(model, excluded_prefix=FRONT_END_PREFIX)
    front_end = [node.name for node in model.graph.node if node.name.startswith(FRONT_END_PREFIX)]
    with _silence_quantiser(), remove_partial_file(out):
        quantize_dynamic(
            model,
            out,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=True,  # 7 bits: no more than LARGEST_WEIGHT, see `convolutions`
            weight_type=QuantType.QInt8,
            nodes_to_exclude=front_end,
        )


def _write_bf16(graph: Path, out: Path) -> None:
    """Round the weights; nodes in the graph cast them back, once, when it is loaded."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(graph)
    front_end = {
        name for node in model.graph.node if node.name.startswith(FRONT_END_PREFIX) for name in node.input
    }
    casts = []
    for weight in model.graph.initializer:
        if weight.name not in front_end and _is_large(weight):
            name, rounded_name = weight.name, f"{weight.name}_bf16"
            _round_to_bf16(weight, rounded_name)
            casts.append(
                helper.make_node("Cast", [rounded_name], [name], f"cast/{name}", to=TensorProto.FLOAT)
            )
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    save_graph(model, out)


def _is_large(weight: "TensorProto") -> bool:
    from onnx import TensorProto

    return weight.data_type == TensorProto.FLOAT and math.prod(weight.dims) >= MIN_ROUNDED_SIZE


def _round_to_bf16(weight: "TensorProto", name: str) -> None:
    """Round a weight to the nearest bf16 number, ties to even, under a new name."""
    from onnx import TensorProto, helper, numpy_helper

    bits = np.ascontiguousarray(numpy_helper.to_array(weight)).view(np.uint32)
    # bf16 is the upper half of fp32. The lower half rounds up from 0x8000, at a tie only an odd upper half.
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    data = rounded.astype("<u2").tobytes()
    weight.CopyFrom(helper.make_tensor(name, TensorProto.BFLOAT16, weight.dims, data, raw=True))


@contextlib.contextmanager
def _silence_quantiser() -> Iterator[None]:
    """Suppress the advice to pre-process the graph: the exporter has done that."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


_CONVERTERS: dict[Precision, Callable[[Path, Path], None]] = {"int8": _write_int8, "bf16": _write_bf16}

"""Convolutions in 8 bits, as products of matrices.

ONNX Runtime's own convolution in 8 bits is slower than in fp32, its product of 8-bit matrices several times
as fast. So the frames that a kernel covers are laid side by side, which costs little in 8 bits, and
multiplied. With axis letters B batch, T frames in, U out, C channels in, D out, K frames of the kernel:

    (B, C, T) -> (B, T, C), in 8 bits with one scale -> (B, U, K C) times (K C, D) -> (B, D, U)

One scale serves all frames, so their levels have to be alike: only convolutions behind a layer norm qualify,
as in the large wav2vec 2.0, HuBERT and WavLM. In the base ones pauses would vanish beside loud frames.
"""

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

LARGEST_WEIGHT = 64
"""Of a weight in 8 bits. Two of its products with an 8-bit input, 2 x 255 x 64, still fit into 16 bits, in
which processors without VNNI add them; with the whole range they would saturate."""
FLOAT = 1
"""ONNX's number of float32."""
TO_THE_END = np.iinfo(np.int64).max


def replace_convolutions(model: "ModelProto", excluded_prefix: str) -> None:
    """Replaces those convolutions behind a layer norm that have one axis, no groups, dilation or padding.

    Args:
        model: the graph, which is changed.
        leave: beginning of the names of nodes that stay as they are.
    """
    from onnx import numpy_helper

    graph = model.graph
    weights = {weight.name: weight for weight in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    nodes: list[NodeProto] = []
    for node in graph.node:
        fits = (
            _is_plain(node)
            and _is_normed(node.input[0], makers)
            and not node.name.startswith(excluded_prefix)
        )
        kernel = weights.get(node.input[1]) if fits else None
        if kernel is None or len(kernel.dims) != 3:
            nodes.append(node)
            continue
        product = _Product(node, numpy_helper.to_array(kernel))
        nodes.extend(product.nodes())
        graph.initializer.extend(product.constants)
    del graph.node[:]
    graph.node.extend(nodes)
    _drop_unused(model)


class _Product:
    """The nodes that stand for one convolution.

    Args:
        node: the convolution.
        kernel: (D, C, K).
    """

    def __init__(self, node: "NodeProto", kernel: np.ndarray) -> None:
        self.node, self.width = node, kernel.shape[2]
        self.step = _attributes(node).get("strides", [1])[0]
        self.constants: list[Any] = []
        columns = kernel.transpose(2, 1, 0).reshape(-1, len(kernel))
        scales = np.maximum(np.abs(columns).max(0), np.finfo(np.float32).tiny) / LARGEST_WEIGHT
        self.weight = self._constant("weight", np.rint(columns / scales).astype(np.int8))
        self.scales = self._constant("scales", scales.astype(np.float32))

    def nodes(self) -> Iterator["NodeProto"]:
        """In order of computing."""
        (frames,) = yield from self._made("Transpose", [self.node.input[0]], ["frames"], perm=[0, 2, 1])
        levels, scale, zero = yield from self._made(
            "DynamicQuantizeLinear", [frames], ["levels", "scale", "zero"]
        )
        covered = yield from self._covered(levels)
        level = self._constant("zeros", np.zeros(1, np.int8))
        whole = yield from self._made("MatMulInteger", [covered, self.weight, zero, level], ["sums"])
        unit = yield from self._made("Mul", [scale, self.scales], ["unit"])
        sums = yield from self._made("Cast", whole, ["real"], to=FLOAT)
        found = yield from self._made("Mul", [*sums, *unit], ["scaled"])
        if bias := self.node.input[2:]:
            found = yield from self._made("Add", [*found, bias[0]], ["shifted"])
        yield from self._made("Transpose", found, [], perm=[0, 2, 1])

    def _covered(self, levels: str) -> "Generator[NodeProto, None, str]":
        """Side by side the frames that the kernel covers: every `step`-th, from each of its places on."""
        axes = self._constant("axes", np.asarray([1]))
        steps = self._constant("steps", np.asarray([self.step]))
        parts: list[str] = []
        for place in range(self.width):
            first = self._constant(f"first_{place}", np.asarray([place]))
            end = self._constant(f"end_{place}", np.asarray([place + 1 - self.width or TO_THE_END]))
            parts += yield from self._made("Slice", [levels, first, end, axes, steps], [f"part_{place}"])
        (covered,) = yield from self._made("Concat", parts, ["covered"], axis=2)
        return covered

    def _made(
        self, kind: str, inputs: list[str], outputs: list[str], **attributes: Any
    ) -> "Generator[NodeProto, None, list[str]]":
        """A node; returns the names of what comes out: of the convolution itself where none is given."""
        from onnx import helper

        names = [self._name(part) for part in outputs] or [self.node.output[0]]
        yield helper.make_node(kind, inputs, names, f"{names[0]}/{kind}", **attributes)
        return names

    def _constant(self, part: str, value: np.ndarray) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(value, self._name(part)))
        return self._name(part)

    def _name(self, part: str) -> str:
        return f"{self.node.output[0]}/{part}"


def _is_plain(node: "NodeProto") -> bool:
    found = _attributes(node)
    usual = {"group": 1, "auto_pad": b"NOTSET"}
    return (
        node.op_type == "Conv"
        and all(found.get(name, value) == value for name, value in usual.items())
        and not any(found.get("pads", []))
        and set(found.get("dilations", [])) <= {1}
    )


def _is_normed(name: str, makers: dict[str, "NodeProto"]) -> bool:
    """Whether what a convolution hears comes from a layer norm, by way of a function of every number."""
    node = makers.get(name)
    while node is not None and node.op_type in ("Transpose", "Gelu", "Relu"):
        node = makers.get(node.input[0])
    return node is not None and node.op_type == "LayerNormalization"


def _attributes(node: "NodeProto") -> dict[str, Any]:
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _drop_unused(model: "ModelProto") -> None:
    used = {name for node in model.graph.node for name in node.input}
    kept = [weight for weight in model.graph.initializer if weight.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)

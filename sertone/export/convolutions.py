"""Convolutions in 8 bits, computed as matrix products.

In ONNX Runtime, a convolution in 8 bits is slower than one in fp32, while a product of 8-bit matrices is
several times as fast. So the frames under the kernel are laid side by side, which costs little in 8 bits, and
multiplied. Axis letters: B batch, T frames in, U frames out, C channels in, D channels out, K kernel size:

    (B, C, T) -> (B, T, C), in 8 bits with one scale -> (B, U, K C) times (K C, D) -> (B, D, U)

One scale serves all frames, so their levels have to be similar. Only convolutions behind a layer norm
qualify, as in the large wav2vec 2.0, HuBERT and WavLM. In the base models, pauses would vanish beside loud
frames.
"""

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

LARGEST_WEIGHT = 64
"""Largest 8-bit weight. Processors without VNNI add two products of a weight and an 8-bit input in 16 bits.
2 x 255 x 64 still fits into them; with the whole range of 8 bits, the sum would saturate."""
FLOAT = 1
"""ONNX's number for the type float32."""
TO_THE_END = np.iinfo(np.int64).max


def replace_convolutions(model: "ModelProto", excluded_prefix: str) -> None:
    """Replace convolutions behind a layer norm by products of 8-bit matrices.

    Only those with one axis and without groups, dilation or padding are replaced.

    Args:
        model: the graph, which is changed.
        excluded_prefix: nodes whose names begin with it stay as they are.
    """
    from onnx import numpy_helper

    graph = model.graph
    weights = {weight.name: weight for weight in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    nodes: list[NodeProto] = []
    for node in graph.node:
        qualifies = (
            _is_plain(node)
            and _follows_layer_norm(node.input[0], producers)
            and not node.name.startswith(excluded_prefix)
        )
        kernel = weights.get(node.input[1]) if qualifies else None
        if kernel is None or len(kernel.dims) != 3:  # (D, C, K): one axis
            nodes.append(node)
            continue
        product = _Product(node, numpy_helper.to_array(kernel))
        nodes.extend(product.nodes())
        graph.initializer.extend(product.constants)
    del graph.node[:]
    graph.node.extend(nodes)
    _remove_unused_weights(model)


class _Product:
    """The nodes that replace one convolution.

    Args:
        node: the convolution.
        kernel: (D, C, K).
    """

    def __init__(self, node: "NodeProto", kernel: np.ndarray) -> None:
        self.node = node
        self.width = kernel.shape[2]
        self.step = _attributes(node).get("strides", [1])[0]
        self.constants: list[Any] = []
        columns = kernel.transpose(2, 1, 0).reshape(-1, len(kernel))  # (K C, D)
        # One scale per output channel; `tiny` avoids a division by zero where all weights are 0.
        scales = np.maximum(np.abs(columns).max(0), np.finfo(np.float32).tiny) / LARGEST_WEIGHT
        self.weight = self._add_constant("weight", np.rint(columns / scales).astype(np.int8))
        self.scales = self._add_constant("scales", scales.astype(np.float32))

    def nodes(self) -> Iterator["NodeProto"]:
        """Yield the nodes in the order of computing."""
        (frames,) = yield from self._add_node("Transpose", [self.node.input[0]], ["frames"], perm=[0, 2, 1])
        levels, scale, zero = yield from self._add_node(
            "DynamicQuantizeLinear", [frames], ["levels", "scale", "zero"]
        )
        windows = yield from self._concatenate_frames(levels)
        weight_zero = self._add_constant("zeros", np.zeros(1, np.int8))
        sums = yield from self._add_node("MatMulInteger", [windows, self.weight, zero, weight_zero], ["sums"])
        # The scale of a sum is that of the input times that of its output channel.
        unit = yield from self._add_node("Mul", [scale, self.scales], ["unit"])
        real = yield from self._add_node("Cast", sums, ["real"], to=FLOAT)
        output = yield from self._add_node("Mul", [*real, *unit], ["scaled"])
        if bias := self.node.input[2:]:
            output = yield from self._add_node("Add", [*output, bias[0]], ["shifted"])
        yield from self._add_node("Transpose", output, [], perm=[0, 2, 1])

    def _concatenate_frames(self, levels: str) -> "Generator[NodeProto, None, str]":
        """Yield the nodes that lay the frames under the kernel side by side: (B, T, C) -> (B, U, K C).

        Slice k takes every `step`-th frame from frame k on.
        """
        axes = self._add_constant("axes", np.asarray([1]))
        steps = self._add_constant("steps", np.asarray([self.step]))
        parts: list[str] = []
        for place in range(self.width):
            first = self._add_constant(f"first_{place}", np.asarray([place]))
            # The last frames belong to later places of the kernel; the last place leaves out none.
            end = self._add_constant(f"end_{place}", np.asarray([place + 1 - self.width or TO_THE_END]))
            parts += yield from self._add_node("Slice", [levels, first, end, axes, steps], [f"part_{place}"])
        (windows,) = yield from self._add_node("Concat", parts, ["covered"], axis=2)
        return windows

    def _add_node(
        self, kind: str, inputs: list[str], outputs: list[str], **attributes: Any
    ) -> "Generator[NodeProto, None, list[str]]":
        """Yield a node, and return the names of its outputs.

        Without `outputs` it is the last node, and has the output of the convolution itself.
        """
        from onnx import helper

        names = [self._name(part) for part in outputs] or [self.node.output[0]]
        yield helper.make_node(kind, inputs, names, f"{names[0]}/{kind}", **attributes)
        return names

    def _add_constant(self, part: str, value: np.ndarray) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(value, self._name(part)))
        return self._name(part)

    def _name(self, part: str) -> str:
        return f"{self.node.output[0]}/{part}"


def _is_plain(node: "NodeProto") -> bool:
    """Return whether a node is a convolution without groups, dilation or padding."""
    attributes = _attributes(node)
    defaults = {"group": 1, "auto_pad": b"NOTSET"}
    return (
        node.op_type == "Conv"
        and all(attributes.get(name, value) == value for name, value in defaults.items())
        and not any(attributes.get("pads", []))
        and set(attributes.get("dilations", [])) <= {1}
    )


def _follows_layer_norm(name: str, producers: dict[str, "NodeProto"]) -> bool:
    """Return whether a value comes from a layer norm, with only elementwise functions between them."""
    node = producers.get(name)
    while node is not None and node.op_type in ("Transpose", "Gelu", "Relu"):
        node = producers.get(node.input[0])
    return node is not None and node.op_type == "LayerNormalization"


def _attributes(node: "NodeProto") -> dict[str, Any]:
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _remove_unused_weights(model: "ModelProto") -> None:
    used_names = {name for node in model.graph.node for name in node.input}
    used_weights = [weight for weight in model.graph.initializer if weight.name in used_names]
    del model.graph.initializer[:]
    model.graph.initializer.extend(used_weights)

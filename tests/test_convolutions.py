"""Convolutions in 8 bits: against a formula of their own, and near the exact ones."""

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from sertone.export.convolutions import replace_convolutions

CHANNELS = 8


def graph(kernel, bias, name="layer", behind=("LayerNormalization", "Transpose", "Relu"), **attributes):
    """One convolution behind other nodes: x (B, T, C) -> y (B, D, U)."""
    channels = kernel.shape[1] * attributes.get("group", 1)
    weights = {"kernel": kernel} | ({} if bias is None else {"bias": bias})
    nodes, last = [], "x"
    for kind in behind:
        more = {"LayerNormalization": ["ones"], "Add": ["ones"]}.get(kind, [])
        perm = {"perm": [0, 2, 1]} if kind == "Transpose" else {}
        nodes.append(helper.make_node(kind, [last, *more], [kind], **perm))
        last = kind
    nodes.append(helper.make_node("Conv", [last, *weights], ["y"], name, **attributes))
    if "LayerNormalization" in behind:
        weights["ones"] = np.ones(channels, np.float32)
    shapes = {"x": ("rows", "frames", channels), "y": (None, None, None)}
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in shapes.items()
    )
    initial = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    made = helper.make_graph(nodes, "one", [x], [y], initial)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def kinds(model):
    return {node.op_type for node in model.graph.node}


def run(model, x):
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(["y"], {"x": x})[0]


def drawn(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def heard(x):
    """What the convolution hears, by numpy: each frame normed over its channels, no number below zero."""
    x = x.astype(np.float64)
    normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return np.maximum(normed, 0).transpose(0, 2, 1)


def in_levels(x, kernel, bias, stride):
    """The formula, in float64: x in 256 levels that hold 0 and its range, each output channel in 129."""
    scale = max(x.max(), 0) / 255
    levels = np.rint(x / scale) if scale else x
    units = np.abs(kernel).max((1, 2), keepdims=True) / np.float32(64)
    weights, size = np.rint(kernel / np.where(units, units, 1)), kernel.shape[2]
    starts = range(0, x.shape[2] - size + 1, stride)
    sums = np.stack([np.einsum("bck,dck->bd", levels[:, :, s : s + size], weights) for s in starts], -1)
    return sums * scale * units[None, :, 0] + (0 if bias is None else bias[None, :, None])


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    size=st.integers(1, 4),
    stride=st.integers(1, 3),
    more=st.integers(0, 20),
    rows=st.integers(1, 2),
    biased=st.booleans(),
)
def test_the_answer_is_that_of_the_formula_and_near_the_exact_one(seed, size, stride, more, rows, biased):
    x, kernel = drawn(seed, rows, size + more, CHANNELS), drawn(seed + 1, 5, CHANNELS, size)
    bias = drawn(seed + 2, 5) if biased else None
    model = graph(kernel, bias, strides=[stride])
    exact = run(model, x)
    replace_convolutions(model, excluded_prefix="fixed/")
    assert "Conv" not in kinds(model) and "MatMulInteger" in kinds(model)
    found, level = run(model, x), heard(x).max() / 255 * np.abs(kernel).max()
    expected = in_levels(heard(x), kernel, bias, stride)
    assert found.shape == exact.shape == expected.shape
    assert np.abs(found - expected).max() <= 2 * level  # a number between two levels may go either way
    assert np.median(np.abs(found - expected)) <= 1e-5
    assert np.abs(found - exact).max() <= 3 * level * np.sqrt(CHANNELS * size)


def test_a_kernel_of_zeros_and_silence_answer_zero():
    kernel = drawn(0, 3, CHANNELS, 2)
    kernel[1] = 0
    model = graph(kernel, None)
    replace_convolutions(model, excluded_prefix="fixed/")
    assert not run(model, np.zeros((1, 9, CHANNELS), np.float32)).any()
    found = run(model, drawn(1, 1, 9, CHANNELS))
    assert np.isfinite(found).all() and not found[:, 1].any() and found[:, 0].any()


@pytest.mark.parametrize(
    "attributes",
    [
        {"group": 2},
        {"pads": [1, 1]},
        {"auto_pad": "SAME_UPPER"},
        {"dilations": [2]},
        {"name": "fixed/mel"},
        {"behind": ("Transpose", "Relu")},
        {"behind": ("LayerNormalization", "Add", "Transpose")},
    ],
)
def test_others_stay_as_they_are(attributes):
    model = graph(drawn(0, 4, CHANNELS, 3), drawn(1, 4), **attributes)
    before = model.SerializeToString()
    replace_convolutions(model, excluded_prefix="fixed/")
    assert model.SerializeToString() == before

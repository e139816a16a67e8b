"""A bundle without training or torch: a formula computes its outputs from the loudness of a recording."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sertone.export.bundles import write_bundle
from sertone.runtime.bundle import FORMAT, GRAPH

CLASSES = ["neutral", "happy", "angry", "sad"]
SLOPES, OFFSETS = [0.0, 0.2, 0.8, -0.8], [1.0, 0.5, 1.2, -1.2]


def expected(samples):
    """Return probabilities (4,) and arousal of mono samples at 16 kHz: the graph in numpy."""
    level = np.log(np.mean(np.square(samples, dtype=np.float64)) + 1e-6) / 4 + 1.5
    scores = np.exp(np.asarray(SLOPES) * level + OFFSETS)
    return scores / scores.sum(), 1 + 4 / (1 + np.exp(-level))


def write_toy(folder, *, min_samples=400, max_seconds=30.0, threshold=None, licence=None, **changes):
    """Write the bundle: four classes by loudness, and arousal from 1 to 5."""
    folder.mkdir(parents=True)
    onnx.save(_graph(), folder / GRAPH)
    corpus = {"name": "toy", "title": "Toy", "citation": "None", "licence": {}}
    own = {"what": "corpus", "of": "Toy", "name": "CC0", "id": "cc0-1.0", "commercial": True, "url": ""}
    about = {
        "format": FORMAT,
        "name": "toy",
        "precision": "fp32",
        "classes": CLASSES,
        "scales": {"arousal": {"low": 1.0, "high": 5.0, "unit": "points"}},
        "class_map": {name: name for name in CLASSES},
        "hears": True,
        "reads": False,
        "sampling_rate": 16000,
        "min_samples": min_samples,
        "max_seconds": max_seconds,
        "models": 1,
        "calibration": {"temperature": 1.0, "threshold": threshold},
        "card": {"corpus": corpus, "selection": "none"},
        "licences": [own | (licence or {})],
        "parity": {},
        "files": {},
    }
    write_bundle(folder, about | changes)
    return folder


def _graph():
    """probabilities = softmax(slopes * level + offsets), ratings = 1 + 4 sigmoid(level)."""
    values = {
        "slopes": np.asarray([SLOPES]),
        "offsets": np.asarray([OFFSETS]),
        "tiny": np.asarray(1e-6),
        "quarter": np.asarray(0.25),
        "shift": np.asarray(1.5),
        "four": np.asarray(4.0),
        "one": np.asarray(1.0),
    }
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()]
    constants.append(numpy_helper.from_array(np.asarray([1], np.int64), "axis"))
    steps = [
        ("Mul", ["waveforms", "waveforms"], "squares"),
        ("ReduceMean", ["squares", "axis"], "power"),
        ("Add", ["power", "tiny"], "above"),
        ("Log", ["above"], "log"),
        ("Mul", ["log", "quarter"], "scaled"),
        ("Add", ["scaled", "shift"], "level"),
        ("Mul", ["level", "slopes"], "products"),
        ("Add", ["products", "offsets"], "logits"),
        ("Softmax", ["logits"], "probabilities"),
        ("Sigmoid", ["level"], "shares"),
        ("Mul", ["shares", "four"], "span"),
        ("Add", ["span", "one"], "ratings"),
    ]
    nodes = [helper.make_node(kind, given, [made]) for kind, given, made in steps]
    given = [helper.make_tensor_value_info("waveforms", TensorProto.FLOAT, ["B", "N"])]
    made = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", size])
        for name, size in (("probabilities", 4), ("ratings", 1))
    ]
    graph = helper.make_graph(nodes, "toy", given, made, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

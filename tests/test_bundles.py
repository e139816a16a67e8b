"""Bundles: their predictions, the damaged ones that are refused, and the format of predictions."""

import json
import os
import shutil

import numpy as np
import pytest
from damage import room
from toys import CLASSES, expected, write_toy

import sertone
from sertone.audio import file_hash
from sertone.errors import SertoneError
from sertone.runtime.answering import AnswerFormat
from sertone.runtime.arithmetic_check import UnverifiedBundleWarning
from sertone.runtime.graph_files import list_external_files


def noise(seconds=1.0, level=0.1, seed=0):
    return (level * np.random.default_rng(seed).standard_normal(round(seconds * 16000))).astype(np.float32)


@pytest.mark.parametrize("level", [0.001, 0.02, 0.3])
def test_a_bundle_predicts_the_outputs_of_its_graph(toy, level):
    samples = noise(level=level)
    answer = sertone.load(toy, any_sound=True).predict(samples, 16000)
    shares, arousal = expected(samples)
    assert list(answer.probabilities) == CLASSES
    assert np.allclose(list(answer.probabilities.values()), shares, atol=1e-5)
    assert answer.dimensions == {"arousal": pytest.approx(arousal, abs=1e-4)}
    assert answer.label == CLASSES[int(shares.argmax())] and answer.confidence == pytest.approx(max(shares))


def change(name, value):
    def edit(folder):
        about = json.loads((folder / "bundle.json").read_text())
        (folder / "bundle.json").write_text(json.dumps(about | {name: value}))

    return edit


def replace_by_pipe(name):
    def edit(folder):
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return edit


def cut(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-20])


@pytest.mark.parametrize(
    ("damage", "code", "message"),
    [
        (cut("model.onnx"), "bad_bundle", "model.onnx has changed since the export"),
        (cut("bundle.json"), "bad_bundle", "bundle.json"),
        (lambda folder: (folder / "model.onnx").unlink(), "bad_bundle", "no model.onnx"),
        (lambda folder: (folder / "bundle.json").unlink(), "not_a_checkpoint", "no checkpoint"),
        (change("format", 99), "other_format", "format 99"),
        (change("classes", "angry"), "bad_bundle", "no valid classes"),
        (change("classes", CLASSES[:3]), "bad_bundle", "outputs"),
        (change("files", {}), "bad_bundle", "no valid files"),
        (change("files", {"bundle.json": "0"}), "bad_bundle", "no valid files"),
        (change("calibration", {}), "bad_bundle", "no valid calibration"),
        (change("calibration", {"threshold": "high"}), "bad_bundle", "no valid calibration"),
        (change("scales", {"arousal": {"low": 5.0, "high": 1.0}}), "bad_bundle", "no valid scales"),
        (change("scales", {"arousal": [1, 5]}), "bad_bundle", "no valid scales"),
        (change("classes", [1, 2, 3, 4]), "bad_bundle", "no valid classes"),
        (change("sampling_rate", 8000), "bad_bundle", "no valid sampling_rate"),
        (change("probe", {}), "bad_bundle", "no valid probe"),
        (
            change("probe", {"text": None, "probabilities": [float("nan")], "ratings": [], "tolerance": 1.0}),
            "bad_bundle",
            "no valid probe",
        ),
        (lambda folder: (folder / "probe.npy").unlink(), "bad_bundle", "no probe.npy"),
        (change("classes", ["neutral", "happy", "angry", "angry"]), "bad_bundle", "no valid classes"),
        (change("licences", [{"what": "corpus"}]), "bad_bundle", "no valid licences"),
        (change("licences", None), "bad_bundle", "no valid licences"),
        (change("card", {"corpus": "x"}), "bad_bundle", "no valid card"),
        (change("min_samples", 10**30), "bad_bundle", "no valid min_samples"),
        (change("max_seconds", float("nan")), "bad_bundle", "no valid max_seconds"),
        (change("files", {"model.onnx": 7}), "bad_bundle", "no valid files"),
        (replace_by_pipe("model.onnx"), "bad_bundle", "no model.onnx"),
        (replace_by_pipe("bundle.json"), "not_a_checkpoint", "no checkpoint"),
        (lambda folder: (folder / "bundle.json").write_text("[" * 100_000), "bad_bundle", "bundle.json"),
    ],
)
def test_a_damaged_bundle_is_refused_before_use(toy, tmp_path, damage, code, message):
    folder = shutil.copytree(toy, tmp_path / "copy")
    damage(folder)
    with pytest.raises(SertoneError, match=message) as caught:
        sertone.load(folder, any_sound=True)
    assert caught.value.code == code


def test_a_file_outside_the_bundle_is_refused(toy, tmp_path):
    folder = shutil.copytree(toy, tmp_path / "copy")
    files = json.loads((folder / "bundle.json").read_text())["files"]
    change("files", files | {"../model.onnx": "0"})(folder)
    with pytest.raises(SertoneError, match=r"no \.\./model\.onnx"):
        sertone.load(folder, any_sound=True)


@pytest.mark.parametrize("threads", [0, -1, 99999])
def test_too_few_and_too_many_threads_are_refused(toy, threads):
    with pytest.raises(SertoneError, match=f"{threads} threads") as caught:
        sertone.load(toy, threads=threads, any_sound=True)
    assert caught.value.code == "bad_threads"


def update_hashes(folder):
    """Write new hashes after changing a file of a bundle on purpose."""
    files = json.loads((folder / "bundle.json").read_text())["files"]
    change("files", {name: file_hash(folder / name) for name in files})(folder)


def test_an_invalid_graph_is_refused(tmp_path, toy):
    folder = shutil.copytree(toy, tmp_path / "copy")
    (folder / "model.onnx").write_bytes(b"no graph")
    update_hashes(folder)
    with pytest.raises(SertoneError, match=r"model\.onnx") as caught:
        sertone.load(folder, any_sound=True)
    assert caught.value.code == "bad_bundle"


def read_probe(folder):
    return json.loads((folder / "bundle.json").read_text())["probe"]


def test_a_bundle_holds_a_second_of_waveform_and_its_outputs(toy):
    signal = np.load(toy / "probe.npy", allow_pickle=False)
    assert signal.dtype == np.int16 and signal.shape == (16000,)
    shares, arousal = expected((signal / 2**15).astype(np.float32))
    assert np.allclose(read_probe(toy)["probabilities"], shares, atol=1e-5)
    assert read_probe(toy)["ratings"] == [pytest.approx(arousal, abs=1e-4)]
    assert max(shares) < 0.9, "a confident output hardly moves, whatever goes wrong"


@pytest.mark.parametrize("off, right", [(0.9, True), (1.1, False)])
@pytest.mark.parametrize("part, span", [("probabilities", 1.0), ("ratings", 4.0)])
def test_other_outputs_for_the_probe_are_refused(toy, tmp_path, off, right, part, span):
    """The test changes the expected outputs; on a faulty machine the computed ones differ."""
    folder = shutil.copytree(toy, tmp_path / "copy")
    asked = read_probe(folder)
    asked[part][0] += off * asked["tolerance"] * span
    change("probe", asked)(folder)
    if right:
        assert sertone.load(folder, any_sound=True).predict(noise(), 16000).status == "ok"
        return
    with pytest.raises(SertoneError, match="SERTONE_SKIP_PROBE=1") as caught:
        sertone.load(folder, any_sound=True)
    assert caught.value.code == "wrong_arithmetic"


def test_the_probe_is_skipped_on_request(toy, tmp_path, monkeypatch):
    folder = shutil.copytree(toy, tmp_path / "copy")
    change("probe", read_probe(folder) | {"probabilities": [1.0, 0.0, 0.0, 0.0]})(folder)
    monkeypatch.setenv("SERTONE_SKIP_PROBE", "1")
    assert sertone.load(folder, any_sound=True).predict(noise(), 16000).status == "ok"


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", np.zeros(3).tobytes()])
def test_an_invalid_probe_is_refused(toy, tmp_path, content):
    folder = shutil.copytree(toy, tmp_path / "copy")
    (folder / "probe.npy").write_bytes(content)
    update_hashes(folder)
    with pytest.raises(SertoneError, match=r"probe\.npy is not a waveform"):
        sertone.load(folder, any_sound=True)


def test_a_bundle_without_a_probe_loads_with_a_warning(toy, tmp_path):
    folder = shutil.copytree(toy, tmp_path / "copy")
    (folder / "probe.npy").unlink()
    files = json.loads((folder / "bundle.json").read_text())["files"]
    del files["probe.npy"]
    about = json.loads((folder / "bundle.json").read_text()) | {"format": 1, "files": files}
    del about["probe"]
    (folder / "bundle.json").write_text(json.dumps(about))
    with pytest.warns(UnverifiedBundleWarning, match="export it again"):
        answer = sertone.load(folder, any_sound=True).predict(noise(), 16000)
    assert answer == sertone.load(toy, any_sound=True).predict(noise(), 16000)


def copy_with_edited_graph(toy, folder, edit):
    """Copy a bundle, edit its graph, and update the hashes."""
    import onnx

    shutil.copytree(toy, folder)
    graph = onnx.load(folder / "model.onnx")
    edit(graph)
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    update_hashes(folder)
    return folder


@pytest.mark.parametrize("factor, right", [(1.001, True), (1.2, False)])
def test_a_graph_with_other_results_is_refused(toy, tmp_path, factor, right):
    """The hashes fit, so only the probe detects it, as it would detect a wrong kernel."""

    def scale_slopes(graph):
        weight = next(t for t in graph.graph.initializer if t.name == "slopes")
        weight.raw_data = (factor * np.frombuffer(weight.raw_data, np.float32)).astype(np.float32).tobytes()

    folder = copy_with_edited_graph(toy, tmp_path / "copy", scale_slopes)
    if right:
        assert sertone.load(folder, any_sound=True).predict(noise(), 16000).status == "ok"
        return
    with pytest.raises(SertoneError, match="output for the bundle's probe is off by 0") as caught:
        sertone.load(folder, any_sound=True)
    assert caught.value.code == "wrong_arithmetic"


def test_a_full_disk_while_writing_the_probe_is_an_error(tmp_path):
    with pytest.raises(SertoneError) as caught, room(20_000):
        write_toy(tmp_path / "toy")
    assert caught.value.code == "disk_full"
    assert not list((tmp_path / "toy").glob("*probe*"))


def move_weight_to_file(graph, where):
    """Move a weight of the graph to a file beside it."""
    weight = next(t for t in graph.graph.initializer if t.name == "slopes")
    weight.ClearField("raw_data")
    weight.data_location = 1
    for key, value in {"location": where, "offset": "0", "length": "16"}.items():
        entry = weight.external_data.add()
        entry.key, entry.value = key, value


@pytest.mark.parametrize("where", ["weights.bin", "../weights.bin", "/etc/passwd"])
def test_weights_beside_the_graph_need_a_hash(toy, tmp_path, where):
    folder = copy_with_edited_graph(toy, tmp_path / "copy", lambda graph: move_weight_to_file(graph, where))
    (folder / "weights.bin").write_bytes(bytes(16))
    (tmp_path / "weights.bin").write_bytes(bytes(16))
    with pytest.raises(SertoneError, match=rf"refers to '{where}', which has no hash") as caught:
        sertone.load(folder, any_sound=True)
    assert caught.value.code == "bad_bundle"


def test_weights_in_nested_graphs_and_functions_are_found(tmp_path):
    import onnx
    from onnx import helper

    def tensor(where):
        proto = onnx.TensorProto(name=where, dims=[4], data_type=1, data_location=1)
        proto.external_data.add(key="location", value=where)
        return proto

    inner = helper.make_graph([], "inner", [], [], [tensor("inner")])
    constant = helper.make_node("Constant", [], ["c"], value=tensor("constant"))
    choice = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    function = helper.make_function(
        "own", "f", [], ["c"], [helper.make_node("Constant", [], ["c"], value=tensor("function"))], []
    )
    sparse = onnx.SparseTensorProto(values=tensor("values"), indices=tensor("indices"), dims=[4])
    graph = helper.make_graph(
        [constant, choice], "outer", [], [], [tensor("weight")], sparse_initializer=[sparse]
    )
    onnx.save(helper.make_model(graph, functions=[function]), tmp_path / "x.onnx")
    expected = ["constant", "function", "indices", "inner", "values", "weight"]
    assert list_external_files(tmp_path / "x.onnx", "bad") == expected


def output_logits(graph):
    """Output the logits instead of probabilities."""
    softmax = next(node for node in graph.graph.node if node.op_type == "Softmax")
    softmax.op_type = "Identity"


def test_outputs_that_are_not_probabilities_are_an_error(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("SERTONE_SKIP_PROBE", "1")
    answer = sertone.load(
        copy_with_edited_graph(toy, tmp_path / "copy", output_logits), any_sound=True
    ).predict(noise(), 16000)
    assert (answer.status, answer.code, answer.label) == ("error", "not_probabilities", None)


def test_a_failing_graph_has_its_code(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("SERTONE_SKIP_PROBE", "1")

    def multiply_by_three_numbers(graph):
        """Multiply recordings by three numbers, which only fits recordings of three samples."""
        three = graph.graph.initializer.add(name="three", dims=[1, 3], data_type=1)
        three.raw_data = bytes(12)
        next(node for node in graph.graph.node if node.output[0] == "squares").input[1] = "three"

    folder = copy_with_edited_graph(toy, tmp_path / "copy", multiply_by_three_numbers)
    answer = sertone.load(folder, any_sound=True).predict(noise(), 16000)
    assert (answer.status, answer.code) == ("error", "graph_failed")


def test_classes_can_be_selected_merged_and_renamed(toy):
    samples = noise()
    whole = sertone.load(toy, any_sound=True).predict(samples, 16000).probabilities
    some = sertone.load(toy, classes={"angry": "angry", "sad": "sad"}, any_sound=True).predict(samples, 16000)
    both = whole["angry"] + whole["sad"]
    assert some.probabilities == pytest.approx({name: whole[name] / both for name in ("angry", "sad")})
    merged = sertone.load(
        toy, classes={"happy": "up", "neutral": "up", "sad": "down", "angry": "down"}, any_sound=True
    )
    answer = merged.predict(samples, 16000)
    assert answer.probabilities == pytest.approx({"up": whole["happy"] + whole["neutral"], "down": both})
    assert answer.confidence == pytest.approx(max(answer.probabilities.values()))
    with pytest.raises(SertoneError, match="bored, which the model does not know") as caught:
        sertone.load(toy, classes={"bored": "sad"}, any_sound=True)
    assert caught.value.code == "unknown_class"


def test_low_confidence_is_unsure(tmp_path):
    samples = noise()
    folder = write_toy(tmp_path / "toy", threshold=0.99)
    assert sertone.load(folder, any_sound=True).predict(samples, 16000).unsure
    assert not sertone.load(folder, min_confidence=0.1, any_sound=True).predict(samples, 16000).unsure
    with pytest.raises(SertoneError) as caught:
        sertone.load(folder, min_confidence=1.1, any_sound=True)
    assert caught.value.code == "bad_confidence"


def test_dimensions_from_zero_to_one(toy):
    samples = noise()
    own, unit = (
        sertone.load(toy, dimensions=kind, any_sound=True).predict(samples, 16000)
        for kind in ("corpus", "unit")
    )
    assert unit.dimensions["arousal"] == pytest.approx((own.dimensions["arousal"] - 1) / 4)
    unit_format = AnswerFormat(sertone.load(toy, any_sound=True).model, dimensions="unit")
    beyond = [unit_format.format_row(np.ones(4) / 4, np.array([rated])) for rated in (0.9, 5.2)]
    assert [answer["dimensions"]["arousal"] for answer in beyond] == [0.0, 1.0]


def test_a_missing_gpu_is_refused(toy):
    with pytest.raises(SertoneError, match="onnxruntime-gpu") as caught:
        sertone.load(toy, device="cuda", any_sound=True)
    assert caught.value.code == "no_device"

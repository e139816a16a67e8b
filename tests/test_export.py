"""Export: bundles of all systems give the outputs of torch, on noise and on real speech; int8 and bf16."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from conftest import SMALL_EMOTION2VEC
from damage import room
from exported import COMPACT, TEXT, write_checkpoint

import sertone
from sertone.errors import SertoneError
from sertone.export.bundles import export
from sertone.export.onnx_graph import FRONT_END_PREFIX, save_graph, to_onnx
from sertone.export.parity import check_parity
from sertone.export.precision import convert_precision
from sertone.export.precision_check import compare_precisions, require_small_loss
from sertone.labels import FOUR_CLASSES, Scale
from sertone.nn.encoders.whisper import WhisperEncoder
from sertone.runtime.answering import Outputs
from sertone.runtime.bundle import Bundle, read_metadata
from sertone.training.testing.trained import TorchModel

PROSODY = COMPACT | {"prosody": True, "block": "conformer"}
WAN = {"name": "wan2025", "hidden": 16, "frozen_layers": 1}
ISPAS = {"name": "ispas2023", "attention_heads": 4, "bridge_tokens": 3, "hidden": 16}
BASELINE = {"name": "baseline", "encoder": COMPACT}
OLIVEIRA = {"name": "oliveira2023", "hidden": 8}
SYSTEMS = {
    "prosody": WAN | {"encoder": PROSODY},
    "oliveira2023": OLIVEIRA | {"encoder": COMPACT, "text": TEXT},
    "wav2vec2": {"name": "baseline", "encoder": {"name": "tiny"}},
    "whisper": {"name": "baseline", "encoder": {"name": "tiny", "family": "whisper"}},
}
SLOW = {
    "compact": WAN | {"encoder": COMPACT},
    "ispas2023_audio": ISPAS | {"encoder": COMPACT, "text": None},
    "ispas2023_cross": ISPAS | {"encoder": PROSODY, "text": TEXT, "interaction": "cross"},
    "ispas2023": ISPAS | {"encoder": COMPACT, "text": TEXT},
    "oliveira2023_text": OLIVEIRA | {"encoder": None, "text": TEXT},
    "wav2vec2_layer": {"name": "baseline", "encoder": {"name": "tiny", "norm": "layer"}},
    "statistics": {"name": "baseline", "encoder": COMPACT, "pooling": "statistics"},
    "attentive": {"name": "baseline", "encoder": COMPACT, "pooling": "attentive"},
    "standardised": BASELINE | {"pooling": "standardised", "fusion": "weighted_sum"},
    "one_layer": {"name": "baseline", "encoder": COMPACT, "hidden": None, "output_norm": "utterance"},
    "co_attention_alone": WAN | {"encoder": COMPACT, "pooled_features": False, "output_norm": "frame"},
    "wan2025_wavlm": WAN | {"encoder": {"name": "tiny", "family": "wavlm"}},
}
for family in ("hubert", "wavlm"):
    for norm in ("group", "layer"):
        encoder = {"name": "tiny", "family": family, "norm": norm}
        SLOW[f"{family}_{norm}"] = {"name": "baseline", "encoder": encoder}
for family in ("data2vec-audio", "unispeech", "unispeech-sat", "sew", "wav2vec2-conformer", "wav2vec2-bert"):
    SLOW[family] = {"name": "baseline", "encoder": {"name": "tiny", "family": family}}
TABLE = WhisperEncoder.tiny_options(32, 2, "layer") | {"model_type": "whisper", "max_source_positions": 40}
SLOW["emotion2vec"] = {"name": "baseline", "encoder": SMALL_EMOTION2VEC}
WINDOWS = {"config": TABLE, "normalize": False}
SLOW["whisper_windows"] = {"name": "baseline", "encoder": {"name": "architecture"} | WINDOWS}
ALL = [*SYSTEMS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
TEXTS = (None, "what a lovely day", "no")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, experiment):
    """Return bundle(name): the folders of a system's checkpoint and of its bundle, exported once."""
    folders = {}

    def make(name):
        if name not in folders:
            folder = tmp_path_factory.mktemp(name)
            values = (SYSTEMS | SLOW)[name]
            write_checkpoint(folder / "checkpoint", experiment, **values)
            export(folder / "checkpoint", folder / "bundle")
            folders[name] = folder / "checkpoint", folder / "bundle"
        return folders[name]

    return make


def differences(first, second, samples, text=None):
    a, b = (model.outputs(samples[None], text) for model in (first, second))
    spans = np.asarray([scale.high - scale.low for scale in first.scales.values()])
    return np.abs(a.probabilities - b.probabilities).max(initial=0), np.abs(
        (a.ratings - b.ratings) / spans
    ).max(initial=0)


@pytest.mark.parametrize("name", ALL)
def test_a_bundle_gives_the_outputs_of_torch(bundle, name, speech):
    """The recordings include real ones, and some that begin with digital silence."""
    checkpoint, folder = bundle(name)
    trained, exported = TorchModel(checkpoint), Bundle(folder)
    metadata = read_metadata(folder)
    assert (exported.classes, exported.scales) == (trained.classes, trained.scales)
    assert (exported.uses_audio, exported.uses_text) == (trained.uses_audio, trained.uses_text)
    worst = metadata["parity"]["largest_difference"]
    assert metadata["parity"]["seconds"][0] <= 0.4 and metadata["parity"]["seconds"][-1] == 30.0
    assert max(worst.values()) <= 1e-4
    draw = np.random.default_rng(0)
    clips = [samples for _, samples in speech()]
    clips += [0.1 * draw.standard_normal(n).astype(np.float32) for n in (trained.min_samples, 12345, 48000)]
    clips.append(np.concatenate([np.zeros(8000, np.float32), clips[-1]]))
    outputs = []
    for samples in clips:
        for text in TEXTS if trained.uses_text else (None,):
            assert max(differences(trained, exported, samples, text)) <= 1e-4
            outputs.append(
                np.concatenate([part[0] for part in vars(exported.outputs(samples[None], text)).values()])
            )
    assert np.std(outputs, axis=0).max() > 1e-3, "constant outputs would prove nothing"


def test_outputs_for_speech_are_those_of_torch(bundle, speech):
    """The pitch tracker takes the same decisions."""
    checkpoint, folder = bundle("prosody")
    trained, exported = TorchModel(checkpoint), Bundle(folder)
    largest = [max(differences(trained, exported, samples)) for _, samples in speech(every=5)]
    assert 0 < max(largest) <= 2e-5


def test_numbers_near_zero_are_kept(tmp_path):
    """The exporter's own optimisation replaces 1e-8 by 0; the logarithm of silence would have no value."""

    class Level(torch.nn.Module):
        def forward(self, waveforms):
            level = (waveforms.square().mean(1, keepdim=True) + 1e-8).log()
            return level, level[:, :0] - 1e-10

    save_graph(to_onnx(Level(), {"waveforms": torch.randn(2, 100)}), tmp_path / "model.onnx")
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (level,) = session.run(["probabilities"], {"waveforms": np.zeros((1, 300), np.float32)})
    assert level[0, 0] == pytest.approx(np.log(1e-8), rel=1e-6)


def test_a_run_gives_the_mean_of_its_models(tmp_path, experiment, speech):
    values = {"name": "baseline", "encoder": COMPACT | {"depth": 1}}
    two = replace(experiment, card=experiment.card | {"folds": experiment.card["folds"][:2]})
    folds = [
        write_checkpoint(
            tmp_path / f"run/fold_{k}/checkpoint", two, seed=k, temperature=1 + k, fold=k, **values
        )
        for k in (0, 1)
    ]
    export(tmp_path / "run", tmp_path / "bundle")
    exported, alone = Bundle(tmp_path / "bundle"), [TorchModel(folder) for folder in folds]
    for _, samples in [*speech(every=150), ("noise", np.random.default_rng(0).standard_normal(20000))]:
        waveforms = samples[None].astype(np.float32)
        mean = np.mean([model.outputs(waveforms).probabilities for model in alone], axis=0)
        assert np.abs(exported.outputs(waveforms).probabilities - mean).max() <= 1e-5
    metadata = read_metadata(tmp_path / "bundle")
    assert metadata["models"] == 2 and metadata["calibration"]["threshold"] == pytest.approx(0.4)


def nodes_by_kind(path):
    import onnx

    nodes = onnx.load(path).graph.node
    return {
        kind: [n.name for n in nodes if n.op_type == kind] for kind in ("MatMul", "MatMulInteger", "Conv")
    }


@pytest.mark.parametrize("name", ["prosody", "wav2vec2"])
def test_int8_is_for_the_weights_of_products_only(bundle, name, tmp_path):
    _, folder = bundle(name)
    before = nodes_by_kind(folder / "model.onnx")
    convert_precision(folder / "model.onnx", tmp_path / "int8.onnx", "int8")
    after = nodes_by_kind(tmp_path / "int8.onnx")
    fixed = {n for n in before["MatMul"] if n.startswith(FRONT_END_PREFIX)}
    assert fixed <= set(after["MatMul"]) and bool(fixed) == (name == "prosody")
    assert after["Conv"] == before["Conv"] and not before["MatMulInteger"]
    weights = {"prosody": 2 * 6, "wav2vec2": 1 + 2 * 6}[name]  # six products by weights in each of two layers
    assert len(after["MatMulInteger"]) >= weights
    between = 2 * (2 if name == "wav2vec2" else 3)  # queries with keys, attention weights with values
    assert len(after["MatMul"]) - len(fixed) <= between


def adjacent_sums(path):
    """Return, by product of 8-bit numbers, the largest sum of two neighbouring weights of a column."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    eight_bits = {name for name, value in weights.items() if value.dtype in (np.int8, np.uint8)}
    found = {}
    for node in graph.node:
        used = [name for name in node.input if name in eight_bits and weights[name].ndim == 2]
        if used:
            (name,) = used
            assert node.op_type == "MatMulInteger" and weights[name].dtype == np.int8
            assert not weights[node.input[3]].any(), "columns are symmetric about zero"
            size = np.abs(weights[name].astype(int))
            found[name] = (size[:-1] + size[1:]).max()
    return found


@pytest.mark.parametrize(
    "name", ["prosody", "wav2vec2", pytest.param("wav2vec2_layer", marks=pytest.mark.slow)]
)
def test_no_sum_of_two_products_leaves_sixteen_bits(bundle, name, tmp_path):
    """Processors without VNNI add two u8 x s8 products in 16 bits and saturate. The tensors prove it.

    A replaced convolution has the frames of its kernel side by side, so its columns are such products too.
    """
    _, folder = bundle(name)
    convert_precision(folder / "model.onnx", tmp_path / "int8.onnx", "int8")
    found = adjacent_sums(tmp_path / "int8.onnx")
    assert len(found) == len(nodes_by_kind(tmp_path / "int8.onnx")["MatMulInteger"]) > 0
    assert max(found.values()) > 64, "the range is used"
    assert all(255 * most <= np.iinfo(np.int16).max for most in found.values())


@pytest.mark.parametrize("precision, most", [("int8", 0.05), ("bf16", 0.02)])
@pytest.mark.parametrize("name", ["prosody", "wav2vec2"])
def test_converted_weights_give_nearly_the_same_outputs(bundle, name, precision, most, tmp_path):
    _, folder = bundle(name)
    (tmp_path / "bundle").mkdir()
    convert_precision(folder / "model.onnx", tmp_path / "bundle" / "model.onnx", precision)
    from sertone.export.bundles import write_bundle

    write_bundle(tmp_path / "bundle", read_metadata(folder) | {"precision": precision})
    sizes = [(path / "model.onnx").stat().st_size for path in (tmp_path / "bundle", folder)]
    assert sizes[0] < sizes[1]
    exact, other = Bundle(folder), Bundle(tmp_path / "bundle")
    found = check_parity(exact, other, seconds=(0.5, 2.0), tolerance=most)
    assert 0 < found["largest_difference"]["probabilities"] <= most
    assert "not measured" in (tmp_path / "bundle" / "README.md").read_text()


@pytest.mark.slow
def test_an_export_onto_a_full_disk_leaves_nothing(bundle, tmp_path):
    checkpoint, folder = bundle("prosody")
    with pytest.raises(SertoneError) as caught, room(20_000):
        export(checkpoint, tmp_path / "bundle")
    assert caught.value.code == "disk_full" and not list(tmp_path.iterdir())
    for precision in ("int8", "bf16"):
        with pytest.raises(SertoneError) as caught, room(20_000):
            convert_precision(folder / "model.onnx", tmp_path / "model.onnx", precision)
        assert caught.value.code == "disk_full" and not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize(
    "precision, sessions", [pytest.param("fp32", 1, marks=pytest.mark.slow), ("int8", 2)]
)
def test_an_export_loads_each_graph_and_runs_the_probe_once(
    bundle, tmp_path, monkeypatch, precision, sessions
):
    import onnxruntime

    from sertone.export import bundles
    from sertone.runtime import bundle as running

    checkpoint, _ = bundle("prosody")  # exported here, unless an earlier test did so
    calls = []

    def counting(function, describe):
        return lambda *arguments, **keywords: (
            calls.append(describe(arguments)) or function(*arguments, **keywords)
        )

    session = counting(onnxruntime.InferenceSession, lambda _: "session")
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(bundles, "create_probe", counting(bundles.create_probe, lambda _: "probe"))
    for module in (bundles, running):
        monkeypatch.setattr(
            module, "file_hash", counting(module.file_hash, lambda arguments: arguments[0].name)
        )
    metadata = export(checkpoint, tmp_path / "bundle", precision=precision)
    assert calls.count("session") == sessions and calls.count("probe") == 1
    assert calls.count("model.onnx") == 2 * sessions, "once when stated, once when checked"
    monkeypatch.undo()
    assert read_metadata(tmp_path / "bundle") == metadata and Bundle(tmp_path / "bundle")


def test_int8_outputs_do_not_depend_on_other_recordings_in_the_batch(bundle, tmp_path):
    """One scale for the batch would leave few levels to a soft recording beside loud ones."""
    from sertone.export.bundles import write_bundle

    _, folder = bundle("wav2vec2")
    (tmp_path / "bundle").mkdir()
    convert_precision(folder / "model.onnx", tmp_path / "bundle" / "model.onnx", "int8")
    write_bundle(tmp_path / "bundle", read_metadata(folder) | {"precision": "int8"})
    model, draw = Bundle(tmp_path / "bundle"), np.random.default_rng(0)
    waveforms = draw.standard_normal((3, 16000)) * np.asarray([[1.0], [0.01], [0.3]])
    alone = [model.outputs(row[None]).probabilities[0] for row in waveforms]
    assert np.array_equal(model.outputs(waveforms).probabilities, alone)


class FixedOutputs:
    """A model whose outputs are given in advance, by the first sample of a recording."""

    classes, uses_audio, uses_text, min_samples = ["happy", "sad"], True, False, 400

    def __init__(self, shares, ratings):
        self.shares, self.ratings, self.scales = shares, ratings, {"valence": Scale(0.0, 1.0)}

    def outputs(self, waveforms, text=None):
        row = round(float(waveforms[0, 0]) * 100)
        return Outputs(
            np.asarray([[self.shares[row], 1 - self.shares[row]]]), np.asarray([[self.ratings[row]]])
        )


@pytest.fixture
def four(tmp_path):
    """Return a table of four recordings: two happy, one sad, one angry."""
    lines = ["path,speaker,emotion"]
    for row, emotion in enumerate(("happy", "happy", "sad", "angry")):
        samples = np.full(1600, row / 100) + 0.001 * (np.arange(1600) % 2) * (np.arange(1600) > 0)
        soundfile.write(tmp_path / f"{row}.wav", samples, 16000, subtype="FLOAT")
        lines.append(f"{row}.wav,s{row},{emotion}")
    (tmp_path / "metadata.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "metadata.csv"


def test_precisions_are_compared_on_the_recordings_of_a_corpus(four):
    exact, other = (
        FixedOutputs([0.9, 0.8, 0.2, 0.6], [0.1, 0.2, 0.3, 0.4]),
        FixedOutputs([0.9, 0.4, 0.3, 0.6], [0.1, 0.2, 0.3, 0.8]),
    )
    found = compare_precisions(exact, other, {"happy": "happy", "sad": "sad"}, "manifest", four)
    assert (found["utterances"], found["equal_labels"]) == (4, 0.75)
    assert found["mean_difference"] == pytest.approx((0 + 0.4 + 0.1 + 0) / 4)
    assert found["mean_rating_difference"] == pytest.approx(0.1)
    assert found["scores"] == {"ua": {"fp32": 1.0, "own": 0.75, "utterances": 3}}
    assert found["loss_points"] == pytest.approx(25.0)
    with pytest.raises(SertoneError, match=r"loses 25\.00 points") as caught:
        require_small_loss(found, "int8", force=False)
    assert caught.value.code == "int8_loss"
    require_small_loss(found, "int8", force=True)
    require_small_loss(found | {"loss_points": 0.5}, "int8", force=False)
    require_small_loss(found | {"loss_points": None}, "int8", force=False)


def test_precisions_are_compared_on_a_table_with_other_columns(four):
    four.write_text(four.read_text().replace("path,speaker,emotion", "clip,speaker,feeling"))
    exact = FixedOutputs([0.9, 0.8, 0.2, 0.6], [0.1, 0.2, 0.3, 0.4])
    reader = {"columns": {"path": "clip", "emotion": "feeling"}}
    found = compare_precisions(exact, exact, {"happy": "happy", "sad": "sad"}, "manifest", four, reader)
    assert found["scores"]["ua"]["utterances"] == 3


def test_a_corpus_without_the_models_labels_measures_no_loss(four):
    exact = FixedOutputs([0.9, 0.8, 0.2, 0.6], [0.1, 0.2, 0.3, 0.4])
    found = compare_precisions(exact, exact, {"fearful": "sad"}, "manifest", four)
    assert (found["loss_points"], found["scores"], found["equal_labels"]) == (None, {}, 1.0)


def test_other_outputs_are_no_parity(toy):
    class Shifted:
        def __init__(self, inner, shift):
            self.inner, self.shift = inner, shift
            self.scales, self.min_samples = inner.scales, 400
            self.uses_audio, self.uses_text = True, False

        def outputs(self, waveforms, text=None):
            outputs = self.inner.outputs(waveforms, text)
            return Outputs(outputs.probabilities + self.shift, outputs.ratings)

    exact = Bundle(toy)
    assert (
        check_parity(exact, Shifted(exact, 0.9e-4), seconds=(1.0,))["largest_difference"]["probabilities"] > 0
    )
    for wrong in (1.2e-4, np.nan):
        with pytest.raises(SertoneError) as caught:
            check_parity(exact, Shifted(exact, wrong), seconds=(1.0,))
        assert caught.value.code == "parity"
    with pytest.raises(SertoneError):
        check_parity(exact, Shifted(exact, np.nan), seconds=(1.0,), tolerance=np.inf)


def test_nothing_is_overwritten_or_left_behind(tmp_path, toy, experiment):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("all of it")
    with pytest.raises(SertoneError) as caught:
        export(toy, tmp_path / "mine")
    assert caught.value.code == "not_empty"
    with pytest.raises(SertoneError) as caught:
        export(tmp_path, tmp_path / "new")
    assert caught.value.code == "not_a_checkpoint"
    with pytest.raises(SertoneError) as caught:
        export(tmp_path, tmp_path / "new", on=("emodb", tmp_path))
    assert caught.value.code == "nothing_to_compare"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


def test_the_four_classes_are_mapped(bundle):
    metadata = read_metadata(bundle("prosody")[1])
    assert metadata["class_map"] == FOUR_CLASSES and metadata["model"] == {
        "name": "wan2025",
        "encoders": "compact",
    }
    assert json.loads((bundle("prosody")[1] / "bundle.json").read_text())["scores"] == {}
    assert sertone.load(bundle("prosody")[1]).classes == metadata["classes"]

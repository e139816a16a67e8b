"""Export: bundles answer what torch does, of all systems, on noise and on real speech; int8 and bf16."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
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
from sertone.runtime.answering import Outputs
from sertone.runtime.bundle import Bundle, read_metadata
from sertone.training.testing.trained import TorchModel

PROSODY = COMPACT | {"prosody": True, "block": "conformer"}
WAN = {"name": "wan2025", "hidden": 16, "frozen_layers": 1}
ISPAS = {"name": "ispas2023", "attention_heads": 4, "bridge_tokens": 3, "hidden": 16}
OLIVEIRA = {"name": "oliveira2023", "hidden": 8}
SYSTEMS = {
    "prosody": WAN | {"encoder": PROSODY},
    "oliveira2023": OLIVEIRA | {"encoder": COMPACT, "text": TEXT},
    "wav2vec2": {"name": "baseline", "encoder": {"name": "tiny"}},
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
    "one_layer": {"name": "baseline", "encoder": COMPACT, "hidden": None, "output_norm": True},
    "co_attention_alone": WAN | {"encoder": COMPACT, "pooled_features": False, "output_norm": True},
    "wan2025_wavlm": WAN | {"encoder": {"name": "tiny", "family": "wavlm"}},
}
for family in ("hubert", "wavlm"):
    for norm in ("group", "layer"):
        encoder = {"name": "tiny", "family": family, "norm": norm}
        SLOW[f"{family}_{norm}"] = {"name": "baseline", "encoder": encoder}
ALL = [*SYSTEMS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
TEXTS = (None, "what a lovely day", "no")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, experiment):
    """bundle(name) -> the folder of a system's checkpoint and that of its bundle, exported once."""
    made = {}

    def make(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            values = (SYSTEMS | SLOW)[name]
            write_checkpoint(folder / "checkpoint", experiment, **values)
            export(folder / "checkpoint", folder / "bundle")
            made[name] = folder / "checkpoint", folder / "bundle"
        return made[name]

    return make


def differences(first, second, samples, text=None):
    a, b = (model.outputs(samples[None], text) for model in (first, second))
    spans = np.asarray([scale.high - scale.low for scale in first.scales.values()])
    return np.abs(a.probabilities - b.probabilities).max(initial=0), np.abs(
        (a.ratings - b.ratings) / spans
    ).max(initial=0)


@pytest.mark.parametrize("name", ALL)
def test_a_bundle_answers_what_torch_does(bundle, name, speech):
    """On real recordings too, some of which begin with digital silence."""
    checkpoint, folder = bundle(name)
    trained, exported = TorchModel(checkpoint), Bundle(folder)
    said = read_metadata(folder)
    assert (exported.classes, exported.scales) == (trained.classes, trained.scales)
    assert (exported.uses_audio, exported.uses_text) == (trained.uses_audio, trained.uses_text)
    worst = said["parity"]["largest_difference"]
    assert said["parity"]["seconds"][0] <= 0.4 and said["parity"]["seconds"][-1] == 30.0
    assert max(worst.values()) <= 1e-4
    draw = np.random.default_rng(0)
    clips = [samples for _, samples in speech()]
    clips += [0.1 * draw.standard_normal(n).astype(np.float32) for n in (trained.min_samples, 12345, 48000)]
    clips.append(np.concatenate([np.zeros(8000, np.float32), clips[-1]]))
    answers = []
    for samples in clips:
        for text in TEXTS if trained.uses_text else (None,):
            assert max(differences(trained, exported, samples, text)) <= 1e-4
            answers.append(
                np.concatenate([part[0] for part in vars(exported.outputs(samples[None], text)).values()])
            )
    assert np.std(answers, axis=0).max() > 1e-3, "a model that always answers the same shows nothing"


def test_speech_is_answered_as_by_torch(bundle, speech):
    """The decisions of the pitch tracker fall the same way."""
    checkpoint, folder = bundle("prosody")
    trained, exported = TorchModel(checkpoint), Bundle(folder)
    found = [max(differences(trained, exported, samples)) for _, samples in speech(every=5)]
    assert 0 < max(found) <= 2e-5


def test_numbers_near_zero_are_not_left_out(tmp_path):
    """The exporter's own optimisation takes 1e-8 for 0, and the logarithm of silence then has no value."""

    class Level(torch.nn.Module):
        def forward(self, waveforms):
            level = (waveforms.square().mean(1, keepdim=True) + 1e-8).log()
            return level, level[:, :0] - 1e-10

    save_graph(to_onnx(Level(), {"waveforms": torch.randn(2, 100)}), tmp_path / "model.onnx")
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (level,) = session.run(["probabilities"], {"waveforms": np.zeros((1, 300), np.float32)})
    assert level[0, 0] == pytest.approx(np.log(1e-8), rel=1e-6)


def test_a_run_answers_with_the_mean_of_its_models(tmp_path, experiment, speech):
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
        given = samples[None].astype(np.float32)
        mean = np.mean([model.outputs(given).probabilities for model in alone], axis=0)
        assert np.abs(exported.outputs(given).probabilities - mean).max() <= 1e-5
    said = read_metadata(tmp_path / "bundle")
    assert said["models"] == 2 and said["calibration"]["threshold"] == pytest.approx(0.4)


def quantised(path):
    import onnx

    nodes = onnx.load(path).graph.node
    return {
        kind: [n.name for n in nodes if n.op_type == kind] for kind in ("MatMul", "MatMulInteger", "Conv")
    }


@pytest.mark.parametrize("name", ["prosody", "wav2vec2"])
def test_int8_is_for_the_weights_of_products_only(bundle, name, tmp_path):
    _, folder = bundle(name)
    before = quantised(folder / "model.onnx")
    convert_precision(folder / "model.onnx", tmp_path / "int8.onnx", "int8")
    after = quantised(tmp_path / "int8.onnx")
    fixed = {n for n in before["MatMul"] if n.startswith(FRONT_END_PREFIX)}
    assert fixed <= set(after["MatMul"]) and bool(fixed) == (name == "prosody")
    assert after["Conv"] == before["Conv"] and not before["MatMulInteger"]
    weights = {"prosody": 2 * 6, "wav2vec2": 1 + 2 * 6}[name]  # six products by weights in each of two layers
    assert len(after["MatMulInteger"]) >= weights
    between = 2 * (2 if name == "wav2vec2" else 3)  # queries with keys, shares with values
    assert len(after["MatMul"]) - len(fixed) <= between


def adjacent_sums(path):
    """Of every product of 8-bit numbers: the largest sum of two neighbouring weights of a column, as numbers."""
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
    """Processors without VNNI add two u8 x s8 products in 16 bits and saturate: proven on the tensors.

    A fused convolution has the frames of its kernel side by side, so that its columns are such products too.
    """
    _, folder = bundle(name)
    convert_precision(folder / "model.onnx", tmp_path / "int8.onnx", "int8")
    found = adjacent_sums(tmp_path / "int8.onnx")
    assert len(found) == len(quantised(tmp_path / "int8.onnx")["MatMulInteger"]) > 0
    assert max(found.values()) > 64, "the range is used"
    assert all(255 * most <= np.iinfo(np.int16).max for most in found.values())


@pytest.mark.parametrize("precision, most", [("int8", 0.05), ("bf16", 0.02)])
@pytest.mark.parametrize("name", ["prosody", "wav2vec2"])
def test_lowered_weights_answer_nearly_the_same(bundle, name, precision, most, tmp_path):
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
def test_an_export_without_room_says_so_and_leaves_nothing(bundle, tmp_path):
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
def test_an_export_loads_each_graph_and_asks_the_probe_of_the_bundle_once(
    bundle, tmp_path, monkeypatch, precision, sessions
):
    import onnxruntime

    from sertone.export import bundles
    from sertone.runtime import bundle as running

    checkpoint, _ = bundle("prosody")  # exported here, if no test before has done so
    counted = []

    def counting(function, what):
        return lambda *given, **named: counted.append(what(given)) or function(*given, **named)

    session = counting(onnxruntime.InferenceSession, lambda _: "session")
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(bundles, "create_probe", counting(bundles.create_probe, lambda _: "probe"))
    for module in (bundles, running):
        monkeypatch.setattr(module, "file_hash", counting(module.file_hash, lambda given: given[0].name))
    said = export(checkpoint, tmp_path / "bundle", precision=precision)
    assert counted.count("session") == sessions and counted.count("probe") == 1
    assert counted.count("model.onnx") == 2 * sessions, "stated, and checked when the graph is loaded"
    monkeypatch.undo()
    assert read_metadata(tmp_path / "bundle") == said and Bundle(tmp_path / "bundle")


def test_int8_answers_a_recording_the_same_beside_others(bundle, tmp_path):
    """Or else loud neighbours would take its levels away."""
    from sertone.export.bundles import write_bundle

    _, folder = bundle("wav2vec2")
    (tmp_path / "bundle").mkdir()
    convert_precision(folder / "model.onnx", tmp_path / "bundle" / "model.onnx", "int8")
    write_bundle(tmp_path / "bundle", read_metadata(folder) | {"precision": "int8"})
    model, draw = Bundle(tmp_path / "bundle"), np.random.default_rng(0)
    waveforms = draw.standard_normal((3, 16000)) * np.asarray([[1.0], [0.01], [0.3]])
    alone = [model.outputs(row[None]).probabilities[0] for row in waveforms]
    assert np.array_equal(model.outputs(waveforms).probabilities, alone)


class Told:
    """Answers what it was told about a recording, by its first sample."""

    classes, hears, reads, min_samples = ["happy", "sad"], True, False, 400

    def __init__(self, shares, ratings):
        self.shares, self.rated, self.scales = shares, ratings, {"valence": Scale(0.0, 1.0)}

    def outputs(self, waveforms, text=None):
        row = round(float(waveforms[0, 0]) * 100)
        return Outputs(
            np.asarray([[self.shares[row], 1 - self.shares[row]]]), np.asarray([[self.rated[row]]])
        )


@pytest.fixture
def four(tmp_path):
    """Four recordings: two happy, two sad."""
    lines = ["path,speaker,emotion"]
    for row, emotion in enumerate(("happy", "happy", "sad", "angry")):
        samples = np.full(1600, row / 100) + 0.001 * (np.arange(1600) % 2) * (np.arange(1600) > 0)
        soundfile.write(tmp_path / f"{row}.wav", samples, 16000, subtype="FLOAT")
        lines.append(f"{row}.wav,s{row},{emotion}")
    (tmp_path / "metadata.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "metadata.csv"


def test_agreement_is_counted_on_the_recordings_of_a_corpus(four):
    exact, other = (
        Told([0.9, 0.8, 0.2, 0.6], [0.1, 0.2, 0.3, 0.4]),
        Told([0.9, 0.4, 0.3, 0.6], [0.1, 0.2, 0.3, 0.8]),
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


def test_agreement_reads_a_table_by_chosen_columns(four):
    four.write_text(four.read_text().replace("path,speaker,emotion", "clip,speaker,feeling"))
    exact = Told([0.9, 0.8, 0.2, 0.6], [0.1, 0.2, 0.3, 0.4])
    reader = {"columns": {"path": "clip", "emotion": "feeling"}}
    found = compare_precisions(exact, exact, {"happy": "happy", "sad": "sad"}, "manifest", four, reader)
    assert found["scores"]["ua"]["utterances"] == 3


def test_a_corpus_without_the_models_labels_measures_no_loss(four):
    exact = Told([0.9, 0.8, 0.2, 0.6], [0.1, 0.2, 0.3, 0.4])
    found = compare_precisions(exact, exact, {"fearful": "sad"}, "manifest", four)
    assert (found["loss_points"], found["scores"], found["equal_labels"]) == (None, {}, 1.0)


def test_another_answer_is_no_parity(toy):
    class Off:
        def __init__(self, inner, by):
            self.inner, self.by = inner, by
            self.scales, self.min_samples, self.hears, self.reads = inner.scales, 400, True, False

        def outputs(self, waveforms, text=None):
            found = self.inner.outputs(waveforms, text)
            return Outputs(found.probabilities + self.by, found.ratings)

    exact = Bundle(toy)
    assert check_parity(exact, Off(exact, 0.9e-4), seconds=(1.0,))["largest_difference"]["probabilities"] > 0
    for wrong in (1.2e-4, np.nan):
        with pytest.raises(SertoneError) as caught:
            check_parity(exact, Off(exact, wrong), seconds=(1.0,))
        assert caught.value.code == "parity"
    with pytest.raises(SertoneError):
        check_parity(exact, Off(exact, np.nan), seconds=(1.0,), tolerance=np.inf)


def test_nothing_is_written_over_or_left_behind(tmp_path, toy, experiment):
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


def test_classes_of_the_four_are_mapped(bundle):
    said = read_metadata(bundle("prosody")[1])
    assert said["class_map"] == FOUR_CLASSES and said["model"] == {"name": "wan2025", "encoders": "compact"}
    assert json.loads((bundle("prosody")[1] / "bundle.json").read_text())["scores"] == {}
    assert (
        sertone.load(bundle("prosody")[1]).answer_format.names(Bundle(bundle("prosody")[1]))
        == said["classes"]
    )

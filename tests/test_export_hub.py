"""Checkpoints of Hugging Face as bundles: the scores of its own pipeline, and checkpoints that are refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from exported import TOY, save_hub_folder, write_hub_folder
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, Wav2Vec2Model, pipeline

import sertone
from sertone.errors import SertoneError
from sertone.export.bundles import export
from sertone.export.from_huggingface import load_exportable
from sertone.export.heads import AUDEERING_ARCHITECTURE, SpeechClassification
from sertone.runtime.bundle import read_metadata

SUPERB = {"use_weighted_layer_sum": True}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
CHECKPOINTS = {
    "superb": {"config": SUPERB},
    "superb_large": {"config": SUPERB | LARGE},
    "hubert": {"family": "hubert", "config": LARGE, "normalize": True},
    "wavlm": {"family": "wavlm", "config": SUPERB, "normalize": False},
    "data2vec": {"family": "data2vec-audio", "config": SUPERB},
    "unispeech-sat": {"family": "unispeech-sat", "config": {}},
    "last_layer": {"config": LARGE, "labels": ("joy", "gloom")},
}
NAMES = {name: ["neutral", "happy", "angry", "sad"] for name in CHECKPOINTS} | {
    "last_layer": ["happy", "gloom"]
}
DIMENSIONS = ["arousal", "dominance", "valence"]


def write(folder, name):
    values = dict(CHECKPOINTS[name])
    return write_hub_folder(folder, **values.pop("config"), **values)


def write_audeering(folder, **changes):
    """Write a checkpoint like audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim, at toy width."""
    config = AutoConfig.for_model(
        "wav2vec2",
        **TOY,
        **LARGE,
        id2label=dict(enumerate(DIMENSIONS)),
        architectures=[AUDEERING_ARCHITECTURE],
        problem_type="regression",
        pooling_mode="mean",
    )
    config.update(changes)
    torch.manual_seed(1)
    save_hub_folder(folder, SpeechClassification(config))
    values = json.loads((folder / "config.json").read_text()) | {"architectures": [AUDEERING_ARCHITECTURE]}
    (folder / "config.json").write_text(json.dumps(values))
    return folder


@pytest.fixture
def clips(speech):
    draw = np.random.default_rng(0)
    noises = [(str(n), 0.1 * draw.standard_normal(n).astype(np.float32)) for n in (3200, 12345, 50001)]
    return [*speech(every=80), *noises]


@pytest.mark.parametrize(
    "name",
    [n if n == "superb_large" else pytest.param(n, marks=pytest.mark.slow) for n in CHECKPOINTS],
)
def test_a_bundle_gives_the_scores_of_the_pipeline(tmp_path, name, clips):
    folder = write(tmp_path / "folder", name)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    metadata = export(f"hf:{folder}", tmp_path / "bundle")
    assert (
        metadata["classes"] == NAMES[name] and max(metadata["parity"]["largest_difference"].values()) <= 1e-4
    )
    assert [(e["what"], e["of"], e["id"]) for e in metadata["licences"]] == [
        ("model", "folder", "apache-2.0")
    ]
    theirs = pipeline("audio-classification", model=str(folder), top_k=None)
    theirs.model.config.tie_last_hidden_states = True  # as before transformers 5
    labels = json.loads((folder / "config.json").read_text())["id2label"].values()
    ours, spread = sertone.load(tmp_path / "bundle", any_sound=True), []
    for _, samples in clips:
        scores = {
            found["label"]: found["score"] for found in theirs({"raw": samples, "sampling_rate": 16000})
        }
        answer = ours.predict(samples, 16000)
        expected = [scores[label] for label in labels]
        assert np.abs(np.asarray(expected) - list(answer.probabilities.values())).max() <= 1e-4
        spread.append(expected)
    assert np.std(spread, axis=0).max() > 1e-3


def by_hand(folder, samples):
    """Run audEERING's published forward pass: normalised waveform, mean of the last layer, dense, tanh, out_proj."""
    weights = load_file(folder / "model.safetensors")
    encoder = Wav2Vec2Model.from_pretrained(folder).eval()
    waveform = torch.from_numpy((samples - samples.mean()) / np.sqrt(samples.var() + 1e-7))[None]
    with torch.no_grad():
        mean = encoder(waveform)[0].mean(1)
        hidden = torch.tanh(mean @ weights["classifier.dense.weight"].T + weights["classifier.dense.bias"])
        return hidden @ weights["classifier.out_proj.weight"].T + weights["classifier.out_proj.bias"]


def test_audeerings_dimensions(tmp_path, clips):
    folder = write_audeering(tmp_path / "folder")
    metadata = export(f"hf:{folder}", tmp_path / "bundle")
    assert metadata["classes"] == [] and list(metadata["scales"]) == DIMENSIONS
    assert all((scale["low"], scale["high"]) == (0.0, 1.0) for scale in metadata["scales"].values())
    ours, found = sertone.load(tmp_path / "bundle", any_sound=True), []
    for _, samples in clips:
        answer = ours.predict(samples, 16000)
        assert answer.label is None and list(answer.dimensions) == DIMENSIONS
        found.append(list(answer.dimensions.values()))
        assert np.abs(by_hand(folder, samples)[0].numpy() - found[-1]).max() <= 1e-4
    assert np.std(found, axis=0).max() > 1e-3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("hub") / "folder", "superb")


def config(**changes):
    def change(folder):
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(values | changes))

    return change


def weights(edit):
    def change(folder):
        tensors = load_file(folder / "model.safetensors")
        edit(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def pickled(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


LAYER = "wav2vec2.encoder.layers.1.attention.k_proj.weight"
RATE = {"sampling_rate": 8000}


def rate(folder):
    values = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(values | RATE))


def test_labels_are_ordered_by_number_and_named_as_in_sertone(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    config(id2label={"3": "Anger", "1": "HAPPY", "0": "Neutral", "2": "Sarcastic"})(copy)
    metadata = export(f"hf:{copy}", tmp_path / "bundle")
    assert metadata["classes"] == ["neutral", "happy", "Sarcastic", "angry"]


@pytest.mark.parametrize(
    "damage, code, message",
    [
        (pickled, "pickled_weights", r"pytorch_model\.bin"),
        (cut, "bad_weights", "model.safetensors"),
        (weights(lambda t: t.pop(LAYER)), "missing_weights", "k_proj"),
        (weights(lambda t: t.pop("layer_weights")), "missing_weights", "layer_weights"),
        (weights(lambda t: t[LAYER].fill_(np.nan)), "bad_weights", "not finite"),
        (weights(lambda t: t.pop("classifier.weight")), "missing_weights", "no classifier"),
        (config(id2label={"0": "neu", "1": "hap", "2": "ang"}), "label_map", "4 outputs"),
        (config(id2label={"0": "hap", "1": "happy", "2": "ang", "3": "sad"}), "label_map", "no two the same"),
        (config(architectures=["Wav2Vec2ForCTC"]), "unknown_head", "ForCTC"),
        (config(problem_type="multi_label_classification"), "unknown_head", "multi_label"),
        (config(model_type="whisper"), "unknown_encoder", "whisper"),
        (lambda folder: (folder / "config.json").unlink(), "missing_encoder", "config.json"),
        (
            lambda folder: (folder / "preprocessor_config.json").unlink(),
            "missing_preprocessor",
            "preprocessor",
        ),
        (rate, "other_rate", "8000 Hz"),
    ],
)
def test_damaged_checkpoints_are_refused(folder, tmp_path, damage, code, message):
    copy = shutil.copytree(folder, tmp_path / "copy")
    damage(copy)
    with pytest.raises(SertoneError, match=message) as caught:
        export(f"hf:{copy}", tmp_path / "bundle")
    assert caught.value.code == code and not (tmp_path / "bundle").exists()


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(SertoneError) as caught:
        load_exportable(str(tmp_path / "none"))
    assert caught.value.code == "missing_encoder"


def test_a_checkpoint_that_names_code_is_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "evil.py").write_text("raise SystemExit('run')\n")
    config(auto_map={"AutoConfig": "evil.Config", "AutoModelForAudioClassification": "evil.Model"})(copy)
    with pytest.raises(SertoneError, match=r"config\.json names code to run \(auto_map\)") as caught:
        load_exportable(str(copy))
    assert caught.value.code == "remote_code"


def test_another_pooling_is_refused(tmp_path):
    folder = write_audeering(tmp_path / "folder", pooling_mode="max")
    with pytest.raises(SertoneError, match="pooling max") as caught:
        load_exportable(str(folder))
    assert caught.value.code == "unknown_head"


def test_from_the_command_line_in_int8(folder, tmp_path, small_demo, capsys):
    """Export in int8, compare on a corpus, and describe the bundle."""
    from sertone.cli.common import app

    call = [
        "export",
        f"hf:{folder}",
        str(tmp_path / "int8"),
        "--int8",
        "--on",
        "demo",
        str(small_demo),
        "--force",
    ]
    assert app(call, exit_on_error=False) == 0
    assert "of the labels are those of fp32; ua " in capsys.readouterr().out
    metadata = read_metadata(tmp_path / "int8")
    assert metadata["precision"] == "int8" and metadata["measured"]["utterances"] == 40
    assert metadata["measured"]["equal_labels"] > 0.9 and set(metadata["measured"]["scores"]) == {"ua"}
    card = (tmp_path / "int8" / "README.md").read_text()
    assert "int8 against fp32: 40 recordings" in card and "library_name: sertone" in card
    assert app(["info", str(tmp_path / "int8")], exit_on_error=False) == 0
    text = capsys.readouterr().out
    assert "int8" in text and "neutral, happy, angry, sad" in text and "points on 40 recordings" in text
    with pytest.raises(SertoneError) as caught:
        app(["export", f"hf:{folder}", str(tmp_path / "x"), "--int8", "--bf16"], exit_on_error=False)
    assert caught.value.code == "two_precisions"

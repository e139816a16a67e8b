"""emotion2vec: hidden states are those of FunASR's class, and nothing but tensors is read from a file.

`write_emotion2vec.py` wrote the miniature and its hidden states.
"""

import argparse
import math
import os
import pickle
import shutil
from collections import defaultdict
from pathlib import Path

import pytest
import torch
import yaml
from conftest import code_of, padded
from safetensors.torch import load_file

from sertone.errors import SertoneError
from sertone.nn.encoders.emotion2vec import Emotion2vecArchitectureConfig, compute_slopes
from sertone.nn.encoders.emotion2vec_file import Emotion2vecConfig
from sertone.nn.encoders.huggingface import PretrainedEncoderConfig
from sertone.nn.encoders.saved import build_from_description
from sertone.nn.tensor_files import load_pickled_tensors

MINIATURE = Path(__file__).parent / "emotion2vec"


@pytest.fixture
def folder(tmp_path):
    """As the hub serves a model: the weights under `model` in a pickle, beside settings that are objects."""
    shutil.copy(MINIATURE / "config.yaml", tmp_path)
    content = {"model": load_file(MINIATURE / "weights.safetensors")}
    torch.save(content | {"args": argparse.Namespace(arch="data2vec_multi")}, tmp_path / "model.pt")
    return tmp_path


@pytest.fixture
def encoder(folder):
    return Emotion2vecConfig(source=str(folder)).build().eval()


def rewrite(folder, change):
    """Change the weights of a miniature: `change` gets the dictionary of tensors."""
    content = {"model": dict(load_pickled_tensors(folder / "model.pt"))}
    change(content["model"])
    torch.save(content, folder / "model.pt")


@torch.no_grad()
@pytest.mark.parametrize("name", ["model.pt", "emotion2vec_base.pt"])
def test_hidden_states_are_those_of_the_published_class(folder, name):
    """The base model has a file name of its own on the hub."""
    (folder / "model.pt").rename(folder / name)
    encoder = Emotion2vecConfig(source=str(folder)).build().eval()
    expected = load_file(MINIATURE / "states.safetensors")
    hidden, frames = encoder(*padded([expected["waveform"]]))
    assert hidden.shape == (1, 5, 27, 24) and frames.tolist() == [27]
    for mine, theirs in zip(hidden[0, 1:], expected["hidden"], strict=True):
        assert (mine - theirs).abs().max() < 1e-5 * theirs.abs().max()


def test_the_sizes_come_from_the_shapes(encoder):
    assert encoder.config == Emotion2vecArchitectureConfig(
        width=24, depth=4, heads=6, feed_forward=48, channels=8, position_layers=3, position_kernel=5,
        position_groups=4, extra_tokens=3,
    )  # fmt: skip


def test_what_is_left_out_is_named(encoder):
    assert "6 of its weights are not used: those of decoder, proj" in encoder.unused


def test_the_base_model_has_its_published_size():
    """93.2 M: the published 93.8 M without the decoder of the pretraining."""
    front = (10 + 4 * 512 * 3 + 2 * 512 * 2 + 7 * 2) * 512
    projection = 2 * 512 + (512 + 1) * 768
    positions = 5 * (768 // 16 * 19 + 1) * 768
    tokens_scales_and_norm = 10 * 768 + 12 + 2 * 768
    layer = (4 * 768 + 4) * 768 + (768 + 1) * 3072 + (3072 + 1) * 768 + 2 * 2 * 768
    expected = front + projection + positions + tokens_scales_and_norm + 12 * layer
    encoder = Emotion2vecArchitectureConfig().build()
    assert sum(p.numel() for p in encoder.parameters()) == expected == 93_171_212


@pytest.mark.parametrize(
    ("sizes", "problem"),
    [
        ({"heads": 5}, "width 768 is no multiple of heads 5"),
        ({"position_groups": 5}, "width 768 is no multiple of position_groups 5"),
        ({"conv_kernel": [10, 3]}, "2 conv_kernel and 7 conv_stride"),
        ({"conv_stride": [5, 2, 2, 2, 2, 2, 0]}, "greater than or equal to 1"),
        ({"conv_kernel": [], "conv_stride": []}, "at least 1 item"),
    ],
)
def test_sizes_that_do_not_fit_each_other_are_refused(sizes, problem):
    with pytest.raises(SertoneError, match=problem) as caught:
        build_from_description({"name": "emotion2vec_architecture"} | sizes)
    assert caught.value.code == "bad_weights"


def test_slopes_of_the_attention_bias():
    """Those of the paper for eight heads (1/2, 1/4, ... 1/256), and of its rule for twelve."""
    eight = [2.0**-k for k in range(1, 9)]
    assert compute_slopes(8) == pytest.approx(eight)
    between = [2.0 ** -(k + 0.5) for k in range(4)]
    assert compute_slopes(12) == pytest.approx(eight + between)


@torch.no_grad()
def test_a_hidden_state_by_the_formula_of_the_paper(encoder):
    """Layer 1 from hidden state 0 with explicit loops over heads."""
    waveform = load_file(MINIATURE / "states.safetensors")["waveform"]
    features = encoder.front(*padded([waveform]))
    mask = torch.ones(1, 27, dtype=torch.bool)
    inputs = encoder.embed(features[0], mask)[0]  # 3 tokens and 27 frames
    layer = encoder.layers[0]
    outputs = []
    for head in range(6):
        rows = [part * 24 + head * 4 + torch.arange(4) for part in range(3)]
        query, key, value = (inputs @ layer.qkv.weight[r].T + layer.qkv.bias[r] for r in rows)
        scores = query @ key.T / math.sqrt(4)
        slope = compute_slopes(6)[head] * max(0.0, float(encoder.bias.scale[head]))
        for i in range(3, 30):
            for j in range(3, 30):
                scores[i, j] -= slope * abs(i - j)
        outputs.append(scores.softmax(1) @ value)
    hidden = layer.norm1(inputs + layer.proj(torch.cat(outputs, 1)))
    expected = layer.norm2(hidden + layer.fc2(torch.nn.functional.gelu(layer.fc1(hidden))))
    actual = encoder.layer(1, inputs[None], encoder.context(torch.ones(1, 30, dtype=torch.bool)))
    torch.testing.assert_close(actual[0], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_first_models_have_no_prefix(folder, encoder):
    rewrite(folder, lambda w: [w.__setitem__(n.removeprefix("d2v_model."), w.pop(n)) for n in list(w)])
    other = Emotion2vecConfig(source=str(folder)).build()
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), encoder.parameters(), strict=True))


def test_a_file_without_one_weight_is_refused(folder):
    rewrite(folder, lambda w: w.pop("d2v_model.blocks.1.mlp.fc1.bias"))
    with pytest.raises(SertoneError, match=r"lacks 1 weights: layers\.3\.fc1\.bias") as caught:
        Emotion2vecConfig(source=str(folder)).build()
    assert caught.value.code == "missing_weights"


def test_a_file_of_another_model_is_refused(folder):
    torch.save({"model": {"encoder.weight": torch.zeros(3)}}, folder / "model.pt")
    with pytest.raises(SertoneError, match=r"there is no blocks\.0\.mlp\.fc2\.weight") as caught:
        Emotion2vecConfig(source=str(folder)).build()
    assert caught.value.code == "unknown_encoder"


@pytest.mark.parametrize(
    ("name", "shape", "problem"),
    [
        ("extra_tokens", (24,), r"extra_tokens has the shape \[24\], which no published model has"),
        ("local_encoder.conv_layers.7.0.weight", (8, 8, 2), "8 conv_kernel and 7 conv_stride"),
    ],
)
def test_other_shapes_are_named(folder, name, shape, problem):
    rewrite(folder, lambda w: w.update({f"d2v_model.modality_encoders.AUDIO.{name}": torch.ones(shape)}))
    with pytest.raises(SertoneError, match=problem) as caught:
        Emotion2vecConfig(source=str(folder)).build()
    assert caught.value.code == "unknown_encoder"


def test_a_scale_for_each_layer_is_refused(folder):
    """The authors' code can learn one; no published model has it, and this encoder does not."""
    key = "d2v_model.modality_encoders.AUDIO.alibi_scale"
    rewrite(folder, lambda w: w.update({key: torch.ones(4, 1, 6, 1, 1)}))
    with pytest.raises(SertoneError, match=r"bias\.scale") as caught:
        Emotion2vecConfig(source=str(folder)).build()
    assert caught.value.code == "bad_weights"


@pytest.mark.parametrize("change", [{"layer_norm_first": True}, {"normalize": False}, {"normalize": None}])
def test_a_configuration_that_changes_the_computation_is_refused(folder, change):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["model_conf"] |= change
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SertoneError, match="as all published models") as caught:
        Emotion2vecConfig(source=str(folder)).build()
    assert caught.value.code == "unknown_encoder"


@pytest.mark.parametrize("text", ["", "model_conf: 3", "model_conf: [", "- 1"])
def test_a_damaged_configuration_is_refused(folder, text):
    (folder / "config.yaml").write_text(text)
    with pytest.raises(SertoneError, match=r"config\.yaml cannot be read"):
        Emotion2vecConfig(source=str(folder)).build()


def test_half_a_file_is_refused(folder):
    content = (folder / "model.pt").read_bytes()
    (folder / "model.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(SertoneError, match="an intact file") as caught:
        Emotion2vecConfig(source=str(folder)).build()
    assert caught.value.code == "bad_weights"


def test_the_error_about_a_folder_of_the_other_family_names_the_setting(folder, tiny_encoder):
    for config, source, name in (
        (Emotion2vecConfig, tiny_encoder(), "pretrained"),
        (PretrainedEncoderConfig, folder, "emotion2vec"),
    ):
        with pytest.raises(SertoneError) as caught:
            config(source=str(source)).build()
        assert caught.value.code == "missing_encoder"
        assert f"set model.encoder.name: {name}" in caught.value.way_out


class Runs:
    """Runs a function when it is unpickled."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


@pytest.fixture
def pickled(tmp_path):
    """Return pickled(item): a file of weights with another object beside them."""

    def write(item):
        torch.save({"model": {"weight": torch.ones(2)}, "cfg": item}, tmp_path / "m.pt")
        return tmp_path / "m.pt"

    return write


@pytest.mark.parametrize(
    ("function", "is_left_out"),
    [
        (os.system, False),  # its module is posix, which torch refuses
        (Path.touch, False),  # the call of a method that another call looks up
        (exec, True),
        (pickle.loads, True),
    ],
)
def test_no_code_of_a_pickle_runs(pickled, tmp_path, function, is_left_out):
    witness = tmp_path / "witness"
    arguments = {
        os.system: f"touch {witness}",
        Path.touch: witness,
        exec: f"open({str(witness)!r}, 'w')",
        pickle.loads: pickle.dumps(Runs(os.system, f"touch {witness}")),
    }
    path = pickled(Runs(function, arguments[function]))
    if is_left_out:
        assert torch.equal(load_pickled_tensors(path)["weight"], torch.ones(2))
    else:
        assert code_of(load_pickled_tensors, path) == "bad_weights"
    assert not witness.exists()


def test_objects_that_cannot_be_left_out_are_refused_without_advice_to_load_them(pickled):
    """torch puts items into a dictionary of three types only, and tells how to load all others."""
    with pytest.raises(SertoneError, match="holds objects that are no tensors") as caught:
        load_pickled_tensors(pickled(defaultdict(list, a=[1])))
    assert caught.value.code == "bad_weights" and "weights_only" not in str(caught.value)
    assert "save its weights alone" in caught.value.way_out

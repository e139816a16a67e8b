"""Folders of pretrained encoders: strict loading, what is left out, and what is refused."""

import json
import math

import pytest
import torch
from conftest import TINY_MODEL, clips, padded, write_encoder
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForAudioClassification, Wav2Vec2FeatureExtractor
from transformers.utils import logging

from sertone.errors import SertoneError
from sertone.nn.encoders.huggingface import FAMILIES, PretrainedEncoderConfig, TinyEncoderConfig
from sertone.nn.encoders.saved import save_encoder
from sertone.nn.pretrained import load_weights
from sertone.training.experiment.experiment import prepare
from sertone.training.fit.progress import RunProgress
from sertone.training.runs.folds import prepare_data


def test_loading_prints_nothing_and_unused_weights_are_one_line_of_ours(tmp_path, demo_recipe, capfd):
    """A checkpoint with a head and a vector for masked frames, which an encoder does not use."""
    config = TinyEncoderConfig(family="hubert").build().config
    config.update({"mask_time_prob": 0.05})
    AutoModelForAudioClassification.from_config(config).save_pretrained(tmp_path / "tiny")
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path / "tiny")
    source, bars = {"name": "pretrained", "source": str(tmp_path / "tiny")}, logging.is_progress_bar_enabled()
    capfd.readouterr()
    encoder = PretrainedEncoderConfig(source=source["source"]).build()
    assert capfd.readouterr() == ("", "") and logging.is_progress_bar_enabled() == bars
    assert encoder.unused == (
        f"{tmp_path / 'tiny'}: 5 of its weights are not used: "
        "classifier.bias, classifier.weight, hubert.masked_spec_embed, ..."
    )
    experiment = prepare(demo_recipe(TINY_MODEL | {"encoder": source}))
    with RunProgress(2) as progress:
        for _ in range(2):
            prepare_data(experiment, progress)
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if "tiny" in line or "oad" in line or "UNEXPECTED" in line]
    assert out == "" and lines == [encoder.unused]
    save_encoder(encoder, tmp_path)
    assert capfd.readouterr() == ("", "")
    assert PretrainedEncoderConfig(source=str(tmp_path)).build().unused == ""


def change_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def load(folder, **options):
    with pytest.raises(SertoneError) as caught:
        PretrainedEncoderConfig(source=str(folder), **options).build()
    return caught.value


def test_a_missing_weight_is_an_error_that_names_it(tiny_encoder):
    folder = tiny_encoder()
    weights = load_file(folder / "model.safetensors")
    gone = "encoder.layers.1.attention.k_proj.weight"
    del weights[gone]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    error = load(folder)
    assert error.code == "missing_weights" and gone in str(error)


def test_damaged_weights_are_errors(tiny_encoder):
    folder = tiny_encoder("hubert")
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert load(folder).code == "bad_weights"
    weights = tiny_encoder("hubert") / "model.safetensors"
    tensors = load_file(weights)
    name = "encoder.layers.0.attention.k_proj.weight"
    save_file(tensors | {name: tensors[name] * math.nan}, path, {"format": "pt"})
    assert load(folder).code == "bad_weights"
    save_file(tensors | {name: tensors[name][:3].clone()}, path, {"format": "pt"})
    error = load(folder)
    assert error.code == "bad_weights" and f"{name} has the shape [3, 32], and [32, 32]" in str(error)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_configuration_of_fewer_layers_than_the_weights_is_refused(tiny_encoder, family):
    folder = tiny_encoder(family)
    change_json(folder / "config.json", **{FAMILIES[family].depth_key: 1})
    error = load(folder)
    assert error.code == "bad_weights"
    assert "layers.1." in str(error) and "is beyond the layers of config.json" in str(error)


@pytest.mark.parametrize("kind", [AutoModel, AutoModelForAudioClassification])
def test_so_is_one_beside_weights_with_the_name_of_the_model(tmp_path, kind):
    config = TinyEncoderConfig(family="hubert").build().config
    AutoModelForAudioClassification.from_config(config).save_pretrained(tmp_path)
    config.num_hidden_layers = 1
    with pytest.raises(SertoneError, match=r"hubert\.encoder\.layers\.1\..* is beyond the layers"):
        load_weights(str(tmp_path), config, kind=kind)


@pytest.mark.parametrize("family", ["wav2vec2", "wav2vec2-bert"])
def test_an_adapter_behind_the_encoder_is_named_as_not_used(tmp_path, family):
    write_encoder(tmp_path, family, add_adapter=True)
    encoder = PretrainedEncoderConfig(source=str(tmp_path)).build()
    assert "of its weights are not used: adapter." in encoder.unused
    save_encoder(encoder, tmp_path)
    assert PretrainedEncoderConfig(source=str(tmp_path)).build().unused == ""


def test_the_mask_vector_of_unispeech_sat_is_kept(tiny_encoder, tmp_path):
    folder = tiny_encoder("unispeech-sat")
    vector = PretrainedEncoderConfig(source=str(folder), mask_time_prob=0.1).build().masking.vector
    save_encoder(PretrainedEncoderConfig(source=str(folder)).build(), tmp_path)
    again = PretrainedEncoderConfig(source=str(tmp_path), mask_time_prob=0.1).build()
    assert torch.equal(again.masking.vector, vector)


def test_the_rate_is_checked_also_where_the_recipe_says_how_to_normalise(tiny_encoder):
    folder = tiny_encoder()
    change_json(folder / "preprocessor_config.json", sampling_rate=8000)
    for options in ({}, {"normalize": True}):
        error = load(folder, **options)
        assert error.code == "other_rate" and "8000 Hz" in str(error)


def test_what_is_no_encoder(tmp_path, tiny_encoder):
    error = load(tmp_path / "nowhere")
    assert error.code == "missing_encoder" and "folder" in str(error)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    error = load(tmp_path)
    assert error.code == "unknown_encoder" and error.way_out
    folder = tiny_encoder()
    (folder / "preprocessor_config.json").unlink()
    assert load(folder).code == "missing_preprocessor"
    assert PretrainedEncoderConfig(source=str(folder), normalize=True).build().normalize


class _Pickled:
    def __reduce__(self):
        return print, ("code from a model file was run",)


def test_pickled_code_is_not_run(tiny_encoder, capsys):
    folder = tiny_encoder()
    (folder / "model.safetensors").unlink()
    torch.save({"weight": _Pickled()}, folder / "pytorch_model.bin")
    error = load(folder)
    assert error.code == "bad_weights" and "weights_only" not in str(error), "no advice to run it"
    assert "was run" not in capsys.readouterr().out


@torch.no_grad()
def test_padding_stays_out_whatever_attention_a_folder_asks_for(tiny_encoder):
    folder = tiny_encoder("hubert")
    change_json(folder / "config.json", attn_implementation="eager")
    ours = PretrainedEncoderConfig(source=str(folder)).build().eval()
    waveforms = clips(16000, 5000)
    together, frames = ours(*padded(waveforms))
    alone, _ = ours(*padded(waveforms[1:]))
    torch.testing.assert_close(together[1, :, : frames[1]], alone[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_as_old_hub_files_hold_them(tiny_encoder, family):
    """A pickled state dict of a model with a head, and weight norm under its old names."""
    folder = tiny_encoder(family)
    waveform = clips(9000)
    expected = PretrainedEncoderConfig(source=str(folder)).build().eval()(*padded(waveform))[0]
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    renamed, prefix = {}, AutoModel.from_pretrained(folder).base_model_prefix
    for name, tensor in load_file(folder / "model.safetensors").items():
        for new, before in old.items():
            name = name.replace(new, before)
        renamed[f"{prefix}.{name}"] = tensor
    (folder / "model.safetensors").unlink()
    torch.save(renamed | {"lm_head.weight": torch.zeros(3, 32)}, folder / "pytorch_model.bin")
    actual = PretrainedEncoderConfig(source=str(folder)).build().eval()(*padded(waveform))[0]
    assert torch.equal(actual, expected)

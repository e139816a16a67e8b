"""Encoders: padding changes nothing, hidden states are Hugging Face's, cuts are exact, weights complete."""

import json
import math

import pytest
import torch
from conftest import TINY_MODEL, clips, load_hugging_face, padded
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForAudioClassification,
    Wav2Vec2FeatureExtractor,
)
from transformers.utils import logging

from sertone import models
from sertone.errors import SertoneError
from sertone.labels import FOUR_CLASSES
from sertone.nn.batch import Batch
from sertone.nn.encoders.compact import BLOCKS, CompactEncoderConfig
from sertone.nn.encoders.emotion2vec import Emotion2vecArchitectureConfig
from sertone.nn.encoders.frontend import FrontEnd, track_pitch
from sertone.nn.encoders.functionals import FunctionalsEncoderConfig
from sertone.nn.encoders.huggingface import (
    FAMILIES,
    ArchitectureConfig,
    PretrainedEncoderConfig,
    TinyEncoderConfig,
)
from sertone.nn.encoders.saved import build_from_description, save_encoder
from sertone.nn.encoders.whisper import WhisperEncoder
from sertone.nn.vocabulary import Vocabulary
from sertone.training.experiment.experiment import prepare
from sertone.training.fit.progress import RunProgress
from sertone.training.runs.folds import prepare_data

GROUP_NORM = ("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat", "wav2vec2-conformer", "sew")
KINDS = [(family, "layer") for family in FAMILIES] + [(family, "group") for family in GROUP_NORM]
CONFIGS = {f"{family}_{norm}": TinyEncoderConfig(family=family, norm=norm) for family, norm in KINDS}
SHORT_TABLE = {"model_type": "whisper", "max_source_positions": 40}
SHORT_TABLE |= WhisperEncoder.tiny_options(32, 2, "layer")
CONFIGS["whisper_windows"] = ArchitectureConfig(config=SHORT_TABLE, normalize=False)
for block in BLOCKS:
    for prosody in (False, True):
        name = f"compact_{block}_{'prosody' if prosody else 'mel'}"
        CONFIGS[name] = CompactEncoderConfig(width=16, depth=3, block=block, prosody=prosody)
CONFIGS["emotion2vec"] = Emotion2vecArchitectureConfig(
    width=24, depth=3, heads=6, feed_forward=48, channels=16, position_groups=4
)
CONFIGS["functionals"] = FunctionalsEncoderConfig(bands=32)


@pytest.fixture(params=CONFIGS)
def encoder(request):
    torch.manual_seed(0)
    return CONFIGS[request.param].build().eval()


@torch.no_grad()
def test_a_batch_gives_the_hidden_states_of_each_clip_alone(encoder):
    waveforms = clips(16000, encoder.min_samples, 41611, 5003)
    hidden, frames = encoder(*padded(waveforms))
    assert hidden.shape == (4, encoder.depth + 1, int(frames.max()), encoder.width)
    assert int(frames[1]) >= 1
    for row, waveform in enumerate(waveforms):
        alone, (count,) = encoder(*padded([waveform]))
        assert count == frames[row] == alone.shape[2]
        scale = alone.abs().max()
        assert (hidden[row, :, :count] - alone[0]).abs().max() / scale < 1e-5
        assert not hidden[row, :, count:].any()


@torch.no_grad()
def test_silence_beyond_the_batch_changes_nothing(encoder):
    waveforms, lengths = padded(clips(9000, 12345))
    longer = torch.nn.functional.pad(waveforms, (0, 7777))
    before, _ = encoder(waveforms, lengths)
    after, _ = encoder(longer, lengths)
    torch.testing.assert_close(after[:, :, : before.shape[2]], before, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_every_cut_gives_the_same_hidden_states(encoder):
    inputs = padded(clips(16000, 7000))
    expected, _ = encoder(*inputs)
    for cut in range(-1, encoder.depth + 1):
        encoder.freeze(cut)
        prefix = encoder.prefix(*inputs)
        assert prefix.layers == (tuple(range(cut + 1)) if cut > 0 else ())
        torch.testing.assert_close(encoder.suffix(prefix)[0], expected, atol=1e-5, rtol=1e-5)


def test_the_frozen_prefix_is_deterministic_and_not_trained(encoder):
    inputs = padded(clips(16000, 7000))
    cut = min(1, encoder.depth - 1)
    encoder.freeze(cut)
    encoder.train()
    before = {name: p.clone() for name, p in encoder.named_parameters()}
    first, second = encoder.prefix(*inputs), encoder.prefix(*inputs)
    assert torch.equal(first.states, second.states) and not first.states.requires_grad
    optimizer = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], 0.1)
    encoder.suffix(first)[0].square().sum().backward()
    optimizer.step()
    frozen = {id(p) for part in encoder.parts()[: cut + 1] for m in part for p in m.parameters()}
    changed = {n for n, p in encoder.named_parameters() if not torch.equal(p, before[n])}
    assert changed and not changed & {n for n, p in encoder.named_parameters() if id(p) in frozen}
    trained = {n for n, p in encoder.named_parameters() if id(p) not in frozen}
    assert {n.split(".")[0] for n in trained} >= {n.split(".")[0] for n in changed}


def test_parts_hold_every_parameter_once(encoder):
    listed = [id(p) for part in encoder.parts() for module in part for p in module.parameters()]
    assert sorted(listed) == sorted(id(p) for p in encoder.parameters())
    assert len(encoder.parts()) == encoder.depth + 1


def test_a_cut_beyond_the_last_layer_is_an_error(encoder):
    with pytest.raises(SertoneError, match=f"from 0 .* to {encoder.depth}"):
        encoder.freeze(encoder.depth + 1)


def test_a_description_builds_the_same_architecture(encoder):
    from pydantic import TypeAdapter

    from sertone.nn.encoders.config import EncoderConfig

    described = json.loads(json.dumps(encoder.describe()))
    again = TypeAdapter(EncoderConfig).validate_python(described).build().eval()
    again.load_state_dict(encoder.state_dict())
    inputs = padded(clips(8000))
    assert torch.equal(again(*inputs)[0], encoder(*inputs)[0])


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


@torch.no_grad()
@pytest.mark.parametrize(("family", "norm"), KINDS)
def test_hidden_states_are_those_of_hugging_face(tiny_encoder, family, norm):
    folder = tiny_encoder(family, norm)
    ours = PretrainedEncoderConfig(source=str(folder)).build().eval()
    (waveform,) = clips(16000)
    theirs, inputs = load_hugging_face(folder, waveform)
    expected = theirs(inputs, output_hidden_states=True)
    hidden, _ = ours(waveform[None], torch.tensor([16000]))
    for layer, state in enumerate(expected.hidden_states[:-1]):
        torch.testing.assert_close(hidden[:, layer], state, atol=1e-4, rtol=1e-4)
    last = expected.last_hidden_state[:, : hidden.shape[2]]  # SEW adds zeros to the length before its squeeze
    torch.testing.assert_close(hidden[:, -1], last, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("family", ["wav2vec2-conformer", "wav2vec2-bert"])
@pytest.mark.parametrize("positions", ["relative", "rotary", None])
def test_positions_of_every_kind_are_those_of_hugging_face(tmp_path, family, positions):
    """As in the two published wav2vec 2.0 Conformers, and without any."""
    torch.manual_seed(0)
    options = FAMILIES[family].tiny_options(32, 2, "layer") | {"position_embeddings_type": positions}
    model = AutoModel.from_config(AutoConfig.for_model(family, **options))
    for name, parameter in model.named_parameters():
        if "pos_bias" in name:  # zeros at first
            parameter.copy_(torch.randn(parameter.shape))
    model.save_pretrained(tmp_path)
    FAMILIES[family](model, normalize=True).make_extractor().save_pretrained(tmp_path)
    (waveform,) = clips(16000)
    theirs, inputs = load_hugging_face(tmp_path, waveform)
    hidden, _ = PretrainedEncoderConfig(source=str(tmp_path)).build().eval()(*padded([waveform]))
    torch.testing.assert_close(hidden[:, -1], theirs(inputs).last_hidden_state, atol=1e-4, rtol=1e-4)


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
    assert load(folder).code == "bad_weights"


@pytest.mark.parametrize("family", FAMILIES)
def test_everything_that_is_trained_has_a_gradient(family):
    """Several processes would wait for the gradient of a module that is not run."""
    encoder = TinyEncoderConfig(family=family).build()
    for cut in (-1, 0, 1):
        encoder.zero_grad()
        encoder.freeze(cut)
        encoder.train()
        encoder(*padded(clips(16000)))[0].square().sum().backward()
        trained = {name for name, p in encoder.named_parameters() if p.requires_grad}
        assert trained == {name for name, p in encoder.named_parameters() if p.grad is not None}, cut


@pytest.mark.parametrize("family", ["wav2vec2", "wav2vec2-bert"])
def test_an_adapter_behind_the_encoder_is_named_as_not_used(tmp_path, family):
    options = FAMILIES[family].tiny_options(32, 2, "layer") | {"add_adapter": True}
    model = AutoModel.from_config(AutoConfig.for_model(family, **options))
    model.save_pretrained(tmp_path)
    FAMILIES[family](model, normalize=False).make_extractor().save_pretrained(tmp_path)
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


@torch.no_grad()
def test_sew_without_a_last_odd_frame_is_sew_of_the_clip_without_it():
    """51 and 50 frames of the convolutions: the last one has no second to be squeezed with."""
    torch.manual_seed(0)
    encoder = TinyEncoderConfig(family="sew", norm="layer").build().eval()
    encoder.normalize = False  # the mean of the waveform would depend on its last samples
    (waveform,) = clips(16320)
    longer, frames = encoder(*padded([waveform]))
    shorter, _ = encoder(*padded([waveform[:16000]]))
    assert frames.tolist() == [25]
    torch.testing.assert_close(longer, shorter, atol=1e-5, rtol=1e-5)


def test_the_rate_is_checked_also_where_the_recipe_says_how_to_normalise(tiny_encoder):
    folder = tiny_encoder()
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sampling_rate": 8000}))
    for options in ({}, {"normalize": True}):
        error = load(folder, **options)
        assert error.code == "other_rate" and "8000 Hz" in str(error)


def test_a_description_of_another_architecture_is_refused():
    with pytest.raises(SertoneError, match="model_type 'bert' is none of wav2vec2") as caught:
        build_from_description({"name": "architecture", "config": {"model_type": "bert"}, "normalize": True})
    assert caught.value.code == "bad_weights"


def test_what_is_no_encoder(tmp_path, tiny_encoder):
    error = load(tmp_path / "nowhere")
    assert error.code == "missing_encoder" and "folder" in str(error)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert load(tmp_path).code == "unknown_encoder"
    folder = tiny_encoder()
    (folder / "preprocessor_config.json").unlink()
    assert load(folder).code == "missing_preprocessor"
    assert PretrainedEncoderConfig(source=str(folder), normalize=True).build().normalize


@pytest.mark.parametrize("hz", [70, 120, 200, 330])
def test_pitch(hz):
    time = torch.arange(32000) / 16000
    harmonics = torch.stack([torch.sin(2 * math.pi * hz * k * time) / k for k in range(1, 6)]).sum(0)
    pitch, voicing = track_pitch(harmonics[None])
    assert pitch.median().item() == pytest.approx(hz, rel=0.01) and voicing.mean() > 0.95
    noise = torch.randn(1, 32000, generator=torch.Generator().manual_seed(0))
    assert track_pitch(noise)[1].mean() < 0.5


def test_loudness_changes_prosody_but_not_log_mel():
    (waveform,) = clips(16000)
    for prosody in (False, True):
        front = FrontEnd(40, prosody)
        quiet, _ = front(waveform[None] * 0.5, torch.tensor([16000]))
        loud, _ = front(waveform[None], torch.tensor([16000]))
        torch.testing.assert_close(quiet[..., :40], loud[..., :40], atol=1e-3, rtol=1e-3)
        if prosody:
            difference = (loud - quiet)[..., 43]  # loudness: a quarter of the natural log of power
            assert difference.mean().item() == pytest.approx(math.log(4) / 4, abs=1e-3)


@pytest.mark.slow
def test_one_step_of_wan2025_at_full_base_size(tmp_path):
    """Random weights, saved as a Hugging Face folder and loaded back through the real path."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    Wav2Vec2Model(Wav2Vec2Config()).save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    options = {"name": "wan2025", "encoder": {"name": "pretrained", "source": str(tmp_path)}}
    vocabulary = Vocabulary(
        FOUR_CLASSES,
        {"emotion": ["a", "b"], "gender": ["f", "m"], "style": ["i", "s"], "speaker": ["x", "y"]},
        list("abc"),
    )
    model = models.build(options, vocabulary).train()
    assert 94e6 < sum(p.numel() for p in model.encoder.parameters()) < 96e6
    stage = model.stages()[1]
    model.encoder.freeze(stage.cut)
    inputs = padded(clips(32000, 20000))
    classes = torch.tensor([0, 1])
    targets = dict.fromkeys(("emotion", "gender", "style", "speaker"), classes)
    targets["asr"] = torch.tensor([[1, 2, 3], [2, 1, 0]])
    outputs = model(Batch(*inputs, targets))
    loss = sum(model.heads[task].loss(outputs[task], targets[task]) for task in stage.weights)
    loss.backward()
    assert loss.isfinite()
    gradients = {n for n, p in model.encoder.named_parameters() if p.grad is not None and p.grad.any()}
    layers = {int(n.split(".")[2]) for n in gradients if n.startswith("transformer.layers")}
    assert layers == set(range(4, 12)) and not any(n.startswith("convolutions") for n in gradients)


def test_tiny_model_is_tiny():
    vocabulary = Vocabulary(
        FOUR_CLASSES, {"emotion": ["a"], "gender": ["f"], "style": ["i"], "speaker": ["x"]}, ["a"]
    )
    assert sum(p.numel() for p in models.build(TINY_MODEL, vocabulary).parameters()) < 30_000


class _Pickled:
    def __reduce__(self):
        return print, ("code from a model file was run",)


def test_pickled_code_is_not_run(tiny_encoder, capsys):
    folder = tiny_encoder()
    (folder / "model.safetensors").unlink()
    torch.save({"weight": _Pickled()}, folder / "pytorch_model.bin")
    assert load(folder).code == "bad_weights"
    assert "was run" not in capsys.readouterr().out


@torch.no_grad()
def test_padding_stays_out_whatever_attention_a_folder_asks_for(tiny_encoder):
    folder = tiny_encoder("hubert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"attn_implementation": "eager"}))
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

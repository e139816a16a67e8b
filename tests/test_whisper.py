"""Whisper at the clip's own length: log-mel energies, positions, windows beyond the table, strict loading."""

import json

import pytest
import torch
from conftest import REAL_WEIGHTS, clips, load_hugging_face, padded
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from sertone.errors import SertoneError
from sertone.nn import kernels
from sertone.nn.encoders.huggingface import PretrainedEncoderConfig
from sertone.nn.encoders.whisper import WhisperEncoder

WHISPER_BASE = REAL_WEIGHTS / "whisper-base-encoder"


def build(positions=40, bands=16, **options):
    """Return a random miniature with a table of so many positions."""
    torch.manual_seed(0)
    options = WhisperEncoder.tiny_options(32, 2, "layer") | {"num_mel_bins": bands} | options
    config = WhisperConfig(**options, max_source_positions=positions)
    config.update({"layerdrop": 0.0, "mask_time_prob": 0.0})
    return WhisperEncoder(WhisperEncoder.get_model_class()(config), normalize=False).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A whole Whisper with its decoder, as the hub serves it."""
    folder = tmp_path_factory.mktemp("whisper")
    torch.manual_seed(0)
    # A decoder of more layers than the encoder, and their names differ in one word only.
    config = WhisperConfig(**WhisperEncoder.tiny_options(32, 2, "layer") | {"decoder_layers": 3})
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=16).save_pretrained(folder)
    return folder


@settings(deadline=None, max_examples=30)
@given(
    samples=st.integers(320, 30_000), bands=st.sampled_from([80, 128]), gain=st.sampled_from([1e-4, 0.1, 1.0])
)
def test_log_mel_energies_are_those_of_the_feature_extractor(samples, bands, gain):
    """Also for sizes of 128 bands, as large-v3 has them, and for clips quieter than the dynamic range."""
    waveform = gain * torch.randn(samples, generator=torch.Generator().manual_seed(samples))
    extractor = WhisperFeatureExtractor(feature_size=bands)
    expected = extractor(
        waveform.numpy(), sampling_rate=16000, padding=False, return_tensors="pt"
    ).input_features
    longer, lengths = torch.nn.functional.pad(waveform, (0, 777))[None], torch.tensor([samples])
    energies = build(bands=bands).front_end.log_mel(longer, lengths)[:, : samples // 160]
    torch.testing.assert_close(energies.transpose(1, 2), expected, atol=2e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.real_weights
@pytest.mark.parametrize("seconds", [3.0, 10.0, 30.0])
def test_the_published_encoder_gives_the_hidden_states_of_hugging_face(seconds):
    """On a full input, and on short clips with a table of positions cut to their length."""
    ours = PretrainedEncoderConfig(source=str(WHISPER_BASE)).build().eval()
    assert (ours.depth, ours.width, ours.unused) == (6, 512, "")
    (waveform,) = clips(round(seconds * 16000))
    theirs, inputs = load_hugging_face(WHISPER_BASE, waveform)
    expected = theirs(inputs, output_hidden_states=True)
    hidden, frames = ours(waveform[None], torch.tensor([len(waveform)]))
    assert frames.tolist() == [round(seconds * 50)]
    for layer, state in enumerate([*expected.hidden_states[:-1], expected.last_hidden_state]):
        assert (hidden[:, layer] - state).abs().max() / state.abs().max() < 1e-4


@torch.no_grad()
def test_the_last_half_frame_is_that_of_the_convolutions_alone():
    """An odd number of log-mel frames: the second convolution sees a zero after the last one."""
    encoder = build()
    (waveform,) = clips(160 * 31)
    hidden, frames = encoder(waveform[None], torch.tensor([len(waveform)]))
    assert frames.tolist() == [16]
    mel = encoder.front_end.log_mel(waveform[None], torch.tensor([len(waveform)])).transpose(1, 2)
    gelu = torch.nn.functional.gelu
    features = gelu(encoder.front_end.conv2(gelu(encoder.front_end.conv1(mel)))).transpose(1, 2)
    torch.testing.assert_close(hidden[:, 0], features + encoder.positions[:16])


@torch.no_grad()
@pytest.mark.parametrize(
    ("frames", "sizes"), [(40, [40]), (41, [21, 20]), (80, [40, 40]), (81, [27, 27, 27])]
)
def test_a_clip_beyond_the_table_is_divided_into_windows_of_equal_length(frames, sizes):
    encoder, mask = build(positions=40), torch.ones(1, frames, dtype=torch.bool)
    seen = encoder.context(mask).get("mask")
    expected = torch.block_diag(*(torch.ones(size, size, dtype=torch.bool) for size in sizes))
    assert torch.equal(torch.ones(frames, frames, dtype=torch.bool) if seen is None else seen[0, 0], expected)
    hidden = encoder.embed(torch.zeros(1, frames, 32), mask)
    assert torch.equal(hidden[0], torch.cat([encoder.positions[:size] for size in sizes]))


@torch.no_grad()
def test_a_window_does_not_depend_on_the_other_windows():
    encoder = build(positions=40)
    (waveform,) = clips(320 * 80)
    changed = waveform.clone()
    changed[320 * 60 :] *= 0.5  # quieter, so that the loudest value of the clip stays
    first, second = (encoder(w[None], torch.tensor([len(w)]))[0] for w in (waveform, changed))
    assert torch.equal(first[:, :, :39], second[:, :, :39])
    assert not torch.allclose(first[:, -1, 41:59], second[:, -1, 41:59])


def test_a_whole_model_is_loaded_without_its_decoder(folder):
    encoder = PretrainedEncoderConfig(source=str(folder)).build()
    assert "of its weights are not used: " in encoder.unused and "decoder" in encoder.unused
    assert not any("decoder" in name for name, _ in encoder.named_parameters())


def test_positions_are_not_trained(folder):
    encoder = PretrainedEncoderConfig(source=str(folder), mask_time_prob=0.5).build()
    encoder.train()
    before = encoder.positions.clone()
    optimizer = torch.optim.SGD(encoder.parameters(), 0.1)
    encoder(*padded(clips(16000)))[0].square().sum().backward()
    optimizer.step()
    assert torch.equal(encoder.positions, before)
    assert "positions" in encoder.state_dict()


def error_of(folder, **options):
    with pytest.raises(SertoneError) as caught:
        PretrainedEncoderConfig(source=str(folder), **options).build()
    return caught.value


@pytest.fixture
def copy(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def change_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("setting", [{"n_fft": 512}, {"hop_length": 80}, {"sampling_rate": 8000}])
def test_another_front_end_is_refused(copy, setting):
    change_json(copy / "preprocessor_config.json", **setting)
    error = error_of(copy)
    (name, value), *_ = setting.items()
    assert error.code == "other_front_end" and f"{name} {value}" in str(error)


def test_without_its_file_the_front_end_is_the_published_one(copy):
    (copy / "preprocessor_config.json").unlink()
    assert not PretrainedEncoderConfig(source=str(copy)).build().normalize


@pytest.mark.parametrize(
    "setting", [{"num_mel_bins": 80}, {"d_model": 64}, {"max_source_positions": 100}, {"encoder_layers": 1}]
)
def test_a_configuration_that_does_not_fit_the_weights_is_refused(copy, setting):
    change_json(copy / "config.json", **setting)
    change_json(copy / "preprocessor_config.json", feature_size=setting.get("num_mel_bins", 16))
    assert error_of(copy).code == "bad_weights"


def test_half_a_file_and_missing_weights_are_refused(copy):
    path = copy / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.encoder.layers.1.fc1.weight"]
    save_file(tensors, path, {"format": "pt"})
    error = error_of(copy)
    assert error.code == "missing_weights" and "layers.1.fc1.weight" in str(error)
    path.write_bytes(path.read_bytes()[:10_000])
    assert error_of(copy).code == "bad_weights"


@pytest.mark.parametrize("kind", ["own", "torch"])
def test_a_short_clip_beside_one_of_several_windows_trains(kind):
    """Padded frames of the short clip lie in windows that hold no real frame."""
    kernels.choose(kind)
    try:
        encoder = build(positions=40, attention_dropout=0.1).train()
        hidden, _ = encoder(*padded(clips(32000, 8000)))
        hidden.square().sum().backward()
    finally:
        kernels.choose("torch")
    assert hidden.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


def test_normalised_waveforms_and_a_damaged_front_end_are_refused(copy):
    assert error_of(copy, normalize=True).code == "other_front_end"
    path = copy / "preprocessor_config.json"
    path.write_text(path.read_text()[:40])
    error = error_of(copy)
    assert error.code == "other_front_end" and "cannot be read" in str(error)


def test_silence_has_finite_hidden_states():
    hidden, _ = build()(torch.zeros(1, 16000), torch.tensor([16000]))
    assert hidden.isfinite().all()

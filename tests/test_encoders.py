"""Encoders: padding changes nothing, hidden states are Hugging Face's, cuts are exact."""

import json
import math

import pytest
import torch
from conftest import SMALL_EMOTION2VEC, TINY_MODEL, clips, load_hugging_face, padded, write_encoder

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
from sertone.nn.encoders.saved import build_from_description
from sertone.nn.encoders.whisper import WhisperEncoder
from sertone.nn.vocabulary import Vocabulary

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
CONFIGS["emotion2vec"] = Emotion2vecArchitectureConfig.model_validate(SMALL_EMOTION2VEC)
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


def require_same_states(folder):
    """Compare the hidden states of a folder with those of Hugging Face."""
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
@pytest.mark.parametrize(("family", "norm"), KINDS)
def test_hidden_states_are_those_of_hugging_face(tiny_encoder, family, norm):
    require_same_states(tiny_encoder(family, norm))


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("wav2vec2-conformer", {"position_embeddings_type": "rotary"}),
        ("wav2vec2-conformer", {"position_embeddings_type": None}),
        ("wav2vec2-bert", {"position_embeddings_type": "relative"}),
        ("wav2vec2-bert", {"position_embeddings_type": "rotary"}),
        ("wav2vec2-bert", {"position_embeddings_type": None}),
        ("wav2vec2", {"adapter_attn_dim": 8}),  # MMS
        ("whisper", {"num_mel_bins": 128}),  # large-v3
    ],
)
def test_hidden_states_of_variants_are_those_of_hugging_face(tmp_path, family, options):
    require_same_states(write_encoder(tmp_path, family, **options))


def test_positions_without_weights_are_refused():
    """Relative keys, which w2v-BERT has; `transformers` builds the model and fails at the first batch."""
    options = FAMILIES["wav2vec2-conformer"].tiny_options(32, 2, "layer")
    options |= {"model_type": "wav2vec2-conformer", "position_embeddings_type": "relative_key"}
    with pytest.raises(SertoneError, match=r"relative_key.*one of relative, rotary, null") as caught:
        ArchitectureConfig(config=options, normalize=False).build()
    assert caught.value.code == "unknown_encoder"


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


def test_a_description_of_another_architecture_is_refused():
    with pytest.raises(SertoneError, match="model_type 'bert' is none of wav2vec2") as caught:
        build_from_description({"name": "architecture", "config": {"model_type": "bert"}, "normalize": True})
    assert caught.value.code == "bad_weights"


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

"""Distillation: the student's first weights, the loss, padding, the audio, and scores of a student."""

import math

import numpy as np
import pytest
import soundfile
import torch
from conftest import SMALL_EMOTION2VEC, clips, load_hugging_face, padded
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import AutoModelForAudioClassification, Wav2Vec2FeatureExtractor

from sertone import corpora
from sertone import recipe as recipes
from sertone.errors import SertoneError
from sertone.nn.batch import Batch
from sertone.nn.distillation import TargetHead, build_student
from sertone.nn.encoders.compact import BLOCKS, CompactEncoderConfig
from sertone.nn.encoders.emotion2vec import Emotion2vecArchitectureConfig
from sertone.nn.encoders.huggingface import FAMILIES, PretrainedEncoderConfig, TinyEncoderConfig
from sertone.nn.encoders.saved import save_encoder
from sertone.nn.masks import frame_mask
from sertone.schema import Utterance
from sertone.training.distill import distill_recipe, unlabelled
from sertone.training.distill.distill import distill, read_result
from sertone.training.distill.distill_recipe import StudentConfig
from sertone.training.distill.student import StudentModel

BASE = {f: TinyEncoderConfig(family=f, depth=3, width=16) for f in FAMILIES}
NORMED = {f"{f}_layer": TinyEncoderConfig(family=f, depth=3, width=16, norm="layer") for f in FAMILIES}
BASE["wav2vec2-bert_layer"] = NORMED.pop("wav2vec2-bert_layer")
BASE["data2vec-audio_layer"] = NORMED.pop("data2vec-audio_layer")
BASE["sew_layer"] = NORMED.pop("sew_layer")
for always_normed in ("whisper", "wav2vec2-conformer"):
    NORMED[always_normed] = BASE.pop(always_normed)
BASE["emotion2vec"] = Emotion2vecArchitectureConfig.model_validate(SMALL_EMOTION2VEC)
NORMED |= {block: CompactEncoderConfig(width=16, depth=3, attention_heads=2, block=block) for block in BLOCKS}


def build_teacher(config):
    """Return a teacher whose norms differ from their first state."""
    torch.manual_seed(0)
    encoder = config.build().eval()
    draw = torch.Generator().manual_seed(1)
    for name, parameter in encoder.named_parameters():
        if "norm" in name:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=draw)
    return encoder


@torch.no_grad()
@pytest.mark.parametrize("name", [*BASE, *NORMED])
def test_a_student_begins_as_the_first_layers_of_its_teacher(name):
    """Where a norm follows the last layer, the last hidden state is the normalised one."""
    teacher = build_teacher((BASE | NORMED)[name])
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    inputs = padded(clips(9000, 6000))
    expected, frames = teacher(*inputs)
    student = build_student(teacher, 2).eval()
    hidden, counted = student(*inputs)
    assert student.depth == 2 and hidden.shape[1] == 3 and torch.equal(frames, counted)
    torch.testing.assert_close(hidden[:, :2], expected[:, :2], atol=1e-6, rtol=1e-6)
    last = expected[:, 2]
    if name in NORMED:
        last = F.layer_norm(last, (16,)) * frame_mask(frames, last.shape[1])[..., None]
    torch.testing.assert_close(hidden[:, 2], last, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())


@torch.no_grad()
@pytest.mark.parametrize("name", [*BASE, *NORMED])
def test_a_student_of_all_layers_is_the_teacher(name):
    teacher = build_teacher((BASE | NORMED)[name])
    inputs = padded(clips(9000))
    assert torch.equal(build_student(teacher, 3).eval()(*inputs)[0], teacher(*inputs)[0])


def test_a_classifiers_encoder_has_a_student(tmp_path):
    """Its configuration numbers the classes, so it has keys that are no text."""
    config = TinyEncoderConfig().build().config
    config.num_labels = 4
    AutoModelForAudioClassification.from_config(config).save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    teacher = PretrainedEncoderConfig(source=str(tmp_path)).build()
    assert 0 in teacher.describe()["config"]["id2label"]
    assert build_student(teacher, 1).depth == 1


def compute_loss_naively(prediction, target, frames, cosine):
    """Compute the loss frame by frame."""
    losses = []
    for row, count in enumerate(frames):
        for p, t in zip(prediction[row][:count], target[row][:count], strict=True):
            similarity = np.dot(p, t) / (np.linalg.norm(p) * np.linalg.norm(t))
            losses.append(np.abs(p - t).mean() + cosine * math.log(1 + math.exp(-similarity)))
    return np.mean(losses)


@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=4),
    st.floats(0, 3),
    st.integers(0, 5),
    st.integers(0, 1000),
)
def test_the_loss_is_the_papers_over_the_real_frames(frames, cosine, more, seed):
    torch.manual_seed(seed)
    head, longest = TargetHead(5, 6, cosine), max(frames) + more
    features, target = torch.randn(len(frames), longest, 5), torch.randn(len(frames), longest, 6)
    output = head(features, torch.tensor(frames))
    expected = compute_loss_naively(
        output.logits.detach().double().numpy(), target.double().numpy(), frames, cosine
    )
    assert head.loss(output, target).item() == pytest.approx(expected, rel=1e-4)


def test_padding_changes_neither_loss_nor_gradient():
    head, frames = TargetHead(4, 4, 1.0), torch.tensor([5, 2])
    features, target = torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    mask = frame_mask(frames, 5)[..., None]
    actual = []
    for fill in (0.0, 7.0):  # zero vectors have no direction
        head.zero_grad()
        padding = torch.where(mask, 0.0, fill)
        loss = head.loss(head(features * mask + padding, frames), target * mask + padding)
        loss.backward()
        actual.append((loss.item(), head.output.weight.grad.clone()))
    assert actual[0][0] == pytest.approx(actual[1][0])
    torch.testing.assert_close(actual[0][1], actual[1][1])


@torch.no_grad()
def test_heads_with_a_hidden_layer_are_one_wide_layer_split_by_target():
    """As s3prl writes it: D -> N D, GELU, then the n-th D of them through the n-th matrix."""
    torch.manual_seed(0)
    heads, features = [TargetHead(6, 5, 1.0, hidden=True) for _ in range(3)], torch.randn(2, 7, 6)
    weight, bias = (torch.cat([getattr(head.inner[0], n) for head in heads]) for n in ("weight", "bias"))
    wide = torch.nn.functional.gelu(features @ weight.T + bias).unflatten(-1, (3, 6))
    split = torch.stack([head.output.weight.T for head in heads])
    expected = torch.einsum("btnd,nde->btne", wide, split) + torch.stack([h.output.bias for h in heads])
    actual = torch.stack([head(features, torch.tensor([7, 7])).logits for head in heads], 2)
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-5)
    assert set(TargetHead(6, 5, 1.0).state_dict()) == {"output.weight", "output.bias"}, "as in older saves"


def test_the_front_end_gets_its_share_of_the_gradient():
    gradients = []
    for factor in (1.0, 0.1):
        torch.manual_seed(0)
        student = TinyEncoderConfig(width=16, depth=1).build()
        model = StudentModel(student, StudentConfig(layers=1, front_gradient=factor), 16, [1, 2], 1.0).eval()
        outputs = model(Batch(*padded(clips(9000, 7000))))
        target = torch.ones_like(outputs["layer_1"].logits)
        sum(model.heads[name].loss(output, target) for name, output in outputs.items()).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert sum("convolutions" in name for name in gradients[0]) > 7
    for name, gradient in gradients[0].items():
        factor = 0.1 if "convolutions" in name else 1.0
        torch.testing.assert_close(gradients[1][name], factor * gradient, atol=0, rtol=1e-6)
    with pytest.raises(ValueError, match="the front end is frozen"):
        StudentConfig(frozen_layers=0, front_gradient=0.1)


@torch.no_grad()
@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_of_a_hugging_face_encoder_is_one_itself(tiny_encoder, tmp_path, family, norm):
    teacher = PretrainedEncoderConfig(source=str(tiny_encoder(family, norm))).build().eval()
    student = build_student(teacher, 1).eval()
    save_encoder(student, tmp_path)
    (waveform,) = clips(16000)
    expected, _ = student(*padded([waveform]))
    ours = PretrainedEncoderConfig(source=str(tmp_path)).build().eval()
    assert torch.equal(ours(*padded([waveform]))[0], expected)
    theirs, inputs = load_hugging_face(tmp_path, waveform)
    assert ours.unused == ""
    assert theirs.config.model_type == family and theirs.config.num_hidden_layers == 1
    states = theirs(inputs, output_hidden_states=True)
    torch.testing.assert_close(expected[:, 0], states.hidden_states[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        expected[:, -1], states.last_hidden_state[:, : expected.shape[2]], atol=1e-4, rtol=1e-4
    )


# What is listened to


def test_long_recordings_are_cut_without_loss_or_overlap(tone):
    path = tone(seconds=10.0)
    whole = Utterance(id="a", path=path, speaker="x")
    assert list(unlabelled.cut_utterance(whole, 10.0)) == [whole]
    for utterance, end in ((whole, 10.0), (Utterance(id="a", path=path, speaker="x", start_s=1, end_s=9), 9)):
        cut = list(unlabelled.cut_utterance(utterance, 3.0))
        assert len(cut) == math.ceil((end - utterance.start_s) / 3.0) and len({u.id for u in cut}) == len(cut)
        assert cut[0].start_s == utterance.start_s and cut[-1].end_s == utterance.end_s
        assert [u.end_s for u in cut[:-1]] == [u.start_s for u in cut[1:]]
        lengths = np.diff([utterance.start_s, *(u.start_s for u in cut[1:]), end])
        assert max(lengths) <= 3.0 and np.ptp(lengths) < 1e-6


def unlabelled_manifest(folder, count=6, text="path\n"):
    draw = np.random.default_rng(0)
    for number in range(count):
        soundfile.write(folder / f"{number}.wav", draw.standard_normal(12000 + 2000 * number) * 0.1, 16000)
        text += f"{number}.wav\n"
    (folder / "audio.csv").write_text(text)
    return folder / "audio.csv"


def test_a_manifest_of_paths_is_enough_and_files_stay_whole(tmp_path):
    data = recipes.CorpusConfig(corpus="manifest", root=str(unlabelled_manifest(tmp_path)))
    with pytest.raises(SertoneError, match="column speaker"):
        corpora.load("manifest", data.root)
    actual = unlabelled.load_pieces(data, 0.5)
    assert len({u.path for u in actual}) == 6 and len(actual) > 12
    fold = unlabelled.hold_out(actual, 0.34, 0)
    assert {u.path for u in fold.train} & {u.path for u in fold.validation} == set()
    assert len({u.path for u in fold.validation}) == 2 and len(fold.train) + len(fold.validation) == len(
        actual
    )


def test_labels_that_cannot_be_read_do_not_matter(tmp_path):
    (tmp_path / "m.csv").write_text("path,valence,vote_sad\na.wav,high,many\n")
    (actual,) = corpora.load_utterances("manifest", tmp_path / "m.csv", labelled=False)
    assert actual.labels == {} and actual.votes == {} and actual.speaker == ""


def test_speakers_are_held_out_whole(small_demo):
    actual = unlabelled.load_pieces(recipes.CorpusConfig(corpus="demo", root=str(small_demo)), 1.0)
    folds = [unlabelled.hold_out(actual, 0.2, seed) for seed in (0, 0, 1)]
    assert folds[0] == folds[1] != folds[2]
    for fold in folds:
        sides = [{u.speaker for u in side} for side in (fold.train, fold.validation)]
        assert not sides[0] & sides[1] and len(sides[1]) == 2
    assert unlabelled.hold_out(actual, 0.0, 0).validation == []
    with pytest.raises(SertoneError) as caught:
        unlabelled.hold_out([u for u in actual if u.speaker == "S1F"], 0.2, 0)
    assert caught.value.code == "nothing_held_out"


# What a student is worth


TESTED = [f"Session{number}" for number in range(1, 6)]


@pytest.mark.slow
def test_a_student_is_better_than_a_random_encoder_of_its_size(tmp_path):
    """Teacher and student train on ten speakers, frozen they predict the emotions of ten others."""
    from sertone.analysis.compare import compare
    from sertone.training.runs.crossval import cross_validate
    from sertone.training.runs.train import train

    corpora.fake("demo", tmp_path / "demo", full=True)
    root = f"data.root={tmp_path / 'demo'}"
    train(recipes.load(recipes.find_shipped_recipe("demo_teacher"), [root]), tmp_path / "teacher", quiet=True)
    settings = [root, f"teacher.source={tmp_path / 'teacher'}"]
    distill(
        distill_recipe.load(recipes.find_shipped_recipe("demo_distill"), settings),
        tmp_path / "student",
        quiet=True,
    )
    loss = read_result(tmp_path / "student")["held_out"]
    assert loss["after"] < 0.5 * loss["before"]
    encoders = {
        "random": {"name": "compact", "width": 64, "depth": 1, "prosody": True},
        "distilled": {"name": "saved", "source": str(tmp_path / "student")},
    }
    for name, encoder in encoders.items():
        values = {
            "data": {"corpus": "demo", "root": str(tmp_path / "demo"), "only": {"session": TESTED}},
            "model": {"name": "baseline", "encoder": encoder, "hidden": 64, "pooling": "statistics", "frozen_layers": 1},
            "train": {"epochs": [20], "batch_size": 16, "schedule": "cosine", "warmup": 0.1},
        }  # fmt: skip
        cross_validate(recipes.Recipe.model_validate(values), tmp_path / name, jobs=1, quiet=True)
    (difference,) = compare([tmp_path / "random", tmp_path / "distilled"])["differences"]
    assert difference["scores"]["ua"]["low"] > 0, difference

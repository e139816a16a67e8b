"""Distillation: the student's beginning, the loss, the audio without labels, training, the folder that is left."""

import json
import math
import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
import torch
import yaml
from conftest import REPOSITORY, clips, padded
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_ranks import ranks_environment
from torch.nn import functional as F
from transformers import AutoFeatureExtractor, AutoModel

from sertone import cli, corpora
from sertone import recipe as recipes
from sertone.errors import SertoneError
from sertone.isolation import Isolated
from sertone.nn.compact import BLOCKS, CompactEncoderConfig
from sertone.nn.distillation import TargetHead, student_of
from sertone.nn.huggingface import FAMILIES, PretrainedEncoderConfig, TinyEncoderConfig
from sertone.nn.masks import frame_mask
from sertone.nn.saved import SavedEncoderConfig, save_encoder
from sertone.schema import Utterance
from sertone.training import checkpoint, distill_recipe, ranks, unlabelled
from sertone.training.distill import distill, result
from sertone.training.distill_recipe import DistillRecipe

SHIPPED = ("distilhubert", "demo_distill")
BASE = {f: TinyEncoderConfig(family=f, depth=3, width=16) for f in FAMILIES}
NORMED = {f"{f}_layer": TinyEncoderConfig(family=f, depth=3, width=16, norm="layer") for f in FAMILIES}
NORMED |= {block: CompactEncoderConfig(width=16, depth=3, attention_heads=2, block=block) for block in BLOCKS}
TEACHER = {"name": "compact", "width": 16, "depth": 3, "attention_heads": 2}


def built(config):
    """A teacher whose norms are not as they were made."""
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
    """Where the last layer is followed by a norm of its own, the last hidden state is the normalised one."""
    teacher = built((BASE | NORMED)[name])
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    inputs = padded(clips(9000, 6000))
    expected, frames = teacher(*inputs)
    student = student_of(teacher, 2).eval()
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
    teacher = built((BASE | NORMED)[name])
    inputs = padded(clips(9000))
    assert torch.equal(student_of(teacher, 3).eval()(*inputs)[0], teacher(*inputs)[0])


def naive_loss(prediction, target, frames, cosine):
    """By hand, frame by frame."""
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
    expected = naive_loss(output.logits.detach().double().numpy(), target.double().numpy(), frames, cosine)
    assert head.loss(output, target).item() == pytest.approx(expected, rel=1e-4)


def test_padding_changes_neither_loss_nor_gradient():
    head, frames = TargetHead(4, 4, 1.0), torch.tensor([5, 2])
    features, target = torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    mask = frame_mask(frames, 5)[..., None]
    found = []
    for fill in (0.0, 7.0):  # zero vectors have no direction
        head.zero_grad()
        padding = torch.where(mask, 0.0, fill)
        loss = head.loss(head(features * mask + padding, frames), target * mask + padding)
        loss.backward()
        found.append((loss.item(), head.output.weight.grad.clone()))
    assert found[0][0] == pytest.approx(found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])


@torch.no_grad()
@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_of_hugging_faces_is_one_itself(tiny_encoder, tmp_path, family, norm):
    teacher = PretrainedEncoderConfig(source=str(tiny_encoder(family, norm))).build().eval()
    student = student_of(teacher, 1).eval()
    save_encoder(student, tmp_path)
    (waveform,) = clips(9000)
    expected, _ = student(*padded([waveform]))
    ours = PretrainedEncoderConfig(source=str(tmp_path)).build().eval()
    assert torch.equal(ours(*padded([waveform]))[0], expected)
    theirs, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert theirs.config.model_type == family and theirs.config.num_hidden_layers == 1
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert extractor.do_normalize == (family != "wavlm")
    given = extractor(waveform.numpy(), sampling_rate=16000, return_tensors="pt").input_values
    states = theirs.eval()(given, output_hidden_states=True)
    torch.testing.assert_close(expected[:, 0], states.hidden_states[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(expected[:, -1], states.last_hidden_state, atol=1e-4, rtol=1e-4)


# What is listened to


def test_long_recordings_are_cut_without_loss_or_overlap(tone):
    path = tone(seconds=10.0)
    whole = Utterance(id="a", path=path, speaker="x")
    assert list(unlabelled.pieces(whole, 10.0)) == [whole]
    for utterance, end in ((whole, 10.0), (Utterance(id="a", path=path, speaker="x", start_s=1, end_s=9), 9)):
        cut = list(unlabelled.pieces(utterance, 3.0))
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
    found = unlabelled.utterances(data, 0.5)
    assert len({u.path for u in found}) == 6 and len(found) > 12
    fold = unlabelled.sides(found, 0.34, 0)
    assert {u.path for u in fold.train} & {u.path for u in fold.validation} == set()
    assert len({u.path for u in fold.validation}) == 2 and len(fold.train) + len(fold.validation) == len(
        found
    )


def test_labels_that_cannot_be_read_do_not_matter(tmp_path):
    (tmp_path / "m.csv").write_text("path,valence,vote_sad\na.wav,high,many\n")
    (found,) = corpora.utterances("manifest", tmp_path / "m.csv", labelled=False)
    assert found.labels == {} and found.votes == {} and found.speaker == ""


def test_speakers_are_held_out_whole(small_demo):
    found = unlabelled.utterances(recipes.CorpusConfig(corpus="demo", root=str(small_demo)), 1.0)
    folds = [unlabelled.sides(found, 0.2, seed) for seed in (0, 0, 1)]
    assert folds[0] == folds[1] != folds[2]
    for fold in folds:
        sides = [{u.speaker for u in side} for side in (fold.train, fold.validation)]
        assert not sides[0] & sides[1] and len(sides[1]) == 2
    assert unlabelled.sides(found, 0.0, 0).validation == []
    with pytest.raises(SertoneError) as caught:
        unlabelled.sides([u for u in found if u.speaker == "S1F"], 0.2, 0)
    assert caught.value.code == "nothing_held_out"


# Training


@pytest.fixture
def recipe(small_demo):
    """recipe(teacher=..., epochs=2) -> DistillRecipe, on the small demo corpus."""

    def make(teacher=None, student=None, targets=(1, 3), data=None, held_out=0.2, max_seconds=15.0, **train):
        values = {
            "data": data or {"corpus": "demo", "root": str(small_demo)},
            "teacher": teacher or TEACHER,
            "student": student or {"layers": 1},
            "targets": list(targets),
            "held_out": held_out,
            "max_seconds": max_seconds,
            "train": {"epochs": 2, "batch_size": 8, "learning_rate": 2e-3} | train,
        }
        return DistillRecipe.model_validate(values)

    return make


def weights(out):
    return load_file(out / "encoder" / "model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def losses(out):
    return [[entry["loss"], entry["val_loss"]] for entry in result(out)["history"]]


def test_the_loss_falls_on_speakers_that_were_held_out(recipe, tmp_path):
    distill(recipe(epochs=8), tmp_path / "a", quiet=True)
    said = result(tmp_path / "a")
    assert said["held_out"]["after"] < 0.8 * said["held_out"]["before"]
    assert said["held_out"]["after"] == min(entry["val_loss"] for entry in said["history"])
    student = SavedEncoderConfig(source=str(tmp_path / "a")).build()
    assert student.depth == 1 and said["parameters"]["student"] == sum(
        p.numel() for p in student.parameters()
    )
    assert said["parameters"]["student"] < said["parameters"]["teacher"]
    assert not any((tmp_path / "a").glob("resume*"))


def test_the_held_out_loss_is_that_of_the_encoder_and_its_heads(recipe, tmp_path, monkeypatch):
    """Before training, by hand: one recording at a time, the teacher run without any cache."""
    from sertone.training import distill as module
    from sertone.training.distiller import Distiller

    made = []
    train = Distiller.train
    monkeypatch.setattr(Distiller, "train", lambda self: made.append(self) or train(self))
    distill(recipe(epochs=1, learning_rate=1e-12, batch_size=3), tmp_path / "a", quiet=True)
    (distiller,) = made
    sums, count = 0.0, 0
    model, teacher = distiller.model.eval(), distiller.teacher
    teacher.freeze(-1)
    with torch.no_grad():
        for u in distiller.fold.validation:
            samples = torch.from_numpy(distiller.material.recordings.samples(u).astype(np.float32) / 32768)
            inputs = samples[None], torch.tensor([len(samples)])
            expected, frames = teacher(*inputs)
            hidden, _ = model.encoder(*inputs)
            for layer in (1, 3):
                prediction = model.heads[f"layer_{layer}"].output(hidden[:, -1]).numpy()
                sums += naive_loss(prediction, expected[:, layer].numpy(), frames.tolist(), 1.0) * int(frames)
            count += int(frames)
    assert module.result(tmp_path / "a")["held_out"]["before"] == pytest.approx(sums / count / 2, rel=1e-4)


@pytest.mark.parametrize("family", [None, *FAMILIES])
def test_cached_targets_are_those_of_the_teacher(recipe, tiny_encoder, tmp_path, family):
    teacher = {"name": "pretrained", "source": str(tiny_encoder(family, "layer"))} if family else TEACHER
    data = {"corpus": "manifest", "root": str(unlabelled_manifest(tmp_path))}
    options = {"data": data, "teacher": teacher, "targets": [1, 2], "epochs": 1, "batch_size": 2}
    options["speeds"] = [0.9, 1.0]
    for where in ("off", "memory", {"where": "file", "folder": str(tmp_path / "kept")}):
        name = where if isinstance(where, str) else "file"
        distill(recipe(cache=where, **options), tmp_path / name, quiet=True)
    assert losses(tmp_path / "memory") == losses(tmp_path / "file")
    np.testing.assert_allclose(losses(tmp_path / "memory"), losses(tmp_path / "off"), atol=1e-5)
    assert list((tmp_path / "kept").glob("*.prefix"))


def test_the_teacher_is_not_run_where_its_layers_are_kept(recipe, tmp_path, monkeypatch, capsys):
    from sertone.nn.encoder import Encoder

    run = []
    deepen = Encoder.deepen
    monkeypatch.setattr(Encoder, "deepen", lambda self, *a: run.append(self) or deepen(self, *a))
    distill(recipe(epochs=3, cache="memory", held_out=0.2), tmp_path / "kept")
    assert len(run) == 40, "each recording once"
    said = capsys.readouterr().err
    assert "teacher: output of the frozen encoder up to layer 3 kept in memory, up to" in said
    assert "held-out loss" in said


def test_a_cache_that_is_too_small(recipe, tmp_path):
    tight = {"where": "memory", "limit_gb": 0.0001}
    with pytest.raises(SertoneError) as caught:
        distill(recipe(cache=tight), tmp_path / "a", quiet=True)
    assert caught.value.code == "cache_too_small"
    distill(recipe(cache=tight | {"where": "auto"}, epochs=1), tmp_path / "b", quiet=True)
    distill(recipe(cache="off", epochs=1), tmp_path / "c", quiet=True)
    assert losses(tmp_path / "b") == losses(tmp_path / "c")


@pytest.mark.parametrize("held_out", [0.0, 0.2])
def test_interrupted_is_uninterrupted(recipe, tmp_path, monkeypatch, held_out):
    once = recipe(epochs=4, save_every=1, held_out=held_out, speeds=[0.9, 1.1], schedule="cosine", warmup=0.2)
    distill(once, tmp_path / "whole", quiet=True)
    save = checkpoint.save_resume

    def save_and_stop(folder, number, *rest):
        save(folder, number, *rest)
        if number == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "save_resume", save_and_stop)
        distill(once, tmp_path / "parts", quiet=True)
    assert not (tmp_path / "parts" / "encoder").exists()
    distill(once, tmp_path / "parts", quiet=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert result(tmp_path / "whole")["held_out"] == result(tmp_path / "parts")["held_out"]
    assert (result(tmp_path / "parts")["held_out"]["after"] is None) == (held_out == 0)


def test_the_seed_decides_and_the_best_epoch_is_kept(recipe, tmp_path):
    """At a rate that is far too high the loss goes up again; after n epochs weights do not depend on more."""
    wild = {"learning_rate": 0.3, "clip_norm": 100.0, "seed": 0}
    distill(recipe(epochs=4, **wild), tmp_path / "four", quiet=True)
    distill(recipe(epochs=4, **wild), tmp_path / "again", quiet=True)
    assert same(weights(tmp_path / "four"), weights(tmp_path / "again"))
    best = result(tmp_path / "four")["epoch"]
    assert best < 4, "choose another seed: the last epoch must not be the best one"
    distill(recipe(epochs=best, **wild), tmp_path / "best", quiet=True)
    assert same(weights(tmp_path / "four"), weights(tmp_path / "best"))
    distill(recipe(epochs=best, **wild | {"seed": 1}), tmp_path / "other", quiet=True)
    assert not same(weights(tmp_path / "best"), weights(tmp_path / "other"))


def test_what_is_frozen_of_the_student_stays(recipe, tmp_path):
    teacher = CompactEncoderConfig(**TEACHER)
    for frozen in (1, -1):
        student = {"layers": 2, "frozen_layers": frozen}
        folder = distill(recipe(student=student, targets=[3]), tmp_path / str(frozen), quiet=True)
        torch.manual_seed(0)
        before, after = student_of(teacher.build(), 2).state_dict(), load_file(folder / "model.safetensors")
        kept = {name for name in before if torch.equal(before[name], after[name])}
        first = {name for name in before if not name.startswith(("layers.1.", "norm."))}
        assert kept & first == (first if frozen == 1 else set())
        assert not kept - first


def test_in_bf16_it_learns_the_same(recipe, tmp_path):
    for precision in ("32-true", "bf16-mixed"):
        distill(recipe(precision=precision), tmp_path / precision, quiet=True)
    exact, rounded = losses(tmp_path / "32-true"), losses(tmp_path / "bf16-mixed")
    assert rounded != exact
    np.testing.assert_allclose(rounded, exact, rtol=0.03)


def test_unlabelled_audio_alone_is_enough(recipe, tmp_path):
    data = {"corpus": "manifest", "root": str(unlabelled_manifest(tmp_path)), "licence": "cc-by-4.0"}
    folder = distill(recipe(data=data, max_seconds=0.4), tmp_path / "run", quiet=True)
    about = json.loads((folder / "encoder.json").read_text())
    assert len(about["listened"]["recordings"]) == 6 and about["listened"]["speakers"] == []
    assert about["corpus"]["files"] == 6 and about["licences"][0]["id"] == "cc-by-4.0"


@pytest.mark.parametrize(
    "options, code, words",
    [
        ({"targets": [1, 4]}, "bad_targets", "layer 4 of a teacher of 3"),
        ({"student": {"layers": 4}}, "bad_student", "4 layers, from a teacher of 3"),
        ({"teacher": {"name": "saved", "source": "nowhere"}}, "not_a_checkpoint", "nowhere"),
        ({"device": "mps"}, "no_device", "mps"),
    ],
)
def test_what_cannot_be(recipe, tmp_path, options, code, words):
    with pytest.raises(SertoneError, match=words) as caught:
        distill(recipe(**options), tmp_path / "run", quiet=True)
    assert caught.value.code == code and not (tmp_path / "run").exists()


def test_a_finished_distillation_stays_and_another_one_is_refused(recipe, tmp_path):
    distill(recipe(epochs=1), tmp_path / "run", quiet=True)
    before = (tmp_path / "run" / "distill.json").stat().st_mtime_ns
    distill(recipe(epochs=1, save_every=7), tmp_path / "run", quiet=True)
    assert (tmp_path / "run" / "distill.json").stat().st_mtime_ns == before
    with pytest.raises(SertoneError, match=r"train\.seed: was 0, now 1") as caught:
        distill(recipe(epochs=1, seed=1), tmp_path / "run", quiet=True)
    assert caught.value.code == "other_experiment"
    distill(recipe(epochs=1, seed=1), tmp_path / "run", fresh=True, quiet=True)
    assert (tmp_path / "run" / "distill.json").stat().st_mtime_ns != before


def distilled_by_rank(recipe, out):
    distill(recipe, out, quiet=True)
    return ranks.world()


@pytest.mark.slow
def test_two_ranks_write_one_encoder(recipe, tmp_path):
    """With next to no learning, and no dropout, the mean loss of an epoch is that of a single process."""
    still = recipe(teacher=TEACHER | {"dropout": 0.0}, epochs=1, learning_rate=1e-12, device="cpu")
    children = [Isolated(environment) for environment in ranks_environment(2)]
    try:
        with ThreadPoolExecutor(2) as pool:
            worlds = pool.map(lambda child: child(distilled_by_rank, still, tmp_path / "two"), children)
            assert list(worlds) == [2, 2]
    finally:
        for child in children:
            child.close()
    distill(still, tmp_path / "one", quiet=True)
    (two,), (one,) = losses(tmp_path / "two"), losses(tmp_path / "one")
    assert two[1] == pytest.approx(one[1], rel=1e-5) and two[0] == pytest.approx(one[0], rel=0.05)
    assert weights(tmp_path / "two").keys() == weights(tmp_path / "one").keys()


# Recipes and command


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipes(name):
    path = recipes.shipped(name)
    recipe = distill_recipe.load(path)
    assert recipe.data.corpus in corpora.names() and recipe.train.for_the_loop().epochs == [
        recipe.train.epochs
    ]
    assert path.read_text().startswith("# yaml-language-server: $schema=distill_schema.json\n")
    assert DistillRecipe.model_validate(yaml.safe_load(recipes.dump(recipe))) == recipe


def test_the_schema_for_editors_is_up_to_date():
    schema = json.loads((REPOSITORY / "recipes" / "distill_schema.json").read_text())
    assert schema == distill_recipe.recipe_schema(), "write it again: make schema"


def test_the_papers_setting():
    recipe = distill_recipe.load(recipes.shipped("distilhubert"))
    assert (recipe.student.layers, recipe.targets, recipe.cosine) == (2, [4, 8, 12], 1.0)
    train = recipe.train.for_the_loop()
    assert train.rates == recipes.Rates(encoder=2e-4, downstream=2e-4)
    assert (train.batch_size, train.warmup, train.speeds) == (24, 0.07, [1.0])
    assert 281241 * (1 - recipe.held_out) / 24 * recipe.train.epochs == pytest.approx(200000, rel=0.02)


@pytest.mark.parametrize(
    "override, message",
    [
        ("train.epoch=3", "did you mean 'epochs'"),
        ("train.epochs=[3, 3]", "train.epochs"),
        ("train.label_smoothing=0.1", "unknown key 'label_smoothing'"),
        ("student.layer=1", "did you mean 'layers'"),
        ("student.frozen_layers=1", "1 of 1 layers frozen"),
        ("teacher.name=hubert", "'pretrained'"),
        ("targets=[0]", "greater than or equal to 1"),
        ("held_out=1", "less than 1"),
        ("data.licence=free", "expected one of"),
        ("train.batch_seconds=9", "either batch_size or batch_seconds"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_named(override, message):
    with pytest.raises(SertoneError, match=message) as caught:
        distill_recipe.load(recipes.shipped("demo_distill"), [override])
    assert caught.value.code == "bad_recipe"


def test_targets_are_a_set():
    recipe = distill_recipe.load(recipes.shipped("demo_distill"), ["targets=[3, 1, 3]"])
    assert recipe.targets == [1, 3]


def test_the_command(small_demo, tiny_encoder, tmp_path, capsys):
    """From a folder of Hugging Face's with its licence to another one."""
    teacher = tiny_encoder("hubert")
    (teacher / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# An encoder\n")
    settings = [f"teacher={{name: pretrained, source: {teacher}}}", f"data.root={small_demo}", "targets=[2]"]
    settings += ["train.epochs=1"]
    command = ["distill", str(recipes.shipped("demo_distill")), "--out", str(tmp_path / "run")]
    assert cli.app([*command, *(part for setting in settings for part in ("--set", setting))]) == 0
    said = capsys.readouterr().out
    folder = tmp_path / "run" / "encoder"
    assert f"encoder        {folder}\n" in said and "held-out loss" in said and "of the student" in said
    model = AutoModel.from_pretrained(folder)
    assert model.config.num_hidden_layers == 1
    readme = (folder / "README.md").read_text()
    assert yaml.safe_load(readme.split("---")[1])["license"] == "cc-by-nc-4.0"
    assert "Not for commercial use" in readme and str(teacher.parent) not in readme
    assert "AutoModel.from_pretrained" in readme and "the first layer of its teacher" in readme
    assert socket.gethostname() not in readme


TESTED = [f"Session{number}" for number in range(1, 6)]


@pytest.mark.slow
def test_a_student_hears_more_than_a_random_encoder_of_its_size(tmp_path):
    """Teacher and student listen to ten voices, the emotion of ten others is then told; encoders frozen."""
    from sertone.analysis.compare import compare
    from sertone.training.crossval import cross_validate
    from sertone.training.single import train

    corpora.fake("demo", tmp_path / "demo", full=True)
    root = f"data.root={tmp_path / 'demo'}"
    train(recipes.load(recipes.shipped("demo_teacher"), [root]), tmp_path / "teacher", quiet=True)
    settings = [root, f"teacher.source={tmp_path / 'teacher'}"]
    distill(distill_recipe.load(recipes.shipped("demo_distill"), settings), tmp_path / "student", quiet=True)
    loss = result(tmp_path / "student")["held_out"]
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

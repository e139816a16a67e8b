"""Distillation runs: training, caches, resuming, processes, recipes, the command."""

import json
import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import yaml
from conftest import REPOSITORY, SMALL_EMOTION2VEC
from safetensors.torch import load_file
from test_distillation import compute_loss_naively, unlabelled_manifest
from test_ranks import ranks_environment
from transformers import AutoModel

from sertone import cli, corpora
from sertone import recipe as recipes
from sertone.errors import SertoneError
from sertone.nn.distillation import build_student
from sertone.nn.encoders.compact import CompactEncoderConfig
from sertone.nn.encoders.huggingface import FAMILIES
from sertone.nn.encoders.saved import SavedEncoderConfig
from sertone.recipe.train_parts import Rates
from sertone.training.data.loader import BatchItem
from sertone.training.distill import distill_recipe
from sertone.training.distill.distill import distill, read_result
from sertone.training.distill.distill_recipe import DistillRecipe
from sertone.training.fit import distributed, training_state
from sertone.utils.processes import ChildProcess

SHIPPED = ("distilhubert", "demo_distill")
TEACHER = {"name": "compact", "width": 16, "depth": 3, "attention_heads": 2}


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
    return [[entry["loss"], entry["val_loss"]] for entry in read_result(out)["history"]]


def test_the_loss_falls_on_held_out_speakers(recipe, tmp_path):
    distill(recipe(epochs=8), tmp_path / "a", quiet=True)
    result = read_result(tmp_path / "a")
    assert result["held_out"]["after"] < 0.8 * result["held_out"]["before"]
    assert result["held_out"]["after"] == min(entry["val_loss"] for entry in result["history"])
    student = SavedEncoderConfig(source=str(tmp_path / "a")).build()
    assert student.depth == 1 and result["parameters"]["student"] == sum(
        p.numel() for p in student.parameters()
    )
    assert result["parameters"]["student"] < result["parameters"]["teacher"]
    assert not any((tmp_path / "a").glob("resume*"))


def test_the_held_out_loss_is_that_of_the_encoder_and_its_heads(recipe, tmp_path, monkeypatch):
    """The loss before training equals one computed by hand, one recording at a time and without a cache."""
    from sertone.training.distill import distill as module
    from sertone.training.distill.student import DistillationTrainer

    trainers = []
    train = DistillationTrainer.train
    monkeypatch.setattr(DistillationTrainer, "train", lambda self: trainers.append(self) or train(self))
    distill(recipe(epochs=1, learning_rate=1e-12, batch_size=3), tmp_path / "a", quiet=True)
    (distiller,) = trainers
    sums, count = 0.0, 0
    model, teacher = distiller.model.eval(), distiller.teacher
    teacher.freeze(-1)
    with torch.no_grad():
        for u in distiller.fold.validation:
            samples = torch.from_numpy(distiller.caches.recordings.samples(u).astype(np.float32) / 32768)
            inputs = samples[None], torch.tensor([len(samples)])
            expected, frames = teacher(*inputs)
            hidden, _ = model.encoder(*inputs)
            for layer in (1, 3):
                prediction = model.heads[f"layer_{layer}"].output(hidden[:, -1]).numpy()
                sums += compute_loss_naively(
                    prediction, expected[:, layer].numpy(), frames.tolist(), 1.0
                ) * int(frames)
            count += int(frames)
    assert module.read_result(tmp_path / "a")["held_out"]["before"] == pytest.approx(
        sums / count / 2, rel=1e-4
    )


def test_student_and_teacher_get_the_same_crop(recipe, tmp_path, monkeypatch):
    """The crop changes with every epoch, so nothing is cached. Held-out audio is not cropped."""
    from sertone.training.distill.student import DistillationTrainer

    trainers, crop = [], {"augmentation": {"crop_seconds": 0.5}}
    train = DistillationTrainer.train
    monkeypatch.setattr(DistillationTrainer, "train", lambda self: trainers.append(self) or train(self))
    student = {"layers": 1, "heads": "hidden", "front_gradient": 0.1}
    distill(recipe(student=student, epochs=2, **crop), tmp_path / "a", quiet=True)
    (distiller,) = trainers
    assert distiller._teacher_cache is None and np.isfinite(losses(tmp_path / "a")).all()
    rows = [BatchItem(u, seed=n) for n, u in enumerate(distiller.fold.train[:3])]
    (batch,) = distiller.loader.batches([rows], list(distiller.model.heads))
    assert batch.lengths.tolist() == [8000] * 3
    with torch.no_grad():
        expected, _ = distiller.teacher(batch.waveforms, batch.lengths)
    for layer in (1, 3):
        torch.testing.assert_close(batch.targets[f"layer_{layer}"], expected[:, layer], atol=1e-5, rtol=1e-5)
    (whole,) = distiller.loader.batches([[BatchItem(distiller.fold.train[0])]], list(distiller.model.heads))
    assert whole.lengths.tolist() == [distiller.caches.recordings.lengths[distiller.fold.train[0].id]]
    with pytest.raises(SertoneError) as caught:
        distill(recipe(cache="memory", **crop), tmp_path / "b", quiet=True)
    assert caught.value.code == "not_cacheable"


@pytest.mark.parametrize("family", ["compact", "emotion2vec", *FAMILIES])
def test_cached_targets_are_those_of_the_teacher(recipe, tiny_encoder, tmp_path, family):
    """Also where the cached hidden states have extra tokens, as those of emotion2vec."""
    teacher = {"compact": TEACHER, "emotion2vec": SMALL_EMOTION2VEC}.get(family)
    teacher = teacher or {"name": "pretrained", "source": str(tiny_encoder(family, "layer"))}
    data = {"corpus": "manifest", "root": str(unlabelled_manifest(tmp_path))}
    options = {"data": data, "teacher": teacher, "targets": [1, 2], "epochs": 1, "batch_size": 2}
    options["speeds"] = [0.9, 1.0]
    for where in ("off", "memory", {"where": "file", "folder": str(tmp_path / "kept")}):
        name = where if isinstance(where, str) else "file"
        distill(recipe(cache=where, **options), tmp_path / name, quiet=True)
    assert losses(tmp_path / "memory") == losses(tmp_path / "file")
    np.testing.assert_allclose(losses(tmp_path / "memory"), losses(tmp_path / "off"), atol=1e-5)
    assert list((tmp_path / "kept").glob("*.prefix"))


def test_the_teacher_is_not_run_where_its_layers_are_cached(recipe, tmp_path, monkeypatch, capsys):
    from sertone.nn.encoders.base import Encoder

    run = []
    deepen = Encoder.run_frozen_layers
    monkeypatch.setattr(Encoder, "run_frozen_layers", lambda self, *a: run.append(self) or deepen(self, *a))
    distill(recipe(epochs=3, cache="memory", held_out=0.2), tmp_path / "kept")
    assert len(run) == 40, "each recording once"
    output = capsys.readouterr().err
    assert "teacher: output of the frozen encoder up to layer 3 kept in memory, up to" in output
    assert "held-out loss" in output


def test_a_cache_that_is_too_small(recipe, tmp_path):
    tight = {"where": "memory", "limit_gb": 0.0001}
    with pytest.raises(SertoneError) as caught:
        distill(recipe(cache=tight), tmp_path / "a", quiet=True)
    assert caught.value.code == "cache_too_small"
    distill(recipe(cache=tight | {"where": "auto"}, epochs=1), tmp_path / "b", quiet=True)
    distill(recipe(cache="off", epochs=1), tmp_path / "c", quiet=True)
    assert losses(tmp_path / "b") == losses(tmp_path / "c")


@pytest.mark.parametrize("held_out", [0.0, 0.2])
def test_a_resumed_distillation_equals_an_uninterrupted_one(recipe, tmp_path, monkeypatch, held_out):
    once = recipe(epochs=4, save_every=1, held_out=held_out, speeds=[0.9, 1.1], schedule="cosine", warmup=0.2)
    distill(once, tmp_path / "whole", quiet=True)
    save = training_state.save_training_state

    def save_and_stop(folder, number, *rest):
        save(folder, number, *rest)
        if number == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training_state, "save_training_state", save_and_stop)
        distill(once, tmp_path / "parts", quiet=True)
    assert not (tmp_path / "parts" / "encoder").exists()
    distill(once, tmp_path / "parts", quiet=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert read_result(tmp_path / "whole")["held_out"] == read_result(tmp_path / "parts")["held_out"]
    assert (read_result(tmp_path / "parts")["held_out"]["after"] is None) == (held_out == 0)


def test_the_seed_decides_and_the_best_epoch_is_kept(recipe, tmp_path):
    """At a much too high rate the loss rises again. The weights of n epochs do not depend on later epochs."""
    wild = {"learning_rate": 0.3, "clip_norm": 100.0, "seed": 0}
    distill(recipe(epochs=4, **wild), tmp_path / "four", quiet=True)
    distill(recipe(epochs=4, **wild), tmp_path / "again", quiet=True)
    assert same(weights(tmp_path / "four"), weights(tmp_path / "again"))
    best = read_result(tmp_path / "four")["epoch"]
    assert best < 4, "choose another seed: the last epoch must not be the best one"
    distill(recipe(epochs=best, **wild), tmp_path / "best", quiet=True)
    assert same(weights(tmp_path / "four"), weights(tmp_path / "best"))
    distill(recipe(epochs=best, **wild | {"seed": 1}), tmp_path / "other", quiet=True)
    assert not same(weights(tmp_path / "best"), weights(tmp_path / "other"))


def test_frozen_parts_of_the_student_do_not_change(recipe, tmp_path):
    teacher = CompactEncoderConfig(**TEACHER)
    for frozen in (1, -1):
        student = {"layers": 2, "frozen_layers": frozen}
        folder = distill(recipe(student=student, targets=[3]), tmp_path / str(frozen), quiet=True)
        torch.manual_seed(0)
        before, after = (
            build_student(teacher.build(), 2).state_dict(),
            load_file(folder / "model.safetensors"),
        )
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


def test_audio_without_labels_is_enough(recipe, tmp_path):
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
def test_impossible_options_are_refused(recipe, tmp_path, options, code, words):
    with pytest.raises(SertoneError, match=words) as caught:
        distill(recipe(**options), tmp_path / "run", quiet=True)
    assert caught.value.code == code and not (tmp_path / "run").exists()


def test_a_finished_distillation_is_kept_and_another_one_is_refused(recipe, tmp_path):
    distill(recipe(epochs=1), tmp_path / "run", quiet=True)
    before = (tmp_path / "run" / "distill.json").stat().st_mtime_ns
    distill(recipe(epochs=1, save_every=7), tmp_path / "run", quiet=True)
    assert (tmp_path / "run" / "distill.json").stat().st_mtime_ns == before
    with pytest.raises(SertoneError, match=r"train\.seed: was 0, now 1") as caught:
        distill(recipe(epochs=1, seed=1), tmp_path / "run", quiet=True)
    assert caught.value.code == "other_experiment"
    for name in ("recipe.yaml", "protocol.json"):
        (tmp_path / "run" / name).write_text("")
    with pytest.raises(SertoneError, match=r"distill\.json is of another experiment"):
        distill(recipe(epochs=1, seed=1), tmp_path / "run", quiet=True)
    distill(recipe(epochs=1, seed=1), tmp_path / "run", fresh=True, quiet=True)
    assert (tmp_path / "run" / "distill.json").stat().st_mtime_ns != before


def distil_in_process(recipe, out):
    distill(recipe, out, quiet=True)
    return distributed.world_size()


@pytest.mark.slow
def test_two_processes_write_one_encoder(recipe, tmp_path):
    """Almost without learning and without dropout, the mean loss of an epoch is that of one process."""
    still = recipe(teacher=TEACHER | {"dropout": 0.0}, epochs=1, learning_rate=1e-12, device="cpu")
    children = [ChildProcess(environment) for environment in ranks_environment(2)]
    try:
        with ThreadPoolExecutor(2) as pool:
            worlds = pool.map(lambda child: child(distil_in_process, still, tmp_path / "two"), children)
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
    path = recipes.find_shipped_recipe(name)
    recipe = distill_recipe.load(path)
    assert recipe.data.corpus in corpora.list_names() and recipe.train.to_train_config().epochs == [
        recipe.train.epochs
    ]
    assert path.read_text().startswith("# yaml-language-server: $schema=distill_schema.json\n")
    assert DistillRecipe.model_validate(yaml.safe_load(recipes.dump(recipe))) == recipe


def test_the_schema_for_editors_is_up_to_date():
    schema = json.loads((REPOSITORY / "recipes" / "distill_schema.json").read_text())
    assert schema == distill_recipe.recipe_schema(), "write it again: make schema"


def test_the_papers_setting():
    recipe = distill_recipe.load(recipes.find_shipped_recipe("distilhubert"))
    assert (recipe.student.layers, recipe.targets, recipe.cosine) == (2, [4, 8, 12], 1.0)
    train = recipe.train.to_train_config()
    assert train.rates == Rates(encoder=2e-4, downstream=2e-4)
    assert (train.batch_size, train.warmup, train.speeds) == (24, 0.07, [1.0])
    assert (train.clip_norm, train.weight_decay, train.augmentation.crop_seconds) == (
        5.0,
        1e-6,
        250000 / 16000,
    )
    assert (recipe.student.heads, recipe.student.front_gradient) == ("hidden", 0.1)
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
def test_errors_in_a_recipe_are_named(override, message):
    with pytest.raises(SertoneError, match=message) as caught:
        distill_recipe.load(recipes.find_shipped_recipe("demo_distill"), [override])
    assert caught.value.code == "bad_recipe"


def test_targets_are_a_set():
    recipe = distill_recipe.load(recipes.find_shipped_recipe("demo_distill"), ["targets=[3, 1, 3]"])
    assert recipe.targets == [1, 3]


def test_the_command(small_demo, tiny_encoder, tmp_path, capsys):
    """The command distils a Hugging Face folder with a licence into another such folder."""
    teacher = tiny_encoder("hubert")
    (teacher / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# An encoder\n")
    settings = [f"teacher={{name: pretrained, source: {teacher}}}", f"data.root={small_demo}", "targets=[2]"]
    settings += ["data.only={}", "train.epochs=1"]
    command = ["distill", str(recipes.find_shipped_recipe("demo_distill")), "--out", str(tmp_path / "run")]
    assert cli.app([*command, *(part for setting in settings for part in ("--set", setting))]) == 0
    output = capsys.readouterr().out
    folder = tmp_path / "run" / "encoder"
    assert f"encoder        {folder}\n" in output and "held-out loss" in output and "of the student" in output
    model = AutoModel.from_pretrained(folder)
    assert model.config.num_hidden_layers == 1
    readme = (folder / "README.md").read_text()
    assert yaml.safe_load(readme.split("---")[1])["license"] == "cc-by-nc-4.0"
    assert "Not for commercial use" in readme and str(teacher.parent) not in readme
    assert "AutoModel.from_pretrained" in readme and "the first layer of its teacher" in readme
    assert socket.gethostname() not in readme

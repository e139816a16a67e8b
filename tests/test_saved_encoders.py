"""The encoder of another model: its weights, its licences, and the speakers of its training."""

import json
import math
import shutil
from dataclasses import asdict

import pytest
import torch
import yaml
from conftest import SMALL_EMOTION2VEC, TINY_MODEL, clips, padded
from damage import rehash
from safetensors.torch import load_file, save_file

from sertone import corpora, licences, models
from sertone.errors import SertoneError
from sertone.nn.encoders.saved import SavedEncoderConfig
from sertone.recipe import Recipe
from sertone.report import protocol
from sertone.training.distill.distill import distill
from sertone.training.distill.distill_recipe import DistillRecipe
from sertone.training.experiment import contamination
from sertone.training.experiment.experiment import prepare
from sertone.training.fit.checkpoint import load_model
from sertone.training.fit.progress import RunProgress
from sertone.training.runs.crossval import cross_validate
from sertone.training.runs.folds import prepare_data, train_fold
from sertone.training.runs.train import train

BASELINE = {"name": "baseline", "hidden": 16}
NAMES = ("compact", "emotion2vec", "hubert", "whisper")


@pytest.fixture(scope="module")
def voices(tmp_path_factory, small_demo):
    """Return two manifests of the demo's recordings: of its first two sessions, and of the others."""
    folder = tmp_path_factory.mktemp("voices")
    head, *lines = (small_demo / "metadata.csv").read_text().splitlines()
    shutil.copytree(small_demo / "wav", folder / "wav")
    for name, sessions in {"before": "12", "after": "345"}.items():
        rows = [line for line in lines if line[len("wav/S")] in sessions]
        (folder / f"{name}.csv").write_text("\n".join([head, *rows]) + "\n")
    return folder


def recipe(table, encoder, folds=2, licence=None, **model):
    return Recipe.model_validate(
        {
            "data": {"corpus": "manifest", "root": str(table), "licence": licence},
            "protocol": {"split": "grouped_k_fold", "folds": folds},
            "model": BASELINE | {"encoder": encoder} | model,
            "train": {"epochs": [1], "batch_size": 8},
        }
    )


def distillation(table, teacher, targets, licence="cc-by-nc-sa-4.0"):
    return DistillRecipe.model_validate(
        {
            "data": {"corpus": "manifest", "root": str(table), "licence": licence},
            "teacher": teacher,
            "student": {"layers": 1},
            "targets": targets,
            "train": {"epochs": 1, "batch_size": 8},
        }
    )


@pytest.fixture(scope="module")
def made(voices, tmp_path_factory, tiny_encoder):
    """Models trained on the voices before, and students of their encoders and of one of Hugging Face."""
    out = tmp_path_factory.mktemp("made")
    table = voices / "before.csv"
    encoders = {"compact": TINY_MODEL["encoder"], "emotion2vec": SMALL_EMOTION2VEC | {"depth": 2}}
    for family in ("hubert", "whisper"):
        hugging = tiny_encoder(family)
        (hugging / "README.md").write_text("---\nlicense: mit\n---\n")
        encoders[family] = {"name": "pretrained", "source": str(hugging)}
    for name, encoder in encoders.items():
        train(recipe(table, encoder, licence="cc-by-4.0"), out / name, quiet=True)
        teacher = {"name": "saved", "source": str(out / name)}
        distill(distillation(voices / "after.csv", teacher, [2]), out / f"{name}_student", quiet=True)
    cross_validate(recipe(table, TINY_MODEL["encoder"]), out / "run", jobs=1, quiet=True)
    return out


def saved(folder):
    return {"name": "saved", "source": str(folder)}


def build(folder):
    return SavedEncoderConfig(source=str(folder)).build().eval()


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_encoder_of_the_model(made, name):
    model, _, _ = load_model(made / name / "checkpoint")
    inputs = padded(clips(9000, 6000))
    for folder in (made / name, made / name / "checkpoint"):
        encoder = build(folder)
        assert encoder.describe() == model.encoder.describe()
        assert torch.equal(encoder(*inputs)[0], model.encoder(*inputs)[0])
    fold, _, _ = load_model(made / "run" / "fold_1" / "checkpoint")
    assert torch.equal(build(made / "run" / "fold_1")(*inputs)[0], fold.encoder(*inputs)[0])


@pytest.mark.parametrize("name", ["compact", "emotion2vec"])
def test_or_one_that_was_distilled(made, name):
    expected = load_file(made / f"{name}_student" / "encoder" / "model.safetensors")
    for folder in (made / f"{name}_student", made / f"{name}_student" / "encoder"):
        encoder = build(folder)
        assert encoder.depth == 1 and encoder.state_dict().keys() == expected.keys()
        assert all(torch.equal(expected[key], tensor) for key, tensor in encoder.state_dict().items())


@torch.no_grad()
@pytest.mark.parametrize("name", ["hubert", "whisper"])
def test_a_distilled_encoder_of_hugging_face_is_also_a_pretrained_one(made, name):
    other = {"name": "pretrained", "source": str(made / f"{name}_student" / "encoder")}
    vocabulary = models.build_vocabulary(BASELINE | {"encoder": other}, [], {"sad": "sad"}, {})
    loaded = models.build(BASELINE | {"encoder": other}, vocabulary).encoder.eval()
    inputs = padded(clips(8000))
    for folder in (made / f"{name}_student", made / f"{name}_student" / "encoder"):
        assert build(folder).depth == 1
        assert torch.equal(loaded(*inputs)[0], build(folder)(*inputs)[0])


def code(folder):
    with pytest.raises(SertoneError) as caught:
        build(folder)
    return caught.value.code


def test_of_several_models_one_has_to_be_named(made, tmp_path):
    with pytest.raises(SertoneError, match=r"2 models, one per fold.*name a fold") as caught:
        build(made / "run")
    assert caught.value.code == "many_models"
    assert code(tmp_path) == code(tmp_path / "nowhere") == "not_a_checkpoint"


@pytest.mark.parametrize(
    "name, marker", [("compact", "checkpoint.json"), ("compact_student", "encoder.json")]
)
def test_damaged_folders_are_refused(made, tmp_path, name, marker):
    inner = "encoder" if "student" in name else "checkpoint"
    folder = shutil.copytree(made / name / inner, tmp_path / "copy")
    path = folder / "model.safetensors"
    whole, tensors = path.read_bytes(), load_file(path)
    weight = next(key for key in tensors if key.endswith("layers.0.attention.output.weight"))
    build(folder)
    path.write_bytes(whole[:-50])
    assert code(folder) == "bad_weights"
    save_file({key: tensor for key, tensor in tensors.items() if key != weight}, path)
    assert code(folder) == "bad_weights"
    rehash(folder, marker)
    with pytest.raises(SertoneError, match=r"layers\.0\.attention\.output\.weight") as caught:
        build(folder)
    assert caught.value.code == "missing_weights"
    for changed in (tensors[weight] * math.nan, tensors[weight][:3].clone(), tensors[weight].int()):
        save_file(tensors | {weight: changed}, path)
        rehash(folder, marker)
        with pytest.raises(SertoneError, match=r"layers\.0\.attention\.output\.weight") as caught:
            build(folder)
        assert caught.value.code == "bad_weights"
    path.write_bytes(whole)
    rehash(folder, marker)
    about = json.loads((folder / marker).read_text())
    (folder / marker).write_text(json.dumps(about | {"format": 99}))
    assert code(folder) == "other_format"
    (folder / marker).write_text("{")
    assert code(folder) == "bad_weights"


# Licences


def parts(entries):
    return [(entry["what"], entry["of"], entry["id"]) for entry in entries]


def test_a_distilled_encoder_has_the_licences_of_all_its_sources(made):
    about = json.loads((made / "hubert_student" / "encoder" / "encoder.json").read_text())
    (corpus, before, encoder) = parts(about["licences"])
    assert corpus == ("corpus", "a manifest", "cc-by-nc-sa-4.0")
    assert before == ("corpus of the encoder", "a manifest", "cc-by-4.0")
    assert encoder[0] == "encoder" and encoder[2] == "mit"
    readme = (made / "hubert_student" / "encoder" / "README.md").read_text()
    assert yaml.safe_load(readme.split("---")[1])["license"] == "cc-by-nc-sa-4.0"
    assert "Not for commercial use" in readme and str(made) not in readme


@pytest.mark.parametrize("by_name", ["saved", "pretrained"])
def test_a_model_has_the_licences_of_its_encoders_past(made, voices, tmp_path, by_name):
    encoder = {"name": by_name, "source": str(made / "hubert_student" / "encoder")}
    folder = train(recipe(voices / "after.csv", encoder, licence="cc0-1.0"), tmp_path, quiet=True)
    _, _, about = load_model(folder)
    assert [entry[0::2] for entry in parts(about["licences"])] == [
        ("corpus", "cc0-1.0"),
        ("corpus of the encoder", "cc-by-nc-sa-4.0"),
        ("corpus of the encoder", "cc-by-4.0"),
        ("encoder", "mit"),
    ]
    card = (folder / "card.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["license"] == "cc-by-nc-sa-4.0"
    assert "trained before on a manifest" in card and "trained from scratch" not in card


def test_only_the_licences_of_the_speech_encoder_are_inherited():
    corpus = {"title": "x", "licence": asdict(licences.CC0)}
    text = {"name": "pretrained", "source": "roberta-large"}
    before = licences.build_ledger(corpus, {"encoder": {"source": "microsoft/wavlm-base"}, "text": text})
    after = licences.build_ledger(corpus | {"title": "y"}, {"encoder": saved("a"), "text": text}, before)
    assert [(entry["what"], entry["of"]) for entry in after] == [
        ("corpus", "y"),
        ("corpus of the encoder", "x"),
        ("encoder", "microsoft/wavlm-base"),
        ("text encoder", "roberta-large"),
    ]
    assert licences.build_ledger(corpus, {"encoder": saved("a")}, [])[1:] == []


# Whom it has heard


def test_an_encoder_trained_on_the_test_set_is_refused(made, voices):
    for encoder in (saved(made / "compact"), saved(made / "compact_student")):
        with pytest.raises(
            SertoneError, match=r"trained on 8 of its test recordings and 2 of its test speakers"
        ) as caught:
            prepare(recipe(voices / "before.csv", encoder))
        assert caught.value.code == "encoder_trained_on_test"
        assert prepare(recipe(voices / "before.csv", encoder), everything=True).card["encoder"]
    with pytest.raises(SertoneError) as caught:
        prepare(recipe(voices / "before.csv", {"name": "pretrained", "source": hugging_student(made)}))
    assert caught.value.code == "encoder_trained_on_test"
    assert "encoder" not in prepare(recipe(voices / "before.csv", TINY_MODEL["encoder"])).card


def hugging_student(made):
    return str(made / "hubert_student" / "encoder")


def test_new_recordings_of_a_training_speaker_count_too(made, voices, tmp_path):
    head, *rows = (voices / "before.csv").read_text().splitlines()
    for row in rows:
        path = tmp_path / row.split(",")[0]
        path.parent.mkdir(exist_ok=True)
        wav = bytearray((voices / row.split(",")[0]).read_bytes())
        wav[-1] ^= 1
        path.write_bytes(wav)
    (tmp_path / "again.csv").write_text("\n".join([head, *rows]) + "\n")
    with pytest.raises(
        SertoneError, match=r"on 0 of its test recordings and \d of its test speakers"
    ) as caught:
        prepare(recipe(tmp_path / "again.csv", saved(made / "compact")))
    assert caught.value.code == "encoder_trained_on_test"


def test_speakers_seen_without_labels_are_reported_and_allowed(made, voices):
    rows = {}
    for name in ("compact", "compact_student"):
        experiment = prepare(recipe(voices / "after.csv", saved(made / name)))
        rows[name] = dict(protocol.build_rows(experiment.card))["Encoder"]
    assert "without labels 0 recordings and 0 speakers" in rows["compact"]
    assert "without labels 24 recordings and 6 speakers" in rows["compact_student"]


def test_validation_speakers_seen_with_labels_are_counted(made, voices):
    plain = recipe(voices / "after.csv", saved(made / "compact"))
    chosen = plain.model_copy(
        update={"protocol": plain.protocol.model_copy(update={"validation": "speaker"})}
    )
    experiment = prepare(chosen)
    fold, card = experiment.folds[0], experiment.card
    known = [contamination.hash_training_data(side, card) for side in (fold.validation, fold.test)]
    assert [contamination.describe_validation_overlap(fold, card, [past]) for past in known] == [
        "1 of 1",
        "0 of 1",
    ]
    assert "with labels 0 of 1, 0 of 1 validation speakers" in card["encoder"]
    assert "validation" not in prepare(plain).card["encoder"]


def test_another_encoder_for_the_same_folds_is_checked_too(made, voices):
    """As the cells of a study do."""
    plain = prepare(recipe(voices / "before.csv", TINY_MODEL["encoder"]))
    with pytest.raises(SertoneError) as caught:
        plain.with_recipe(recipe(voices / "before.csv", saved(made / "compact")))
    assert caught.value.code == "encoder_trained_on_test"
    other = prepare(recipe(voices / "after.csv", saved(made / "compact_student")))
    assert "24 recordings" in other.card["encoder"]
    before = other.with_recipe(recipe(voices / "after.csv", saved(made / "compact")))
    assert "labels 0 recordings" in before.card["encoder"]
    assert "encoder" not in other.with_recipe(recipe(voices / "after.csv", TINY_MODEL["encoder"])).card


def test_a_model_keeps_the_training_data_of_its_encoder(made, voices, tmp_path):
    """Two generations later the first one's speakers are still known."""
    experiment, progress = (
        prepare(recipe(voices / "after.csv", saved(made / "compact_student"))),
        RunProgress(1, True),
    )
    train_fold(experiment, 0, tmp_path, prepare_data(experiment, progress), progress)
    _, _, about = load_model(tmp_path / "checkpoint")
    everybody = corpora.load("manifest", voices / "before.csv") + experiment.folds[0].train
    expected = {contamination.hash_speaker("manifest", u.speaker) for u in everybody}
    assert set(about["card"]["heard"]["speakers"]) == expected and len(expected) == 4 + 3
    assert len(about["card"]["listened"]["recordings"]) == 24
    assert "without labels 24 recordings" in about["card"]["encoder"]
    with pytest.raises(SertoneError) as caught:
        prepare(recipe(voices / "before.csv", saved(tmp_path)))
    assert caught.value.code == "encoder_trained_on_test"


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_starts_from_a_saved_encoder_begins_with_its_weights(made, voices, tmp_path, name):
    frozen = recipe(voices / "after.csv", saved(made / name), frozen_layers=1)
    out = cross_validate(frozen, tmp_path / "run", jobs=1, quiet=True)
    model, _, _ = load_model(out / "fold_0" / "checkpoint")
    first = build(made / name)
    layers = {n: p for n, p in first.named_parameters() if "layers.0." in n}
    assert layers and all(torch.equal(p, model.encoder.get_parameter(n)) for n, p in layers.items())
    moved = [n for n, p in first.named_parameters() if not torch.equal(p, model.encoder.get_parameter(n))]
    assert moved and "trained before" in (out / "report.html").read_text()

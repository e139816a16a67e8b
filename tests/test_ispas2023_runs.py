"""Runs with audio and text: scores, missing modalities, prediction, other corpora, the gain from text."""

import csv
import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from test_ispas2023 import TINY, build

from sertone import cli, corpora, evaluate, load, models
from sertone import recipe as recipes
from sertone.analysis.compare import compare
from sertone.errors import SertoneError
from sertone.labels import DIMENSIONS
from sertone.nn.batch import Batch
from sertone.recipe import DataConfig, Recipe
from sertone.training.experiment.experiment import prepare
from sertone.training.runs.crossval import cross_validate


@pytest.fixture(scope="module")
def run(tmp_path_factory, small_demo):
    values = {
        "data": {"corpus": "demo", "root": str(small_demo)},
        "protocol": {"split": "grouped_k_fold", "folds": 2, "validation": "speaker"},
        "model": TINY | {"tasks": {"emotion": 0.33, "valence": 0.33, "arousal": 0.33, "dominance": 0.1}},
        "train": {"epochs": [2], "batch_size": 8},
    }
    folder = tmp_path_factory.mktemp("ispas") / "run"
    return cross_validate(Recipe.model_validate(values), folder, jobs=1, quiet=True)


def test_a_run_scores_classes_ratings_and_missing_modalities(run):
    results = json.loads((run / "results.json").read_text())
    assert list(results["pooled"]) == ["emotion", "valence", "arousal", "dominance"]
    assert results["ratings"]["valence"] == {"low": 1.0, "high": 5.0, "unit": "points"}
    conditions = list(results["modalities"])
    assert conditions[:3] == ["audio and text", "audio alone", "text alone"] and "WER" in conditions[3]
    both = results["modalities"]["audio and text"]
    assert both["valence"]["ccc"] == pytest.approx(results["pooled"]["valence"]["ccc"], abs=1e-4)
    assert both["emotion"]["ua"] == pytest.approx(results["pooled"]["emotion"]["ua"])
    card = json.loads((run / "protocol.json").read_text())
    assert card["text"]["source"] == "corpus"


def test_the_scores_of_missing_modalities_follow_from_the_checkpoint(run, small_demo):
    """Compare with predictions from the checkpoint. Without audio, other audio gives the same predictions."""
    fold = json.loads((run / "fold_0" / "result.json").read_text())
    predictor = load(run / "fold_0")
    texts = {u.id: (u.path, u.text) for u in corpora.load_utterances("demo", small_demo)}
    for row, silent in zip(fold["modalities"]["audio alone"], fold["modalities"]["text alone"], strict=True):
        path, text = texts[row["id"]]
        alone = predictor.predict(path)
        assert alone.dimensions["valence"] == pytest.approx(row["valence_prediction"], abs=1e-4)
        (model,), (vocabulary,) = predictor.model.models, predictor.model.vocabularies
        tokens, counts = vocabulary.encode_texts([text])
        unheard = model(Batch(None, torch.tensor([16000]), tokens=tokens, counts=counts))
        expected = model.heads["valence"].decode(unheard["valence"])[0]
        assert silent["valence_prediction"] == pytest.approx(expected, abs=1e-4)
    noisy = fold["modalities"]["audio and text of 30% WER"]
    both = fold["modalities"]["audio and text"]
    differ = [a["valence_prediction"] != b["valence_prediction"] for a, b in zip(noisy, both, strict=True)]
    assert np.mean(differ) > 0.3, "most texts of several words have an error"


def test_no_text_stops_a_series_of_predictions(run, small_demo):
    clip = small_demo / "wav" / "S1F_sad_00.wav"
    found = list(load(run / "fold_0").predict_files([clip] * 3, texts=["fine", "so \ud800", "fine"]))
    assert [f.status for f in found] == ["ok", "error", "ok"] and found[1].code == "failed"


def test_the_card_states_that_the_model_uses_text(run):
    card = (run / "fold_0" / "checkpoint" / "card.md").read_text()
    assert "It also uses the text of an utterance" in card and '--text "what is said"' in card
    assert "the corpus's own transcripts" in card and "CCC valence" in card


def test_prediction_with_text_and_without(run, small_demo):
    utterance = next(u for u in corpora.load_utterances("demo", small_demo) if u.text)
    predictor = load(run / "fold_0")
    assert predictor.model.uses_text and list(predictor.model.scales) == ["valence", "arousal", "dominance"]
    from_audio = predictor.predict(utterance.path)
    assert (from_audio.status, from_audio.code, from_audio.text) == ("warning", "no_text", None)
    assert "audio alone" in from_audio.message and from_audio.label in predictor.model.classes
    read = predictor.predict(utterance.path, text=utterance.text)
    assert (read.status, read.text) == ("ok", utterance.text)
    assert read.dimensions.keys() == {"valence", "arousal", "dominance"} != read.dimensions
    assert read.dimensions != from_audio.dimensions and all(0 <= v <= 5 for v in read.dimensions.values())
    assert predictor.predict(utterance.path, text="...").code == "no_text"
    long = predictor.predict(utterance.path, text="well " * 2000)
    assert long.code == "text_truncated"
    files = list(predictor.predict_files([utterance.path] * 2, texts=[utterance.text, None]))
    assert [f.dimensions for f in files] == [read.dimensions, from_audio.dimensions]
    (asked,) = predictor.predict_files([utterance.path], recogniser=lambda samples: utterance.text)
    assert asked.dimensions == read.dimensions and asked.text == utterance.text


def test_a_prediction_equals_that_of_the_run(run, small_demo):
    """The tokenizer of the checkpoint encodes the text as in training."""
    with open(run / "predictions.csv", newline="") as file:
        row = next(csv.DictReader(file))
    utterance = next(u for u in corpora.load_utterances("demo", small_demo) if u.id == row["id"])
    found = load(run / f"fold_{row['fold']}").predict(utterance.path, text=utterance.text)
    assert found.dimensions["valence"] == pytest.approx(float(row["valence_prediction"]), abs=1e-4)
    assert found.probabilities[found.label] == pytest.approx(float(row[f"p_{found.label}"]), abs=1e-4)


def test_dimensions_alone_from_end_to_end(demo_recipe, tmp_path, small_demo):
    options = TINY | {"tasks": {"emotion": 0, "valence": 0.5, "arousal": 0.5}}
    run = cross_validate(demo_recipe(options, epochs=[1]), tmp_path / "run", jobs=1, quiet=True)
    results = json.loads((run / "results.json").read_text())
    assert list(results["pooled"]) == ["valence", "arousal"] and results["classes"] == []
    assert (run / "report.html").is_file()
    answer = load(run).predict(next((small_demo / "wav").iterdir()), text="hello")
    card = (run / "fold_0" / "checkpoint" / "card.md").read_text()
    assert "counts as" not in card and "emotions a voice expresses" not in card
    assert answer.status == "ok" and answer.label is None and answer.probabilities == {}
    assert set(answer.dimensions) == {"valence", "arousal"}


def test_utterances_outside_the_classes_can_train_ratings(demo_recipe):
    recipe = demo_recipe(TINY | {"tasks": {"emotion": 1, "valence": 1, "arousal": 0}}, epochs=[1])
    data = recipe.data.model_copy(update={"classes": {"happy": "happy", "sad": "sad"}})
    few = prepare(recipe.model_copy(update={"data": data}))
    kept = data.model_copy(update={"outside_classes": "kept"})
    more = prepare(recipe.model_copy(update={"data": kept}))
    assert (len(few.utterances), len(more.utterances)) == (20, 40)
    assert more.build_vocabulary(0).make_targets("emotion", more.utterances).sum() == 20
    assert more.build_vocabulary(0).make_targets("valence", more.utterances).isfinite().all()


def test_ratings_that_the_corpus_lacks_are_refused_first(tmp_path, demo_recipe):
    corpora.fake("ravdess", tmp_path / "ravdess")
    recipe = demo_recipe(TINY, epochs=[1])
    for scales, code in (({}, "no_scale"), ({"valence": (1, 5), "arousal": (1, 5)}, "no_labels")):
        data = DataConfig(corpus="ravdess", root=str(tmp_path / "ravdess"), scales=scales)
        for everything in (True, False):
            with pytest.raises(SertoneError) as caught:
                prepare(recipe.model_copy(update={"data": data}), everything=everything)
            assert caught.value.code == code


def test_incompatible_options_are_named():
    with pytest.raises(SertoneError, match="divisor") as caught:
        build(attention_heads=5)
    assert caught.value.code == "bad_heads"
    with pytest.raises(SertoneError, match="multiple"):
        models.configure(TINY | {"text": {"name": "tiny", "width": 30, "attention_heads": 4}})


def test_a_checkpoint_without_its_tokenizer_is_refused(run, tmp_path):
    copy = shutil.copytree(run / "fold_0" / "checkpoint", tmp_path / "copy")
    (copy / "tokenizer.json").unlink()
    with pytest.raises(SertoneError, match=r"tokenizer\.json"):
        load(copy)


def test_the_command_line_accepts_a_text_or_a_table_and_names_what_is_missing(
    run, small_demo, tmp_path, capsys
):
    model, clip = str(run / "fold_0"), str(small_demo / "wav" / "S1F_sad_00.wav")
    assert cli.app(["predict", model, clip, "--text", "that was it"]) == 0
    (alone,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (
        alone["status"] == "ok"
        and alone["text"] == "that was it"
        and set(alone["dimensions"]) == set(DIMENSIONS)
    )
    (tmp_path / "calls.csv").write_text(f"path,text\n{clip},that was it\n{clip},\nmissing.wav,hello\n")
    assert cli.app(["predict", model, "--manifest", str(tmp_path / "calls.csv")]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["code"] for row in rows] == ["", "no_text", "missing_file"]
    assert rows[0] | {"file": ""} == alone | {"file": ""}
    for wrong, code in (
        (["predict", model, clip, clip, "--text", "x"], "many_files"),
        (["predict", model], "no_files"),
        (["predict", model, clip, "--manifest", str(tmp_path / "calls.csv")], "no_files"),
    ):
        with pytest.raises(SertoneError) as caught:
            cli.app(wrong)
        assert caught.value.code == code


def test_another_corpus_is_scored_on_its_own_scale(run, small_demo, tmp_path):
    """The same recordings with ratings from 0 to 100 give the same concordance."""
    with open(small_demo / "metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    there = small_demo / "hundred.csv"
    with open(there, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow(row | {name: 25 * (float(row[name]) - 1) for name in DIMENSIONS})
    first = evaluate(run, "demo", small_demo, tmp_path / "demo").warnings
    assert any("was trained on" in line for line in first)
    scores = json.loads((tmp_path / "demo" / "results.json").read_text())
    assert set(scores["pooled"]) == {"emotion", *DIMENSIONS}
    second = evaluate(run, "manifest", there, tmp_path / "manifest").warnings
    assert "valence of the corpus has no known scale" in second
    assert list(json.loads((tmp_path / "manifest" / "results.json").read_text())["pooled"]) == ["emotion"]
    with_scale = evaluate(run, "manifest", there, tmp_path / "scaled", scales={"valence": (0, 100)}).warnings
    scaled = json.loads((tmp_path / "scaled" / "results.json").read_text())["pooled"]["valence"]
    assert "arousal of the corpus has no known scale" in with_scale
    assert scaled["ccc"] == pytest.approx(scores["pooled"]["valence"]["ccc"], abs=1e-4)
    assert scaled["rmse"] == pytest.approx(25 * scores["pooled"]["valence"]["rmse"], rel=1e-3)
    unread = evaluate(run, "demo", small_demo, tmp_path / "unread", text="none").warnings
    card = json.loads((tmp_path / "unread" / "protocol.json").read_text())
    assert unread == [*first, "40 of 40 utterances have no text; only their audio is used"]
    assert card["text"]["with_text"] == 0
    with pytest.raises(SertoneError, match="holds an evaluation"):
        evaluate(run, "demo", small_demo, tmp_path / "unread")
    for wrong in ({"valance": (1, 7)}, {"valence": (7, 1)}):
        with pytest.raises(SertoneError, match="scales"):
            evaluate(run, "demo", small_demo, tmp_path / "wrong", scales=wrong)


@pytest.mark.slow
def test_text_helps_valence_where_the_words_carry_it(tmp_path_factory):
    """Check the interval of the difference between the demo recipe with text and without, on the full corpus."""
    root = tmp_path_factory.mktemp("whole") / "demo"
    corpora.fake("demo", root)
    runs = []
    for name, changes in (("heard", ["model.text=null"]), ("read", [])):
        recipe = recipes.load(recipes.find_shipped_recipe("demo_ispas2023"), [f"data.root={root}", *changes])
        runs.append(cross_validate(recipe, root.parent / name, quiet=True))
    found = compare(runs)["differences"][0]["scores"]
    print(found["valence.ccc"])
    assert found["valence.ccc"]["low"] > 0 and found["valence.ccc"]["value"] > 0.03
    assert abs(found["arousal.ccc"]["value"]) < 0.03, "the words say nothing about arousal"


LARGE = """
import json, resource, sys, time
import torch
from sertone import models
from sertone.labels import FOUR_CLASSES, Scale
from sertone.nn import kernels, tokens
from sertone.nn.batch import Batch
from sertone.recipe import DataConfig, Recipe, TextConfig
from sertone.nn.vocabulary import Vocabulary

torch.manual_seed(0)
kernels.choose("torch")
scales = {name: Scale(1.0, 5.0) for name in ("valence", "arousal")}
values = json.loads(sys.argv[1])
tokenizer = tokens.train_tokenizer(["a sentence of some words"] * 4, 100)
model = models.build(values, Vocabulary(FOUR_CLASSES, {"emotion": ["neutral", "happy", "angry", "sad"]}, [], scales, tokenizer))
model.train()
stage = model.stages()[0]
model.encoder.freeze(stage.cut)
for name in stage.frozen:
    model.get_submodule(name).requires_grad_(False)
count, samples = 4, round(4.55 * 16000)
batch = Batch(
    torch.randn(count, samples) * 0.1, torch.full((count,), samples),
    {"emotion": torch.eye(4), "valence": torch.rand(count) * 4 + 1, "arousal": torch.rand(count) * 4 + 1},
    tokens=torch.randint(5, 1000, (count, 16)), counts=torch.full((count,), 16),
)
started = time.monotonic()
outputs = model(batch)
loss = sum(w * model.heads[task].loss(outputs[task], batch.targets[task]) for task, w in stage.weights.items())
loss.backward()
parameters = sum(p.numel() for p in model.parameters())
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps([loss.item(), parameters, peak / 1e9, time.monotonic() - started]))
"""


@pytest.mark.slow
def test_a_step_at_the_papers_size_fits_into_20_gb():
    """The models are HuBERT-large and DeBERTaV3-large by their published shapes, with random float32 weights.

    The batch has four clips of 4.55 s, the mean of IEMOCAP.
    """
    hubert = {"model_type": "hubert", "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
    hubert |= {"intermediate_size": 4096, "feat_extract_norm": "layer", "do_stable_layer_norm": True}
    hubert |= {"conv_bias": True, "layerdrop": 0.0, "mask_time_prob": 0.0}
    deberta = {"model_type": "deberta-v2", "hidden_size": 1024, "num_hidden_layers": 24, "vocab_size": 128100}
    deberta |= {"num_attention_heads": 16, "intermediate_size": 4096, "relative_attention": True}
    deberta |= {"position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True}
    deberta |= {"pos_att_type": "p2c|c2p", "position_biased_input": False, "type_vocab_size": 0}
    values = {
        "name": "ispas2023",
        "encoder": {"name": "architecture", "config": hubert, "normalize": True},
        "text": {"name": "architecture", "config": deberta},
    }
    done = subprocess.run([sys.executable, "-c", LARGE, json.dumps(values)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loss, parameters, gigabytes, seconds = json.loads(done.stdout)
    print(f"{parameters / 1e6:.1f} M parameters, {gigabytes:.1f} GB, {seconds:.0f} s")
    assert math.isfinite(loss) and gigabytes < 20
    assert parameters / 1e6 == pytest.approx(316.6 + 434.0 + 4 * 4.2 + 1, rel=0.01)

"""Audio and text together: the model, withheld modalities, training, and what it is worth without one."""

import csv
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import clips, padded
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_ranks import train_with_two_ranks

from sertone import cli, corpora, models
from sertone import recipe as recipes
from sertone.analysis.compare import compare
from sertone.analysis.evaluate import evaluate
from sertone.errors import SertoneError
from sertone.labels import DIMENSIONS, FOUR, Scale
from sertone.models.stage import Masking
from sertone.nn.batch import Batch
from sertone.recipe import DataConfig, Recipe, TextConfig
from sertone.schema import Utterance
from sertone.training import checkpoint
from sertone.training.answers import answer, score_tasks
from sertone.training.crossval import cross_validate
from sertone.training.experiment import prepare
from sertone.training.folds import fit, gather
from sertone.training.predict import Predictor
from sertone.training.progress import Progress

TINY = {
    "name": "ispas2023",
    "encoder": {"name": "compact", "width": 16, "depth": 2, "attention_heads": 2},
    "text": {"name": "tiny", "width": 24, "depth": 1, "attention_heads": 2, "subwords": 120},
    "attention_heads": 4,
    "bridge_tokens": 3,
    "hidden": 16,
}
SCALES = {name: Scale(1.0, 5.0) for name in DIMENSIONS}
UTTERANCES = [
    Utterance(
        id=str(n),
        path=Path(str(n)),
        speaker="xy"[n % 2],
        text=text,
        labels={"emotion": emotion, "valence": v},
    )
    for n, (text, emotion, v) in enumerate(
        [
            ("what a lovely day", "happy", 4.5),
            (None, "sad", 1.5),
            ("no", "angry", 2.0),
            ("so it is", "neutral", 3.0),
        ]
    )
]
LENGTHS = (9000, 16000, 5000, 12000)
WAVEFORMS, COUNTS = padded(clips(*LENGTHS))


def build(**options):
    values = TINY | options
    vocabulary = models.vocabulary(values, UTTERANCES, FOUR, SCALES)
    torch.manual_seed(0)
    return models.build(values, vocabulary), vocabulary


def batch(vocabulary, utterances=UTTERANCES, texts=None, **changes):
    rows = [UTTERANCES.index(u) for u in utterances]
    longest = int(COUNTS[rows].max())
    texts = [u.text for u in utterances] if texts is None else texts
    read = dict(zip(("tokens", "counts"), vocabulary.tokens(texts), strict=True)) if any(texts) else {}
    tasks = ("emotion", *vocabulary.ratings)
    targets = {t: vocabulary.targets(t, utterances) for t in tasks if t in vocabulary.classes or t in SCALES}
    given = {"waveforms": WAVEFORMS[rows, :longest], "lengths": COUNTS[rows], "targets": targets}
    return Batch(**given | read | changes)


def loss_of(model, data):
    outputs = model(data)
    weights = model.stages()[0].weights
    return sum(w * model.heads[t].loss(outputs[t], data.targets[t]) for t, w in weights.items())


@pytest.mark.parametrize("interaction", ["none", "cross", "bridge"])
@pytest.mark.parametrize("self_attention", [True, False])
@pytest.mark.parametrize("separate", [True, False])
def test_every_form_learns_from_both_modalities(interaction, self_attention, separate):
    options = {"interaction": interaction, "self_attention": self_attention, "separate_regressors": separate}
    model, vocabulary = build(**options, freeze_embeddings=False)
    data = batch(vocabulary)
    outputs = model(data)
    assert list(outputs) == list(model.heads) == ["emotion", "valence", "arousal"]
    assert outputs["emotion"].logits.shape == (4, 4) and outputs["valence"].logits.shape == (4, 1)
    assert set(model.regressors) == ({"valence", "arousal"} if separate else {"shared"})
    loss_of(model, data).backward()
    unmoved = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert not unmoved, "every weight has a gradient"


@pytest.mark.parametrize("interaction", ["none", "cross", "bridge"])
@pytest.mark.parametrize("pairing", ["pad", "stretch"])
def test_answers_do_not_depend_on_neighbours_or_padding(interaction, pairing):
    """With text and without, alone and in a batch."""
    model, vocabulary = build(interaction=interaction, pairing=pairing)
    together = model.eval()(batch(vocabulary))
    for row, utterance in enumerate(UTTERANCES):
        alone = model(batch(vocabulary, [utterance]))
        for task in model.heads:
            torch.testing.assert_close(
                alone[task].logits[0], together[task].logits[row], atol=1e-5, rtol=1e-5
            )


@pytest.mark.parametrize("interaction", ["none", "cross", "bridge"])
def test_withheld_is_missing(interaction):
    """What may not be heard or read makes no difference to the answer, whoever else is in the batch."""
    model, vocabulary = build(interaction=interaction)
    model.eval()
    texts = [u.text or "yes" for u in UTTERANCES]
    silent = batch(vocabulary, texts=texts, waveforms=None)
    some = batch(vocabulary, texts=texts, heard=torch.tensor([False, True, False, True]))
    other = batch(vocabulary, texts=texts, heard=torch.tensor([False, True, False, True]))
    other.waveforms = torch.where(some.heard[:, None], some.waveforms, some.waveforms.flip(1))
    for task in model.heads:
        without, mixed, changed = (model(data)[task].logits for data in (silent, some, other))
        torch.testing.assert_close(mixed[[0, 2]], without[[0, 2]], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(mixed, changed, atol=1e-6, rtol=1e-5)
        unread = model(batch(vocabulary, texts=[None, None, None, "yes"]))[task].logits
        torch.testing.assert_close(unread[:3], model(batch(vocabulary, texts=[None] * 4))[task].logits[:3])
        assert not torch.allclose(without, model(batch(vocabulary, texts=texts))[task].logits, atol=1e-4)


def test_a_silent_batch_trains_the_text_alone_and_one_without_text_the_audio():
    model, vocabulary = build(freeze_embeddings=False)
    loss_of(model, batch(vocabulary, texts=["yes"] * 4, waveforms=None)).backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert any(p.grad is not None for p in model.text.parameters())
    model, vocabulary = build()
    loss_of(model, batch(vocabulary, texts=[None] * 4)).backward()
    assert all(p.grad is None for p in model.text.parameters())


def test_audio_alone_reads_nothing():
    model, vocabulary = build(text=None)
    assert vocabulary.tokenizer == "" and model.text is None and model.stages()[0].masking is None
    assert model(batch(build()[1]))["valence"].logits.shape == (4, 1)


@pytest.mark.parametrize(
    "tasks, heads",
    [
        ({"emotion": 1, "valence": 0, "arousal": 0}, ["emotion"]),
        ({"emotion": 0, "valence": 1, "arousal": 1, "dominance": 1}, ["valence", "arousal", "dominance"]),
    ],
)
def test_categories_alone_and_dimensions_alone(tasks, heads):
    model, vocabulary = build(tasks=tasks)
    assert list(model.heads) == heads == list(model.config.answers)
    assert list(vocabulary.ratings) == [name for name in heads if name in DIMENSIONS]
    assert loss_of(model, batch(vocabulary)).isfinite()
    assert model.stages()[0].weights == {task: weight for task, weight in tasks.items() if weight}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"tasks": {"emotion": 0, "valence": 0, "arousal": 0}}, "at least one"),
        ({"interaction": "bridges"}, "bridge"),
        ({"masking": {"probabilty": 0.1}}, "did you mean 'probability'"),
        ({"text": {"name": "tiny", "widht": 3}}, "did you mean 'width'"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(SertoneError, match=message):
        models.configure(TINY | options)


def test_the_probability_of_masking_is_the_papers_cosine():
    masking, epochs = Masking(), 20
    for epoch in range(epochs):
        cosine = 0.8 * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        expected = 0.0 if cosine < 0.1 else cosine
        assert masking.probability_after(epoch / epochs) == pytest.approx(expected)
    assert Masking(per="off").probability_after(0.0) == 0.0


@settings(deadline=None, max_examples=20)
@given(st.floats(0, 0.99), st.integers(1, 30), st.integers(0, 999))
def test_an_epoch_withholds_one_modality_of_all_or_nothing(done, count, seed):
    drawn = Masking().draw(np.random.default_rng(seed), done, count)
    assert len(drawn) == count and len(set(drawn)) == 1 and drawn[0] in ("", "audio", "text")
    assert drawn == Masking().draw(np.random.default_rng(seed), done, count)


def test_masking_by_utterance_has_the_shares_that_it_should():
    drawn = Masking(per="utterance").draw(np.random.default_rng(0), 0.0, 20000)
    assert drawn.count("text") / 20000 == pytest.approx(0.8 * 0.6, abs=0.015)
    assert drawn.count("audio") / 20000 == pytest.approx(0.8 * 0.4, abs=0.015)
    often = [Masking().draw(np.random.default_rng(n), 0.0, 1)[0] for n in range(3000)]
    assert often.count("text") / 3000 == pytest.approx(0.48, abs=0.03)


def train_fold(recipe, folder):
    experiment, progress = prepare(recipe), Progress(1, quiet=True)
    return fit(experiment, 0, folder, gather(experiment, progress), progress)


@pytest.mark.parametrize(
    "withheld, still, moved", [("text", "text.", "encoder."), ("audio", "encoder.", "text.")]
)
def test_the_encoder_of_a_withheld_modality_is_not_trained(demo_recipe, tmp_path, withheld, still, moved):
    """Masked at every epoch: neither gradient nor weight decay nor momentum moves it."""
    masking = {"probability": 1.0, "least": 0.0, "text": float(withheld == "text")}
    options = TINY | {"masking": masking, "freeze_embeddings": False}
    recipe = demo_recipe(options, epochs=[1], weight_decay=0.5)
    trainer = train_fold(recipe, tmp_path)
    torch.manual_seed(recipe.train.seed * 1000)
    before = models.build(options, trainer.vocabulary).state_dict()
    after = trainer.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any(name.startswith(still) for name in changed)
    assert any(name.startswith(moved) for name in changed)
    assert trainer.history[0][f"without_{withheld}"] == len(trainer.fold.train)


def test_audio_is_never_withheld_from_an_utterance_without_text(demo_recipe, tmp_path):
    """Nor is its encoder left untrained in an epoch in which others' audio is withheld."""
    masking = {"probability": 1.0, "least": 0.0, "text": 0.0}
    recipe = demo_recipe(TINY | {"masking": masking}, epochs=[1])
    data = recipe.data.model_copy(update={"text": TextConfig(source="none")})
    trainer = train_fold(recipe.model_copy(update={"data": data}), tmp_path)
    assert "without_audio" not in trainer.history[0]
    torch.manual_seed(recipe.train.seed * 1000)
    before = models.build(recipe.model, trainer.vocabulary).state_dict()
    moved = {n for n, t in trainer.model.state_dict().items() if not torch.equal(t, before[n])}
    assert any(name.startswith("encoder.") for name in moved)


@pytest.mark.parametrize("per", ["off", "epoch", "utterance"])
def test_an_interrupted_training_ends_with_the_same_weights(demo_recipe, tmp_path, monkeypatch, per):
    masking = {"per": per, "probability": 0.9}
    recipe = demo_recipe(TINY | {"masking": masking}, {"validation": "speaker"}, epochs=[4], save_every=1)
    whole = train_fold(recipe, tmp_path / "whole")
    save = checkpoint.save_resume

    def save_and_stop(folder, number, *rest):
        save(folder, number, *rest)
        if number == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "save_resume", save_and_stop)
        train_fold(recipe, tmp_path / "parts")
    parts = train_fold(recipe, tmp_path / "parts")
    withheld = [[e.get("without_text"), e.get("without_audio")] for e in whole.history]
    assert withheld == [[e.get("without_text"), e.get("without_audio")] for e in parts.history]
    assert any(any(epoch) for epoch in withheld) == (per != "off")
    first, second = (load_file(tmp_path / n / "checkpoint" / "model.safetensors") for n in ("whole", "parts"))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "masking", [{"per": "utterance", "probability": 0.9}, {"probability": 1.0, "text": 1.0}]
)
def test_two_ranks_that_withhold_end_with_the_same_weights(demo_recipe, tmp_path, masking):
    """Some steps leave an encoder out, on one rank or on both."""
    recipe = demo_recipe(TINY | {"masking": masking}, epochs=[2], batch_size=3, device="cpu")
    (first, weights, world), (second, others, _) = train_with_two_ranks(recipe, tmp_path)
    assert world == 2 and [e["loss"] for e in first] == [e["loss"] for e in second]
    assert all((weights[name] == others[name]).all() for name in weights)
    assert all(np.isfinite(weight).all() for weight in weights.values())


def test_a_validation_speaker_chooses_by_the_mean_of_all_answers(demo_recipe, tmp_path):
    recipe = demo_recipe(TINY | {"masking": {"per": "off"}}, {"validation": "speaker"}, epochs=[3])
    trainer = train_fold(recipe, tmp_path)
    means = [np.mean([e["val_ua"], e["val_valence"], e["val_arousal"]]) for e in trainer.history]
    assert len(set(means)) > 1
    side = trainer.fold.validation
    labels = {"valence": [trainer.vocabulary.label("valence", u) for u in side]}
    answers = answer(trainer.model, trainer.vocabulary, side, trainer.loader, trainer.fabric)
    kept = score_tasks(answers, labels, {"valence": "ratings"})["valence"]["ccc"]
    assert kept == pytest.approx(trainer.history[int(np.argmax(means))]["val_valence"], abs=1e-5)


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


def test_the_report_of_missing_modalities_is_of_what_it_says(run, small_demo):
    """Against predictions from the checkpoint; without audio, other audio gives the same answers."""
    fold = json.loads((run / "fold_0" / "result.json").read_text())
    predictor = Predictor(run / "fold_0")
    texts = {u.id: (u.path, u.text) for u in corpora.utterances("demo", small_demo)}
    for row, silent in zip(fold["modalities"]["audio alone"], fold["modalities"]["text alone"], strict=True):
        path, text = texts[row["id"]]
        alone = predictor.predict(path)
        assert alone.dimensions["valence"] == pytest.approx(row["valence_prediction"], abs=1e-4)
        (model,), (vocabulary,) = predictor.models, predictor.vocabularies
        tokens, counts = vocabulary.tokens([text])
        unheard = model(Batch(None, torch.tensor([16000]), tokens=tokens, counts=counts))
        expected = model.heads["valence"].decode(unheard["valence"])[0]
        assert silent["valence_prediction"] == pytest.approx(expected, abs=1e-4)
    noisy = fold["modalities"]["audio and text of 30% WER"]
    both = fold["modalities"]["audio and text"]
    differ = [a["valence_prediction"] != b["valence_prediction"] for a, b in zip(noisy, both, strict=True)]
    assert np.mean(differ) > 0.3, "most texts of several words have an error"


def test_no_text_ends_a_run_of_predictions(run, small_demo):
    clip = small_demo / "wav" / "S1F_sad_00.wav"
    found = list(Predictor(run / "fold_0").predict_files([clip] * 3, texts=["fine", "so \ud800", "fine"]))
    assert [f.status for f in found] == ["ok", "error", "ok"] and found[1].code == "failed"


def test_the_card_says_that_the_model_reads(run):
    card = (run / "fold_0" / "checkpoint" / "card.md").read_text()
    assert "It also reads what is said" in card and '--text "what is said"' in card
    assert "the corpus's own transcripts" in card and "CCC valence" in card


def test_prediction_with_text_and_without(run, small_demo):
    utterance = next(u for u in corpora.utterances("demo", small_demo) if u.text)
    predictor = Predictor(run / "fold_0")
    assert predictor.reads and list(predictor.scales) == ["valence", "arousal", "dominance"]
    heard = predictor.predict(utterance.path)
    assert (heard.status, heard.code, heard.text) == ("warning", "no_text", None)
    assert "audio alone" in heard.message and heard.label in predictor.classes
    read = predictor.predict(utterance.path, text=utterance.text)
    assert (read.status, read.text) == ("ok", utterance.text)
    assert read.dimensions.keys() == {"valence", "arousal", "dominance"} != read.dimensions
    assert read.dimensions != heard.dimensions and all(0 <= v <= 5 for v in read.dimensions.values())
    assert predictor.predict(utterance.path, text="...").code == "no_text"
    long = predictor.predict(utterance.path, text="well " * 2000)
    assert long.code == "text_truncated"
    files = list(predictor.predict_files([utterance.path] * 2, texts=[utterance.text, None]))
    assert [f.dimensions for f in files] == [read.dimensions, heard.dimensions]
    (asked,) = predictor.predict_files([utterance.path], recogniser=lambda samples: utterance.text)
    assert asked.dimensions == read.dimensions and asked.text == utterance.text


def test_a_prediction_is_the_one_of_the_run(run, small_demo):
    """The checkpoint's own tokenizer reads the text as the training did."""
    with open(run / "predictions.csv", newline="") as file:
        row = next(csv.DictReader(file))
    utterance = next(u for u in corpora.utterances("demo", small_demo) if u.id == row["id"])
    found = Predictor(run / f"fold_{row['fold']}").predict(utterance.path, text=utterance.text)
    assert found.dimensions["valence"] == pytest.approx(float(row["valence_prediction"]), abs=1e-4)
    assert found.probabilities[found.label] == pytest.approx(float(row[f"p_{found.label}"]), abs=1e-4)


def test_dimensions_alone_from_end_to_end(demo_recipe, tmp_path, small_demo):
    options = TINY | {"tasks": {"emotion": 0, "valence": 0.5, "arousal": 0.5}}
    run = cross_validate(demo_recipe(options, epochs=[1]), tmp_path / "run", jobs=1, quiet=True)
    results = json.loads((run / "results.json").read_text())
    assert list(results["pooled"]) == ["valence", "arousal"] and results["classes"] == []
    assert (run / "report.html").is_file()
    answer = Predictor(run).predict(next((small_demo / "wav").iterdir()), text="hello")
    card = (run / "fold_0" / "checkpoint" / "card.md").read_text()
    assert "counts as" not in card and "emotions a voice carries" not in card
    assert answer.status == "ok" and answer.label is None and answer.probabilities == {}
    assert set(answer.dimensions) == {"valence", "arousal"}


def test_utterances_outside_the_classes_can_teach_ratings(demo_recipe):
    recipe = demo_recipe(TINY | {"tasks": {"emotion": 1, "valence": 1, "arousal": 0}}, epochs=[1])
    data = recipe.data.model_copy(update={"classes": {"happy": "happy", "sad": "sad"}})
    few = prepare(recipe.model_copy(update={"data": data}))
    kept = data.model_copy(update={"outside_classes": "kept"})
    more = prepare(recipe.model_copy(update={"data": kept}))
    assert (len(few.utterances), len(more.utterances)) == (20, 40)
    assert more.vocabulary(0).targets("emotion", more.utterances).sum() == 20
    assert more.vocabulary(0).targets("valence", more.utterances).isfinite().all()


def test_ratings_that_a_corpus_does_not_have_are_missed_before_anything_else(tmp_path, demo_recipe):
    corpora.fake("ravdess", tmp_path / "ravdess")
    recipe = demo_recipe(TINY, epochs=[1])
    for scales, code in (({}, "no_scale"), ({"valence": (1, 5), "arousal": (1, 5)}, "no_labels")):
        data = DataConfig(corpus="ravdess", root=str(tmp_path / "ravdess"), scales=scales)
        for everything in (True, False):
            with pytest.raises(SertoneError) as caught:
                prepare(recipe.model_copy(update={"data": data}), everything=everything)
            assert caught.value.code == code


def test_options_that_do_not_fit_are_named():
    with pytest.raises(SertoneError, match="divisor") as caught:
        build(attention_heads=5)
    assert caught.value.code == "bad_heads"
    with pytest.raises(SertoneError, match="multiple"):
        models.configure(TINY | {"text": {"name": "tiny", "width": 30, "attention_heads": 4}})


def test_a_checkpoint_without_its_tokenizer_is_refused(run, tmp_path):
    copy = shutil.copytree(run / "fold_0" / "checkpoint", tmp_path / "copy")
    (copy / "tokenizer.json").unlink()
    with pytest.raises(SertoneError, match=r"tokenizer\.json"):
        Predictor(copy)


def test_the_command_line_takes_text_a_table_or_says_what_is_missing(run, small_demo, tmp_path, capsys):
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
    """The same recordings as a manifest whose ratings go from 0 to 100: the same concordance."""
    with open(small_demo / "metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    there = small_demo / "hundred.csv"
    with open(there, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow(row | {name: 25 * (float(row[name]) - 1) for name in DIMENSIONS})
    first = evaluate(run, "demo", small_demo, tmp_path / "demo")
    assert any("has heard" in line for line in first)
    scores = json.loads((tmp_path / "demo" / "results.json").read_text())
    assert set(scores["pooled"]) == {"emotion", *DIMENSIONS}
    second = evaluate(run, "manifest", there, tmp_path / "manifest")
    assert "valence of the corpus has no known scale" in second
    assert list(json.loads((tmp_path / "manifest" / "results.json").read_text())["pooled"]) == ["emotion"]
    with_scale = evaluate(run, "manifest", there, tmp_path / "scaled", scales={"valence": (0, 100)})
    scaled = json.loads((tmp_path / "scaled" / "results.json").read_text())["pooled"]["valence"]
    assert "arousal of the corpus has no known scale" in with_scale
    assert scaled["ccc"] == pytest.approx(scores["pooled"]["valence"]["ccc"], abs=1e-4)
    assert scaled["rmse"] == pytest.approx(25 * scores["pooled"]["valence"]["rmse"], rel=1e-3)
    unread = evaluate(run, "demo", small_demo, tmp_path / "unread", text="none")
    card = json.loads((tmp_path / "unread" / "protocol.json").read_text())
    assert unread == [*first, "40 of 40 utterances have no text; the audio alone answered"]
    assert card["text"]["with_text"] == 0
    with pytest.raises(SertoneError, match="holds an evaluation"):
        evaluate(run, "demo", small_demo, tmp_path / "unread")
    for wrong in ({"valance": (1, 7)}, {"valence": (7, 1)}):
        with pytest.raises(SertoneError, match="scales"):
            evaluate(run, "demo", small_demo, tmp_path / "wrong", scales=wrong)


@pytest.mark.slow
def test_text_helps_valence_where_the_words_tell_of_it(tmp_path_factory):
    """The demo recipe with text and without, on the whole demo corpus: the interval of the difference."""
    root = tmp_path_factory.mktemp("whole") / "demo"
    corpora.fake("demo", root)
    runs = []
    for name, changes in (("heard", ["model.text=null"]), ("read", [])):
        recipe = recipes.load(recipes.shipped("demo_ispas2023"), [f"data.root={root}", *changes])
        runs.append(cross_validate(recipe, root.parent / name, quiet=True))
    found = compare(runs)["differences"][0]["scores"]
    print(found["valence.ccc"])
    assert found["valence.ccc"]["low"] > 0 and found["valence.ccc"]["value"] > 0.03
    assert abs(found["arousal.ccc"]["value"]) < 0.03, "the words say nothing about arousal"


LARGE = """
import json, resource, sys, time
import torch
from sertone import models
from sertone.labels import FOUR, Scale
from sertone.nn import kernels, tokens
from sertone.nn.batch import Batch
from sertone.recipe import DataConfig, Recipe, TextConfig
from sertone.nn.vocabulary import Vocabulary

torch.manual_seed(0)
kernels.choose("torch")
scales = {name: Scale(1.0, 5.0) for name in ("valence", "arousal")}
values = json.loads(sys.argv[1])
tokenizer = tokens.trained(["a sentence of some words"] * 4, 100)
model = models.build(values, Vocabulary(FOUR, {"emotion": ["neutral", "happy", "angry", "sad"]}, [], scales, tokenizer))
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
    """HuBERT-large and DeBERTaV3-large by their published shapes, random weights, four clips of 4.55 s (the
    mean of IEMOCAP), float32."""
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

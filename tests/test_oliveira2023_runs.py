"""Runs of small models: one that uses text only, and one that uses audio and text and weights its layers."""

import json

import pytest
from test_oliveira2023 import AUDIO, TEXT

from sertone import corpora, load
from sertone.analysis.layers.learned_weights import load_layer_weights
from sertone.analysis.layers.probe_layers import probe_layers
from sertone.errors import SertoneError
from sertone.labels import DIMENSIONS
from sertone.recipe import Recipe
from sertone.sharing import encoder_origin
from sertone.sharing import model_folder as folders
from sertone.training.fit import checkpoint
from sertone.training.runs import train
from sertone.training.runs.crossval import cross_validate

FORMS = {
    "both": {"encoder": AUDIO, "text": TEXT, "separate": True, "masking": {"per": "utterance"}},
    "text": {"encoder": None, "text": TEXT},
}


@pytest.fixture(scope="module", params=FORMS)
def run(request, tmp_path_factory, small_demo):
    values = {
        "data": {"corpus": "demo", "root": str(small_demo)},
        "protocol": {"split": "grouped_k_fold", "folds": 2, "validation": "speaker"},
        "model": {"name": "oliveira2023", "hidden": 8, "pooling": "attentive"} | FORMS[request.param],
        "train": {"epochs": [2], "batch_size": 8},
    }
    out = tmp_path_factory.mktemp(request.param) / "run"
    return request.param, cross_validate(Recipe.model_validate(values), out, jobs=1, quiet=True)


def test_a_run_scores_its_ratings_and_states_its_input(run):
    form, out = run
    results = json.loads((out / "results.json").read_text())
    assert list(results["pooled"]) == list(DIMENSIONS)
    assert results["pooled"]["valence"]["utterances"] == 40
    conditions = list(results["modalities"])
    first = {"both": ["audio and text", "audio alone", "text alone"], "text": ["text"]}[form]
    assert conditions == [*first, f"{first[0]} of 10% WER", f"{first[0]} of 30% WER"]
    assert (out / "report.html").is_file()


def test_a_checkpoint_predicts_as_the_run_did(run, small_demo):
    form, out = run
    fold = json.loads((out / "fold_0" / "result.json").read_text())
    predictor = load(out / "fold_0")
    inputs = {u.id: (u.path, u.text) for u in corpora.load_utterances("demo", small_demo)}
    for row in fold["rows"][:4]:
        path, text = inputs[row["id"]]
        prediction = predictor.predict(path, text=text)
        assert prediction.dimensions["arousal"] == pytest.approx(row["arousal_prediction"], abs=1e-3)
        without = predictor.predict(path)
        expected = {"both": ("warning", "no_text"), "text": ("error", "no_text")}[form]
        assert (without.status, without.code) == expected
        assert bool(without.dimensions) == (form == "both")


def test_the_card_describes_the_model(run):
    form, out = run
    card = (out / "fold_0" / "checkpoint" / folders.CARD).read_text()
    assert ("and no audio" in card) == (form == "text")
    assert ("mono speech at 16 kHz" in card) == (form == "both")
    model, _, about = checkpoint.load_model(out / "fold_0" / "checkpoint")
    assert (about["model"]["encoder"] is None) == (form == "text") == (model.encoder.width == 0)
    assert len(about["licences"]) == 1


def layers_of(small_demo, out, **model):
    options = {"name": "oliveira2023", "encoder": AUDIO, "text": TEXT, "hidden": 8} | model
    values = {
        "data": {"corpus": "demo", "root": str(small_demo)},
        "protocol": {"split": "grouped_k_fold", "folds": 2},
        "model": options,
        "train": {"epochs": [1], "batch_size": 8},
    }
    return probe_layers(Recipe.model_validate(values), out, target_names=["arousal"], quiet=True)


def test_layers_of_a_text_model_are_those_of_its_text_encoder(small_demo, tmp_path):
    with pytest.raises(SertoneError, match="--encoder text") as error:
        layers_of(small_demo, tmp_path, encoder=None)
    assert error.value.code == "no_speech_encoder"


def test_layer_weights_of_a_run_belong_to_their_ratings(run):
    form, out = run
    if form == "text":
        with pytest.raises(SertoneError, match="no weighted sum"):
            load_layer_weights(out)
        return
    found = {each["target"]: each for each in load_layer_weights(out)}
    assert set(found) == set(DIMENSIONS)
    model, _, _ = checkpoint.load_model(out / "fold_0" / "checkpoint")
    weights = model.fusions["valence"].weights.softmax(0).tolist()
    assert found["valence"]["models"][0] == pytest.approx(weights)


@pytest.mark.parametrize("saved", [True, False])
def test_only_an_untrained_encoder_is_called_random(saved, tmp_path, small_demo):
    """The encoder is trained on the miniature of EmoDB, which shares no speaker with the demo."""
    corpora.fake("emodb", tmp_path / "emodb")
    encoder = AUDIO
    if saved:
        values = {"data": {"corpus": "emodb", "root": str(tmp_path / "emodb")}}
        values |= {"model": {"name": "baseline", "encoder": AUDIO}, "train": {"epochs": [1], "batch_size": 8}}
        train.train(Recipe.model_validate(values), tmp_path / "run", quiet=True)
        encoder = {"name": "saved", "source": str(tmp_path / "run")}
    found = layers_of(small_demo, tmp_path / "out", encoder=encoder)
    assert ("random" in " ".join(found["warnings"])) == (not saved)


def test_a_text_model_has_no_speech_encoder_to_start_from(run):
    form, out = run
    if form == "text":
        with pytest.raises(SertoneError, match="uses text only") as error:
            encoder_origin.read_origin(str(out / "fold_0"))
        assert error.value.code == "no_speech_encoder"
    else:
        assert encoder_origin.read_origin(str(out / "fold_0")).encoder["name"] == "compact"

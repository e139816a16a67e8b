"""Evaluation on another corpus: label maps, overlap with the training data, the same page as a run."""

import csv
import json
import shutil

import numpy as np
import pytest
import soundfile
from conftest import TINY_MODEL
from exported import COMPACT, TEXT, write_checkpoint
from hypothesis import given
from hypothesis import strategies as st
from test_evaluate_any_model import probabilities, write_manifest

import sertone
from sertone import cli, corpora, evaluate, load
from sertone.analysis.compare import compare
from sertone.errors import SertoneError
from sertone.files import parse_map
from sertone.labels import class_names, remap
from sertone.recipe import Recipe
from sertone.scoring.metrics import emotion_scores
from sertone.training.runs import train

CLASSES = ["neutral", "happy", "angry", "sad"]


@pytest.fixture(scope="module")
def model(small_demo, tmp_path_factory):
    """Return a model that was trained on all of the small demo corpus."""
    values = {
        "data": {"corpus": "demo", "root": str(small_demo)},
        "model": TINY_MODEL,
        "train": {"epochs": [1, 1], "batch_size": 8},
    }
    return train.train(Recipe.model_validate(values), tmp_path_factory.mktemp("model"), quiet=True)


@pytest.fixture(scope="module")
def emodb(tmp_path_factory):
    """Return another corpus: tones with the file names of EmoDB."""
    root = tmp_path_factory.mktemp("emodb") / "corpus"
    corpora.fake("emodb", root)
    return root


def read_rows(out):
    with open(out / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_another_corpus(model, emodb, tmp_path, capsys):
    assert cli.app(["evaluate", str(model), "emodb", str(emodb), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert "interval over 10 speakers" in printed.out
    assert "30 of 70 utterances have an emotion outside the classes" in printed.err
    assert "was trained on" not in printed.err
    rows, predictor = read_rows(tmp_path / "out"), load(model, any_sound=True)
    assert len(rows) == 40
    for row in rows[::7]:
        alone = predictor.predict(emodb / "wav" / f"{row['id']}.wav")
        assert alone.label == row["prediction"]
        assert [float(row[f"p_{c}"]) for c in CLASSES] == pytest.approx(
            list(alone.probabilities.values()), abs=1e-4
        )
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    expected = emotion_scores([r["target"] for r in rows], [r["prediction"] for r in rows])
    assert {k: results["pooled"]["emotion"][k] for k in expected} == pytest.approx(expected)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "was trained on none of these recordings" in page and "<h2>Training</h2>" not in page
    assert "Recipe" not in page


def test_overlap_with_training_is_named(model, small_demo, tmp_path):
    warnings = evaluate(model, "demo", small_demo, tmp_path / "same").warnings
    assert "trained on 40 of these recordings" in warnings[0] and "10 of these speakers" in warnings[1]
    page = (tmp_path / "same" / "report.html").read_text()
    assert "was trained on 40 of these recordings" in page
    assert "speaker-independent" not in page and "never seen in training" not in page
    copy = tmp_path / "copy"
    shutil.copytree(small_demo, copy)
    for path in (copy / "wav").glob("*.wav"):  # one speaker's voice recorded anew, under the same name
        if not path.name.startswith("S1F"):
            path.unlink()
        else:
            path.write_bytes(path.read_bytes() + b"\0\0")
    text = (copy / "metadata.csv").read_text().splitlines()
    remaining = [line for line in text if "S1F" in line or line == text[0]]
    (copy / "metadata.csv").write_text("\n".join(remaining) + "\n")
    (warning,) = evaluate(model, "demo", copy, tmp_path / "new").warnings
    assert "trained on 1 of these speakers, such as S1F" in warning
    training_data = json.loads((model / "checkpoint.json").read_text())["card"]["heard"]
    assert "S1F" not in json.dumps(training_data), "kept as hashes"


def test_classes_are_left_out_merged_and_renamed(model, emodb, tmp_path):
    evaluate(model, "emodb", emodb, tmp_path / "whole")
    merge = {"neutral": "calm", "happy": "loud", "angry": "loud"}
    evaluate(model, "emodb", emodb, tmp_path / "merged", classes=merge)
    unmerged, merged = (
        {row["id"]: row for row in read_rows(tmp_path / name)} for name in ("whole", "merged")
    )
    assert set(merged) == {name for name, row in unmerged.items() if row["target"] != "sad"}
    for name, row in merged.items():
        p = {c: float(unmerged[name][f"p_{c}"]) for c in CLASSES}
        loud = (p["happy"] + p["angry"]) / (1 - p["sad"])
        assert float(row["p_loud"]) == pytest.approx(loud, abs=1e-4)
        assert row["target"] == merge[unmerged[name]["target"]]
        assert row["prediction"] == ("loud" if loud > 0.5 else "calm")


def test_emotions_of_the_corpus_under_other_names(model, emodb, tmp_path):
    evaluate(model, "emodb", emodb, tmp_path / "out", emotions={"bored": "sad", "happy": "happy"})
    rows = read_rows(tmp_path / "out")
    assert {row["target"] for row in rows} == {"sad", "happy"} and len(rows) == 20
    with pytest.raises(SertoneError, match="glad, which the model does not know"):
        evaluate(model, "emodb", emodb, tmp_path / "out", emotions={"happy": "glad"})
    with pytest.raises(SertoneError, match="glad, which the model does not know"):
        evaluate(model, "emodb", emodb, tmp_path / "out", classes={"glad": "good"})
    with pytest.raises(SertoneError, match="frustrated, which the corpus does not have"):
        evaluate(model, "emodb", emodb, tmp_path / "out", emotions={"frustrated": "angry"})
    with pytest.raises(SertoneError, match="--emotions says") as caught:
        evaluate(model, "emodb", emodb, tmp_path / "out", emotions={"happy": "happy"}, classes={"sad": "sad"})
    assert caught.value.code == "no_targets"


@pytest.fixture
def mixed(tmp_path, emodb):
    """Return a table with unusual columns: three utterances of known classes, four of others, one undecided."""
    clips = sorted((emodb / "wav").glob("[0-9]*.wav"))
    labels = ["Sad", "ANGRY", "Joy", "rage", "rage", "Rage", "awe", "no_agreement"]
    lines = [f"{clip};s{n};{emotion}" for n, (clip, emotion) in enumerate(zip(clips, labels, strict=False))]
    (tmp_path / "mixed.csv").write_text("\n".join(["clip;Spk;feeling", *lines]) + "\n")
    return tmp_path / "mixed.csv"


def test_a_corpus_that_is_mostly_in_no_class_is_refused(model, mixed, tmp_path, capsys):
    command = ["evaluate", str(model), "manifest", str(mixed), "--columns", "path=clip,emotion=feeling"]
    with pytest.raises(SertoneError, match=r"4 of 7 labelled utterances .* rage 3, awe 1;") as caught:
        cli.app([*command, "--out", str(tmp_path / "refused")])
    assert caught.value.code == "unmapped_labels" and not (tmp_path / "refused").exists()
    assert "--emotions joy=happy,rage=angry" in str(caught.value)
    assert "--classes neutral,happy,angry,sad" in str(caught.value)
    for name, choice in (
        ("mapped", ["--emotions", "Rage=angry,SAD=sad,joy=happy,angry=angry"]),
        ("alone", ["--classes", "neutral,happy,angry,sad"]),
    ):
        assert cli.app([*command, "--out", str(tmp_path / name), *choice]) == 0
    assert "5 of 8 utterances have an emotion outside the classes: rage 3, " in capsys.readouterr().err
    targets = [row["target"] for row in read_rows(tmp_path / "mapped")]
    assert sorted(targets) == ["angry"] * 4 + ["happy", "sad"]
    assert len(read_rows(tmp_path / "alone")) == 3
    (tmp_path / "half.csv").write_text("".join(mixed.read_text().splitlines(True)[:7]))
    reader = {"columns": {"path": "clip", "emotion": "feeling"}}
    evaluate(model, "manifest", tmp_path / "half.csv", tmp_path / "half", reader=reader)
    assert len(read_rows(tmp_path / "half")) == 3


def test_other_content_is_not_overwritten_and_two_models_are_compared(model, emodb, tmp_path):
    shutil.copytree(model, tmp_path / "other")
    evaluate(model, "emodb", emodb, tmp_path / "first")
    before = (tmp_path / "first" / "predictions.csv").read_bytes()
    evaluate(model, "emodb", emodb, tmp_path / "first")
    with pytest.raises(SertoneError, match="holds an evaluation of") as caught:
        evaluate(tmp_path / "other", "emodb", emodb, tmp_path / "first")
    assert caught.value.code == "other_experiment"
    assert (tmp_path / "first" / "predictions.csv").read_bytes() == before
    run = model.parent
    (tmp_path / "run").mkdir()
    shutil.copy(run / "protocol.json", tmp_path / "run")
    with pytest.raises(SertoneError, match="holds another run"):
        evaluate(model, "emodb", emodb, tmp_path / "run")
    evaluate(tmp_path / "other", "emodb", emodb, tmp_path / "second")
    comparison = compare([tmp_path / "first", tmp_path / "second"])
    assert comparison["differences"][0]["scores"]["ua"]["value"] == 0


def test_texts_of_long_recordings_are_counted(experiment, tmp_path):
    shape = {"attention_heads": 2, "hidden": 8, "bridge_tokens": 3}
    values = {"name": "ispas2023", "encoder": COMPACT, "text": TEXT, **shape}
    model = write_checkpoint(tmp_path / "model", experiment, **values)
    columns = {"emotion": CLASSES, "text": ["well", "well", "then", ""]}
    table = write_manifest(tmp_path / "own", (31.0, 0.6, 32.0, 0.5), **columns)
    warnings = evaluate(model, "manifest", table, tmp_path / "out").warnings
    warning = "2 of 4 utterances have a text and are longer than 30 s: they are predicted by windows, without their text"
    assert warning in warnings and "1 of 4 utterances have no text; only their audio is used" in warnings
    text = json.loads((tmp_path / "out" / "protocol.json").read_text())["text"]
    assert (text["with_text"], text["without_text"]) == (1, 3)


def test_a_checkpoint_that_only_rates(experiment, tmp_path):
    """The model has no classes, and one recording is predicted by windows."""
    values = {"name": "oliveira2023", "encoder": COMPACT, "text": None, "hidden": 8}
    model = write_checkpoint(tmp_path / "model", experiment, **values)
    table = write_manifest(tmp_path / "own", (31.0, 0.6, 0.7, 0.8), arousal=[1, 2, 4, 3])
    evaluation = evaluate(model, "manifest", table, tmp_path / "out", scales={"arousal": (1, 5)})
    assert set(evaluation.scores) == {"arousal.ccc", "arousal.pearson", "arousal.rmse"}
    for row in read_rows(tmp_path / "out")[:2]:
        answer = load(model, any_sound=True).predict(table.parent / f"{row['id'].removesuffix('.wav')}.wav")
        assert float(row["arousal_prediction"]) == pytest.approx(answer.dimensions["arousal"], abs=1e-3)


def test_the_longest_utterance_of_a_recipe(toy, tmp_path):
    table = write_manifest(tmp_path / "own", (0.5, 0.6, 2.0, 0.8), emotion=CLASSES)
    data = {"corpus": "manifest", "root": str(table), "max_seconds": 1.0}
    counts = {
        longer: sertone.evaluate(toy, data | {"longer": longer}, out=tmp_path / longer).utterances
        for longer in ("cut", "left_out")
    }
    assert counts == {"cut": 4, "left_out": 3}
    card = json.loads((tmp_path / "cut" / "protocol.json").read_text())
    assert card["max_seconds"] == {"seconds": 1.0, "longer": "cut", "utterances": 1}
    shorter = soundfile.read(table.parent / "2.wav", frames=16000, dtype="float32")[0]
    row = next(row for row in read_rows(tmp_path / "cut") if row["id"].startswith("2"))
    alone = load(toy, any_sound=True).predict(shorter, 16000).probabilities
    assert probabilities(row) == pytest.approx(list(alone.values()), abs=1e-4)
    for wrong, code in (({"longer": "error"}, "longer_utterances"), ({"max_seconds": 0.1}, "no_targets")):
        with pytest.raises(SertoneError) as caught:
            sertone.evaluate(toy, data | {"longer": "left_out"} | wrong, out=tmp_path / "refused")
        assert caught.value.code == code
    with pytest.raises(SertoneError, match="holds an evaluation"):
        sertone.evaluate(toy, data | {"longer": "cut", "max_seconds": 0.7}, out=tmp_path / "cut")


def test_maps_as_text_and_as_a_file(tmp_path):
    assert parse_map("happy=positive, sad", "--classes") == {"happy": "positive", "sad": "sad"}
    (tmp_path / "map.yaml").write_text("happy: positive\nsad: negative\n")
    assert parse_map(str(tmp_path / "map.yaml"), "--classes") == {"happy": "positive", "sad": "negative"}
    (tmp_path / "list.yaml").write_text("[happy, sad]\n")
    (tmp_path / "broken.yaml").write_text("{happy: [")
    wrong = ["", "=sad", "happy=a,happy=b", "x" * 400 + "="]
    for text in (*wrong[:3], *(str(tmp_path / f"{name}.yaml") for name in ("list", "broken", "nowhere"))):
        with pytest.raises(SertoneError) as caught:
            parse_map(text, "--classes")
        assert caught.value.code == "bad_map"
    assert parse_map(wrong[3], "--classes") == {"x" * 400: "x" * 400}


@given(
    st.lists(st.tuples(*[st.floats(0.01, 1)] * 4), min_size=1, max_size=5),
    st.dictionaries(st.sampled_from(CLASSES), st.sampled_from("xy"), min_size=1),
)
def test_remapped_probabilities_are_the_conditional_ones(rows, mapping):
    p = np.array(rows) / np.sum(rows, 1, keepdims=True)
    remapped = remap(p, CLASSES, mapping)
    assert remapped.sum(1) == pytest.approx(1)
    for row, answer in zip(p, remapped, strict=True):
        remaining = {old: share for old, share in zip(CLASSES, row, strict=True) if old in mapping}
        for new, share in zip(class_names(mapping), answer, strict=True):
            expected = sum(s for old, s in remaining.items() if mapping[old] == new) / sum(remaining.values())
            assert share == pytest.approx(expected)
    with pytest.raises(SertoneError, match="bored"):
        remap(p, CLASSES, {"bored": "x"})

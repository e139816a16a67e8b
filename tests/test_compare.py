"""Comparisons: only of runs with one protocol, or of what they have in common, and it is said."""

import csv
import json
import shutil

import numpy as np
import pytest

from sertone import cli
from sertone.analysis.compare import compare, describe_difference, to_text
from sertone.errors import SertoneError
from sertone.scoring.metrics import emotion_scores

CLASSES = ["angry", "happy", "neutral", "sad"]


def write_run(folder, accuracy, seed=0, **changes):
    """The files of a finished run whose answers are right with a known probability."""
    random = np.random.default_rng(seed)
    rows = []
    for speaker in range(10):
        for number in range(40):
            target = CLASSES[number % 4]
            wrong = CLASSES[(number + 1) % 4]
            answer = target if random.random() < accuracy else wrong
            rows.append(
                {"id": f"s{speaker}_{number}", "fold": speaker // 2, "speaker": f"s{speaker}"}
                | {"target": target, "prediction": answer}
            )
    folder.mkdir(parents=True)
    with open(folder / "predictions.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(random.permutation(rows).tolist())  # order does not count
    card = {
        "file_hashes": {row["id"]: row["id"] for row in rows},
        "segments": {},
        "class_map": {name: name for name in CLASSES},
        "split": {"split": "grouped_k_fold", "folds": 5},
        "folds": [{"test_speakers": [f"s{2 * n}", f"s{2 * n + 1}"]} for n in range(5)],
        "seed": seed,
    }
    (folder / "protocol.json").write_text(json.dumps(card | changes))
    (folder / "results.json").write_text(json.dumps({"classes": CLASSES}))
    return folder


def ua_of(folder, keep=lambda row: True):
    with open(folder / "predictions.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if keep(row)]
    return emotion_scores([r["target"] for r in rows], [r["prediction"] for r in rows])["ua"]


def test_a_real_difference_and_none(tmp_path, capsys):
    low, high = write_run(tmp_path / "low", 0.5), write_run(tmp_path / "high", 0.8, seed=1)
    same = write_run(tmp_path / "same", 0.5, seed=2)
    found = compare([low, high, same])
    real, none = found["differences"]
    assert real["scores"]["ua"]["value"] == pytest.approx(ua_of(high) - ua_of(low))
    assert real["scores"]["ua"]["low"] > 0.15 and real["scores"]["ua"]["p"] < 0.05
    assert real["mcnemar"]["p"] < 1e-6
    assert none["scores"]["ua"]["low"] < 0 < none["scores"]["ua"]["high"]
    assert "do show" in real["sentence"] and "do not show which one is better" in none["sentence"]
    assert cli.app(["compare", str(low), str(high), str(same)]) == 0
    out = capsys.readouterr().out
    assert real["sentence"] in out and none["sentence"] in out and "drawing 10 speakers" in out
    assert cli.app(["compare", str(low), str(high), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["speakers"] == 10


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"class_map": {"happy": "joy"}}, "the classes"),
        ({"file_hashes": {"s0_0": "other"}}, "the recordings"),
        ({"segments": {"s0_0": [0, 1]}}, "where utterances start and end"),
        ({"split": {"split": "official"}}, "the split"),
        ({"folds": [{"test_speakers": ["s0"]}]}, "who is held out"),
    ],
)
def test_unlike_protocols_are_refused_and_named(tmp_path, change, words):
    first, second = write_run(tmp_path / "first", 0.7), write_run(tmp_path / "second", 0.7, **change)
    with pytest.raises(SertoneError, match=words) as caught:
        compare([first, second])
    assert caught.value.code == "unlike_protocols"
    found = compare([first, second], force=True)
    assert f"NOT THE SAME PROTOCOL: the runs differ in {words}" in to_text(found)


def test_force_compares_what_both_have(tmp_path):
    first, second = write_run(tmp_path / "first", 0.6), write_run(tmp_path / "second", 0.9, split={})
    text = (second / "predictions.csv").read_text().splitlines()
    kept = [text[0], *(line for line in text[1:] if ",s9," not in line)]
    (second / "predictions.csv").write_text("\n".join(kept))
    found = compare([first, second], force=True)
    assert (found["utterances"], found["speakers"]) == (360, 9)
    value = found["differences"][0]["scores"]["ua"]["value"]
    assert value == pytest.approx(ua_of(second) - ua_of(first, lambda row: row["speaker"] != "s9"))
    empty = write_run(tmp_path / "empty", 0.5, split={})
    (empty / "predictions.csv").write_text("id,fold,speaker,target,prediction\nx,0,y,sad,sad\n")
    with pytest.raises(SertoneError, match="no utterance that all runs") as caught:
        compare([first, empty], force=True)
    assert caught.value.code == "nothing_in_common"


FOUR = {name: name for name in CLASSES}
OCCURRING = {"by_emotion": dict.fromkeys(CLASSES, 100)}


def test_labels_that_do_not_occur_make_no_difference(tmp_path):
    first = write_run(tmp_path / "first", 0.7, corpus=OCCURRING)
    second = write_run(tmp_path / "second", 0.7, corpus=OCCURRING, class_map=FOUR | {"excited": "happy"})
    assert compare([first, second])["unlike"] == compare([second, first])["unlike"] == []
    heard = {"by_emotion": OCCURRING["by_emotion"] | {"excited": 3}}
    for name, changes in (("occurs", {"corpus": heard}), ("does_not_say", {"corpus": {}})):
        third = write_run(tmp_path / name, 0.7, class_map=FOUR | {"excited": "happy"}, **changes)
        with pytest.raises(SertoneError) as caught:
            compare([first, third])
        assert f"excited counts as no class in {first} and as happy in {third}" in str(caught.value)
        assert caught.value.code == "unlike_protocols"


def test_how_classes_differ_is_said(tmp_path):
    first = write_run(tmp_path / "first", 0.7, corpus=OCCURRING)
    other = FOUR | {"happy": "neutral", "sad": "low"}
    second = write_run(tmp_path / "second", 0.7, corpus=OCCURRING, class_map=other)
    (second / "results.json").write_text(json.dumps({"classes": [*CLASSES, "low"]}))
    found = compare([first, second], force=True)
    assert f"happy counts as happy in {first} and as neutral in {second}" in to_text(found)
    assert f"sad counts as sad in {first} and as low in {second}; only {second} answers low" in to_text(found)
    many = {f"label {number}": "happy" for number in range(9)}
    third = write_run(tmp_path / "third", 0.7, class_map=FOUR | many)
    with pytest.raises(SertoneError, match=r"label 4 counts .*; and 4 more\)"):
        compare([first, third])


def test_runs_with_several_seeds_are_averaged(tmp_path):
    for seed in range(3):
        write_run(tmp_path / "a" / f"seed_{seed}", 0.6, seed=seed)
        write_run(tmp_path / "b" / f"seed_{seed}", 0.7, seed=10 + seed)
    found = compare([tmp_path / "a", tmp_path / "b"])
    means = [np.mean([ua_of(tmp_path / name / f"seed_{seed}") for seed in range(3)]) for name in "ab"]
    assert [run["scores"]["ua"] for run in found["runs"]] == pytest.approx(means)
    assert found["differences"][0]["mcnemar"] is None and "mean of 3 seeds" in to_text(found)
    shutil.copytree(tmp_path / "a" / "seed_0", tmp_path / "one")
    assert compare([tmp_path / "one", tmp_path / "b"])["differences"][0]["scores"]["ua"]["value"] > 0


def test_what_cannot_be_compared(tmp_path):
    run = write_run(tmp_path / "run", 0.5)
    for paths, code in [([run], "too_few_runs"), ([run, tmp_path], "not_a_run")]:
        with pytest.raises(SertoneError) as caught:
            compare(paths)
        assert caught.value.code == code


def test_the_sentence_fits_its_figures():
    found = describe_difference(
        {"value": -0.03, "low": -0.05, "high": -0.01, "p": 0.01}, "24 speakers", single_training=True
    )
    assert "3.0 points of UA lower, by 1.0 to 5.0" in found
    assert "same UA" in describe_difference(
        {"value": 0.0, "low": -0.1, "high": 0.1, "p": 1.0}, "24 speakers", single_training=True
    )
    assert "another seed may turn it" in found
    assert "seed" not in describe_difference(
        {"value": 0.1, "low": 0.05, "high": 0.2, "p": 0.01}, "24 speakers", single_training=False
    )


def test_edited_labels_are_noticed(tmp_path):
    first, second = write_run(tmp_path / "first", 0.7), write_run(tmp_path / "second", 0.7)
    lines = (second / "predictions.csv").read_text().splitlines()
    row = next(number for number, line in enumerate(lines) if line.startswith("s3_0,"))
    lines[row] = lines[row].replace(",angry,", ",sad,", 1)
    (second / "predictions.csv").write_text("\n".join(lines))
    with pytest.raises(SertoneError, match="differ in the labels"):
        compare([first, second])
    assert compare([first, second], force=True)["utterances"] == 399

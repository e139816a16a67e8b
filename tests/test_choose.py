"""Choosing among settings: inside a fold's training side, and never by who is tested."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import REPOSITORY, TINY_MODEL
from hub import running

from sertone import recipe as recipes
from sertone.analysis.compare import compare, to_text
from sertone.analysis.study import study as studies
from sertone.analysis.study.ablate import ablate
from sertone.analysis.study.choose import choose
from sertone.analysis.study.study import slugify
from sertone.cli import app
from sertone.errors import SertoneError
from sertone.runtime.bundle import read_metadata
from sertone.sharing.card_scores import describe_choice, find_choice

WIDTHS = (4, 5, 6)
RATES = {"name": "oliveira2023", "encoder": TINY_MODEL["encoder"], "text": None, "hidden": 8}
RATES["tasks"] = {"arousal": 1, "valence": 1, "dominance": 0}


def write_study(folder, noises, rows, **changes):
    """Settings for emotions that noise does not tell, and for its arousal, which it does."""
    recipe = {
        "data": {"corpus": "manifest", "root": str(noises), "scales": {"arousal": [1, 5], "valence": [1, 5]}},
        "protocol": {"split": "grouped_k_fold", "folds": 3},
        "model": {"name": "baseline", "encoder": TINY_MODEL["encoder"], "hidden": 8},
        "train": {"epochs": [1], "batch_size": 16, "device": "cpu"},
    }
    for name, value in changes.pop("recipe", {}).items():
        part, key = name.split(".")
        recipe[part][key] = value
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    study = {"title": "widths", "recipe": "recipe.yaml", "columns": {"tiny": {}}, "rows": rows} | changes
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return folder / "study.yaml"


@pytest.fixture(scope="module")
def done(tmp_path_factory, noises):
    """A finished choice among three widths: the study's file, and the folder."""
    folder = tmp_path_factory.mktemp("choice")
    path = write_study(folder, noises, {f"width {n}": {"model.hidden": n} for n in WIDTHS})
    return path, choose(path, folder / "out", jobs=1, quiet=True)


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def accuracy(rows):
    """Unweighted accuracy, a second formula: the mean of the classes' shares of right answers."""
    right = defaultdict(list)
    for row in rows:
        right[row["target"]].append(row["target"] == row["prediction"])
    return np.mean([np.mean(own) for own in right.values()])


def cell(width):
    return f"cells/width-{width}/tiny/seed_0/predictions.csv"


def test_a_fold_is_answered_by_what_was_best_on_its_training_side(done):
    _, out = done
    found = json.loads((out / "choice.json").read_text())
    answers, everybody = read(out / "chosen/seed_0/predictions.csv"), {f"s{n}" for n in range(10)}
    assert len(found["folds"]) == 3 and {row["speaker"] for row in answers} == everybody
    for number, fold in enumerate(found["folds"]):
        own = [row for row in answers if row["fold"] == str(number)]
        inside = {n: read(out / f"inside/fold_{number}" / cell(n)) for n in WIDTHS}
        for rows in inside.values():
            assert {row["speaker"] for row in rows} == everybody - {row["speaker"] for row in own}
        best = max(WIDTHS, key=lambda n: accuracy(inside[n]))
        assert fold["row"] == f"width {best}" and fold["inside"] == pytest.approx(accuracy(inside[best]))
        assert fold["outside"] == pytest.approx(accuracy(own))
        assert own == [row for row in read(out / "all" / cell(best)) if row["fold"] == str(number)]
    assert found["scores"]["ua"]["value"] == pytest.approx(accuracy(answers))
    low, high = found["scores"]["ua"]["interval"]
    assert low < accuracy(answers) < high and found["among"] == 3 and found["speakers"] == 10


def test_the_recipe_to_train_with_is_the_best_on_all_speakers(done):
    _, out = done
    best = max(WIDTHS, key=lambda n: accuracy(read(out / "all" / cell(n))))
    found = json.loads((out / "choice.json").read_text())
    assert found["overall"]["row"] == f"width {best}"
    assert found["overall"]["score"] == pytest.approx(accuracy(read(out / "all" / cell(best))))
    assert recipes.load(out / "recipe.yaml").model["hidden"] == best
    assert (out / "run/predictions.csv").read_bytes() == (out / "all" / cell(best)).read_bytes()


def test_a_finished_choice_trains_nothing_again(done):
    path, out = done
    names = ("choice.json", "choice.md", "run/report.html")
    kept = {out / name: (out / name).read_bytes() for name in names}
    times = {file: file.stat().st_mtime_ns for file in out.rglob("fold_*/result.json")}
    assert len(times) == 3 * (3 + 3 * 2) + 3
    choose(path, out, jobs=1, quiet=True)
    assert {file: file.stat().st_mtime_ns for file in out.rglob("fold_*/result.json")} == times
    assert {file: file.read_bytes() for file in kept} == kept


def test_what_people_read_of_it(done):
    _, out = done
    found = json.loads((out / "choice.json").read_text())
    text, page = (out / "choice.md").read_text(), (out / "chosen/seed_0/report.html").read_text()
    assert f"- UA {found['scores']['ua']['value']:.1%} (" in text and "do not report it" in text
    for fold in found["folds"]:
        row = f"{fold['row']} / {fold['column']}"
        assert (
            f"| {fold['name']} | {row} | {100 * fold['inside']:.1f} | {100 * fold['outside']:.1f} |" in text
        )
        assert f"<td>{fold['name']}</td><td>{row}</td>" in page
    assert "settings chosen without the fold that they answer" in page
    assert "settings chosen without it" in page and "the best of 3, in UA, of “widths”" in page
    own = (out / "run/report.html").read_text()
    assert "settings chosen without it" not in own and "scored best of 3 in UA on these same" in own
    assert "scored best of" not in page
    compared = compare([out / "run", out / "chosen"])
    assert compared["utterances"] == 160 and not compared["unlike"]
    assert [each["best_of"] for each in compared["runs"]] == ["3 in UA", ""]
    assert to_text(compared).count("FLATTERED: settings that scored best of 3 in UA on these speakers") == 1


def test_a_model_of_the_best_settings_states_what_choosing_them_is_worth(done, tmp_path, capsys):
    _, out = done
    found = json.loads((out / "choice.json").read_text())
    assert app(["train", str(out / "recipe.yaml"), "--out", str(tmp_path / "model")]) == 0
    arguments = ["export", str(tmp_path / "model"), str(tmp_path / "bundle"), "--scores"]
    assert app([*arguments, str(out), "--coverage", "0.8"]) == 0
    told, again = read_metadata(tmp_path / "bundle"), [*arguments[:2], str(tmp_path / "again"), "--scores"]
    assert app([*again, str(out / "run")]) == 0  # the best one's own score is not stated
    assert read_metadata(tmp_path / "again")["scores"] == told["scores"]
    assert told["scores"]["values"] == {name: each["value"] for name, each in found["scores"].items()}
    assert told["scores"]["among"] == 3 and told["calibration"]["fitted_on"]["utterances"] == 160
    assert app(["export", str(out / "run/fold_0"), str(tmp_path / "fold")]) == 0
    assert not read_metadata(tmp_path / "fold")["scores"]  # its speakers had a part in choosing
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert "Pooled over 3 folds of a nested cross-validation: 160 utterances of 10 speakers" in card
    assert "the best of 3 on all speakers" in card and f"{found['scores']['ua']['value']:.1%}" in card
    capsys.readouterr()
    assert app(["info", str(tmp_path / "bundle")]) == 0
    assert "160 utterances, 10 speakers, answered by settings chosen without them" in capsys.readouterr().out
    other = str(tmp_path / "other")
    changed = [str(out / "recipe.yaml"), "--set", "model.hidden=9", "--out", other]
    assert app(["train", *changed]) == 0
    with pytest.raises(SertoneError) as caught:
        app(["export", other, str(tmp_path / "no"), "--scores", str(out)], result_action="return_value")
    assert caught.value.code == "other_recipe"


def test_a_fold_of_the_best_settings_goes_to_the_hub_without_a_score(done, tmp_path):
    fold = done[1] / "run/fold_0"
    with running() as hub:
        variables = os.environ | hub.environment(tmp_path / "cache")
        command = [sys.executable, "-m", "sertone", "push", str(fold), "me/fold"]
        subprocess.run(command, env=variables, check=True, capture_output=True)
    readme = hub.repositories["me/fold"].files["README.md"].decode()
    assert "has not been scored" in readme  # its speakers had a part in choosing
    assert "has not been scored" not in (fold / "checkpoint/card.md").read_text()


def test_a_model_of_all_speakers_beside_the_runs_keeps_its_card(done, monkeypatch):
    """It is in the folder of the choice, and no fold of the best settings."""
    _, out = done
    assert app(["train", str(out / "recipe.yaml"), "--out", str(out / "model")]) == 0
    assert (
        describe_choice(out / "run") == "3 in UA"
        and not describe_choice(out / "model")
        and not describe_choice(out)
    )
    monkeypatch.chdir(out / "run")
    assert describe_choice(Path()) == "3 in UA" and find_choice(Path()) == out.resolve()


def error(file):
    """Root mean square error of arousal, a second formula."""
    apart = [float(row["arousal_target"]) - float(row["arousal_prediction"]) for row in read(file)]
    return np.sqrt(np.mean(np.square(apart)))


def test_of_an_error_the_lowest_is_best_and_several_seeds_count_by_their_mean(tmp_path, noises):
    slow = {"train.learning_rate": {"encoder": 1e-9, "downstream": 1e-9}}
    rows = {"learns": {}, "stands still": slow}
    path = write_study(
        tmp_path, noises, rows, set={"model": RATES}, scores=["arousal.rmse"], recipe={"protocol.folds": 2}
    )
    out = choose(path, tmp_path / "out", seeds=[0, 1], jobs=1, quiet=True)
    found = json.loads((out / "choice.json").read_text())

    def mean(folder, row):
        files = sorted(folder.glob(f"cells/{row.replace(' ', '-')}/tiny/seed_*/predictions.csv"))
        assert len(files) == 2
        return np.mean([error(file) for file in files])

    for number, fold in enumerate(found["folds"]):
        assert fold["row"] == min(rows, key=lambda row: mean(out / f"inside/fold_{number}", row))
    assert found["overall"]["row"] == min(rows, key=lambda row: mean(out / "all", row))
    own = [error(file) for file in sorted(out.glob("chosen/seed_*/predictions.csv"))]
    assert found["scores"]["arousal.rmse"]["seeds"] == pytest.approx(own, rel=1e-4) and len(own) == 2
    assert found["scores"]["arousal.rmse"]["value"] == pytest.approx(np.mean(own), rel=1e-4)


def test_trainings_of_other_settings_are_no_choice_and_old_answers_go(done, tmp_path):
    path, out = done
    shutil.copytree(out, tmp_path / "out")
    (tmp_path / "out/chosen/seed_7").mkdir()
    study = tmp_path / "study.yaml"
    study.write_text(path.read_text())
    shutil.copy(path.parent / "recipe.yaml", tmp_path)
    choose(study, tmp_path / "out", jobs=1, quiet=True)
    assert [folder.name for folder in (tmp_path / "out/chosen").iterdir()] == ["seed_0"]
    changed = ["train.weight_decay=0.5"]
    with pytest.raises(SertoneError, match=r"train\.weight_decay: was") as caught:
        choose(study, tmp_path / "out", changed, jobs=1, quiet=True)
    assert caught.value.code == "other_experiment" and (tmp_path / "out/choice.json").is_file()
    ablate(study, tmp_path / "out/all", changed, jobs=1, force=True, quiet=True)
    with pytest.raises(SertoneError, match=r"width 4 / tiny.* were trained with other settings") as caught:
        choose(study, tmp_path / "out", changed, jobs=1, quiet=True)
    assert caught.value.code == "other_experiment"


def test_what_a_study_sets_cannot_bring_test_speakers_back(tmp_path, noises):
    kept = {"data.only.speaker": ["s0", "s1"], "protocol.folds": 2}
    path = write_study(tmp_path, noises, {"a": {}, "b": {"model.hidden": 5}}, set=kept)
    wide = ["data.only={speaker: [s1, s2, s3]}", "protocol={split: grouped_k_fold, folds: 3}"]
    _, made = studies.load_study(path, [*wide, "data.only.speaker=[s1, s2]", "protocol.folds=4"])
    for recipe in made.values():
        assert recipe.data.only == {"speaker": ["s1", "s2"]} and recipe.protocol.folds == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scores": ["gender.accuracy"]}, "the best in accuracy of models that answer emotion"),
        ({"rows": {"a": {}, "b": {"model": RATES}}}, "that answer arousal, valence; emotion"),
    ],
)
def test_settings_that_have_no_score_in_common_are_refused(tmp_path, noises, changes, words):
    changes = {"rows": {"a": {}, "b": {"model.hidden": 5}}} | changes
    with pytest.raises(SertoneError, match=words) as caught:
        choose(write_study(tmp_path, noises, **changes), tmp_path / "out", jobs=1, quiet=True)
    assert caught.value.code == "nothing_to_choose" and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("rows", "protocol", "code", "words"),
    [
        (1, {}, "nothing_to_choose", "one row and one column"),
        (2, {"protocol.split": "official"}, "no_folds_inside", "an official split"),
        (
            2,
            {"data.only": {"speaker": ["s0", "s1"]}, "protocol.folds": 2},
            "no_folds_inside",
            "without fold s1",
        ),
    ],
)
def test_what_cannot_be_chosen_is_refused_before_anything_is_trained(
    tmp_path, noises, rows, protocol, code, words
):
    lines = noises.read_text().splitlines()  # s8 and s9 are marked as an official test side
    marked = [
        f"{noises.parent}/{line},{'test' if ',s8,' in line or ',s9,' in line else 'train'}"
        for line in lines[1:]
    ]
    (tmp_path / "metadata.csv").write_text("\n".join([f"{lines[0]},split", *marked]))
    rows = {f"row {n}": {"model.hidden": 4 + n} for n in range(rows)}
    path = write_study(
        tmp_path,
        tmp_path / "metadata.csv",
        rows,
        set={"model": RATES},
        scores=["arousal.ccc"],
        recipe=protocol,
    )
    with pytest.raises(SertoneError, match=words) as caught:
        choose(path, tmp_path / "out", jobs=1, quiet=True)
    assert caught.value.code == code and not (tmp_path / "out").exists()


def test_the_asr_weight_is_chosen_inside_the_training_speakers(tmp_path, small_demo):
    """The shipped study in miniature: two of its weights, two folds, one epoch a stage."""
    values = yaml.safe_load((REPOSITORY / "studies/demo_asr_weight.yaml").read_text())
    recipe, weights = REPOSITORY / "recipes/demo.yaml", {"ASR 0.1": 0.1, "ASR 1": 1.0}
    values |= {"recipe": str(recipe), "rows": {name: values["rows"][name] for name in weights}}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    short = [f"data.root={small_demo}", "protocol={split: grouped_k_fold, folds: 2}"]
    short += ["train.epochs=[1,1]", "model.hidden=8", "model.encoder={name: compact, width: 8, depth: 1}"]
    out = choose(path, tmp_path / "out", short, jobs=1, quiet=True)
    found = json.loads((out / "choice.json").read_text())
    made = recipes.load(out / "recipe.yaml")
    assert made.model["tasks"]["asr"] == weights[found["overall"]["row"]]
    assert found["main_score"] == "ua" and found["among"] == 2
    for number, fold in enumerate(found["folds"]):
        held_out = {
            row["speaker"]
            for row in read(out / "chosen/seed_0/predictions.csv")
            if row["fold"] == f"{number}"
        }
        table = json.loads((out / f"inside/fold_{number}/results.json").read_text())
        cells = {row["name"]: row["cells"]["one encoder"] for row in table["rows"]}
        best = max(weights, key=lambda name: cells[name]["scores"]["ua"]["value"])
        assert fold["row"] == best and not held_out & speakers_of(out / f"inside/fold_{number}")
    losses = [first_loss(out / "all", name) for name in weights]
    assert losses[0] < losses[1], "the weight does not reach the loss"
    cells = json.loads((out / "all/results.json").read_text())["rows"]
    assert all(row["cells"]["one encoder"]["scores"]["auxiliary/asr.cer"]["value"] for row in cells)


def speakers_of(study):
    return {row["speaker"] for file in study.rglob("predictions.csv") for row in read(file)}


def first_loss(study, row):
    """Loss of the first epoch of stage 1."""
    (file,) = study.glob(f"cells/{slugify(row)}/*/seed_0/fold_0/result.json")
    return json.loads(file.read_text())["history"][0]["loss"]

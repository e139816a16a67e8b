"""Studies: the shipped ones are sound, cells share what they can, a killed one ends as if nothing had been."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import REPOSITORY, TINY_MODEL

from sertone import recipe as recipes
from sertone.analysis.study import study as studies
from sertone.analysis.study.ablate import ablate
from sertone.analysis.study.study import TableCell
from sertone.errors import SertoneError
from sertone.nn.encoders.functionals import FunctionalsEncoderConfig
from sertone.recipe.settings import parse
from sertone.training.runs.crossval import cross_validate

SHIPPED = sorted((REPOSITORY / "studies").glob("*.yaml"))
FILES = ("table.md", "table.csv", "table.tex", "results.json", "report.html")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_studies(path):
    study, made = studies.load_study(path)
    assert len(made) == len(study.rows) * len(study.columns) * len(study.seeds)
    assert len({json.dumps(recipe.model_dump(mode="json")) for recipe in made.values()}) == len(made)
    assert len({place.folder for place in made}) == len(made)
    wrong = yaml.safe_load(path.read_text()) | {"compare_to": "nobody"}
    with pytest.raises(SertoneError, match="'nobody' is no row"):
        parse(studies.Study, wrong, "study", "bad_study")


def test_the_schema_for_editors_is_up_to_date():
    schema = json.loads((REPOSITORY / "studies" / "schema.json").read_text())
    assert schema == studies.Study.model_json_schema(), "write it again: make schema"
    assert all("$schema=schema.json" in path.read_text().splitlines()[0] for path in SHIPPED)


@pytest.mark.parametrize("stem", ["wan2025_table1", "wan2025_table2"])
def test_the_papers_baseline_has_one_fully_connected_layer(stem):
    _, made = studies.load_study(REPOSITORY / "studies" / f"{stem}.yaml")
    baselines = [recipe.model for place, recipe in made.items() if place.row == "baseline"]
    assert len(baselines) == 3 and all(model["hidden"] is None for model in baselines)


@pytest.mark.parametrize("stem", ["wan2025_table4", "demo_table4"])
def test_table_4_has_every_subset_of_the_tasks(stem):
    _, made = studies.load_study(REPOSITORY / "studies" / f"{stem}.yaml")
    found = {}
    for place, recipe in made.items():
        tasks = frozenset(task for task, weight in recipe.model["tasks"].items() if weight)
        found.setdefault(place.column, set()).add(tasks)
        named = set() if place.row == "SER alone" else set(place.row.split(" + "))
        assert tasks == named and len(recipe.train.epochs) == (2 if tasks else 1)
    assert len(found) == 3 and all(len(subsets) == 16 for subsets in found.values())


def test_the_small_model_is_one_of_those_that_it_was_chosen_from():
    _, made = studies.load_study(REPOSITORY / "studies" / "compact.yaml")
    shipped = recipes.load(recipes.find_shipped_recipe("compact"))
    assert [place for place, recipe in made.items() if recipe == shipped] == [
        TableCell("477 statistics", "one speed", 0)
    ]
    for place, recipe in made.items():
        assert place.row == f"{FunctionalsEncoderConfig(**recipe.model['encoder']).build().width} statistics"


def test_the_papers_own_figures_are_consistent():
    """The means that the text implies are those of Table III's encoders."""
    study, _ = studies.load_study(REPOSITORY / "studies" / "wan2025_table2.yaml")
    assert study.published
    for score in ("ua", "wa"):
        own = [study.published.rows["full"][encoder][score] for encoder in study.columns]
        assert study.published.inferred["full"]["mean"][score] == pytest.approx(np.mean(own), abs=0.006)


def write_study(folder, corpus, **changes):
    """Two systems with one first stage, and one without, on the small demo corpus."""
    recipe = {
        "data": {"corpus": "demo", "root": str(corpus)},
        "protocol": {"split": "grouped_k_fold", "folds": 2},
        "model": TINY_MODEL,
        "train": {"epochs": [1, 1], "batch_size": 8},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    study = {
        "title": "a & b_2",
        "recipe": "recipe.yaml",
        "columns": {"tiny": {}, "tinier": {"model.encoder": TINY_MODEL["encoder"] | {"depth": 1}}},
        "rows": {
            "baseline": {"model": {"name": "baseline", "hidden": 8}, "train.epochs": [1]},
            "w/o co-attention": {"model.co_attention": False},
            "full": {},
        },
        "set": {"model.frozen_layers": 0},
        "published": {
            "source": "nowhere",
            "rows": {"full": {"tiny": {"ua": 12.34}}},
            "inferred": {"full": {"mean": {"wa": 56.7}}},
        },
        "reference": [{"name": "Others & co", "source": "elsewhere", "figures": {"ua": 65.4}}],
    }
    study["columns"]["tiny"] = {"model.encoder": TINY_MODEL["encoder"]}
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study | changes, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory, small_demo):
    """A finished study: its YAML file and its folder."""
    folder = tmp_path_factory.mktemp("study")
    path = write_study(folder, small_demo)
    return path, ablate(path, folder / "out", jobs=2, quiet=True)


def test_rows_with_the_same_first_stage_train_it_once_and_answer_as_if_alone(done, tmp_path):
    path, out = done
    _, made = studies.load_study(path)
    seconds = {}
    for place, recipe in made.items():
        folds = json.loads((out / place.folder / "results.json").read_text())["folds"]
        first = [entry for fold in folds for entry in fold["history"] if entry["stage"] == "auxiliary"]
        seconds[place.row, place.column] = [entry["seconds"] for entry in first]
        if (place.row, place.column) == ("full", "tiny"):
            alone = cross_validate(recipe, tmp_path / "alone", jobs=1, quiet=True)
            shared = (out / place.folder / "predictions.csv").read_bytes()
            assert (alone / "predictions.csv").read_bytes() == shared
            scored = json.loads((alone / "results.json").read_text())["after_stages"]
            for row in ("full", "w-o-co-attention"):
                theirs = json.loads((out / "cells" / row / "tiny/seed_0/results.json").read_text())
                assert theirs["after_stages"] == scored
    for column in ("tiny", "tinier"):  # measured once: the same seconds, to the last digit
        assert seconds["full", column] == seconds["w/o co-attention", column] != []
    assert seconds["full", "tiny"] != seconds["full", "tinier"]
    assert not (out / "first_stages").exists()
    assert not list(out.glob("cells/**/checkpoint"))


def test_the_table_holds_what_the_runs_scored(done):
    _, out = done
    text = (out / "table.md").read_text()
    with open(out / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    by_cell = {}
    for row in rows:
        if row["runs"]:
            results = json.loads((out / row["runs"] / "results.json").read_text())
            score = results["pooled"]["emotion"][row["score"]]
            assert float(row["value"]) == pytest.approx(score)
            by_cell.setdefault((row["row"], row["score"]), []).append(score)
            folds = [fold["metrics"]["emotion"][row["score"]] for fold in results["folds"]]
            assert float(row["mean_over_folds"]) == pytest.approx(np.mean(folds))
            assert f"{100 * np.mean(folds):.1f}" in text
            low, high = results["pooled"]["emotion"]["intervals"]["speakers"][row["score"]]
            assert (float(row["low"]), float(row["high"])) == pytest.approx((low, high))
            assert f"{100 * score:.1f}" in text
    assert rows.pop()["published_as_printed"] == "65.4" and "65.4" in text
    for row in rows:
        if row["column"] == "mean":
            assert float(row["value"]) == pytest.approx(np.mean(by_cell[row["row"], row["score"]]))
    printed = re.findall(r"^\|  \| paper \(convention not stated\) \|(.*)\|$", text, re.M)
    assert len(printed) == 1 and "seed 0" in text  # of one row alone the paper has figures
    assert [cell.strip() for cell in printed[0].split("|")] == ["12.34", "", "", "", "", "56.7 (inferred)"]
    apart = next(r for r in rows if (r["row"], r["column"], r["score"]) == ("full", "tiny", "ua"))
    difference = by_cell["full", "ua"][0] - by_cell["baseline", "ua"][0]
    assert float(apart["difference"]) == pytest.approx(difference)
    tex = (out / "table.tex").read_text()
    body = tex[tex.index("\\toprule") :]
    shown = [line for line in body.splitlines() if not line.startswith("%")]
    assert len(shown) > 5 and all(not re.search(r"(?<!\\)[%#_]", line) for line in shown)
    assert r"Others \& co (elsewhere) & 65.4 & - \\" in tex
    assert "% a & b_2" in tex and tex.count("&") > 6
    page = (out / "report.html").read_text()
    for link in re.findall(r'href="([^"]+)"', page):
        assert (out / link).is_file(), link
    assert page.count("<svg") == page.count('role="img"') == 3


def test_several_seeds_give_mean_and_spread(tmp_path, small_demo):
    one_row = {"rows": {"full": {}}, "columns": {"tiny": {}}, "seeds": [3, 5], "published": None}
    scores = ["ua", "wa", "asr.cer", "auxiliary/asr.cer"]
    path = write_study(tmp_path, small_demo, scores=scores, **one_row)
    out = ablate(path, tmp_path / "out", jobs=1, quiet=True)
    runs = sorted((out / "cells").glob("*/*/*"))
    assert [run.name for run in runs] == ["seed_3", "seed_5"]
    results = [json.loads((run / "results.json").read_text()) for run in runs]
    ways = [each["pooled"]["asr"]["cer"] for each in results]
    (cell,) = json.loads((out / "results.json").read_text())["rows"][0]["cells"].values()
    found = cell["scores"]["asr.cer"]
    assert found["value"] == pytest.approx(sum(ways) / 2)
    assert found["spread"] == pytest.approx(abs(ways[0] - ways[1]) / 2**0.5)
    after = cell["scores"]["auxiliary/asr.cer"]
    first = [each["after_stages"]["auxiliary"] for each in results]
    assert after["value"] == pytest.approx(np.mean([each["pooled"]["asr"]["cer"] for each in first]))
    means = [each["mean"]["asr"]["cer"] for each in first]
    assert after["mean_over_folds"]["value"] == pytest.approx(np.mean(means))
    assert after["mean_over_folds"]["spread"] == pytest.approx(np.std(means, ddof=1))
    assert after["value"] != cell["scores"]["asr.cer"]["value"]
    text = (out / "table.md").read_text()
    assert "mean ± standard deviation over seeds 3, 5" in text
    assert "|  |  | UA | WA | CER | CER after stage 1 |" in text  # a single column has no name


@pytest.mark.slow
def test_killed_at_a_random_moment_the_table_is_the_same(done, tmp_path):
    path, out = done
    command = [sys.executable, "-m", "sertone", "ablate", str(path), "--out", str(tmp_path / "out")]
    started = subprocess.Popen(
        [*command, "--jobs", "2"], start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    assert started.stderr
    for line in started.stderr:
        if "test UA" in line:
            break
    time.sleep(np.random.default_rng(os.getpid()).uniform(0, 1))
    os.killpg(started.pid, signal.SIGKILL)
    started.communicate()
    results = list((tmp_path / "out").glob("cells/*/*/*/fold_*/result.json"))
    assert results and not (tmp_path / "out" / "table.md").exists()
    subprocess.run([*command, "--jobs", "2"], check=True, capture_output=True)
    for name in ("table.md", "table.csv", "table.tex", "results.json"):
        assert (tmp_path / "out" / name).read_bytes() == (out / name).read_bytes(), name


def test_what_is_wrong_with_a_study_is_named(tmp_path, small_demo):
    def refused(**changes):
        with pytest.raises(SertoneError) as caught:
            ablate(write_study(tmp_path, small_demo, **changes), tmp_path / "out", quiet=True)
        return f"{caught.value.code} {caught.value}"

    assert "bad_study" in refused(scores=["accuracy"])
    assert "same folder" in refused(rows={"a b": {}, "a-b": {}})
    assert "another protocol" in refused(rows={"a": {}, "b": {"protocol.folds": 3}}, published=None)
    found = refused(rows={"a": {}, "b": {"model.fusio": "last"}}, published=None)
    assert "did you mean 'fusion'" in found and "b, tiny" in found
    assert "wrong_epochs" in refused(rows={"a": {}, "b": {"train.epochs": [1]}}, published=None)
    assert not list(tmp_path.glob("out/cells/*/*/*/fold_*")), "nothing is trained before all is checked"
    with pytest.raises(SertoneError, match="no file"):
        studies.load_study(tmp_path / "nothing.yaml")
    broken = Path(tmp_path / "broken.yaml")
    broken.write_text("- a list\n")
    with pytest.raises(SertoneError, match="holds no keys"):
        studies.load_study(broken)


def test_a_cell_that_fails_does_not_keep_the_others_from_being_done(tmp_path, small_demo):
    rows = {
        "sound": {},
        "bursts": {"train.learning_rate": {"encoder": 1e30, "downstream": 1e30}},
        "later": {},
    }
    rows["later"] = {"train.epochs": [1, 2]}
    one = {"columns": {"tiny": {}}, "published": None}
    path = write_study(tmp_path, small_demo, rows=rows, **one)
    with pytest.raises(SertoneError, match="bursts, tiny, seed 0") as caught:
        ablate(path, tmp_path / "out", jobs=1, quiet=True)
    assert caught.value.code == "not_finite"
    text = (tmp_path / "out" / "table.md").read_text()
    assert "2 of 3 runs are done" in text
    assert (tmp_path / "out/cells/later/tiny/seed_0/results.json").is_file()


def test_forced_cells_are_marked_and_a_study_runs_again_from_its_own_folder(tmp_path, small_demo):
    one = {"rows": {"full": {}}, "columns": {"tiny": {}}, "published": None}
    out = ablate(write_study(tmp_path, small_demo, **one), tmp_path / "out", jobs=1, quiet=True)
    before = (out / "table.md").read_bytes()
    ablate(out / "study.yaml", out, jobs=1, quiet=True)
    assert (out / "table.md").read_bytes() == before and b"*" not in before
    changed = write_study(tmp_path, small_demo, **one | {"rows": {"full": {"model.dropout": 0.3}}})
    with pytest.raises(SertoneError, match=r"model\.dropout: was") as caught:
        ablate(changed, out, jobs=1, quiet=True)
    assert caught.value.code == "other_experiment"
    ablate(changed, out, jobs=1, quiet=True, force=True)
    assert "trained with other settings than the study has now" in (out / "table.md").read_text()
    assert "trained with other settings" in (out / "report.html").read_text()


@pytest.mark.parametrize("name", ["train.seed", "model.frozen_layers", "model.encoder.width", "model"])
def test_a_setting_that_would_be_lost_is_refused(tmp_path, small_demo, name):
    path = write_study(tmp_path, small_demo)
    _, made = studies.load_study(path, ["train.batch_size=4"])
    assert all(recipe.train.batch_size == 4 for recipe in made.values())
    with pytest.raises(SertoneError, match=f"--set {name}, which") as caught:
        studies.load_study(path, [f"{name}=1"])
    assert caught.value.code == "bad_override"
    _, made = studies.load_study(path, seeds=[4, 5])
    assert {place.seed for place in made} == {recipe.train.seed for recipe in made.values()} == {4, 5}

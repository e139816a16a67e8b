"""Runs of models with ratings: tables of studies, comparisons, cards."""

import csv
import json
import math
import re

import pytest
import yaml
from hub import metadata_errors
from huggingface_hub import ModelCard
from rated import (
    CLASSES,
    MAP,
    SCALE,
    SIDES,
    card_of,
    edit,
    expected_of,
    fold_of,
    results_of,
    rows_of,
    write_run,
)

from sertone.analysis.compare import compare
from sertone.analysis.comparison_text import to_text
from sertone.analysis.study import table, table_formats
from sertone.analysis.study.study import Study, TableCell
from sertone.errors import SertoneError
from sertone.report import study as study_page
from sertone.scoring.display import SCORE_FORMATS
from sertone.sharing import model_card
from sertone.sharing.card_scores import Scores


def build_study(scores, **changes):
    values = {
        "title": "a study", "recipe": "r.yaml", "columns": {"c": {}}, "scores": scores,
        "rows": {"both": {}, "dimensions": {}, "emotion": {}},
    }  # fmt: skip
    return Study.model_validate(values | changes)


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Return a folder of runs with both, with dimensions only and with emotions only, and their cells."""
    out = tmp_path_factory.mktemp("study")
    options = {"both": {}, "dimensions": {"classes": [], "noise": 0.9}, "emotion": {"sides": []}}
    for row, model_options in options.items():
        write_run(out / "cells" / row, **model_options)
    return out, {TableCell(row, "c", 0): out / "cells" / row for row in options}


def test_tables_show_both_kinds_of_scores_and_empty_cells(cells):
    out, finished = cells
    published = {"source": "P", "rows": {"both": {"c": {"ua": 75.71, "valence.ccc": 0.74}}}}
    reference = [{"name": "Others", "figures": {"valence.ccc": 0.638}}]
    study = build_study(["ua", "valence.ccc"], published=published, reference=reference)
    results = table.build_results(study, finished, out, card_of())
    pooled = {row: results_of(out / "cells" / row)["pooled"] for row in ("both", "dimensions", "emotion")}
    text, (ccc, ua) = (
        table_formats.format_markdown(results),
        (pooled["both"]["valence"]["ccc"], pooled["both"]["emotion"]["ua"]),
    )
    means = results_of(out / "cells" / "both")["mean"]
    mean = f"{100 * means['emotion']['ua']:.1f} | .{round(1000 * means['valence']['ccc'])}"
    assert (
        f"| both | pooled | {100 * ua:.1f} | .{round(1000 * ccc)} |\n|  | mean over folds | {mean} |\n"
        "|  | paper (convention not stated) | 75.71 | .740 |\n"
    ) in text
    assert f"| dimensions | pooled |  | .{round(1000 * pooled['dimensions']['valence']['ccc'])} |" in text
    assert f"| emotion | pooled | {100 * pooled['emotion']['emotion']['ua']:.1f} |  |" in text
    assert (
        "UA in percent, CCC from -1 to 1, pooled (all test utterances together) and as the mean over 5"
        in text
    )
    assert "Paper: P, which does not say whether a score is pooled or a mean over folds" in text
    assert "Differences from both in UA, in points" in text and "| Others | - | .638 |" in text
    assert r"Others & - & .638 \\" in table_formats.format_latex(results)
    lines = {
        (r["row"], r["score"]): r for r in csv.DictReader(table_formats.format_csv(results).splitlines())
    }
    apart = lines["dimensions", "valence.ccc"]
    difference = pooled["dimensions"]["valence"]["ccc"] - ccc
    assert float(apart["difference"]) == pytest.approx(difference) and float(apart["p"]) < 0.05
    low, high = pooled["dimensions"]["valence"]["intervals"]["speakers"]["ccc"]
    assert (float(apart["low"]), float(apart["high"])) == pytest.approx((low, high))
    assert lines["dimensions", "ua"]["value"] == lines["emotion", "valence.ccc"]["difference"] == ""
    assert lines["both", "valence.ccc"]["published_as_printed"] == "0.74"


@pytest.mark.parametrize(
    ("convention", "order", "words"),
    [
        ("pooled", ["pooled", "paper (pooled)", "mean over folds"], "P, which prints pooled scores."),
        (
            "mean over folds",
            ["pooled", "mean over folds", "paper (mean over folds)"],
            "prints means over folds.",
        ),
        (
            "not stated",
            ["pooled", "mean over folds", "paper (convention not stated)"],
            "commonly print the mean",
        ),
    ],
)
def test_the_score_of_the_paper_stands_beside_its_convention(cells, convention, order, words):
    out, finished = cells
    published = {"source": "P", "convention": convention, "rows": {"both": {"c": {"ua": 75.71}}}}
    results = table.build_results(build_study(["ua"], published=published), finished, out, card_of())
    text, tex = table_formats.format_markdown(results), table_formats.format_latex(results)
    lines = text[text.index("| both |") : text.index("| dimensions |")].splitlines()
    assert [line.split(" | ")[1] for line in lines] == order
    assert words in text and words in tex
    places = [tex.index(f"{kind} &") for kind in order]
    assert places == sorted(places)
    line = next(csv.DictReader(table_formats.format_csv(results).splitlines()))
    assert line["published_convention"] == convention and line["published_as_printed"] == "75.71"
    (out / "results.json").write_text(json.dumps(results))
    page = study_page.write(out).read_text()
    mean = page.index(f"<small>mean {100 * float(line['mean_over_folds']):.1f}")
    assert (page.index("paper 75.71") < mean) == (convention == "pooled") and words in page


def test_one_fold_has_one_kind_of_score(cells):
    out, finished = cells
    results = table.build_results(build_study(["ua"]), finished, out, card_of()) | {"folds": 1}
    text = table_formats.format_markdown(results)
    assert "mean over folds" not in text and re.search(r"^\| both \| \d+\.\d \|$", text, re.M)


def test_a_rating_can_be_the_main_score(cells):
    out, finished = cells
    study = build_study(["arousal.ccc", "arousal.rmse", "wa"])
    assert (
        study.main_score == "arousal.ccc"
        and build_study(["asr.cer", "gender.accuracy"]).main_score == "asr.cer"
    )
    results = table.build_results(study, finished, out, card_of())
    text = table_formats.format_markdown(results)
    assert "Differences from both in CCC arousal, with 95 % intervals" in text
    apart = results["rows"][1]["cells"]["c"]["scores"]["arousal.ccc"]["difference"]
    assert f"| c | dimensions | -.{round(-1000 * apart['value']):03d} | -." in text
    (out / "results.json").write_text(json.dumps(results))
    page = study_page.write(out).read_text()
    (words,) = re.findall(r'aria-label="(CCC arousal of c: difference from both\.[^"]*)"', page)
    assert f"dimensions {apart['value']:+.3g} ({apart['low']:+.3g} to {apart['high']:+.3g})" in words
    assert "Dot and bar: difference in CCC arousal, and its 95 % interval" in page
    assert "CCC from -1 to 1, RMSE in points of the scale, WA in percent. Bold: all test" in page
    rmse = results_of(out / "cells" / "both")["pooled"]["arousal"]["rmse"]
    assert f"<b>{rmse:.3f}</b>" in page


def test_compare_describes_differences_of_ratings(tmp_path, both):
    first, second = both, write_run(tmp_path / "second", noise=0.9, seed=2)
    comparison = compare([first, second])
    (apart,) = comparison["differences"]
    ccc = [expected_of(rows_of(run / "predictions.csv"), "valence")["ccc"] for run in (first, second)]
    assert apart["scores"]["valence.ccc"]["value"] == pytest.approx(ccc[1] - ccc[0])
    assert comparison["runs"][0]["scores"]["valence.ccc"] == pytest.approx(ccc[0])
    text = to_text(comparison)
    assert re.search(r"CCC valence +\.\d{3}   \.\d{3} to \.\d{3}", text) and "Its CCC arousal is ." in text
    assert re.search(r"UA +[-+]\d+\.\d points   ", text) and apart["mcnemar"]
    is_right = [
        [r["target"] == r["prediction"] for r in rows_of(run / "predictions.csv") if r["target"]]
        for run in (first, second)
    ]
    assert apart["mcnemar"]["only_first"] == sum(a and not b for a, b in zip(*is_right, strict=True))


def test_compare_uses_the_tasks_of_all_runs(tmp_path, both, dimensions):
    comparison = compare([dimensions, both])
    assert set(comparison["runs"][1]["scores"]) == {
        f"{side}.{name}" for side in SIDES for name in ("ccc", "pearson", "rmse")
    }
    assert comparison["differences"][0]["mcnemar"] is None and "Its CCC arousal is ." in to_text(comparison)
    emotion = write_run(tmp_path / "emotion", sides=[])
    assert set(compare([both, emotion])["runs"][0]["scores"]) == {"ua", "wa", "macro_f1"}
    with pytest.raises(SertoneError, match="no task that all runs predict") as caught:
        compare([dimensions, emotion])
    assert caught.value.code == "nothing_in_common"


def test_compare_ignores_rows_without_a_target(tmp_path, both):
    """One run also lists utterances of another task. Without a rating they do not count as other labels."""
    alone = write_run(tmp_path / "alone", classes=[], sides=("valence",))
    rows = [row for row in rows_of(alone / "predictions.csv") if row["valence_target"]]
    assert len(rows) < len(rows_of(both / "predictions.csv"))
    with open(alone / "predictions.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    comparison = compare([both, alone])
    assert comparison["unlike"] == [] and "valence.ccc" in comparison["differences"][0]["scores"]


def test_compare_detects_edited_ratings(tmp_path, both):
    second = write_run(tmp_path / "second", seed=3)
    edit(second, 7, valence_target="1.25")
    with pytest.raises(SertoneError, match="differ in the labels"):
        compare([both, second])
    assert compare([both, second], force=True)["utterances"] == 399


def test_seeds_with_other_ratings_are_not_averaged(tmp_path, both):
    for seed in (0, 1):
        write_run(tmp_path / "seeds" / f"seed_{seed}", classes=[], seed=seed)
    edit(tmp_path / "seeds" / "seed_1", 3, arousal_target="1.25")
    with pytest.raises(SertoneError, match="were tested on other utterances") as caught:
        compare([both, tmp_path / "seeds"])
    assert caught.value.code == "unlike_runs"


def test_one_speaker_has_no_intervals(tmp_path):
    runs = [write_run(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 1))]
    for run in runs:
        path = run / "predictions.csv"
        lines = path.read_text().splitlines()
        path.write_text("\n".join([lines[0], *(line for line in lines[1:] if ",s0," in line)]))
    comparison = compare(runs)
    assert comparison["speakers"] == 1 and comparison["runs"][0]["intervals"] == {}
    assert "One speaker says nothing about other speakers." in to_text(comparison)


def build_metadata(classes, ratings):
    vocabulary = {"class_map": MAP if classes else {}, "classes": {"emotion": classes} if classes else {}}
    card = card_of() | {"fold": "s0 s1", "train": {}, "class_map": vocabulary["class_map"]}
    licence = {"what": "corpus", "of": "x"} | card["corpus"]["licence"]
    model = {"name": "m", "encoder": {"name": "compact"}}
    return {
        "vocabulary": vocabulary | {"ratings": ratings}, "card": card, "licences": [licence], "model": model,
        "min_samples": 400,
    }  # fmt: skip


@pytest.mark.parametrize("classes", [CLASSES, []])
def test_cards_of_models_that_rate(classes):
    result = fold_of(0, classes=classes)
    scores = Scores.from_fold(result)
    text = model_card.render(build_metadata(classes, dict.fromkeys(SIDES, SCALE)), scores)
    assert "`valence` from 1 to 5 points, `arousal` from 1 to 5 points." in text
    assert scores.utterances == 80 and scores.drawn == "utterances"
    ccc, (low, high) = scores.values["valence.ccc"], scores.intervals["valence.ccc"]
    assert ccc == result["metrics"]["valence"]["ccc"] and low < ccc < high
    shown = [SCORE_FORMATS["ccc"].format_value(value) for value in (ccc, low, high)]
    assert "| CCC valence | {} | {} to {} |".format(*shown) in text
    assert ("which of 3 emotions" in text) == ("Chance is a UA" in text) == bool(classes)
    assert ("It knows its 3 classes only" in text) == ("| UA |" in text) == bool(classes)
    assert "- CCC: concordance correlation coefficient (Lin 1989)" in text and metadata_errors(text) == []
    metadata = ModelCard(text).data.to_dict()
    assert (
        metadata == yaml.safe_load(text.split("---\n")[1])
        and metadata["pipeline_tag"] == "audio-classification"
    )
    (results,) = (model["results"][0]["metrics"] for model in metadata["model-index"])
    types = (["recall", "accuracy"] if classes else []) + ["ccc", "ccc"]
    assert [result["type"] for result in results] == types and metadata["metrics"] == list(
        dict.fromkeys(types)
    )
    assert results[-1]["value"] == pytest.approx(scores.values["arousal.ccc"], abs=1e-4)
    unscored = model_card.render(build_metadata(classes, dict.fromkeys(SIDES, SCALE)))
    assert "has not been scored" in unscored and "Predicts ratings of a voice" in unscored


def test_scores_of_a_run_for_the_card(both, monkeypatch):
    monkeypatch.setattr("sertone.sharing.card_scores._require_same_recipe", lambda *_: None)
    scores, pooled = Scores.from_run(both, {}), results_of(both)["pooled"]
    assert list(scores.values) == [
        *("ua", "wa", "macro_f1"),
        *(f"{side}.{name}" for side in SIDES for name in ("ccc", "pearson", "rmse")),
    ]
    assert scores.values["arousal.rmse"] == pooled["arousal"]["rmse"] and scores.folds == 5
    assert scores.intervals["valence.ccc"] == pooled["valence"]["intervals"]["speakers"]["ccc"]
    assert (scores.utterances, scores.speakers) == (400, 10) and math.isfinite(
        scores.intervals["valence.rmse"][1]
    )

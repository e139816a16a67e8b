"""Runs of models that rate, beside emotions or instead of them: results and pages."""

import json
import re

import numpy as np
import pytest
from rated import (
    CLASSES,
    SCALE,
    SIDES,
    card_of,
    expected_of,
    fold_of,
    results_of,
    rows_of,
    utterances,
    write_run,
)

from sertone.cli.common import format_scores
from sertone.scoring import metrics
from sertone.scoring.calibration import Calibration
from sertone.scoring.display import SCORE_FORMATS
from sertone.scoring.sufficient_statistics import select_labelled
from sertone.training.runs import results
from sertone.training.testing.prediction_rows import score_predictions


def test_pooled_scores_follow_from_the_predictions(both):
    found, rows = results_of(both), rows_of(both / "predictions.csv")
    for side in SIDES:
        pooled = found["pooled"][side]
        assert {name: pooled[name] for name in ("ccc", "pearson", "rmse")} == pytest.approx(
            expected_of(rows, side)
        )
        assert pooled["utterances"] == sum(row[f"{side}_target"] != "" for row in rows)
        assert {unit: own["units"] for unit, own in pooled["intervals"].items()} == {
            "speakers": 10,
            "folds": 5,
        }
        for own in pooled["intervals"].values():
            assert all(own[name][0] < pooled[name] < own[name][1] for name in ("ccc", "pearson", "rmse"))
        each = [expected_of([r for r in rows if r["fold"] == str(n)], side)["ccc"] for n in range(5)]
        assert found["mean"][side]["ccc"] == pytest.approx(np.mean(each))
    assert found["pooled"]["valence"]["utterances"] == 360 and found["pooled"]["arousal"]["utterances"] == 400


def test_emotion_counts_only_those_who_have_one_of_the_classes(both):
    found, rows = results_of(both), rows_of(both / "predictions.csv")
    known = [row for row in rows if row["target"]]
    assert len(rows) == 400 and len(known) == 300 and all(row["prediction"] for row in rows)
    pooled = found["pooled"]["emotion"]
    expected = metrics.emotion_scores([r["target"] for r in known], [r["prediction"] for r in known])
    assert {name: pooled[name] for name in expected} == pytest.approx(expected)
    assert np.sum(pooled["confusion"]) == np.sum([fold["confusion"] for fold in found["folds"]]) == 300
    assert sum(b["utterances"] for b in pooled["confidence"]["reliability"]) == 300
    assert [fold["test"] for fold in found["folds"]] == [80] * 5 and pooled["utterances"] == 300


def test_confidence_is_of_those_who_have_one_of_the_classes():
    fold = fold_of(0)
    known = [row for row in fold["rows"] if row["target"]]
    p = np.array([[row[f"p_{name}"] for name in CLASSES] for row in known])
    own = p[np.arange(len(p)), [CLASSES.index(row["target"]) for row in known]]
    assert fold["confidence"]["after"]["nll"] == pytest.approx(-np.log(own).mean(), abs=1e-5)
    right = sum(row["prediction"] == row["target"] for row in known)
    assert (fold["confidence"]["sure"], fold["confidence"]["sure_and_right"]) == (60, right)


def test_without_classes_nothing_is_said_about_emotions(dimensions):
    found, rows = results_of(dimensions), rows_of(dimensions / "predictions.csv")
    assert "emotion" not in found["pooled"] and "emotion" not in found["mean"]
    assert not any({"confusion", "soft", "confidence"} & fold.keys() for fold in found["folds"])
    columns = "id fold speaker valence_target valence_prediction arousal_target arousal_prediction"
    assert list(rows[0]) == columns.split()
    page = (dimensions / "report.html").read_text()
    assert not re.findall("<h2>(Confusion|Confidence|Speakers)", page) and "Unweighted accuracy" not in page
    assert (
        "a CCC of 0, that of an answer that is always the same" in page
        and "classes" not in page.split("<h2>")[1]
    )


def test_a_fold_in_which_nobody_has_an_emotion_still_counts(tmp_path):
    spoken = list(utterances(0, 4))
    p = np.full((8, 3), 1 / 3)
    fold = score_predictions(spoken, {}, CLASSES, p, p, Calibration(), ratings={"valence": [2.0] * 8})
    assert fold.keys() == {"rows", "test"} and {row["target"] for row in fold["rows"]} == {""}
    folds = [fold | {"name": "a", "metrics": {}, "auxiliary": {}, "train": 0, "validation": 0, "history": []}]
    (tmp_path / "protocol.json").write_text(json.dumps(card_of()))
    about = {"corpus": "x", "model": "m", "encoder": "e", "classes": CLASSES, "ratings": {"valence": SCALE}}
    results.write_results(
        tmp_path, [*folds, fold_of(1, sides=["valence"])], about | {"folds_of_other_settings": []}
    )
    found = results_of(tmp_path)
    assert found["pooled"]["emotion"]["utterances"] == 60 and found["pooled"]["valence"]["utterances"] == 80
    assert found["pooled"]["emotion"]["confidence"]["sure"] == 60
    assert "<td>a</td>" in (tmp_path / "report.html").read_text()


def test_modalities_are_pooled_in_the_order_given(both):
    found, lines = results_of(both)["modalities"], rows_of(both / "modalities.csv")
    assert (
        list(found)
        == [line["condition"] for line in lines]
        == ["audio and text", "text alone", "text of 10 % WER"]
    )
    for noise, (line, scores) in zip((0.5, 1.2, 0.7), zip(lines, found.values(), strict=True), strict=True):
        rows = [row for number in range(5) for row in fold_of(number, noise=noise)["rows"]]
        texts = [{key: str(value) for key, value in row.items()} for row in rows]
        assert scores["valence"]["ccc"] == pytest.approx(expected_of(texts, "valence")["ccc"])
        known = select_labelled(rows, "emotion")
        ua = metrics.emotion_scores([r["target"] for r in known], [r["prediction"] for r in known])["ua"]
        assert float(line["ua"]) == scores["emotion"]["ua"] == pytest.approx(ua)
        low, high = scores["valence"]["intervals"]["speakers"]["ccc"]
        assert (float(line["valence.ccc_low"]), float(line["valence.ccc_high"])) == (low, high)
        assert low < float(line["valence.ccc"]) < high
    assert "modalities" not in results_of(both)["folds"][0]
    page = (both / "report.html").read_text()
    best, worst = (
        SCORE_FORMATS["ccc"].format_value(found[name]["valence"]["ccc"])
        for name in ("audio and text", "text alone")
    )
    assert (
        f"CCC valence is highest with audio and text ({best}) and lowest with text alone ({worst})." in page
    )
    assert page.count('<th scope="row">text of 10 % WER</th>') == 1


def test_without_modalities_there_is_no_table_of_them(dimensions):
    assert "modalities" not in results_of(dimensions) and not (dimensions / "modalities.csv").exists()
    assert "With less to go by" not in (dimensions / "report.html").read_text()


@pytest.mark.parametrize("name", ["both", "dimensions"])
def test_the_page_shows_every_rating(name, request):
    run = request.getfixturevalue(name)
    page, pooled = (run / "report.html").read_text(), results_of(run)["pooled"]
    for side in SIDES:
        low, high = pooled[side]["intervals"]["speakers"]["ccc"]
        text = SCORE_FORMATS["ccc"].format_value
        assert f"Concordance (CCC), {side}</span><b>{text(pooled[side]['ccc'])}</b>" in page
        assert f"95 % over 10 speakers: {text(low)} – {text(high)}" in page
    plots = re.findall(r'<svg [^>]*aria-label="([^"]*)".*?</svg>', page, re.S)
    assert sum(words.startswith("Answers about ") for words in plots) == 2
    planes = [words for words in plots if words.startswith("Valence and arousal")]
    assert len(planes) == 2 and ("angry" in planes[1]) == (name == "both")
    assert page.count("<svg") == len(plots)


def test_the_plane_marks_the_mean_of_every_class(both):
    page, rows = (both / "report.html").read_text(), rows_of(both / "predictions.csv")
    for word, column in (("annotators", "target"), ("answered", "prediction")):
        (words,) = re.findall(rf'aria-label="(Valence and arousal, {word}, [^"]*)"', page)
        for name in CLASSES:
            own = [row for row in rows if row["target"] == name and row["valence_target"]]
            means = [np.mean([float(row[f"{side}_{column}"]) for row in own]) for side in SIDES]
            assert f"{name} {means[0]:.2f} and {means[1]:.2f}" in words


def test_the_scatter_plot_puts_answers_where_they_belong(dimensions):
    page, rows = (dimensions / "report.html").read_text(), rows_of(dimensions / "predictions.csv")
    svg = next(part for part in page.split("<svg") if "Answers about arousal" in part)
    dots = np.array(re.findall(r'<circle cx="(\d+)" cy="(\d+)"', svg), float)
    values = np.array([[float(row[f"arousal_{what}"]) for what in ("target", "prediction")] for row in rows])
    assert len(dots) == len(values) == 400
    for axis, sign in ((0, 1), (1, -1)):
        slope, offset = np.polyfit(values[:, axis], dots[:, axis], 1)
        assert sign * slope > 50 and np.abs(slope * values[:, axis] + offset - dots[:, axis]).max() < 1


def test_thousands_of_utterances_make_no_huge_page(tmp_path):
    run = write_run(tmp_path / "run", per_speaker=600)
    page = (run / "report.html").read_text()
    assert "800 of 5400 utterances, chosen at random" in page and "800 of 6000 utterances" in page
    assert len(page) < 300_000


def test_the_score_line_says_what_there_is(both, dimensions):
    pooled = results_of(both)["pooled"]
    line = format_scores(pooled)
    assert line.startswith(f"UA {pooled['emotion']['ua']:.1%} (95 % interval over 10 speakers ")
    assert (
        f"WA {pooled['emotion']['wa']:.1%}, CCC valence .{round(1000 * pooled['valence']['ccc'])} (." in line
    )
    pooled = results_of(dimensions)["pooled"]
    assert format_scores(pooled).startswith(
        f"CCC valence .{round(1000 * pooled['valence']['ccc'])} (95 % interval"
    )
    pooled["arousal"]["intervals"] = {}
    assert format_scores(pooled).endswith("(one speaker: no interval)")


@pytest.mark.parametrize("speakers", [3, 41])
def test_the_page_shows_the_speakers_who_said_most(speakers):
    from sertone.report import emotion

    rows = [
        {"speaker": f"s{number:02d}", "target": "sad", "prediction": "sad"}
        for number in range(speakers)
        for _ in range(2 if number == 7 else 3)
    ]
    svg, words = emotion._plot_speakers(rows, ["sad", "happy"]), emotion._describe_left_out(rows)
    named = {f"s{number:02d}" for number in range(speakers) if f">s{number:02d} (" in svg}
    everybody = {f"s{number:02d}" for number in range(speakers)}
    assert named == (everybody if speakers == 3 else everybody - {"s07"})
    assert ("40 of 41" in words) == (speakers == 41)

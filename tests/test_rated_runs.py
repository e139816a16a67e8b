"""Runs of models that rate, beside emotions or instead of them: results, pages, tables, comparisons, cards."""

import csv
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from hub import metadata_errors
from huggingface_hub import ModelCard
from test_ratings import expected_scores

from sertone import metrics
from sertone.analysis import tables
from sertone.analysis.compare import compare, to_text
from sertone.analysis.study import Place, Study
from sertone.calibration import Calibration
from sertone.cli.parts import score_line
from sertone.errors import SertoneError
from sertone.figures import FIGURES
from sertone.report import study as study_page
from sertone.schema import Utterance
from sertone.sharing import model_card
from sertone.sharing.scores import Scores
from sertone.sums import labelled
from sertone.training import results
from sertone.training.scored import scored

CLASSES = ["angry", "happy", "sad"]
MAP = {"angry": "angry", "excited": "happy", "happy": "happy", "sad": "sad"}
SCALE = {"low": 1.0, "high": 5.0, "unit": "points"}
CENTRES = {"angry": (2.0, 4.0), "happy": (4.0, 3.5), "sad": (2.0, 2.0), "other": (3.0, 3.0)}
SIDES = ("valence", "arousal")


def utterances(fold, per_speaker):
    """Of two speakers, one in four outside the classes, one in ten without a rating of valence."""
    random = np.random.default_rng(fold)
    for speaker in (2 * fold, 2 * fold + 1):
        for number in range(per_speaker):
            emotion = list(CENTRES)[number % 4]
            rated = np.clip(np.round(2 * (CENTRES[emotion] + random.normal(0, 0.7, 2))) / 2, 1, 5)
            labels = {"emotion": emotion, "valence": float(rated[0]), "arousal": float(rated[1])}
            if number % 10 == 9:
                del labels["valence"]
            if number % 20 == 19:
                del labels["emotion"]
            yield Utterance(id=f"s{speaker}_{number}", path=Path("x"), speaker=f"s{speaker}", labels=labels)


def fold_of(number, *, classes=CLASSES, sides=SIDES, noise=0.5, per_speaker=40, seed=0):
    """As the training writes it."""
    random = np.random.default_rng([seed, number])
    spoken = list(utterances(number, per_speaker))
    targets = [MAP.get(u.labels.get("emotion")) for u in spoken]
    p = random.dirichlet([1] * 3, len(spoken)) + [[0.6 * (c == t) for c in CLASSES] for t in targets]
    p = p / p.sum(1, keepdims=True) if classes else None
    means = [CENTRES[u.labels.get("emotion", "other")] for u in spoken]
    answers = np.clip(random.normal(means, noise), 1, 5).T
    ratings = {side: answers[SIDES.index(side)].tolist() for side in sides}
    fold = scored(spoken, MAP, list(classes), p, p, Calibration(), ratings=ratings, fold=number)
    scores = {}
    for task in [*(["emotion"] if classes else []), *sides]:
        mark = "" if task == "emotion" else f"{task}_"
        known = [row for row in fold["rows"] if row[f"{mark}target"] != ""]
        kind = metrics.SCORES["emotion" if task == "emotion" else "ratings"]
        scores[task] = kind(*([row[f"{mark}{side}"] for row in known] for side in ("target", "prediction")))
    name = {"name": f"s{2 * number} s{2 * number + 1}", "metrics": scores, "auxiliary": {}}
    return fold | name | {"train": 9, "validation": 0, "history": []}


def card_of(per_speaker=40):
    folds = [
        {"name": f"s{2 * n} s{2 * n + 1}", "test_speakers": [f"s{2 * n}", f"s{2 * n + 1}"]} for n in range(5)
    ]
    corpus = {"name": "x", "title": "X", "citation": "", "note": "", "language": "en", "speakers": 10}
    corpus |= {
        "utterances_used": 10 * per_speaker,
        "utterances_found": 10 * per_speaker,
        "by_class": {"sad": 1},
    }
    licence = {"id": "cc0-1.0", "name": "CC0 1.0", "url": "", "commercial": True}
    for fold in folds:
        fold |= {"train_utterances": 9, "test_utterances": 2 * per_speaker, "validation_speakers": []}
    return {
        "corpus": corpus | {"licence": licence},
        "class_map": MAP, "split": {"split": "grouped_k_fold", "folds": 5}, "selection": "the last epoch",
        "folds": folds, "metrics": metrics.DEFINITIONS, "seed": 0, "versions": {"python": "3"},
        "leaks": [
            {"fold": fold["name"], "scripted_texts": [], "test_in_texts": 0, "sessions": []} for fold in folds
        ],
        "file_hashes": {}, "segments": {},
    }  # fmt: skip


def write_run(out, *, classes=CLASSES, sides=SIDES, conditions=None, per_speaker=40, **options):
    """A finished run of five folds with two speakers each."""
    options |= {"classes": classes, "sides": sides, "per_speaker": per_speaker}
    folds = [fold_of(number, **options) for number in range(5)]
    for number, fold in enumerate(folds):
        if conditions:
            own = {name: fold_of(number, **options | {"noise": noise}) for name, noise in conditions.items()}
            fold["modalities"] = {name: each["rows"] for name, each in own.items()}
    out.mkdir(parents=True, exist_ok=True)
    (out / "protocol.json").write_text(json.dumps(card_of(per_speaker)))
    about = {"corpus": "x", "model": "m", "encoder": "e", "classes": list(classes)}
    about |= {"ratings": dict.fromkeys(sides, SCALE), "folds_of_other_settings": []}
    results.write(out, folds, about)
    return out


def results_of(run):
    def refuse(name):
        raise AssertionError(f"{name} in JSON")

    return json.loads((run / "results.json").read_text(), parse_constant=refuse)


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def edit(run, number, **changes):
    """Changes a row of predictions.csv."""
    rows = rows_of(run / "predictions.csv")
    rows[number] |= changes
    with open(run / "predictions.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def expected_of(rows, side):
    known = [row for row in rows if row[f"{side}_target"]]
    return expected_scores(
        *([float(row[f"{side}_{what}"]) for row in known] for what in ("target", "prediction"))
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    conditions = {"audio and text": 0.5, "text alone": 1.2, "text of 10 % WER": 0.7}
    return write_run(tmp_path_factory.mktemp("both") / "run", conditions=conditions)


@pytest.fixture(scope="module")
def dimensions(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("dimensions") / "run", classes=[], noise=0.9, seed=1)


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
    fold = scored(spoken, {}, CLASSES, p, p, Calibration(), ratings={"valence": [2.0] * 8})
    assert fold.keys() == {"rows", "test"} and {row["target"] for row in fold["rows"]} == {""}
    folds = [fold | {"name": "a", "metrics": {}, "auxiliary": {}, "train": 0, "validation": 0, "history": []}]
    (tmp_path / "protocol.json").write_text(json.dumps(card_of()))
    about = {"corpus": "x", "model": "m", "encoder": "e", "classes": CLASSES, "ratings": {"valence": SCALE}}
    results.write(tmp_path, [*folds, fold_of(1, sides=["valence"])], about | {"folds_of_other_settings": []})
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
        known = labelled(rows, "emotion")
        ua = metrics.emotion_scores([r["target"] for r in known], [r["prediction"] for r in known])["ua"]
        assert float(line["ua"]) == scores["emotion"]["ua"] == pytest.approx(ua)
        low, high = scores["valence"]["intervals"]["speakers"]["ccc"]
        assert (float(line["valence.ccc_low"]), float(line["valence.ccc_high"])) == (low, high)
        assert low < float(line["valence.ccc"]) < high
    assert "modalities" not in results_of(both)["folds"][0]
    page = (both / "report.html").read_text()
    best, worst = (
        FIGURES["ccc"].text(found[name]["valence"]["ccc"]) for name in ("audio and text", "text alone")
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
        text = FIGURES["ccc"].text
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
    line = score_line(pooled)
    assert line.startswith(f"UA {pooled['emotion']['ua']:.1%} (95 % interval over 10 speakers ")
    assert (
        f"WA {pooled['emotion']['wa']:.1%}, CCC valence .{round(1000 * pooled['valence']['ccc'])} (." in line
    )
    pooled = results_of(dimensions)["pooled"]
    assert score_line(pooled).startswith(
        f"CCC valence .{round(1000 * pooled['valence']['ccc'])} (95 % interval"
    )
    pooled["arousal"]["intervals"] = {}
    assert score_line(pooled).endswith("(one speaker: no interval)")


def study_of(scores, **changes):
    values = {
        "title": "a study", "recipe": "r.yaml", "columns": {"c": {}}, "scores": scores,
        "rows": {"both": {}, "dimensions": {}, "emotion": {}},
    }  # fmt: skip
    return Study.model_validate(values | changes)


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Runs of both, of dimensions and of emotions alone: the folder, and where each run is."""
    out = tmp_path_factory.mktemp("study")
    options = {"both": {}, "dimensions": {"classes": [], "noise": 0.9}, "emotion": {"sides": []}}
    for row, own in options.items():
        write_run(out / "cells" / row, **own)
    return out, {Place(row, "c", 0): out / "cells" / row for row in options}


def test_tables_show_both_kinds_and_nothing_where_there_is_none(cells):
    out, done = cells
    published = {"source": "P", "rows": {"both": {"c": {"ua": 75.71, "valence.ccc": 0.74}}}}
    reference = [{"name": "Others", "figures": {"valence.ccc": 0.638}}]
    study = study_of(["ua", "valence.ccc"], published=published, reference=reference)
    found = tables.results(study, done, out, card_of())
    pooled = {row: results_of(out / "cells" / row)["pooled"] for row in ("both", "dimensions", "emotion")}
    text, (ccc, ua) = (
        tables.markdown(found),
        (pooled["both"]["valence"]["ccc"], pooled["both"]["emotion"]["ua"]),
    )
    assert f"| both | {100 * ua:.1f} (paper 75.71) | .{round(1000 * ccc)} (paper .740) |" in text
    assert f"| dimensions |  | .{round(1000 * pooled['dimensions']['valence']['ccc'])} |" in text
    assert f"| emotion | {100 * pooled['emotion']['emotion']['ua']:.1f} |  |" in text
    assert "UA in percent, CCC from -1 to 1, pooled over 5 folds" in text
    assert "Differences from both in UA, in points" in text and "| Others | - | .638 |" in text
    assert r"Others & - & .638 \\" in tables.latex(found)
    lines = {(r["row"], r["score"]): r for r in csv.DictReader(tables.as_csv(found).splitlines())}
    apart = lines["dimensions", "valence.ccc"]
    difference = pooled["dimensions"]["valence"]["ccc"] - ccc
    assert float(apart["difference"]) == pytest.approx(difference) and float(apart["p"]) < 0.05
    low, high = pooled["dimensions"]["valence"]["intervals"]["speakers"]["ccc"]
    assert (float(apart["low"]), float(apart["high"])) == pytest.approx((low, high))
    assert lines["dimensions", "ua"]["value"] == lines["emotion", "valence.ccc"]["difference"] == ""
    assert lines["both", "valence.ccc"]["published_as_printed"] == "0.74"


def test_a_rating_can_be_what_differences_are_shown_of(cells):
    out, done = cells
    study = study_of(["arousal.ccc", "arousal.rmse", "wa"])
    assert (
        study.main_score == "arousal.ccc" and study_of(["asr.cer", "gender.accuracy"]).main_score == "asr.cer"
    )
    found = tables.results(study, done, out, card_of())
    text = tables.markdown(found)
    assert "Differences from both in CCC arousal, with 95 % intervals" in text
    apart = found["rows"][1]["cells"]["c"]["scores"]["arousal.ccc"]["difference"]
    assert f"| c | dimensions | -.{round(-1000 * apart['value']):03d} | -." in text
    (out / "results.json").write_text(json.dumps(found))
    page = study_page.write(out).read_text()
    (words,) = re.findall(r'aria-label="(CCC arousal of c: difference from both\.[^"]*)"', page)
    assert f"dimensions {apart['value']:+.3g} ({apart['low']:+.3g} to {apart['high']:+.3g})" in words
    assert "Dot and bar: difference in CCC arousal, and its 95 % interval" in page
    assert "CCC from -1 to 1, RMSE in points of the scale, WA in percent, pooled" in page
    rmse = results_of(out / "cells" / "both")["pooled"]["arousal"]["rmse"]
    assert f"<b>{rmse:.3f}</b>" in page


def test_compare_says_how_ratings_differ(tmp_path, both):
    first, second = both, write_run(tmp_path / "second", noise=0.9, seed=2)
    found = compare([first, second])
    (apart,) = found["differences"]
    ccc = [expected_of(rows_of(run / "predictions.csv"), "valence")["ccc"] for run in (first, second)]
    assert apart["scores"]["valence.ccc"]["value"] == pytest.approx(ccc[1] - ccc[0])
    assert found["runs"][0]["scores"]["valence.ccc"] == pytest.approx(ccc[0])
    text = to_text(found)
    assert re.search(r"CCC valence +\.\d{3}   \.\d{3} to \.\d{3}", text) and "Its CCC arousal is ." in text
    assert re.search(r"UA +[-+]\d+\.\d points   ", text) and apart["mcnemar"]
    right = [
        [r["target"] == r["prediction"] for r in rows_of(run / "predictions.csv") if r["target"]]
        for run in (first, second)
    ]
    assert apart["mcnemar"]["only_first"] == sum(a and not b for a, b in zip(*right, strict=True))


def test_compare_takes_what_all_runs_answer(tmp_path, both, dimensions):
    found = compare([dimensions, both])
    assert set(found["runs"][1]["scores"]) == {
        f"{side}.{name}" for side in SIDES for name in ("ccc", "pearson", "rmse")
    }
    assert found["differences"][0]["mcnemar"] is None and "Its CCC arousal is ." in to_text(found)
    emotion = write_run(tmp_path / "emotion", sides=[])
    assert set(compare([both, emotion])["runs"][0]["scores"]) == {"ua", "wa", "macro_f1"}
    with pytest.raises(SertoneError, match="no task that all runs answer") as caught:
        compare([dimensions, emotion])
    assert caught.value.code == "nothing_in_common"


def test_compare_notices_edited_ratings(tmp_path, both):
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


def test_one_speaker_shows_nothing_about_others(tmp_path):
    runs = [write_run(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 1))]
    for run in runs:
        path = run / "predictions.csv"
        lines = path.read_text().splitlines()
        path.write_text("\n".join([lines[0], *(line for line in lines[1:] if ",s0," in line)]))
    found = compare(runs)
    assert found["speakers"] == 1 and found["runs"][0]["intervals"] == {}
    assert "With one speaker nothing can be said about others." in to_text(found)


def about_of(classes, ratings):
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
    scores = Scores.of_fold(result)
    text = model_card.render(about_of(classes, dict.fromkeys(SIDES, SCALE)), scores)
    assert "`valence` from 1 to 5 points, `arousal` from 1 to 5 points." in text
    assert scores.utterances == 80 and scores.drawn == "utterances"
    ccc, (low, high) = scores.values["valence.ccc"], scores.intervals["valence.ccc"]
    assert ccc == result["metrics"]["valence"]["ccc"] and low < ccc < high
    shown = [FIGURES["ccc"].text(value) for value in (ccc, low, high)]
    assert "| CCC valence | {} | {} to {} |".format(*shown) in text
    assert ("which of 3 emotions" in text) == ("Chance is a UA" in text) == bool(classes)
    assert ("It knows its 3 classes only" in text) == ("| UA |" in text) == bool(classes)
    assert "- CCC: concordance correlation coefficient (Lin 1989)" in text and metadata_errors(text) == []
    said = ModelCard(text).data.to_dict()
    assert said == yaml.safe_load(text.split("---\n")[1]) and said["pipeline_tag"] == "audio-classification"
    (results,) = (model["results"][0]["metrics"] for model in said["model-index"])
    types = (["recall", "accuracy"] if classes else []) + ["ccc", "ccc"]
    assert [each["type"] for each in results] == types and said["metrics"] == list(dict.fromkeys(types))
    assert results[-1]["value"] == pytest.approx(scores.values["arousal.ccc"], abs=1e-4)
    unscored = model_card.render(about_of(classes, dict.fromkeys(SIDES, SCALE)))
    assert "has not been scored" in unscored and "Rates a voice" in unscored


def test_scores_of_a_run_for_the_card(both, monkeypatch):
    monkeypatch.setattr("sertone.sharing.scores._require_same", lambda *_: None)
    scores, pooled = Scores.of_run(both, {}), results_of(both)["pooled"]
    assert list(scores.values) == [
        *("ua", "wa", "macro_f1"),
        *(f"{side}.{name}" for side in SIDES for name in ("ccc", "pearson", "rmse")),
    ]
    assert scores.values["arousal.rmse"] == pooled["arousal"]["rmse"] and scores.folds == 5
    assert scores.intervals["valence.ccc"] == pooled["valence"]["intervals"]["speakers"]["ccc"]
    assert (scores.utterances, scores.speakers) == (400, 10) and math.isfinite(
        scores.intervals["valence.rmse"][1]
    )

"""Corpora with unknown speakers: refused, or reported wherever a score is shown."""

import csv
import json
import re
import shutil

import pytest
import yaml
from conftest import TINY_MODEL

from sertone import cli
from sertone.analysis.compare import compare
from sertone.analysis.comparison_text import to_text
from sertone.analysis.layers import probe_layers
from sertone.errors import SertoneError
from sertone.recipe import Recipe
from sertone.report.protocol import _describe_teacher
from sertone.runtime.bundle import FIELDS
from sertone.scoring import display
from sertone.sharing.model_folder import SEEN_SHAPE as SHAPE
from sertone.training.experiment import contamination
from sertone.training.experiment.experiment import prepare
from sertone.training.runs.train import train
from sertone.utils.json_shape import find_misfits

BASELINE = {"name": "baseline", "encoder": TINY_MODEL["encoder"], "hidden": 8}
SIDES = ("train", "validation", "test")
WARNING = "test speakers may also occur in the training set"


@pytest.fixture(scope="module")
def tables(tmp_path_factory, small_demo):
    """The demo's table without speakers, and without the speakers of the first session."""
    folder, paths = tmp_path_factory.mktemp("strangers"), {}
    with open(small_demo / "metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    (folder / "wav").symlink_to(small_demo / "wav")
    for name, strangers in (("nobody", rows), ("some", [r for r in rows if r["session"] == "Session1"])):
        changed = [
            row
            | ({"speaker": row["path"], "known_speaker": "no"} if row in strangers else {"known_speaker": ""})
            for row in rows
        ]
        with open(folder / f"{name}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(changed[0]))
            writer.writeheader()
            writer.writerows(changed)
        paths[name] = folder / f"{name}.csv"
    return paths


def recipe_of(table, unknown="accept", **protocol):
    return {
        "data": {"corpus": "manifest", "root": str(table), "licence": "cc0-1.0"},
        "protocol": {"split": "grouped_k_fold", "folds": 3, "unknown_speakers": unknown} | protocol,
        "model": BASELINE,
        "train": {"epochs": [1], "batch_size": 8},
    }


@pytest.fixture(scope="module")
def runs(tables, tmp_path_factory):
    """A finished run of each table, made by the command."""
    folder = tmp_path_factory.mktemp("runs")
    for name, table in tables.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe_of(table)))
        command = ["crossval", str(folder / f"{name}.yaml"), "--out", str(folder / name), "--jobs", "1"]
        assert cli.app(command) == 0
    return folder


@pytest.mark.parametrize(("name", "count"), [("nobody", 40), ("some", 8)])
@pytest.mark.parametrize("split", ["grouped_k_fold", "leave_one_speaker_out", "leave_one_session_out"])
def test_unknown_speakers_are_refused_before_training(tables, name, count, split):
    values = recipe_of(tables[name], "refuse", split=split)
    with pytest.raises(SertoneError, match=f"{count} of 40 utterances are of unknown speakers") as caught:
        prepare(Recipe.model_validate(values))
    assert caught.value.code == "unknown_speakers"
    assert "protocol.unknown_speakers: accept" in caught.value.way_out


def read(path):
    return json.loads(path.read_text())


def test_without_known_speakers_intervals_draw_utterances_and_say_so(runs, capsys):
    run = runs / "nobody"
    results, card, page = (
        read(run / "results.json"),
        read(run / "protocol.json"),
        (run / "report.html").read_text(),
    )
    assert set(results["pooled"]["emotion"]["intervals"]) == {"utterances", "folds"}
    assert results["pooled"]["emotion"]["intervals"]["utterances"]["units"] == 40
    assert card["corpus"]["speakers"] == 0 and card["corpus"]["unknown_speakers"] == 40
    assert card["split"]["speaker_independent"] == "not known"
    assert [fold["test_unknown_speakers"] for fold in card["folds"]] == [14, 13, 13]
    assert all(fold["test_speakers"] == [] for fold in card["folds"])
    text = (run / "fold_0/checkpoint/card.md").read_text()
    for shown in (page, text):
        assert f"The speakers of 40 of 40 utterances are unknown: {WARNING}" in shown
        assert "No known speaker" in shown and "not trained on its speaker" not in shown
        assert not re.search(
            r"speaker-independent|\b0 speakers|over \d+ speakers|never seen in training", shown
        )
    assert (
        "independence of speakers not known" in page and "95 % over 40 utterances of unknown speakers" in page
    )
    assert (
        "14 utterances of unknown speakers." in text
        and "too narrow where one person spoke several utterances" in text
    )
    assert cli.app(["crossval", str(run / "recipe.yaml"), "--out", str(run)]) == 0
    output = capsys.readouterr()
    assert "95 % interval over 40 utterances of unknown speakers" in output.out
    assert f"The speakers of 40 of 40 utterances are unknown: {WARNING}" in output.err


def test_known_and_unknown_speakers_are_both_counted(runs):
    run = runs / "some"
    results, card, page = (
        read(run / "results.json"),
        read(run / "protocol.json"),
        (run / "report.html").read_text(),
    )
    over = results["pooled"]["emotion"]["intervals"]["speakers"]
    assert (over["units"], over["unknown_speakers"]) == (16, 8)
    assert (card["corpus"]["speakers"], card["corpus"]["unknown_speakers"]) == (8, 8)
    assert "40 utterances of 8 known speakers and, in 8 utterances, unknown ones, 3 folds" in page
    assert page.count("95 % over 8 known speakers and 8 utterances of unknown ones") == 3
    assert f"The speakers of 8 of 40 utterances are unknown: {WARNING}" in page
    assert "speaker-independent" not in page
    named = {row["speaker"] for row in csv.DictReader((run / "predictions.csv").open())}
    assert len(named) == 9 and "" in named
    cards = "".join((run / f"fold_{n}/checkpoint/card.md").read_text() for n in range(3))
    assert re.search(r"of \d known speakers? and, in \d utterances?, unknown ones\.", cards)
    assert "on whom the model was not trained" not in cards


def test_compare_reports_what_it_draws(runs, tmp_path):
    comparison = compare([runs / "nobody", runs / "nobody"])
    text = to_text(comparison)
    assert "Intervals: 95 %, drawing 40 utterances of unknown speakers; differences are paired." in text
    assert "Speakers are unknown: test speakers may also occur in the training set." in text
    assert (comparison["speakers"], comparison["unknown_speakers"]) == (0, 40)
    assert "drawing 8 known speakers and 8 utterances of unknown ones" in to_text(
        compare([runs / "some"] * 2)
    )


def test_an_evaluation_and_a_model_of_all_data_say_so_too(runs, tables, tmp_path, capsys):
    command = ["evaluate", str(runs / "some/fold_0"), "manifest", str(tables["nobody"])]
    assert cli.app([*command, "--out", str(tmp_path / "evaluated")]) == 0
    assert WARNING in capsys.readouterr().err
    page = (tmp_path / "evaluated/report.html").read_text()
    assert "40 utterances of unknown speakers" in page and WARNING in page
    assert "95 % over 40 utterances of unknown speakers" in page and "none of these speakers" not in page
    recipe = Recipe.model_validate(recipe_of(tables["nobody"], "refuse"))
    card = (train(recipe, tmp_path / "all", quiet=True) / "card.md").read_text()
    assert (
        "The training used 40 of 40 utterances, by unknown speakers" in card
        and "speaker-independent" not in card
    )


def test_an_official_split_is_accepted_as_it_is(podcasts):
    """The publisher has assigned the speakers; MSP-Podcast has unknown speakers in all sets."""
    values = recipe_of(podcasts["1.11"], "refuse", split="official")
    values["data"] = {"corpus": "msp_podcast", "root": str(podcasts["1.11"])}
    lines = []
    experiment = prepare(Recipe.model_validate(values), say=lines.append)
    corpus, (fold,) = experiment.card["corpus"], experiment.card["folds"]
    unknown = [u for u in experiment.utterances if not u.known_speaker]
    assert corpus["unknown_speakers"] == sum(fold.get(f"{side}_unknown_speakers", 0) for side in SIDES) > 0
    assert experiment.card["split"]["speaker_independent"] == "not known"
    assert not {u.speaker for u in unknown} & {*fold["train_speakers"], *fold["test_speakers"]}
    assert any(WARNING in line for line in lines)


@pytest.fixture(scope="module")
def others(tmp_path_factory, small_demo):
    """A table of other recordings of the demo's speakers, with their names."""
    folder = tmp_path_factory.mktemp("others")
    (folder / "wav").mkdir()
    for path in (small_demo / "wav").glob("*.wav"):
        (folder / "wav" / path.name).write_bytes(path.read_bytes() + b"\0\0")
    (folder / "named.csv").write_text((small_demo / "metadata.csv").read_text())
    return folder / "named.csv"


HEARD = "whether it has heard these speakers is not known"
ON_PAGE = "it is not known whether these speakers are among them"


@pytest.mark.parametrize("name", ["nobody", "some"])
def test_a_model_trained_on_unknown_speakers_says_so_on_a_corpus_with_names(
    runs, others, tmp_path, capsys, name
):
    command = ["evaluate", str(runs / name / "fold_0"), "manifest", str(others)]
    assert cli.app([*command, "--out", str(tmp_path / "out")]) == 0
    assert "whether these speakers are among them is not known" in capsys.readouterr().err
    page = (tmp_path / "out/report.html").read_text()
    assert f"The model was trained on utterances of unknown speakers: {ON_PAGE}." in page
    assert "trained on none of these recordings" in page and "trained on none of these speakers" not in page
    assert read(tmp_path / "out/protocol.json")["split"]["speaker_independent"] == "not known"


def test_an_encoder_trained_on_unknown_speakers_says_so(runs, others):
    values = recipe_of(others)
    saved = {"name": "saved", "source": str(runs / "nobody/fold_0")}
    experiment = prepare(Recipe.model_validate(values | {"model": BASELINE | {"encoder": saved}}))
    assert HEARD in experiment.card["encoder"] and "no speaker" not in experiment.card["encoder"]
    assert experiment.card["split"]["speaker_independent"] == "not known"
    assert display.describe_independence(experiment.card) == "independence of speakers not known"
    past = contamination.trace_lineage(
        contamination.hash_training_data(experiment.utterances, experiment.card), experiment.origin
    )
    assert past["heard"]["unknown_speakers"] > 0, "the next generation still knows"
    assert not find_misfits(past["heard"], SHAPE) and not find_misfits(
        past["heard"], FIELDS["card"]["heard?"]
    )
    other = experiment.with_recipe(Recipe.model_validate(values))
    assert other.card["split"]["speaker_independent"] is True


def test_an_encoder_trained_on_unknown_speakers_does_not_change_the_split(runs, tmp_path):
    shutil.copytree(runs / "some", tmp_path / "run")
    card = read(tmp_path / "run/protocol.json")
    card["split"]["speaker_independent"] = True
    (tmp_path / "run/protocol.json").write_text(json.dumps(card))
    assert compare([runs / "some", tmp_path / "run"])["unlike"] == []


def test_utterances_of_unknown_speakers_are_counted_and_older_models_have_no_count():
    older = {"recordings": ["a"], "speakers": ["x"]}
    newer = {"recordings": ["b"], "speakers": [], "unknown_speakers": 3}
    together = {"recordings": ["a", "b"], "speakers": ["x"], "unknown_speakers": 3}
    assert contamination.union(older, newer, newer) == together and contamination.union(older) == older
    assert (
        contamination.count_unknown_speakers([older, newer]) == 3
        and contamination.count_unknown_speakers([]) == 0
    )
    assert not find_misfits(older, SHAPE) and find_misfits(newer | {"unknown_speakers": "3"}, SHAPE)


def test_a_teacher_trained_on_unknown_speakers_says_so(runs, others):
    values = recipe_of(others)
    values["train"] = values["train"] | {"teacher": {"source": str(runs / "nobody"), "weight": 0.5}}
    card = prepare(Recipe.model_validate(values)).card
    assert card["split"]["speaker_independent"] == "not known" and ON_PAGE in _describe_teacher(
        card["teacher"]
    )
    teacher = {"source": "run", "weight": 0.5, "weights": ["ab"], "validation_speakers": ["0 of 1"]}
    known = _describe_teacher(teacher)
    assert "no recording and no speaker" in known and ON_PAGE not in known
    text = _describe_teacher(teacher | {"unknown_speakers": 3})
    assert "no recording of the test sets" in text and ON_PAGE in text and "no speaker" not in text


@pytest.mark.parametrize(
    ("name", "over"),
    [
        ("nobody", "utterances of unknown speakers"),
        ("some", "known speakers and utterances of unknown ones"),
    ],
)
def test_layers_do_not_claim_speakers(tables, tmp_path, name, over):
    results = probe_layers.probe_layers(
        Recipe.model_validate(recipe_of(tables[name])), tmp_path, target_names=["emotion"], quiet=True
    )
    page, text = (tmp_path / "report.html").read_text(), probe_layers.to_text(results)
    assert f"95 % intervals over {over};" in text and f"draws of {over}, the highest layer" in text
    assert f"95 % intervals over {over}." in page and f"Small numbers: 95 % interval over {over}." in page
    assert f"The intervals draw {over}, the same" in page and f'<th scope="row">{over}</th>' in page
    assert not re.search(
        "(over|draws of|whole) speakers|speakers that the probe was not trained on", page + text
    )
    assert "other utterances by the same unknown speakers" in page and "share no known speaker" in page


@pytest.mark.parametrize("split", ["official", "leave_one_session_out", "grouped_k_fold"])
def test_one_word_for_all_unknown_speakers_makes_them_no_single_speaker(small_demo, tmp_path, split):
    with open(small_demo / "metadata.csv", newline="") as file:
        rows = [row | {"speaker": "Unknown", "known_speaker": "no"} for row in csv.DictReader(file)]
    (tmp_path / "wav").symlink_to(small_demo / "wav")
    with open(tmp_path / "table.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "split"])
        writer.writeheader()
        for number, row in enumerate(rows):
            writer.writerow(row | {"split": ("train", "train", "validation", "test")[number // 10]})
    experiment = prepare(Recipe.model_validate(recipe_of(tmp_path / "table.csv", split=split)))
    assert len({u.speaker for u in experiment.utterances}) == 40
    assert experiment.card["corpus"]["unknown_speakers"] == 40

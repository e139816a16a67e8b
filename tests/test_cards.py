"""Model cards say what the run says; models go to a stand-in of the hub and come back the same."""

import csv
import json
import os
import random
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import yaml
from conftest import TINY_MODEL
from hub import Repository, metadata_errors, running
from huggingface_hub import ModelCard

import sertone
from sertone import load
from sertone.errors import SertoneError
from sertone.licences import LicenceWarning
from sertone.recipe import Recipe
from sertone.scoring import intervals, metrics
from sertone.scoring.sufficient_statistics import SufficientStatistics, count_confusions_by_unit
from sertone.sharing import model_card
from sertone.sharing import model_folder as folders
from sertone.sharing.card_scores import Scores
from sertone.sharing.push import push
from sertone.training.runs import train
from sertone.training.runs.crossval import cross_validate
from sertone.utils.hub import is_hub_id


def recipe_of(root, **changes):
    values = {
        "data": {"corpus": "manifest", "root": str(root), "licence": "cc-by-nc-4.0"},
        "protocol": {"split": "grouped_k_fold", "folds": 2},
        "model": TINY_MODEL,
        "train": {"epochs": [1, 1], "batch_size": 8},
    }
    return Recipe.model_validate({key: value | changes.get(key, {}) for key, value in values.items()})


@pytest.fixture(scope="module")
def made(tmp_path_factory, small_demo, tiny_encoder):
    """A cross-validation `run` and a model of all the data `final`; one `free` of reservations."""
    folder = tmp_path_factory.mktemp("made")
    recipe = recipe_of(small_demo)
    cross_validate(recipe, folder / "run", jobs=1, quiet=True)
    train.train(recipe, folder / "final", quiet=True)
    source = tiny_encoder("hubert")
    (source / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    free = {"data": {"corpus": "demo", "licence": None}, "protocol": {"split": "leave_one_session_out"}}
    free["model"] = {"encoder": {"name": "pretrained", "source": str(source)}}
    train.train(recipe_of(small_demo, **free), folder / "free", quiet=True)
    return folder


def fold(made):
    return made / "run" / "fold_1" / "checkpoint"


def metadata(text):
    return yaml.safe_load(text.split("---\n")[1])


def rows_of(run, number):
    with open(run / "predictions.csv", newline="") as file:
        return [row for row in csv.DictReader(file) if number in (None, int(row["fold"]))]


def percent_table(text):
    """score -> value, low, high, as the card's table says."""
    found = re.findall(r"^\| (\S+) \| ([\d.]+)% \| ([\d.]+)% to ([\d.]+)% \|$", text, re.M)
    return {name: [float(v) / 100 for v in values] for name, *values in found}


def test_the_checkpoint_has_a_ledger(made):
    (entry,) = folders.read_about(fold(made))["licences"]
    assert (entry["what"], entry["id"], entry["commercial"]) == ("corpus", "cc-by-nc-4.0", False)
    corpus, encoder = folders.read_about(made / "free" / "checkpoint")["licences"]
    assert (corpus["id"], encoder["what"], encoder["id"]) == ("cc0-1.0", "encoder", "apache-2.0")
    protocol = json.loads((made / "run" / "protocol.json").read_text())
    assert protocol["corpus"]["licence"]["id"] == "cc-by-nc-4.0"
    assert "CC BY-NC 4.0 (not for commercial use)" in (made / "run" / "report.html").read_text()


def test_loading_warns_once_of_what_is_not_for_commerce(made):
    with pytest.warns(LicenceWarning, match=r"corpus a manifest \(CC BY-NC 4\.0\)") as caught:
        sertone.load(made / "run")
    (own,) = (warning for warning in caught if warning.category is LicenceWarning)
    assert own.filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error", LicenceWarning)
        sertone.load(made / "free")


def test_a_folds_card_states_its_own_scores(made):
    text = (fold(made) / "card.md").read_text()
    rows = rows_of(made / "run", 1)
    expected = metrics.emotion_scores([r["target"] for r in rows], [r["prediction"] for r in rows])
    table = percent_table(text)
    for name, label in (("ua", "UA"), ("wa", "WA"), ("macro_f1", "macro-F1")):
        value, low, high = table[label]
        assert value == pytest.approx(expected[name], abs=6e-4) and low <= value <= high
    found = metadata(text)["model-index"][0]["results"][0]
    assert {m["type"]: m["value"] for m in found["metrics"]} == {
        "recall": pytest.approx(expected["ua"], abs=1e-4),
        "accuracy": pytest.approx(expected["wa"], abs=1e-4),
    }
    for speaker in {row["speaker"] for row in rows}:
        assert f"`{speaker}`" in text.split("Held out")[1].split("\n")[0]
    assert f"{len(rows)} utterances of 5 speakers, whom the model never heard" in text
    assert "drawing whole speakers" in text and "Article 5(1)(f)" in text


def test_the_metadata_of_a_card(made):
    said = metadata((fold(made) / "card.md").read_text())
    assert said["license"] == "cc-by-nc-4.0" and said["library_name"] == "sertone"
    assert said["pipeline_tag"] == "audio-classification" and "wan2025" in said["tags"]
    assert not said.keys() & {"language", "datasets", "base_model"}
    free = metadata((made / "free" / "checkpoint" / "card.md").read_text())
    assert (free["license"], free["language"]) == ("apache-2.0", "en")
    assert not free.keys() & {"model-index", "base_model"}


def test_an_encoder_of_the_hub_is_named_as_the_base_model_and_a_public_corpus_as_data(made):
    about = folders.read_about(made / "free" / "checkpoint")
    about["licences"][1]["of"] = "facebook/hubert-base-ls960"
    about["card"]["corpus"] |= {"name": "emodb", "title": "EmoDB"}
    said = metadata(model_card.render(about))
    assert said["base_model"] == "facebook/hubert-base-ls960" and said["datasets"] == ["emodb"]


def test_cards_survive_the_hubs_library_and_its_validation(made):
    about = folders.read_about(fold(made))
    scores = Scores.from_run(made / "run", about)
    for text in (
        *((folder / "card.md").read_text() for folder in (fold(made), made / "final" / "checkpoint")),
        model_card.render(about, scores),
    ):
        card = ModelCard(text)
        assert metadata_errors(text) == []
        assert ModelCard(str(card)).data.to_dict() == card.data.to_dict() == metadata(text)
    assert metadata_errors(text.replace("cc-by-nc-4.0", "none-such", 1)) == ["license 'none-such'"]
    with running() as hub:
        code = f"from huggingface_hub import ModelCard; ModelCard.load({str(fold(made) / 'card.md')!r}).validate()"
        done = process(hub, made, [sys.executable, "-c", code])
        assert done.returncode == 0 and hub.requests == ["POST /api/validate-yaml"], done.stderr


def test_a_model_of_all_the_data_is_not_scored_unless_by_a_run_of_its_recipe(made):
    text = (made / "final" / "checkpoint" / "card.md").read_text()
    assert "has not been scored" in text and not percent_table(text) and "the whole corpus" in text
    about = folders.read_about(made / "final" / "checkpoint")
    text = model_card.render(about, Scores.from_run(made / "run", about))
    pooled = json.loads((made / "run" / "results.json").read_text())["pooled"]["emotion"]
    assert percent_table(text)["UA"] == pytest.approx(
        [pooled["ua"], *pooled["intervals"]["speakers"]["ua"]], abs=6e-4
    )
    assert "the 2 models of a cross-validation" in text and "40 utterances of\n10 speakers" in text
    assert "none was left to score it" in text


@pytest.mark.parametrize(
    "changes, differing",
    [
        ({"train": {"epochs": [1, 2]}}, "train.epochs"),
        ({"model": {"hidden": 8}}, "model.hidden"),
        ({"model": {"encoder": TINY_MODEL["encoder"] | {"width": 8}}}, "model.encoder"),
        ({"data": {"classes": {"angry": "angry", "sad": "sad"}}}, "classes.angry|classes.happy"),
        ({"data": {"corpus": "demo"}}, "corpus.name"),
    ],
)
def test_scores_of_another_recipe_are_refused(made, tmp_path, small_demo, changes, differing):
    train.train(recipe_of(small_demo, **changes), tmp_path / "other", quiet=True)
    with pytest.raises(SertoneError, match=differing) as caught:
        Scores.from_run(made / "run", folders.read_about(tmp_path / "other" / "checkpoint"))
    assert caught.value.code == "other_recipe"


def test_scores_of_a_run_that_was_trained_in_another_precision_are_of_the_same_recipe(made, tmp_path):
    """`precision: auto` becomes something else on another machine."""
    about = folders.read_about(made / "final" / "checkpoint")
    card = about["card"] | {"train": about["card"]["train"] | {"precision": "bf16-mixed"}}
    assert about["card"]["train"]["precision"] == "32-true"
    assert Scores.from_run(made / "run", about | {"card": card}) == Scores.from_run(made / "run", about)


def test_scores_need_a_finished_run_of_one_kind(made, tmp_path):
    about = folders.read_about(fold(made))
    with pytest.raises(SertoneError) as caught:
        Scores.from_run(made / "final", about)
    assert caught.value.code == "not_a_run"
    shutil.copytree(made / "run", tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    results["folds_of_other_settings"] = ["S1F S2M"]
    (tmp_path / "run" / "results.json").write_text(json.dumps(results))
    with pytest.raises(SertoneError, match="settings of S1F S2M"):
        Scores.from_run(tmp_path / "run", about)


def test_intervals_are_over_speakers_unless_there_are_too_few(made):
    result = json.loads((made / "run" / "fold_1" / "result.json").read_text())
    draw = random.Random(0)
    for row in result["rows"]:
        row["prediction"] = draw.choice(["angry", row["target"]])
    few = result | {"rows": [r for r in result["rows"] if r["speaker"] <= "S3F"]}
    for found, unit, speakers in ((result, "speaker", 5), (few, "id", 3)):
        targets, predictions, units = (
            [r[key] for r in found["rows"]] for key in ("target", "prediction", unit)
        )
        scores = Scores.from_fold(found)
        counts = count_confusions_by_unit(targets, predictions, units, sorted({*targets, *predictions}))[1]
        assert scores.intervals == intervals.compute_intervals(SufficientStatistics.from_counts(counts))
        assert scores.intervals["ua"][0] < scores.intervals["ua"][1] and scores.speakers == speakers
        text = model_card.render(folders.read_about(fold(made)), scores)
        assert ("drawing whole speakers" in text) == (speakers == 5)
        assert ("3 are too few to tell" in text) == (speakers == 3)


def test_names_of_a_corpus_do_not_reach_markdown(made):
    about = folders.read_about(fold(made))
    held_out = next(f for f in about["card"]["folds"] if f["name"] == about["card"]["fold"])
    held_out["test_speakers"] = ["_a_*b*", "c`d\n# e"]
    about["licences"][0]["of"] = "a | b"
    text = model_card.render(about)
    assert "`_a_*b*`, `c'd # e` (" in text and "| corpus | a \\| b |" in text


def process(hub, folder, command, **environment):
    variables = os.environ | hub.environment(folder / "cache") | environment
    return subprocess.run(command, env=variables, capture_output=True, text=True, cwd=folder)


def run_sertone(hub, folder, *arguments, **environment):
    return process(hub, folder, [sys.executable, "-m", "sertone", *map(str, arguments)], **environment)


@pytest.fixture
def hub():
    with running() as found:
        yield found


def test_push_uploads_the_three_files_and_the_model_comes_back(made, hub, tmp_path, small_demo):
    folder = shutil.copytree(fold(made), tmp_path / "checkpoint")
    (folder / "notes.pkl").write_bytes(b"\x80\x04.")
    (folder / "train.wav").write_bytes(b"RIFF")
    done = run_sertone(hub, tmp_path, "push", folder, "me/voices", "--private", "--message", "First")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub.url}/me/voices"
    told = done.stderr.splitlines()
    assert (
        sum("CC BY-NC 4.0" in line for line in told) == 1 and sum("10 speakers" in line for line in told) == 1
    )
    repository = hub.repositories["me/voices"]
    assert repository.private and repository.messages == ["First"]
    assert repository.files.keys() == {"README.md", "checkpoint.json", "model.safetensors"}
    for name in ("checkpoint.json", "model.safetensors"):
        assert repository.files[name] == (folder / name).read_bytes()
    readme = repository.files["README.md"].decode()
    assert readme == (folder / "card.md").read_text().replace("OWNER/NAME", "me/voices")
    assert "sertone predict me/voices recording.wav" in readme

    recording = small_demo / "wav" / "S1F_sad_00.wav"
    repository.files["weights.pkl"] = b"never fetched"
    loaded = run_sertone(hub, tmp_path, "predict", "me/voices", recording)
    assert loaded.returncode == 0, loaded.stderr
    assert sum("not for commercial use" in line for line in loaded.stderr.splitlines()) == 1
    expected = load(folder).predict(recording).probabilities
    assert json.loads(loaded.stdout)["probabilities"] == pytest.approx(expected, abs=1e-6)
    assert not [request for request in hub.requests if "pkl" in request]
    asked = len(hub.requests)
    offline = run_sertone(hub, tmp_path, "predict", "me/voices", recording, HF_HUB_OFFLINE="1")
    assert offline.stdout == loaded.stdout and len(hub.requests) == asked


def test_push_with_the_scores_of_a_run(made, hub, tmp_path):
    done = run_sertone(hub, tmp_path, "push", made / "final", "me/all", "--scores", made / "run")
    assert done.returncode == 0, done.stderr
    repository = hub.repositories["me/all"]
    assert "the 2 models of a cross-validation" in repository.files["README.md"].decode()
    assert not repository.private and "has not been scored" in (made / "final/checkpoint/card.md").read_text()


def test_a_model_free_of_reservations_is_pushed_without_a_word(made, hub, tmp_path):
    done = run_sertone(hub, tmp_path, "push", made / "free", "me/free")
    assert done.returncode == 0 and "warning" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    "repository, options, environment, code",
    [
        ("me/x", [], {"HF_TOKEN": ""}, "no_token"),
        ("me/x", [], {"HF_TOKEN": "hf_wrong"}, "hub_refused"),
        ("me/x", [], {"HF_ENDPOINT": "http://127.0.0.1:9"}, "hub_unreachable"),
        ("me/x", [], {"HF_HUB_OFFLINE": "1"}, "hub_unreachable"),
        ("me/a--b..c", [], {}, "bad_repository"),
        ("me/open", ["--private"], {}, "public_repository"),
    ],
)
def test_what_keeps_a_push_from_happening(made, hub, tmp_path, repository, options, environment, code):
    hub.repositories["me/open"] = Repository(private=False)
    done = run_sertone(hub, tmp_path, "push", made / "free", repository, *options, **environment)
    assert done.returncode == 2 and f"error [{code}]" in done.stderr, done.stderr
    assert done.stdout == "" and not any(r.files for r in hub.repositories.values())


def test_a_card_that_was_spoilt_by_hand_is_refused_before_anything_goes_up(made, hub, tmp_path):
    folder = shutil.copytree(made / "free", tmp_path / "free") / "checkpoint"
    card = folder / "card.md"
    card.write_text(card.read_text().replace("license: apache-2.0", "license: apache"))
    done = run_sertone(hub, tmp_path, "push", folder, "me/x")
    assert done.returncode == 2 and "error [hub_refused]" in done.stderr and "license 'apache'" in done.stderr
    assert not hub.uploads and not hub.repositories["me/x"].files


def test_a_run_of_several_models_is_not_one_model(made):
    with pytest.raises(SertoneError) as caught:
        push(made / "run", "me/x")
    assert caught.value.code == "many_models" and "2 models" in str(caught.value)


@pytest.mark.parametrize("environment", [{}, {"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}])
def test_a_model_that_is_neither_here_nor_on_the_hub(hub, tmp_path, environment):
    done = run_sertone(hub, tmp_path, "predict", "nobody/none", "x.wav", **environment)
    assert done.returncode == 2 and "error [not_a_checkpoint] no folder nobody/none" in done.stderr
    assert "from the hub" in done.stderr and bool(hub.requests) == (not environment)


@pytest.mark.parametrize("command", ["predict {} x.wav", "info {}", "listen {}", "export hf:{} x"])
def test_a_path_is_not_asked_of_the_hub(hub, tmp_path, command):
    path = {"predict": "runs/final", "info": "./me/x", "listen": "here/x", "export": "me/x/"}[
        command.split()[0]
    ]
    (tmp_path / "here").mkdir()
    done = run_sertone(hub, tmp_path, *command.format(path).split())
    assert done.returncode == 2 and hub.requests == []
    assert re.search(r"error \[(not_a_checkpoint|missing_encoder)\] no folder", done.stderr)


def test_what_is_taken_for_a_name_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "facebook").mkdir()
    for name in ("owner/voices", "Owner-1/wav2vec2.0_x", "bert-base-uncased", "facebook/hubert-base-ls960"):
        assert is_hub_id(name) and not is_hub_id(Path(name))
    paths = [
        "runs/final",
        "recipes/x",
        "here/x",
        "facebook/mine",
        "./a/b",
        "../b",
        "a/b/",
        "/a/b",
        "~/b",
        "a/b/c",
    ]
    for name in [*paths, "a", "", "a/b\n", "-/b", "a//b"]:
        assert not is_hub_id(name), name

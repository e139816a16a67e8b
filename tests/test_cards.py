"""Model cards state the scores of the run; models pushed to a stand-in of the hub load unchanged."""

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
def artefacts(tmp_path_factory, small_demo, tiny_encoder):
    """A cross-validation `run`, a model `final` of all data, and a model `free` of restrictions."""
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


def fold(artefacts):
    return artefacts / "run" / "fold_1" / "checkpoint"


def metadata(text):
    return yaml.safe_load(text.split("---\n")[1])


def rows_of(run, number):
    with open(run / "predictions.csv", newline="") as file:
        return [row for row in csv.DictReader(file) if number in (None, int(row["fold"]))]


def percent_table(text):
    """Return score -> value, low, high from the table of a card."""
    found = re.findall(r"^\| (\S+) \| ([\d.]+)% \| ([\d.]+)% to ([\d.]+)% \|$", text, re.M)
    return {name: [float(v) / 100 for v in values] for name, *values in found}


def test_the_checkpoint_has_a_ledger(artefacts):
    (entry,) = folders.read_about(fold(artefacts))["licences"]
    assert (entry["what"], entry["id"], entry["commercial"]) == ("corpus", "cc-by-nc-4.0", False)
    corpus, encoder = folders.read_about(artefacts / "free" / "checkpoint")["licences"]
    assert (corpus["id"], encoder["what"], encoder["id"]) == ("cc0-1.0", "encoder", "apache-2.0")
    protocol = json.loads((artefacts / "run" / "protocol.json").read_text())
    assert protocol["corpus"]["licence"]["id"] == "cc-by-nc-4.0"
    assert "CC BY-NC 4.0 (not for commercial use)" in (artefacts / "run" / "report.html").read_text()


def test_loading_warns_once_of_a_non_commercial_licence(artefacts):
    with pytest.warns(LicenceWarning, match=r"corpus a manifest \(CC BY-NC 4\.0\)") as caught:
        sertone.load(artefacts / "run")
    (own,) = (warning for warning in caught if warning.category is LicenceWarning)
    assert own.filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error", LicenceWarning)
        sertone.load(artefacts / "free")


def test_a_folds_card_states_its_own_scores(artefacts):
    text = (fold(artefacts) / "card.md").read_text()
    rows = rows_of(artefacts / "run", 1)
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
        assert f"`{speaker}`" in text.split("Test set:")[1].split("\n")[0]
    assert f"{len(rows)} utterances of 5 speakers, on whom the model was not trained" in text
    assert "drawing whole speakers" in text and "Article 5(1)(f)" in text


def test_the_metadata_of_a_card(artefacts):
    fields = metadata((fold(artefacts) / "card.md").read_text())
    assert fields["license"] == "cc-by-nc-4.0" and fields["library_name"] == "sertone"
    assert fields["pipeline_tag"] == "audio-classification" and "wan2025" in fields["tags"]
    assert not fields.keys() & {"language", "datasets", "base_model"}
    free = metadata((artefacts / "free" / "checkpoint" / "card.md").read_text())
    assert (free["license"], free["language"]) == ("apache-2.0", "en")
    assert not free.keys() & {"model-index", "base_model"}


def test_an_encoder_of_the_hub_is_named_as_the_base_model_and_a_public_corpus_as_data(artefacts):
    about = folders.read_about(artefacts / "free" / "checkpoint")
    about["licences"][1]["of"] = "facebook/hubert-base-ls960"
    about["card"]["corpus"] |= {"name": "emodb", "title": "EmoDB"}
    fields = metadata(model_card.render(about))
    assert fields["base_model"] == "facebook/hubert-base-ls960" and fields["datasets"] == ["emodb"]


def test_cards_pass_the_library_and_the_validation_of_the_hub(artefacts):
    about = folders.read_about(fold(artefacts))
    scores = Scores.from_run(artefacts / "run", about)
    for text in (
        *(
            (folder / "card.md").read_text()
            for folder in (fold(artefacts), artefacts / "final" / "checkpoint")
        ),
        model_card.render(about, scores),
    ):
        card = ModelCard(text)
        assert metadata_errors(text) == []
        assert ModelCard(str(card)).data.to_dict() == card.data.to_dict() == metadata(text)
    assert metadata_errors(text.replace("cc-by-nc-4.0", "none-such", 1)) == ["license 'none-such'"]
    with running() as hub:
        code = f"from huggingface_hub import ModelCard; ModelCard.load({str(fold(artefacts) / 'card.md')!r}).validate()"
        done = process(hub, artefacts, [sys.executable, "-c", code])
        assert done.returncode == 0 and hub.requests == ["POST /api/validate-yaml"], done.stderr


def test_a_model_of_all_data_has_no_scores_without_a_run_of_its_recipe(artefacts):
    text = (artefacts / "final" / "checkpoint" / "card.md").read_text()
    assert "has not been scored" in text and not percent_table(text) and "the whole corpus" in text
    about = folders.read_about(artefacts / "final" / "checkpoint")
    text = model_card.render(about, Scores.from_run(artefacts / "run", about))
    pooled = json.loads((artefacts / "run" / "results.json").read_text())["pooled"]["emotion"]
    assert percent_table(text)["UA"] == pytest.approx(
        [pooled["ua"], *pooled["intervals"]["speakers"]["ua"]], abs=6e-4
    )
    assert "the 2 models of a cross-validation" in text and "40 utterances of\n10 speakers" in text
    assert "no utterance is left to score it" in text


def test_a_card_calls_speakers_new_only_where_the_training_speakers_are_known(artefacts):
    """A test speaker may be among the unknown training speakers of the model, its encoder or its teachers."""
    about = folders.read_about(fold(artefacts))
    pooled = Scores.from_run(artefacts / "run", about)
    single = Scores.from_fold(json.loads((artefacts / "run" / "fold_1" / "result.json").read_text()))
    assert "not trained on its speaker" in model_card.render(about, pooled)
    assert "on whom the model was not trained" in model_card.render(about, single)
    about["card"]["heard"]["unknown_speakers"] = 3
    assert "not trained on that utterance" in model_card.render(about, pooled)
    assert "on whom the model was not trained" not in model_card.render(about, single)


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
def test_scores_of_another_recipe_are_refused(artefacts, tmp_path, small_demo, changes, differing):
    train.train(recipe_of(small_demo, **changes), tmp_path / "other", quiet=True)
    with pytest.raises(SertoneError, match=differing) as caught:
        Scores.from_run(artefacts / "run", folders.read_about(tmp_path / "other" / "checkpoint"))
    assert caught.value.code == "other_recipe"


def test_a_run_in_another_precision_has_the_same_recipe(artefacts, tmp_path):
    """`precision: auto` becomes another precision on another machine."""
    about = folders.read_about(artefacts / "final" / "checkpoint")
    card = about["card"] | {"train": about["card"]["train"] | {"precision": "bf16-mixed"}}
    assert about["card"]["train"]["precision"] == "32-true"
    assert Scores.from_run(artefacts / "run", about | {"card": card}) == Scores.from_run(
        artefacts / "run", about
    )


def test_scores_need_a_finished_run_of_one_kind(artefacts, tmp_path):
    about = folders.read_about(fold(artefacts))
    with pytest.raises(SertoneError) as caught:
        Scores.from_run(artefacts / "final", about)
    assert caught.value.code == "not_a_run"
    shutil.copytree(artefacts / "run", tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    results["folds_of_other_settings"] = ["S1F S2M"]
    (tmp_path / "run" / "results.json").write_text(json.dumps(results))
    with pytest.raises(SertoneError, match="settings of S1F S2M"):
        Scores.from_run(tmp_path / "run", about)


def test_intervals_are_over_speakers_unless_there_are_too_few(artefacts):
    result = json.loads((artefacts / "run" / "fold_1" / "result.json").read_text())
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
        text = model_card.render(folders.read_about(fold(artefacts)), scores)
        assert ("drawing whole speakers" in text) == (speakers == 5)
        assert ("3 are too few to tell" in text) == (speakers == 3)


def test_names_from_a_corpus_cannot_act_as_markdown(artefacts):
    about = folders.read_about(fold(artefacts))
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


def test_push_uploads_the_three_files_and_the_model_loads_from_the_hub(artefacts, hub, tmp_path, small_demo):
    folder = shutil.copytree(fold(artefacts), tmp_path / "checkpoint")
    (folder / "notes.pkl").write_bytes(b"\x80\x04.")
    (folder / "train.wav").write_bytes(b"RIFF")
    done = run_sertone(hub, tmp_path, "push", folder, "me/voices", "--private", "--message", "First")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub.url}/me/voices"
    lines = done.stderr.splitlines()
    assert (
        sum("CC BY-NC 4.0" in line for line in lines) == 1
        and sum("10 speakers" in line for line in lines) == 1
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


def test_push_with_the_scores_of_a_run(artefacts, hub, tmp_path):
    done = run_sertone(hub, tmp_path, "push", artefacts / "final", "me/all", "--scores", artefacts / "run")
    assert done.returncode == 0, done.stderr
    repository = hub.repositories["me/all"]
    assert "the 2 models of a cross-validation" in repository.files["README.md"].decode()
    assert (
        not repository.private
        and "has not been scored" in (artefacts / "final/checkpoint/card.md").read_text()
    )


def test_a_model_without_restrictions_is_pushed_without_a_warning(artefacts, hub, tmp_path):
    done = run_sertone(hub, tmp_path, "push", artefacts / "free", "me/free")
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
def test_reasons_why_a_push_fails(artefacts, hub, tmp_path, repository, options, environment, code):
    hub.repositories["me/open"] = Repository(private=False)
    done = run_sertone(hub, tmp_path, "push", artefacts / "free", repository, *options, **environment)
    assert done.returncode == 2 and f"error [{code}]" in done.stderr, done.stderr
    assert done.stdout == "" and not any(r.files for r in hub.repositories.values())


def test_an_invalid_card_is_refused_before_the_upload(artefacts, hub, tmp_path):
    folder = shutil.copytree(artefacts / "free", tmp_path / "free") / "checkpoint"
    card = folder / "card.md"
    card.write_text(card.read_text().replace("license: apache-2.0", "license: apache"))
    done = run_sertone(hub, tmp_path, "push", folder, "me/x")
    assert done.returncode == 2 and "error [hub_refused]" in done.stderr and "license 'apache'" in done.stderr
    assert not hub.uploads and not hub.repositories["me/x"].files


def test_a_run_of_several_models_is_not_one_model(artefacts):
    with pytest.raises(SertoneError) as caught:
        push(artefacts / "run", "me/x")
    assert caught.value.code == "many_models" and "2 models" in str(caught.value)


@pytest.mark.parametrize("environment", [{}, {"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}])
def test_a_model_that_is_neither_local_nor_on_the_hub(hub, tmp_path, environment):
    done = run_sertone(hub, tmp_path, "predict", "nobody/none", "x.wav", **environment)
    assert done.returncode == 2 and "error [not_a_checkpoint] no folder nobody/none" in done.stderr
    assert "the hub gives no such model" in done.stderr and bool(hub.requests) == (not environment)


@pytest.mark.parametrize("command", ["predict {} x.wav", "info {}", "listen {}", "export hf:{} x"])
def test_a_path_is_not_looked_up_on_the_hub(hub, tmp_path, command):
    path = {"predict": "runs/final", "info": "./me/x", "listen": "here/x", "export": "me/x/"}[
        command.split()[0]
    ]
    (tmp_path / "here").mkdir()
    done = run_sertone(hub, tmp_path, *command.format(path).split())
    assert done.returncode == 2 and hub.requests == []
    assert re.search(r"error \[(not_a_checkpoint|missing_encoder)\] no folder", done.stderr)


def test_names_that_are_looked_up_on_the_hub(tmp_path, monkeypatch):
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

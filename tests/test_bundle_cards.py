"""Shared bundles: their cards, `sertone info`, the hub; the scores of the run they come from."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import yaml
from conftest import TINY_MODEL
from hub import metadata_errors, running
from huggingface_hub import ModelCard
from toys import CLASSES, expected, write_toy

from sertone.errors import SertoneError
from sertone.export.bundles import export
from sertone.runtime.bundle import read_metadata
from sertone.sharing.push import push

SCORES = {
    "values": {"ua": 0.61, "arousal.ccc": 0.4},
    "intervals": {"ua": [0.5, 0.7]},
    "drawn": "speakers",
    "utterances": 120,
    "speakers": 6,
    "folds": None,
}
MEASURED = {
    "corpus": "EmoDB",
    "utterances": 339,
    "equal_labels": 0.97,
    "mean_difference": 0.0123,
    "scores": {"ua": {"fp32": 0.81, "own": 0.806, "utterances": 339}},
    "loss_points": 0.4,
}

CARD = {
    "corpus": {"name": "toy", "title": "Toy", "citation": "None", "licence": {}},
    "selection": "none",
    "fold": "1",
    "folds": [{}, {}],
    "split": {"split": "grouped_k_fold"},
    "metrics": {"ua": "mean recall", "ccc": "Lin's"},
}


def process(folder, *arguments, hub=None, code="-m"):
    variables = os.environ | (hub.environment(folder / "cache") if hub else {})
    command = [sys.executable, code, *map(str, arguments)]
    return subprocess.run(command, env=variables, capture_output=True, text=True, cwd=folder)


def metadata(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_the_card_of_a_bundle_has_the_form_of_the_hub(tmp_path):
    changes = {"precision": "int8", "measured": MEASURED, "scores": SCORES, "card": CARD}
    folder = write_toy(tmp_path / "bundle", licence={"id": "cc-by-nc-4.0", "commercial": False}, **changes)
    text = (folder / "README.md").read_text()
    card = ModelCard(text)
    assert metadata_errors(text) == [] and card.data.to_dict() == metadata(text)
    fields = metadata(text)
    assert (fields["license"], fields["library_name"]) == ("cc-by-nc-4.0", "sertone")
    assert {"onnx", "int8"} <= set(fields["tags"])
    (result,) = fields["model-index"][0]["results"]
    assert {m["type"]: m["value"] for m in result["metrics"]} == {"recall": 0.61, "ccc": 0.4}
    assert "| UA | 61.0% | 50.0% to 70.0% |" in text and "120 utterances of 6 speakers" in text
    assert "339 recordings of EmoDB; 97.0% of the labels are the same" in text
    assert "UA 80.6% instead of 81.0%" in text and "**Not for commercial use" in text
    assert "grouped k fold, fold `1` of 2" in text and "Article 5(1)(f)" in text


def test_a_card_states_what_is_not_known(toy):
    text = (toy / "README.md").read_text()
    assert metadata_errors(text) == [] and "Not known." in text and "not compared" in text
    assert all(f"`{name}`" in text for name in CLASSES) and "`arousal` from 1 to 5 points" in text


def test_info_needs_no_torch(tmp_path):
    changes = {"precision": "int8", "measured": MEASURED, "scores": SCORES, "card": CARD}
    folder = write_toy(tmp_path / "bundle", **changes)
    code = (
        "import sys, sertone.cli as cli\n"
        f"status = cli.app(['info', {str(folder)!r}], exit_on_error=False)\n"
        "print(status, [m for m in ('torch', 'transformers', 'sklearn', 'pydantic') if m in sys.modules])"
    )
    done = process(tmp_path, code, code="-c")
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    assert last == "0 []"
    rows = {line[:11].strip(): line[12:] for line in lines}
    assert rows["outputs"] == f"emotion: {', '.join(CLASSES)}; arousal from 1 to 5 points"
    assert rows["scores"].startswith("UA 61.0%") and rows["bundle"].startswith("toy, int8, 0.0 MB")
    assert rows["loss"] == "0.40 points on 339 recordings of EmoDB"
    found = json.loads(process(tmp_path, "sertone", "info", folder, "--json").stdout)
    assert found["corpus"] == "Toy" and found["classes"] == CLASSES


def test_a_bundle_is_pushed_to_the_hub_and_loaded_from_it(toy, tmp_path):
    samples = (0.1 * np.random.default_rng(0).standard_normal(16000)).astype(np.float32)
    soundfile.write(tmp_path / "speech.wav", samples, 16000, subtype="FLOAT")
    with running() as hub:
        done = process(tmp_path, "sertone", "push", toy, "me/loud", hub=hub)
        assert done.returncode == 0 and done.stdout.strip() == f"{hub.url}/me/loud", done.stderr
        files = hub.repositories["me/loud"].files
        assert files.keys() == {"README.md", "bundle.json", "model.onnx", "probe.npy"}
        readme = files["README.md"].decode()
        assert "sertone predict me/loud recording.wav" in readme and "OWNER/NAME" not in readme
        loaded = process(tmp_path, "sertone", "predict", "me/loud", "speech.wav", "--any-sound", hub=hub)
        assert loaded.returncode == 0, loaded.stderr
        shares, _ = expected(samples)
        assert list(json.loads(loaded.stdout)["probabilities"].values()) == pytest.approx(shares, abs=1e-5)
        described = process(tmp_path, "sertone", "info", "me/loud", hub=hub)
        assert "neutral, happy, angry, sad" in described.stdout


def test_a_damaged_bundle_is_not_pushed(tmp_path):
    folder = write_toy(tmp_path / "toy")
    with pytest.raises(SertoneError) as caught:
        push(folder, "me/x", scores=tmp_path)
    assert caught.value.code == "other_recipe"
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:-20])
    with pytest.raises(SertoneError) as caught:
        push(folder, "me/x")
    assert caught.value.code == "bad_bundle"


def test_a_bundle_with_an_edited_card_is_valid(tmp_path):
    folder = write_toy(tmp_path / "toy")
    (folder / "README.md").write_text("mine")
    assert read_metadata(folder)["name"] == "toy" and "README.md" not in read_metadata(folder)["files"]


@pytest.mark.slow
def test_the_scores_of_a_run_are_on_the_card(tmp_path, small_demo):
    from sertone.recipe import Recipe
    from sertone.training.runs.crossval import cross_validate

    values = {
        "data": {"corpus": "demo", "root": str(small_demo)},
        "protocol": {"split": "grouped_k_fold", "folds": 2},
        "model": TINY_MODEL,
        "train": {"epochs": [1, 1], "batch_size": 8},
    }
    cross_validate(Recipe.model_validate(values), tmp_path / "run", jobs=1, quiet=True)
    whole = export(tmp_path / "run", tmp_path / "whole")
    pooled = json.loads((tmp_path / "run/results.json").read_text())["pooled"]["emotion"]
    assert whole["scores"]["values"]["ua"] == pooled["ua"] and whole["scores"]["folds"] == 2
    assert "The mean of the models has no separate score" in (tmp_path / "whole/README.md").read_text()
    one = export(tmp_path / "run/fold_1", tmp_path / "one")
    result = json.loads((tmp_path / "run/fold_1/result.json").read_text())
    assert one["scores"]["values"]["ua"] == result["metrics"]["emotion"]["ua"]
    text = (tmp_path / "one/README.md").read_text()
    assert (
        "on whom the model was not trained" in text
        and f"fold `{one['card']['fold']}` of 2" in text
        and metadata_errors(text) == []
    )

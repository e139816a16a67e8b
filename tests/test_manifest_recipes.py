"""The pretrained recipes for your own table: they are valid, and train a tiny encoder for an epoch."""

import csv
import json

import pytest
from conftest import REPOSITORY

from sertone import catalogue, models, recipe
from sertone.cli import app

LAYERS = {"manifest_frozen": 2, "manifest_whisper": 2, "manifest_wavlm": 1}
"""Recipe -> number of frozen layers of a tiny encoder with two layers."""
VALIDATION = {"manifest_frozen": "speaker", "manifest_whisper": "none", "manifest_wavlm": "speaker"}
"""Recipe -> who chooses the epoch: a training speaker, or nobody, so that all speakers train."""


@pytest.fixture
def table(tmp_path, small_demo):
    """Write a table with the three required columns."""
    with open(small_demo / "metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [
        "path,speaker,emotion",
        *(f"{small_demo / r['path']},{r['speaker']},{r['emotion']}" for r in rows),
    ]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    return tmp_path / "table.csv"


@pytest.mark.parametrize("name", LAYERS)
def test_folds_share_no_speaker_and_need_no_session(name):
    read = recipe.load(name)
    assert read.data.corpus == "manifest" and read.data.classes == "all"
    assert (read.protocol.split, read.protocol.validation) == ("grouped_k_fold", VALIDATION[name])
    assert models.configure(read.model).encoder.name == "pretrained" and len(read.train.epochs) == 1


@pytest.mark.parametrize("name", LAYERS)
def test_an_epoch_with_a_tiny_encoder(name, tmp_path, table, tiny_encoder, capsys):
    settings = [f"data.root={table}", "protocol.folds=2", "train.epochs=[1]"]
    settings += [f"model.encoder.source={tiny_encoder('wavlm')}", f"model.frozen_layers={LAYERS[name]}"]
    parts = [part for setting in settings for part in ("--set", setting)]
    assert app(["crossval", name, "--jobs", "1", "--out", str(tmp_path / "run"), *parts]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert 0 <= results["pooled"]["emotion"]["ua"] <= 1 and len(results["folds"]) == 2
    frozen = f"output of the frozen encoder up to layer {LAYERS[name]} kept in memory"
    assert frozen in capsys.readouterr().err


def test_the_page_on_choosing_a_recipe_names_existing_recipes():
    """The page states the same kind of machine as `sertone recipes list`."""
    entries = {entry.name: entry for entry in catalogue.list_entries() if entry.kind != "study"}
    lines = (REPOSITORY / "docs" / "which-recipe.md").read_text().splitlines()
    tables = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")
    ]
    rows = [row for row in tables if row[-2].startswith("`")]
    assert len(rows) >= 9
    for *_, machine, name, purpose in rows:
        assert machine.startswith(entries[name.strip("`")].device), name
        assert "measured" in purpose or "synthetic" in purpose or "not a classifier" in purpose, name

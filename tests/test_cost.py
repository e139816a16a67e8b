"""What models cost: parameters against Hugging Face's own counts, and what `sertone info` says."""

import csv
import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import yaml
from conftest import TINY_MODEL
from test_ispas2023 import SCALES, UTTERANCES
from transformers import AutoConfig, AutoModel

from sertone import cli, models
from sertone.analysis import cost
from sertone.analysis.study.ablate import ablate
from sertone.labels import FOUR_CLASSES
from sertone.recipe import dump
from sertone.training.fit import checkpoint
from sertone.training.runs import train

DISTILHUBERT = {"model_type": "hubert", "num_hidden_layers": 2, "feat_proj_layer_norm": False}
DISTILBERT = {"model_type": "distilbert"}
LARGE = {"model_type": "hubert", "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
LARGE |= {
    "intermediate_size": 4096,
    "do_stable_layer_norm": True,
    "feat_extract_norm": "layer",
    "conv_bias": True,
}


def transformer(config):
    """As Hugging Face builds it, without memory for its weights."""
    values = dict(config)
    with torch.device("meta"):
        return AutoModel.from_config(AutoConfig.for_model(values.pop("model_type"), **values))


def count(*modules):
    return sum(weight.numel() for module in modules for weight in module.parameters())


def build(**options):
    values = {"name": "oliveira2023", "text": None} | options
    return models.build(values, models.build_vocabulary(values, UTTERANCES, FOUR_CLASSES, SCALES))


def architecture(config, **more):
    return {"name": "architecture", "config": config} | more


def test_distilhubert_and_distilbert_have_a_fifth_of_the_parameters_of_hubert_large():
    encoder, text = architecture(DISTILHUBERT, normalize=False), architecture(DISTILBERT)
    values = {"name": "oliveira2023", "encoder": encoder, "text": text}
    tokenizer = {"name": "tiny", "width": 8, "depth": 1}  # a bare architecture has none
    vocabulary = models.build_vocabulary(values | {"text": tokenizer}, UTTERANCES, {}, SCALES)
    found = cost.count_parameters(models.build(values, vocabulary))
    large, audio, words = map(transformer, (LARGE, DISTILHUBERT, DISTILBERT))
    assert count(large) - count(large.feature_extractor) == cost.HUBERT_LARGE
    encoders = count(audio, words) - count(audio.feature_extractor, words.embeddings)
    rest = found["parts"]["rest"]["trained"]
    assert found["trained"] == pytest.approx(encoders + rest, abs=1000)  # the mask embedding is not there
    assert 0.19 < found["trained"] / cost.HUBERT_LARGE == found["share_of_hubert_large"] < 0.21


@pytest.mark.parametrize("frozen", [-1, 0, 1, 2])
def test_what_is_frozen_is_not_trained(frozen):
    model = build(encoder=TINY_MODEL["encoder"], frozen_layers=frozen)
    found = cost.count_parameters(model)
    below = [module for modules in model.encoder.parts()[: frozen + 1] for module in modules]
    assert found["total"] == count(model) and found["trained"] == count(model) - count(*below)
    assert sum(part["total"] for part in found["parts"].values()) == found["total"]
    assert sum(part["trained"] for part in found["parts"].values()) == found["trained"]


def test_what_only_one_stage_trains_counts_once():
    model = models.build(TINY_MODEL, models.build_vocabulary(TINY_MODEL, UTTERANCES, FOUR_CLASSES, {}))
    found = cost.count_parameters(model)
    assert list(found["stages"]) == ["auxiliary", "emotion"]
    assert found["trained"] == count(model) and max(found["stages"].values()) < found["trained"]


@pytest.mark.slow
def test_a_larger_model_takes_more_memory():
    found = []
    for width, depth in ((16, 1), (256, 8)):
        encoder = {"name": "compact", "width": width, "depth": depth}
        values = {"name": "oliveira2023", "encoder": encoder, "text": None}
        found.append(cost.measure_cost(values, models.build_vocabulary(values, UTTERANCES, {}, SCALES)))
    small, large = found
    assert large["memory_mb"] > small["memory_mb"] + 4 * (large["total"] - small["total"]) / 1e6 * 0.8
    assert large["real_time_factor"] > 0 and small["real_time_factor"] > 0


def test_info_says_the_same_of_a_checkpoint_and_its_recipe(demo_recipe, tmp_path, capsys):
    recipe = demo_recipe()
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    train.train(recipe, tmp_path / "run", quiet=True)
    said = []
    for source in ("recipe.yaml", "run", "run/checkpoint"):
        assert cli.app(["info", str(tmp_path / source), "--json"]) == 0
        said.append(json.loads(capsys.readouterr().out))
    assert said[0] == said[1] == said[2]
    model, _, _ = checkpoint.load_model(tmp_path / "run" / "checkpoint")
    assert said[0]["cost"]["total"] == count(model)
    assert said[0]["answers"] == {"emotion": ["neutral", "happy", "angry", "sad"]}
    assert cli.app(["info", str(tmp_path / "run")]) == 0
    text = capsys.readouterr().out
    assert "wan2025, compact" in text and "of HuBERT-large" in text and "neutral, happy" in text
    assert "faster than real time" not in text


@pytest.fixture(scope="module")
def costed(tmp_path_factory, small_demo):
    """A study of two rows that asks for costs, run twice."""
    folder = tmp_path_factory.mktemp("costed")
    recipe = {
        "data": {"corpus": "demo", "root": str(small_demo)},
        "protocol": {"split": "grouped_k_fold", "folds": 2},
        "model": {"name": "oliveira2023", "encoder": TINY_MODEL["encoder"], "text": None, "hidden": 8},
        "train": {"epochs": [1], "batch_size": 8},
    }
    text = {"name": "tiny", "width": 16, "depth": 1, "attention_heads": 2}
    study = {
        "title": "what it costs",
        "recipe": "recipe.yaml",
        "columns": {"small": {}},
        "rows": {
            "audio": {},
            "audio & text": {"model.text": text},
            "text": {"model.text": text, "model.encoder": None},
        },
        "scores": ["arousal.ccc", "valence.ccc"],
        "costs": True,
        "keep_checkpoints": True,
    }
    for name, values in (("recipe", recipe), ("study", study)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    ablate(folder / "study.yaml", folder / "out", jobs=1, quiet=True)
    files = [(folder / "out" / name).read_bytes() for name in ("results.json", "table.md", "costs.json")]
    ablate(folder / "study.yaml", folder / "out", jobs=1, quiet=True)
    assert files == [(folder / "out" / n).read_bytes() for n in ("results.json", "table.md", "costs.json")]
    return folder / "out"


def test_a_study_shows_what_its_models_cost(costed):
    found = json.loads((costed / "results.json").read_text())
    costs = {row["name"]: row["cells"]["small"]["cost"] for row in found["rows"]}
    for name in ("audio", "text"):
        model, _, _ = checkpoint.load_model(costed / f"cells/{name}/small/seed_0/fold_0/checkpoint")
        assert costs[name]["total"] == count(model)
    assert costs["audio & text"]["total"] > costs["audio"]["total"]
    assert all(cost["real_time_factor"] > 0 and cost["memory_mb"] > 0 for cost in costs.values())


def test_costs_stand_in_every_form_of_the_table(costed):
    found = json.loads((costed / "results.json").read_text())
    lines = [line for line in (costed / "table.md").read_text().splitlines() if line.startswith("|")]
    heads = [cell.strip() for cell in lines[0].strip("|").split("|")]
    assert heads[2:] == [
        "CCC arousal", "CCC valence", "parameters, M", "trained, M", "real-time factor", "memory, MB",
    ]  # fmt: skip
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    cost = found["rows"][0]["cells"]["small"]["cost"]
    assert cells[0] == "audio" and float(cells[4]) == pytest.approx(cost["total"] / 1e6, rel=1e-2)
    rows = {
        (r["row"], r["score"]): r for r in csv.DictReader((costed / "table.csv").read_text().splitlines())
    }
    assert (
        float(rows["text", "memory_mb"]["value"]) == found["rows"][2]["cells"]["small"]["cost"]["memory_mb"]
    )
    assert all(len(row) == len(rows["text", "memory_mb"]) and None not in row for row in rows.values())
    tex = (costed / "table.tex").read_text()
    assert r"audio \& text" in tex and "real-time factor" in tex


def test_the_page_plots_scores_against_costs(costed):
    page = (costed / "report.html").read_text()
    assert "Accuracy against cost" in page and "from left to right CCC arousal, CCC valence" in page
    svg = re.findall(r"<svg.*?</svg>", page, re.S)[0]
    drawn = ElementTree.fromstring(svg)
    marks = [g for g in drawn.iter() if g.get("class", "").startswith("mark") and len(g) == 2]
    assert len(marks) == 6  # three systems with two scores each
    found = json.loads((costed / "results.json").read_text())
    costs = sorted(row["cells"]["small"]["cost"]["trained"] for row in found["rows"])
    places = sorted({float(mark[1].get("cx")) for mark in marks})
    between = [(a + b) / 2 for a, b in zip(places[::2], places[1::2], strict=True)]
    steps = np.diff(between) / np.diff(np.log(costs))  # a logarithmic axis
    assert steps[0] == pytest.approx(steps[1], rel=0.05)

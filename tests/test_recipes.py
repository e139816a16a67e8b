"""Recipes: the shipped ones are valid, and errors in a recipe are named."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import REPOSITORY

from sertone import corpora, models
from sertone import recipe as recipes
from sertone.errors import SertoneError
from sertone.files import parse_yaml
from sertone.labels import Scale
from sertone.recipe.precision import find_device_type
from sertone.recipe.settings import load_yaml, parse
from sertone.recipe.train_config import TrainConfig
from sertone.training.fit.distributed import require_device
from sertone.training.runs.scheduler import choose_jobs

ALL = sorted((REPOSITORY / "recipes").glob("*.yaml"))
SHIPPED = [path for path in ALL if "distill" not in path.read_text().split("\n")[0]]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_recipes(path):
    recipe = recipes.load(path)
    config = models.configure(recipe.model)
    assert recipe.data.corpus in corpora.list_names()
    assert recipes.find_shipped_recipe(path.stem) == path
    stages = 2 if recipe.model["name"] == "wan2025" and any(recipe.model["tasks"].values()) else 1
    assert len(recipe.train.epochs) == stages
    assert yaml.safe_load(recipes.dump(recipe))["train"]["seed"] == (1 if path.stem == "ispas2023" else 0)
    again = parse(recipes.Recipe, yaml.safe_load(recipes.dump(recipe)), "again")
    assert again == recipe and models.configure(again.model) == config


def test_the_recipes_that_the_docs_name_are_there():
    names = {path.stem for path in SHIPPED}
    assert names >= {
        "demo", "wan2025_wav2vec2", "wan2025_hubert", "wan2025_wavlm", "emodb_compact", "ravdess_compact", "compact",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["wav2vec2", "hubert", "wavlm"])
def test_the_settings_of_the_paper_and_both_readings_of_its_rates(name):
    path = recipes.find_shipped_recipe(f"wan2025_{name}")
    recipe = recipes.load(path)
    assert recipe.train.epochs == [100, 100] and recipe.train.batch_size == 4
    assert recipe.train.speeds == [0.8, 1.0, 1.2]
    assert recipe.train.length_mixing == "random"
    assert (recipe.train.rates.downstream, recipe.train.rates.encoder) == (1e-4, 1e-5)
    other = recipes.load(path, ["train.learning_rate=printed"])
    assert (other.train.rates.downstream, other.train.rates.encoder) == (1e-3, 1e-4)


def write(tmp_path, **changes):
    values = yaml.safe_load(recipes.find_shipped_recipe("demo").read_text()) | changes
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "r.yaml"


@pytest.mark.parametrize(
    "override, message",
    [
        ("trian.seed=1", "unknown key 'trian'; did you mean 'train'"),
        ("train.epoch=[1,1]", "unknown key 'epoch'; did you mean 'epochs'"),
        ("data.corpsu=x", "did you mean 'corpus'"),
        ("protocol.split=random", "grouped_k_fold"),
        ("train.seed=one", "train.seed"),
        ("train.batch_seconds=60", "either batch_size or batch_seconds"),
        ("train.learning_rate=fast", "'fast' is neither two rates nor named"),
        ("train.seed", "KEY=VALUE"),
        ("train.epochs=[1, 2", r"--set train.epochs=\[1, 2; expected a YAML value"),
        ("train.seed.x=1", "holds no keys"),
        ("train.clip_norm=0", "greater than 0"),
        ("train.speeds=[80, 100, 120]", "less than or equal to 2"),
        ("train.epochs=[-1, 1]", "greater than or equal to 0"),
        ("data.text=audio", r"data.text.source: .*'corpus', 'column', 'asr' or 'none'.*found 'audio'"),
        ("data.text=column", "source: column and the name of a column go together"),
        ("data.text.column=words", "source: column and the name of a column go together"),
        ("data.text.asr.modle=tiny", "did you mean 'model'"),
        ("data.text.asr.beam_size=0", "greater than or equal to 1"),
        ("data.scales={joy: [1, 5]}", "no rating 'joy'; expected some of arousal, valence, dominance"),
        ("data.scales={valence: [5, 1]}", "valence from 5 to 1; expected the lower end first"),
        ("data.scales={valence: [1, .inf]}", "finite number"),
        ("data.scales={valence: [1, 2, 3]}", "data.scales.valence"),
        (f"train.seed={10**30}", "less than or equal to 4294967295"),
        (f"protocol.folds={10**30}", "expected at most 1000000"),
        (f"train.epochs=[1, {10**30}]", "expected at most 1000000"),
        ("train.clip_norm=.inf", "finite number"),
        ("train.weight_decay=.nan", "finite number"),
        ("train.seed=!!bool maybe", "expected a YAML value"),
    ],
)
def test_errors_are_named(tmp_path, override, message):
    with pytest.raises(SertoneError, match=message):
        recipes.load(write(tmp_path), [override])


def test_overrides(tmp_path):
    recipe = recipes.load(
        write(tmp_path), ["train.seed=7", "model.encoder.width=32", "data.classes={sad: low}"]
    )
    assert recipe.train.seed == 7 and recipe.model["encoder"]["width"] == 32
    assert recipe.data.classes == {"sad": "low"}


@pytest.mark.parametrize("word", ["corpus", "asr", "none"])
def test_a_single_word_sets_the_source_of_the_text(tmp_path, word):
    recipe = recipes.load(write(tmp_path), [f"data.text={word}"])
    assert recipe.data.text == recipes.TextConfig(source=word)
    assert parse(recipes.Recipe, yaml.safe_load(recipes.dump(recipe)), "again") == recipe


def test_scales_of_the_recipe_override_those_of_the_data_sheet(tmp_path):
    plain = recipes.load(write(tmp_path)).data
    assert (
        plain.text.source == "corpus" and corpora.resolve_scales(plain) == corpora.load_sheet("demo").SCALES
    )
    own = recipes.load(write(tmp_path), ["data.scales={valence: [1, 7], arousal: [-1, 1]}"]).data
    found = corpora.resolve_scales(own)
    assert (found["valence"], found["arousal"]) == (Scale(1, 7), Scale(-1, 1))
    assert found["dominance"] == corpora.load_sheet("demo").SCALES["dominance"]
    manifest = own.model_copy(update={"corpus": "manifest"})
    assert corpora.resolve_scales(manifest).keys() == {"valence", "arousal"}


def test_files_that_are_not_recipes(tmp_path):
    with pytest.raises(SertoneError, match="no file"):
        recipes.load(tmp_path / "nowhere.yaml")
    (tmp_path / "x.yaml").write_text("a: [")
    with pytest.raises(SertoneError, match="YAML"):
        recipes.load(tmp_path / "x.yaml")
    (tmp_path / "x.yaml").write_text("- 1\n- 2\n")
    with pytest.raises(SertoneError) as caught:
        recipes.load(tmp_path / "x.yaml")
    assert caught.value.code == "bad_recipe"
    with pytest.raises(SertoneError, match="similar names: demo"):
        recipes.find_shipped_recipe("demoo")


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB.encode(), "more than 100000 values"),
        (b"data: &a [*a]\n", "more than 100000 values"),
        ("data: café".encode("latin-1"), "UTF-8"),
        (b"\xff\xfe" + "data: 1".encode("utf-16-le"), "UTF-8"),
        (b"a: " + b"[" * 100_000, "recursion"),
        (b"a: " + b"9" * 5000, "digits"),
        (b"a: !!timestamp x\n", "bad_recipe|NoneType"),
        (b"x" * (2 << 20), "more than 1 MB"),
    ],
    ids=["bomb", "itself", "latin-1", "utf-16", "deep", "digits", "timestamp", "large"],
)
def test_content_that_would_hang_or_break_the_reader_is_refused(tmp_path, content, message):
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(SertoneError, match=message) as caught:
        recipes.load(tmp_path / "x.yaml")
    assert caught.value.code == "bad_recipe"


def test_a_pipe_instead_of_a_recipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "x.yaml")
    with pytest.raises(SertoneError) as caught:
        recipes.load(tmp_path / "x.yaml")
    assert caught.value.code == "missing_recipe"


def test_a_few_aliases_are_accepted(tmp_path):
    path = write(tmp_path)
    path.write_text("rates: &rates {encoder: 0.1, downstream: 0.2}\n" + path.read_text())
    values = load_yaml(path, "recipe", "x")
    assert values["rates"]["encoder"] == 0.1
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}")["b"] == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    "encoder",
    [
        {"name": "compact", "attention_heads": 5},
        {"name": "tiny", "width": 33},
        {"name": "compact", "depth": 10**6},
        {"name": "compact", "width": 10**30},
    ],
)
def test_an_impossible_encoder_is_refused_on_loading(encoder):
    with pytest.raises(SertoneError, match=r"encoder.*(multiple of|less than|at most)") as caught:
        models.configure({"name": "baseline", "encoder": encoder})
    assert caught.value.code == "bad_recipe"


def test_the_schema_for_editors_is_up_to_date_and_accepts_the_recipes():
    schema = json.loads((REPOSITORY / "recipes" / "schema.json").read_text())
    assert schema == models.recipe_schema(), "write it again: make schema"
    for path in SHIPPED:
        assert path.read_text().startswith("# yaml-language-server: $schema=schema.json\n")
        keys = set(yaml.safe_load(path.read_text())["model"])
        assert any(keys <= set(choice["properties"]) for choice in schema["properties"]["model"]["oneOf"])


def test_no_two_parts_of_the_schema_share_a_name():
    """Parts with the same name would be merged, and one of them would be lost."""
    from sertone.models import MODELS

    known = {}
    for name in MODELS:
        config = importlib.import_module(f"sertone.models.{name}").Config
        for part, schema in config.model_json_schema().get("$defs", {}).items():
            assert known.setdefault(part, schema) == schema, f"{name}: {part}"


def settle_precision(**environment):
    """Return what `train.precision: auto` becomes in a separate process, and its description."""
    code = (
        "from sertone import recipe; train = recipe.load(recipe.find_shipped_recipe('wan2025_wavlm')).train; "
        "print(recipe.dump(train)); print('said:', train.arithmetic)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment, check=True
    )
    dumped, description = done.stdout.split("said: ")
    return yaml.safe_load(dumped)["precision"], description.strip()


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU is chosen")
def test_bf16_is_chosen_where_the_processor_supports_it():
    """Elsewhere bf16 is emulated, hundreds of times as slowly. The kernel also reports the processor's abilities."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    expected = "bf16-mixed" if flags & {"avx512_bf16", "amx_bf16"} else "32-true"
    assert settle_precision()[0] == expected
    assert settle_precision(ATEN_CPU_CAPABILITY="avx2") == ("32-true", "in fp32")


def test_requested_bf16_is_kept_and_reported_as_slow(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    train = TrainConfig(batch_size=4, precision="bf16-mixed", device="cpu")
    assert train.precision == "bf16-mixed" and "emulates" in train.arithmetic
    assert TrainConfig(batch_size=4, precision="auto", device="cpu").precision == "32-true"


def test_a_gpu_that_is_asked_for_and_missing_starts_no_process_on_one(monkeypatch):
    """It is refused with `no_device` in the end; until then nothing may touch a GPU, and folds need a job."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device_type("cuda") == find_device_type("cpu") == "cpu"
    assert choose_jobs(None, "cuda") >= 1
    with pytest.raises(SertoneError, match=r"no device for train\.device 'cuda'"):
        require_device("cuda")

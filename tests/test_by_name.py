"""Recipes and studies by name from any folder; the errors of unknown names and missing extras."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from conftest import REPOSITORY

from sertone import catalogue, recipe
from sertone.analysis.study import study as studies
from sertone.cli import main
from sertone.errors import SertoneError
from sertone.models import configure, recipe_schema
from sertone.utils import extras, suggestions


@pytest.fixture
def sertone(monkeypatch, capsys, tmp_path):
    """sertone(arguments...) -> exit status, stdout, stderr; run in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["sertone", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err

    return run


def test_a_recipe_is_found_by_name_and_a_file_of_that_name_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    by_name = recipe.load("demo")
    assert by_name == recipe.load(REPOSITORY / "recipes" / "demo.yaml")
    assert by_name == recipe.load("demo.yaml") == recipe.load("recipes/demo.yaml")
    (tmp_path / "demo").mkdir()
    assert recipe.load("demo") == by_name, "a folder is no recipe"
    own = (REPOSITORY / "recipes" / "demo.yaml").read_text().replace("seed: 0", "seed: 7")
    (tmp_path / "demo.yaml").write_text(own)
    assert recipe.load("demo.yaml").train.seed == 7 and recipe.load("demo").train.seed == 0
    assert recipe.find_shipped_recipe("demo.yaml") == REPOSITORY / "recipes" / "demo.yaml", (
        "no file of the working folder"
    )


def test_crossval_by_name_writes_to_a_folder_of_that_name(sertone, tmp_path, small_demo):
    small = "{name: compact, width: 8, depth: 1}"
    changes = [f"data.root={small_demo}", "protocol.split=grouped_k_fold", "protocol.folds=2"]
    changes += [f"model.encoder={small}", "model.hidden=8", "train.epochs=[0,1]", "train.speeds=[1.0]"]
    settings = [part for change in changes for part in ("--set", change)]
    status, out, err = sertone(
        "crossval", "manifest_compact", "--jobs", 1, *settings, "--set", "data.corpus=demo"
    )
    assert status == 0, err
    assert "report  runs/manifest_compact/report.html" in out
    assert (tmp_path / "runs" / "manifest_compact" / "report.html").is_file()


def test_every_shipped_file_is_listed_with_what_it_needs(sertone):
    status, out, _ = sertone("recipes", "list", "--json")
    listed = {(entry["kind"], entry["name"]): entry for entry in json.loads(out)}
    files = [*(REPOSITORY / "recipes").glob("*.yaml"), *(REPOSITORY / "studies").glob("*.yaml")]
    assert status == 0 and len(listed) == len(files)
    assert all(entry["purpose"] and "\n" not in entry["purpose"] for entry in listed.values())
    found = {key: (listed[key]["device"], listed[key]["data"]) for key in listed}
    assert found["recipe", "wan2025_wavlm"] == ("GPU", "iemocap")
    assert found["recipe", "emodb_whisper"] == found["recipe", "compact"] == ("CPU", "emodb")
    for (kind, name), (device, data) in found.items():
        trained = {"manifest_wavlm", "distilhubert"} | (
            {name} if data in ("iemocap", "msp_podcast") else set()
        )
        assert (device == "GPU") == (name in trained), (
            f"{kind} {name}: who trains a pretrained encoder needs a GPU"
        )
    assert found["distillation", "distilhubert"] == ("GPU", "your own table (manifest)")
    assert found["study", "wan2025_table2"] == ("GPU", "iemocap")
    assert found["study", "demo_table2"] == ("CPU", "demo (synthetic speech)")
    table = sertone("recipes", "list")[1]
    width = max(len(name) for _, name in listed)
    assert all(f"  {name:{width}} {found[kind, name][0]}  " in table for kind, name in listed)


def test_a_copied_study_still_finds_its_recipe(sertone, tmp_path):
    status, out, _ = sertone("recipes", "copy", "demo_table2")
    assert (status, out.strip()) == (0, "demo_table2.yaml")
    copied = tmp_path / "demo_table2.yaml"
    assert copied.read_bytes() == (REPOSITORY / "studies" / "demo_table2.yaml").read_bytes()
    _, places = studies.load_study(copied)
    assert (
        places
        == studies.load_study(REPOSITORY / "studies" / "demo_table2.yaml")[1]
        == studies.load_study("demo_table2")[1]
    )
    own = yaml.safe_load((REPOSITORY / "recipes" / "demo.yaml").read_text())
    own["train"]["weight_decay"] = 0.5
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    copied.write_text(copied.read_text().replace("../recipes/demo.yaml", "own.yaml"))
    assert {variant.train.weight_decay for variant in studies.load_study(copied)[1].values()} == {0.5}


def test_copy_overwrites_nothing(sertone, tmp_path):
    (tmp_path / "demo.yaml").write_text("mine")
    status, _, err = sertone("recipes", "copy", "demo")
    assert status == 2 and "[output_exists] demo.yaml exists already" in err
    assert (tmp_path / "demo.yaml").read_text() == "mine"
    assert sertone("recipes", "copy", "demo", "other.yaml")[0] == 0
    (tmp_path / "folder").mkdir()
    assert sertone("recipes", "copy", "compact", "folder", "--study")[1].strip() == "folder/compact.yaml"
    assert "rows:" in (tmp_path / "folder" / "compact.yaml").read_text()


def test_show_prints_the_file(sertone):
    status, out, _ = sertone("recipes", "show", "compact")
    assert status == 0 and out == (REPOSITORY / "recipes" / "compact.yaml").read_text()
    assert sertone("recipes", "show", "compact", "--study")[1].startswith("# yaml")
    assert "similar names: compact" in sertone("recipes", "show", "compakt")[2]


@pytest.mark.parametrize(
    ("command", "name", "message"),
    [
        ("crossval", "wan2025", "similar names: wan2025_wavlm, wan2025_hubert, wan2025_wav2vec2"),
        ("train", "nothing_like_it", "no recipe of that name; `sertone recipes list` shows all"),
        ("crossval", "demo_table2", "demo_table2 is a study: `sertone ablate demo_table2` runs it"),
        (
            "crossval",
            "distilhubert",
            "[other_kind] distilhubert is a distillation; expected a recipe; `sertone distill",
        ),
        ("ablate", "demo_tabel2", "[missing_study]"),
        ("ablate", "wan2025_wavlm", "wan2025_wavlm is a recipe: `sertone crossval wan2025_wavlm` runs it"),
        ("choose", "compakt", "similar names: compact"),
        ("distill", "demo_destill", "similar names: demo_distill"),
        ("layers", "oliviera2023", "similar names: oliveira2023"),
    ],
)
def test_an_unknown_name_gets_a_suggestion(sertone, command, name, message):
    status, _, err = sertone(command, name)
    assert status == 2 and message in err


def test_the_folder_of_a_run_suggests_its_recipe(tmp_path):
    (tmp_path / "recipe.yaml").write_text("data: {}")
    with pytest.raises(SertoneError, match=r"did you mean .*/recipe\.yaml\?"):
        recipe.load(tmp_path)


@pytest.mark.parametrize(
    "source",
    [
        "/nonexistent/demo.yaml",
        "/nonexistent/recipes/demo.yaml",
        "mine/recipes/demo.yaml",
        "../../recipes/demo.yaml",
        "recipes/recipes/demo.yaml",
        "/demo",
        "mine/demo",
    ],
)
def test_a_path_into_another_folder_is_not_a_name(sertone, tmp_path, source):
    for spelling in (source, Path(source)):
        with pytest.raises(SertoneError, match=f"no file {source}; `demo` without a folder") as caught:
            recipe.load(spelling)
        assert caught.value.code == "missing_recipe"
    with pytest.raises(SertoneError, match=r"no file studies/demo\.yaml"):
        recipe.load("studies/demo.yaml")


def test_a_path_as_in_a_clone_is_a_name(sertone):
    known = REPOSITORY / "recipes" / "demo.yaml"
    for source in ("demo", "demo.yaml", "./demo.yaml", "recipes/demo.yaml", "../recipes/demo.yaml"):
        assert catalogue.find_file(source, "recipe") == known
    assert catalogue.find_shipped("studies/compact.yaml", "study").parent.name == "studies"


def test_an_installed_package_contains_recipes_and_studies(tmp_path):
    """The folder is laid out as in the wheel: hatch puts both folders into the package."""
    hatch = (REPOSITORY / "pyproject.toml").read_text()
    shutil.copytree(REPOSITORY / "sertone", tmp_path / "sertone")
    for folder in ("recipes", "studies"):
        assert f'"{folder}" = "sertone/{folder}"' in hatch
        shutil.copytree(REPOSITORY / folder, tmp_path / "sertone" / folder)
    code = (
        "from sertone import catalogue; from sertone.utils import extras; print(len(catalogue.list_entries()));"
        "print(catalogue.find_shipped('demo_table2', 'study')); print(extras.install_command('media'))"
    )
    there = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd="/", env=there, capture_output=True, text=True)
    count, path, command = done.stdout.splitlines()
    assert int(count) == len(catalogue.list_entries()), done.stderr
    assert Path(path) == tmp_path / "sertone" / "studies" / "demo_table2.yaml"
    assert command == 'pip install "sertone[media]"'


def test_in_a_clone_the_command_names_the_clone(monkeypatch, tmp_path):
    monkeypatch.chdir(REPOSITORY)
    assert extras.install_command("media") == 'pip install -e ".[media]"'
    monkeypatch.chdir(tmp_path)
    assert extras.install_command("text,hub") == f'pip install -e "{REPOSITORY}[text,hub]"'


def test_every_extra_in_a_message_exists():
    import tomllib

    known = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {"train", *extras.MODULES.values()}
    for path in (REPOSITORY / "sertone").rglob("*.py"):
        calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        named |= {
            call.args[0].value
            for call in calls
            if getattr(call.func, "id", "") == "install" and isinstance(call.args[0], ast.Constant)
        }
        by_name = 'pip install "sertone' in path.read_text()
        assert not by_name or path.name == "extras.py", path
    assert named <= set(known)
    assert {"media", "png", "listen", "asr", "hub", "demo", "text"} <= named


@pytest.mark.parametrize(
    ("module", "command", "extra"),
    [
        ("torch", ["crossval", "demo"], "train"),
        ("huggingface_hub", ["push", "BUNDLE", "owner/name"], "hub"),
        ("huggingface_hub", ["predict", "owner/name", "x.wav"], "hub"),
        ("sounddevice", ["listen"], "listen"),
        ("espeakng_loader", ["corpora", "fake", "demo", "voices"], "demo"),
        ("polars", ["corpora", "check", "manifest", "x.parquet"], "train"),
        ("PIL", ["predict", "x.wav", "--to", "x.png"], "png"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    sertone, monkeypatch, tmp_path, tone, module, command, extra
):
    again = {
        n: m for n, m in sys.modules.items() if n.startswith(("sertone.training", "sertone.corpora.demo"))
    }
    for name, loaded in again.items():
        parent, _, child = name.rpartition(".")
        monkeypatch.setattr(sys.modules[parent], child, loaded)  # which the import below replaces
    for name in again:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)  # as Python answers an import of what is not installed
    tone("x.wav")
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    bundle = REPOSITORY / "sertone" / "bundled" / "compact"
    status, _, err = sertone(*(bundle if part == "BUNDLE" else part for part in command))
    assert status == 2 and "[missing_extra]" in err and f'[{extra}]"' in err


def test_speech_recognition_names_its_extra(monkeypatch):
    from sertone.cli.predict import _load_recogniser

    monkeypatch.setitem(sys.modules, "sertone.recipe", None)
    with pytest.raises(SertoneError, match=r"\[asr\]"):
        _load_recogniser("small", "", SimpleNamespace(uses_text=True))


def test_a_container_that_needs_ffmpeg_names_the_extra_media(monkeypatch, tmp_path):
    from sertone import audio

    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "x.m4a").write_bytes(b"\x00\x00\x00\x20ftypM4A " + bytes(3000))
    with pytest.raises(SertoneError, match=r"\[media\]"):
        audio.read(tmp_path / "x.m4a")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.peft=8", "set `train.lora`"),
        ("train.early_stopping=true", "set `train.patience`"),
        ("train.gradient_accumulation_steps=4", "set `train.accumulate`"),
        ("train.report_to=wandb", "set `train.log`"),
        ("epochs=[3]", "it is a key of `train`: train.epochs"),
        ("data.epochs=3", "it is a key of `train`: train.epochs"),
        ("lr=0.1", "set `train.learning_rate`"),
        ("learning_rate=0.1", "it is a key of `train`: train.learning_rate"),
        ("train.batch=4", "`train.batch_size` (utterances) or `train.batch_seconds`"),
        ("num_labels=4", "set `data.classes`"),
        ("train.dropout_rate=0.1", "set `model.dropout`"),
        ("train.optimizer=adam", "the optimizer is always AdamW"),
        ("train.max-grad-norm=1", "set `train.clip_norm`"),
        ("split=official", "it is a key of `protocol`: protocol.split"),
        ("encoder=x", "set `model.encoder`"),
        ("protocol.n_splits=5", "set `protocol.folds`"),
        ("train.epoch=[1]", "did you mean 'epochs'?"),
        ("train.cache.limit=3", "did you mean 'limit_gb'?"),
    ],
)
def test_a_key_with_another_name_suggests_the_right_one(override, message):
    with pytest.raises(SertoneError) as caught:
        recipe.load("demo", [override])
    assert message in str(caught.value)


def test_only_similar_keys_are_suggested():
    known = ["coverage", "kernels", "epochs"]
    assert not suggestions.did_you_mean("lora", known) and not suggestions.did_you_mean("xyz", known)
    assert suggestions.find_near("Epoch", known) == ["epochs"] and suggestions.find_near("cov", known) == [
        "coverage"
    ]
    with pytest.raises(SertoneError) as caught:
        recipe.load("demo", ["train.xyz=1"])
    assert "did you mean" not in str(caught.value) and "known here: batch_size" in str(caught.value)
    with pytest.raises(
        SertoneError, match=r"unknown name 'wavlm'; wav2vec 2.0, HuBERT, WavLM and Whisper are encoders"
    ):
        configure({"name": "baseline", "encoder": {"name": "wavlm"}})
    with pytest.raises(
        SertoneError, match=r"unknown name 'compakt'; did you mean 'compact'\? expected one of"
    ):
        configure({"name": "baseline", "encoder": {"name": "compakt"}})
    with pytest.raises(SertoneError, match=r"Whisper are encoders"):
        configure({"name": "wavlm"})
    with pytest.raises(SertoneError, match=r"set `train.epochs`"):
        configure({"name": "baseline", "encoder": {"name": "compact"}, "epochs": 3})


def test_the_table_of_other_names_leads_to_existing_keys():
    schema = recipe_schema()
    options = schema["properties"].pop("model")["oneOf"]
    known = {f"model.{key}" for option in options for key in option["properties"]}
    for section, part in schema["properties"].items():
        known |= {
            f"{section}.{key}" for key in schema["$defs"][part["$ref"].rsplit("/", 1)[-1]]["properties"]
        }
    lines = " ".join(suggestions.OTHER_NAMES.values())
    named = set(re.findall(r"`((?:train|data|protocol|model)\.\w+)", lines))
    assert len(named) > 10 and named <= known, named - known


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["lora"], "unknown command 'lora'; commands: ablate, audit, choose"),
        (["cv"], "it is called 'crossval' here"),
        (["trian"], "did you mean 'train'?"),
        (["predict", "--lora", "x"], "unknown option --lora; `sertone predict --help`"),
        (["predict", "--dimension", "unit"], "did you mean '--dimensions'?"),
        (["crossval", "demo", "--epochs", "3"], "set `train.epochs`"),
        (["crossval", "demo", "train.seed=1"], "settings are changed with --set train.seed=1"),
        (["crossval"], "sertone crossval requires RECIPE; `sertone crossval --help`"),
        (["corpora", "chek"], "did you mean 'check'?"),
        (["corpora", "check", "iemcap", "x"], "did you mean 'iemocap'?"),
        (
            ["corpora", "check", "emodb", "x"],
            "x does not exist; expected the folder of emodb; give the path of your copy",
        ),
        (["compare"], "runs given: 0; expected two or more"),
        (["predict"], "no recordings given; expected one of FILE..."),
        (["recipes", "copy", "demo", "nowhere/"], "no folder nowhere; expected a folder that exists"),
        (["crossval", "demo", "--jobs", "x"], 'unable to convert "x" into int; `sertone crossval --help`'),
    ],
)
def test_a_wrong_command_line_gets_an_explanation(sertone, line, message):
    status, _, err = sertone(*line)
    assert status == 2 and message in err


def test_empty_values_are_called_null_or_missing(tmp_path):
    from sertone.runtime.batch.resumable import _require_same
    from sertone.training.runs.run_folder import _list_changes

    with pytest.raises(SertoneError, match=r"\(found null\)"):
        recipe.load("demo", ["train.seed=null"])
    with pytest.raises(SertoneError, match=r"the recipe has no model\.name"):
        configure({"encoder": {"name": "compact"}})
    assert _list_changes({"coverage": None}, {"coverage": 0.8}) == ["coverage: was null, now 0.8"]
    with pytest.raises(SertoneError, match="written with no recognised_by; expected recognised_by 'small'"):
        _require_same({"model": "a"}, {"model": "a", "recognised_by": "small"}, tmp_path / "rows.csv")

"""No code of a model's folder is run, whatever names it, and nobody is asked whether it may."""

import ast
import io
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import REPOSITORY, TINY_MODEL
from exported import write_checkpoint, write_hub_folder
from hub import Repository, running
from safetensors.torch import load_file

from sertone import cli
from sertone.errors import SertoneError
from sertone.sharing import encoder_origin
from sertone.training.fit.checkpoint import load_model
from sertone.utils import hub

FILES = sorted([*(REPOSITORY / "sertone").rglob("*.py"), *(REPOSITORY / "bench").rglob("*.py")])
OURS = (
    "sertone/utils/processes.py",
    "sertone/utils/child_process.py",
)  # between a process and its own children
HUBS, PRETRAINED = "sertone/utils/hub.py", "sertone/nn/pretrained.py"
FORBIDDEN = [
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "runpy.run_path",
    "yaml.load",
    "yaml.unsafe_load",
]
LOADERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def named(call):
    """`torch.load` of a call, `?.load` of one on something that is no name."""
    parts, node = [], call.func
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return ".".join([node.id if isinstance(node, ast.Name) else "?", *parts])


def faults(tree, name):
    """What of a file could run code of others, as (line, why)."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        whole = named(call)
        module, _, last = whole.rpartition(".")
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        if (
            last in ("from_pretrained", "from_config", "pipeline")
            and given.get("trust_remote_code") != "False"
        ):
            yield call.lineno, f"{whole} without trust_remote_code=False"
        if last == "from_pretrained" and (name != PRETRAINED or given.get("local_files_only") != "True"):
            yield call.lineno, f"{whole} elsewhere than in {PRETRAINED}, or not of a folder"
        if last in ("snapshot_download", "hf_hub_download") and (
            name != HUBS or "allow_patterns" not in given
        ):
            yield call.lineno, f"{whole} of all files, or elsewhere than in {HUBS}"
        if (
            whole in ("torch.load", "load_state_dict_from_url", "torch.hub.load")
            and given.get("weights_only") != "True"
        ):
            yield call.lineno, f"{whole} without weights_only=True"
        if (
            module.split(".")[0] in LOADERS
            and last in ("load", "loads", "Unpickler", "open")
            and name not in OURS
        ):
            yield call.lineno, whole
        if whole in FORBIDDEN:
            yield call.lineno, whole
        if last in ("Popen", "run", "call") and given.get("shell", "False") != "False":
            yield call.lineno, f"{whole} in a shell"
        if given.get("allow_pickle", "False") != "False":
            yield call.lineno, f"{whole} of pickles"
        if last == "import_module" and not ast.unparse(call.args[0]).startswith(
            ("f'sertone.", "config.__module__")
        ):
            yield call.lineno, f"{whole} of what is no part of Sertone"


def test_no_call_can_run_code_of_others():
    found = []
    for path in FILES:
        name = path.relative_to(REPOSITORY).as_posix()
        found += [f"{name}:{line} {why}" for line, why in faults(ast.parse(path.read_text()), name)]
    assert len(FILES) > 200 and found == []


@pytest.mark.parametrize(
    "line",
    [
        "AutoFeatureExtractor.from_pretrained(folder)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
        "kind.from_config(config)",
        "pipeline('audio-classification', model=x)",
        "snapshot_download(name)",
        "torch.load(path)",
        "pickle.load(file)",
        "exec(text)",
        "yaml.load(text, yaml.Loader)",
        "np.load(path, allow_pickle=True)",
        "importlib.import_module(name)",
        "subprocess.run(line, shell=True)",
    ],
)
def test_the_scan_finds_what_it_looks_for(line):
    assert list(faults(ast.parse(line), "sertone/x.py"))


MARK = """
from pathlib import Path
Path({mark!r}).touch()
from transformers import {base}
class Evil({base}):
    pass
"""


@pytest.fixture
def evil(tmp_path):
    """A checkpoint of Hugging Face whose code leaves a mark when it is run: evil(file, class) -> folder."""
    folder = write_hub_folder(tmp_path / "folder")

    def write(file, kind, base="Wav2Vec2FeatureExtractor", **changes):
        (folder / "evil.py").write_text(MARK.format(mark=str(tmp_path / "mark"), base=base))
        path = folder / file
        values = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps(values | {"auto_map": {kind: "evil.Evil"}} | changes))
        return folder

    return write


EXTRACTOR = ("preprocessor_config.json", "AutoFeatureExtractor")
UNKNOWN = {"feature_extractor_type": "Evil"}


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """The error of a command whose user says yes to everything: refused(*arguments) -> SertoneError."""

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
        with pytest.raises(SertoneError) as caught:
            cli.app([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert "[y/N]" not in said.out + said.err and sys.stdin.read() == "y\n" * 9
        assert not (tmp_path / "mark").exists()
        return caught.value

    return run


def test_yes_on_stdin_runs_nothing_when_exported(evil, refused, tmp_path):
    error = refused("export", f"hf:{evil(*EXTRACTOR, **UNKNOWN)}", "bundle")
    assert error.code == "remote_code" and "preprocessor_config.json" in str(error)
    assert not (tmp_path / "bundle").exists()


def test_yes_on_stdin_runs_nothing_when_trained_from(evil, refused, tmp_path, small_demo):
    encoder = {"name": "pretrained", "source": str(evil(*EXTRACTOR, **UNKNOWN))}
    recipe = {
        "data": {"corpus": "demo", "root": str(small_demo)},
        "model": {"name": "baseline", "encoder": encoder},
        "train": {"epochs": [1], "batch_size": 8},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    assert refused("train", "recipe.yaml", "--out", "run").code == "remote_code"


@pytest.fixture(scope="module")
def trained(experiment, tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("trained") / "checkpoint", experiment, **TINY_MODEL)


def with_encoder(trained, folder, part="encoder", **described):
    copy = shutil.copytree(trained, folder)
    marker = copy / "checkpoint.json"
    about = json.loads(marker.read_text())
    about["model"][part] = described
    marker.write_text(json.dumps(about))
    return copy


def test_yes_on_stdin_runs_nothing_when_a_checkpoint_names_a_folder(evil, refused, trained, tmp_path, tone):
    source = str(evil(*EXTRACTOR, **UNKNOWN))
    copy = with_encoder(trained, tmp_path / "copy", name="pretrained", source=source)
    error = refused("predict", copy, tone())
    assert error.code == "foreign_source" and "checkpoint.json" in str(error)


@pytest.mark.parametrize(
    "described", [{"name": "pretrained", "source": "owner/model"}, {"name": "saved", "source": "."}]
)
@pytest.mark.parametrize("part", ["encoder", "text"])
def test_a_checkpoint_names_only_what_lies_in_it(trained, tmp_path, described, part):
    copy = with_encoder(trained, tmp_path / "copy", part, **described)
    for read in (load_model, lambda folder: encoder_origin.read_origin(str(folder))):
        with pytest.raises(SertoneError) as caught:
            read(copy)
        assert caught.value.code == "foreign_source" and part in str(caught.value)


@pytest.mark.parametrize(
    ("file", "kind", "base"),
    [
        (*EXTRACTOR, "Wav2Vec2FeatureExtractor"),
        ("processor_config.json", "AutoProcessor", "ProcessorMixin"),
        ("config.json", "AutoConfig", "PretrainedConfig"),
        ("config.json", "AutoModelForAudioClassification", "PreTrainedModel"),
        ("tokenizer_config.json", "AutoTokenizer", "PreTrainedTokenizerFast"),
    ],
)
def test_what_names_code_is_refused_by_the_name_of_its_file(evil, tmp_path, file, kind, base):
    with pytest.raises(SertoneError, match=file) as caught:
        hub.require_data_only(evil(file, kind, base))
    assert caught.value.code == "remote_code" and "auto_map" in str(caught.value)
    assert not (tmp_path / "mark").exists()


def test_kernels_of_the_hub_and_adapters_are_refused(evil):
    folder = evil(*EXTRACTOR, auto_map=None)
    hub.require_data_only(folder)
    config = json.loads((folder / "config.json").read_text())
    for changes in ({"attn_implementation": "owner/kernel"}, {"text": [{"_attn_implementation": "a/b@v1"}]}):
        (folder / "config.json").write_text(json.dumps(config | changes))
        with pytest.raises(SertoneError, match="_implementation") as caught:
            hub.require_data_only(folder)
        assert caught.value.code == "remote_code"
    (folder / "config.json").write_text(json.dumps(config | {"attn_implementation": "sdpa"}))
    hub.require_data_only(folder)
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/model"}')
    with pytest.raises(SertoneError, match="adapter") as caught:
        hub.require_data_only(folder)
    assert caught.value.code == "bad_weights"


def test_code_that_a_checkpoint_describes_is_refused(trained, tmp_path):
    values = {"model_type": "wav2vec2", "auto_map": {"AutoModel": "owner/code--evil.Model"}}
    described = {"name": "architecture", "config": values, "normalize": True}
    copy = with_encoder(trained, tmp_path / "copy", **described)
    with pytest.raises(SertoneError) as caught:
        load_model(copy)
    assert caught.value.code == "remote_code"


LISTED = """
import json, sys
from sertone import cli
from sertone.utils import hub
folder = hub.resolve_folder(sys.argv[1], hub.CONFIG_FILES + hub.SAFE_WEIGHTS, code="gone", expected="it")
print(json.dumps(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())))
"""


def test_of_the_hub_only_data_is_downloaded(tmp_path):
    data = ["README.md", "config.json", "model-00001-of-00002.safetensors", "spm.model", "vocab.txt"]
    others = [
        "evil.py",
        "model.pkl",
        "pytorch_model.bin",
        "x/config.json",
        "adapter.deu.safetensors",
        "a.wav",
    ]
    with running() as served:
        served.repositories["me/voices"] = Repository(False, dict.fromkeys([*data, *others], b"{}"))
        environment = os.environ | served.environment(tmp_path / "cache") | {"PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, "-c", LISTED, "me/voices"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        assert json.loads(done.stdout) == data
        assert not [request for request in served.requests if request.endswith(tuple(others))]


BUILT = """
from sertone.nn.encoders.huggingface import PretrainedEncoderConfig
print(PretrainedEncoderConfig(source="me/old").build().depth)
"""


def test_an_encoder_of_the_hub_with_pickled_weights(tmp_path, tiny_encoder):
    """Of which only tensors are read."""
    folder = tiny_encoder()
    files = {path.name: path.read_bytes() for path in folder.glob("*.json")}
    torch.save(load_file(folder / "model.safetensors"), tmp_path / "weights")
    files["pytorch_model.bin"] = (tmp_path / "weights").read_bytes()
    with running() as served:
        served.repositories["me/old"] = Repository(False, files)
        environment = os.environ | served.environment(tmp_path / "cache") | {"PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, "-c", BUILT]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stdout.strip() == "2", done.stderr

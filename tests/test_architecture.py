"""Imports point down only; the light half imports no torch; the README's commands run."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import REPOSITORY, TINY_MODEL
from hub import running

PACKAGE = REPOSITORY / "sertone"
LEVELS = [
    {"errors", "licences", "version"},
    {"files", "schema", "utils"},
    {"audio", "catalogue", "labels", "scoring"},
    {"perturb"},
    {"recipe"},
    {"corpora", "transcripts"},
    {"protocol", "runtime"},
    {"sharing"},
    {"nn", "report"},
    {"models"},
    {"training"},
    {"export"},
    {"analysis"},
    {"__init__", "cli"},
    {"__main__"},
]
LEVEL = {room: number for number, rooms in enumerate(LEVELS) for room in rooms}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path):
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "sertone":
            parts = node.module.split(".")
            names = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
            yield from (name if name in LEVEL else "__init__" for name in names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "sertone":
                    yield [*alias.name.split("."), "__init__"][1]


def module_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(path, modules):
    """Modules that a file imports anywhere: at its top, in a function, or under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from names & modules
            if names - modules and node.module in modules:  # a function or class of that file
                yield node.module


def reachable(graph, start):
    visited, waiting = set(), [start]
    while waiting:
        new = graph[waiting.pop()] - visited
        visited |= new
        waiting += new
    return visited


def circles(graph):
    """Strongly connected components of more than one module."""
    reach = {module: reachable(graph, module) for module in graph}
    components = {frozenset(other for other in reach[m] if m in reach[other]) for m in graph}
    return sorted(sorted(component) for component in components if len(component) > 1)


def test_no_files_import_in_a_circle():
    modules = {module_of(path): path for path in FILES}
    graph = {name: set(imported_modules(path, modules.keys())) - {name} for name, path in modules.items()}
    assert sum(map(len, graph.values())) > 500
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles(graph) == []


def test_every_file_has_a_level():
    assert {room_of(path) for path in FILES} == set(LEVEL)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    own = room_of(path)
    for other in imported_rooms(path):
        if own != other and other != "__init__":
            assert LEVEL[other] < LEVEL[own], f"{own} imports {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_tell_their_story_and_stay_short(path):
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 300


@pytest.mark.parametrize(
    "module",
    [
        *("sertone", "sertone.cli", "sertone.audio", "sertone.corpora._check", "sertone.corpora.iemocap"),
        *("sertone.sharing.push", "sertone.sharing.model_card", "sertone.scoring.calibration"),
        *(
            "sertone.runtime.predictor",
            "sertone.runtime.batch.predict_many",
            "sertone.runtime.formats.writers",
        ),
    ],
)
def test_the_light_half_imports_no_torch(module):
    code = f"import sys, {module}; print([m for m in ('torch', 'transformers', 'sklearn', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def readme_commands():
    text = (REPOSITORY / "README.md").read_text()
    blocks = re.findall(r"```bash\n(.*?)```", text, re.S)
    return [line.split("#")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def test_the_readme_opens_with_the_two_commands():
    assert readme_commands()[:2] == ["make demo", "make test"]


def make(folder, target, *arguments):
    """Run the Makefile in a folder that counts as installed, with the programs of this interpreter."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, folder / name)
    (folder / ".venv").mkdir()
    (folder / ".venv" / "installed").touch()
    command = ["make", target, f"BIN={Path(sys.executable).parent}", f"ARGS={shlex.join(arguments)}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_make_demo(tmp_path, small_demo):
    """The recipe runs with fewer epochs and recordings."""
    shutil.copytree(small_demo, tmp_path / "corpora" / "demo")
    done = make(tmp_path, "demo", "--set", "train.epochs=[1,1]")
    assert done.returncode == 0, done.stderr
    assert "95 % interval over 10 speakers" in done.stdout and "not seen in training" in done.stdout
    assert (tmp_path / "runs/demo/report.html").is_file()
    for name in re.findall(r"(?:runs|corpora)/\S+", done.stdout):
        assert (tmp_path / name.rstrip(":.,")).exists(), name


@pytest.mark.parametrize("outcome", [True, False])
def test_make_test(tmp_path, outcome):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_one.py").write_text(f"def test_one():\n    assert {outcome}\n")
    assert (make(tmp_path, "test").returncode == 0) == outcome


ONE_AFTER_THE_OTHER = """
import json, sys
from sertone.cli import main

for command in json.loads(sys.argv[1]):
    sys.argv = command
    try:
        main()
    except SystemExit as end:
        if end.code:
            sys.exit(f"{command} ended with {end.code}")
"""
"""Runs commands in one process: in twenty processes, torch would be imported twenty times."""


def test_every_command_of_the_readme_runs(tmp_path, tiny_encoder, small_demo):
    """The commands run with one epoch, a tiny encoder instead of the hub's, and a stand-in of the hub."""
    from sertone import corpora

    corpora.load_sheet("manifest").fake(tmp_path / "my_speech")
    corpora.load_sheet("iemocap").fake(tmp_path / "IEMOCAP_full_release")
    corpora.load_sheet("emodb").fake(tmp_path / "corpora" / "emodb")
    corpora.load_sheet("msp_podcast").fake(tmp_path / "MSP-PODCAST-Publish", segments=60)
    shutil.copytree(REPOSITORY / "recipes", tmp_path / "recipes")
    samples, rate = soundfile.read(sorted((small_demo / "wav").iterdir())[0])
    soundfile.write(tmp_path / "call.wav", np.stack([samples, np.roll(samples, rate)], 1), rate)
    soundfile.write(tmp_path / "talk.wav", samples, rate)
    quick = ["--set", "train.epochs=[1,1]"]
    small = ["--set", f"model.encoder={TINY_MODEL['encoder']}"]
    tiny = ["--set", f"model.encoder.source={tiny_encoder('wavlm')}", "--set", "model.frozen_layers=1"]
    tiny += ["--set", "train.batch_size=32"]
    two = ["--set", "data.only={session: [Session1, Session2]}"]
    read = "{name: tiny, width: 16, depth: 1, attention_heads: 2}"
    reads = ["--set", f"model.text={read}"]
    heads = ["--set", "model.attention_heads=4"]
    teacher = ["--set", f"teacher.source={tiny_encoder('hubert')}", "--set", "targets=[2]"]
    teacher += ["--set", "student.layers=1", "--set", "train.epochs=1"]
    commands = [shlex.split(line) for line in readme_commands()[2:]]
    assert len(commands) == 21 and all(command[0] == "sertone" for command in commands)
    for command in commands:
        if "ispas2023" in command[2] and command[1] == "crossval":
            command += ["--set", "train.epochs=[1]", *small, *reads, *heads]
        elif "oliveira2023.yaml" in command[2]:
            command += ["--set", "train.epochs=[1]", "--set", "train.precision=32-true", *small, *reads]
        elif command[1] == "distill":
            command += teacher
        elif command[1] in ("crossval", "train"):
            command += quick + (tiny if "wavlm" in command[2] else small)
        if command[1] == "crossval":
            command += ["--jobs", "1", *two * any("IEMOCAP" in part for part in command)]
    with running() as hub:
        done = subprocess.run(
            [sys.executable, "-c", ONE_AFTER_THE_OTHER, json.dumps(commands)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=os.environ | hub.environment(tmp_path / "cache"),
        )
    assert done.returncode == 0, done.stderr
    for block in re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.S):
        done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0 and "Prediction(" in done.stdout, done.stderr
    assert (tmp_path / "runs/mine/report.html").is_file()
    assert "agent" in (tmp_path / "call.csv").read_text() and (tmp_path / "call.html").is_file()
    assert (tmp_path / "runs/wan2025_wavlm/report.html").is_file()


def test_links_of_the_docs_lead_somewhere():
    for page in [
        REPOSITORY / "README.md",
        REPOSITORY / "CONTRIBUTING.md",
        *(REPOSITORY / "docs").glob("*.md"),
    ]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
            assert (page.parent / target).stat().st_size > 100, f"{page.name}: {target}"

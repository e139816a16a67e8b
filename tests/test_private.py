"""Nothing leaves the machine: no socket, no DNS lookup, no file except the requested ones."""

import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, TINY_MODEL
from exported import write_checkpoint
from sealed import CALLS

SEAL = str(Path(__file__).with_name("sealed.py"))
OPEN, CLOSED = ("--files",), ()

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.machine() not in CALLS,
    reason="Linux filters system calls",
)


def sealed(folder, *command, files=CLOSED, **environment):
    """Run a Python command that is killed when it opens a socket or creates a file, in a separate home folder."""
    places = {"HOME": "home", "TMPDIR": "tmp", "XDG_CACHE_HOME": "cache", "XDG_CONFIG_HOME": "config"}
    for name in places.values():
        (folder / name).mkdir(exist_ok=True)
    known = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    known |= {name: str(folder / place) for name, place in places.items()}
    known |= {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"} | environment
    line = [sys.executable, SEAL, *files, sys.executable, *map(str, command)]
    done = subprocess.run(line, capture_output=True, text=True, env=known, cwd=folder)
    assert not [path for name in places.values() for path in (folder / name).iterdir()]
    return done


@pytest.mark.parametrize(
    ("code", "files", "ended"),
    [
        ("import socket; socket.socket()", OPEN, True),
        ("import socket; socket.getaddrinfo('example.org', 80)", OPEN, True),
        ("open('new', 'w')", CLOSED, True),
        ("import os; os.mkdir('new')", CLOSED, True),
        ("import os; os.mkdir('new')", OPEN, False),
        (
            "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', 'open(2 * str(3), chr(119))']))",
            CLOSED,
            True,
        ),
    ],
)
def test_a_forbidden_call_is_killed(tmp_path, code, files, ended):
    """Without this the other tests would prove nothing."""
    done = sealed(tmp_path, "-c", code, files=files)
    child = 256 - signal.SIGSYS  # the status that is made of a child's signal
    assert (done.returncode in (-signal.SIGSYS, child)) == ended, done.stderr


@pytest.fixture(scope="module")
def trained(experiment, tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("trained") / "checkpoint", experiment, **TINY_MODEL)


@pytest.mark.parametrize("options", [[], ["--any-sound"], ["--timeline"]])
@pytest.mark.parametrize("model", ["bundle", "shipped"])
def test_a_prediction_opens_no_socket_and_creates_no_file(toy, tone, tmp_path, model, options):
    recordings = [tone("a.wav"), tone("b.flac", 2.0, 44100, 2)]
    done = sealed(tmp_path, "-m", "sertone", "predict", *[toy] * (model == "bundle"), *recordings, *options)
    assert done.returncode == 0 and not done.stderr, done
    codes = [json.loads(line)["code"] for line in done.stdout.splitlines()]
    assert codes == (["", ""] if options == ["--any-sound"] else ["no_speech"] * 2)


def test_a_checkpoint_opens_no_socket_and_leaves_no_file(trained, tone, tmp_path):
    """Files may be created: libraries of torch use a semaphore, which is a file for a moment."""
    before = {"tone.wav", "home", "tmp", "cache", "config"}
    done = sealed(tmp_path, "-m", "sertone", "predict", trained, tone(), "--any-sound", files=OPEN)
    assert done.returncode == 0 and not done.stderr and json.loads(done.stdout)["status"] == "ok", done
    assert {path.name for path in tmp_path.iterdir()} == before


def test_only_the_output_is_written(toy, tone, tmp_path):
    before = {"tone.wav", "home", "tmp", "cache", "config"}
    recording = tone()
    done = sealed(tmp_path, "-m", "sertone", "predict", toy, recording, "--out", "r.csv", files=OPEN)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} - before == {"r.csv", "r.csv.journal"}


@pytest.mark.slow
def test_training_opens_no_socket(small_demo, tmp_path):
    """Training writes only its run, and torch its temporary files."""
    recipe = {
        "data": {"corpus": "demo", "root": str(small_demo)},
        "model": TINY_MODEL,
        "train": {"epochs": [1, 1], "batch_size": 8},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    done = sealed(
        tmp_path, "-m", "sertone", "train", "recipe.yaml", "--out", "run", files=OPEN, TMPDIR=str(tmp_path)
    )
    assert done.returncode == 0 and (tmp_path / "run" / "checkpoint").is_dir(), done.stderr


@pytest.mark.parametrize("home", [{"HOME": "/dev/null/nowhere"}, {}])
def test_a_read_only_home_causes_no_output(toy, tone, tmp_path, home):
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "TMPDIR": "/dev/null", **home}
    command = [sys.executable, "-m", "sertone", "predict", toy, tone()]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0 and not done.stderr

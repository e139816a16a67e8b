"""Prediction needs no torch and a quarter of a gigabyte."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from conftest import REPOSITORY

ALONE = """
import json, sys
import sertone
answer = sertone.load(sys.argv[1], any_sound=True).predict(sys.argv[2])
files = {name.split(".")[0]: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
foreign = sorted(name for name, path in files.items() if "site-packages" in path)
print(json.dumps({"status": answer.status, "foreign": foreign}))
"""


def test_a_bundle_needs_few_packages(toy, tone):
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(toy), str(tone())],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )
    result = json.loads(done.stdout)
    assert result["status"] == "ok"
    unwanted = {"torch", "transformers", "sklearn", "scipy", "pydantic", "yaml", "jinja2", "tokenizers"}
    assert not unwanted & set(result["foreign"])
    assert {"numpy", "onnxruntime", "soundfile", "soxr"} <= set(result["foreign"])


@pytest.mark.slow
def test_pip_install_is_enough(toy, tone, tmp_path):
    """The test creates a new environment as a user does; it needs access to the package registry."""
    venv.create(tmp_path / "fresh", with_pip=True)
    binaries = tmp_path / "fresh" / "bin"
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    clean |= {"HOME": str(tmp_path / "home")}
    install = [str(binaries / "pip"), "install", "--quiet", str(REPOSITORY)]
    subprocess.run(install, check=True, capture_output=True, env=os.environ | {"PYTHONPATH": ""})
    command = [str(binaries / "sertone"), "predict", str(toy), str(tone())]
    done = subprocess.run(command, capture_output=True, text=True, env=clean, cwd=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout)["status"] == "ok", done.stderr
    torch = subprocess.run([str(binaries / "python"), "-c", "import torch"], capture_output=True, env=clean)
    assert torch.returncode == 1
    (marker,) = (tmp_path / "fresh").rglob("site-packages/sertone/py.typed")
    assert marker.is_file()
    size = sum(path.stat().st_size for path in Path(tmp_path / "fresh").rglob("*") if path.is_file())
    assert size <= 250e6

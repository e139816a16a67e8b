"""CONTRIBUTING agrees with the package: its picture of the house, and one file for each thing to add.

The tests add one of each kind to a copy of the package, and use it there by its name.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from test_architecture import LEVELS

GUIDE = (REPOSITORY / "CONTRIBUTING.md").read_text()

CORPUS = '''"""Doves: two birds that coo.

Expected tree:
    NAME_EMOTION.wav
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from sertone.labels import Scale
from sertone.licences import KNOWN_LICENCES
from sertone.schema import ReportProblem, Utterance, raise_on_error

TITLE = "Doves"
CITATION = "Nobody, Doves, 2026"
NOTE = "Birds."
LICENCE = KNOWN_LICENCES["cc-by-nc-sa-4.0"]
LANGUAGE = ""
EMOTIONS = {"coo": "happy", "hiss": "angry"}
SCALES: dict[str, Scale] = {}


def load_utterances(root: Path, report: ReportProblem = raise_on_error) -> Iterator[Utterance]:
    """Yield the coos and hisses."""
    for path in sorted(root.glob("*.wav")):
        name, emotion = path.stem.split("_")
        yield Utterance(id=path.stem, path=path, speaker=name, labels={"emotion": EMOTIONS[emotion]})


def fake(root: Path, full: bool = False) -> None:
    """Write two birds."""
    root.mkdir(parents=True, exist_ok=True)
    for name in ("ann_coo", "ann_hiss", "bob_coo", "bob_hiss"):
        soundfile.write(root / f"{name}.wav", np.zeros(1600), 16000)
'''

FORMAT = '''

def format_words(prediction: Prediction, _: Media | None = None) -> str:
    """Return the labels of the segments, one per line."""
    return "".join(f"{segment.label}\\n" for segment in prediction.segments)


FORMATS[".words"] = format_words
'''

ENCODER = '''"""The energy of frames of 10 ms, and one linear layer."""

from typing import Any, Literal

from torch import Tensor, nn

from sertone.nn.encoders.base import Encoder, EncoderSettings, Footprint


class EnergyEncoderConfig(EncoderSettings):
    """An encoder that knows how loud it is."""

    name: Literal["energy"]
    width: int = 8
    """The width of its hidden states."""

    def build(self) -> "EnergyEncoder":
        return EnergyEncoder(self.width)


class EnergyEncoder(Encoder):
    """Energy, embedding, one layer."""

    depth, min_samples = 1, 160

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.embedding = nn.Linear(1, width)
        self.linear = nn.Linear(width, width)

    def describe(self, depth: int | None = None) -> dict[str, Any]:
        return {"name": "energy", "width": self.width}

    def footprint(self, fused: bool) -> Footprint:
        return Footprint(160, 0, 2 * self.width, 4.0)

    def front(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return waveforms.unfold(1, 160, 160).square().mean(-1, keepdim=True), lengths // 160

    def embed(self, features: Tensor, mask: Tensor) -> Tensor:
        return self.embedding(features)

    def context(self, mask: Tensor) -> dict[str, Tensor]:
        return {}

    def layer(self, index: int, hidden: Tensor, context: dict[str, Tensor]) -> Tensor:
        return hidden + self.linear(hidden)

    def parts(self) -> list[list[nn.Module]]:
        return [[], [self.embedding, self.linear]]
'''

FUSION = '''

class LayerMean(nn.Module):
    """Mean over layers 1..L."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden[:, 1:].mean(1)


FUSIONS["layer_mean"] = LayerMean
'''

POOLING = '''

class MaxPooling(Pooling):
    """Maximum over the real frames."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width)

    def forward(self, features: Tensor, frames: Tensor) -> Tensor:
        mask = frame_mask(frames, features.shape[1])[..., None]
        return features.masked_fill(~mask, -1e4).amax(1)


POOLINGS["max"] = MaxPooling
'''

HEAD = '''

class BoundedHead(ClassHead):
    """A class head with logits between -1 and 1."""

    def classify(self, pooled: Tensor, frames: Tensor) -> HeadOutput:
        output = super().classify(pooled, frames)
        return HeadOutput(output.logits.tanh(), output.hidden, output.frames)
'''

PAPER = '''"""The baseline with bounded logits.

Where it differs from the paper (our reading):
    - There is no paper.
"""

from sertone.models import baseline
from sertone.nn.heads import BoundedHead
from sertone.nn.vocabulary import Vocabulary


class Config(baseline.Config):
    """The model part of a recipe."""

    def build(self, vocabulary: Vocabulary) -> "Model":
        return Model(self, vocabulary)


class Model(baseline.Model):
    """Encoder and bounded head."""

    def __init__(self, config: Config, vocabulary: Vocabulary) -> None:
        super().__init__(config, vocabulary)
        head = BoundedHead(self.pooling.outputs, None, vocabulary.classes["emotion"], metric="emotion")
        self.heads["emotion"] = head
'''

PERTURBATION = """
PERTURBATIONS["backwards"] = Perturbation(
    "timing", "backwards", "share", (1.0,), lambda samples, strength, rng, material: samples[::-1]
)
"""

ADDITIONS = {
    "a corpus": ("sertone/corpora/doves.py", CORPUS),
    "an encoder": ("sertone/nn/encoders/energy.py", ENCODER),
    "a fusion of layers": ("sertone/nn/fusions.py", FUSION),
    "a pooling": ("sertone/nn/pooling.py", POOLING),
    "a head": ("sertone/nn/heads.py", HEAD),
    "a paper": ("sertone/models/nobody2026.py", PAPER),
    "a perturbation": ("sertone/perturb/perturbations.py", PERTURBATION),
    "an output format": ("sertone/runtime/formats/writers.py", FORMAT),
}
"""Row of CONTRIBUTING -> the file that is new or longer, and the text that is added to it."""

USE_WITHOUT_TORCH = """
import sys
from pathlib import Path
import numpy as np
import sertone
from sertone import corpora
from sertone.runtime.formats.writers import write
from sertone.perturb import perturb
from sertone.schema import Prediction, Segment

assert Path(sertone.__file__).is_relative_to(sys.argv[1])
corpora.fake("doves", "doves")
assert "doves" in corpora.list_names() and corpora.load_sheet("doves").TITLE == "Doves"
assert [u.labels["emotion"] for u in corpora.load("doves", "doves")] == ["happy", "angry"] * 2

segments = [Segment(start_s=0, end_s=1, label="happy"), Segment(start_s=1, end_s=2, label="sad")]
write(Prediction(file="call.wav", status="ok", segments=segments), "call.words")
assert Path("call.words").read_text() == "happy\\nsad\\n"
assert perturb(np.arange(3.0), "backwards", 1.0, seed=0).tolist() == [2, 1, 0]
assert "torch" not in sys.modules
"""

USE_WITH_TORCH = """
import sys
from pathlib import Path
import torch
import sertone
from sertone import recipe
from sertone.labels import FOUR_CLASSES
from sertone.models import build, recipe_schema
from sertone.nn.batch import Batch
from sertone.nn.vocabulary import Vocabulary

assert Path(sertone.__file__).is_relative_to(sys.argv[1])
vocabulary = Vocabulary.from_utterances([], FOUR_CLASSES)
tiny = "{name: tiny, width: 16, depth: 2}"
batch = Batch(0.1 * torch.randn(2, 9000), torch.tensor([9000, 7000]), {})


def logits(name, *settings):
    values = recipe.load(name, settings).model
    return build(values, vocabulary).eval()(batch, ["emotion"])["emotion"].logits


for settings in (
    ("demo", f"model.encoder={tiny}", "model.frozen_layers=0", "model.fusion=layer_mean"),
    ("compact", f"model.encoder={tiny}", "model.pooling=max"),
    ("compact", f"model.encoder={tiny}", "model.name=nobody2026"),
    ("compact", "model.encoder={name: energy, width: 4}"),
):
    assert logits(*settings).shape == (2, 4), settings
assert logits("compact", f"model.encoder={tiny}", "model.name=nobody2026").abs().max() <= 1
schema = str(recipe_schema())
assert all(f"'{name}'" in schema for name in ("layer_mean", "max", "nobody2026", "energy"))
"""


def snapshot(root):
    """Path -> content of the files that the copy has."""
    folders = [root / name for name in ("sertone", "recipes", "studies")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files if path.suffix != ".pyc"}


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> Path:
    """A copy of the package with one more of each kind."""
    root = tmp_path_factory.mktemp("extended")
    for name in ("sertone", "recipes", "studies"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in ADDITIONS.values():
        with (root / name).open("a") as file:
            file.write(text)
    return root


@pytest.mark.parametrize("script", [USE_WITHOUT_TORCH, USE_WITH_TORCH], ids=["without_torch", "with_torch"])
def test_what_is_added_is_used_by_its_name_and_touches_one_file(extended, tmp_path, script):
    environment = os.environ | {"PYTHONPATH": str(extended), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(extended)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    before, after = snapshot(REPOSITORY), snapshot(extended)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed == {name for name, _ in ADDITIONS.values()}


def test_the_guide_names_the_file_that_an_addition_touches():
    table = GUIDE.split("## To add something")[1].split("Other additions")[0]
    rows = dict(re.findall(r"^\| (an? [^|]+?) \| (.+) \|$", table, re.M))
    assert rows.keys() == ADDITIONS.keys()
    for kind, (name, _) in ADDITIONS.items():
        files = re.findall(r"`(sertone/[^`]+)`", rows[kind])
        patterns = [re.sub(r"\\?<[^>]+>", r"[a-z0-9]+", re.escape(file)) for file in files]
        assert [bool(re.fullmatch(pattern, name)) for pattern in patterns] == [True], kind


def test_the_picture_of_the_house_shows_every_room_on_its_level():
    picture = re.search(r"```text\nsertone/\n(.*?)\nrecipes/", GUIDE, re.S)[1]
    rooms = re.findall(r"^(  \d\d|   \d|    )  (\w+)  .*\S$", picture, re.M)
    levels = []
    for number, room in rooms:
        if number.strip():
            levels.append((int(number), set()))
        levels[-1][1].add(room)
    assert levels == list(enumerate(LEVELS))[::-1]
    package = REPOSITORY / "sertone"
    subfolders = {path.parent.name for path in package.glob("*/*/*.py")}
    assert set(re.findall(r"^ {22}(\w+)/ +\w", picture, re.M)) == subfolders

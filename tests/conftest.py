"""What many tests need: recordings, a small demo corpus, tiny encoders as Hugging Face folders."""

import os
import re
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Tests run side by side, so a command that one of them starts has one core, too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import soundfile
import torch
from torch.nn.utils.rnn import pad_sequence

from sertone import corpora
from sertone.errors import SertoneError

REPOSITORY = Path(__file__).parent.parent
REAL_SPEECH = REPOSITORY.parent / "shared" / "data"
REAL_WEIGHTS = REPOSITORY.parent / "shared" / "models"
NEEDED = {
    "real_speech": (REAL_SPEECH, "the recordings of EmoDB and RAVDESS are not beside this folder"),
    "real_weights": (REAL_WEIGHTS, "the weights of published models are not beside this folder"),
}
"""Marker -> the folder that its tests need, and the reason for skipping them."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Begin every test with one thread: with the number left by an earlier test, sums differ in their last bits."""
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    for marker, (folder, reason) in NEEDED.items():
        for item in items:
            if not folder.is_dir() and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter):
    skipped = terminalreporter.stats.get("skipped", [])
    for folder, reason in NEEDED.values():
        if count := sum(reason in str(report.longrepr) for report in skipped):
            terminalreporter.write_line(f"{count} tests skipped: {reason} (../shared/{folder.name})")


@pytest.fixture
def tone(tmp_path):
    """Writes a WAV of noise and a tone: tone(name, seconds, rate, channels) -> path."""

    def write(name="tone.wav", seconds=1.0, rate=16000, channels=1, **options) -> Path:
        draw = np.random.default_rng(0)
        time = np.arange(round(seconds * rate)) / rate
        samples = 0.2 * np.sin(2 * np.pi * 200 * time) + 0.02 * draw.standard_normal(len(time))
        path = tmp_path / name
        soundfile.write(path, np.stack([samples] * channels, 1), rate, **options)
        return path

    return write


@pytest.fixture(scope="session")
def small_demo(tmp_path_factory) -> Path:
    """Forty recordings of the demo corpus."""
    root = tmp_path_factory.mktemp("demo")
    corpora.load_sheet("demo").fake(root, takes=1)
    return root


@pytest.fixture(scope="session")
def voices(small_demo) -> list[Path]:
    """Files of synthetic speech, 16 kHz."""
    return sorted((small_demo / "wav").iterdir())


@pytest.fixture(scope="session")
def speech(voices):
    """speech(every) -> (name, samples (N,)) of every so-manyth real recording, or of synthetic ones if there is none."""

    def read(every=60):
        real = sorted((REAL_SPEECH / "emodb4").rglob("*.flac"))[::every]
        return [
            (f.stem, soundfile.read(f, dtype="float32")[0]) for f in real or voices[:: max(1, every // 8)]
        ]

    return read


RELEASES = ("1.8", "1.11")


@pytest.fixture(scope="session")
def podcasts(tmp_path_factory) -> dict[str, Path]:
    """Release -> a miniature of MSP-Podcast as that release lays it out; tests change copies only."""
    roots = {release: tmp_path_factory.mktemp("podcast") for release in RELEASES}
    for release, root in roots.items():
        corpora.load_sheet("msp_podcast").fake(root, release=release)
    return roots


def write_encoder(folder, family, norm="layer", **options) -> Path:
    """Write a tiny Hugging Face encoder the way the hub serves them, with further options of its configuration."""
    from transformers import (
        AutoModel,
        SeamlessM4TFeatureExtractor,
        Wav2Vec2FeatureExtractor,
        WhisperFeatureExtractor,
    )

    from sertone.nn.encoders.huggingface import TinyEncoderConfig

    torch.manual_seed(0)
    config = TinyEncoderConfig(family=family, norm=norm).build().config
    config.update({"mask_time_prob": 0.05, "layerdrop": 0.1} | options)
    model = AutoModel.from_config(config)
    draw = torch.Generator().manual_seed(1)
    moved = re.compile("norm|bias|embed_positions.weight")  # differ from their first state, as after training
    with torch.no_grad():
        for name, values in model.state_dict().items():
            if values.is_floating_point() and moved.search(name):
                values.add_(0.1 * torch.rand(values.shape, generator=draw))
    model.save_pretrained(folder)
    extractors = {
        "whisper": WhisperFeatureExtractor(feature_size=getattr(config, "num_mel_bins", 80)),
        "wav2vec2-bert": SeamlessM4TFeatureExtractor(),
    }
    waveforms = Wav2Vec2FeatureExtractor(do_normalize=family != "wavlm")
    extractors.get(family, waveforms).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory):
    """Writes a tiny Hugging Face encoder: tiny_encoder(family, norm) -> folder."""

    def write(family="wav2vec2", norm="group") -> Path:
        return write_encoder(tmp_path_factory.mktemp(f"{family}_{norm}"), family, norm)

    return write


def load_hugging_face(folder, waveform):
    """Load a saved encoder as `transformers` does, with its input for a waveform of an even number of 10 ms.

    No weight may be missing. Whisper's table of positions is cut to the length of the waveform, because its own
    code takes no other. SEW gives the frames of its last layer, which it would upsample.
    """
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModel
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    extractor = AutoFeatureExtractor.from_pretrained(folder)
    if AutoConfig.from_pretrained(folder).model_type != "whisper":
        model, report = AutoModel.from_pretrained(folder, output_loading_info=True)
        assert not report["missing_keys"]
        if model.config.model_type == "sew":
            model.encoder.upsample.forward = lambda hidden: hidden
        features = extractor(waveform.numpy(), sampling_rate=16000, return_tensors="pt")
        return model.eval(), features[model.main_input_name]
    model, report = WhisperEncoder.from_pretrained(
        folder, key_mapping={r"^(model\.)?encoder\.": ""}, dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"]
    features = extractor(waveform.numpy(), sampling_rate=16000, padding=False, return_tensors="pt")
    mel = features.input_features
    table = model.embed_positions.weight[: mel.shape[-1] // 2].clone()
    model.embed_positions = torch.nn.Embedding.from_pretrained(table)
    model.config.max_source_positions = len(table)
    return model.eval(), mel


def clips(*lengths):
    """Noise, the same at every call."""
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(n, generator=draw) * 0.1 + 0.02 for n in lengths]


def code_of(function, *arguments, **options):
    """Return the code of the error that a call raises."""
    with pytest.raises(SertoneError) as caught:
        function(*arguments, **options)
    return caught.value.code


def padded(waveforms):
    """Waveforms (B, N) and lengths (B,)."""
    return pad_sequence(waveforms, batch_first=True), torch.tensor([len(w) for w in waveforms])


TINY_MODEL = {
    "name": "wan2025",
    "encoder": {"name": "compact", "width": 16, "depth": 2, "attention_heads": 2},
    "hidden": 16,
    "frozen_layers": 1,
}

SMALL_EMOTION2VEC = {
    "name": "emotion2vec_architecture",
    "width": 24,
    "depth": 3,
    "heads": 6,
    "feed_forward": 48,
    "channels": 16,
    "position_groups": 4,
}

SMALL_MODEL = {"name": "baseline", "encoder": TINY_MODEL["encoder"], "hidden": 8}


@pytest.fixture(scope="session")
def demo_recipe(small_demo):
    """A recipe of one epoch per stage on the small demo corpus: demo_recipe(**train) -> Recipe."""
    from sertone.recipe import Recipe

    def make(model=None, protocol=None, **train):
        return Recipe.model_validate(
            {
                "data": {"corpus": "demo", "root": str(small_demo)},
                "protocol": {"split": "grouped_k_fold", "folds": 2} | (protocol or {}),
                "model": model or TINY_MODEL,
                "train": {"epochs": [1, 1], "batch_size": 8} | train,
            }
        )

    return make


@pytest.fixture(scope="session")
def saving_recipe(demo_recipe):
    """A recipe of three folds and one epoch that saves after every epoch."""
    return demo_recipe(SMALL_MODEL, {"folds": 3}, epochs=[1], save_every=1, speeds=[1.0], device="cpu")


@pytest.fixture(scope="session")
def finished_run(saving_recipe, tmp_path_factory) -> Path:
    """The finished cross-validation of this recipe; tests change copies only."""
    from sertone.training.runs.crossval import cross_validate

    return cross_validate(saving_recipe, tmp_path_factory.mktemp("saves") / "run", jobs=1, quiet=True)


@pytest.fixture(scope="session")
def noises(tmp_path_factory) -> Path:
    """A manifest of ten speakers, 16 recordings of noise each: level follows arousal, offset valence."""
    root, random = tmp_path_factory.mktemp("noises"), np.random.default_rng(0)
    lines = ["path,speaker,emotion,arousal,valence"]
    for number in range(160):
        arousal, valence = random.uniform(1, 5, 2)
        noise = random.standard_normal(int(random.integers(3000, 9000)))
        samples = 0.02 * arousal * noise + 0.05 * (valence - 3)
        soundfile.write(root / f"{number}.wav", np.clip(samples, -1, 1), 16000)
        emotion = ("happy", "sad", "angry", "neutral")[number % 4]
        lines.append(f"{number}.wav,s{number % 10},{emotion},{arousal:.3f},{valence:.3f}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root / "metadata.csv"


@pytest.fixture(scope="session")
def experiment(noises):
    """Five folds of these noises."""
    from sertone.recipe import Recipe
    from sertone.training.experiment.experiment import prepare

    scales = {"arousal": [1, 5], "valence": [1, 5]}
    values = {
        "data": {"corpus": "manifest", "root": str(noises), "scales": scales},
        "protocol": {"split": "grouped_k_fold", "folds": 5},
        "model": {"name": "baseline", "encoder": TINY_MODEL["encoder"]},
        "train": {"batch_size": 8, "device": "cpu"},
    }
    return prepare(Recipe.model_validate(values))


@pytest.fixture(scope="session")
def both(tmp_path_factory):
    from rated import write_run

    conditions = {"audio and text": 0.5, "text alone": 1.2, "text of 10 % WER": 0.7}
    return write_run(tmp_path_factory.mktemp("both") / "run", conditions=conditions)


@pytest.fixture(scope="session")
def dimensions(tmp_path_factory):
    from rated import write_run

    return write_run(tmp_path_factory.mktemp("dimensions") / "run", classes=[], noise=0.9, seed=1)


@pytest.fixture(scope="session")
def toy(tmp_path_factory) -> Path:
    """A bundle that answers by loudness; see `toys`."""
    from toys import write_toy

    return write_toy(tmp_path_factory.mktemp("toy") / "bundle")


@pytest.fixture(scope="session")
def folder_tree(tmp_path_factory) -> Path:
    """Twelve recordings in a folder tree; see `many_files`."""
    from many_files import write_folder_tree

    return write_folder_tree(tmp_path_factory.mktemp("many"))

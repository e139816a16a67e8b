"""The cache of the frozen prefix: computed once, valid for its inputs only, the same losses with and without."""

import contextlib
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from apart import HERE
from conftest import SMALL_EMOTION2VEC, TINY_MODEL
from lightning_fabric import Fabric

from sertone import corpora
from sertone.errors import SertoneError
from sertone.nn.encoders.compact import CompactEncoderConfig
from sertone.nn.encoders.emotion2vec import Emotion2vecArchitectureConfig
from sertone.nn.encoders.huggingface import TinyEncoderConfig
from sertone.nn.fusions import FUSIONS
from sertone.nn.vocabulary import Vocabulary
from sertone.recipe.train_config import TrainConfig
from sertone.recipe.train_parts import CacheConfig
from sertone.training.data.caches import PrefixCaches
from sertone.training.data.loader import BatchItem, Loader
from sertone.training.data.prefix_cache import hash_prefix
from sertone.training.data.recordings import Recordings
from sertone.training.data.waveforms import Waveforms
from sertone.training.experiment.experiment import prepare
from sertone.training.fit.progress import RunProgress
from sertone.training.runs.folds import prepare_data, train_fold
from sertone.utils.processes import ChildProcess

NOTHING = Vocabulary({}, {}, [])
ENCODERS = {
    "compact": CompactEncoderConfig(width=16, depth=3, attention_heads=2, prosody=True),
    "conformer": CompactEncoderConfig(width=16, depth=3, attention_heads=2, block="conformer"),
    "wav2vec2": TinyEncoderConfig(width=16, depth=3),
    "hubert_layer": TinyEncoderConfig(family="hubert", norm="layer", width=16, depth=3),
    "wavlm": TinyEncoderConfig(family="wavlm", width=16, depth=3),
    "emotion2vec": Emotion2vecArchitectureConfig.model_validate(SMALL_EMOTION2VEC),
}


@pytest.fixture(scope="module")
def recordings(small_demo):
    recordings = Recordings(1.0, [0.8, 1.0, 1.2])
    recordings.utterances = list(corpora.load_utterances("demo", small_demo))[:8]
    recordings.load(recordings.utterances)
    return recordings


def fabric(precision="32-true"):
    return Fabric(accelerator="cpu", devices=1, precision=precision)


def caches(precision="32-true", **options):
    return PrefixCaches(TrainConfig(batch_size=4, precision=precision, cache=CacheConfig(**options)))


def open_cache(encoder, recordings, places=None, needs=(1, 2, 3), own=False, lines=None):
    places = places or caches()
    say = (lines if lines is not None else []).append
    return places.open(encoder, needs, own, Waveforms(recordings), fabric(places.config.precision), say)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("cut", [0, 2])
@pytest.mark.parametrize("name", ENCODERS)
def test_hidden_states_from_the_cache_are_those_of_the_encoder(name, cut, precision, recordings):
    torch.manual_seed(0)
    encoder = ENCODERS[name].build()
    encoder.freeze(cut)
    encoder.eval()
    cache = open_cache(encoder, recordings, caches(precision))
    rows = [BatchItem(utterance, speed) for utterance in recordings.utterances[:4] for speed in (0.8, 1.0)]
    plain = Loader(Waveforms(recordings), NOTHING, encoder.min_samples)
    cached = Loader(Waveforms(recordings), NOTHING, encoder.min_samples, cache)
    with torch.no_grad(), fabric(precision).autocast():
        ((expected, frames),) = [batch.encode(encoder) for batch in plain.batches([rows], [])]
        for _ in range(2):  # computed, then found
            ((hidden, counted),) = [batch.encode(encoder) for batch in cached.batches([rows], [])]
            assert torch.equal(frames, counted)
            close = {"atol": 1e-5, "rtol": 1e-5} if precision == "32-true" else {"atol": 0.1, "rtol": 0.05}
            torch.testing.assert_close(hidden[:, 1:].float(), expected[:, 1:].float(), **close)
            assert hidden[:, 0].isnan().all() == (cut > 0)


def test_cached_entries_are_not_computed_again(recordings, monkeypatch):
    encoder = ENCODERS["wav2vec2"].build()
    encoder.freeze(0)
    encoder.train()
    places = caches()
    rows = [BatchItem(utterance) for utterance in recordings.utterances]
    calls = []
    front = type(encoder).front
    monkeypatch.setattr(type(encoder), "front", lambda *a: calls.append(a[1].shape[0]) or front(*a))

    def run():
        cache = open_cache(encoder, recordings, places)
        calls.clear()
        loader = Loader(Waveforms(recordings), NOTHING, encoder.min_samples, cache)
        list(loader.batches([rows[:5], rows[5:]], []))
        return len(calls)

    assert run() == len(rows) and set(calls) == {1}, "each once, alone and so without padding"
    assert run() == 0
    encoder.freeze(2)
    assert run() == 0, "the layers begin from the features that are known"
    assert run() == 0
    with torch.no_grad():
        next(encoder.convolutions.parameters()).mul_(1.5)
    encoder.freeze(0)
    assert run() == len(rows), "other weights, another prefix"


def test_the_hash_covers_everything_that_the_prefix_depends_on(monkeypatch):
    torch.manual_seed(0)
    encoder = ENCODERS["wavlm"].build()
    encoder.freeze(2)

    def name(layers=(1, 2), dtype=torch.float32, precision="32-true"):
        return hash_prefix(encoder, layers, dtype, fabric(precision))

    first = name()
    assert name() == first
    others = [name((2,)), name(()), name(dtype=torch.bfloat16), name(precision="bf16-mixed")]
    with torch.no_grad():
        encoder.transformer.layers[2].final_layer_norm.bias.add_(1)  # behind the cut
        assert name() == first
        encoder.transformer.layers[1].final_layer_norm.bias.add_(1)
        others.append(name())
        encoder.transformer.layers[0].attention.rel_attn_embed.weight[0, 0] += 1
        others.append(name())
        encoder.normalize = not encoder.normalize
        others.append(name())
        monkeypatch.setattr("sertone.training.data.prefix_cache._hash_code", lambda: "other code")
        others.append(name())
    assert len({first, *others}) == len(others) + 1


@pytest.mark.parametrize("where", ["auto", "memory", "file"])
def test_a_prefix_that_varies_is_refused(where, recordings, tmp_path):
    encoder = ENCODERS["compact"].build()
    places = caches(where=where, folder=str(tmp_path))

    def reason(break_it):
        encoder.freeze(1)
        encoder.train()
        break_it()
        if where == "auto":
            assert open_cache(encoder, recordings, places) is None
            return encoder.explain_varying_prefix()
        with pytest.raises(SertoneError) as caught:
            open_cache(encoder, recordings, places)
        assert caught.value.code == "not_cacheable" and "frozen_layers" in str(caught.value)
        return str(caught.value)

    assert "nothing of the encoder is frozen" in reason(lambda: encoder.freeze(-1))
    assert "is trained" in reason(lambda: encoder.norms.requires_grad_(True))
    assert "dropout is random" in reason(lambda: encoder.layers[0].train())
    encoder.freeze(1)
    encoder.train()
    assert open_cache(encoder, recordings, places) is not None


def test_the_deepest_prefix_that_fits_is_cached_and_its_size_is_reported(recordings):
    encoder = ENCODERS["wav2vec2"].build()  # 50 frames/s: 3.2 kB/s of features, and so much per layer
    encoder.freeze(2)
    seconds = recordings.seconds
    features, layers = seconds * 50 * 16 * 4 / 1e9, seconds * 50 * 16 * 2 * 4 / 1e9
    lines = []
    deep = open_cache(encoder, recordings, caches(limit_gb=layers * 1.01), lines=lines)
    assert deep.layers == (1, 2) and f"{layers:.2g} GB" in lines[-1]
    assert open_cache(encoder, recordings, caches(limit_gb=layers * 1.01), needs=(3,)).layers == (2,)
    shallow = open_cache(encoder, recordings, caches(limit_gb=features * 1.01), lines=lines)
    assert shallow.layers == () and "front end" in lines[-1]
    assert open_cache(encoder, recordings, caches(limit_gb=features * 0.9), lines=lines) is None
    assert "no cache" in lines[-1]
    with pytest.raises(SertoneError) as caught:
        open_cache(encoder, recordings, caches(where="memory", limit_gb=features * 1.01))
    assert caught.value.code == "cache_too_small"
    for row in ((u, s) for u in recordings.utterances for s in recordings.speeds):
        deep.compute(*row)
    assert 0.8 * layers < deep.store.bytes_used / 1e9 < 1.1 * layers, "the estimate is about right"


@pytest.mark.parametrize("name", ENCODERS)
def test_the_size_is_known_before_the_encoder_is_on_its_device(name, recordings):
    """This is the situation of the process that starts the folds; a device without data stands for the GPU."""
    encoder = ENCODERS[name].build()
    encoder.freeze(1)
    elsewhere = SimpleNamespace(device=torch.device("meta"), autocast=contextlib.nullcontext)
    chosen = caches().choose_layers(encoder, (1, 2, 3), recordings, elsewhere, pytest.fail)
    assert chosen == caches().choose_layers(encoder, (1, 2, 3), recordings, fabric(), pytest.fail)
    assert chosen[0] == (1,) and chosen[1] > 0


def test_half_the_size_in_bf16():
    assert (
        caches()._choose_dtype() == torch.float32 and caches("bf16-mixed")._choose_dtype() == torch.bfloat16
    )
    halved = CacheConfig(precision="bf16")
    assert PrefixCaches(TrainConfig(batch_size=4, cache=halved))._choose_dtype() == torch.bfloat16


def test_a_cache_without_room_computes_each_time(recordings):
    encoder = ENCODERS["compact"].build()
    encoder.freeze(0)
    lines = []
    cache = open_cache(encoder, recordings, lines=lines)
    cache.store.limit = 1
    row = recordings.utterances[0], 1.0
    expected = cache.compute(*row)
    assert cache.get(*row) is None
    np.testing.assert_array_equal(cache.compute(*row), expected)
    assert len(lines) == 2 and "full" in lines[-1], "reported once"


def test_runs_share_files_and_those_opened_longest_ago_are_deleted_first(recordings, tmp_path):
    torch.manual_seed(0)
    encoders = [ENCODERS["wav2vec2"].build() for _ in range(3)]
    for encoder in encoders:
        encoder.freeze(0)
    row = recordings.utterances[0], 1.0
    sizes = {"where": "file", "folder": str(tmp_path)}
    first, second = (open_cache(encoder, recordings, caches(**sizes)) for encoder in encoders[:2])
    for cache in (first, second):
        cache.compute(*row)
    assert open_cache(encoders[0], recordings, caches(**sizes)).get(*row) is not None
    for age, cache in ((1, second), (2, first)):
        os.utime(tmp_path / f"{cache.name}.prefix", (age, age))
    open_cache(encoders[1], recordings, caches(**sizes))  # opened: no longer the one to go
    room = recordings.seconds * 50 * 16 * 4 / 1e9 + second.store.bytes_used / 1e9 * 1.5
    third = open_cache(encoders[2], recordings, caches(**sizes, limit_gb=room))
    assert {path.stem for path in tmp_path.iterdir()} == {second.name, third.name}
    encoders[2].freeze(2)
    own = open_cache(encoders[2], recordings, caches(**sizes), own=True)
    own.compute(*row)
    assert own.get(*row) is not None and own.features.store.path == third.store.path
    assert len(list(tmp_path.iterdir())) == 2, "what no other fold can use leaves no file behind"


def test_an_impossible_cache_is_refused_before_training(demo_recipe, tmp_path):
    recipe = demo_recipe(cache={"where": "memory", "limit_gb": 0.001})
    with pytest.raises(SertoneError) as caught:
        prepare_data(prepare(recipe), RunProgress(1, quiet=True))
    assert caught.value.code == "cache_too_small"


def test_processes_share_a_cache_in_memory(recordings):
    encoder = ENCODERS["compact"].build()
    encoder.freeze(0)
    places = caches()
    row = recordings.utterances[0], 1.0
    expected = open_cache(encoder, recordings, places).compute(*row)
    with ChildProcess(HERE) as child:
        entry = child(read_in_child, encoder, recordings, places, row)
    np.testing.assert_array_equal(entry, expected)


def read_in_child(encoder, recordings, places, row):
    return np.array(open_cache(encoder, recordings, places).get(*row))


def losses(demo_recipe, tmp_path, monkeypatch, **train):
    """Return the losses of every step."""
    from sertone.training.fit.epoch_statistics import EpochStatistics

    values = []
    step = EpochStatistics.add_step
    monkeypatch.setattr(
        EpochStatistics,
        "add_step",
        lambda self, a, b, *rest: values.append(b.item()) or step(self, a, b, *rest),
    )
    experiment, progress = prepare(demo_recipe(**train)), RunProgress(1, quiet=True)
    trainer = train_fold(experiment, 0, tmp_path, prepare_data(experiment, progress), progress)
    return values, trainer


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("encoder", ["compact", "wav2vec2", "wavlm", "emotion2vec"])
def test_with_and_without_cache_every_step_has_the_same_loss(
    demo_recipe, tmp_path, monkeypatch, encoder, fusion
):
    """Both stages of wan2025, dropout on, the second with two frozen layers."""
    model = TINY_MODEL | {"encoder": ENCODERS[encoder].model_dump(), "frozen_layers": 2, "fusion": fusion}
    options = {"model": model, "epochs": [1, 2], "speeds": [0.9, 1.0]}
    with monkeypatch.context() as patch:
        without, _ = losses(demo_recipe, tmp_path / "a", patch, cache="off", **options)
    with monkeypatch.context() as patch:
        cached, trainer = losses(demo_recipe, tmp_path / "b", patch, cache="memory", **options)
    assert trainer.loader.cache.layers == ((2,) if fusion == "last" else (1, 2))
    assert len(cached) == 9 and np.abs(np.subtract(cached, without)).max() < 1e-5
    assert all(0 < entry["busy"] <= 1 for entry in trainer.history)


def test_a_cache_in_bf16_serves_a_training_in_fp32(demo_recipe, tmp_path, monkeypatch):
    model = TINY_MODEL | {"encoder": ENCODERS["wav2vec2"].model_dump(), "frozen_layers": 2}
    options = {"model": model, "epochs": [1, 1], "speeds": [1.0]}
    with monkeypatch.context() as patch:
        exact, _ = losses(demo_recipe, tmp_path / "a", patch, **options)
    with monkeypatch.context() as patch:
        rounded, trainer = losses(demo_recipe, tmp_path / "b", patch, cache={"precision": "bf16"}, **options)
    assert trainer.loader.cache.dtype == torch.bfloat16
    assert rounded != exact and rounded == pytest.approx(exact, rel=0.01)


def test_one_word_configures_the_cache():
    import yaml

    def cache(text):
        return TrainConfig(batch_size=1, **yaml.safe_load(text)).cache

    assert cache("cache: off").where == "off" and cache("cache: file").where == "file"
    assert cache("cache: {limit_gb: 2}") == CacheConfig(where="auto", limit_gb=2)
    with pytest.raises(ValueError, match="where"):
        cache("cache: on")

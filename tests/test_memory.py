"""The memory of a training step: estimate and measurement, limited batches, refused recordings."""

import gc
import weakref

import numpy as np
import pytest
import soundfile
import torch
from conftest import TINY_MODEL
from torch.profiler import ProfilerActivity, profile
from training_runs import train_first_fold

from sertone import models
from sertone.corpora._check import check
from sertone.errors import SertoneError
from sertone.labels import FOUR_CLASSES
from sertone.nn.batch import Batch
from sertone.nn.vocabulary import Vocabulary
from sertone.recipe import Recipe
from sertone.recipe.train_config import TrainConfig
from sertone.report import protocol
from sertone.report import run as report
from sertone.schema import Utterance
from sertone.training.data.batches import plan_batches
from sertone.training.experiment.experiment import prepare
from sertone.training.fit import distributed, memory
from sertone.training.fit.epoch_statistics import EpochStatistics
from sertone.training.fit.memory import WEIGHT_BYTES, StepMemory
from sertone.training.fit.progress import RunProgress
from sertone.training.fit.step import Stepper
from sertone.training.runs.crossval import cross_validate
from sertone.training.runs.folds import prepare_data, train_fold

SPEAKERS = [
    Utterance(id=f"{n}", path="x", speaker=f"s{n}", labels={"emotion": emotion})  # pyright: ignore[reportArgumentType]
    for n, emotion in enumerate(("happy", "sad", "angry", "neutral"))
]
TINY = {"name": "tiny", "width": 64, "depth": 4}
ENCODERS = {
    "wav2vec2": TINY,
    "wavlm": TINY | {"family": "wavlm"},
    "layer norm": TINY | {"norm": "layer"},
    "data2vec": TINY | {"family": "data2vec-audio"},
    "whisper": TINY | {"family": "whisper"},
    "sew": TINY | {"family": "sew"},
    "w2v-BERT": TINY | {"family": "wav2vec2-bert"},
    "wav2vec2-conformer": TINY | {"family": "wav2vec2-conformer"},
    "emotion2vec": {
        "name": "emotion2vec_architecture",
        "width": 64,
        "depth": 4,
        "heads": 4,
        "feed_forward": 128,
        "channels": 64,
    },
    "compact": {"name": "compact", "width": 64, "depth": 4},
    "conformer": {"name": "compact", "width": 64, "depth": 4, "block": "conformer"},
    "functionals": {"name": "functionals"},
}


def peak_gb(function):
    """Return the peak memory of torch in a call, in GB."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        function()
    assert record.profiler and record.profiler.kineto_results
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(np.cumsum(sizes)) / 1e9


def measured_and_estimated(encoder, seconds, count, cut, precision="32-true"):
    config = TrainConfig.model_validate({"batch_size": 4, "device": "cpu", "precision": precision})
    vocabulary = Vocabulary.from_utterances(SPEAKERS, FOUR_CLASSES)
    model = models.build({"name": "baseline", "encoder": encoder, "frozen_layers": cut}, vocabulary)
    stepper = Stepper(model, model.stages()[0], config, distributed.make_fabric(config))
    stepper.begin_epoch()
    waveforms = 0.1 * torch.randn(count, int(seconds * 16000))
    lengths = torch.tensor([waveforms.shape[1]] + [waveforms.shape[1] // 2] * (count - 1))
    rows = SPEAKERS[:count]
    batch = Batch(waveforms, lengths, {"emotion": vocabulary.make_targets("emotion", rows)})
    measured = peak_gb(lambda: stepper.step([batch], 1.0, [rows], EpochStatistics(5)))
    gradients = sum(p.numel() for p in model.parameters() if p.requires_grad) * WEIGHT_BYTES / 1e9
    return measured, StepMemory(model.encoder, config, "cpu", cut).estimate_gb(count, seconds) + gradients


@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
@pytest.mark.parametrize(("seconds", "count"), [(10.0, 3), (24.0, 1)])
def test_the_estimate_is_within_a_factor_of_the_measurement(encoder, seconds, count):
    measured, estimated = measured_and_estimated(encoder, seconds, count, 0)
    assert 0.6 < estimated / measured < 1.7


def test_the_estimate_accounts_for_frozen_layers_and_bf16():
    for cut, precision in ((2, "32-true"), (-1, "32-true"), (0, "bf16-mixed")):
        measured, estimated = measured_and_estimated(TINY, 20.0, 1, cut, precision)
        assert 0.6 < estimated / measured < 1.7, (cut, precision)


def test_batches_are_bounded_by_their_memory():
    config = TrainConfig.model_validate({"batch_size": 4, "batch_gb": 8.0})
    encoder = models.build(
        {"name": "baseline", "encoder": TINY}, Vocabulary.from_utterances(SPEAKERS, FOUR_CLASSES)
    ).encoder
    encoder.config.update({"num_attention_heads": 12, "conv_dim": [512] * 7, "intermediate_size": 3072})
    encoder.width, encoder.depth = 768, 12  # the base shape: only numbers are looked at
    step = StepMemory(encoder, config, "cpu", 0)
    assert not step.exceeds_limit(4, 10.0) and step.exceeds_limit(4, 30.0) and step.exceeds_limit(1, 120.0)
    lengths = [120.0, *[30.0] * 4, *[10.0] * 8]
    for mixing in (0.03, "random"):
        draw = np.random.default_rng(0)
        plan = plan_batches(lengths, batch_size=4, mixing=mixing, rng=draw, exceeds_memory=step.exceeds_limit)
        assert sorted(i for batch in plan for i in batch) == list(range(len(lengths)))
        for batch in plan:
            assert len(batch) == 1 or not step.exceeds_limit(len(batch), max(lengths[i] for i in batch))
        assert [0] in plan  # longer than all bounds, and still trained on
        assert max(map(len, plan)) == 4


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Eight short clips and one of two minutes, of three speakers."""
    root, draw = tmp_path_factory.mktemp("long"), np.random.default_rng(0)
    lines = ["path,speaker,emotion"]
    for number in range(9):
        seconds = 120 if number == 8 else 1
        soundfile.write(root / f"{number}.wav", 0.1 * draw.standard_normal(seconds * 16000), 16000)
        lines.append(f"{number}.wav,s{number % 3},{('happy', 'sad')[number // 3 % 2]}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root / "metadata.csv"


def recipe_of(table, model=None, **data):
    values = {
        "data": {"corpus": "manifest", "root": str(table), "classes": "all"} | data,
        "protocol": {"split": "grouped_k_fold", "folds": 3},
        "model": model or {"name": "baseline", "encoder": TINY_MODEL["encoder"], "hidden": 8},
        "train": {"epochs": [1], "batch_size": 4, "speeds": [0.8, 1.0], "device": "cpu"},
    }
    return Recipe.model_validate(values)


def test_a_recording_that_does_not_fit_is_named_before_the_first_step(table, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_gb", lambda _: 1.0)
    tiny = {"name": "baseline", "encoder": TINY, "hidden": 8}
    with pytest.raises(SertoneError) as caught:
        cross_validate(recipe_of(table, tiny), tmp_path / "run", jobs=1, quiet=True)
    assert caught.value.code == "too_long_for_memory"
    words = str(caught.value)
    assert "8 lasts 120 s, 150 s at speed 0.8" in words and "data.max_seconds: 30" in words
    assert "1.0 GB are free" in words
    prepare_data(
        prepare(recipe_of(table)), RunProgress(0, True)
    )  # its attention is linear in memory: it fits


def test_folds_side_by_side_share_the_memory(table, monkeypatch):
    monkeypatch.setattr(memory, "available_gb", lambda _: 20.0)  # one step takes 12
    experiment = prepare(recipe_of(table, {"name": "baseline", "encoder": TINY, "hidden": 8}))
    prepare_data(experiment, RunProgress(0, True), jobs=1)
    with pytest.raises(SertoneError) as caught:
        prepare_data(experiment, RunProgress(0, True), jobs=2)
    assert caught.value.code == "too_long_for_memory" and "10.0 GB are free" in str(caught.value)


def test_training_respects_the_limit(demo_recipe, tmp_path):
    """Batches of one utterance have no padding."""
    loose, tight = (
        train_first_fold(
            demo_recipe(length_mixing="random", epochs=[1, 0], **bound), tmp_path / name
        ).history[0]
        for name, bound in (("loose", {}), ("tight", {"batch_gb": 1e-6}))
    )
    assert loose["padding_factor"] > 1.02 and tight["padding_factor"] == pytest.approx(1)
    assert loose["bounded_batches"] == 0 and tight["batches"] == tight["bounded_batches"] + 1
    results = {"folds": [{"history": [tight]}], "folds_of_other_settings": []}
    assert "of the batches are smaller than requested" in report._describe_trouble(results)


def test_the_free_memory_is_known():
    assert 0 < memory.available_gb("cpu") < 1e5


# data.max_seconds


def test_longer_utterances_are_cut_left_out_or_refused(table):
    lines = []
    cut = prepare(recipe_of(table, max_seconds=30), say=lines.append)
    assert "1 of 9 utterances is longer than 30 s: cut" in lines
    (long,) = [u for u in cut.utterances if u.end_s is not None]
    assert (long.id, long.start_s, long.end_s, long.text) == ("8", 0.0, 30.0, None)
    assert cut.card["max_seconds"] == {"seconds": 30, "longer": "cut", "utterances": 1}
    assert ("Longest utterance", "30 s; 1 longer utterance: cut") in protocol.build_rows(cut.card)
    assert prepare_data(cut, RunProgress(0, True)).recordings.lengths["8"] == 30 * 16000

    left_out = prepare(recipe_of(table, max_seconds=30, longer="left_out"), say=lines.append)
    assert "1 of 9 utterances is longer than 30 s: left out" in lines
    assert len(left_out.utterances) == 8 and all(u.id != "8" for u in left_out.utterances)
    assert sum(len(fold.test) for fold in left_out.folds) == 8
    assert left_out.card["corpus"]["utterances_used"] == 8

    with pytest.raises(SertoneError) as caught:
        prepare(recipe_of(table, max_seconds=30, longer="error"))
    assert caught.value.code == "longer_utterances" and "8 of 120 s" in str(caught.value)
    assert "max_seconds" not in prepare(recipe_of(table)).card


def test_a_cut_utterance_has_no_transcript_to_learn(table, tmp_path):
    lines = (table.read_text()).splitlines()
    texts = [f"{lines[0]},text", *(f"{line},so many words" for line in lines[1:])]
    (tmp_path / "metadata.csv").write_text("\n".join(texts).replace("\n", f"\n{table.parent}/") + "\n")
    cut = prepare(recipe_of(tmp_path / "metadata.csv", max_seconds=30))
    assert [u.text for u in cut.utterances] == ["so many words"] * 8 + [None]
    renamed = (tmp_path / "metadata.csv").read_text().replace(",text", ",said", 1)
    (tmp_path / "metadata.csv").write_text(renamed)
    text = {"source": "column", "column": "said"}
    cut = prepare(recipe_of(tmp_path / "metadata.csv", max_seconds=30, text=text))
    assert [u.text for u in cut.utterances] == ["so many words"] * 8 + [None]


def test_check_reports_long_recordings_in_one_line(table):
    (note,) = [p for p in check("manifest", table).problems if p.code == "long_recording"]
    assert note.severity == "note" and note.path == "8" and "1 x longer than 30 s" in note.message


def test_the_memory_of_the_weights_by_hand():
    """4 bytes a weight, 12 more with gradient and moments, and 4 more with its average."""
    vocabulary = Vocabulary.from_utterances(SPEAKERS, FOUR_CLASSES)
    model = models.build({"name": "baseline", "encoder": TINY, "hidden": 8}, vocabulary)
    stage = model.stages()[0]

    def estimate(**train):
        config = TrainConfig(batch_size=1, **train)
        return round(memory._estimate_weights_gb(model, stage, config) * 1e9)

    total = sum(p.numel() for p in model.parameters())
    trained = total - sum(
        p.numel() for part in model.encoder.parts()[:1] for m in part for p in m.parameters()
    )
    assert estimate() == 4 * total + 12 * trained
    assert estimate(ema=0.9) == 4 * total + 16 * trained
    layers = sum(p.numel() for p in model.encoder.parameters()) - (total - trained)
    # Rank 2 in the four projections from 64 to 64 of four layers.
    assert estimate(lora={"rank": 2}) == 4 * total + 12 * (trained - layers + 4 * 4 * 2 * (64 + 64))


def test_a_process_keeps_the_model_of_one_fold(demo_recipe, tmp_path):
    """Without a collection the models of many folds fill the memory: Python counts objects, not bytes."""
    experiment = prepare(demo_recipe(epochs=[0, 0]))
    progress = RunProgress(1, quiet=True)
    caches = prepare_data(experiment, progress)
    gc.disable()
    try:
        kept = [
            weakref.ref(train_fold(experiment, number, tmp_path / str(number), caches, progress).model)
            for number in (0, 1)
        ]
    finally:
        gc.enable()
    assert kept[0]() is None

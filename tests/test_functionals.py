"""The encoder of statistics: their standardisation, the perturbation of spectra, the exported and the bundled model."""

import json
import time

import numpy as np
import pytest
import scipy.fft
import scipy.stats
import torch
from conftest import REAL_SPEECH, clips, padded
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sertone import audio, models
from sertone import recipe as recipes
from sertone.labels import FOUR_CLASSES
from sertone.nn.batch import Batch
from sertone.nn.encoders import functional_statistics, functionals
from sertone.nn.encoders.augmentation import SpectrumPerturbation, draw_colours, perturb_spectra, warp_bands
from sertone.nn.encoders.base import Prefix
from sertone.nn.encoders.frontend import LOUDNESS, LOUDNESS_DB, MEL_DB, FrontEnd
from sertone.nn.encoders.functionals import FunctionalsEncoderConfig, Standardisation
from sertone.nn.masks import frame_mask
from sertone.nn.vocabulary import Vocabulary
from sertone.runtime import shipped
from sertone.runtime.bundle import Bundle, BundleSettings, read_metadata
from sertone.training.runs.crossval import cross_validate


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 10_000))
def test_standardisation_is_by_all_rows_seen(sizes, seed):
    draw = torch.Generator().manual_seed(seed)
    batches = [3 + 2 * torch.randn(size, 4, generator=draw) for size in sizes]
    module = Standardisation(4).train()
    for number, rows in enumerate(batches, 1):
        seen = torch.cat(batches[:number]).double()
        answer = module(rows)
        expected = (rows - seen.mean(0)) / (seen.var(0, correction=0) + 1e-6).sqrt()
        torch.testing.assert_close(answer.double(), expected.clamp(-5, 5), atol=2e-3, rtol=1e-3)
    module.eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    together = module(batches[0])
    assert all(torch.equal(together[i], module(row[None])[0]) for i, row in enumerate(batches[0]))
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_outliers_are_cut_off():
    module = Standardisation(2).train()
    module(torch.randn(100, 2, generator=torch.Generator().manual_seed(0)))
    answer = module.eval()(torch.tensor([[1e6, -1e6]]))
    assert answer.tolist() == [[functionals.LIMIT, -functionals.LIMIT]]


@given(st.floats(0.6, 1.4))
def test_a_warped_ramp_is_a_steeper_ramp(factor):
    ramp = torch.arange(20.0).expand(1, 3, 20)
    expected = (ramp * factor).clamp(max=19)
    torch.testing.assert_close(warp_bands(ramp, torch.tensor([[factor]])), expected, atol=1e-4, rtol=1e-4)


def test_colours_are_smooth_and_leave_the_level():
    torch.manual_seed(0)
    drawn = draw_colours(4000, 64, 0.5, torch.device("cpu"))
    assert drawn.mean(1).abs().max() < 1e-5
    waves = scipy.fft.dct(drawn.numpy(), axis=1) / 64
    assert waves[:, 1:4].std(0) == pytest.approx(0.5, rel=0.05)
    assert np.abs(waves[:, 4:]).max() < 1e-5


def test_a_perturbation_changes_what_it_says():
    torch.manual_seed(0)
    features = torch.randn(500, 4, 69)
    gained = perturb_spectra(features, 64, SpectrumPerturbation(gain_db=6.0)) - features
    assert not gained[..., [i for i in range(69) if i != 64 + LOUDNESS]].any()
    steps = gained[..., 64 + LOUDNESS]
    assert (steps - steps[:, :1]).abs().max() < 1e-5
    assert steps[:, 0].std() * LOUDNESS_DB == pytest.approx(6.0, rel=0.1)
    coloured = perturb_spectra(features, 64, SpectrumPerturbation(colour_db=2.0)) - features
    assert not coloured[..., 64:].any() and (coloured - coloured[:, :1]).abs().max() < 1e-5
    assert coloured[..., :64].square().mean().sqrt() * MEL_DB == pytest.approx(2 * 1.5**0.5, rel=0.1)
    assert torch.equal(perturb_spectra(features, 64, SpectrumPerturbation()), features)


@torch.no_grad()
def test_a_louder_recording_differs_in_loudness_alone(voices):
    """10 dB: only means of absolute loudness move, all by as much; in noise, as every recording is."""
    encoder = FunctionalsEncoderConfig().build().eval()
    samples = audio.read(voices[0]).samples
    noise = 1e-3 * np.random.default_rng(0).standard_normal(len(samples))
    waveform = torch.from_numpy((samples + noise).astype(np.float32))
    before, after = (encoder(*padded([waveform * gain]))[0][0, 0, 0] for gain in (1.0, 10**0.5))
    moved = (after - before).abs() > 0.02
    assert 1 <= moved.sum() <= 8
    assert (after - before)[moved] == pytest.approx(10 / LOUDNESS_DB, abs=0.02)


def test_training_perturbs_spectra_and_evaluation_does_not():
    torch.manual_seed(0)
    perturbation = SpectrumPerturbation(colour_db=2.0, warp=0.1, gain_db=6.0)
    encoder = FunctionalsEncoderConfig(perturbation=perturbation).build()
    encoder.freeze(0)
    prefix = encoder.prefix(*padded(clips(16000, 9000)))
    first, second = (encoder.train().suffix(prefix)[0] for _ in range(2))
    assert not torch.equal(first, second)
    seen = encoder.standardisation.seen.clone()
    first, second = (encoder.eval().suffix(prefix)[0] for _ in range(2))
    assert torch.equal(first, second) and torch.equal(seen, encoder.standardisation.seen)


@torch.no_grad()
def test_the_choice_of_statistics_does_not_change_their_values():
    def values(chosen):
        encoder = FunctionalsEncoderConfig(bands=8, cepstra=4, statistics=chosen).build().eval()
        waveforms, lengths = padded(clips(16000, 9000))
        features, frames = encoder.front(waveforms, lengths)
        return encoder.embed(features, frame_mask(frames, features.shape[1]))[:, 0].T.tolist()

    every, none = values(list(functional_statistics.STATISTICS)), values([])
    prosody, cepstra = FrontEnd(8, prosody=True).feature_count - 8, 4
    added = {
        "thirds": 3 * prosody,
        "skewness": cepstra + prosody,
        "slopes": cepstra + prosody,
        "changes": cepstra + 4 * prosody,
        "contours": 8 * (3 + cepstra),
        "correlations": 7 * 6 // 2,
        "rhythm": 4,
    }
    assert len(every) == len(none) + sum(added.values())
    for name, count in added.items():
        single = values([name])
        assert len(single) == len(none) + count
        assert all(row in single for row in none) and all(row in every for row in single)
    assert values(["changes", "thirds"]) == values(["thirds", "changes"])


@torch.no_grad()
@pytest.mark.parametrize("samples", [800, 1000, 5000])
def test_silence_and_the_shortest_clips_have_finite_statistics(samples):
    encoder = FunctionalsEncoderConfig().build().eval()
    for waveform in (torch.zeros(samples), clips(samples)[0]):
        hidden, frames = encoder(*padded([waveform]))
        assert hidden.isfinite().all() and frames.item() >= 1


class LogitsOfFeatures(nn.Module):
    """The model without the front end: features (1, T, C) of one recording -> logits (1, K)."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, states):
        frames = torch.full((1,), 1, dtype=torch.int64) * states.shape[1]
        batch = Batch(None, frames, prefix=Prefix(states, frames))
        return self.model(batch)["emotion"].logits


@torch.no_grad()
def test_the_exported_graph_has_the_same_logits_for_any_length(tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    options = {"name": "baseline", "encoder": {"name": "functionals"}, "hidden": 8, "members": 2}
    answer = LogitsOfFeatures(models.build(options, Vocabulary.from_utterances([], FOUR_CLASSES))).eval()
    features = [answer.model.encoder.prefix(*padded([clip])).states for clip in clips(16000, 48000)]
    path = tmp_path / "model.onnx"
    dynamic = {"states": {1: torch.export.Dim("frames", min=2, max=1000)}}
    torch.onnx.export(answer, (features[0],), path, dynamo=True, dynamic_shapes=dynamic, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for states in features:
        (actual,) = session.run(None, {session.get_inputs()[0].name: states.numpy()})
        torch.testing.assert_close(torch.from_numpy(actual), answer(states), atol=1e-4, rtol=1e-4)


def test_the_model_that_comes_with_sertone_is_small():
    recipe = recipes.load(recipes.find_shipped_recipe("compact"))
    model = models.build(recipe.model, Vocabulary.from_utterances([], FOUR_CLASSES))
    assert sum(parameter.numel() for parameter in model.parameters()) * 4 <= 5e6
    assert recipe.data.corpus == "emodb"  # CC0: whoever gets the model may use it
    folder = shipped.find_folder()
    metadata = read_metadata(folder)
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 5e6
    assert metadata["name"] == shipped.NAME and metadata["card"]["corpus"]["name"] == "emodb"
    assert metadata["scores"]["among"] == 4 and metadata["elsewhere"]


@torch.no_grad()
def test_its_bundle_is_not_slower_than_torch(voices):
    """CPU time of one thread, best of several, in turns; the weights do not matter."""
    torch_model = models.build(
        recipes.load(recipes.find_shipped_recipe("compact")).model,
        Vocabulary.from_utterances([], FOUR_CLASSES),
    ).eval()
    bundle = Bundle(shipped.find_folder(), BundleSettings(threads=1))
    waveforms = [audio.read(path).samples[None] for path in voices[:5]]

    def with_torch(samples):
        batch = Batch(torch.from_numpy(samples), torch.tensor([samples.shape[1]]))
        torch_model(batch)["emotion"].logits.softmax(-1)

    best = {with_torch: [np.inf] * 5, bundle.outputs: [np.inf] * 5}
    for _ in range(15):
        for number, samples in enumerate(waveforms):
            for answer, seconds in best.items():
                start = time.process_time()
                answer(samples)
                seconds[number] = min(seconds[number], time.process_time() - start)
    assert sum(best[bundle.outputs]) <= 1.1 * sum(best[with_torch])


@pytest.mark.slow
@pytest.mark.real_speech
def test_its_recipe_is_better_than_comparable_features_and_an_svm(tmp_path):
    """ComParE 2016 and an SVM with its best settings: .849 on the same folds."""
    root = REAL_SPEECH / "emodb4"
    recipe = recipes.load(recipes.find_shipped_recipe("compact"), [f"data.root={root}"])
    cross_validate(recipe, tmp_path, jobs=1, quiet=True)
    pooled = json.loads((tmp_path / "results.json").read_text())["pooled"]["emotion"]
    assert pooled["ua"] > 0.849

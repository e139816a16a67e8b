"""Statistics of an utterance, compared with those of numpy and scipy, and where each one is."""

import itertools

import numpy as np
import pytest
import scipy.fft
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from sertone.nn.encoders import functional_statistics
from sertone.nn.encoders.frontend import LOUDNESS, LOUDNESS_DB, VOICING
from sertone.nn.encoders.functional_statistics import Regions
from sertone.nn.encoders.functionals import FunctionalsEncoderConfig

frames_and_seed = (st.integers(1, 40), st.integers(0, 10_000))


def draw_signals(frames, seed, signals=3):
    """Return signals (1, T, M) and weights (1, T), at least one of which counts."""
    draw = torch.Generator().manual_seed(seed)
    weights = (torch.rand(1, frames, generator=draw) > 0.4).float()
    weights[0, seed % frames] = 1
    return torch.randn(1, frames, signals, generator=draw), weights


@given(*frames_and_seed)
def test_moments_and_skewness_are_those_of_the_frames_that_count(frames, seed):
    signals, weights = draw_signals(frames, seed)
    kept = signals[0][weights[0] > 0].numpy()
    mean, deviation = functional_statistics.moments(signals, weights)
    np.testing.assert_allclose(mean[0], kept.mean(0), atol=1e-5)
    np.testing.assert_allclose(deviation[0], np.sqrt(kept.var(0) + 1e-5), atol=1e-5)
    if len(kept) > 3:
        expected = scipy.stats.skew(kept, axis=0) * (kept.var(0) / (kept.var(0) + 1e-5)) ** 1.5
        np.testing.assert_allclose(functional_statistics.skewness(signals, weights)[0], expected, atol=1e-3)


@given(*frames_and_seed)
def test_slopes_are_those_of_the_fitted_line(frames, seed):
    signals, clock = draw_signals(frames, seed)
    counted = clock * (torch.rand(1, frames, generator=torch.Generator().manual_seed(seed)) > 0.3)
    if counted.sum() < 4:
        return
    kept, time = counted[0] > 0, (clock.cumsum(1) / clock.sum())[0].numpy()
    lines = np.polyfit(time[kept], signals[0][kept].numpy(), 1)[0]
    np.testing.assert_allclose(
        functional_statistics.slope(signals, clock, counted)[0], lines, atol=2e-3, rtol=2e-3
    )


def test_a_slope_is_the_change_from_beginning_to_end_without_the_pauses():
    clock = torch.tensor([[1.0, 1, 0, 0, 0, 1, 1, 0]])
    signals = torch.tensor([0.0, 1, 9, -9, 9, 2, 3, 9])[None, :, None]
    assert functional_statistics.slope(signals, clock, clock).item() == pytest.approx(4.0, rel=1e-5)


@given(st.integers(3, 40), st.integers(0, 10_000))
def test_thirds_have_a_third_of_the_frames_each(frames, seed):
    signals, weights = draw_signals(frames, seed)
    kept = signals[0][weights[0] > 0].numpy()
    places = (3 * (np.arange(len(kept)) + 0.5) / len(kept)).astype(int)
    actual = functional_statistics.means_of_thirds(signals, weights)[0].numpy().reshape(3, -1)
    for third in range(3):
        expected = kept[places == third].mean(0) if (places == third).any() else np.zeros(3)
        np.testing.assert_allclose(actual[third], expected, atol=1e-5)


@given(*frames_and_seed)
def test_a_contour_is_a_cosine_transform_of_the_frames_that_count(frames, seed):
    signals, weights = draw_signals(frames, seed)
    kept = signals[0][weights[0] > 0].numpy()
    expected = np.zeros((functional_statistics.CONTOUR_COSINES, 3))
    theirs = scipy.fft.dct(kept, type=2, axis=0)[1 : functional_statistics.CONTOUR_COSINES + 1] / (
        2 * len(kept)
    )
    expected[: len(theirs)] = theirs  # a transform of n frames has no more
    actual = (
        functional_statistics.contour(signals, weights)[0]
        .numpy()
        .reshape(functional_statistics.CONTOUR_COSINES, 3)
    )
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    level = functional_statistics.contour(7 * torch.ones_like(signals), weights)
    np.testing.assert_allclose(level, np.zeros(level.shape), atol=1e-5)


def make_speech(frames=60, seed=0):
    """Return cepstra, prosody, real frames: 20 voiced frames, 10 without voice, 10 voiced; silence; padding."""
    draw = torch.Generator().manual_seed(seed)
    cepstra, prosody = torch.randn(1, frames, 20, generator=draw), torch.randn(1, frames, 5, generator=draw)
    prosody[..., LOUDNESS] = 0.1 * torch.rand(1, frames, generator=draw)
    prosody[:, 40:50, LOUDNESS] = -22 / LOUDNESS_DB
    prosody[..., VOICING] = 0.9 - 0.1 * torch.rand(1, frames, generator=draw)
    prosody[:, 20:30, VOICING] = 0.2
    real = (torch.arange(frames) < 50)[None].float()
    return cepstra, prosody, real, Regions.detect(prosody, real)


def test_contours_are_of_the_prosody_in_speech_and_of_the_spectrum_in_voiced_speech():
    cepstra, prosody, _, region = make_speech()
    course, spectrum = (part[0].numpy() for part in functional_statistics.contours(cepstra, prosody, region))
    for actual, signals, kept in (
        (course, prosody[0][:, [1, 2, 4]], list(range(40))),  # relative pitch, voicing, relative loudness
        (spectrum, cepstra[0][:, :6], [*range(20), *range(30, 40)]),
    ):
        theirs = scipy.fft.dct(signals[kept].numpy(), type=2, axis=0)[1:9] / (2 * len(kept))
        np.testing.assert_allclose(actual, theirs.flatten(), atol=1e-5)


@given(*frames_and_seed)
def test_correlations_are_those_of_the_frames_that_count(frames, seed):
    signals, weights = draw_signals(frames, seed)
    kept = signals[0][weights[0] > 0].numpy()
    shrunk = np.sqrt(kept.var(0) / (kept.var(0) + 1e-5))  # what keeps a constant signal from dividing by 0
    actual = functional_statistics.correlations(signals, weights)[0].numpy()
    pairs = [(0, 1), (0, 2), (1, 2)]
    if len(kept) > 2:
        expected = [np.corrcoef(kept[:, i], kept[:, j])[0, 1] * shrunk[i] * shrunk[j] for i, j in pairs]
        np.testing.assert_allclose(actual, expected, atol=1e-3)
    assert np.isfinite(actual).all() and np.abs(actual).max() < 1 + 1e-4


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 9))
def test_segments_are_the_runs_of_frames_that_count(counts, behind):
    runs = [len(list(group)) for counted, group in itertools.groupby(counts) if counted]
    weights = torch.tensor([[*map(float, counts), *behind * [0.0]]])
    real = torch.tensor([[*len(counts) * [1.0], *behind * [0.0]]])
    rate, length = functional_statistics.segment_statistics(weights, real)[0].tolist()
    assert rate == pytest.approx(len(runs) / (len(counts) / 100), rel=1e-5)
    assert length == pytest.approx(np.log(np.mean(runs)) if runs else 0, abs=1e-5)


def test_correlations_and_rhythm_are_of_the_voiced_and_of_both_regions():
    cepstra, prosody, real, _ = make_speech()
    config = FunctionalsEncoderConfig(bands=20, cepstra=20, statistics=["correlations", "rhythm"])
    encoder = config.build()
    values = encoder.statistics(torch.cat([cepstra @ encoder.cosines.inverse(), prosody], -1), real)[0]
    voiced = [*range(20), *range(30, 40)]
    signals = torch.cat([prosody[0][:, [0, 2, 3]], cepstra[0][:, :8]], -1)[voiced].numpy()
    expected = np.corrcoef(signals.T)[np.triu_indices(11, 1)]
    np.testing.assert_allclose(values[-3 - 4 - 55 : -3 - 4], expected, atol=5e-3)
    rhythm = [1 / 0.5, np.log(40), 2 / 0.5, np.log(15)]  # per second of the half second that is real
    np.testing.assert_allclose(values[-3 - 4 : -3], rhythm, rtol=1e-5)


@torch.no_grad()
def test_a_trained_model_finds_every_statistic_at_its_place():
    """Another order is another format (`model_folder.FORMAT`): these values show where each kind begins."""
    cepstra, prosody, real, region = make_speech()
    encoder = FunctionalsEncoderConfig(bands=20).build()
    mel = cepstra @ encoder.cosines.inverse()
    values = encoder.statistics(torch.cat([mel, prosody], -1), real)[0]
    voiced, unvoiced = [*range(20), *range(30, 40)], list(range(20, 30))
    sizes = {"mel": 40, "both": 50, "unvoiced": 40, "speech": 10, "real": 10, "thirds": 15, "skewness": 25}
    sizes |= {"slopes": 25, "changes": 40, "contours": 72, "correlations": 55, "rhythm": 4, "shares": 3}
    parts = dict(zip(sizes, values.split(list(sizes.values())), strict=True))
    first = {
        "mel": mel[0, voiced].mean(0)[0],
        "both": cepstra[0, voiced].mean(0)[0],
        "unvoiced": cepstra[0, unvoiced].mean(0)[0],
        "speech": prosody[0, :40].mean(0)[0],
        "real": prosody[0, :50].mean(0)[0],
        "thirds": functional_statistics.means_of_thirds(prosody, region.speech)[0, 0],
        "skewness": functional_statistics.skewness(cepstra, region.voiced)[0, 0],
        "slopes": functional_statistics.slope(cepstra, region.speech, region.voiced)[0, 0],
        "changes": functional_statistics.delta_statistics(cepstra, prosody, region)[0][0, 0],
        "contours": functional_statistics.contours(cepstra, prosody, region)[0][0, 0],
        "shares": torch.tensor(30 / 40),
    }
    for name, expected in first.items():
        torch.testing.assert_close(parts[name][0], expected, atol=1e-4, rtol=1e-4, msg=name)


def test_where_no_frame_counts_there_is_nothing():
    signals, none = torch.randn(1, 9, 3), torch.zeros(1, 9)
    for values in (
        functional_statistics.contour(signals, none),
        functional_statistics.correlations(signals, none),
        functional_statistics.segment_statistics(none, none + 1),
    ):
        assert not values.any()


def test_differences_and_cepstra():
    signals, weights = draw_signals(20, 3)
    inner = np.gradient(signals[0].numpy(), axis=0)[1:-1]
    np.testing.assert_allclose(functional_statistics.deltas(signals)[0, 1:-1], inner, atol=1e-6)
    w = weights[0].numpy()
    expected = np.array([w[t - 1 : t + 2].all() and 0 < t < 19 for t in range(20)])
    assert np.array_equal(functional_statistics.inner_frames(weights)[0].numpy() > 0, expected)
    theirs = scipy.fft.dct(np.eye(16), type=2, axis=1)[:, :5] / 2 * np.sqrt(2 / 16)
    np.testing.assert_allclose(functional_statistics.cosine_transform(16, 5), theirs, atol=1e-6)


def test_regions():
    prosody = torch.zeros(1, 5, 5)
    prosody[0, :, LOUDNESS] = torch.tensor([0.0, -20, -22, -1, 5]) / LOUDNESS_DB
    prosody[0, :, VOICING] = torch.tensor([0.9, 0.2, 0.9, 0.6, 0.9])
    region = Regions.detect(prosody, torch.tensor([[1.0, 1, 1, 1, 0]]))  # the last, the loudest, is not real
    assert region.speech.tolist() == [[1, 1, 0, 1, 0]]
    assert region.voiced.tolist() == [[1, 0, 0, 1, 0]]
    assert region.unvoiced.tolist() == [[0, 1, 0, 0, 0]]

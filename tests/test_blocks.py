"""Recordings read block by block: the same samples, doubts and codes as when read at once."""

import struct
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from sertone import audio
from sertone.audio import block_stream
from sertone.audio.converter import BlockConverter
from sertone.audio.decoder import BLOCK_FRAMES, AudioInfo
from sertone.errors import AudioError


def both(path):
    """What reading at once and reading by blocks give: samples, duration and warnings, or the code."""
    sound = None
    try:
        sound = block_stream.stream(path)
        streamed = np.concatenate(list(sound))[:, 0], sound.duration_s, sound.warnings
    except AudioError as error:
        streamed = error.code
    try:
        whole = audio.read(path)
        return (whole.samples, whole.duration_s, whole.warnings), streamed
    except AudioError as error:
        return error.code, streamed


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg"])
def test_blocks_are_the_whole(tone, name, rate):
    whole, streamed = both(tone(name, seconds=5.3, rate=rate, channels=2))
    np.testing.assert_array_equal(streamed[0], whole[0])
    assert streamed[1:] == whole[1:]


def spoilt(samples, at, value):
    samples = samples.copy()
    samples[at] = value
    return samples


NOISE = 0.1 * np.random.default_rng(0).standard_normal(3 * BLOCK_FRAMES)
SIGNALS = {
    "sound": NOISE,
    "short": NOISE[:399],
    "silent": np.zeros(3 * BLOCK_FRAMES),
    "constant": np.full(3 * BLOCK_FRAMES, 0.3),
    "clipped": np.clip(20 * NOISE, -1, 1),
    "anti-phase": np.stack([NOISE, -NOISE], 1),
    "late NaN": spoilt(NOISE, 2 * BLOCK_FRAMES + 5, np.nan),
    "none": NOISE[:0],
}


@pytest.mark.parametrize("signal", SIGNALS)
def test_doubts_and_faults_of_a_signal_are_the_same(tmp_path, signal):
    soundfile.write(tmp_path / "a.wav", SIGNALS[signal], 16000, subtype="FLOAT")
    whole, streamed = both(tmp_path / "a.wav")
    if isinstance(whole, str):
        assert streamed == whole
    else:
        assert streamed[1:] == whole[1:]
        assert (signal == "sound") == (not whole[2])


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return path


def patched(path, offset, data):
    content = bytearray(path.read_bytes())
    content[offset : offset + len(data)] = data
    path.write_bytes(content)
    return path


DAMAGES = {
    "truncated": lambda tone: cut(tone(), 0.4),
    "half a FLAC": lambda tone: cut(tone("a.flac"), 0.5),
    "half an MP3": lambda tone: cut(tone("a.mp3"), 0.5),
    "streamed": lambda tone: patched(tone(), 40, struct.pack("<I", 0xFFFFFFFF)),
    "no channel": lambda tone: patched(tone(), 22, struct.pack("<H", 0)),
    "no rate": lambda tone: patched(tone(), 24, struct.pack("<I", 0)),
    "nine channels": lambda tone: tone(channels=9),
    "no header": lambda tone: cut(tone(), 0.001),
    "not there": lambda tone: tone().with_name("missing.wav"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_have_the_same_codes(tone, damage):
    whole, streamed = both(DAMAGES[damage](tone))
    if isinstance(whole, str):
        assert streamed == whole
    else:
        np.testing.assert_array_equal(streamed[0], whole[0])
        assert streamed[1:] == whole[1:] and streamed[2]


def test_channels_stay_apart_on_request(tmp_path):
    draw = 0.1 * np.random.default_rng(1).standard_normal((70000, 2))
    soundfile.write(tmp_path / "a.wav", draw, 44100, subtype="FLOAT")
    apart = np.concatenate(list(block_stream.stream(tmp_path / "a.wav", mix=False)))
    for channel in range(2):
        alone = audio.from_array(draw[:, channel], 44100).samples
        np.testing.assert_array_equal(apart[:, channel], alone)
    opposed = block_stream.stream_array(np.stack([draw[:, 0], -draw[:, 0]], 1), 44100, mix=False)
    assert len(list(opposed)) and opposed.warnings == {}


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([8000, 11025, 16000, 44100, 48000]),
    st.lists(st.integers(0, 9000), max_size=12),
    st.data(),
)
def test_chunks_of_any_size_give_the_samples_of_the_whole(rate, sizes, data):
    channels = data.draw(st.integers(1, 3))
    samples = np.random.default_rng(len(sizes)).uniform(-0.5, 0.5, (2000 + sum(sizes), channels))
    intake = BlockConverter(rate, channels, "a")
    edges = [0, *np.cumsum(sizes), len(samples)]
    parts = [intake.push(samples[a:b]) for a, b in pairwise(edges)]
    whole = audio.from_array(samples, rate)
    np.testing.assert_array_equal(np.concatenate([*parts, intake.finish()])[:, 0], whole.samples)
    assert intake.duration_s == whole.duration_s


def test_a_recording_longer_than_the_limit_is_refused(tmp_path):
    path = tmp_path / "bomb.flac"
    soundfile.write(path, np.zeros(16000 * 900, np.int16), 16000)
    assert path.stat().st_size < 400_000
    with pytest.raises(AudioError, match=r"more than 0\.2 hours") as caught:
        next(iter(block_stream.stream(path, max_hours=0.2)))
    assert caught.value.code == "too_long"
    endless = (
        np.full((BLOCK_FRAMES, 1), 0.1, np.float32) for _ in iter(int, 1)
    )  # and a header that does not say
    sound = block_stream.BlockStream(
        endless, AudioInfo(16000, 1, 0, exact=False), {}, "endless", max_hours=0.01
    )
    with pytest.raises(AudioError) as caught:
        list(sound)
    assert caught.value.code == "too_long" and sound.duration_s < 36 + 2 * BLOCK_FRAMES / 16000
    assert sum(len(block) for block in block_stream.stream(path)) == 16000 * 900


def test_memory_is_that_of_a_block(tmp_path):
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", 44100, 2) as file:
        for _ in range(60):
            file.write(np.zeros((441000, 2), np.int16))  # ten minutes
    tracemalloc.start()
    seconds = sum(len(block) for block in block_stream.stream(path)) / 16000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds == pytest.approx(600) and peak < 8e6 < 600 * 44100 * 4

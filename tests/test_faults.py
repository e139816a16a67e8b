"""Each fault of a recording, through the code path of `sertone predict`, gives one prediction with its code."""

import io
import os
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from apart import HERE, read_and_measure
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from sounds import NOISE, RATE, wav
from toys import write_toy

import sertone
from sertone import audio
from sertone.utils.processes import ChildProcess


def content(data):
    return lambda path: path.write_bytes(data)


def patch(offset, data, write=None):
    """Write a WAV with other bytes from an offset on."""

    def make(path):
        (write or wav())(path)
        whole = path.read_bytes()
        path.write_bytes(whole[:offset] + data + whole[offset + len(data) :])

    return make


def cut(share, write=None):
    """Write a file and keep its first part."""

    def make(path):
        (write or wav())(path)
        os.truncate(path, round(path.stat().st_size * share))

    return make


def write_flipped_flac(path):
    """Write a FLAC with one inverted byte in the middle."""
    wav(format="FLAC")(path)
    middle = path.stat().st_size // 2
    patch(middle, bytes([path.read_bytes()[middle] ^ 0xFF]), lambda _: None)(path)


def write_unreadable(path):
    wav()(path)
    path.chmod(0)


def write_noted_aiff(path):
    """Write an AIFF with a note that looks like a chunk; the length must not depend on it."""
    wav()(path)
    runs = path.read_bytes()
    note = b"ANNO" + struct.pack(">I", 28) + b"COMM by: A. Nonymous, 2024.."
    body = runs[:12] + note + runs[12:]
    path.write_bytes(body[:4] + struct.pack(">I", len(body) - 8) + body[8:])


NAN = np.where(np.arange(RATE) == 7, np.nan, NOISE)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
SIZE = {"nothing": struct.pack("<I", 0), "all": struct.pack("<I", 0xFFFFFFFF)}


FAULTS = {
    "1 zero bytes": ("a.wav", content(b""), "error", "empty_file", ""),
    "2 no samples": ("a.wav", wav(NOISE[:0]), "error", "no_samples", ""),
    "3 header cut": ("a.wav", cut(0.0009), "error", "bad_header", ""),
    "3 header of a FLAC cut": ("a.flac", cut(0.001), "error", "bad_header", ""),
    "4 fewer samples": ("a.wav", cut(0.5), "warning", "truncated", "7989 of the 16000"),
    "4 fewer samples, AIFF": ("a.aiff", cut(0.5), "warning", "truncated", "of the 16000"),
    "4 fewer samples, RF64": ("a.wav", cut(0.5, wav(format="RF64")), "warning", "truncated", "of the 16000"),
    "4 no last page": ("a.ogg", cut(0.5, wav(np.tile(NOISE, 9))), "warning", "truncated", "last page"),
    "4 all there, with a note": ("a.aiff", write_noted_aiff, "ok", "", ""),
    "5 size of none": ("a.wav", patch(40, SIZE["nothing"]), "warning", "streamed_header", "no length"),
    "5 size of all": ("a.wav", patch(40, SIZE["all"]), "warning", "streamed_header", "no length"),
    "6 random bytes": ("a.wav", content(np.random.default_rng(1).bytes(5000)), "error", "not_audio", ""),
    "6 HTML": ("a.wav", content(b"<!DOCTYPE html><html>404</html>" * 9), "error", "not_audio", ""),
    "6 archive": ("a.wav", content(b"PK\3\4" + bytes(500)), "error", "not_audio", ""),
    "6 LFS pointer": ("a.wav", content(POINTER), "error", "not_audio", "git lfs pull"),
    "7 FLAC cut": ("a.flac", cut(0.5), "error", "decode_failed", ""),
    "7 MP3 cut": ("a.mp3", cut(0.5, wav(np.tile(NOISE, 4))), "error", "decode_failed", ""),
    "7 FLAC with a flipped byte": ("a.flac", write_flipped_flac, "error", "decode_failed", ""),
    "8 too short": ("a.wav", wav(NOISE[:399]), "error", "too_short", "at least 400"),
    "8 padded": ("a.wav", wav(NOISE[:400]), "warning", "padded", "400 samples, padded to the 2000"),
    "9 NaN": ("a.wav", wav(NAN, subtype="FLOAT"), "error", "non_finite", ""),
    "9 infinite": ("a.wav", wav(NAN * np.inf, subtype="DOUBLE"), "error", "non_finite", ""),
    "9 beyond numbers": ("a.wav", wav(NOISE * 1e30, subtype="FLOAT"), "error", "non_finite_answer", ""),
    "10 silence": ("a.wav", wav(NOISE * 0), "warning", "no_speech", ""),
    "10 constant": ("a.wav", wav(NOISE * 0 + 0.3), "warning", "no_speech", ""),
    "11 clipped": ("a.wav", wav(np.clip(NOISE * 10, -1, 1)), "warning", "clipped", "%"),
    "11 not scaled": ("a.wav", wav(NOISE * 3e4, subtype="FLOAT"), "warning", "not_scaled", "-1 to 1"),
    "12 anti-phase": ("a.wav", wav(np.stack([NOISE, -NOISE], 1)), "warning", "anti_phase", ""),
    "13 no channel": ("a.wav", patch(22, struct.pack("<H", 0)), "error", "bad_channels", ""),
    "13 nine channels": ("a.wav", wav(np.stack([NOISE] * 9, 1)), "error", "bad_channels", "9 channels"),
    "13 65535 channels": ("a.wav", patch(22, struct.pack("<H", 65535)), "error", "bad_channels", ""),
    "14 8 kHz": ("a.wav", wav(rate=8000), "ok", "", ""),
    "14 44.1 kHz": ("a.wav", wav(rate=44100), "ok", "", ""),
    "14 48 kHz": ("a.wav", wav(rate=48000), "ok", "", ""),
    "15 rate 0": ("a.wav", patch(24, struct.pack("<I", 0)), "error", "bad_rate", "0 Hz"),
    "15 rate above": ("a.wav", patch(24, struct.pack("<I", 768_001)), "error", "bad_rate", "768001 Hz"),
    "20 missing": ("a.wav", lambda path: None, "error", "missing_file", ""),
    "20 directory": ("a.wav", lambda path: path.mkdir(), "error", "not_a_file", "directory"),
    "20 links in a circle": ("a.wav", lambda path: path.symlink_to(path), "error", "missing_file", ""),
    "20 endless": ("a.wav", lambda path: path.symlink_to("/dev/zero"), "error", "not_a_file", ""),
    "20 pipe": ("a.wav", os.mkfifo, "error", "not_a_file", ""),
    "20 name too long": ("a" * 300, lambda path: None, "error", "missing_file", ""),
    "whole": ("a.wav", wav(), "ok", "", ""),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model that needs 2 000 samples."""
    return sertone.load(
        write_toy(tmp_path_factory.mktemp("toy") / "bundle", min_samples=2000), any_sound=True
    )


@pytest.fixture(scope="module")
def answers(model, tmp_path_factory):
    """Predict all faults in one run, lenient and strict: name of the fault -> prediction."""
    root, files = tmp_path_factory.mktemp("faults"), []
    for number, (name, write, *_) in enumerate(FAULTS.values()):
        folder = root / str(number)
        folder.mkdir()
        write(folder / name)
        files.append(folder / name)
    runs = [model.predict_files(files, strict=strict) for strict in (False, True)]
    lenient, strict = (dict(zip(FAULTS, each, strict=True)) for each in runs)
    return files, lenient, strict


UNHEARD = ("no_speech", "anti_phase")  # the channels cancel each other to the last sample


def require_complete(answer):
    """Check that a prediction is complete, or has no result at all."""
    assert (answer.label is None) == (answer.status == "error" or answer.code in UNHEARD)
    if answer.label is None:
        assert not answer.probabilities and not answer.dimensions and answer.code and answer.message
    else:
        probabilities = list(answer.probabilities.values())
        assert np.isfinite(probabilities).all() and sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert bool(answer.code) == (answer.status == "warning")


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_has_its_code(answers, name):
    files, lenient, strict = answers
    answer, (_, _, status, code, message) = lenient[name], FAULTS[name]
    assert (answer.status, answer.code) == (status, code), answer.message
    assert message in answer.message and answer.file == str(files[list(FAULTS).index(name)])
    require_complete(answer)
    refused = strict[name]
    assert (refused.status, refused.code) == ("error" if status == "warning" else status, code)
    require_complete(refused)


def test_predictions_do_not_depend_on_their_neighbours(answers, model):
    """Each file alone equals the file in a run, also with padding."""
    files, lenient, _ = answers
    for file, answer in zip(files, lenient.values(), strict=True):
        assert model.predict(file) == answer


def test_a_streamed_or_shortened_file_is_predicted_from_its_samples(answers, model):
    _, predictions, _ = answers
    assert predictions["5 size of all"].probabilities == predictions["whole"].probabilities
    rounded = np.round(NOISE[:7989] * 32768) / 32768
    expected = model.predict(rounded, RATE).probabilities
    assert predictions["4 fewer samples"].probabilities == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("subtype", "close"), [("PCM_24", 1e-4), ("DOUBLE", 1e-4), ("ULAW", 0.01), ("PCM_U8", 0.01)]
)
def test_sample_formats_give_the_same_prediction(model, tmp_path, subtype, close):
    """Fault 16: equal within their quantisation."""
    paths = tmp_path / "a.wav", tmp_path / "b.wav"
    wav(subtype="FLOAT")(paths[0])
    wav(subtype=subtype)(paths[1])
    exact, predictions = model.predict_files(paths)
    assert (exact.status, predictions.status) == ("ok", "ok")
    assert predictions.probabilities == pytest.approx(exact.probabilities, abs=close)


def test_all_rates_of_one_sound_give_one_prediction(model, tmp_path):
    """Fault 14: a tone that every rate can represent."""
    paths = [tmp_path / f"{rate}.wav" for rate in (8000, 16000, 44100, 48000)]
    for path in paths:
        rate = int(path.stem)
        soundfile.write(path, 0.2 * np.sin(2 * np.pi * 300 * np.arange(2 * rate) / rate), rate)
    first, *others = model.predict_files(paths)
    for other in others:
        assert other.probabilities == pytest.approx(first.probabilities, abs=2e-3)


def test_a_decompression_bomb_takes_no_memory(tmp_path):
    """Fault 17: zeros that take 460 MB when decoded."""
    path = tmp_path / "bomb.flac"
    with soundfile.SoundFile(path, "w", 48000, 1, "PCM_16") as file:
        for _ in range(40):
            file.write(np.zeros(48000 * 60, np.int16))
    assert path.stat().st_size < 2e6
    require_little_memory(path)


def require_little_memory(path):
    """Check the memory; ten minutes, as float32 with a copy, would take 230 MB."""
    with ChildProcess(HERE) as child:
        code, megabytes = child(read_and_measure, path)
    assert code == "too_long" and megabytes < 150


def test_a_streamed_wav_of_a_day_takes_no_memory(tmp_path):
    """Faults 5 and 18: 5 GB, which no WAV header can state; the file is sparse."""
    path = tmp_path / "day.wav"
    patch(40, SIZE["all"])(path)
    os.truncate(path, 5_000_000_044)
    assert audio.inspect(path).frames == 2_500_000_000
    assert audio.read(path, start_s=150_000, end_s=150_001).warnings.keys() == {
        "streamed_header",
        "no_speech",
    }
    require_little_memory(path)


def test_a_wrong_stated_duration_is_a_warning(model, tmp_path):
    """Fault 19: differences up to 25 ms are ignored."""
    wav()(tmp_path / "a.wav")
    stated = [None, 1.0, 1.024, 1.026, 0.97]
    predictions = model.predict_files([tmp_path / "a.wav"] * 5, durations=stated)
    assert [answer.code for answer in predictions] == ["", "", "", "other_duration", "other_duration"]


HEADS = [
    b"",
    b"RIFF\xff\xff\xff\xffWAVEfmt ",
    b"fLaC",
    b"OggS",
    b"FORM\0\0\1\0AIFF",
    b"ID3\4",
    b"\xff\xfb\x90\x64",
]
HEADS += [
    b"\0\0\0\x20ftypM4A ",
    b"\x1a\x45\xdf\xa3",
    b"RF64\xff\xff\xff\xffWAVEds64",
    b"#EXTM3U\n",
    b"OggS\0\4",
]
SUFFIXES = st.sampled_from(["wav", "flac", "mp3", "ogg", "aiff", "m4a"])
NOTHING = st.tuples(SUFFIXES, st.builds(bytes.__add__, st.sampled_from(HEADS), st.binary(max_size=600)))


@st.composite
def draw_files(draw):
    """Draw files of any rate, channels and sample format, some with changed bytes or a missing end."""
    kind = draw(st.sampled_from(["WAV", "WAVEX", "RF64", "FLAC", "AIFF", "OGG", "AU", "CAF"]))
    subtype = draw(
        st.sampled_from([name for name in soundfile.available_subtypes(kind) if "_PN" not in name])
    )
    channels, rate = draw(st.integers(1, 3)), draw(st.sampled_from([8000, 11025, 16000, 22050, 44100, 48000]))
    shape = draw(st.integers(0, 9000)), channels
    samples = draw(st.sampled_from([0.01, 0.3, 5.0])) * np.random.default_rng(shape[0]).standard_normal(shape)
    file = io.BytesIO()
    try:
        soundfile.write(file, samples, rate, subtype, format=kind)
    except soundfile.LibsndfileError:  # a format that does not go with the rate or the channels
        assume(False)
    whole = bytearray(file.getvalue() or b"\0")
    for at, byte in draw(st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=3)):
        whole[min(at, len(whole) - 1)] = byte
    return draw(SUFFIXES), bytes(whole[: draw(st.sampled_from([len(whole), len(whole) // 2, 60]))])


@settings(max_examples=12, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.lists(st.one_of(NOTHING, draw_files()), min_size=8, max_size=16))
def test_any_bytes_have_one_prediction(model, contents):
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.{suffix}" for number, (suffix, _) in enumerate(contents)]
        for file, (_, data) in zip(files, contents, strict=True):
            file.write_bytes(data)
        predictions = list(model.predict_files(files))
    assert [answer.file for answer in predictions] == [str(file) for file in files]
    for answer in predictions:
        require_complete(answer)
        assert answer.code != "failed", answer.message

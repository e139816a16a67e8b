"""Checks of containers: missing or damaged audio is reported, intact files are read; what reading costs."""

import os
import re
import struct

import numpy as np
import pytest
import soundfile
from apart import HERE, read_and_measure
from sounds import RATE, encode, error_code, voice, write

import sertone
from sertone import audio
from sertone.errors import AudioError
from sertone.runtime.timeline.plan import TimelineSettings
from sertone.utils.processes import ChildProcess

pytest.importorskip("av")


def cut(path, share=0.5):
    os.truncate(path, round(path.stat().st_size * share))
    return path


# what is missing

HALVED = {
    "w64": lambda path: soundfile.write(path, voice(), RATE, format="W64"),
    "caf": lambda path: soundfile.write(path, voice(), RATE, format="CAF"),
    "au": lambda path: soundfile.write(path, voice(), RATE, format="AU"),
    "aiff": lambda path: soundfile.write(path, voice(), RATE, format="AIFF"),
    "ima4.aifc": lambda path: soundfile.write(path, voice(), RATE, format="AIFF", subtype="IMA_ADPCM"),
    "sph": lambda path: soundfile.write(path, voice(), RATE, format="NIST"),
    "webm": lambda path: encode(path, "libopus"),
    "mka": lambda path: encode(path, "libopus"),
    "m4a": lambda path: encode(path, "aac", options={"movflags": "+faststart"}),
    "mp4": lambda path: encode(path, "aac", options={"movflags": "frag_keyframe+empty_moov"}),
}


@pytest.mark.parametrize("name", HALVED)
def test_half_a_file_is_reported_with_both_lengths(tmp_path, name):
    path = tmp_path / f"a.{name}"
    HALVED[name](path)
    whole = audio.read(path)
    assert whole.warnings == {}
    message = audio.read(cut(path)).warnings["truncated"]
    present, stated = map(float, re.findall(r"[\d.]+\d|\d", message.split(" there")[0])[:2])
    assert present < 0.9 * stated, message


def change_size(path, offset, change):
    """Change the size that a file states."""
    content = bytearray(path.read_bytes())
    (size,) = struct.unpack_from("<I", content, offset)
    struct.pack_into("<I", content, offset, size + change)
    path.write_bytes(content)


def test_samples_behind_the_stated_end_are_reported(tmp_path):
    path = write(tmp_path / "a.wav", "wav")
    change_size(path, 40, -RATE)
    recording = audio.read(path)
    assert recording.duration_s == 1.5 and recording.warnings.keys() == {"trailing_data"}
    assert "16000 bytes" in recording.warnings["trailing_data"]
    for tail in (b"TAG" + bytes(125), bytes(999), b"LIST" + struct.pack("<I", 4) + b"INFO"):
        path = write(tmp_path / "a.wav", "wav")
        path.write_bytes(path.read_bytes() + tail)
        assert audio.read(path).warnings == {}


def test_a_header_that_contradicts_itself_is_reported(tmp_path):
    path = write(tmp_path / "a.wav", "wav")
    change_size(path, 32, 2)  # frames of four bytes
    assert "contradicts" in audio.read(path).warnings["corrupt"]


def test_a_wrong_number_that_no_decoder_uses_is_no_damage(tmp_path):
    path = write(tmp_path / "a.wav", "wav")
    change_size(path, 28, -RATE)
    recording = audio.read(path)
    assert recording.duration_s == 2.0 and recording.warnings.keys() == {"odd_header"}
    assert (
        "32000" not in recording.warnings["odd_header"] and "16000 bytes" in recording.warnings["odd_header"]
    )
    soundfile.write(path, voice(), RATE, subtype="ULAW")
    change_size(path, path.read_bytes().find(b"fmt ") + 22, 8)  # 16 bits per sample, where mu-law has 8
    assert audio.read(path).warnings == {}


# what is intact


def test_a_webm_without_a_length_is_read(tmp_path):
    """Browsers record such files."""
    path = encode(tmp_path / "a.webm", "libopus", options={"live": "1"})
    assert audio.inspect(path).frames == 0
    recording = audio.read(path)
    assert recording.duration_s == pytest.approx(2.0, abs=0.05) and recording.warnings == {}
    assert audio.read(path, start_s=1.5).duration_s == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("form", ["VOC", "IRCAM", "SVX", "PAF", "AVR", "HTK", "PVF", "MAT4", "MAT5", "SDS"])
def test_containers_that_only_libsndfile_checks(tmp_path, form):
    soundfile.write(tmp_path / "a", voice(), RATE, format=form)
    recording = audio.read(tmp_path / "a")
    assert recording.duration_s == 2.0 and recording.warnings == {}


@pytest.mark.parametrize("name", ["wv", "tta"])
def test_containers_that_only_ffmpeg_checks(tmp_path, name):
    path = encode(tmp_path / f"a.{name}", {"wv": "wavpack"}.get(name, name), voice(20.0))
    recording = audio.read(path)
    assert recording.duration_s == pytest.approx(20.0, abs=0.01) and recording.warnings == {}
    if name == "wv":
        cut(path)
        assert error_code(path) == "decode_failed"
    else:
        assert "truncated" in audio.read(cut(path)).warnings


TAG = b"ID3\x04\0\0\0\0\x10\x10" + b"TXXX".ljust(2064, b"\0")


@pytest.mark.parametrize("name", ["wav", "flac", "mp3", "ogg", "aiff", "caf", "w64"])
def test_audio_behind_a_tag_is_checked_as_without_the_tag(tmp_path, name):
    path = write(tmp_path / f"a.{name}", name)
    whole, content = audio.read(path), path.read_bytes()
    path.write_bytes(TAG + content)
    tagged = audio.read(path)
    assert tagged.warnings == {} and (tagged.samples == whole.samples).all()
    if name == "flac":
        damaged = bytearray(content)
        damaged[30] ^= 1
        path.write_bytes(TAG + damaged)
        assert "checksum" in audio.read(path).warnings["corrupt"]
    path.write_bytes(TAG[:1000])
    assert error_code(path) == "not_audio"


def test_a_caf_without_a_stated_size_is_read_to_its_end(tmp_path):
    path = write(tmp_path / "a.caf", "caf")
    whole, content = audio.read(path), bytearray(path.read_bytes())
    place = content.find(b"data")
    content[place + 4 : place + 12] = b"\xff" * 8
    path.write_bytes(content)
    recording = audio.read(path)
    assert recording.warnings == {} and (recording.samples == whole.samples).all()


@pytest.mark.parametrize("size", [0x7FFFFFFF, 0x80000000, 0x7FFFF000, 0x7FFFF000 - 36, 0xFFFFFFFF - 36])
def test_sizes_that_programs_write_when_they_do_not_know_them(tmp_path, size):
    path = write(tmp_path / "a.wav", "wav")
    change_size(path, 40, size - 4 * RATE)
    recording = audio.read(path)
    assert recording.duration_s == 2.0 and recording.warnings.keys() == {"streamed_header"}


def test_a_streamed_rf64_is_read(tmp_path):
    soundfile.write(tmp_path / "a.wav", voice(), RATE, format="RF64")
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[20:44] = bytes(24)
    (tmp_path / "a.wav").write_bytes(content)
    recording = audio.read(tmp_path / "a.wav")
    assert recording.duration_s == 2.0 and recording.warnings.keys() == {"streamed_header"}


def test_compressed_audio_in_a_wav_may_be_shorter_than_stated(tmp_path):
    recording = audio.read(encode(tmp_path / "a.wav", "libmp3lame", form="wav"))
    assert recording.duration_s == pytest.approx(2.0, abs=0.1) and recording.warnings == {}


def test_chunks_behind_the_samples_are_not_audio(tmp_path):
    for name in (b"LIST", b"\xa9nam", b"a\0\0\0"):
        path = write(tmp_path / "a.wav", "wav")
        path.write_bytes(path.read_bytes() + name + struct.pack("<I", 40) + bytes(range(40)))
        assert audio.read(path).warnings == {}
        path.write_bytes(path.read_bytes() + b"\1" * 40)
        assert audio.read(path).warnings.keys() == {"trailing_data"}
    soundfile.write(tmp_path / "a.w64", voice()[:31997], RATE, format="W64", subtype="PCM_U8")
    content = (tmp_path / "a.w64").read_bytes()
    start = content.find(b"data") + 24
    samples = content[start : start + 31997].ljust(-(-31997 // 8) * 8, b"\0")
    guid = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
    chunk = b"levl" + guid + struct.pack("<Q", 124) + b"\1" * 100
    (tmp_path / "a.w64").write_bytes(content[:start] + samples + chunk)
    assert audio.read(tmp_path / "a.w64").warnings == {}


def test_a_second_data_chunk_is_reported(tmp_path):
    path = write(tmp_path / "a.wav", "wav")
    path.write_bytes(path.read_bytes() + path.read_bytes()[36:])
    recording = audio.read(path)
    assert recording.duration_s == 2.0 and recording.warnings.keys() == {"trailing_data"}


# what it costs


def test_eight_channels_take_the_memory_of_one(tmp_path):
    path = tmp_path / "wide.flac"
    with soundfile.SoundFile(path, "w", 96000, 8) as file:
        for _ in range(40):
            file.write(np.zeros((96000, 8), np.int16))
    assert path.stat().st_size < 200_000 < 40 * 96000 * 8 * 4
    with ChildProcess(HERE) as child:
        code, megabytes = child(read_and_measure, path)
    assert code == "" and megabytes < 60


def test_the_limit_counts_the_samples_of_all_channels(tmp_path):
    from sertone.audio.block_stream import stream

    soundfile.write(tmp_path / "a.flac", np.zeros((RATE * 10, 4), np.int16), RATE)
    assert sum(map(len, stream(tmp_path / "a.flac", max_hours=40 / 3600))) == RATE * 10
    with pytest.raises(AudioError) as caught:
        next(iter(stream(tmp_path / "a.flac", max_hours=39 / 3600)))
    assert caught.value.code == "too_long"


@pytest.mark.parametrize("settings", [None, TimelineSettings(), TimelineSettings(window_s=2.0)])
def test_no_model_predicts_silence(toy, tmp_path, monkeypatch, settings):
    """The recording has two minutes, and sound in two seconds."""
    model, inputs = sertone.load(toy), []
    samples = np.zeros(120 * RATE, np.float32)
    samples[60 * RATE : 62 * RATE] = voice()
    soundfile.write(tmp_path / "a.wav", samples, RATE)
    outputs = model.model.outputs
    monkeypatch.setattr(
        model.model,
        "outputs",
        lambda waveforms, text=None: inputs.append(waveforms) or outputs(waveforms, text),
    )
    (prediction,) = model.predict_files([tmp_path / "a.wav"], settings=settings)
    assert prediction.status == "ok" and prediction.label and len(inputs) in (1, 2)
    soundfile.write(tmp_path / "a.wav", samples[: 50 * RATE], RATE)
    (prediction,) = model.predict_files([tmp_path / "a.wav"], settings=settings)
    assert prediction.code == "no_speech" and len(inputs) in (1, 2)

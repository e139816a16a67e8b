"""Recordings as users have them: each is read as it is, or refused with its own code."""

import contextlib
import os
import struct
import subprocess
import sys
import tempfile
import time
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
from apart import HERE
from hypothesis import given, settings
from hypothesis import strategies as st

from sertone import audio
from sertone.errors import AudioError
from sertone.runtime.timeline.isolated import close_decoders
from sertone.utils.child_process import emit
from sertone.utils.processes import ChildDiedError, ChildProcess, run_parallel


def code_of(path, **options) -> str:
    with pytest.raises(AudioError) as caught:
        audio.read(path, **options)
    assert str(path) in str(caught.value)
    return caught.value.code


def patched(path, offset, data):
    content = bytearray(path.read_bytes())
    content[offset : offset + len(data)] = data
    path.write_bytes(content)
    return path


def test_reads_a_wav_sample_by_sample(tone):
    path = tone(seconds=0.5)
    recording = audio.read(path)
    expected, _ = soundfile.read(path, dtype="float32")
    np.testing.assert_array_equal(recording.samples, expected)
    assert (recording.duration_s, recording.sampling_rate, recording.warnings) == (0.5, 16000, {})


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000])
def test_other_rates_keep_pitch_and_duration(tone, rate):
    recording = audio.read(tone(seconds=1.0, rate=rate))
    assert abs(len(recording.samples) - 16000) <= 1
    spectrum = np.abs(np.fft.rfft(recording.samples))
    assert abs(np.argmax(spectrum) - 200) <= 1
    assert recording.sampling_rate == rate


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "ULAW", "FLOAT", "DOUBLE"])
def test_all_sample_formats_agree_within_their_quantisation(tone, subtype):
    exact = audio.read(tone("exact.wav", subtype="DOUBLE")).samples
    found = audio.read(tone("other.wav", subtype=subtype)).samples
    assert np.abs(found - exact).max() < (0.02 if subtype in ("PCM_U8", "ULAW") else 1e-4)


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.mp3"])
def test_compressed_files(tone, name):
    assert audio.read(tone(name)).duration_s == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("container, codec", [("m4a", "aac"), ("webm", "libopus")])
def test_containers_that_only_ffmpeg_reads(tmp_path, container, codec):
    av = pytest.importorskip("av")
    path = tmp_path / f"a.{container}"
    samples = (0.3 * np.sin(np.arange(48000) * 0.05)).astype(np.float32)[None]
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = 48000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)
    assert audio.read(path).duration_s == pytest.approx(1.0, abs=0.1)
    assert audio.inspect(path).duration_s == pytest.approx(1.0, abs=0.1)


def test_stereo_is_mixed_before_resampling(tmp_path):
    left, right = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 48000))
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([left, right], 1), 48000, subtype="DOUBLE")
    mixed = audio.from_array((left + right) / 2, 48000)
    np.testing.assert_allclose(audio.read(path).samples, mixed.samples, atol=1e-6)


@pytest.mark.parametrize("subtype, kind", [("PCM_U8", "uint8"), ("PCM_16", "int16"), ("PCM_32", "int32")])
def test_integers_in_memory_are_those_of_a_file(tone, subtype, kind):
    path = tone("a.wav", subtype=subtype)
    if kind == "uint8":  # which libsndfile does not hand out
        with wave.open(str(path)) as file:
            integers = np.frombuffer(file.readframes(file.getnframes()), np.uint8)
    else:
        integers = soundfile.read(path, dtype=kind)[0]
    found = audio.from_array(integers, 16000)
    assert np.array_equal(found.samples, audio.read(path).samples) and not found.warnings


@pytest.mark.parametrize(
    "samples", [np.zeros(999, np.int64), np.zeros((9, 9, 9)), np.float32(1), np.zeros(999, bool)]
)
def test_what_is_no_samples(samples):
    with pytest.raises(AudioError) as caught:
        audio.from_array(samples, 16000)
    assert caught.value.code == "bad_samples"
    with pytest.raises(AudioError) as caught:
        audio.from_array(np.zeros(0), 16000)
    assert caught.value.code == "no_samples"


def test_segments(tone):
    whole = audio.read(tone(seconds=1.0)).samples
    part = audio.read(tone(seconds=1.0), start_s=0.25, end_s=0.75)
    np.testing.assert_array_equal(part.samples, whole[4000:12000])
    for start, end in ((5.0, None), (0.5, 9.0), (-1.0, None), (0.5, 0.5), (float("nan"), None)):
        assert code_of(tone(), start_s=start, end_s=end) == "bad_segment"
    assert len(audio.read(tone(), start_s=0.5, end_s=1.02).samples) == 8000


@settings(max_examples=20, deadline=None)
@given(st.integers(400, 70000), st.integers(0, 60000), st.integers(400, 70000))
def test_any_segment_is_the_slice_of_the_whole(total, start, length):
    start, length = min(start, total - 400), min(length, total - min(start, total - 400))
    samples = (np.arange(total) % 32768).astype(np.int16)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a.wav", "a.flac", "a.aiff"):  # the last is read from its beginning
            path = Path(folder) / name
            soundfile.write(path, samples, 16000)
            found = audio.read(path, start_s=start / 16000, end_s=(start + length) / 16000)
            np.testing.assert_array_equal(found.samples * 32768, samples[start : start + length])


def test_files_that_are_no_recordings(tmp_path):
    empty = tmp_path / "empty.wav"
    empty.touch()
    assert code_of(empty) == "empty_file"
    assert code_of(tmp_path / "missing.wav") == "missing_file"
    assert code_of(tmp_path) == "not_a_file"
    assert code_of("/dev/zero") == "not_a_file"
    loop = tmp_path / "loop.wav"
    loop.symlink_to(loop)
    assert code_of(loop) == "missing_file"
    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    assert code_of(pipe) == "not_a_file"
    (tmp_path / "numbers.raw").write_bytes(bytes(5000))
    assert code_of(tmp_path / "numbers.raw") == "not_audio"
    for name, content in (("html.wav", b"<html>" * 99), ("zip.wav", b"PK\3\4" + bytes(500))):
        (tmp_path / name).write_bytes(content)
        assert code_of(tmp_path / name) == "not_audio"
    pointer = tmp_path / "pointer.wav"
    pointer.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert code_of(pointer) == "not_audio"
    with pytest.raises(AudioError, match="git lfs pull"):
        audio.read(pointer)


def test_damaged_headers(tone):
    assert code_of(patched(tone(), 22, struct.pack("<H", 0))) == "bad_channels"
    assert code_of(patched(tone(), 22, struct.pack("<H", 65535))) == "bad_channels"
    assert code_of(patched(tone(), 24, struct.pack("<I", 0))) == "bad_rate"
    assert code_of(patched(tone(), 24, struct.pack("<I", 1_000_000))) == "bad_rate"
    path = tone()
    path.write_bytes(path.read_bytes()[:30])
    assert code_of(path) == "bad_header"
    path = tone()
    path.write_bytes(path.read_bytes()[:40] + bytes(4))
    assert code_of(path) == "no_samples"


def test_a_truncated_wav_is_read_with_a_warning(tone):
    path = tone()
    path.write_bytes(path.read_bytes()[:10044])
    recording = audio.read(path)
    assert len(recording.samples) == 5000
    assert "5000 of the 16000" in recording.warnings["truncated"]


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_streamed_wav_is_read_to_its_end(tone, size):
    whole = audio.read(tone()).samples
    recording = audio.read(patched(tone(), 40, struct.pack("<I", size)))
    np.testing.assert_array_equal(recording.samples, whole)
    assert "streamed_header" in recording.warnings


def test_metadata_behind_no_samples_is_not_speech(tone):
    path = tone()
    header = path.read_bytes()[:40] + bytes(4)
    path.write_bytes(header + b"LIST" + struct.pack("<I", 2000) + b"INFO" * 500)
    assert code_of(path) == "no_samples"


@pytest.mark.parametrize("name", ["a.flac", "a.mp3"])
def test_truncated_compressed_files(tone, name):
    path = tone(name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert code_of(path) == "decode_failed"


def test_a_flipped_bit_in_a_flac(tone):
    path = tone("a.flac")
    middle = path.stat().st_size // 2
    assert code_of(patched(path, middle, bytes([path.read_bytes()[middle] ^ 0xFF]))) == "decode_failed"


def test_short_non_finite_silent_clipped(tmp_path):
    def write(samples, **options):
        path = tmp_path / "x.wav"
        soundfile.write(path, samples, 16000, **options)
        return path

    assert code_of(write(np.zeros(399))) == "too_short"
    bad = np.zeros(1000)
    bad[7] = np.nan
    assert code_of(write(bad, subtype="FLOAT")) == "non_finite"
    assert "no_speech" in audio.read(write(np.zeros(1000))).warnings
    assert "no_speech" in audio.read(write(np.full(1000, 0.3))).warnings
    draw = np.random.default_rng(0).standard_normal(16000)
    assert "clipped" in audio.read(write(np.clip(draw, -1, 1))).warnings
    assert "anti_phase" in audio.read(write(np.stack([draw, -draw], 1) * 0.1)).warnings
    assert audio.read(write(draw * 0.1)).warnings == {}


def test_a_decompression_bomb_stops_at_the_limit(tmp_path):
    path = tmp_path / "bomb.flac"
    soundfile.write(path, np.zeros(16000 * 900, np.int16), 16000)
    assert path.stat().st_size < 400_000
    assert code_of(path) == "too_long"
    assert len(audio.read(path, start_s=700, end_s=701).samples) == 16000


def test_a_crashing_decoder_ends_one_call_only(tone):
    path = tone()
    with ChildProcess() as isolated:
        assert len(isolated(audio.read, path).samples) == 16000
        with pytest.raises(ChildDiedError, match="status -6"):
            isolated(os.abort)
        assert len(isolated(audio.read, path).samples) == 16000
        with pytest.raises(AudioError) as caught:
            isolated(audio.read, path.with_name("missing.wav"))
        assert caught.value.code == "missing_file"


def talk(number):
    emit(("before", number))
    return 10 * number


def test_calls_side_by_side_answer_and_tell(tmp_path):
    heard = []
    calls = [(number,) for number in range(7)]
    found = {}
    environments = [HERE] * 3
    for (number,), future in run_parallel(environments, talk, calls, heard.append):
        found[number] = future.result()
    assert found == {number: 10 * number for number in range(7)}
    assert sorted(heard) == [("before", number) for number in range(7)]
    assert emit("nobody listens") is None


def fail_or_sleep(seconds):
    if not seconds:
        raise ValueError("the first call fails")
    time.sleep(seconds)


def test_closing_ends_calls_that_still_run():
    """Also while somebody holds the error, whose traceback knows the generator."""
    close_decoders()
    environments = [HERE] * 2
    calls = [(0,), (60,), (60,), (60,)]
    started = time.monotonic()
    with pytest.raises(ValueError, match="first call") as caught:  # noqa: SIM117
        with contextlib.closing(run_parallel(environments, fail_or_sleep, calls)) as running:
            for _, future in running:
                future.result()
    assert time.monotonic() - started < 50
    assert "In the child process" in "".join(caught.value.__notes__)
    here = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    assert not [
        pid for pid in here if "sertone.utils.child_process" in Path(f"/proc/{pid}/cmdline").read_text()
    ]


def test_a_call_that_the_child_cannot_read_is_an_error():
    with ChildProcess() as child, pytest.raises(ModuleNotFoundError):
        child(fail_or_sleep, 0)  # this module is not on the child's path
    closed = ChildProcess()
    closed.close()
    with pytest.raises(ChildDiedError, match="closed"):
        closed(os.getpid)


def test_children_import_nothing_from_the_working_folder(tmp_path, tone):
    """Where a `queue.py` of the user's would end every one of them, or worse."""
    (tmp_path / "queue.py").write_text("raise SystemExit(7)")
    (tmp_path / "use.py").write_text(
        "from sertone.utils.processes import Isolated\n"
        "from sertone import audio\n"
        f"with Isolated() as child: print(child(audio.read, {str(tone('a.wav'))!r}).sampling_rate)\n"
    )
    command = [sys.executable, "-P", str(tmp_path / "use.py")]
    home = str(Path(audio.__file__).parents[1])
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": home}, capture_output=True)
    assert (done.returncode, done.stdout.strip()) == (0, b"16000"), done.stderr


def test_children_end_with_their_caller(tmp_path):
    """Also when the caller is killed in the middle of a call."""
    code = (
        "import os, time, sertone.utils.processes as i\n"
        "with i.Isolated() as child:\n"
        "    print(child(os.getpid), flush=True)\n"
        "    child(time.sleep, 60)\n"
    )
    caller = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(caller.stdout.readline())
    os.kill(child, 0)
    caller.kill()
    caller.wait()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline, "the child lives on"
        time.sleep(0.05)

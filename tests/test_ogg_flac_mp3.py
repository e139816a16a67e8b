"""Pages of Ogg, checksums of FLAC, frames of MP3: damage is reported, intact files are read."""

import re
import struct

import numpy as np
import pytest
import soundfile
from sounds import RATE, encode, error_code, voice, write

from sertone import audio
from sertone.audio.containers.ogg import check_ogg, compute_checksum
from sertone.audio.containers.source import RegularFile
from sertone.errors import AudioError

pytest.importorskip("av")


@pytest.mark.parametrize("codec", ["VORBIS", "OPUS"])
def test_one_flipped_bit_of_an_ogg_is_reported(tmp_path, codec):
    soundfile.write(tmp_path / "a.ogg", voice(), RATE, format="OGG", subtype=codec)
    whole, draw = (tmp_path / "a.ogg").read_bytes(), np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[draw.integers(len(whole))] ^= 1 << draw.integers(8)
        (tmp_path / "b.ogg").write_bytes(damaged)
        try:
            assert audio.read(tmp_path / "b.ogg").warnings.keys() & {"corrupt", "truncated"}
        except AudioError as error:
            assert error.code in ("bad_header", "not_audio", "decode_failed", "no_samples", "too_short")


def test_a_lost_page_is_reported_with_both_lengths(tmp_path):
    soundfile.write(tmp_path / "a.ogg", voice(6.0), RATE)
    whole = (tmp_path / "a.ogg").read_bytes()
    pages = [match.start() for match in re.finditer(b"OggS", whole)]
    (tmp_path / "a.ogg").write_bytes(whole[: pages[-2]] + whole[pages[-1] :])
    warnings = audio.read(tmp_path / "a.ogg").warnings
    assert "damaged or missing" in warnings["corrupt"] and "of the 6.00 s" in warnings["truncated"]


def test_the_checksum_of_a_flac_is_compared_with_its_samples(tmp_path):
    for subtype in ("PCM_S8", "PCM_16", "PCM_24"):
        soundfile.write(tmp_path / "a.flac", np.stack([voice(), -voice() / 2], 1), RATE, subtype=subtype)
        assert audio.read(tmp_path / "a.flac").warnings == {}
        content = bytearray((tmp_path / "a.flac").read_bytes())
        content[30] ^= 1
        (tmp_path / "a.flac").write_bytes(content)
        assert "checksum" in audio.read(tmp_path / "a.flac").warnings["corrupt"]
        assert audio.read(tmp_path / "a.flac", start_s=0.5).warnings == {}  # of all samples only


def test_damage_between_the_frames_of_an_mp3_is_reported(tmp_path):
    path = encode(tmp_path / "a.mp3", "libmp3lame", options={"write_xing": "0"})
    whole = path.read_bytes()
    assert audio.read(path).warnings == {}
    path.write_bytes(whole[:5000] + whole[5007:])
    assert "damage at 1 places" in audio.read(path).warnings["corrupt"]


def test_an_mp3_without_a_xing_header_is_read_to_its_end(tmp_path):
    """libsndfile guesses too short a length from the size of the first frame."""
    path = write(tmp_path / "a.mp3", "mp3")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"Xing", b"None", 1))
    assert audio.read(path).duration_s >= 2.0


def test_intact_files_that_libsndfile_refuses(tmp_path):
    soundfile.write(tmp_path / "gsm.wav", voice(rate=8000), 8000, subtype="GSM610")
    first, second = (encode(tmp_path / f"{n}.opus", "libopus", form="ogg") for n in range(2))
    (tmp_path / "chained.opus").write_bytes(first.read_bytes() + second.read_bytes())
    remux(write(tmp_path / "a.flac", "flac"), tmp_path / "flac.ogg")
    (tmp_path / "speex.ogg").write_bytes(speex())
    for name, seconds in {"gsm.wav": 2.0, "chained.opus": 4.0, "flac.ogg": 2.0, "speex.ogg": 4.0}.items():
        recording = audio.read(tmp_path / name)
        assert recording.duration_s == pytest.approx(seconds, abs=0.05) and recording.warnings == {}, name
        assert 0.02 < recording.samples.std() < 0.2


@pytest.mark.parametrize("layout", ["mono", "stereo"])
@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000])
def test_mp3s_of_ffmpeg_are_intact(tmp_path, layout, rate):
    """Their checksum covers other bytes than that of LAME."""
    path = encode(tmp_path / "a.mp3", "libmp3lame", rate=rate, layout=layout, options={"id3v2_version": "0"})
    assert audio.read(path).warnings == {}
    content = bytearray(path.read_bytes())
    content[content.find(b"Lav") + 10] ^= 1
    path.write_bytes(content)
    assert "states the length" in audio.read(path).warnings["corrupt"]


@pytest.mark.parametrize("form", ["ogg", "webm"])
def test_pauses_that_were_not_sent_are_no_damage(tmp_path, form):
    """Opus leaves out silence."""
    remux(encode(tmp_path / "a.opus", "libopus"), tmp_path / "b", form, (0.8, 1.2))
    recording = audio.read(tmp_path / "b")
    assert recording.duration_s == pytest.approx(1.6, abs=0.05)
    assert recording.warnings.keys() == {"gaps"}
    assert float(recording.warnings["gaps"].split()[0]) == pytest.approx(0.4, abs=0.03)


@pytest.mark.parametrize("codec", ["OPUS", "VORBIS"])
def test_an_ogg_whose_recorder_was_stopped_is_read(tmp_path, codec):
    soundfile.write(tmp_path / "a.ogg", voice(), RATE, format="OGG", subtype=codec)
    content = (tmp_path / "a.ogg").read_bytes()
    last = bytearray(content[content.rfind(b"OggS") :])
    last[5], last[22:26] = last[5] & ~4, bytes(4)
    last[22:26] = compute_checksum(bytes(last))
    (tmp_path / "a.ogg").write_bytes(content[: -len(last)] + last)
    recording = audio.read(tmp_path / "a.ogg")
    assert recording.duration_s == pytest.approx(2.0, abs=0.02) and recording.warnings.keys() == {"truncated"}


def test_false_pages_of_an_ogg_are_not_all_checked(tmp_path):
    """Each of them states 64 kB and has a wrong checksum."""
    path = write(tmp_path / "a.ogg", "ogg")
    path.write_bytes(path.read_bytes() + (b"OggS\0".ljust(26, b"\0") + b"\xff" * 30) * 5000)
    sizes = []

    class Counted(RegularFile):
        def read(self, size: int | None = -1) -> bytes:
            sizes.append(len(content := super().read(size)))
            return content

    with Counted(path) as file:
        report = check_ogg(file, path)
    assert sum(sizes) < 13_000_000 and "corrupt" in report.warnings


def remux(source, target, form="ogg", without=(0.0, 0.0)):
    """Copy the packets into another container, without those of a span in seconds."""
    import av

    with av.open(str(source)) as original, av.open(str(target), "w", format=form) as out:
        stream = out.add_stream_from_template(original.streams.audio[0])
        for packet in original.demux(original.streams.audio[0]):
            if packet.size and not without[0] <= float((packet.pts or 0) * packet.time_base) < without[1]:
                packet.stream = stream
                out.mux(packet)


def page(flags, position, number, packets):
    sizes = b"".join(bytes([*[255] * (len(packet) // 255), len(packet) % 255]) for packet in packets)
    head = b"OggS\0" + struct.pack("<BqIII", flags, position, 7, number, 0) + bytes([len(sizes)])
    content = head + sizes + b"".join(packets)
    return content[:22] + compute_checksum(content) + content[26:]


def speex():
    """Return a hundred packets of two frames of noise each: FFmpeg comes without an encoder for Speex."""
    fields = (1, 80, 8000, 0, 4, 1, -1, 160, 0, 2, 0, 0, 0)
    header = b"Speex   1.2".ljust(28, b"\0") + struct.pack("<13i", *fields)
    packets = [b"\x1d" + b"\x9d\x1b" * 19] * 100
    comment = struct.pack("<I4sI", 4, b"test", 0)
    return page(2, 0, 0, [header]) + page(0, 0, 1, [comment]) + page(4, 32000, 2, packets)


@pytest.mark.parametrize("head", [b"", b"\xff\xfb\x90\x64", b"\xff\xf3\x88\xc4"])
def test_random_bytes_are_no_mp3(tmp_path, head):
    for seed in range(10):
        (tmp_path / "a.mp3").write_bytes(head + np.random.default_rng(seed).bytes(20000))
        assert error_code(tmp_path / "a.mp3") == "not_audio"

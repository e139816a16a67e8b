"""What containers say of themselves: audio that is missing or damaged is told, intact files are read."""

import contextlib
import gc
import os
import re
import socket
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from apart import HERE, read_and_measure
from sounds import RATE, encode, voice, write

import sertone
from sertone import audio
from sertone.audio.containers.ogg import check_ogg, compute_checksum
from sertone.audio.containers.source import RegularFile
from sertone.errors import AudioError
from sertone.runtime.timeline.plan import TimelineSettings
from sertone.utils.processes import ChildProcess

pytest.importorskip("av")


def code_of(path):
    with pytest.raises(AudioError) as caught:
        audio.read(path)
    return caught.value.code


def cut(path, share=0.5):
    os.truncate(path, round(path.stat().st_size * share))
    return path


# names and playlists

NAMES = ("-", "pipe:0", "http:call", "file:a", "concat:a|b", "data:audio", "a:b.wav", "%d.wav", "fd:1")


@pytest.mark.parametrize("name", ["wav", "m4a"])
def test_a_name_is_a_name(toy, tmp_path, monkeypatch, name):
    """Whatever FFmpeg or libsndfile would make of it."""
    monkeypatch.chdir(tmp_path)
    model, expected = sertone.load(toy), None
    for each in NAMES:
        write(f"aside.{name}", name).rename(each)
        answer = model.predict(each)
        expected = expected or answer.probabilities
        assert (answer.status, answer.file, answer.probabilities) == ("ok", each, expected), answer
    assert model.predict("a\0b").code == "missing_file"
    assert model.predict("http:nothing").code == model.predict("pipe:1").code == "missing_file"


PLAYLISTS = {
    "ffconcat": "ffconcat version 1.0\nfile {file}\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{url}\n#EXT-X-ENDLIST\n",
    "hls of a file": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{file}\n#EXT-X-ENDLIST\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{url}</BaseURL></MPD>',
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio {port} RTP/AVP 0\n",
    "rtsp": "[Reference]\nRef1={url}\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_playlist_is_no_recording(tmp_path, kind):
    """Nobody is asked for anything, and no other file is read."""
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        said = {
            "file": write(tmp_path / "other.m4a", "m4a"),
            "url": f"http://127.0.0.1:{port}/a.ts",
            "port": port,
        }
        for suffix in ("wav", "m3u8", "ffconcat", "m4a"):
            path = tmp_path / f"list.{suffix}"
            path.write_text(PLAYLISTS[kind].format(**said))
            assert code_of(path) == "not_audio"
        with contextlib.suppress(TimeoutError):
            asked.append(server.accept())
    assert not asked


def test_only_regular_files_are_read(tmp_path):
    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: os.open(pipe, os.O_WRONLY), daemon=True)
    writer.start()  # waits until somebody reads, which nobody may
    assert code_of(pipe) == "not_a_file" and writer.is_alive()
    assert code_of("/dev/zero") == "not_a_file"
    with pytest.raises(AudioError, match="not a regular file"):
        audio.file_hash(pipe)
    if Path("/proc/self/status").exists():
        assert code_of("/proc/self/status") == "empty_file"  # whatever could be read from it
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer.join(5)
    os.close(reader)


def test_a_file_that_becomes_a_pipe_is_not_waited_for(tmp_path):
    """However often they are exchanged while it is opened."""
    write(tmp_path / "a.wav", "wav")
    done = threading.Event()

    def exchange():
        while not done.is_set():
            os.mkfifo(tmp_path / "pipe")
            os.replace(tmp_path / "pipe", tmp_path / "now.wav")  # noqa: PTH105
            os.link(tmp_path / "a.wav", tmp_path / "file")
            os.replace(tmp_path / "file", tmp_path / "now.wav")  # noqa: PTH105

    os.link(tmp_path / "a.wav", tmp_path / "now.wav")
    thread = threading.Thread(target=exchange)
    thread.start()
    found = set()
    for attempt in range(100_000):  # on a busy machine the file may rarely be there when it is opened
        try:
            found.add(audio.inspect(tmp_path / "now.wav").frames)
        except AudioError as error:
            found.add(error.code)
        if attempt > 300 and 2 * RATE in found:
            break
    done.set()
    thread.join()
    assert found <= {2 * RATE, "not_a_file"} and 2 * RATE in found


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
def test_half_a_file_is_told_with_both_lengths(tmp_path, name):
    path = tmp_path / f"a.{name}"
    HALVED[name](path)
    whole = audio.read(path)
    assert whole.warnings == {}
    message = audio.read(cut(path)).warnings["truncated"]
    present, stated = map(float, re.findall(r"[\d.]+\d|\d", message.split(" there")[0])[:2])
    assert present < 0.9 * stated, message


@pytest.mark.parametrize("codec", ["VORBIS", "OPUS"])
def test_one_flipped_bit_of_an_ogg_is_told(tmp_path, codec):
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


def test_a_lost_page_is_told_with_both_lengths(tmp_path):
    soundfile.write(tmp_path / "a.ogg", voice(6.0), RATE)
    whole = (tmp_path / "a.ogg").read_bytes()
    pages = [match.start() for match in re.finditer(b"OggS", whole)]
    (tmp_path / "a.ogg").write_bytes(whole[: pages[-2]] + whole[pages[-1] :])
    found = audio.read(tmp_path / "a.ogg").warnings
    assert "damaged or missing" in found["corrupt"] and "of the 6.00 s" in found["truncated"]


def stated(path, offset, change):
    """Changes the size that a file states."""
    content = bytearray(path.read_bytes())
    (size,) = struct.unpack_from("<I", content, offset)
    struct.pack_into("<I", content, offset, size + change)
    path.write_bytes(content)


def test_samples_behind_the_stated_end_are_told(tmp_path):
    path = write(tmp_path / "a.wav", "wav")
    stated(path, 40, -RATE)
    found = audio.read(path)
    assert found.duration_s == 1.5 and found.warnings.keys() == {"trailing_data"}
    assert "16000 bytes" in found.warnings["trailing_data"]
    for tail in (b"TAG" + bytes(125), bytes(999), b"LIST" + struct.pack("<I", 4) + b"INFO"):
        path = write(tmp_path / "a.wav", "wav")
        path.write_bytes(path.read_bytes() + tail)
        assert audio.read(path).warnings == {}


def test_a_header_that_contradicts_itself_is_told(tmp_path):
    path = write(tmp_path / "a.wav", "wav")
    stated(path, 32, 2)  # frames of four bytes
    assert "contradicts" in audio.read(path).warnings["corrupt"]


def test_a_number_that_no_decoder_reads_is_no_damage(tmp_path):
    path = write(tmp_path / "a.wav", "wav")
    stated(path, 28, -RATE)
    found = audio.read(path)
    assert found.duration_s == 2.0 and found.warnings.keys() == {"odd_header"}
    assert "32000" not in found.warnings["odd_header"] and "16000 bytes" in found.warnings["odd_header"]
    soundfile.write(path, voice(), RATE, subtype="ULAW")
    stated(path, path.read_bytes().find(b"fmt ") + 22, 8)  # two bytes of bits, and none behind them
    assert audio.read(path).warnings == {}


def test_the_checksum_of_a_flac_is_held_against_its_samples(tmp_path):
    for subtype in ("PCM_S8", "PCM_16", "PCM_24"):
        soundfile.write(tmp_path / "a.flac", np.stack([voice(), -voice() / 2], 1), RATE, subtype=subtype)
        assert audio.read(tmp_path / "a.flac").warnings == {}
        content = bytearray((tmp_path / "a.flac").read_bytes())
        content[30] ^= 1
        (tmp_path / "a.flac").write_bytes(content)
        assert "checksum" in audio.read(tmp_path / "a.flac").warnings["corrupt"]
        assert audio.read(tmp_path / "a.flac", start_s=0.5).warnings == {}  # of all samples only


def test_damage_between_the_frames_of_an_mp3_is_told(tmp_path):
    path = encode(tmp_path / "a.mp3", "libmp3lame", options={"write_xing": "0"})
    whole = path.read_bytes()
    assert audio.read(path).warnings == {}
    path.write_bytes(whole[:5000] + whole[5007:])
    assert "damage at 1 places" in audio.read(path).warnings["corrupt"]


def test_an_mp3_without_contents_is_read_to_its_end(tmp_path):
    """From the size of its first frame alone libsndfile guesses less than there is."""
    path = write(tmp_path / "a.mp3", "mp3")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"Xing", b"None", 1))
    assert audio.read(path).duration_s >= 2.0


# what is intact


def test_intact_files_that_libsndfile_refuses(tmp_path):
    soundfile.write(tmp_path / "gsm.wav", voice(rate=8000), 8000, subtype="GSM610")
    first, second = (encode(tmp_path / f"{n}.opus", "libopus", form="ogg") for n in range(2))
    (tmp_path / "chained.opus").write_bytes(first.read_bytes() + second.read_bytes())
    remuxed(write(tmp_path / "a.flac", "flac"), tmp_path / "flac.ogg")
    (tmp_path / "speex.ogg").write_bytes(speex())
    for name, seconds in {"gsm.wav": 2.0, "chained.opus": 4.0, "flac.ogg": 2.0, "speex.ogg": 4.0}.items():
        found = audio.read(tmp_path / name)
        assert found.duration_s == pytest.approx(seconds, abs=0.05) and found.warnings == {}, name
        assert 0.02 < found.samples.std() < 0.2


@pytest.mark.parametrize("layout", ["mono", "stereo"])
@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000])
def test_mp3s_of_ffmpeg_are_sound(tmp_path, layout, rate):
    """Their checksum is not of what LAME's is."""
    path = encode(tmp_path / "a.mp3", "libmp3lame", rate=rate, layout=layout, options={"id3v2_version": "0"})
    assert audio.read(path).warnings == {}
    content = bytearray(path.read_bytes())
    content[content.find(b"Lav") + 10] ^= 1
    path.write_bytes(content)
    assert "states the length" in audio.read(path).warnings["corrupt"]


def test_a_webm_without_a_length_is_read(tmp_path):
    """As browsers record it."""
    path = encode(tmp_path / "a.webm", "libopus", options={"live": "1"})
    assert audio.inspect(path).frames == 0
    found = audio.read(path)
    assert found.duration_s == pytest.approx(2.0, abs=0.05) and found.warnings == {}
    assert audio.read(path, start_s=1.5).duration_s == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("form", ["VOC", "IRCAM", "SVX", "PAF", "AVR", "HTK", "PVF", "MAT4", "MAT5", "SDS"])
def test_containers_that_only_libsndfile_looks_at(tmp_path, form):
    soundfile.write(tmp_path / "a", voice(), RATE, format=form)
    found = audio.read(tmp_path / "a")
    assert found.duration_s == 2.0 and found.warnings == {}


@pytest.mark.parametrize("name", ["wv", "tta"])
def test_containers_that_only_ffmpeg_looks_at(tmp_path, name):
    path = encode(tmp_path / f"a.{name}", {"wv": "wavpack"}.get(name, name), voice(20.0))
    found = audio.read(path)
    assert found.duration_s == pytest.approx(20.0, abs=0.01) and found.warnings == {}
    if name == "wv":
        cut(path)
        assert code_of(path) == "decode_failed"
    else:
        assert "truncated" in audio.read(cut(path)).warnings


TAG = b"ID3\x04\0\0\0\0\x10\x10" + b"TXXX".ljust(2064, b"\0")


@pytest.mark.parametrize("name", ["wav", "flac", "mp3", "ogg", "aiff", "caf", "w64"])
def test_what_is_behind_a_tag_is_checked_as_without_it(tmp_path, name):
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
    assert code_of(path) == "not_audio"


@pytest.mark.parametrize("form", ["ogg", "webm"])
def test_pauses_that_were_not_sent_are_no_damage(tmp_path, form):
    """As Opus leaves them out."""
    remuxed(encode(tmp_path / "a.opus", "libopus"), tmp_path / "b", form, (0.8, 1.2))
    found = audio.read(tmp_path / "b")
    assert found.duration_s == pytest.approx(1.6, abs=0.05)
    assert found.warnings.keys() == {"gaps"}
    assert float(found.warnings["gaps"].split()[0]) == pytest.approx(0.4, abs=0.03)


def test_a_caf_that_goes_to_its_end_is_read_to_it(tmp_path):
    path = write(tmp_path / "a.caf", "caf")
    whole, content = audio.read(path), bytearray(path.read_bytes())
    place = content.find(b"data")
    content[place + 4 : place + 12] = b"\xff" * 8
    path.write_bytes(content)
    found = audio.read(path)
    assert found.warnings == {} and (found.samples == whole.samples).all()


@pytest.mark.parametrize("size", [0x7FFFFFFF, 0x80000000, 0x7FFFF000, 0x7FFFF000 - 36, 0xFFFFFFFF - 36])
def test_sizes_of_programs_that_do_not_know_them(tmp_path, size):
    path = write(tmp_path / "a.wav", "wav")
    stated(path, 40, size - 4 * RATE)
    found = audio.read(path)
    assert found.duration_s == 2.0 and found.warnings.keys() == {"streamed_header"}


def test_an_rf64_that_was_streamed_is_read(tmp_path):
    soundfile.write(tmp_path / "a.wav", voice(), RATE, format="RF64")
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[20:44] = bytes(24)
    (tmp_path / "a.wav").write_bytes(content)
    found = audio.read(tmp_path / "a.wav")
    assert found.duration_s == 2.0 and found.warnings.keys() == {"streamed_header"}


def test_other_codings_in_a_wav_may_be_shorter_than_it_says(tmp_path):
    found = audio.read(encode(tmp_path / "a.wav", "libmp3lame", form="wav"))
    assert found.duration_s == pytest.approx(2.0, abs=0.1) and found.warnings == {}


@pytest.mark.parametrize("codec", ["OPUS", "VORBIS"])
def test_an_ogg_of_a_recorder_that_was_stopped_is_read(tmp_path, codec):
    soundfile.write(tmp_path / "a.ogg", voice(), RATE, format="OGG", subtype=codec)
    content = (tmp_path / "a.ogg").read_bytes()
    last = bytearray(content[content.rfind(b"OggS") :])
    last[5], last[22:26] = last[5] & ~4, bytes(4)
    last[22:26] = compute_checksum(bytes(last))
    (tmp_path / "a.ogg").write_bytes(content[: -len(last)] + last)
    found = audio.read(tmp_path / "a.ogg")
    assert found.duration_s == pytest.approx(2.0, abs=0.02) and found.warnings.keys() == {"truncated"}


def test_chunks_behind_the_samples_are_no_samples(tmp_path):
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


def test_false_pages_of_an_ogg_are_not_all_looked_at(tmp_path):
    """Each of them claims 64 kB, whose checksum is another."""
    path = write(tmp_path / "a.ogg", "ogg")
    path.write_bytes(path.read_bytes() + (b"OggS\0".ljust(26, b"\0") + b"\xff" * 30) * 5000)
    taken = []

    class Counted(RegularFile):
        def read(self, size: int | None = -1) -> bytes:
            taken.append(len(content := super().read(size)))
            return content

    with Counted(path) as file:
        report = check_ogg(file, path)
    assert sum(taken) < 13_000_000 and "corrupt" in report.warnings


def test_files_that_are_refused_are_closed(tmp_path):
    """At once, not when the garbage collector comes by."""
    (tmp_path / "a.wav").write_bytes(write(tmp_path / "whole.wav", "wav").read_bytes()[:30])
    (tmp_path / "a.m4a").write_bytes(write(tmp_path / "whole.m4a", "m4a").read_bytes()[:5000])
    (tmp_path / "a.bin").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "a.mp3").write_bytes(b"\xff\xfb\x90\x64" + bytes(5000))
    kept: list = []
    before = len(list(Path("/proc/self/fd").iterdir()))
    gc.disable()
    try:
        for name in ("a.wav", "a.m4a", "a.bin", "a.mp3") * 8:
            with pytest.raises(AudioError) as caught:
                audio.read(tmp_path / name)
            kept.append(caught)
        for name in ("whole.wav", "whole.m4a") * 8:
            kept.append(audio.inspect(tmp_path / name))
            with pytest.raises(AudioError) as caught:
                audio.read(tmp_path / name, start_s=3.0, end_s=2.0)
            kept.append(caught)
        assert len(list(Path("/proc/self/fd").iterdir())) == before
    finally:
        gc.enable()


def test_a_second_chunk_of_samples_is_told(tmp_path):
    path = write(tmp_path / "a.wav", "wav")
    path.write_bytes(path.read_bytes() + path.read_bytes()[36:])
    found = audio.read(path)
    assert found.duration_s == 2.0 and found.warnings.keys() == {"trailing_data"}


def remuxed(source, target, form="ogg", without=(0.0, 0.0)):
    """Puts the packets into another container, but those of a stretch in seconds."""
    import av

    with av.open(str(source)) as given, av.open(str(target), "w", format=form) as out:
        stream = out.add_stream_from_template(given.streams.audio[0])
        for packet in given.demux(given.streams.audio[0]):
            if packet.size and not without[0] <= float((packet.pts or 0) * packet.time_base) < without[1]:
                packet.stream = stream
                out.mux(packet)


def page(flags, position, number, packets):
    sizes = b"".join(bytes([*[255] * (len(each) // 255), len(each) % 255]) for each in packets)
    head = b"OggS\0" + struct.pack("<BqIII", flags, position, 7, number, 0) + bytes([len(sizes)])
    made = head + sizes + b"".join(packets)
    return made[:22] + compute_checksum(made) + made[26:]


def speex():
    """A hundred packets of two frames of noise each; no encoder of it is at hand."""
    fields = (1, 80, 8000, 0, 4, 1, -1, 160, 0, 2, 0, 0, 0)
    header = b"Speex   1.2".ljust(28, b"\0") + struct.pack("<13i", *fields)
    packets = [b"\x1d" + b"\x9d\x1b" * 19] * 100
    comment = struct.pack("<I4sI", 4, b"test", 0)
    return page(2, 0, 0, [header]) + page(0, 0, 1, [comment]) + page(4, 32000, 2, packets)


@pytest.mark.parametrize("head", [b"", b"\xff\xfb\x90\x64", b"\xff\xf3\x88\xc4"])
def test_random_bytes_are_no_mp3(tmp_path, head):
    for seed in range(10):
        (tmp_path / "a.mp3").write_bytes(head + np.random.default_rng(seed).bytes(20000))
        assert code_of(tmp_path / "a.mp3") == "not_audio"


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
def test_no_model_is_asked_about_silence(toy, tmp_path, monkeypatch, settings):
    """Two minutes, of which two seconds sound."""
    model, asked = sertone.load(toy), []
    samples = np.zeros(120 * RATE, np.float32)
    samples[60 * RATE : 62 * RATE] = voice()
    soundfile.write(tmp_path / "a.wav", samples, RATE)
    outputs = model.model.outputs
    monkeypatch.setattr(
        model.model,
        "outputs",
        lambda waveforms, text=None: asked.append(waveforms) or outputs(waveforms, text),
    )
    (answer,) = model.predict_files([tmp_path / "a.wav"], settings=settings)
    assert answer.status == "ok" and answer.label and len(asked) in (1, 2)
    soundfile.write(tmp_path / "a.wav", samples[: 50 * RATE], RATE)
    (answer,) = model.predict_files([tmp_path / "a.wav"], settings=settings)
    assert answer.code == "no_speech" and len(asked) in (1, 2)

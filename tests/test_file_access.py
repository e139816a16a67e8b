"""Access to sound files: names and playlists are no instructions, only regular files are opened, and all are closed."""

import contextlib
import gc
import os
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
from sounds import RATE, error_code, write

import sertone
from sertone import audio
from sertone.errors import AudioError

pytest.importorskip("av")


NAMES = ("-", "pipe:0", "http:call", "file:a", "concat:a|b", "data:audio", "a:b.wav", "%d.wav", "fd:1")


@pytest.mark.parametrize("name", ["wav", "m4a"])
def test_a_file_name_is_no_instruction(toy, tmp_path, monkeypatch, name):
    """FFmpeg or libsndfile would interpret these names."""
    monkeypatch.chdir(tmp_path)
    model, expected = sertone.load(toy), None
    for path in NAMES:
        write(f"aside.{name}", name).rename(path)
        prediction = model.predict(path)
        expected = expected or prediction.probabilities
        outcome = prediction.status, prediction.file, prediction.probabilities
        assert outcome == ("ok", path, expected), prediction
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
    """No server is contacted, and no other file is read."""
    connections = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        places = {
            "file": write(tmp_path / "other.m4a", "m4a"),
            "url": f"http://127.0.0.1:{port}/a.ts",
            "port": port,
        }
        for suffix in ("wav", "m3u8", "ffconcat", "m4a"):
            path = tmp_path / f"list.{suffix}"
            path.write_text(PLAYLISTS[kind].format(**places))
            assert error_code(path) == "not_audio"
        with contextlib.suppress(TimeoutError):
            connections.append(server.accept())
    assert not connections


def test_only_regular_files_are_read(tmp_path):
    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: os.open(pipe, os.O_WRONLY), daemon=True)
    writer.start()  # waits until the pipe is read, which must not happen
    assert error_code(pipe) == "not_a_file" and writer.is_alive()
    assert error_code("/dev/zero") == "not_a_file"
    with pytest.raises(AudioError, match="not a regular file"):
        audio.file_hash(pipe)
    if Path("/proc/self/status").exists():
        assert error_code("/proc/self/status") == "empty_file"  # although it could be read
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer.join(5)
    os.close(reader)


def test_a_file_that_becomes_a_pipe_is_not_waited_for(tmp_path):
    """A file and a pipe are exchanged while the file is opened."""
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
    outcomes = set()
    for attempt in range(100_000):  # on a busy machine, the pipe may be there most of the time
        try:
            outcomes.add(audio.inspect(tmp_path / "now.wav").frames)
        except AudioError as error:
            outcomes.add(error.code)
        if attempt > 300 and 2 * RATE in outcomes:
            break
    done.set()
    thread.join()
    assert outcomes <= {2 * RATE, "not_a_file"} and 2 * RATE in outcomes


def test_files_that_are_refused_are_closed(tmp_path):
    """They are closed at once, without the garbage collector."""
    (tmp_path / "a.wav").write_bytes(write(tmp_path / "whole.wav", "wav").read_bytes()[:30])
    (tmp_path / "a.m4a").write_bytes(write(tmp_path / "whole.m4a", "m4a").read_bytes()[:5000])
    (tmp_path / "a.bin").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "a.mp3").write_bytes(b"\xff\xfb\x90\x64" + bytes(5000))
    results: list = []
    before = len(list(Path("/proc/self/fd").iterdir()))
    gc.disable()
    try:
        for name in ("a.wav", "a.m4a", "a.bin", "a.mp3") * 8:
            with pytest.raises(AudioError) as caught:
                audio.read(tmp_path / name)
            results.append(caught)
        for name in ("whole.wav", "whole.m4a") * 8:
            results.append(audio.inspect(tmp_path / name))
            with pytest.raises(AudioError) as caught:
                audio.read(tmp_path / name, start_s=3.0, end_s=2.0)
            results.append(caught)
        assert len(list(Path("/proc/self/fd").iterdir())) == before
    finally:
        gc.enable()

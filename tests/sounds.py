"""Sound files of twelve formats, written by these functions, and ways to damage them."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from sertone import audio
from sertone.errors import AudioError

RATE, SECONDS = 16000, 2.0
NOISE = 0.1 * np.random.default_rng(0).standard_normal(RATE)
SNDFILE = {
    "wav": {},
    "flac": {},
    "mp3": {},
    "ogg": {},
    "aiff": {},
    "au": {},
    "caf": {},
    "w64": {},
}
FFMPEG = {"opus": "libopus", "m4a": "aac", "webm": "libopus", "mka": "libopus"}
FORMATS = (*SNDFILE, *FFMPEG)


def voice(seconds=SECONDS, rate=RATE):
    """Return a signal with the pitch, the harmonics and the level of speech, (N,), float32."""
    time = np.arange(round(seconds * rate)) / rate
    phase = np.cumsum(2 * np.pi * (140 + 30 * np.sin(4 * np.pi * time)) / rate)
    tones = sum(np.sin(n * phase) / n for n in range(1, 20))
    noise = np.random.default_rng(0).standard_normal(len(time))
    return (0.05 * (1 + np.sin(6 * np.pi * time)) * tones + 0.002 * noise).astype(np.float32)


def wav(samples=NOISE, rate=RATE, **options):
    """Return a function that writes samples unchanged."""
    return lambda path: soundfile.write(path, samples, rate, **options)


def write(path, name, samples=None):
    """Write a voice in one of the formats of FORMATS."""
    if name in SNDFILE:
        soundfile.write(path, voice() if samples is None else samples, RATE, **SNDFILE[name])
    else:
        encode(path, FFMPEG[name], samples)
    return Path(path)


def encode(path, codec, samples=None, *, form=None, rate=None, options=None, layout="mono"):
    """Encode a voice by FFmpeg, the same in every channel."""
    import av

    rate = rate or (48000 if codec == "libopus" else RATE)
    samples = voice(rate=rate) if samples is None else samples
    with av.open(str(path), "w", format=form, options=options or {}) as out:
        stream = out.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        kind, size = stream.format.name, stream.frame_size or 1024
        resampler = av.AudioResampler(format=kind, layout=layout, rate=rate, frame_size=size)
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            for packet in stream.encode(part):
                out.mux(packet)
    return Path(path)


def error_code(path):
    """Return the code of the error that reading a file raises."""
    with pytest.raises(AudioError) as caught:
        audio.read(path)
    return caught.value.code


def _places(data, draw, longest):
    start = int(draw.integers(0, len(data)))
    return start, start + int(draw.integers(1, longest + 1))


def truncated(data, draw):
    return data[: int(draw.integers(0, len(data)))]


def flipped(data, draw):
    data = bytearray(data)
    for at in draw.integers(0, len(data), int(draw.integers(1, 4))):
        data[at] ^= 1 << int(draw.integers(0, 8))
    return bytes(data)


def zeroed(data, draw):
    start, end = _places(data, draw, 2000)
    return data[:start] + bytes(len(data[start:end])) + data[end:]


def removed(data, draw):
    start, end = _places(data, draw, 2000)
    return data[:start] + data[end:]


def doubled(data, draw):
    start, end = _places(data, draw, 2000)
    return data[:end] + data[start:end] + data[end:]


def edited(data, draw):
    """Change bytes in the header."""
    data = bytearray(data)
    for at in draw.integers(0, min(len(data), 120), int(draw.integers(1, 5))):
        data[at] = int(draw.choice([0, 1, 0x7F, 0x80, 0xFF, draw.integers(0, 256)]))
    return bytes(data)


MUTATIONS = (truncated, flipped, zeroed, removed, doubled, edited)


def mutants(folder, count, seed=0):
    """Write `count` damaged files, every format and damage in turn; yield path, format and damage."""
    whole = {name: write(Path(folder, f"whole.{name}"), name).read_bytes() for name in FORMATS}
    draw = np.random.default_rng(seed)
    for number in range(count):
        name, damage = FORMATS[number % len(FORMATS)], MUTATIONS[number // len(FORMATS) % len(MUTATIONS)]
        path = Path(folder, f"{number}.{name}")
        path.write_bytes(damage(whole[name], draw))
        yield path, name, damage.__name__

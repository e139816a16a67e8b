"""Functions that tests run in decoder processes, which import this module; so it stays light."""

import ctypes
import os
import signal
import traceback
from pathlib import Path
from typing import NamedTuple

from sertone import audio
from sertone.runtime.bundle import Bundle

HERE = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])}


class Deadly(os.PathLike):
    """A file that kills the process that reads it."""

    def __init__(self, file):
        self.file = file

    def __str__(self):
        return self.file

    def __fspath__(self):
        os.kill(os.getpid(), signal.SIGSEGV)
        return self.file


class Stuck(os.PathLike):
    """A file that makes its reader hang in C code, with the interpreter lock held."""

    def __init__(self, file):
        self.file = file

    def __str__(self):
        return self.file

    def __fspath__(self):
        ctypes.PyDLL(None).sleep(1000)
        return self.file


def die(*_):
    os.abort()


class Verdict(NamedTuple):
    """The result of reading a file: status, codes or traceback, samples per channel, rate, channels."""

    status: str
    said: str = ""
    samples: int = 0
    rate: int = 0
    channels: int = 0


def verdict(path, *_):
    """Read a file."""
    try:
        header, recording = audio.inspect(path), audio.read(path)
    except audio.AudioError as error:
        return Verdict("error", error.code)
    except Exception:
        return Verdict("traceback", traceback.format_exc())
    rate, codes = recording.sampling_rate, ",".join(recording.warnings)
    status = "warning" if codes else "ok"
    return Verdict(status, codes, round(recording.duration_s * rate), rate, header.channels)


def peak_kilobytes():
    """Return the peak memory of this process; `ru_maxrss` would include that of its parent."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    return int(line.split()[1])


def read_and_measure(path):
    """Return the code of the error, and the megabytes that reading took in addition."""
    before, code = peak_kilobytes(), ""
    try:
        audio.read(path)
    except audio.AudioError as error:
        code = error.code
    return code, (peak_kilobytes() - before) / 1024


class Fatal(Bundle):
    """A model that kills its process at a loud recording."""

    def __reduce__(self):
        return Fatal, (self.folder, self.settings)

    def outputs(self, waveforms, text=None):
        if abs(waveforms).max() > 0.9:
            os.abort()
        return super().outputs(waveforms, text)

"""What several readers and writers of miniatures share."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from sertone.errors import SertoneError

AUDIO_SUFFIXES = (".wav", ".flac")


def visible(files: Iterator[Path]) -> list[Path]:
    """Sorted, without hidden files (macOS leaves `._*` beside every file it copies)."""
    return sorted(path for path in files if not path.name.startswith("."))


def audio_files(folder: Path, pattern: str = "*") -> list[Path]:
    """The visible sound files of a folder (WAV, or FLAC re-coded from it), sorted."""
    files = (p for p in folder.glob(pattern) if p.suffix.lower() in AUDIO_SUFFIXES)
    return visible(files)


def require(folder: Path, corpus: str) -> Path:
    """The folder, if it is there.

    Raises:
        SertoneError: `not_this_corpus`.
    """
    if not folder.is_dir():
        raise SertoneError(
            "not_this_corpus",
            f"no folder {folder}",
            f"the tree of {corpus} (`sertone corpora fake {corpus} DIR` writes a small one)",
        )
    return folder


def write_tone(path: Path, seed: int, seconds: float = 0.5, rate: int = 16000) -> None:
    """A short noisy tone, different for every seed, in the place of a recording."""
    draw = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    pitch = draw.uniform(90, 300)
    samples = 0.3 * np.sin(2 * np.pi * pitch * time) + 0.03 * draw.standard_normal(len(time))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype="PCM_16")

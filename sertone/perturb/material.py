"""Recordings that perturbations draw from: other utterances, noises and impulse responses.

Axis letters: N samples.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from sertone import audio
from sertone.errors import SertoneError


class Recorded(Protocol):
    """Recordings of 16 kHz, (N,) each, which may be loaded when they are asked for."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Material:
    """Recordings that perturbations draw from.

    Attributes:
        speech: other utterances, for babble and bleeding voices.
        noises: noises of the user.
        impulse_responses: impulse responses of rooms or telephones.
    """

    speech: Recorded = ()
    noises: Recorded = ()
    impulse_responses: Recorded = ()

    @classmethod
    def load(
        cls,
        speech: Recorded = (),
        noise_folder: Path | None = None,
        impulse_folder: Path | None = None,
    ) -> Self:
        """Read folders of noises and of impulse responses.

        Raises:
            SertoneError: `no_audio_files` for a folder without recordings; as `audio.read`.
        """
        return cls(speech, _load_folder(noise_folder), _load_folder(impulse_folder))

    def draw(self, kind: str, rng: np.random.Generator) -> np.ndarray:
        """Draw a recording of a kind, which is a field of this class.

        Raises:
            SertoneError: `no_material`, where there is no recording of this kind.
        """
        recordings: Recorded = getattr(self, kind)
        if not len(recordings):
            raise SertoneError(
                "no_material",
                f"a perturbation that needs {kind.replace('_', ' ')}, and none are given",
                "at least one recording",
                "name a folder of recordings, or leave the perturbation out",
            )
        return recordings[int(rng.integers(len(recordings)))]


def repeat(samples: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Start at a random sample, and repeat a recording up to a length, (length,)."""
    return np.resize(np.roll(samples, -int(rng.integers(len(samples)))), length)


def _load_folder(folder: Path | None) -> list[np.ndarray]:
    if folder is None:
        return []
    folder = Path(folder).expanduser()
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in audio.SUFFIXES)
    recordings = [audio.read(path).samples for path in paths]
    if not paths or not all(samples.any() for samples in recordings):
        problem = "has no recordings" if folder.is_dir() else "is not a folder"
        silent = [path.name for path, samples in zip(paths, recordings, strict=True) if not samples.any()]
        raise SertoneError(
            "no_audio_files",
            f"{folder} {problem}" if not silent else f"{silent[0]} in {folder} is silent",
            "a folder of recordings that are not silent, of 25 ms to 10 minutes each",
            "name another folder, or leave the perturbation out",
        )
    return recordings

"""Draw the figure of docs/perturbations.md, or print how long each perturbation takes.

    python bench/perturbations.py docs/perturbations.png
    python bench/perturbations.py --time

The speech comes from a synthesiser.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sertone import audio, corpora
from sertone.audio import SAMPLING_RATE
from sertone.perturb import PERTURBATIONS, Material, perturb
from sertone.perturb.noise import environment
from sertone.perturb.room import room_response

COLUMNS = 6
WIDTH, HEIGHT, CAPTION, GAP = 200, 96, 30, 8
RANGE_DB = 70.0
PALETTE = np.array([[13, 8, 60], [90, 20, 120], [190, 55, 100], [245, 140, 60], [252, 250, 190]], float)


def load_speech() -> tuple[np.ndarray, Material]:
    """Return a synthetic sentence, and other recordings for the perturbations that need some."""
    with tempfile.TemporaryDirectory() as folder:
        corpora.load_sheet("demo").fake(Path(folder), takes=1)
        files = sorted((Path(folder) / "wav").iterdir())
        sentence, *voices = (audio.read(file).samples for file in files[:8])
    rng = np.random.default_rng(0)
    return sentence, Material(voices, [environment(48000, rng, Material())], [room_response(0.8, rng)])


def draw_figure(path: Path) -> None:
    """Write the figure as a PNG: the sentence under every perturbation, at its middle strength."""
    sentence, material = load_speech()
    panels = [("as recorded", sentence)]
    for name, kind in PERTURBATIONS.items():
        strength = kind.strengths[len(kind.strengths) // 2]
        caption = f"{name}, {strength:g} {kind.unit}"
        panels.append((caption, perturb(sentence, name, strength, 0, material)))
    _arrange(panels).quantize(32).save(path, optimize=True)


def _arrange(panels: list[tuple[str, np.ndarray]]) -> Image.Image:
    rows = -(-len(panels) // COLUMNS)
    cell_width, cell_height = WIDTH + GAP, HEIGHT + CAPTION
    sheet = Image.new("RGB", (COLUMNS * cell_width + GAP, rows * cell_height + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (caption, samples) in enumerate(panels):
        left = GAP + number % COLUMNS * cell_width
        top = GAP + number // COLUMNS * cell_height
        sheet.paste(_draw_spectrogram(samples), (left, top + CAPTION - GAP))
        pen.text((left, top), caption, fill="black", font=ImageFont.load_default(12))
    return sheet


def _draw_spectrogram(samples: np.ndarray) -> Image.Image:
    """Return a spectrogram up to 8 kHz, the loudest RANGE_DB below a full-scale sine."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 512)[:: SAMPLING_RATE // 200]
    power = np.abs(np.fft.rfft(frames * np.hanning(512)))[:, ::-1].T ** 2
    levels = np.clip(1 + 10 * np.log10(power / 1e3 + 1e-12) / RANGE_DB, 0, 1)
    positions = levels * (len(PALETTE) - 1)
    channels = [np.interp(positions, np.arange(len(PALETTE)), PALETTE[:, channel]) for channel in range(3)]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8)).resize((WIDTH, HEIGHT))


def print_times(repeats: int = 30) -> None:
    """Print the median milliseconds for three seconds of speech."""
    sentence, material = load_speech()
    speech = np.resize(sentence, 3 * SAMPLING_RATE)
    for name, kind in PERTURBATIONS.items():
        seconds = []
        for seed in range(repeats):
            started = time.perf_counter()
            perturb(speech, name, kind.strengths[len(kind.strengths) // 2], seed, material)
            seconds.append(time.perf_counter() - started)
        print(f"{name:16} {1000 * np.median(seconds):6.1f} ms")


if __name__ == "__main__":
    if sys.argv[1:] == ["--time"]:
        print_times()
    else:
        draw_figure(Path(sys.argv[1]))

"""A folder tree of many recordings, `sertone predict`, and the rows of its outputs."""

import csv
import json

import numpy as np
import soundfile

from sertone import cli

FILES = ["a/0.wav", "a/3.FLAC", "a/6.wav", "a/9.FLAC", "a/y.mp3"]
FILES += [f"b/c/{n}.{('wav', 'FLAC')[n % 2]}" for n in (1, 2, 4, 5, 7, 8)] + ["z.wav"]


def write_folder_tree(root):
    """Write twelve recordings in a folder tree with other files; two of them cannot be predicted."""
    for number in range(10):
        path = root / f"{'b/c' if number % 3 else 'a'}" / f"{number}.{('wav', 'FLAC')[number % 2]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = 0.02 * (number + 1) * np.random.default_rng(number).standard_normal(4000)
        soundfile.write(path, samples, 16000)
    (root / "z.wav").touch()
    (root / "a" / "y.mp3").write_text("no sound")
    (root / ".hidden.wav").touch()
    (root / ".git").mkdir()
    (root / ".git" / "x.wav").touch()
    (root / "readme.txt").write_text("not a recording")
    (root / "a" / "round").symlink_to(root)
    return root


def predict(*arguments):
    return cli.app(["predict", *map(str, arguments)])


def read_rows(path):
    """Return the rows of an output in either format."""
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    return [json.loads(line) for line in path.read_text().splitlines()]

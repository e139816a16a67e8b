"""A miniature of MELD's tree with tones in MP4 and invented words, and with the traps of the real corpus.

Here dialogues have ten utterances, so that row n is utterance n % 10 of dialogue n // 10.
"""

import csv
from importlib.util import find_spec
from pathlib import Path
from random import Random

import numpy as np
import soundfile

EMOTIONS = ("neutral", "joy", "surprise", "anger", "sadness", "neutral", "disgust", "fear")
SENTIMENTS = {"neutral": "neutral", "joy": "positive", "surprise": "positive"}
SPEAKERS = ("Ross", "Monica", "Chandler", "Woman", "Rachel", "Joey", "Phoebe", "Nurse", "All")
HEADER = (
    "Sr No.", "Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID",
    "Season", "Episode", "StartTime", "EndTime",
)  # fmt: skip
FOLDERS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
ROWS = {"train": 9989, "dev": 1109, "test": 2610}
# With the rows of the two unusable recordings.
FEW = {"train": [*range(50), 1252, 1253], "dev": [*range(20), 1107], "test": [*range(20)]}
BROKEN, MISSING = ("train", 1253), ("dev", 1107)


def write_miniature(root: Path, full: bool) -> None:
    """Write the tree below `root`."""
    for set_name, folder in FOLDERS.items():
        numbers = list(range(ROWS[set_name])) if full else FEW[set_name]
        _write_table(root / f"{set_name}_sent_emo.csv", numbers)
        for number in numbers:
            if (set_name, number) not in (BROKEN, MISSING):
                # The length of the name makes the seeds of the sets differ.
                write_recording(root / folder / _build_name(number), number + 10_000 * len(set_name))
    suffix = _choose_suffix()
    (root / "train_splits" / f"dia125_utt3{suffix}").write_bytes(b"no longer a recording")
    # macOS leaves such files beside copies.
    (root / "train_splits" / f"._dia0_utt0{suffix}").write_bytes(b"\0\5\x16\7AppleDouble")
    tests = root / FOLDERS["test"]
    write_recording(tests / "final_videos_testdia0_utt0", 1)  # a second recording of this row
    (tests / f"dia1_utt1{suffix}").rename(tests / f"final_videos_testdia1_utt1{suffix}")
    write_recording(tests / "dia900_utt0", 2)  # a recording without a row


def _build_name(number: int) -> str:
    return f"dia{number // 10}_utt{number % 10}"


def _choose_suffix() -> str:
    return ".mp4" if find_spec("av") else ".wav"


def _write_table(path: Path, numbers: list[int]) -> None:
    """Write a table in Windows-1252, as in the release; its apostrophes are not ASCII."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="cp1252") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for count, number in enumerate(numbers, 1):
            dialogue, utterance = divmod(number, 10)
            emotion = EMOTIONS[number % len(EMOTIONS)]
            labels = (
                f"He\u2019s in room {number}, \u201clost\u201d.",
                Random(number).choice(SPEAKERS),
                emotion,
                SENTIMENTS.get(emotion, "negative"),
            )
            times = ("00:20:57,256", "00:21:00,049")
            writer.writerow(
                [count, *labels, dialogue, utterance, 1 + dialogue % 9, 1 + dialogue % 23, *times]
            )


def write_recording(path: Path, seed: int) -> None:
    """Write a short noisy tone, as AAC in MP4 if PyAV is installed, else as WAV.

    Args:
        path: without its suffix, which is added.
        seed: seed of pitch and noise.
    """
    draw = np.random.default_rng(seed)
    wave = np.sin(2 * np.pi * draw.uniform(90, 300) * np.arange(3200) / 16000)
    samples = (0.3 * wave + 0.03 * draw.standard_normal(len(wave))).astype(np.float32)
    path = path.with_name(path.name + _choose_suffix())
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".wav":
        soundfile.write(path, samples, 16000, subtype="PCM_16")
    else:
        _write_mp4(path, samples)


def _write_mp4(path: Path, samples: np.ndarray) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)

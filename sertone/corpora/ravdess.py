"""RAVDESS, the Ryerson Audio-Visual Database of Emotional Speech and Song: English, acted.

24 professional actors, two sentences, eight emotions, 1440 audio-only speech files of 48 kHz; a few
are stereo.

Source: https://zenodo.org/record/1188976, Livingstone and Russo (2018).

Expected tree (WAV, or FLAC under the same names):
    Actor_01/03-01-06-01-02-01-01.wav
             modality-channel-emotion-intensity-statement-repetition-actor
Modality 03 is audio only, channel 01 is speech and 02 is song. Only speech in audio-only files is read.
Actors with odd numbers are men, those with even numbers are women.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from sertone.corpora._files import list_audio_files, require_folder, write_tone
from sertone.labels import Scale, make_emotion_labels
from sertone.licences import KNOWN_LICENCES
from sertone.schema import Problem, ReportProblem, Utterance, raise_on_error

TITLE = "RAVDESS"
LICENCE = KNOWN_LICENCES["cc-by-nc-sa-4.0"]
LANGUAGE = "en"
CITATION = "Livingstone, Russo, RAVDESS, PLoS ONE 2018, doi 10.1371/journal.pone.0196391"
NOTE = "Acted speech: spontaneous speech scores lower."
EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgusted",
    "08": "surprised",
}
SCALES: dict[str, Scale] = {}
TEXTS = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}
NAME = re.compile(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)")


def load_utterances(root: Path, report: ReportProblem = raise_on_error) -> Iterator[Utterance]:
    """Read the speech of `root/Actor_*`."""
    if not any(root.glob("Actor_*")):
        require_folder(root / "Actor_01", "ravdess")  # raises an error
    for path in list_audio_files(root, "Actor_*/*"):
        match = NAME.fullmatch(path.stem)
        if not match:
            report(Problem("bad_name", str(path), "expected seven two-digit fields"))
            continue
        modality, channel, emotion, intensity, statement, _, actor = match.groups()
        if modality != "03" or channel != "01":  # video, or song
            continue
        labels = make_emotion_labels(emotion, EMOTIONS, str(path), report)
        labels |= {"gender": "male" if int(actor) % 2 else "female", "style": "scripted"}
        labels |= {"intensity": "strong" if intensity == "02" else "normal"}
        yield Utterance(
            id=path.stem,
            path=path,
            speaker=actor,
            labels=dict(labels),
            text=TEXTS.get(statement),
        )


def fake(root: Path, full: bool = False) -> None:
    """Write six actors (24 with `full`), with a song, a stereo file and two identical recordings."""
    actors = [f"{n:02d}" for n in range(1, 25 if full else 7)]
    names = [
        f"03-01-{e}-{i}-{s}-{r}-{a}"
        for a in actors
        for e in EMOTIONS
        for i in ("01", "02")
        for s in TEXTS
        for r in (("01", "02") if full else ("01",))
        if not (e == "01" and i == "02")  # there is no strong neutral
    ]
    for seed, name in enumerate([*names, "03-02-01-01-01-01-01"]):
        write_tone(root / f"Actor_{name[-2:]}" / f"{name}.wav", seed, rate=48000)
    _make_stereo(root / f"Actor_01/{names[0]}.wav")
    last = root / f"Actor_{actors[-1]}"
    twin = last / f"03-01-04-01-02-02-{actors[-1]}.wav"
    twin.write_bytes((last / f"03-01-04-01-02-01-{actors[-1]}.wav").read_bytes())


def _make_stereo(path: Path) -> None:
    import numpy as np
    import soundfile

    samples, rate = soundfile.read(path)
    soundfile.write(path, np.stack([samples, 0.9 * samples], 1), rate, subtype="PCM_16")

"""A demonstration corpus of synthetic speech: generated on your machine, with nothing to download.

Ten speakers in five sessions of a woman and a man each, four emotions, improvised and scripted speech,
transcripts, and ratings of arousal, valence and dominance on a scale of 1 to 5; 400 recordings, 0.3 h,
16 kHz mono. eSpeak NG synthesises the speech. An emotion is a speaking rate, pitch, pitch range and loudness;
they differ by speaker and overlap between emotions.

The words carry information about valence, but none about arousal. Valence varies within an emotion, and
this variation is not audible. An improvised sentence is good news, bad news or neither. In 85 % of cases it
matches the utterance's valence (high, low or between), else it is one of the other two. Scripted sentences
are neither good nor bad news. The corpus shows that a pipeline works and says nothing about human emotion.

With `--full`, ten more speakers follow in sessions 6 to 10, for training on speakers that are not tested:
`data.only: {session: [Session6, Session7, Session8, Session9, Session10]}` selects them alone.

Tree, written by `fake`:
    metadata.csv           a manifest
    wav/S1F_angry_00.wav   speaker, emotion, number
"""

import csv
import ctypes
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import soundfile
import soxr

from sertone.corpora import manifest
from sertone.errors import SertoneError
from sertone.labels import DIMENSIONS, Scale
from sertone.licences import CC0, Licence
from sertone.schema import ReportProblem, Utterance, raise_on_error
from sertone.utils.extras import install_command

TITLE = "Sertone's demo (synthetic speech)"
LICENCE = Licence(
    "CC0 1.0 for the recordings; eSpeak NG, which makes them, is GPL-3.0-or-later", "cc0-1.0", True, CC0.url
)
LANGUAGE = "en"
CITATION = "eSpeak NG, https://github.com/espeak-ng/espeak-ng"
NOTE = "Synthetic speech: these scores say that the pipeline works, and nothing about human emotion."
EMOTIONS = {name: name for name in ("neutral", "happy", "angry", "sad")}
SCALES = {name: Scale(1.0, 5.0) for name in DIMENSIONS}
PROTOCOL = {"split": "leave_one_session_out"}

VARIANTS = {
    "F": ("f1", "f2", "f3", "f4", "f5", "Alicia", "Andrea", "Annie", "linda", "steph"),
    "M": ("m1", "m3", "m4", "m6", "m7", "m2", "m5", "m8", "Gene", "Denis"),
}
ACCENTS = ("en-us", "en-gb-x-rp", "en-gb-scotland", "en-us", "en-gb-x-rp") * 2
SESSIONS = 5
ALL_SESSIONS = 10  # with `--full`


@dataclass(frozen=True)
class Manner:
    """Parameters of the voice for an emotion: words per minute, pitch and range (0-100), loudness in dB."""

    rate: float
    pitch: float
    range: float
    loudness_db: float

    def shift(self, draw: Random, spread: float) -> "Manner":
        """Return a randomly shifted manner; `spread` is in units that are about equally audible."""
        return Manner(
            self.rate + draw.gauss(0, 18 * spread),
            self.pitch + draw.gauss(0, 10 * spread),
            self.range + draw.gauss(0, 15 * spread),
            self.loudness_db + draw.gauss(0, 3 * spread),
        )


NEUTRAL = Manner(165, 45, 45, -23)
MANNERS = {
    "neutral": NEUTRAL,
    "happy": Manner(185, 66, 80, -20),
    "angry": Manner(195, 50, 62, -15),
    "sad": Manner(132, 36, 22, -28),
}
RATINGS = {
    "neutral": (3.0, 3.0, 3.0),
    "happy": (3.5, 3.8, 3.4),
    "angry": (4.2, 2.3, 4.1),
    "sad": (2.0, 2.3, 2.2),
}  # in the order of labels.DIMENSIONS
SPREAD = (0.0, 0.7, 0.0)  # of the utterances of one emotion, beyond the raters' disagreement
SPEAKER_SPREAD = 0.5
TAKE_SPREAD = 0.75

SCRIPTED = (
    "The train leaves at a quarter past nine.",
    "Please put the letter on the table.",
    "They have moved the meeting to Friday.",
    "There is a message from your brother.",
    "We will see what the doctor says.",
)
OPENINGS = ("well", "you know", "so", "oh", "look", "right")
MIDDLES = {
    "bad": (
        "my neighbour complained about us again",
        "they told me I lost the job",
        "she came back with terrible news",
        "everybody said it was a failure",
        "we wasted an awful hour in the rain",
        "he shouted at me twice today",
    ),
    "neither": (
        "I was just talking to my neighbour",
        "they told me the car was ready",
        "she came back with the milk",
        "nobody said anything about it",
        "we waited there for an hour",
        "he called me twice today",
    ),
    "good": (
        "my neighbour brought us a lovely cake",
        "they told me I got the job",
        "she came back with wonderful news",
        "everybody said it was a great success",
        "we had a beautiful hour in the park",
        "he thanked me twice today",
    ),
}
LOW, HIGH = 2.6, 3.4  # the valence of bad news is below LOW, that of good news above HIGH
MATCH_PROBABILITY = 0.85
ENDINGS = ("and that was it", "or so", "you see", "I think", "if you ask me")


def load_utterances(root: Path, report: ReportProblem = raise_on_error) -> Iterator[Utterance]:
    """Read the manifest that `fake` wrote."""
    return manifest.load_utterances(root, report)


def fake(root: Path, full: bool = False, *, seed: int = 0, takes: int = 10) -> None:
    """Synthesise the corpus. The same seed gives the same bytes.

    Args:
        root: folder of the corpus.
        full: add ten speakers in sessions 6 to 10; the first ten stay the same.
        seed: seed of the random numbers.
        takes: recordings per speaker and emotion.

    Raises:
        SertoneError: `missing_extra` without espeakng-loader.
    """
    synthesiser = _Synthesiser()
    (root / "wav").mkdir(parents=True, exist_ok=True)
    rows = []
    for session in range(1, 1 + (ALL_SESSIONS if full else SESSIONS)):
        for sex in "FM":
            rows += _record_speaker(synthesiser, root, session, sex, takes, seed)
    with open(root / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _record_speaker(
    synthesiser: "_Synthesiser", root: Path, session: int, sex: str, takes: int, seed: int
) -> list[dict]:
    """Write all recordings of one speaker, and return their manifest rows."""
    speaker = f"S{session}{sex}"
    draw = Random(f"{seed} {speaker}")  # so that other speakers do not change this one
    synthesiser.choose_voice(f"{ACCENTS[session - 1]}+{VARIANTS[sex][session - 1]}")
    shift = Manner(0, 0, 0, 0).shift(draw, SPEAKER_SPREAD)
    rows = []
    for emotion, manner in MANNERS.items():
        # The speaker shifts every parameter of the emotion.
        manner = Manner(*(getattr(manner, f) + getattr(shift, f) for f in Manner.__annotations__))
        for take in range(takes):
            scripted = take < (takes + 1) // 2
            ratings = _draw_ratings(emotion, draw)
            text = SCRIPTED[take % len(SCRIPTED)] if scripted else _draw_sentence(draw, ratings["valence"])
            path = f"wav/{speaker}_{emotion}_{take:02d}.wav"
            samples = synthesiser.speak(text, manner.shift(draw, TAKE_SPREAD))
            soundfile.write(root / path, samples, 16000, subtype="PCM_16")
            rows.append(
                {
                    "path": path,
                    "speaker": speaker,
                    "session": f"Session{session}",
                    "gender": "female" if sex == "F" else "male",
                    "style": "scripted" if scripted else "improvised",
                    "emotion": emotion,
                    **ratings,
                    "text": text,
                }
            )
    return rows


def _draw_sentence(draw: Random, valence: float) -> str:
    middle = draw.choice(MIDDLES[_draw_news(draw, valence)])
    if draw.random() < 0.5:
        return f"{draw.choice(OPENINGS).capitalize()}, {middle}."
    return f"{middle[0].upper()}{middle[1:]}, {draw.choice(ENDINGS)}."


def _draw_news(draw: Random, valence: float) -> str:
    """Return the kind of news that matches the valence, or another kind in some cases."""
    match = "bad" if valence < LOW else "good" if valence > HIGH else "neither"
    if draw.random() < MATCH_PROBABILITY:
        return match
    return draw.choice([name for name in MIDDLES if name != match])


def _draw_ratings(emotion: str, draw: Random) -> dict[str, float]:
    """Return the mean ratings of three raters, each with a random error."""
    scale = SCALES["arousal"]
    centres = [
        centre + draw.gauss(0, spread) for centre, spread in zip(RATINGS[emotion], SPREAD, strict=True)
    ]
    values = (np.mean([centre + draw.gauss(0, 0.6) for _ in range(3)]) for centre in centres)
    clipped = (round(float(np.clip(value, scale.low, scale.high)), 2) for value in values)
    return dict(zip(DIMENSIONS, clipped, strict=True))


class _Synthesiser:
    """The eSpeak NG synthesiser through its C interface (speak_lib.h)."""

    SYNCHRONOUS, UTF8, RATE, PITCH, RANGE = 2, 1, 1, 3, 4

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError:
            raise SertoneError(
                "missing_extra",
                "espeakng-loader is not installed",
                way_out=install_command("demo"),
            ) from None
        # A private copy of the library starts with fresh state, so the same seed gives the same bytes.
        with tempfile.TemporaryDirectory() as folder:
            copy = shutil.copy(espeakng_loader.get_library_path(), folder)
            self.library = ctypes.CDLL(copy)
        data = espeakng_loader.get_data_path().encode()
        self.rate = self.library.espeak_Initialize(self.SYNCHRONOUS, 0, data, 0)
        # For the noise in the voice. By default its seed is the time.
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        self.chunks: list[np.ndarray] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self.callback = kind(self._collect)  # an attribute, so that it is not garbage-collected
        self.library.espeak_SetSynthCallback(self.callback)

    def _collect(self, samples, count: int, _events) -> int:
        if samples and count:
            self.chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def choose_voice(self, name: str) -> None:
        """Choose a voice such as `en-us+f2`."""
        if self.library.espeak_SetVoiceByName(name.encode()):
            raise SertoneError("unknown_voice", f"eSpeak NG has no voice {name!r}")

    def speak(self, text: str, manner: Manner) -> np.ndarray:
        """Return a text spoken in the given manner, as float samples at 16 kHz."""
        for parameter, value, low, high in (
            (self.RATE, manner.rate, 90, 320),
            (self.PITCH, manner.pitch, 0, 99),
            (self.RANGE, manner.range, 0, 99),
        ):
            value = round(min(max(value, low), high))  # a random shift may leave the valid range
            self.library.espeak_SetParameter(parameter, value, 0)
        content = text.encode()
        self.chunks.clear()
        self.library.espeak_Synth(content, len(content) + 1, 0, 1, 0, self.UTF8, None, None)
        samples = np.concatenate(self.chunks).astype(np.float64) / 32768.0
        samples = soxr.resample(samples, self.rate, 16000)
        # Scale to the loudness of the manner, in dB of full scale, and avoid clipping.
        level = 10.0 ** (manner.loudness_db / 20.0) / np.sqrt(np.mean(samples**2))
        return np.clip(samples * level, -0.98, 0.98)

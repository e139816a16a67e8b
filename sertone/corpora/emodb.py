"""EmoDB, the Berlin Database of Emotional Speech: German, acted, ten sentences, ten speakers.

535 recordings of seven emotions, five women and five men, 16 kHz mono.

Source: http://emodb.bilderbar.info, Burkhardt, Paeschke, Rolfes, Sendlmeier, Weiss (2005).

Expected tree (WAV, or FLAC under the same names):
    wav/03a01Fa.wav        speaker (2), sentence (3), emotion letter, take
"""

import re
from collections.abc import Iterator
from pathlib import Path

from sertone.corpora._files import audio_files, require, write_tone
from sertone.labels import Scale, emotion_labels
from sertone.licences import Licence
from sertone.schema import Problem, Report, Utterance, stop

TITLE = "EmoDB"
LICENCE = Licence(
    "CC0 1.0, as stated by the audEERING emodb data card; check the terms of your copy",
    "cc0-1.0",
    True,
    "https://audeering.github.io/datasets/datasets/emodb.html",
)
LANGUAGE = "de"
CITATION = "Burkhardt et al., A Database of German Emotional Speech, Interspeech 2005"
NOTE = "Acted speech: spontaneous speech scores lower."
EMOTIONS = {
    "N": "neutral",
    "F": "happy",
    "W": "angry",
    "T": "sad",
    "L": "bored",
    "E": "disgusted",
    "A": "fearful",
}
SCALES: dict[str, Scale] = {}
MEN = ("03", "10", "11", "12", "15")
WOMEN = ("08", "09", "13", "14", "16")
TEXTS = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
NAME = re.compile(r"(\d\d)([ab]\d\d)([A-Z])[a-z]")


def utterances(root: Path, report: Report = stop) -> Iterator[Utterance]:
    """Reads `root/wav`. All speech is scripted; the sentence number gives the transcript."""
    for path in audio_files(require(root / "wav", "emodb")):
        match = NAME.fullmatch(path.stem)
        if not match or match[1] not in MEN + WOMEN:
            report(Problem("bad_name", str(path), "expected a name such as 03a01Fa"))
            continue
        speaker, sentence, letter = match.groups()
        labels = emotion_labels(letter, EMOTIONS, str(path), report)
        labels |= {"gender": "male" if speaker in MEN else "female", "style": "scripted"}
        yield Utterance(
            id=path.stem, path=path, speaker=speaker, labels=dict(labels), text=TEXTS.get(sentence)
        )


def fake(root: Path, full: bool = False) -> None:
    """Writes every speaker with every emotion; with `full`, with every sentence as well."""
    sentences = list(TEXTS) if full else list(TEXTS)[:1]
    names = [f"{s}{t}{e}a" for s in sorted(MEN + WOMEN) for t in sentences for e in EMOTIONS]
    for seed, name in enumerate(names):
        write_tone(root / "wav" / f"{name}.wav", seed)
    (root / "wav" / "._03a01Fa.wav").write_bytes(b"\0\5\x16\7AppleDouble")

"""EmoDB, the Berlin Database of Emotional Speech: German, acted, ten sentences, ten speakers.

535 recordings of seven emotions, five women and five men, 16 kHz mono.

Source: http://emodb.bilderbar.info, Burkhardt, Paeschke, Rolfes, Sendlmeier, Weiss (2005).

Expected tree (WAV, or FLAC under the same names):
    wav/03a01Fa.wav        speaker (2), sentence (3), emotion letter, take
    metadata.csv           may be missing; its columns `file` and `listener_agreement` are read

`listener_agreement` is the share of twenty listeners who recognised the intended emotion. The corpus does not
say which emotions the others chose. Sertone spreads their share evenly over the other six emotions.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from sertone.corpora._files import (
    list_audio_files,
    load_optional_table,
    parse_number,
    require_folder,
    write_tone,
)
from sertone.labels import Scale, make_emotion_labels, normalise_counts
from sertone.licences import Licence
from sertone.schema import Problem, ReportProblem, Utterance, raise_on_error

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


def load_utterances(root: Path, report: ReportProblem = raise_on_error) -> Iterator[Utterance]:
    """Read `root/wav`. All speech is scripted; the sentence number gives the transcript."""
    agreement = _load_agreement(root / "metadata.csv", report)
    for path in list_audio_files(require_folder(root / "wav", "emodb")):
        match = NAME.fullmatch(path.stem)
        if not match or match[1] not in MEN + WOMEN:
            report(Problem("bad_name", str(path), "expected a name such as 03a01Fa"))
            continue
        speaker, sentence, letter = match.groups()
        labels = make_emotion_labels(letter, EMOTIONS, str(path), report)
        labels |= {"gender": "male" if speaker in MEN else "female", "style": "scripted"}
        yield Utterance(
            id=path.stem,
            path=path,
            speaker=speaker,
            labels=dict(labels),
            votes=_estimate_votes(EMOTIONS.get(letter), agreement.get(path.stem)),
            text=TEXTS.get(sentence),
        )


def _estimate_votes(intended: str | None, agreement: float | None) -> dict[str, float]:
    if intended is None or agreement is None:
        return {}
    # The other listeners' choices are unknown, so every other emotion gets the same share.
    share = (1 - agreement) / (len(EMOTIONS) - 1)
    return normalise_counts({name: agreement if name == intended else share for name in EMOTIONS.values()})


def _load_agreement(path: Path, report: ReportProblem) -> dict[str, float]:
    """Return recording -> share of the listeners who recognised the intended emotion."""
    if not path.is_file():
        return {}
    agreement = {}
    for row in load_optional_table(path, ("file", "listener_agreement"), report):
        cell = row["listener_agreement"]
        share = parse_number(cell)
        if share is not None and 0 <= share <= 1:
            agreement[Path(row["file"]).stem] = share
        elif cell:  # an empty cell is a missing value, not an error
            message = f"listener_agreement is {cell!r}; expected a share from 0 to 1"
            report(Problem("bad_number", f"{path}, {row['file']}", message))
    return agreement


def fake(root: Path, full: bool = False) -> None:
    """Write every speaker with every emotion; with `full`, with every sentence as well."""
    sentences = list(TEXTS) if full else list(TEXTS)[:1]
    names = [f"{s}{t}{e}a" for s in sorted(MEN + WOMEN) for t in sentences for e in EMOTIONS]
    for seed, name in enumerate(names):
        write_tone(root / "wav" / f"{name}.wav", seed)
    # Every fifth recording is missing in the table.
    rows = [f"wav/{name}.wav,{(20 - n % 8) / 20}" for n, name in enumerate(names) if n % 5]
    (root / "metadata.csv").write_text("\n".join(["file,listener_agreement", *rows]) + "\n")
    (root / "wav" / "._03a01Fa.wav").write_bytes(b"\0\5\x16\7AppleDouble")

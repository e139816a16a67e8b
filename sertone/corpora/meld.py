"""MELD: English, dialogues of several people from the television series Friends.

13 708 utterances of 1433 dialogues, seven emotions by three annotators who saw the video; recordings with
music, laughter of an audience, and other voices. The emotion was judged in context, sight included.

Source: https://affective-meld.github.io, Poria et al. (2019).

Expected tree (`MELD.Raw`; tables, folders and recordings also in `train/`, `dev/` and `test/`; MP4 needs the
extra `media`, WAV or FLAC under the same names do not):
    train_sent_emo.csv    dev_sent_emo.csv    test_sent_emo.csv
    train_splits/dia0_utt0.mp4
    dev_splits_complete/dia0_utt0.mp4
    output_repeated_splits_test/dia0_utt0.mp4
The tables have the columns Sr No., Utterance, Speaker, Emotion, Sentiment, Dialogue_ID, Utterance_ID, Season,
Episode, StartTime, EndTime. Numbers of dialogues begin anew on each side. Times are those of the episode, not
of the recording, and are not read.

The official split is NOT speaker-independent: the six friends are on all its sides, and most utterances are
theirs. `protocol.split: official` is therefore refused (`speaker_leak`); what can be believed is
`grouped_k_fold`, whose scores do not compare with published ones.

A speaker is one of the six by name, and anybody else by name and episode: `Woman` of two episodes is two
people, and so is whoever comes back in another one: such a person can be on two sides unnoticed. What several
say at once (`All`, `Ross and Joey`) has no known speaker.

Traps survived here: 9989, 1109 and 2610 rows, of which two have no usable recording (train dia125_utt3 is
broken, dev dia110_utt7 missing): reported and left out; apostrophes in Windows-1252, or what became of them
in UTF-8; recordings without a row, and a second series of some test recordings named `final_videos_test...`,
which is read only where the plain name is missing; `._*` files of macOS.
"""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from sertone.corpora._files import list_visible, read_text, require_folder, summarise_names
from sertone.corpora._meld_fake import write_miniature
from sertone.labels import Scale, make_emotion_labels
from sertone.licences import Licence
from sertone.schema import Problem, ReportProblem, Utterance, raise_on_error

TITLE = "MELD"
LICENCE = Licence(
    "annotations GPL-3.0; recordings of a television series, whose owners gave no terms",
    "other",
    None,
    "https://github.com/declare-lab/MELD",
)
LANGUAGE = "en"
CITATION = "Poria et al., MELD, ACL 2019, arXiv 1810.02508"
NOTE = "A scripted comedy with laughter; grouped folds keep named speakers apart, the official split not."
EMOTIONS = {
    "neutral": "neutral",
    "surprise": "surprised",
    "fear": "fearful",
    "sadness": "sad",
    "joy": "happy",
    "disgust": "disgusted",
    "anger": "angry",
}
SCALES: dict[str, Scale] = {}
PROTOCOL = {"split": "grouped_k_fold", "unknown_speakers": "accept"}
"""Several people speak in some utterances, and the tables name no single speaker there."""
SIDES = {
    "train": ("train", "train_splits"),
    "dev": ("validation", "dev_splits_complete"),
    "test": ("test", "output_repeated_splits_test"),
}
UNUSABLE = {("train", "dia125_utt3"): "broken", ("dev", "dia110_utt7"): "missing"}
COLUMNS = ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")
CAST = {
    "Chandler": "male",
    "Joey": "male",
    "Monica": "female",
    "Phoebe": "female",
    "Rachel": "female",
    "Ross": "male",
}
SEVERAL = re.compile(r"[,/&]|\b(and|all|both|every\w+|guys|girls|others)\b", re.IGNORECASE)
SUFFIXES = (".mp4", ".flac", ".wav")
SECOND = "final_videos_test"
MISREAD = {code: bytes([code]).decode("cp1252", errors="ignore") for code in range(0x80, 0xA0)}
"""Characters of Windows-1252 that were taken for Latin-1 on the way into UTF-8."""


def utterances(root: Path, report: ReportProblem = raise_on_error) -> Iterator[Utterance]:
    """Reads the tables of the three sides in turn."""
    tables = {side: _table(root, side) for side in SIDES}
    if not any(tables.values()):
        require_folder(root / "train_splits", "meld")
    for side, table in tables.items():
        if table is None:
            report(Problem("missing_side", str(root), f"no {side}_sent_emo.csv"))
        else:
            yield from _side(side, root, table, report)


def _table(root: Path, side: str) -> Path | None:
    name = f"{side}_sent_emo.csv"
    return next((path for path in (root / name, root / side / name) if path.is_file()), None)


def _side(side: str, root: Path, table: Path, report: ReportProblem) -> Iterator[Utterance]:
    media, taken, silent = _media(root, side), set(), []
    for row in _rows(table, report):
        name = f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"
        stem = name if name in media else SECOND + name
        taken.add(stem)
        if what := UNUSABLE.get((side, name)):
            report(Problem("no_recording", f"{side} {name}", f"known to be {what}: left out", "note"))
        elif stem in media:
            yield _utterance(row, f"{side}_{name}", media[stem], side, report)
        else:
            silent.append(name)
    if silent:
        report(Problem("missing_audio", str(table), summarise_names(silent, "recording", "without a file")))
    if extra := media.keys() - taken:
        message = summarise_names(extra, "recording", "without a row, passed over")
        report(Problem("unlisted_audio", str(table), message, "note"))


def _media(root: Path, side: str) -> dict[str, Path]:
    """Stem -> recording; of two with one stem WAV goes before FLAC, and that before MP4."""
    for folder in (root / SIDES[side][1], root / side / SIDES[side][1], root / side):
        files = [path for path in list_visible(folder.glob("*dia*_utt*")) if path.suffix.lower() in SUFFIXES]
        if files:
            files.sort(key=lambda path: SUFFIXES.index(path.suffix.lower()))
            return {path.stem: path for path in files}
    return {}


def _rows(table: Path, report: ReportProblem) -> list[dict[str, str]]:
    text = read_text(table, "cp1252").translate(MISREAD)
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    found = rows[0].keys() if rows else ()
    if missing := [name for name in COLUMNS if name not in found]:
        report(Problem("missing_column", str(table), f"no column {' and no column '.join(missing)}"))
        return []
    return [{name: (cell or "").strip() for name, cell in row.items() if name} for row in rows]


def _utterance(row: dict[str, str], name: str, path: Path, side: str, report: ReportProblem) -> Utterance:
    who = row["Speaker"].title()
    place = f"s{row.get('Season', '')}e{row.get('Episode', '')}"
    speaker = who if who in CAST else f"{who} {place if len(place) > 2 else name.rsplit('_', 1)[0]}"
    known = bool(who) and not SEVERAL.search(who)
    labels = make_emotion_labels(row["Emotion"].lower(), EMOTIONS, name, report) | {"style": "scripted"}
    labels |= {"sentiment": row["Sentiment"].lower()} if row.get("Sentiment") else {}
    labels |= {"gender": CAST[who]} if who in CAST else {}
    return Utterance(
        id=name,
        path=path,
        speaker=speaker if known else name,
        known_speaker=known,
        labels=dict(labels),
        text=row["Utterance"] or None,
        split=SIDES[side][0],
    )


def fake(root: Path, full: bool = False) -> None:
    """Writes 93 rows, or with `full` the 13 708 of the real one: MP4 where PyAV is there, else WAV."""
    write_miniature(root, full)

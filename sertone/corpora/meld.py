"""MELD: English, dialogues of several people from the television series Friends.

13 708 utterances of 1433 dialogues; seven emotions, labelled by three annotators who saw the video. The
recordings contain music, laughter of an audience, and other voices. The emotion was judged in context and
with the picture.

Source: https://affective-meld.github.io, Poria et al. (2019).

Expected tree (`MELD.Raw`; tables, folders and recordings also in `train/`, `dev/` and `test/`; MP4 needs the
extra `media`, WAV or FLAC under the same names do not):
    train_sent_emo.csv    dev_sent_emo.csv    test_sent_emo.csv
    train_splits/dia0_utt0.mp4
    dev_splits_complete/dia0_utt0.mp4
    output_repeated_splits_test/dia0_utt0.mp4
The tables have the columns Sr No., Utterance, Speaker, Emotion, Sentiment, Dialogue_ID, Utterance_ID, Season,
Episode, StartTime, EndTime. The numbers of the dialogues begin anew in each set. The times are those of the
episode, not of the recording, and are not read.

The official split is NOT speaker-independent: the six friends are in all three sets, and most utterances are
theirs. `protocol.split: official` is therefore refused (`speaker_leak`). Use `grouped_k_fold` for results
that you can trust; its scores are not comparable with published ones.

The six friends are identified by name. Anybody else is identified by name and episode: `Woman` in two
episodes counts as two people. A minor character who returns in another episode also counts as two people,
and can then be in two sets unnoticed. What several people say at once (`All`, `Ross and Joey`) has no known
speaker.

The reader handles these traps:
    - The tables have 9989, 1109 and 2610 rows. Two of the recordings are not usable: train dia125_utt3 is
      broken and dev dia110_utt7 is missing. Both are reported and left out.
    - Apostrophes are in Windows-1252, or were garbled by a conversion to UTF-8.
    - Some recordings have no row.
    - Some test recordings have a second version named `final_videos_test...`. It is read only if the plain
      name is missing.
    - Copies made on macOS contain `._*` files.
"""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from sertone.corpora._files import list_visible, load_text, require_folder, summarise_names
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
"""Several people speak in some utterances, so the tables name no single speaker for them."""
SETS = {
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
# Names that stand for several people, such as `All` or `Ross and Joey`.
SEVERAL = re.compile(r"[,/&]|\b(and|all|both|every\w+|guys|girls|others)\b", re.IGNORECASE)
# The last one is preferred.
SUFFIXES = (".mp4", ".flac", ".wav")
SECOND = "final_videos_test"
MISREAD = {code: bytes([code]).decode("cp1252", errors="ignore") for code in range(0x80, 0xA0)}
"""Characters of Windows-1252 that a conversion to UTF-8 read as Latin-1."""


def load_utterances(root: Path, report: ReportProblem = raise_on_error) -> Iterator[Utterance]:
    """Read the tables of the three sets in turn."""
    tables = {name: _find_table(root, name) for name in SETS}
    if not any(tables.values()):
        require_folder(root / "train_splits", "meld")
    for name, table in tables.items():
        if table is None:
            report(Problem("missing_side", str(root), f"no {name}_sent_emo.csv"))
        else:
            yield from _load_set(name, root, table, report)


def _find_table(root: Path, set_name: str) -> Path | None:
    name = f"{set_name}_sent_emo.csv"
    return next((path for path in (root / name, root / set_name / name) if path.is_file()), None)


def _load_set(set_name: str, root: Path, table: Path, report: ReportProblem) -> Iterator[Utterance]:
    media = _list_media(root, set_name)
    used_stems = set()
    missing = []
    for row in _load_rows(table, report):
        name = f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"
        stem = name if name in media else SECOND + name
        used_stems.add(stem)
        if problem := UNUSABLE.get((set_name, name)):
            message = f"known to be {problem}: left out"
            report(Problem("no_recording", f"{set_name} {name}", message, "note"))
        elif stem in media:
            yield _build_utterance(row, f"{set_name}_{name}", media[stem], set_name, report)
        else:
            missing.append(name)
    if missing:
        report(Problem("missing_audio", str(table), summarise_names(missing, "recording", "without a file")))
    if extra := media.keys() - used_stems:
        message = summarise_names(extra, "recording", "without a row, left out")
        report(Problem("unlisted_audio", str(table), message, "note"))


def _list_media(root: Path, set_name: str) -> dict[str, Path]:
    """Return stem -> recording; of files with the same stem, WAV is preferred to FLAC, and FLAC to MP4."""
    folder_name = SETS[set_name][1]
    for folder in (root / folder_name, root / set_name / folder_name, root / set_name):
        files = [path for path in list_visible(folder.glob("*dia*_utt*")) if path.suffix.lower() in SUFFIXES]
        if files:
            # The last one with a stem stays in the dictionary.
            files.sort(key=lambda path: SUFFIXES.index(path.suffix.lower()))
            return {path.stem: path for path in files}
    return {}


def _load_rows(table: Path, report: ReportProblem) -> list[dict[str, str]]:
    text = load_text(table, "cp1252").translate(MISREAD)
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    columns = rows[0].keys() if rows else ()
    if missing := [name for name in COLUMNS if name not in columns]:
        report(Problem("missing_column", str(table), f"no column {' and no column '.join(missing)}"))
        return []
    return [{name: (cell or "").strip() for name, cell in row.items() if name} for row in rows]


def _build_utterance(
    row: dict[str, str], name: str, path: Path, set_name: str, report: ReportProblem
) -> Utterance:
    person = row["Speaker"].title()
    # Without season and episode, a name counts within its dialogue.
    episode = f"s{row.get('Season', '')}e{row.get('Episode', '')}"
    context = episode if len(episode) > len("se") else name.rsplit("_", 1)[0]
    speaker = person if person in CAST else f"{person} {context}"
    is_known = bool(person) and not SEVERAL.search(person)
    labels = make_emotion_labels(row["Emotion"].lower(), EMOTIONS, name, report) | {"style": "scripted"}
    if row.get("Sentiment"):
        labels["sentiment"] = row["Sentiment"].lower()
    if person in CAST:
        labels["gender"] = CAST[person]
    return Utterance(
        id=name,
        path=path,
        speaker=speaker if is_known else name,
        known_speaker=is_known,
        labels=dict(labels),
        text=row["Utterance"] or None,
        split=SETS[set_name][0],
    )


def fake(root: Path, full: bool = False) -> None:
    """Write 93 rows, or with `full` all 13 708, as MP4 if PyAV is installed, else as WAV."""
    write_miniature(root, full)

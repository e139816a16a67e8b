"""IEMOCAP, the Interactive Emotional Dyadic Motion Capture database: English, acted dialogues.

Ten actors in five sessions of a woman and a man each; improvised and scripted; 10 039 utterances,
12 h, 16 kHz mono; labels by three raters, and ratings of valence, activation and dominance.
Votes come from the external raters (`C-E#` lines). Each rater has one vote, split equally over the categories
that the rater gave. The actors' reports about themselves and each other (`C-F#`, `C-M#`) do not count.

Source: https://sail.usc.edu/iemocap, Busso et al. (2008). Available on request, for research only.

Expected tree (`IEMOCAP_full_release`):
    Session1/dialog/EmoEvaluation/Ses01F_impro01.txt       labels, votes and ratings
    Session1/dialog/transcriptions/Ses01F_impro01.txt      `utterance [start-end]: text`
    Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav

The reader handles these traps:
    - The letter in `Ses01F` is the actor who wore the markers. The letter after the last underscore is the
      talker.
    - Sub-folders of EmoEvaluation contain other .txt files, and header lines contain brackets too.
    - Transcripts contain lines without a label (`M: ...`, `_FXX0`) and single lines in Latin-1.
    - Copies made on macOS contain `._*` files.
    - A few ratings lie outside the scale of 1 to 5.
    - Comments behind the votes are free text.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from sertone.corpora._files import list_visible, load_text, require_folder
from sertone.corpora._iemocap_fake import write_miniature
from sertone.labels import Scale, make_emotion_labels, normalise_counts
from sertone.licences import Licence
from sertone.schema import Problem, ReportProblem, Utterance, raise_on_error

TITLE = "IEMOCAP"
LICENCE = Licence(
    "IEMOCAP release form: research only, not to be passed on",
    "other",
    False,
    "https://sail.usc.edu/iemocap/Data_Release_Form_IEMOCAP.pdf",
)
LANGUAGE = "en"
CITATION = "Busso et al., IEMOCAP, Language Resources and Evaluation 2008"
NOTE = "Acted dialogues, half of them improvised."
EMOTIONS = {
    "neu": "neutral",
    "hap": "happy",
    "exc": "excited",
    "ang": "angry",
    "sad": "sad",
    "fru": "frustrated",
    "sur": "surprised",
    "fea": "fearful",
    "dis": "disgusted",
    "oth": "other",
    "xxx": "no_agreement",
}
CATEGORIES = {
    "neutral": "neutral",
    "neutral state": "neutral",
    "happiness": "happy",
    "excited": "excited",
    "anger": "angry",
    "sadness": "sad",
    "frustration": "frustrated",
    "surprise": "surprised",
    "fear": "fearful",
    "disgust": "disgusted",
    "other": "other",
}
SCALES = {name: Scale(1.0, 5.0) for name in ("valence", "arousal", "dominance")}
PROTOCOL = {"split": "leave_one_session_out"}
VOTE = re.compile(r"C-E\d+:([^(]*)")
RATINGS = re.compile(r"\[\s*([-\d.]+),\s*([-\d.]+),\s*([-\d.]+)\s*\]")
GENDERS = {"F": "female", "M": "male"}


def load_utterances(root: Path, report: ReportProblem = raise_on_error) -> Iterator[Utterance]:
    """Read the sessions in order; `activation` is called arousal."""
    if not any((root / f"Session{session}" / "dialog").is_dir() for session in range(1, 6)):
        require_folder(root / "Session1" / "dialog", "iemocap")
    for session in range(1, 6):
        dialog = root / f"Session{session}" / "dialog"
        evaluations = list_visible((dialog / "EmoEvaluation").glob("Ses*.txt"))
        if not evaluations:
            report(Problem("missing_session", str(dialog), "no evaluation files"))
        for folder in list_visible((dialog.parent / "sentences" / "wav").glob("Ses*")):
            # Without this check, recordings without an evaluation file would be lost silently.
            if folder.name not in {path.stem for path in evaluations}:
                report(Problem("missing_evaluation", str(folder), "recordings without labels"))
        for evaluation in evaluations:
            texts = _load_transcripts(dialog / "transcriptions" / evaluation.name, report)
            turns = list(_parse_dialogue(evaluation, session, texts, report))
            if not turns:
                report(Problem("empty_evaluation", str(evaluation), "the file contains no utterance"))
            yield from turns


def _parse_dialogue(
    evaluation: Path, session: int, texts: dict[str, str], report: ReportProblem
) -> Iterator[Utterance]:
    wav = evaluation.parents[2] / "sentences" / "wav" / evaluation.stem
    for fields, lines in _group_lines(_load_lines(evaluation)):
        name, raw, ratings = fields[1].strip(), fields[2].strip(), fields[3]
        talker = name.rsplit("_", 1)[-1][:1]
        if talker not in GENDERS or not name.startswith(evaluation.stem):
            expected = f"expected a name such as {evaluation.stem}_F000"
            report(Problem("bad_name", str(evaluation), f"utterance {name!r}; {expected}"))
            continue
        if name not in texts:
            report(Problem("missing_transcript", name, f"not in {evaluation.name}", "note"))
        labels = make_emotion_labels(raw, EMOTIONS, name, report) | {
            "gender": GENDERS[talker],
            "style": "improvised" if "_impro" in name else "scripted",
        }
        yield Utterance(
            id=name,
            path=wav / f"{name}.wav",
            speaker=f"Ses0{session}{talker}",
            session=f"Session{session}",
            labels=labels | _parse_ratings(ratings, name, report),
            votes=_count_votes(lines, name, report),
            text=texts.get(name),
        )


def _group_lines(lines: Sequence[str]) -> Iterator[tuple[list[str], list[str]]]:
    """Yield the four fields of each utterance's first line, and the lines below it."""
    # Header lines contain brackets too, but only a line of an utterance begins with one and has four fields.
    starts = [n for n, line in enumerate(lines) if line.startswith("[") and line.count("\t") == 3]
    for start, end in pairwise([*starts, len(lines)]):
        yield lines[start].split("\t"), list(lines[start + 1 : end])


def _count_votes(lines: Sequence[str], name: str, report: ReportProblem) -> dict[str, float]:
    """Count one vote per external rater; an unknown category is reported and does not count."""
    counts: dict[str, float] = defaultdict(float)
    for line in lines:
        if not (match := VOTE.match(line)):
            continue
        # A rater may name a category twice, which counts once.
        categories = dict.fromkeys(word for part in match[1].split(";") if (word := part.strip().lower()))
        emotions = [CATEGORIES[word] for word in categories if word in CATEGORIES]
        if len(emotions) < len(categories):
            report(Problem("unknown_vote", name, f"{line!r}; expected categories of the corpus", "note"))
        for emotion in emotions:
            counts[emotion] += 1 / len(emotions)
    return normalise_counts(counts)


def _parse_ratings(text: str, name: str, report: ReportProblem) -> dict[str, float]:
    match = RATINGS.match(text.strip())
    if not match:
        report(Problem("bad_rating", name, f"{text!r}; expected [val, act, dom]", "note"))
        return {}
    valence, activation, dominance = (float(value) for value in match.groups())
    return {"valence": valence, "arousal": activation, "dominance": dominance}


def _load_transcripts(path: Path, report: ReportProblem) -> dict[str, str]:
    """Return utterance -> text; lines in other formats and speech without a label are skipped."""
    if not path.is_file():
        report(Problem("missing_transcript", str(path), "no such file", "note"))
        return {}
    texts = {}
    for line in _load_lines(path):
        head, separator, text = line.partition("]:")
        name = head.split(" ", 1)[0]
        if separator and name.startswith("Ses") and "XX" not in name:
            texts[name] = text.strip()
    return texts


def _load_lines(path: Path) -> list[str]:
    """Return the lines of a file."""
    # Latin-1 texts contain other characters at which `str.splitlines` would split.
    return [line.rstrip("\r") for line in load_text(path).split("\n")]


def fake(root: Path, full: bool = False) -> None:
    """Write 200 utterances of the tree, or with `full` all 10 039 with the published counts."""
    write_miniature(root, full)

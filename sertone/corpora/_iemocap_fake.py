"""A miniature of IEMOCAP's tree with invented words and tones, and with the traps of the real corpus.

With `full` the marginal counts are those of the release: utterances per raw label and style, four-class
counts per session and per talker, dialogues per session, and the number of utterances whose talker
is not the actor of the dialogue's name. Beyond these counts, labels, talkers and styles are combined
at random.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from random import Random

from sertone.corpora._files import write_tone

CLASSES = ("ang", "hap", "neu", "sad")
SESSION_CLASSES = (
    (229, 278, 384, 194),
    (137, 327, 362, 197),
    (240, 286, 320, 305),
    (327, 303, 258, 143),
    (170, 442, 384, 245),
)  # per session, in the order of CLASSES; hap with exc
WOMAN_TOTALS = (528, 481, 522, 528, 590)  # four-class utterances of each session's woman
IMPROVISED = {"ang": 289, "hap": 947, "neu": 1099, "sad": 608}
EXCITED = 1041  # of the utterances that count as happy
OTHER_LABELS = {"xxx": 2507, "fru": 1849, "sur": 107, "fea": 40, "oth": 3, "dis": 2}
OTHER_IMPROVISED = 4784 - sum(IMPROVISED.values())  # 4784 utterances of all labels are improvised
OTHER_ACTOR = 2750  # four-class utterances of the talker who is not in the dialogue's name
DIALOGUES = (28, 30, 32, 30, 31)  # per session
OFF_SCALE = {
    "Ses03M_impro07_M003": (5.5, 3.0, 3.0),
    "Ses03M_impro07_M010": (5.5, 3.0, 3.0),
    "Ses03M_impro07_M013": (5.5, 3.0, 3.0),
    "Ses02M_script02_2_F046": (3.0, 3.0, 0.5),
    "Ses04M_script03_2_M009": (3.0, 3.0, 0.5),
}
TAGS = ["[LAUGHTER]"] * 120 + ["[BREATHING]"] * 27 + ["[GARBAGE]"] * 21
TAGS += ["[garbage]"] * 8 + ["[laughter]"]
CATEGORIES = {
    "neu": "Neutral",
    "hap": "Happiness",
    "exc": "Excited",
    "ang": "Anger",
    "sad": "Sadness",
    "fru": "Frustration",
    "sur": "Surprise",
    "fea": "Fear",
    "dis": "Disgust",
    "oth": "Other",
}
COMMENTS = ("", "a bit", "Anger; then amused", "mocking (?)")
WORDS = [
    "well",
    "i",
    "know",
    "you",
    "are",
    "not",
    "going",
    "to",
    "the",
    "store",
    "today",
    "because",
    "it",
    "was",
    "so",
    "much",
    "fun",
    "yesterday",
]


@dataclass
class _Turn:
    """One utterance before it is written; its `name` is assigned last."""

    session: int
    talker: str
    improvised: bool
    label: str
    dialogue: str = ""
    name: str = ""


def write_miniature(root: Path, full: bool) -> None:
    """Write the tree below `root`."""
    draw = Random(0)
    turns = _draw_four_class_turns(draw) + _draw_other_turns(draw)
    _assign_dialogues(turns, draw)
    if not full:
        turns = _select_few(draw.sample(turns, len(turns)))
    _assign_names(turns)
    tags = draw.sample(range(len(turns)), min(len(TAGS), len(turns)))
    texts = dict(zip(tags, TAGS, strict=False))
    by_dialogue = defaultdict(list)
    for index, turn in enumerate(turns):
        words = " ".join(draw.choices(WORDS, k=draw.randint(1, 12))).capitalize() + "."
        by_dialogue[turn.dialogue].append((turn, f"{texts.get(index, '')} {words}".strip()))
        seconds = draw.uniform(0.1, 0.12)
        write_tone(_build_path(root, turn), index, seconds)
    for dialogue, members in by_dialogue.items():
        _write_dialogue(root / f"Session{dialogue[4]}" / "dialog", dialogue, members, draw)
    _write_traps(root, turns[0])


def _draw_four_class_turns(draw: Random) -> list[_Turn]:
    turns = []
    for session, counts in enumerate(SESSION_CLASSES, 1):
        labels = [name for name, n in zip(CLASSES, counts, strict=True) for _ in range(n)]
        draw.shuffle(labels)
        women = WOMAN_TOTALS[session - 1]
        for index, label in enumerate(labels):
            turns.append(_Turn(session, "F" if index < women else "M", False, label))
    draw.shuffle(turns)
    for label, count in IMPROVISED.items():
        for turn in [turn for turn in turns if turn.label == label][:count]:
            turn.improvised = True
    for turn in draw.sample([turn for turn in turns if turn.label == "hap"], EXCITED):
        turn.label = "exc"
    return turns


def _draw_other_turns(draw: Random) -> list[_Turn]:
    labels = [name for name, n in OTHER_LABELS.items() for _ in range(n)]
    draw.shuffle(labels)
    return [
        _Turn(draw.randint(1, 5), draw.choice("FM"), index < OTHER_IMPROVISED, label)
        for index, label in enumerate(labels)
    ]


def _list_dialogues(session: int) -> list[str]:
    """Return as many names as the release has dialogues; some scenes have two parts (`05a`, `02_1b`)."""
    scenes = [f"impro0{n}" for n in range(1, 8)]
    scenes += [f"script0{n}" for n in ("1_1", "1_2", "1_3", "2_1", "2_2", "3_1", "3_2")]
    names = [f"Ses0{session}{actor}_{scene}" for actor in "FM" for scene in scenes]
    extra = [f"Ses0{session}F_impro05a", f"Ses0{session}M_impro08b"]
    extra += [f"Ses0{session}F_script02_1b", f"Ses0{session}M_script01_3a"]
    return names + extra[: DIALOGUES[session - 1] - len(names)]


def _assign_dialogues(turns: list[_Turn], draw: Random) -> None:
    """Assign each turn to a dialogue; OTHER_ACTOR four-class turns go to dialogues of the other actor."""
    for index, turn in enumerate(turns):
        # The four-class turns come first in the list.
        is_other = index < OTHER_ACTOR if turn.label in (*CLASSES, "exc") else draw.random() < 0.5
        actor = {"F": "M", "M": "F"}[turn.talker] if is_other else turn.talker
        kind = "_impro" if turn.improvised else "_script"
        fitting = [n for n in _list_dialogues(turn.session) if n[5] == actor and kind in n]
        turn.dialogue = draw.choice(fitting)


def _select_few(turns: list[_Turn]) -> list[_Turn]:
    """Return the first forty utterances of each session, from any of its dialogues."""
    return [turn for s in range(1, 6) for turn in [t for t in turns if t.session == s][:40]]


def _assign_names(turns: list[_Turn]) -> None:
    counts: dict[str, int] = defaultdict(int)
    for turn in turns:
        stem = f"{turn.dialogue}_{turn.talker}"
        turn.name = f"{stem}{counts[stem]:03d}"
        counts[stem] += 1
    # The utterances with ratings off the scale must exist: another turn of the dialogue gets the name.
    by_name = {turn.name: turn for turn in turns}
    for name in OFF_SCALE:
        candidates = [turn for turn in by_name.values() if turn.name[:-3] == name[:-3]]
        if name not in by_name and candidates:
            candidates[-1].name = name
    turns.sort(key=lambda turn: turn.name)


def _build_path(root: Path, turn: _Turn) -> Path:
    session = root / f"Session{turn.session}" / "sentences" / "wav"
    return session / turn.dialogue / f"{turn.name}.wav"


def _write_dialogue(dialog: Path, name: str, members: list[tuple[_Turn, str]], draw: Random) -> None:
    blocks = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n"]
    lines = []
    for number, (turn, text) in enumerate(members):
        start = 5.0 * number
        ratings = OFF_SCALE.get(turn.name) or [draw.randint(2, 10) / 2 for _ in range(3)]
        values = ", ".join(f"{value:.4f}" for value in ratings)
        times = f"[{start:.4f} - {start + 4.5:.4f}]"
        blocks.append(
            f"{times}\t{turn.name}\t{turn.label}\t[{values}]\n"
            f"{_draw_votes(turn.label, draw)}C-F1:\tDisgust;\t()\nC-M1:\tDisgust; Fear;\t()\n"
            "A-E3:\tval 3; act 2; dom  3;\t()\n"
        )
        lines.append(f"{turn.name} [{start:08.4f}-{start + 4.5:08.4f}]: {text}\n")
    lines.append(f"{name}_{members[0][0].talker}XX0 [900.0000-901.0000]: Speech without a label.\n")
    lines.append("M: A line without an utterance.\n")
    for folder, content in (
        ("EmoEvaluation", "\n".join(blocks)),
        ("transcriptions", "".join(lines)),
    ):
        (dialog / folder).mkdir(parents=True, exist_ok=True)
        (dialog / folder / f"{name}.txt").write_text(content, encoding="utf-8")


def _draw_votes(label: str, draw: Random) -> str:
    """Return lines of three raters: two give the label; if there is no label, all three differ."""
    words = draw.sample(list(CATEGORIES.values()), 3)
    if label in CATEGORIES:
        words[:2] = [CATEGORIES[label], CATEGORIES[label]]
    # The third rater gives the same category twice, and another one.
    words[2] += f"; {words[2]}; {draw.choice(list(CATEGORIES.values()))}"
    raters = draw.sample(range(1, 5), 3)
    lines = [f"C-E{n}:\t{word};\t({draw.choice(COMMENTS)})\n" for n, word in zip(raters, words, strict=True)]
    return "".join(lines) + "C-E9:\t;\t()\n"  # a rater without a vote


def _write_traps(root: Path, turn: _Turn) -> None:
    dialog = root / f"Session{turn.session}" / "dialog"
    # The reader must skip evaluation files in sub-folders.
    for folder in ("Attribute", "Categorical", "Self-evaluation"):
        other = dialog / "EmoEvaluation" / folder / f"{turn.dialogue}_e1.txt"
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_text(f"{turn.name} :Neutral state; :()\n")
    # A line in Latin-1, with a character at which str.splitlines would split.
    transcript = dialog / "transcriptions" / f"{turn.dialogue}.txt"
    lines = transcript.read_bytes().split(b"\n")
    lines[0] += " So I said]: caf\xe9\x85 and tea.".encode("latin-1")
    transcript.write_bytes(b"\r\n".join(lines))
    for path in (transcript, dialog / "EmoEvaluation" / f"{turn.dialogue}.txt", _build_path(root, turn)):
        (path.parent / f"._{path.name}").write_bytes(b"\0\5\x16\7AppleDouble")

"""Who trains, who validates, who tests: folds that share no speaker."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from sertone.errors import SertoneError
from sertone.recipe import ProtocolConfig, Split
from sertone.schema import Utterance
from sertone.scoring.display import format_count, shorten_list

SPLITS = get_args(Split)
EMOTION = ("emotion",)


@dataclass(frozen=True)
class Fold:
    """One split.

    Attributes:
        name: what is held out.
        train: utterances to learn from.
        validation: utterances that choose the epoch; may be empty.
        test: utterances to score.
    """

    name: str
    train: list[Utterance]
    validation: list[Utterance]
    test: list[Utterance]

    @property
    def subsets(self) -> dict[str, list[Utterance]]:
        """The three sides by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def make_folds(
    utterances: Sequence[Utterance],
    split: str,
    *,
    folds: int = 5,
    validation: str = "none",
    tasks: Sequence[str] = EMOTION,
) -> list[Fold]:
    """Splits a corpus.

    Args:
        utterances: those that are in the classes, or have no emotion label. A speaker without any label
            is never held out: there would be nothing to score. An utterance of somebody unknown counts
            as a person of its own, who neither chooses the epoch nor has a fold of leave-one-speaker-out.
        split: one of SPLITS.
        folds: how many folds `grouped_k_fold` makes.
        validation: `speaker` takes one speaker out of training to choose the epoch; leave-one-speaker-
            out always does, and official splits bring their own validation side.
        answers: the tasks that the model is for, of which an utterance must have one to be scored.

    Raises:
        SertoneError: `unknown_split`, `no_sessions`, `no_official_split`, `too_few_speakers`.
    """
    if split not in SPLITS:
        raise SertoneError("unknown_split", f"split {split!r}", f"one of {', '.join(SPLITS)}")
    if split == "official":
        return [_official(utterances)]
    scored = [u for u in utterances if has_label(u, tasks)]
    takes_speaker = validation == "speaker" or split == "leave_one_speaker_out"
    made = []
    for number, (name, held_out) in enumerate(_held_out_groups(scored, split, folds).items()):
        test = [u for u in utterances if u.speaker in held_out]
        rest = [u for u in utterances if u.speaker not in held_out]
        choosers = [u for u in scored if u.speaker not in held_out and u.known_speaker]
        chooser = _validation_speaker(test, choosers, number) if takes_speaker else None
        made.append(
            Fold(
                name,
                [u for u in rest if u.speaker != chooser],
                [u for u in rest if u.speaker == chooser],
                test,
            )
        )
    return made


def require_known_speakers(utterances: Sequence[Utterance], protocol: ProtocolConfig) -> None:
    """Refuse to split utterances of unknown speakers: nothing tells who is on two sides.

    An official split is not ours: its publisher decided who is on which side.

    Args:
        utterances: those that take part.
        protocol: says whether they are accepted.

    Raises:
        SertoneError: `unknown_speakers`.
    """
    unknown = sum(not u.known_speaker for u in utterances)
    if unknown and protocol.split != "official" and protocol.unknown_speakers == "refuse":
        raise SertoneError(
            "unknown_speakers",
            f"{unknown} of {len(utterances)} utterances are of unknown speakers, so nobody knows whether a "
            f"speaker is on two sides of {protocol.split}",
            "the speaker of every utterance",
            "name the speakers, or set protocol.unknown_speakers: accept; pages and cards then say that "
            "independence of speakers is not known",
        )


def is_speaker_independent(utterances: Sequence[Utterance]) -> bool | str:
    """Return True where every speaker is known, else `not known`: folds only keep known speakers apart."""
    return all(u.known_speaker for u in utterances) or "not known"


def has_label(utterance: Utterance, answers: Sequence[str]) -> bool:
    """Whether an utterance has a label of one of these tasks."""
    return any(task in utterance.labels for task in answers)


def make_full_fold(
    utterances: Sequence[Utterance], validation: str = "none", answers: Sequence[str] = EMOTION
) -> Fold:
    """One fold that trains on all, to be used rather than scored.

    With `validation` = `speaker` the last known speaker is kept out to choose the epoch.

    Raises:
        SertoneError: `too_few_speakers`.
    """
    labelled = [u.speaker for u in utterances if has_label(u, answers) and u.known_speaker]
    if validation == "speaker":
        _need(len(set(labelled)), 1, "protocol.validation: speaker")
    chooser = max(labelled) if validation == "speaker" else None
    return Fold(
        "all",
        [u for u in utterances if u.speaker != chooser],
        [u for u in utterances if u.speaker == chooser],
        [],
    )


def _held_out_groups(utterances: Sequence[Utterance], split: str, folds: int) -> dict[str, set[str]]:
    """Fold name -> the speakers held out."""
    if split == "leave_one_speaker_out":
        known = sorted({u.speaker for u in utterances if u.known_speaker})
        _need(len(known), 3, "leave_one_speaker_out")
        return {speaker: {speaker} for speaker in known}
    if split == "leave_one_session_out":
        return _sessions(utterances)
    speakers = len({u.speaker for u in utterances})
    _need(speakers, folds, f"grouped_k_fold with {folds} folds", f"set protocol.folds: {speakers}")
    from sklearn.model_selection import GroupKFold

    groups = [u.speaker for u in utterances]
    parts = GroupKFold(folds).split(groups, groups=groups)
    held_out = [{groups[index] for index in test} for _, test in parts]
    return {_group_name(number, names): names for number, names in enumerate(held_out, 1)}


def _group_name(number: int, speakers: set[str]) -> str:
    return " ".join(sorted(speakers)) if len(speakers) < 4 else f"group {number}"


def _sessions(utterances: Sequence[Utterance]) -> dict[str, set[str]]:
    sessions = defaultdict(set)
    for u in utterances:
        sessions[u.session].add(u.speaker)
    if None in sessions or len(sessions) < 2:
        without = ", and utterances without one" if None in sessions else ""
        raise SertoneError(
            "no_sessions",
            f"{format_count(len(set(sessions) - {None}), 'session')}{without}",
            "two or more, and one for every utterance",
            "use protocol.split: grouped_k_fold",
        )
    times = Counter(speaker for speakers in sessions.values() for speaker in speakers)
    if several := sorted(speaker for speaker, n in times.items() if n > 1):
        raise SertoneError(
            "speaker_in_two_sessions",
            f"{shorten_list(several)} in more than one session",
            "sessions that share no speaker",
            "use protocol.split: grouped_k_fold",
        )
    return {str(name): speakers for name, speakers in sorted(sessions.items(), key=str)}


def _need(speakers: int, expected: int, rule: str, way_out: str = "") -> None:
    if speakers < expected:
        raise SertoneError(
            "too_few_speakers",
            format_count(speakers, "speaker"),
            f"at least {expected} for {rule}",
            way_out if speakers > 1 else "without a second speaker no split is speaker-independent",
        )


def _validation_speaker(test: list[Utterance], rest: list[Utterance], number: int) -> str:
    """The test speaker's partner in the same session where there is one, else another in turn."""
    sessions = {u.session for u in test} - {None}
    partners = sorted({u.speaker for u in rest if u.session in sessions})
    others = sorted({u.speaker for u in rest})
    _need(len(others), 1, "protocol.validation: speaker")
    return partners[0] if partners else others[number % len(others)]


def _official(utterances: Sequence[Utterance]) -> Fold:
    sides = {side: [u for u in utterances if u.split == side] for side in ("train", "validation", "test")}
    if not sides["train"] or not sides["test"]:
        raise SertoneError(
            "no_official_split",
            f"{len(sides['train'])} training and {format_count(len(sides['test']), 'test utterance')}",
            "both, marked in the corpus (a manifest's column `split`)",
            "use protocol.split: grouped_k_fold",
        )
    return Fold("official", **sides)

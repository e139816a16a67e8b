"""Split a corpus into folds whose training, validation and test sets share no speaker."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from sertone.errors import SertoneError
from sertone.recipe import ProtocolConfig, Split
from sertone.schema import Utterance
from sertone.utils.wording import format_count, shorten_list

SPLITS = get_args(Split)
EMOTION = ("emotion",)


@dataclass(frozen=True)
class Fold:
    """One split.

    Attributes:
        name: name of the speakers or session in the test set; or `group 1`, `official`, `all`.
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
        """Training, validation and test set by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def make_folds(
    utterances: Sequence[Utterance],
    split: str,
    *,
    folds: int = 5,
    validation: str = "none",
    tasks: Sequence[str] = EMOTION,
) -> list[Fold]:
    """Split a corpus.

    Args:
        utterances: those that are in the classes, or have no emotion label. A speaker without any label
            is never in a test set, because there would be nothing to score. An utterance of an unknown
            speaker counts as a separate person, who neither chooses the epoch nor has a fold of
            leave-one-speaker-out.
        split: one of SPLITS.
        folds: the number of folds that `grouped_k_fold` makes.
        validation: `speaker` takes one speaker out of training to choose the epoch. Leave-one-speaker-out
            always does, and official splits have their own validation set.
        tasks: the main tasks of the model. An utterance is scored only if it has a label of one of them.

    Raises:
        SertoneError: `unknown_split`, `no_sessions`, `speaker_in_two_sessions`, `no_official_split`,
            `too_few_speakers`.
    """
    if split not in SPLITS:
        raise SertoneError("unknown_split", f"split {split!r}", f"one of {', '.join(SPLITS)}")
    if split == "official":
        return [_make_official_fold(utterances)]
    labelled = [u for u in utterances if has_label(u, tasks)]
    takes_speaker = validation == "speaker" or split == "leave_one_speaker_out"
    result = []
    for number, (name, test_speakers) in enumerate(_group_test_speakers(labelled, split, folds).items()):
        test = [u for u in utterances if u.speaker in test_speakers]
        remaining = [u for u in utterances if u.speaker not in test_speakers]
        chooser = None
        if takes_speaker:
            # Only known speakers with labels can choose the epoch.
            candidates = [u for u in labelled if u.speaker not in test_speakers and u.known_speaker]
            chooser = _choose_validation_speaker(test, candidates, number)
        train = [u for u in remaining if u.speaker != chooser]
        result.append(Fold(name, train, [u for u in remaining if u.speaker == chooser], test))
    return result


def require_known_speakers(utterances: Sequence[Utterance], protocol: ProtocolConfig) -> None:
    """Refuse to split utterances of unknown speakers, who may be in two sets of a fold unnoticed.

    An official split is accepted, because its publisher has decided which set each speaker is in.

    Args:
        utterances: those that take part.
        protocol: may accept unknown speakers.

    Raises:
        SertoneError: `unknown_speakers`.
    """
    unknown = sum(not u.known_speaker for u in utterances)
    if unknown and protocol.split != "official" and protocol.unknown_speakers == "refuse":
        raise SertoneError(
            "unknown_speakers",
            f"{unknown} of {len(utterances)} utterances are of unknown speakers, so it is not known whether "
            f"{protocol.split} separates the speakers",
            "the speaker of every utterance",
            "name the speakers, or set protocol.unknown_speakers: accept; pages and cards then say that "
            "speaker independence is not known",
        )


def is_speaker_independent(utterances: Sequence[Utterance]) -> bool | str:
    """Return True where every speaker is known, else `not known`, as folds only separate known speakers."""
    return all(u.known_speaker for u in utterances) or "not known"


def has_label(utterance: Utterance, tasks: Sequence[str]) -> bool:
    """Return True where an utterance has a label of one of these tasks."""
    return any(task in utterance.labels for task in tasks)


def make_full_fold(
    utterances: Sequence[Utterance], validation: str = "none", tasks: Sequence[str] = EMOTION
) -> Fold:
    """Return one fold that trains on all utterances, for a model to use rather than to score.

    With `validation` = `speaker` the last known speaker chooses the epoch and is not trained on.

    Raises:
        SertoneError: `too_few_speakers`.
    """
    speakers = [u.speaker for u in utterances if has_label(u, tasks) and u.known_speaker]
    chooser = None
    if validation == "speaker":
        _require_speakers(len(set(speakers)), 1, "protocol.validation: speaker")
        chooser = max(speakers)  # any speaker would do, but always the same one
    train = [u for u in utterances if u.speaker != chooser]
    return Fold("all", train, [u for u in utterances if u.speaker == chooser], [])


def _group_test_speakers(utterances: Sequence[Utterance], split: str, folds: int) -> dict[str, set[str]]:
    """Return fold name -> the speakers of its test set."""
    if split == "leave_one_speaker_out":
        speakers = sorted({u.speaker for u in utterances if u.known_speaker})
        # One speaker to test, one to choose the epoch, one to train on.
        _require_speakers(len(speakers), 3, "leave_one_speaker_out")
        return {speaker: {speaker} for speaker in speakers}
    if split == "leave_one_session_out":
        return _group_by_session(utterances)
    count = len({u.speaker for u in utterances})
    _require_speakers(count, folds, f"grouped_k_fold with {folds} folds", f"set protocol.folds: {count}")
    from sklearn.model_selection import GroupKFold  # here, because its import is slow

    groups = [u.speaker for u in utterances]
    parts = GroupKFold(folds).split(groups, groups=groups)
    test_speakers = [{groups[index] for index in test} for _, test in parts]
    return {_name_group(number, speakers): speakers for number, speakers in enumerate(test_speakers, 1)}


def _name_group(number: int, speakers: set[str]) -> str:
    # A few names fit into tables; more do not.
    return " ".join(sorted(speakers)) if len(speakers) < 4 else f"group {number}"


def _group_by_session(utterances: Sequence[Utterance]) -> dict[str, set[str]]:
    sessions = defaultdict(set)
    for u in utterances:
        sessions[u.session].add(u.speaker)
    if None in sessions or len(sessions) < 2:
        without = ", and utterances without a session" if None in sessions else ""
        raise SertoneError(
            "no_sessions",
            f"{format_count(len(set(sessions) - {None}), 'session')}{without}",
            "two or more sessions, and a session for every utterance",
            "use protocol.split: grouped_k_fold",
        )
    counts = Counter(speaker for speakers in sessions.values() for speaker in speakers)
    if repeated := sorted(speaker for speaker, count in counts.items() if count > 1):
        raise SertoneError(
            "speaker_in_two_sessions",
            f"{shorten_list(repeated)} in more than one session",
            "sessions that share no speaker",
            "use protocol.split: grouped_k_fold",
        )
    return {str(name): speakers for name, speakers in sorted(sessions.items(), key=str)}


def _require_speakers(speakers: int, expected: int, rule: str, way_out: str = "") -> None:
    if speakers < expected:
        raise SertoneError(
            "too_few_speakers",
            format_count(speakers, "speaker"),
            f"at least {expected} for {rule}",
            way_out if speakers > 1 else "without a second speaker no split is speaker-independent",
        )


def _choose_validation_speaker(test: list[Utterance], candidates: list[Utterance], number: int) -> str:
    """Return the test speaker's partner in the same session if there is one, else another speaker in turn.

    A partner in the training set would bring the dialogues of the test set into training.
    """
    sessions = {u.session for u in test} - {None}
    partners = sorted({u.speaker for u in candidates if u.session in sessions})
    speakers = sorted({u.speaker for u in candidates})
    _require_speakers(len(speakers), 1, "protocol.validation: speaker")
    # The number of the fold lets different speakers choose the epochs of different folds.
    return partners[0] if partners else speakers[number % len(speakers)]


def _make_official_fold(utterances: Sequence[Utterance]) -> Fold:
    subsets = {name: [u for u in utterances if u.split == name] for name in ("train", "validation", "test")}
    if not subsets["train"] or not subsets["test"]:
        training, test = len(subsets["train"]), len(subsets["test"])
        raise SertoneError(
            "no_official_split",
            f"{training} training and {format_count(test, 'test utterance')}",
            "both, marked in the corpus (a manifest's column `split`)",
            "use protocol.split: grouped_k_fold",
        )
    return Fold("official", **subsets)

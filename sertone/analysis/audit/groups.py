"""Groups of speakers: by what the corpus says of them, and by their pitch."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from sertone.analysis.audit.fairness import MIN_SPEAKERS, MIN_UTTERANCES, measure_spreads
from sertone.analysis.audit.material import AuditedSpeech
from sertone.analysis.audit.pitch import group_by_pitch, measure_pitch
from sertone.analysis.audit.verdicts import Test, require_at_most, skip
from sertone.training.data.perturber import FULL_SCALE

ATTRIBUTES = {"gender": "sex", "language": "language", "accent": "accent", "age": "age"}
"""Label of an utterance -> what its groups are called."""


def measure_groups(speech: AuditedSpeech, labels: Sequence[str]) -> tuple[dict[str, Any], list[Test]]:
    """Compare the groups of every attribute.

    Args:
        speech: utterances and their audio.
        labels: the model's answers to the recordings as they are.

    Returns:
        attribute -> spreads, and tests of them.
    """
    fairness: dict[str, Any] = {}
    tests: list[Test] = []
    for name, groups in _list_groups(speech).items():
        speakers = [u.speaker for u in speech.utterances]
        spreads = measure_spreads(speech.targets, labels, groups, speakers, speech.subject.classes)
        if not spreads:
            reason = f"no two groups of {MIN_UTTERANCES} utterances and {MIN_SPEAKERS} speakers are known"
            tests.append(skip("fairness", name, reason))
            continue
        fairness[name] = [asdict(spread) for spread in spreads]
        tests += [
            require_at_most("fairness", f"{name}, {spread.score}", spread.value, spread.threshold)
            for spread in spreads
        ]
    return fairness, tests


def _list_groups(speech: AuditedSpeech) -> dict[str, list[str]]:
    """Return attribute -> group of each utterance; empty where it or the speaker is not known."""
    known = [u for u in speech.utterances if u.known_speaker]
    pitches = [measure_pitch(speech.recordings.samples(u) / np.float32(FULL_SCALE)) for u in known]
    by_pitch = dict(
        zip([u.id for u in known], group_by_pitch(pitches, [u.speaker for u in known]), strict=True)
    )
    groups = {
        name: [str(u.labels.get(key, "")) if u.known_speaker else "" for u in speech.utterances]
        for key, name in ATTRIBUTES.items()
    }
    return groups | {"pitch": [by_pitch.get(u.id, "") for u in speech.utterances]}

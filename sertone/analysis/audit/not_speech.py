"""How often a model labels sounds that are no speech, and how sure it is."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sertone.analysis.audit.answers import NO_LABEL, Answers
from sertone.analysis.audit.sounds import NOT_SPEECH, UNUSUAL_VOICES, make_sound
from sertone.analysis.audit.verdicts import Test, require_at_most, skip
from sertone.audio import SAMPLING_RATE
from sertone.runtime.predictor import Predictor

SOUNDS = 20
"""Number of sounds of each kind, which differ in their seeds."""
MAX_LABELLED = 0.05
"""Largest share of sounds without speech that may get a label."""


@dataclass(frozen=True)
class SoundResult:
    """The answers to one kind of sound.

    Attributes:
        labelled: share of the sounds with a label or ratings.
        sure: share of the sounds with a sure label.
        usual: the most frequent label; empty without any.
        is_voice: whether it is a voice, which may have a label.
    """

    labelled: float
    sure: float
    usual: str
    is_voice: bool


def measure_sounds(
    predictor: Predictor, folder: Path, say: Callable[[str], None]
) -> tuple[dict[str, dict[str, Any]], list[Test]]:
    """Answer to sounds, or read the answers of an audit that was stopped.

    Args:
        predictor: the model; for a run the one of its first fold.
        folder: folder with the answers.
        say: called with a description of every step.

    Returns:
        kind of sound -> result, and tests of them.
    """
    if not predictor.model.uses_audio:
        return {}, [skip("not speech", "sounds", "the model uses the text alone")]
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, SoundResult] = {}
    for name, make in {**NOT_SPEECH, **UNUSUAL_VOICES}.items():
        path = folder / f"sound_{name.replace(' ', '_')}.csv"
        if not path.is_file():
            predictions = [predictor.predict(make_sound(make, seed), SAMPLING_RATE) for seed in range(SOUNDS)]
            names = [*predictor.classes, *predictor.scales]
            Answers.from_predictions([f"{name} {n}" for n in range(SOUNDS)], predictions, names).save(path)
            say(name)
        results[name] = _summarise(Answers.load(path), name in UNUSUAL_VOICES)
    return {name: asdict(result) for name, result in results.items()}, _judge(results)


def _summarise(answers: Answers, is_voice: bool) -> SoundResult:
    labels = [label for label in answers.labels if label != NO_LABEL]
    usual = max(sorted(set(labels)), key=labels.count, default="")
    return SoundResult(float(answers.answered.mean()), float(answers.sure.mean()), usual, is_voice)


def _judge(results: Mapping[str, SoundResult]) -> list[Test]:
    note = f"share of {SOUNDS} sounds with a label"
    return [
        require_at_most("not speech", name, result.labelled, MAX_LABELLED, note)
        for name, result in results.items()
        if not result.is_voice
    ]

"""The recordings of an audit, as they are and perturbed, and the answers to them.

Answers are kept in files, one for each perturbation and strength, so that an audit that was stopped resumes.

Axis letters: N samples.
"""

import zlib
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from sertone.analysis.audit.answers import Answers
from sertone.analysis.audit.subject import Subject
from sertone.audio import SAMPLING_RATE
from sertone.perturb import PERTURBATIONS, Material
from sertone.perturb.perturbations import perturb
from sertone.schema import Prediction, Utterance
from sertone.training.data.perturber import FULL_SCALE, TrainingSpeech
from sertone.training.data.recordings import Recordings
from sertone.utils.processes import run_in_order

UNCHANGED = "unchanged"
"""Name of the answers to the recordings as they are."""


@dataclass(frozen=True)
class Condition:
    """A perturbation at one strength; `UNCHANGED` has strength 0."""

    name: str = UNCHANGED
    strength: float = 0.0

    @property
    def file_name(self) -> str:
        """Name of the file with the answers."""
        return f"{self.name}_{self.strength:g}.csv" if self.name != UNCHANGED else f"{UNCHANGED}.csv"


@dataclass(frozen=True)
class AuditedSpeech:
    """A model, and the utterances on which it is audited.

    Attributes:
        subject: the model.
        utterances: utterances in order.
        recordings: their audio.
        material: noises and impulse responses of the user.
    """

    subject: Subject
    utterances: Sequence[Utterance]
    recordings: Recordings
    material: Material

    @property
    def targets(self) -> list[str]:
        """The class of each utterance; empty where its emotion has none."""
        return [str(self.subject.class_map.get(str(u.labels.get("emotion")), "")) for u in self.utterances]

    def hash_inputs(self) -> dict[str, str]:
        """Return hashes of all that the answers depend on beside the model."""
        digest = sha256()
        for u, target in zip(self.utterances, self.targets, strict=True):
            digest.update(
                f"{u.id}\0{u.speaker}\0{target}\0{u.text}\0".encode() + self.recordings.hashes[u.id]
            )
        own = [*self.material.noises, *self.material.impulse_responses]
        return {"speech": digest.hexdigest(), "own": sha256(b"".join(x.tobytes() for x in own)).hexdigest()}

    def list_conditions(self, names: Sequence[str]) -> list[Condition]:
        """Return the recordings as they are and every strength of the perturbations that have material.

        A model that has no classes, or uses the text alone, is only asked for the recordings as they are.
        """
        if not self.subject.classes or not self.subject.uses_audio:
            return [Condition()]
        own = {"noises": self.material.noises, "impulse_responses": self.material.impulse_responses}
        usable = [name for name in names if len(own.get(PERTURBATIONS[name].material, "other utterances"))]
        strengths = [(name, strength) for name in usable for strength in PERTURBATIONS[name].strengths]
        return [Condition(), *(Condition(*pair) for pair in strengths)]

    def answer(self, condition: Condition) -> Answers:
        """Return the answers to all utterances under a condition."""
        material = replace(self.material, speech=TrainingSpeech(self.recordings, self.utterances))
        predictions = [self._predict(utterance, condition, material) for utterance in self.utterances]
        names = [*self.subject.classes, *self.subject.scales]
        return Answers.from_predictions([u.id for u in self.utterances], predictions, names)

    def _predict(self, utterance: Utterance, condition: Condition, material: Material) -> Prediction:
        samples = self.recordings.samples(utterance) / np.float32(FULL_SCALE)
        if condition.name != UNCHANGED:
            # Every utterance has its own noise, the same for all models and at all strengths.
            seed = zlib.crc32(f"{condition.name} {utterance.id}".encode())
            samples = perturb(samples, condition.name, condition.strength, seed, material)
        text = utterance.text if self.subject.uses_text else None
        return self.subject.choose_predictor(utterance).predict(samples, SAMPLING_RATE, text=text)


def collect_answers(
    speech: AuditedSpeech,
    conditions: Sequence[Condition],
    folder: Path,
    jobs: int,
    say: Callable[[str], None],
) -> dict[Condition, Answers]:
    """Answer under every condition that has no file yet, in several processes, and write the files.

    Args:
        speech: model and utterances.
        conditions: perturbations and strengths.
        folder: of the files.
        jobs: number of processes.
        say: called with a description of every step.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [condition for condition in conditions if not (folder / condition.file_name).is_file()]
    with closing(_answer_all(speech, missing, jobs)) as answered:
        for number, (condition, answers) in enumerate(answered, 1):
            answers.save(folder / condition.file_name)
            say(f"{condition.name} {condition.strength:g}  {number} of {len(missing)}")
    return {condition: Answers.load(folder / condition.file_name) for condition in conditions}


def _answer_all(
    speech: AuditedSpeech, conditions: Sequence[Condition], jobs: int
) -> Generator[tuple[Condition, Answers], None, None]:
    if jobs == 1:
        for condition in conditions:
            yield condition, speech.answer(condition)
        return
    calls = ((speech, condition) for condition in conditions)
    # A process loads the models once, see `Bundle.__reduce__` and `TorchModel.__reduce__`.
    with closing(run_in_order(jobs, AuditedSpeech.answer, calls)) as futures:
        for (_, condition), future in futures:
            yield condition, future.result()

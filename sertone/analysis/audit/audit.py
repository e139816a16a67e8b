"""The whole audit: recordings as they are and perturbed, groups of speakers, sounds that are no speech."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sertone import corpora, transcripts
from sertone.analysis.audit.answers import Answers
from sertone.analysis.audit.audit_files import (
    ANSWERS,
    claim_folder,
    replace_nan,
    save_utterances,
    write_files,
)
from sertone.analysis.audit.correctness import measure_correctness
from sertone.analysis.audit.groups import measure_groups
from sertone.analysis.audit.material import AuditedSpeech, Condition, collect_answers
from sertone.analysis.audit.not_speech import measure_sounds
from sertone.analysis.audit.robustness import Point, find_tolerated_strength, measure_point
from sertone.analysis.audit.subject import Subject
from sertone.analysis.audit.verdicts import Part, Test, require_at_most, skip
from sertone.errors import SertoneError
from sertone.export.bundle_cache import resolve_model_folder
from sertone.perturb import PERTURBATIONS, Material
from sertone.protocol.leaks import hash_recordings
from sertone.recipe import DataConfig, Recipe, resolve_data
from sertone.runtime import shipped
from sertone.runtime.batch import workers
from sertone.schema import Utterance
from sertone.sharing.model_folder import hash_model
from sertone.training.data.recordings import Recordings
from sertone.training.runs.run_folder import lock

FORMAT = 1
CACHE_GB = 4.0
"""Memory for decoded audio, in gigabytes."""
MAX_LOSS = 0.05
"""Largest loss of UA at the mildest strength of a perturbation that passes."""
MAX_WRONG_SURE = 0.2
"""Largest share of wrong labels among the sure ones that passes, at the strongest strength."""


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """Settings of an audit.

    Attributes:
        utterances: largest number of utterances; of a larger corpus, as many of each emotion as possible.
        perturbations: names of the perturbations; None: all.
        noises: folder of noises, for `recorded_noise`.
        rooms: folder of impulse responses, for `recorded_room`.
        jobs: number of processes.
    """

    utterances: int = 400
    perturbations: tuple[str, ...] | None = None
    noises: Path | None = None
    rooms: Path | None = None
    jobs: int = 1


@dataclass
class Audit:
    """The content of `audit.json`.

    Attributes:
        about: model, corpus and settings.
        tests: tests with their verdicts.
        correctness: scores of the recordings as they are.
        robustness: perturbation -> tolerated strength and points.
        fairness: attribute -> spreads.
        not_speech: kind of sound -> result.
    """

    about: dict[str, Any]
    tests: list[Test] = field(default_factory=list)
    correctness: dict[str, Any] = field(default_factory=dict)
    robustness: dict[str, Any] = field(default_factory=dict)
    fairness: dict[str, Any] = field(default_factory=dict)
    not_speech: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the audit as a JSON object; what is not known is null."""
        return replace_nan({"format": FORMAT} | asdict(self))


def audit(
    model: str | Path | None,
    corpus: str | Mapping[str, Any] | Recipe | None = None,
    root: str | Path | None = None,
    out: str | Path = "runs/audit",
    settings: AuditSettings | None = None,
    *,
    fresh: bool = False,
    say: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> Audit:
    """Test whether a model holds outside the studio, and write the files.

    Args:
        model: as for `sertone.load`; a cross-validated run is tested fold by fold, each on its own test set.
        corpus: name of the corpus, or a recipe, see `recipe.resolve_data`; None: only what needs no corpus.
        root: folder of the corpus, or the table.
        out: folder to write; an audit that was stopped resumes.
        settings: settings of the audit.
        fresh: replace the audit of another model or with other settings that is in the folder.
        say: called with a description of every step.
        **options: `text`, `scales`, `only`, `reader`, as for `sertone.evaluate`.

    Raises:
        SertoneError: the model or the corpus cannot be used; `no_targets`, `other_audit`, `run_in_use`,
            `unknown_perturbation`.
        TypeError: a corpus without its root.
    """
    settings, out = settings or AuditSettings(), Path(out)
    data = None if corpus is None else resolve_data(corpus, root=root, **options)
    names = _check_settings(settings)
    subject = Subject.open(model, data and data.corpus, threads=1 if settings.jobs > 1 else None)
    inputs = {"hash": hash_model(resolve_model_folder(model)), "corpus": data.corpus if data else None}
    result = Audit({"model": shipped.NAME if model is None else str(model), **inputs})
    with lock(out):
        speech = _load_speech(subject, data, settings, say) if data else None
        claim_folder(out, inputs | (speech.hash_inputs() if speech else {}), fresh=fresh)
        result.not_speech, result.tests = measure_sounds(subject.predictors[0], out / ANSWERS, say)
        if data and speech:
            conditions = speech.list_conditions(names)
            answers = collect_answers(speech, conditions, out / ANSWERS, settings.jobs, say)
            _audit_corpus(result, speech, data, answers, names)
            save_utterances(out, speech.utterances, speech.targets)
        else:
            result.tests += _skip_parts("no corpus was given", "correctness", "robustness", "fairness")
        write_files(out, result.to_json())
    return result


def _audit_corpus(
    result: Audit,
    speech: AuditedSpeech,
    data: DataConfig,
    answers: dict[Condition, Answers],
    names: Sequence[str],
) -> None:
    """Add what needs a corpus."""
    subject, utterances, targets = speech.subject, speech.utterances, speech.targets
    result.about |= {
        "warnings": subject.list_warnings(data.corpus, utterances),
        "title": corpora.load_sheet(data.corpus).TITLE,
        "utterances": len(utterances),
        "speakers": len({u.speaker for u in utterances if u.known_speaker}),
        "uses_text": subject.uses_text,
        "by_fold": bool(subject.folds),
    }
    clean = answers[Condition()]
    scales = {
        name: (subject.scales[name], scale)
        for name, scale in corpora.resolve_scales(data).items()
        if name in subject.scales and any(name in u.labels for u in utterances)
    }
    result.correctness, tests = measure_correctness(utterances, targets, clean, subject.classes, scales)
    result.tests += tests
    if not tests:
        result.tests += _skip_parts("the corpus has neither emotions nor ratings of the model", "correctness")
    if not subject.classes:
        result.tests += _skip_parts("the model has no classes", "robustness", "fairness")
        return
    if subject.uses_audio:
        _add_robustness(result, targets, [u.speaker for u in utterances], answers, subject.classes, names)
    else:
        result.tests += _skip_parts("the model uses the text alone", "robustness")
    result.fairness, tests = measure_groups(speech, clean.labels)
    result.tests += tests


def _skip_parts(reason: str, *parts: Part) -> list[Test]:
    return [skip(part, part, reason) for part in parts]


def _load_speech(
    subject: Subject, data: DataConfig, settings: AuditSettings, say: Callable[[str], None]
) -> AuditedSpeech:
    """Load utterances, their audio, and for a model that uses text their texts."""
    utterances = _select_utterances(subject, data, settings.utterances)
    recordings = Recordings(CACHE_GB)
    recordings.load(utterances)
    if subject.uses_text:
        hashes, language = hash_recordings(utterances), corpora.load_sheet(data.corpus).LANGUAGE
        utterances = transcripts.load_transcripts(data.text, utterances, hashes, say, language).attach_to(
            utterances
        )
    material = Material.load((), settings.noises, settings.rooms)
    return AuditedSpeech(subject, utterances, recordings, material)


def _add_robustness(
    result: Audit,
    targets: Sequence[str],
    speakers: Sequence[str],
    answers: dict,
    classes: Sequence[str],
    names: Sequence[str],
) -> None:
    clean = answers[Condition()]
    clean_point = measure_point(0.0, targets, clean, clean, speakers, classes)
    result.robustness[Condition().name] = {"points": [asdict(clean_point)]}
    for name in names:
        conditions = [condition for condition in answers if condition.name == name]
        if not conditions:
            result.tests.append(
                skip("robustness", PERTURBATIONS[name].label, "no folder of recordings was given")
            )
            continue
        points = [
            measure_point(c.strength, targets, clean, answers[c], speakers, classes) for c in conditions
        ]
        result.robustness[name] = {
            "label": PERTURBATIONS[name].label,
            "group": PERTURBATIONS[name].group,
            "unit": PERTURBATIONS[name].unit,
            "tolerated": find_tolerated_strength(clean_point.ua.value, points),
            "points": [asdict(point) for point in points],
        }
        result.tests += _judge_points(name, clean_point, points)


def _judge_points(name: str, clean: Point, points: Sequence[Point]) -> list[Test]:
    label, unit = PERTURBATIONS[name].label, PERTURBATIONS[name].unit
    mild, strong = points[0], points[-1]
    return [
        require_at_most(
            "robustness",
            f"{label}, loss of UA",
            clean.ua.value - mild.ua.value,
            MAX_LOSS,
            f"at {mild.strength:g} {unit}",
        ),
        require_at_most(
            "robustness",
            f"{label}, wrong among the sure",
            strong.wrong_sure.value,
            MAX_WRONG_SURE,
            f"at {strong.strength:g} {unit}",
            f"no sure label at {strong.strength:g} {unit}",
        ),
    ]


def _select_utterances(subject: Subject, data: DataConfig, most: int) -> list[Utterance]:
    """Return the utterances with an emotion that the model knows; of many, the same number of each emotion.

    Raises:
        SertoneError: `no_targets`.
    """
    loaded = corpora.load(data.corpus, data.root, data.only, **data.reader_options)
    known = subject.select_known(loaded)
    if subject.classes:
        known = [u for u in known if u.labels.get("emotion") in subject.class_map]
    if not known:
        expected = f"one of {', '.join(subject.class_map)}" if subject.classes else "any"
        raise SertoneError("no_targets", f"none of {len(loaded)} utterances can be used", expected)
    order = np.random.default_rng(0).permutation(len(known))
    ranks: dict[str, int] = {}
    by_rank = []
    for n in order.tolist():
        emotion = str(known[n].labels.get("emotion"))
        ranks[emotion] = ranks.get(emotion, 0) + 1
        by_rank.append((ranks[emotion], n))
    chosen = sorted(n for _, n in sorted(by_rank)[:most])
    return [known[n] for n in chosen]


def _check_settings(settings: AuditSettings) -> list[str]:
    """Return the names of the perturbations.

    Raises:
        SertoneError: `bad_jobs`, `bad_utterances`, `unknown_perturbation`.
    """
    workers.require_jobs(settings.jobs, recognises=False)
    if settings.utterances < 1:
        raise SertoneError("bad_utterances", f"{settings.utterances} utterances", "at least 1")
    names = [name.strip() for name in settings.perturbations or PERTURBATIONS]
    if unknown := [name for name in names if name not in PERTURBATIONS]:
        raise SertoneError("unknown_perturbation", ", ".join(unknown), f"some of {', '.join(PERTURBATIONS)}")
    return names

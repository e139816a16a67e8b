"""Build the protocol card: everything that a score depends on besides the model.

Results and saves carry a fingerprint of the card, so its keys and texts stay the same between versions.
"""

import hashlib
import json
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from sertone import corpora, licences
from sertone.protocol.leaks import LeakReport
from sertone.protocol.splits import EMOTION, Fold
from sertone.schema import Utterance
from sertone.scoring import calibration, metrics

if TYPE_CHECKING:
    from sertone.recipe import CorpusConfig, DataConfig

PACKAGES = ("sertone", "torch", "transformers", "lightning-fabric", "numpy", "soundfile", "soxr")


def build_protocol_card(
    data: "DataConfig",
    found: int,
    folds: Sequence[Fold],
    leaks: Sequence[LeakReport],
    class_map: Mapping[str, str],
    hashes: Mapping[str, str],
    rule: Mapping[str, object],
    seed: int,
    tasks: Sequence[str] = EMOTION,
) -> dict:
    """Return everything that a score depends on besides the model, as a JSON object.

    Args:
        data: the corpus, the licence of the user's copy, and scales where the data sheet has none.
        found: number of utterances in the corpus, in classes or not.
        folds: the splits.
        leaks: one report per fold.
        class_map: emotion -> class.
        hashes: utterance id -> hash of its recording.
        rule: the protocol's settings.
        seed: seed of training.
        tasks: the main tasks of the model.
    """
    utterances = {u.id: u for fold in folds for subset in fold.subsets.values() for u in subset}
    return {
        "corpus": describe_corpus(data)
        | {"utterances_found": found}
        | _count_utterances(list(utterances.values()), class_map),
        "class_map": dict(class_map),
        "split": dict(rule),
        "scales": {name: asdict(scale) for name, scale in corpora.resolve_scales(data).items()},
        "selection": describe_selection(folds, tasks),
        "folds": [_describe_fold(fold) for fold in folds],
        "leaks": [vars(report) for report in leaks],
        "metrics": metrics.DEFINITIONS | calibration.DEFINITIONS,
        "seed": seed,
        "versions": collect_versions(),
        # The card of a checkpoint leaves these two out, because they grow with the corpus.
        "file_hashes": {name: hashes[name] for name in sorted(utterances)},
        "segments": {
            name: [u.start_s, u.end_s] for name, u in sorted(utterances.items()) if u.start_s or u.end_s
        },
    }


def _count_utterances(utterances: Sequence[Utterance], class_map: Mapping[str, str]) -> dict[str, Any]:
    classes = Counter(class_map.get(str(u.labels.get("emotion")), "(missing)") for u in utterances)
    emotions = Counter(str(u.labels["emotion"]) for u in utterances if "emotion" in u.labels)
    return {
        "utterances_used": len(utterances),
        "speakers": len({u.speaker for u in utterances if u.known_speaker}),
        "unknown_speakers": _count_unknown_speakers(utterances),
        "by_class": dict(classes),
        "by_emotion": dict(emotions),
    }


def _describe_fold(fold: Fold) -> dict[str, Any]:
    subsets = fold.subsets.items()
    unknown = {f"{name}_unknown_speakers": _count_unknown_speakers(subset) for name, subset in subsets}
    # Counts of unknown speakers appear only where there are some, as in cards of older versions.
    return (
        {"name": fold.name}
        | {f"{name}_speakers": _list_known_speakers(subset) for name, subset in subsets}
        | {key: count for key, count in unknown.items() if count}
        | {f"{name}_utterances": len(subset) for name, subset in subsets}
    )


def _list_known_speakers(utterances: Sequence[Utterance]) -> list[str]:
    return sorted({u.speaker for u in utterances if u.known_speaker})


def _count_unknown_speakers(utterances: Sequence[Utterance]) -> int:
    """Return the number of utterances of unknown speakers."""
    return sum(not u.known_speaker for u in utterances)


def hash_contents(utterances: Sequence[Utterance]) -> dict[str, Any]:
    """Return one hash for each kind of information about the utterances, in their order.

    A run resumes only with the same hashes. After labels were corrected, they show which kind has changed.

    Args:
        utterances: utterances in the order in which they are trained on.
    """
    tasks = sorted({task for u in utterances for task in u.labels})
    information = {
        "order": [u.id for u in utterances],
        "speakers": [[u.speaker, u.known_speaker, u.session] for u in utterances],
        "splits": [u.split for u in utterances],
        "texts": [u.text for u in utterances],
        "votes": [u.votes for u in utterances],
    }
    labels = {task: _hash_values([u.labels.get(task) for u in utterances]) for task in tasks}
    return {kind: _hash_values(values) for kind, values in information.items()} | {"labels": labels}


def _hash_values(values: list) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def describe_corpus(data: "CorpusConfig") -> dict:
    """Return the data sheet of a corpus, with the licence of the user's copy, as a JSON object."""
    sheet, licence = corpora.load_sheet(data.corpus), data.licence
    return {
        "name": data.corpus,
        "title": sheet.TITLE,
        "licence": asdict(licences.KNOWN_LICENCES[licence] if licence else sheet.LICENCE),
        "language": sheet.LANGUAGE,
        "citation": sheet.CITATION,
        "note": sheet.NOTE,
        "only": data.only,
    }


def describe_selection(folds: Sequence[Fold], tasks: Sequence[str]) -> str:
    """Return a sentence about the epoch whose weights count."""
    if any(fold.validation for fold in folds):
        scores = ["UA" if task == "emotion" else f"CCC of {task}" for task in tasks]
        best = f"mean of {', '.join(scores)}" if len(scores) > 1 else scores[0]
        return f"the epoch with the best {best} on the validation side; the test side plays no part"
    return (
        "the last epoch of a fixed number, by Sertone's own rule (the paper of wan2025 names none); "
        "the test side plays no part"
    )


def collect_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # prediction needs no torch
            continue
    return versions

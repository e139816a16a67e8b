"""The protocol card: everything that a score depends on besides the model."""

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
    answers: Sequence[str] = EMOTION,
) -> dict:
    """Everything that a score depends on besides the model, as a JSON object.

    Args:
        data: which corpus, the licence of the user's copy, and scales where the data sheet has none.
        found: utterances that could take part, in classes or not.
        folds: the splits.
        leaks: one report per fold.
        class_map: emotion -> class.
        hashes: utterance id -> hash of its recording.
        rule: the protocol's settings.
        seed: of training.
        answers: the tasks that the model is for.
    """
    used = {u.id: u for fold in folds for side in fold.subsets.values() for u in side}
    counts = Counter(class_map.get(str(u.labels.get("emotion")), "(missing)") for u in used.values())
    emotions = Counter(str(u.labels["emotion"]) for u in used.values() if "emotion" in u.labels)
    return {
        "corpus": describe_corpus(data)
        | {
            "utterances_found": found,
            "utterances_used": len(used),
            "speakers": len({u.speaker for u in used.values() if u.known_speaker}),
            "unknown_speakers": _unknown(list(used.values())),
            "by_class": dict(counts),
            "by_emotion": dict(emotions),
        },
        "class_map": dict(class_map),
        "split": dict(rule),
        "scales": {name: asdict(scale) for name, scale in corpora.resolve_scales(data).items()},
        "selection": describe_selection(folds, answers),
        "folds": [
            {"name": fold.name}
            | {f"{side}_speakers": _known(us) for side, us in fold.subsets.items()}
            | {
                f"{side}_unknown_speakers": count
                for side, us in fold.subsets.items()
                if (count := _unknown(us))
            }
            | {f"{side}_utterances": len(us) for side, us in fold.subsets.items()}
            for fold in folds
        ],
        "leaks": [vars(report) for report in leaks],
        "metrics": metrics.DEFINITIONS | calibration.DEFINITIONS,
        "seed": seed,
        "versions": collect_versions(),
        "file_hashes": {name: hashes[name] for name in sorted(used)},
        "segments": {name: [u.start_s, u.end_s] for name, u in sorted(used.items()) if u.start_s or u.end_s},
    }


def _known(utterances: Sequence[Utterance]) -> list[str]:
    return sorted({u.speaker for u in utterances if u.known_speaker})


def _unknown(utterances: Sequence[Utterance]) -> int:
    """Return how many utterances are of unknown speakers."""
    return sum(not u.known_speaker for u in utterances)


def hash_contents(utterances: Sequence[Utterance]) -> dict[str, Any]:
    """Return hashes of what is known of the utterances, one for each kind of it, in their order.

    A run goes on only with the same: whoever mends labels sees which kind has changed.

    Args:
        utterances: in the order in which they are trained on.
    """
    tasks = sorted({task for u in utterances for task in u.labels})
    known = {
        "order": [u.id for u in utterances],
        "speakers": [[u.speaker, u.known_speaker, u.session] for u in utterances],
        "splits": [u.split for u in utterances],
        "texts": [u.text for u in utterances],
        "votes": [u.votes for u in utterances],
    }
    labels = {task: _digest([u.labels.get(task) for u in utterances]) for task in tasks}
    return {kind: _digest(values) for kind, values in known.items()} | {"labels": labels}


def _digest(values: list) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def describe_corpus(data: "CorpusConfig") -> dict:
    """What the data sheet of a corpus says, and the licence of the user's copy, as a JSON object."""
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


def describe_selection(folds: Sequence[Fold], answers: Sequence[str]) -> str:
    """How the epoch is chosen whose weights count, in words."""
    if any(fold.validation for fold in folds):
        scores = ["UA" if task == "emotion" else f"CCC of {task}" for task in answers]
        best = f"mean of {', '.join(scores)}" if len(scores) > 1 else scores[0]
        return f"the epoch with the best {best} on the validation side; the test side plays no part"
    return (
        "the last epoch of a fixed number, by Sertone's own rule (the paper of wan2025 names none); "
        "the test side plays no part"
    )


def collect_versions() -> dict[str, str]:
    """Of Python and the packages on which results depend."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

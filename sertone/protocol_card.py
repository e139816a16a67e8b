"""The protocol card: everything that a score depends on besides the model."""

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version

from sertone import calibration, corpora, licences, metrics
from sertone.protocols import Fold, LeakReport

PACKAGES = ("sertone", "torch", "transformers", "lightning-fabric", "numpy", "soundfile", "soxr")


def protocol_card(
    corpus: str,
    found: int,
    folds: Sequence[Fold],
    leaks: Sequence[LeakReport],
    class_map: Mapping[str, str],
    hashes: Mapping[str, str],
    rule: Mapping[str, object],
    seed: int,
    licence: str | None = None,
) -> dict:
    """Everything that a score depends on besides the model, as a JSON object.

    Args:
        corpus: name.
        found: utterances of the whole corpus, in classes or not.
        folds: the splits.
        leaks: one report per fold.
        class_map: emotion -> class.
        hashes: utterance id -> hash of its recording.
        rule: the protocol's settings.
        seed: of training.
        licence: of the user's copy of the corpus, an id of `licences.KNOWN`; None: as the data sheet says.
    """
    sheet = corpora.sheet(corpus)
    used = {u.id: u for fold in folds for side in fold.sides.values() for u in side}
    counts = Counter(class_map.get(str(u.labels.get("emotion")), "(missing)") for u in used.values())
    return {
        "corpus": {
            "name": corpus,
            "title": sheet.TITLE,
            "licence": asdict(licences.KNOWN[licence] if licence else sheet.LICENCE),
            "language": sheet.LANGUAGE,
            "citation": sheet.CITATION,
            "note": sheet.NOTE,
            "utterances_found": found,
            "utterances_used": len(used),
            "speakers": len({u.speaker for u in used.values()}),
            "by_class": dict(counts),
        },
        "class_map": dict(class_map),
        "split": dict(rule),
        "selection": _selection(folds),
        "folds": [
            {"name": fold.name}
            | {f"{side}_speakers": sorted({u.speaker for u in us}) for side, us in fold.sides.items()}
            | {f"{side}_utterances": len(us) for side, us in fold.sides.items()}
            for fold in folds
        ],
        "leaks": [vars(report) for report in leaks],
        "metrics": metrics.DEFINITIONS | calibration.DEFINITIONS,
        "seed": seed,
        "versions": {"python": platform.python_version()} | _versions(),
        "file_hashes": {name: hashes[name] for name in sorted(used)},
        "segments": {name: [u.start_s, u.end_s] for name, u in sorted(used.items()) if u.start_s or u.end_s},
    }


def _selection(folds: Sequence[Fold]) -> str:
    if any(fold.validation for fold in folds):
        return "the epoch with the best UA on the validation side; the test side plays no part"
    return "the last epoch of a fixed number; the test side plays no part"


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

"""A trained model on another corpus: the score that a corpus's own cross-validation does not give.

out/protocol.json, results.json, predictions.csv, report.html    as of a run with one fold
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sertone import corpora, metrics, protocols
from sertone.calibration import Calibration
from sertone.calibration import probabilities as softmax
from sertone.errors import SertoneError
from sertone.files import write_json
from sertone.labels import class_names, remap
from sertone.protocol_card import protocol_card
from sertone.protocols import Fold, LeakReport
from sertone.recipe import TrainConfig
from sertone.schema import Utterance
from sertone.training import heard, ranks, results
from sertone.training.answers import answer
from sertone.training.loader import Loader
from sertone.training.predict import Predictor
from sertone.training.recordings import Recordings
from sertone.training.run_folder import lock
from sertone.training.scored import scored

CACHE_GB = 4.0


def evaluate(
    model: str | Path,
    corpus: str,
    root: str | Path,
    out: str | Path,
    *,
    classes: Mapping[str, str] | None = None,
    emotions: Mapping[str, str] | None = None,
) -> list[str]:
    """Scores a model on a corpus and writes a run folder with one fold.

    Args:
        model: a checkpoint, a fold, a run (mean of its folds' models), or OWNER/NAME on the hub.
        corpus: name of the corpus.
        root: its folder, or the manifest's file.
        out: where to write.
        classes: class of the model -> class to report: leave out, merge, rename; None: as they are.
        emotions: emotion of the corpus -> class of the model; None: as the model was trained.

    Returns:
        warnings: what of the corpus the model has heard in training, and what was left out.

    Raises:
        SertoneError: of the model or the corpus; `unknown_class`, `no_targets`, `unreadable_audio`,
            `unknown_emotion`, `run_in_use`, `other_experiment`.
    """
    predictor, out = Predictor(model), Path(out)
    wanted = dict(classes or {name: name for name in predictor.classes})
    mapping = _mapping(predictor, wanted, emotions)
    found = corpora.load(corpus, root)
    _require_emotions(emotions or {}, found)
    test = [u for u in found if u.labels.get("emotion") in mapping]
    _require_some(test, found, mapping)
    card = _card(predictor, corpus, found, test, mapping, str(model))
    fold = _fold(predictor, test, mapping, wanted) | {"name": card["corpus"]["title"]}
    encoder = predictor.about["model"]["encoder"]
    about = {
        "corpus": corpus,
        "model": predictor.about["model"]["name"],
        "encoder": encoder.get("source", encoder["name"]),
        "classes": class_names(wanted),
        "ratings": {},
        "folds_of_other_settings": [],
    }
    with lock(out):
        _refuse_other(out, card)
        write_json(out / "protocol.json", card)
        results.write(out, [fold], about)
    return _warnings(card["leaks"][0], found, test)


def _refuse_other(out: Path, card: dict[str, Any]) -> None:
    """A folder that holds something else than an evaluation of this model is not written over."""
    if not (out / "protocol.json").is_file():
        return
    before = json.loads((out / "protocol.json").read_text(encoding="utf-8")).get("evaluated")
    if before != card["evaluated"]:
        holds = f"an evaluation of {before['model']}" if before else "a run of its own"
        raise SertoneError(
            "other_experiment", f"{out} holds {holds}", "a folder of this evaluation", "choose another --out"
        )


def _mapping(
    predictor: Predictor, wanted: Mapping[str, str], emotions: Mapping[str, str] | None
) -> dict[str, str]:
    """Emotion of the corpus -> class to report."""
    known = predictor.class_map if emotions is None else emotions
    if unknown := sorted({*known.values(), *wanted} - set(predictor.classes)):
        raise SertoneError(
            "unknown_class",
            f"{', '.join(unknown)}, which the model does not know",
            f"some of {', '.join(predictor.classes)}",
        )
    return {emotion: wanted[name] for emotion, name in known.items() if name in wanted}


def _fold(
    predictor: Predictor, test: list[Utterance], mapping: dict[str, str], wanted: dict[str, str]
) -> dict[str, Any]:
    """The corpus as the one fold of a run."""
    before, after = _probabilities(predictor, test, wanted)
    unchanged = wanted == {name: name for name in predictor.classes}
    threshold = predictor.threshold if unchanged else None  # of other classes nothing is known
    by = replace(_mean_calibration(predictor), threshold=threshold)
    voted = any(u.votes for u in test)
    fold = scored(test, mapping, class_names(wanted), after, before, by, with_votes=voted)
    targets, answers = ([row[key] for row in fold["rows"]] for key in ("target", "prediction"))
    scores = {"emotion": metrics.emotion_scores(targets, answers)}
    return fold | {"metrics": scores, "train": 0, "validation": 0, "history": [], "auxiliary": {}}


def _mean_calibration(predictor: Predictor) -> Calibration:
    """What several models were calibrated on, together."""
    own = predictor.calibrations
    if len(own) == 1:
        return own[0]
    speakers = sorted({name for by in own for name in by.fitted_on.get("speakers", ())})
    utterances = sum(by.fitted_on.get("utterances", 0) for by in own)
    return Calibration(
        temperature=float(np.mean([by.temperature for by in own])),
        coverage=own[0].coverage,
        fitted_on={"speakers": speakers, "utterances": utterances} if speakers else {},
        note=f"mean of {len(own)} models, each with a temperature of its own",
    )


def _require_emotions(emotions: Mapping[str, str], found: list[Utterance]) -> None:
    there = {str(u.labels["emotion"]) for u in found if "emotion" in u.labels}
    if unknown := sorted(set(emotions) - there):
        raise SertoneError(
            "unknown_emotion",
            f"--emotions names {', '.join(unknown)}, which the corpus does not have",
            f"some of {', '.join(sorted(there))}",
        )


def _require_some(test: list[Utterance], found: list[Utterance], mapping: Mapping[str, str]) -> None:
    if not test:
        there = sorted({str(u.labels["emotion"]) for u in found if "emotion" in u.labels})
        raise SertoneError(
            "no_targets",
            f"the corpus's emotions are {', '.join(there) or 'not given'}; the model knows "
            f"{', '.join(mapping)}",
            "some that are the same",
            "--emotions says which emotion of the corpus is which class of the model: joy=happy,rage=angry",
        )


def _card(
    predictor: Predictor,
    corpus: str,
    found: list[Utterance],
    test: list[Utterance],
    mapping: dict[str, str],
    model: str,
) -> dict[str, Any]:
    """Protocol card of the evaluation; its leak report names what the model has heard."""
    title, hashes = corpora.sheet(corpus).TITLE, protocols.recording_hashes(test)
    rule, leak = {"split": "another corpus"}, LeakReport(title)
    card = protocol_card(corpus, len(found), [Fold(title, [], [], test)], [leak], mapping, hashes, rule, 0)
    card["evaluated"] = {"model": model, "trained_on": predictor.card["corpus"]["title"]}
    card["selection"] = predictor.card["selection"]
    ids, speakers = heard.again(test, card, [each["card"]["heard"] for each in predictor.abouts])
    card["leaks"] = [vars(leak) | {"recordings": ids, "speakers": speakers}]
    return card


def _probabilities(
    predictor: Predictor, test: list[Utterance], wanted: Mapping[str, str]
) -> tuple[np.ndarray, np.ndarray]:
    """Of the classes wanted, before and after calibration; mean over the models: (N, J) each."""
    recordings = Recordings(CACHE_GB)
    recordings.load(test)
    fabric = ranks.fabric(TrainConfig(batch_size=1))
    before, after = [], []
    for model, vocabulary, by in zip(
        predictor.models, predictor.vocabularies, predictor.calibrations, strict=True
    ):
        loader = Loader(recordings, vocabulary, predictor.min_samples)
        logits = answer(model.to(fabric.device), vocabulary, test, loader, fabric).logits
        before.append(softmax(logits))
        after.append(by.probabilities(logits))
    sides = (np.mean(side, axis=0) for side in (before, after))
    first, second = (remap(side, predictor.classes, wanted) for side in sides)
    return first, second


def _warnings(leak: Mapping[str, Any], found: list[Utterance], test: list[Utterance]) -> list[str]:
    """What the reader of the score must know."""
    said = []
    if ids := leak["recordings"]:
        said.append(f"the model has heard {len(ids)} of these recordings in training, such as {ids[0]}")
    if speakers := leak["speakers"]:
        said.append(
            f"the model has heard {len(speakers)} of these speakers in training, such as {speakers[0]}"
        )
    labelled = sum("emotion" in u.labels for u in found)
    if labelled > len(test):
        said.append(f"{labelled - len(test)} of {labelled} utterances have an emotion outside the classes")
    return said

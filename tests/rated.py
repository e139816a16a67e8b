"""Run folders of models that rate, made from drawn answers: what tests of scores and tables read."""

import csv
import json
from pathlib import Path

import numpy as np
from test_ratings import expected_scores

from sertone.schema import Utterance
from sertone.scoring import metrics
from sertone.scoring.calibration import Calibration
from sertone.training.runs import results
from sertone.training.testing.prediction_rows import score_predictions

CLASSES = ["angry", "happy", "sad"]
MAP = {"angry": "angry", "excited": "happy", "happy": "happy", "sad": "sad"}
SCALE = {"low": 1.0, "high": 5.0, "unit": "points"}
CENTRES = {"angry": (2.0, 4.0), "happy": (4.0, 3.5), "sad": (2.0, 2.0), "other": (3.0, 3.0)}
SIDES = ("valence", "arousal")


def utterances(fold, per_speaker):
    """Of two speakers, one in four outside the classes, one in ten without a rating of valence."""
    random = np.random.default_rng(fold)
    for speaker in (2 * fold, 2 * fold + 1):
        for number in range(per_speaker):
            emotion = list(CENTRES)[number % 4]
            rated = np.clip(np.round(2 * (CENTRES[emotion] + random.normal(0, 0.7, 2))) / 2, 1, 5)
            labels = {"emotion": emotion, "valence": float(rated[0]), "arousal": float(rated[1])}
            if number % 10 == 9:
                del labels["valence"]
            if number % 20 == 19:
                del labels["emotion"]
            yield Utterance(id=f"s{speaker}_{number}", path=Path("x"), speaker=f"s{speaker}", labels=labels)


def fold_of(number, *, classes=CLASSES, sides=SIDES, noise=0.5, per_speaker=40, seed=0):
    """As the training writes it."""
    random = np.random.default_rng([seed, number])
    spoken = list(utterances(number, per_speaker))
    targets = [MAP.get(u.labels.get("emotion")) for u in spoken]
    p = random.dirichlet([1] * 3, len(spoken)) + [[0.6 * (c == t) for c in CLASSES] for t in targets]
    p = p / p.sum(1, keepdims=True) if classes else None
    means = [CENTRES[u.labels.get("emotion", "other")] for u in spoken]
    answers = np.clip(random.normal(means, noise), 1, 5).T
    ratings = {side: answers[SIDES.index(side)].tolist() for side in sides}
    fold = score_predictions(spoken, MAP, list(classes), p, p, Calibration(), ratings=ratings, fold=number)
    scores = {}
    for task in [*(["emotion"] if classes else []), *sides]:
        mark = "" if task == "emotion" else f"{task}_"
        known = [row for row in fold["rows"] if row[f"{mark}target"] != ""]
        kind = metrics.SCORES["emotion" if task == "emotion" else "ratings"]
        scores[task] = kind(*([row[f"{mark}{side}"] for row in known] for side in ("target", "prediction")))
    name = {"name": f"s{2 * number} s{2 * number + 1}", "metrics": scores, "auxiliary": {}}
    return fold | name | {"train": 9, "validation": 0, "history": []}


def card_of(per_speaker=40):
    folds = [
        {"name": f"s{2 * n} s{2 * n + 1}", "test_speakers": [f"s{2 * n}", f"s{2 * n + 1}"]} for n in range(5)
    ]
    corpus = {"name": "x", "title": "X", "citation": "", "note": "", "language": "en", "speakers": 10}
    corpus |= {
        "utterances_used": 10 * per_speaker,
        "utterances_found": 10 * per_speaker,
        "by_class": {"sad": 1},
    }
    licence = {"id": "cc0-1.0", "name": "CC0 1.0", "url": "", "commercial": True}
    for fold in folds:
        fold |= {"train_utterances": 9, "test_utterances": 2 * per_speaker, "validation_speakers": []}
    return {
        "corpus": corpus | {"licence": licence},
        "class_map": MAP, "split": {"split": "grouped_k_fold", "folds": 5}, "selection": "the last epoch",
        "folds": folds, "metrics": metrics.DEFINITIONS, "seed": 0, "versions": {"python": "3"},
        "leaks": [
            {"fold": fold["name"], "scripted_texts": [], "test_in_texts": 0, "sessions": []} for fold in folds
        ],
        "file_hashes": {}, "segments": {},
    }  # fmt: skip


def write_run(out, *, classes=CLASSES, sides=SIDES, conditions=None, per_speaker=40, **options):
    """A finished run of five folds with two speakers each."""
    options |= {"classes": classes, "sides": sides, "per_speaker": per_speaker}
    folds = [fold_of(number, **options) for number in range(5)]
    for number, fold in enumerate(folds):
        if conditions:
            own = {name: fold_of(number, **options | {"noise": noise}) for name, noise in conditions.items()}
            fold["modalities"] = {name: each["rows"] for name, each in own.items()}
    out.mkdir(parents=True, exist_ok=True)
    (out / "protocol.json").write_text(json.dumps(card_of(per_speaker)))
    about = {"corpus": "x", "model": "m", "encoder": "e", "classes": list(classes)}
    about |= {"ratings": dict.fromkeys(sides, SCALE), "folds_of_other_settings": []}
    results.write_results(out, folds, about)
    return out


def results_of(run):
    def refuse(name):
        raise AssertionError(f"{name} in JSON")

    return json.loads((run / "results.json").read_text(), parse_constant=refuse)


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def edit(run, number, **changes):
    """Changes a row of predictions.csv."""
    rows = rows_of(run / "predictions.csv")
    rows[number] |= changes
    with open(run / "predictions.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def expected_of(rows, side):
    known = [row for row in rows if row[f"{side}_target"]]
    return expected_scores(
        *([float(row[f"{side}_{what}"]) for row in known] for what in ("target", "prediction"))
    )

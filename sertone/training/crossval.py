"""Cross-validation: from a recipe to a run folder with scores, predictions and a checkpoint per fold.

run/recipe.yaml, protocol.json, results.json, predictions.csv, report.html
run/fold_0/checkpoint/    the trained model        fold_0/result.json marks the fold complete
"""

import csv
import hashlib
import io
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sertone import corpora, metrics, models, protocols
from sertone import recipe as recipes
from sertone.errors import SertoneError
from sertone.labels import class_map, class_names
from sertone.nn.vocabulary import Vocabulary
from sertone.protocol_card import protocol_card
from sertone.protocols import Fold
from sertone.recipe import Recipe
from sertone.schema import Utterance
from sertone.training import checkpoint
from sertone.training.answers import answer, score_tasks
from sertone.training.loop import Trainer, check_plan
from sertone.training.progress import Progress
from sertone.training.recordings import Recordings
from sertone.training.run_folder import claim

PER_FILE = ("file_hashes", "segments")
"""Parts of the protocol card that grow with the corpus; a checkpoint leaves them out."""
SPEAKER_NOTE = "not defined: speakers are disjoint"


@dataclass(frozen=True)
class Experiment:
    """A recipe with its corpus read and split.

    Attributes:
        recipe: as given.
        class_map: emotion -> class.
        utterances: those that take part.
        folds: the splits.
        card: the protocol card.
    """

    recipe: Recipe
    class_map: dict[str, str]
    utterances: list[Utterance]
    folds: list[Fold]
    card: dict = field(repr=False)

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return class_names(self.class_map)


def prepare(recipe: Recipe, *, everything: bool = False) -> Experiment:
    """Reads and splits the corpus, and refuses what could not give a result to believe.

    Args:
        recipe: the experiment.
        everything: train on all instead of splitting; nothing is left to test on.

    Raises:
        SertoneError: of the recipe, the corpus, the split, or a leak.
    """
    models.configure(recipe.model)
    _require_device(recipe.train.device)
    data, protocol = recipe.data, recipe.protocol
    found = corpora.load(data.corpus, data.root)
    emotions = {str(u.labels["emotion"]) for u in found if "emotion" in u.labels}
    mapping = class_map(data.classes, emotions)
    used = [u for u in found if u.labels.get("emotion") in (None, *mapping)]
    _require_classes(mapping, emotions)
    unused = set() if protocol.split == "grouped_k_fold" else {"folds"}
    rule: dict[str, Any] = protocol.model_dump(exclude=unused) | {"speaker_independent": True}
    if everything:
        folds = [protocols.everything(used, protocol.validation)]
        rule = {"split": "everything", "validation": protocol.validation}
    else:
        folds = protocols.make_folds(
            used, protocol.split, folds=protocol.folds, validation=protocol.validation
        )
    hashes = protocols.recording_hashes(used)
    leaks = [protocols.check_leaks(fold, hashes) for fold in folds]
    for fold, report in zip(folds, leaks, strict=True):
        protocols.require_sound(fold, report, mapping)
    seed = recipe.train.seed
    card = protocol_card(data.corpus, len(found), folds, leaks, mapping, hashes, rule, seed)
    return Experiment(recipe, mapping, used, folds, card)


def _require_device(device: str) -> None:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device, True):
        raise SertoneError("no_device", f"train.device {device!r}, which torch does not see", "auto or cpu")


def _require_classes(mapping: dict[str, str], found: set[str]) -> None:
    if len({mapping[name] for name in found if name in mapping}) < 2:
        raise SertoneError(
            "no_classes",
            f"the corpus's emotions are {', '.join(sorted(found)) or 'not given'}; of them "
            f"data.classes takes {', '.join(sorted(found & set(mapping))) or 'none'}",
            "at least two classes",
            "look at `sertone corpora check`; a manifest needs a column `emotion`",
        )


def cross_validate(
    recipe: Recipe,
    out: str | Path,
    *,
    force: bool = False,
    fresh: bool = False,
    quiet: bool = False,
) -> Path:
    """Trains and tests every fold; goes on with a run that was interrupted.

    Args:
        recipe: the experiment.
        out: run folder.
        force: go on although recipe or protocol have changed.
        fresh: throw away what is in the folder.
        quiet: no progress lines.

    Returns:
        the run folder.

    Raises:
        SertoneError: as `prepare` and the training; `run_in_use`, `other_experiment`.
    """
    from sertone import report

    out = Path(out)
    experiment = prepare(recipe)
    with claim(out, recipes.dump(recipe), experiment.card, force=force, fresh=fresh):
        epochs = sum(recipe.train.epochs)
        progress = Progress(epochs * len(experiment.folds), quiet)
        recordings = Recordings(recipe.train.audio_cache_gb)
        for number in range(len(experiment.folds)):
            if (out / f"fold_{number}" / "result.json").is_file():
                progress.skip(epochs)
                continue
            _run_fold(experiment, number, out, recordings, progress)
        results = _collect(experiment, out)
        checkpoint.write_json(out / "results.json", results)
        report.write(out)
    return out


def fit(
    experiment: Experiment,
    number: int,
    folder: Path,
    recordings: Recordings,
    progress: Progress,
) -> tuple[Trainer, Vocabulary]:
    """Trains one fold and writes its checkpoint.

    Raises:
        SertoneError: `unreadable_audio`; as the building, `check_plan` and the training of the model.
    """
    recipe, fold = experiment.recipe, experiment.folds[number]
    torch.manual_seed(recipe.train.seed * 1000 + number)
    vocabulary = Vocabulary.of(fold.train, experiment.class_map)
    model = models.build(recipe.model, vocabulary)
    check_plan(model, recipe.train)
    for code, ids in recordings.load(experiment.utterances, model.encoder.min_samples).items():
        progress.say(f"{len(ids)} recordings are {code.replace('_', ' ')}, such as {ids[0]}")
    trainer = Trainer(model, vocabulary, fold, number, recipe.train, recordings, folder / "resume", progress)
    for task in model.heads:
        if len({vocabulary.label(task, u) for u in fold.train} - {None}) < 2:
            progress.say(f"fold {number} ({fold.name})  {task}: fewer than two labels, nothing to learn")
    trainer.train()
    card = {key: value for key, value in experiment.card.items() if key not in PER_FILE}
    checkpoint.save_model(folder / "checkpoint", model, recipe.model, vocabulary, card | {"fold": fold.name})
    return trainer, vocabulary


def _run_fold(
    experiment: Experiment, number: int, out: Path, recordings: Recordings, progress: Progress
) -> None:
    """Trains and tests one fold; `result.json` comes last."""
    folder, fold = out / f"fold_{number}", experiment.folds[number]
    trainer, vocabulary = fit(experiment, number, folder, recordings, progress)
    test = [u for u in fold.test if u.labels.get("emotion")]
    model = trainer.model.to(trainer.fabric.device)
    answers = answer(model, vocabulary, test, recordings, trainer.fabric)
    labels = {task: [vocabulary.label(task, u) for u in test] for task in model.heads}
    kinds = {task: head.metric for task, head in model.heads.items() if task != "speaker"}
    scores: dict[str, dict[str, Any]] = dict(score_tasks(answers, labels, kinds))
    if "speaker" in model.heads:
        scores["speaker"] = {"note": SPEAKER_NOTE}
    rows = [
        {
            "id": u.id,
            "fold": number,
            "speaker": u.speaker,
            "target": target,
            "prediction": prediction,
        }
        | {f"p_{name}": round(float(p), 6) for name, p in zip(experiment.classes, row, strict=True)}
        for u, target, prediction, row in zip(
            test,
            labels["emotion"],
            answers.predictions["emotion"],
            answers.probabilities,
            strict=True,
        )
    ]
    auxiliary = {
        task: {"targets": labels[task], "predictions": answers.predictions[task], "metric": kinds[task]}
        for task in scores
        if task in kinds and task != "emotion"
    }
    result = {"name": fold.name, "metrics": scores, "experiment": _fingerprint(experiment)}
    result |= {"confusion": _confusion(rows, experiment.classes), "auxiliary": auxiliary}
    result |= {"train": len(fold.train), "validation": len(fold.validation), "test": len(test)}
    result |= {"history": trainer.history, "rows": rows}
    checkpoint.write_json(folder / "result.json", result)
    shutil.rmtree(folder / "resume", ignore_errors=True)
    progress.say(f"fold {number} ({fold.name})  test UA {scores['emotion']['ua']:.3f}")


def _collect(experiment: Experiment, out: Path) -> dict:
    """All folds together: mean over folds, and pooled with intervals. Writes predictions.csv."""
    folds = [
        json.loads((out / f"fold_{number}" / "result.json").read_text(encoding="utf-8"))
        for number in range(len(experiment.folds))
    ]
    rows = [row for fold in folds for row in fold.pop("rows")]
    auxiliary = [fold.pop("auxiliary") for fold in folds]
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    checkpoint.write_text(out / "predictions.csv", table.getvalue())
    targets, predictions, speakers = ([row[k] for row in rows] for k in ("target", "prediction", "speaker"))
    pooled: dict[str, Any] = dict(metrics.emotion_scores(targets, predictions))
    seed = experiment.recipe.train.seed
    pooled["ci95"] = metrics.speaker_interval(targets, predictions, speakers, seed=seed)
    pooled["confusion"] = _confusion(rows, experiment.classes)
    own = _fingerprint(experiment)
    encoder = experiment.recipe.model["encoder"]
    return {
        "corpus": experiment.recipe.data.corpus,
        "model": experiment.recipe.model["name"],
        "encoder": encoder.get("source", encoder["name"]),
        "classes": experiment.classes,
        "folds": folds,
        "mean": _mean([fold["metrics"] for fold in folds]),
        "pooled": {"emotion": pooled} | _pooled_auxiliary(auxiliary),
        "folds_of_other_settings": [fold["name"] for fold in folds if fold["experiment"] != own],
    }


def _fingerprint(experiment: Experiment) -> str:
    """Of recipe and protocol: tells folds that `--force` kept from before a change."""
    text = recipes.dump(experiment.recipe) + json.dumps(experiment.card, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _confusion(rows: list[dict], classes: list[str]) -> list[list[int]]:
    targets, predictions = ([row[key] for row in rows] for key in ("target", "prediction"))
    return metrics.confusion(targets, predictions, classes).tolist()


def _pooled_auxiliary(folds: list[dict[str, dict]]) -> dict[str, dict[str, float]]:
    """Scores of the auxiliary tasks over the test sides of all folds together."""
    pooled = {}
    for task in dict.fromkeys(task for fold in folds for task in fold):
        own = [fold[task] for fold in folds if task in fold]
        pairs = [
            pair
            for part in own
            for pair in zip(part["targets"], part["predictions"], strict=True)
            if pair[0] is not None
        ]
        pooled[task] = metrics.SCORES[own[0]["metric"]](*map(list, zip(*pairs, strict=True)))
    return pooled


def _mean(scores: list[dict[str, dict]]) -> dict[str, dict]:
    """Mean over folds of every score; notes are kept."""
    means: dict[str, dict] = {}
    for task in dict.fromkeys(task for fold in scores for task in fold):
        folds = [fold[task] for fold in scores if task in fold]
        if "note" in folds[0]:
            means[task] = folds[0]
        else:
            means[task] = {k: float(np.mean([fold[k] for fold in folds])) for k in folds[0]}
    return means

"""Evaluation of a model on another corpus, which cross-validation within one corpus cannot replace.

out/protocol.json, results.json, predictions.csv, report.html    a run with one fold
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sertone import corpora, transcripts
from sertone.analysis import evaluation_models
from sertone.analysis.evaluation_labels import require_covered, require_emotions, require_labelled
from sertone.analysis.evaluation_models import EvaluatedModel, open_model
from sertone.analysis.evaluation_warnings import list_text_warnings, list_warnings
from sertone.errors import SertoneError
from sertone.files import write_json
from sertone.labels import (
    Scale,
    class_names,
    map_raw_labels,
    remap,
    rescale,
    resolve_raw_labels,
)
from sertone.protocol.leaks import LeakReport, hash_recordings
from sertone.protocol.protocol_card import build_protocol_card
from sertone.protocol.splits import Fold, has_label
from sertone.recipe import DataConfig, TextConfig
from sertone.runtime import shipped
from sertone.schema import Utterance
from sertone.scoring import display, metrics, sufficient_statistics
from sertone.sharing.card_scores import Scores
from sertone.training.data.recordings import Recordings
from sertone.training.experiment import contamination
from sertone.training.runs import results
from sertone.training.runs.run_folder import lock
from sertone.training.testing.prediction_rows import score_predictions
from sertone.utils.terminal import print_status

CACHE_GB = 4.0
"""Memory for decoded audio, in gigabytes."""


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        folder: folder with `results.json`, `predictions.csv`, `report.html` and `protocol.json`.
        scores: score -> value, such as `ua`, `wa`, `valence.ccc`.
        intervals: score -> 95 % interval over speakers, [low, high]; empty where there is one speaker.
        utterances: number of scored utterances.
        speakers: number of their speakers.
        warnings: overlap with the training data, and what was left out.
    """

    folder: Path
    scores: dict[str, float]
    intervals: dict[str, list[float]]
    utterances: int
    speakers: int
    warnings: list[str]


def evaluate(
    model: str | Path | None,
    data: DataConfig,
    out: str | Path,
    *,
    classes: Mapping[str, str] | None = None,
    emotions: Mapping[str, str] | None = None,
    fresh: bool = False,
) -> Evaluation:
    """Score a model on a corpus and write a run folder with one fold.

    Predicted ratings are converted from the scale on which the model was trained to the scale of the corpus.
    Where the scale of the model is unknown, they are taken as they are. Ratings whose scale in the corpus is
    unknown are not scored.

    Args:
        model: a bundle, a checkpoint, a fold, a run (mean of its folds' models), OWNER/NAME on the hub, or
            `hf:` and an audio-classification model of Hugging Face; None: the model of the package.
        data: corpus, its folder or table, its text, scales, columns and longest utterance. Its classes and
            its licence are ignored: the model has its classes, and the data sheet says the licence.
        out: folder to write.
        classes: class of the model -> class to report: leave out, merge, rename; None: as they are.
        emotions: emotion of the corpus -> class of the model; None: as the model was trained.
        fresh: replace an evaluation of another model or with other settings that is in the folder.

    Raises:
        SertoneError: the model, the corpus or its texts cannot be used; `unknown_class`, `no_targets`,
            `unmapped_labels`, `unreadable_audio`, `unknown_emotion`, `run_in_use`, `other_experiment`.
    """
    evaluated = open_model(model)
    trained = evaluated.model
    out = Path(out)
    class_map = dict(classes or {name: name for name in trained.classes})
    mapping = _map_emotions(evaluated, class_map, emotions)
    data = _adapt_settings(data, evaluated)
    corpus_scales = corpora.resolve_scales(data)
    scales = {name: scale for name, scale in corpus_scales.items() if name in trained.scales}
    utterances = corpora.load(data.corpus, data.root, data.only, **data.reader_options)
    # Users may give a label as the corpus writes it.
    mapping = resolve_raw_labels(mapping, map_raw_labels(utterances))
    require_emotions(emotions or {}, utterances)
    # One label that the model predicts is enough: emotion, or any rating.
    test = [u for u in utterances if u.labels.get("emotion") in mapping or has_label(u, tuple(scales))]
    require_labelled(trained, test, utterances, mapping)
    require_covered(utterances, mapping, chosen=bool(classes or emotions))
    test, limit_card = evaluation_models.limit_durations(test, data, print_status)
    card = _build_card(evaluated, data, utterances, test, mapping, _describe_source(model)) | limit_card
    texts = transcripts.load_transcripts(
        data.text, test, card["file_hashes"], print_status, card["corpus"]["language"]
    )
    card["evaluated"] |= {"text": texts.about, "scales": card["scales"], "only": data.only}
    card["evaluated"] |= data.reader_options | limit_card
    test = texts.attach_to(test)
    fold = _score_fold(evaluated, test, mapping, class_map, scales) | {"name": card["corpus"]["title"]}
    undivided = fold.pop("undivided")
    card["text"] = _describe_texts(texts, undivided)
    with lock(out):
        _refuse_other_content(out, card, fresh=fresh)
        write_json(out / "protocol.json", card)
        results.write_results(out, [fold], _describe_run(evaluated, data, class_map, scales))
    warnings = list_warnings(trained, card["leaks"][0], utterances, mapping, scales)
    warnings += list_text_warnings(trained, test, undivided)
    if unknown := display.describe_unknown_speakers(card):
        warnings.append(unknown)
    return _load_evaluation(out, warnings)


def _adapt_settings(data: DataConfig, evaluated: EvaluatedModel) -> DataConfig:
    """Return the settings of the corpus as the evaluation uses them."""
    # Without text input no transcripts are needed, and recognising them would take long.
    text = data.text if evaluated.model.uses_text else TextConfig(source="none")
    # The card states the licence of the data sheet, whatever a recipe says about a copy.
    return data.model_copy(update={"text": text, "licence": None})


def _describe_run(
    evaluated: EvaluatedModel, data: DataConfig, class_map: Mapping[str, str], scales: Mapping[str, Scale]
) -> dict[str, Any]:
    """Return the part of results.json that does not follow from the predictions."""
    return {
        "corpus": data.corpus,
        "model": evaluated.name,
        "encoder": evaluated.encoder,
        "classes": class_names(dict(class_map)),
        "ratings": {name: asdict(scale) for name, scale in scales.items()},
        "folds_of_other_settings": [],
    }


def _load_evaluation(out: Path, warnings: list[str]) -> Evaluation:
    _, scores = Scores.from_evaluation(out)
    counts = (scores.utterances, scores.speakers)
    return Evaluation(out, scores.values, scores.intervals, *counts, warnings)


def _describe_texts(texts: transcripts.Transcripts, undivided: int) -> dict[str, Any]:
    """Return the texts' part of the protocol card. Texts that the model did not use count as missing."""
    counts = {"with_text": texts.with_text - undivided, "without_text": texts.without_text + undivided}
    return texts.card | counts


def _describe_source(model: str | Path | None) -> str:
    return f"{shipped.NAME}, which comes with Sertone" if model is None else str(model)


def _refuse_other_content(out: Path, card: dict[str, Any], *, fresh: bool) -> None:
    """Refuse a folder that holds anything but an evaluation with these settings.

    `fresh` replaces another evaluation, but never a run that was trained.
    """
    if not (out / "protocol.json").is_file():
        return
    previous = json.loads((out / "protocol.json").read_text(encoding="utf-8")).get("evaluated")
    if previous == card["evaluated"] or (previous and fresh):
        return
    content = f"an evaluation of {previous['model']}" if previous else "another run"
    way_out = "choose another --out, or replace it with --fresh" if previous else "choose another --out"
    raise SertoneError("other_experiment", f"{out} holds {content}", "a folder of this evaluation", way_out)


def _map_emotions(
    evaluated: EvaluatedModel, class_map: Mapping[str, str], emotions: Mapping[str, str] | None
) -> dict[str, str]:
    """Return the mapping from emotions of the corpus to classes to report.

    Args:
        evaluated: the model.
        class_map: class of the model -> class to report.
        emotions: emotion of the corpus -> class of the model; None: as the model was trained.

    Raises:
        SertoneError: `unknown_class`.
    """
    emotion_map = evaluated.class_map if emotions is None else emotions
    trained = evaluated.model
    if unknown := sorted({*emotion_map.values(), *class_map} - set(trained.classes)):
        raise SertoneError(
            "unknown_class",
            f"{', '.join(unknown)}, which the model does not know",
            f"some of {', '.join(trained.classes)}",
        )
    return {emotion: class_map[name] for emotion, name in emotion_map.items() if name in class_map}


def _score_fold(
    evaluated: EvaluatedModel,
    test: list[Utterance],
    mapping: dict[str, str],
    class_map: dict[str, str],
    scales: Mapping[str, Scale],
) -> dict[str, Any]:
    """Predict the corpus and score it as the only fold of a run."""
    recordings = Recordings(CACHE_GB)
    model = evaluated.model
    recordings.load(test)
    predictions = evaluated.predict(test, recordings)
    probabilities = uncalibrated = None
    if class_map:
        probabilities = remap(predictions.probabilities, model.classes, class_map)
        if predictions.uncalibrated is not None:
            uncalibrated = remap(predictions.uncalibrated, model.classes, class_map)
    ratings = {
        # Where the model names no scale, its ratings are taken to be on that of the corpus.
        name: [rescale(value, model.scales[name] or scale, scale) for value in predictions.ratings[name]]
        for name, scale in scales.items()
    }
    # The threshold holds for the model's own classes only.
    is_unchanged = class_map == {name: name for name in model.classes}
    calibration = replace(evaluated.calibration, threshold=model.threshold if is_unchanged else None)
    fold = score_predictions(
        test,
        mapping,
        class_names(class_map),
        probabilities,
        probabilities if uncalibrated is None else uncalibrated,
        calibration,
        ratings=ratings,
        with_votes=any(u.votes for u in test),
    )
    if uncalibrated is None and "confidence" in fold:
        del fold["confidence"]["before"]  # it would repeat the calibrated scores
    scores = _score_tasks(fold["rows"], bool(class_map), ratings)
    long = evaluation_models.select_long_utterances(model, test, recordings)
    fold["undivided"] = sum(bool(u.text) for u in long)
    return fold | {"metrics": scores, "train": 0, "validation": 0, "history": [], "auxiliary": {}}


def _score_tasks(
    rows: list[dict[str, Any]], has_classes: bool, ratings: Iterable[str]
) -> dict[str, dict[str, float]]:
    """Return the scores of emotion and of each rating, over the rows that have a label of it."""
    scores = {}
    for task in [*(["emotion"] if has_classes else []), *ratings]:
        labelled = sufficient_statistics.select_labelled(rows, task)
        if labelled:
            target, prediction = sufficient_statistics.get_task_columns(task)
            compute_scores = metrics.SCORES["emotion" if task == "emotion" else "ratings"]
            scores[task] = compute_scores(
                [row[target] for row in labelled], [row[prediction] for row in labelled]
            )
    return scores


def _build_card(
    evaluated: EvaluatedModel,
    data: DataConfig,
    utterances: list[Utterance],
    test: list[Utterance],
    mapping: dict[str, str],
    source: str,
) -> dict[str, Any]:
    """Return the protocol card. Its leak report names the overlap with the training data."""
    title = corpora.load_sheet(data.corpus).TITLE
    hashes = hash_recordings(test)
    rule = {"split": "another corpus"}
    leak = LeakReport(title)
    training_data = evaluated.seen_in_training or []
    unknown = contamination.count_unknown_speakers(training_data)
    if unknown:
        rule["speaker_independent"] = "not known"
    folds = [Fold(title, [], [], test)]
    card = build_protocol_card(data, len(utterances), folds, [leak], mapping, hashes, rule, 0)
    model_card = evaluated.model.card
    card["evaluated"] = {"model": source, "trained_on": model_card["corpus"]["title"]}
    card["selection"] = model_card["selection"]
    ids, speakers = contamination.find_overlap(test, card, training_data)
    overlap = {"recordings": ids, "speakers": speakers, "unknown_speakers": unknown}
    card["leaks"] = [vars(leak) | overlap | {"known": evaluated.seen_in_training is not None}]
    return card

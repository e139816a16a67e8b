"""A model on another corpus: the score that a corpus's own cross-validation does not give.

out/protocol.json, results.json, predictions.csv, report.html    as of a run with one fold
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sertone import corpora, transcripts
from sertone.analysis import evaluation_models
from sertone.analysis.evaluation_labels import require_covered, require_emotions
from sertone.analysis.evaluation_models import EvaluatedModel, open_model
from sertone.errors import SertoneError
from sertone.files import write_json
from sertone.labels import (
    Scale,
    class_names,
    count_unmapped,
    format_counts,
    map_raw_labels,
    remap,
    rescale,
    resolve_raw_labels,
)
from sertone.protocol.leaks import LeakReport, hash_recordings
from sertone.protocol.protocol_card import build_protocol_card
from sertone.protocol.splits import Fold, has_label
from sertone.recipe import DataConfig
from sertone.recipe.settings import parse
from sertone.runtime import shipped
from sertone.runtime.answering import Model
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
UNKNOWN_PAST = "nothing is known of the model's training: it may have heard these recordings or speakers"


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        folder: what was written: `results.json`, `predictions.csv`, `report.html`, `protocol.json`.
        scores: score -> value, as `ua`, `wa`, `valence.ccc`.
        intervals: score -> 95 % interval over speakers, [low, high]; empty where there is one speaker.
        utterances: how many were scored.
        speakers: how many spoke them.
        warnings: what the model has heard in training, and what was left out.
    """

    folder: Path
    scores: dict[str, float]
    intervals: dict[str, list[float]]
    utterances: int
    speakers: int
    warnings: list[str]


def evaluate(
    model: str | Path | None,
    corpus: str,
    root: str | Path,
    out: str | Path,
    *,
    classes: Mapping[str, str] | None = None,
    emotions: Mapping[str, str] | None = None,
    text: str | Mapping[str, Any] = "corpus",
    scales: Mapping[str, tuple[float, float]] | None = None,
    only: Mapping[str, Sequence[str]] | None = None,
    reader: Mapping[str, Any] | None = None,
    limit: Mapping[str, Any] | None = None,
    fresh: bool = False,
) -> Evaluation:
    """Score a model on a corpus and write a run folder with one fold.

    Ratings are brought from the scale that the model learnt to that of the corpus; ratings on no known scale
    are taken as they are.

    Args:
        model: a bundle, a checkpoint, a fold, a run (mean of its folds' models), OWNER/NAME on the hub, or
            `hf:` and an audio-classification model of Hugging Face; None: the model of the package.
        corpus: name of the corpus.
        root: its folder, or the manifest's file.
        out: where to write.
        classes: class of the model -> class to report: leave out, merge, rename; None: as they are.
        emotions: emotion of the corpus -> class of the model; None: as the model was trained.
        text: where a model that reads has it from, as `data.text` of a recipe: `none`, `asr`, or more of it.
        scales: rating -> lowest and highest value, where the data sheet does not say.
        only: what of the corpus to take, as `data.only` of a recipe; None: all.
        reader: how it is read, as `{"columns": {"path": "clip"}}`: `data.columns` and `data.speaker_pattern`
            of a recipe.
        limit: longest utterance, as `max_seconds` and `longer` of `data` of a recipe; None: any length.
        fresh: replace an evaluation of another model or with other settings that is in the folder.

    Raises:
        SertoneError: of the model or the corpus; `unknown_class`, `no_targets`, `unmapped_labels`,
            `unreadable_audio`, `unknown_emotion`, `run_in_use`, `other_experiment`; of the texts.
    """
    evaluated, out = open_model(model), Path(out)
    trained = evaluated.model
    wanted = dict(classes or {name: name for name in trained.classes})
    mapping = _mapping(evaluated, wanted, emotions)
    settings = {
        "text": text if trained.uses_text else "none",
        "scales": dict(scales or {}),
        "only": only or {},
    }
    settings |= {**(reader or {}), **(limit or {})}
    data = parse(DataConfig, {"corpus": corpus, "root": str(root), **settings}, "evaluate")
    known = {name: own for name, own in corpora.resolve_scales(data).items() if name in trained.scales}
    found = corpora.load(corpus, root, data.only, **data.reader_options)
    mapping = resolve_raw_labels(mapping, map_raw_labels(found))
    require_emotions(emotions or {}, found)
    test = [u for u in found if u.labels.get("emotion") in mapping or has_label(u, tuple(known))]
    _require_some(trained, test, found, mapping)
    require_covered(found, mapping, chosen=bool(classes or emotions))
    test, limited = evaluation_models.limit_durations(test, data, _say)
    card = _card(evaluated, data, found, test, mapping, _name(model)) | limited
    texts = transcripts.load_transcripts(
        data.text, test, card["file_hashes"], _say, card["corpus"]["language"]
    )
    card["evaluated"] |= {"text": texts.about, "scales": card["scales"], "only": data.only}
    card["evaluated"] |= data.reader_options | limited
    given = texts.attach_to(test)
    fold = _fold(evaluated, given, mapping, wanted, known) | {"name": card["corpus"]["title"]}
    undivided = fold.pop("undivided")
    card["text"] = evaluation_models.describe_texts(texts, undivided)
    about = {
        "corpus": corpus,
        "model": evaluated.name,
        "encoder": evaluated.encoder,
        "classes": class_names(wanted),
        "ratings": {name: asdict(scale) for name, scale in known.items()},
        "folds_of_other_settings": [],
    }
    with lock(out):
        _refuse_other(out, card, fresh=fresh)
        write_json(out / "protocol.json", card)
        results.write_results(out, [fold], about)
    said = evaluation_models.list_text_warnings(trained, given, undivided)
    if unknown := display.describe_unknown_speakers(card):
        said.append(unknown)
    said = _warnings(trained, card["leaks"][0], found, mapping, known) + said
    _, scores = Scores.from_evaluation(out)
    counts = {"utterances": scores.utterances, "speakers": scores.speakers}
    return Evaluation(out, scores.values, scores.intervals, **counts, warnings=said)


def _name(model: str | Path | None) -> str:
    return f"{shipped.NAME}, which comes with Sertone" if model is None else str(model)


def _say(line: str) -> None:
    print_status(line)


def _refuse_other(out: Path, card: dict[str, Any], *, fresh: bool) -> None:
    """Refuse a folder that holds something else than an evaluation of this model."""
    if not (out / "protocol.json").is_file():
        return
    before = json.loads((out / "protocol.json").read_text(encoding="utf-8")).get("evaluated")
    if before != card["evaluated"] and not (before and fresh):
        holds = f"an evaluation of {before['model']}" if before else "a run of its own"
        way_out = "choose another --out" + ", or replace it with --fresh" * bool(before)
        raise SertoneError("other_experiment", f"{out} holds {holds}", "a folder of this evaluation", way_out)


def _mapping(
    evaluated: EvaluatedModel, wanted: Mapping[str, str], emotions: Mapping[str, str] | None
) -> dict[str, str]:
    """Emotion of the corpus -> class to report."""
    known = evaluated.class_map if emotions is None else emotions
    trained = evaluated.model
    if unknown := sorted({*known.values(), *wanted} - set(trained.classes)):
        raise SertoneError(
            "unknown_class",
            f"{', '.join(unknown)}, which the model does not know",
            f"some of {', '.join(trained.classes)}",
        )
    return {emotion: wanted[name] for emotion, name in known.items() if name in wanted}


def _fold(
    evaluated: EvaluatedModel,
    test: list[Utterance],
    mapping: dict[str, str],
    wanted: dict[str, str],
    scales: Mapping[str, Scale],
) -> dict[str, Any]:
    """The corpus as the one fold of a run."""
    recordings, model = Recordings(CACHE_GB), evaluated.model
    recordings.load(test)
    answers = evaluated.predict(test, recordings)
    sides = (answers.uncalibrated, answers.probabilities)
    before, after = (None if s is None or not wanted else remap(s, model.classes, wanted) for s in sides)
    ratings = {
        name: [rescale(value, model.scales[name] or scale, scale) for value in answers.ratings[name]]
        for name, scale in scales.items()
    }
    unchanged = wanted == {name: name for name in model.classes}
    threshold = model.threshold if unchanged else None  # of other classes nothing is known
    by = replace(evaluated.calibration, threshold=threshold)
    voted = any(u.votes for u in test)
    names = class_names(wanted)
    known = after if before is None else before
    fold = score_predictions(test, mapping, names, after, known, by, ratings=ratings, with_votes=voted)
    if before is None and "confidence" in fold:
        del fold["confidence"]["before"]  # nobody knows it
    scores = _scores(fold["rows"], bool(wanted), ratings)
    by_windows = evaluation_models.select_long_utterances(model, test, recordings)
    fold["undivided"] = sum(bool(u.text) for u in by_windows)
    return fold | {"metrics": scores, "train": 0, "validation": 0, "history": [], "auxiliary": {}}


def _scores(rows: list[dict[str, Any]], classes: bool, ratings: Iterable[str]) -> dict[str, dict[str, float]]:
    """Of emotion and of each rating, over the rows that have a label of it."""
    scores = {}
    for task in [*(["emotion"] if classes else []), *ratings]:
        if known := sufficient_statistics.select_labelled(rows, task):
            sides = (
                [row[column] for row in known] for column in sufficient_statistics.get_task_columns(task)
            )
            scores[task] = metrics.SCORES["emotion" if task == "emotion" else "ratings"](*sides)
    return scores


def _require_some(
    trained: Model, test: list[Utterance], found: list[Utterance], mapping: Mapping[str, str]
) -> None:
    if not test and not trained.classes:
        raise SertoneError(
            "no_targets",
            f"the model rates {', '.join(trained.scales)}; the corpus has no such rating on a known scale",
            "one at least",
            "--scales says the ends of a manifest's scales: valence=1:7",
        )
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
    evaluated: EvaluatedModel,
    data: DataConfig,
    found: list[Utterance],
    test: list[Utterance],
    mapping: dict[str, str],
    model: str,
) -> dict[str, Any]:
    """Protocol card of the evaluation; its leak report names what the model has heard."""
    title, hashes = corpora.load_sheet(data.corpus).TITLE, hash_recordings(test)
    rule, leak = {"split": "another corpus"}, LeakReport(title)
    past = evaluated.seen_in_training or []
    if unknown := contamination.count_unknown_speakers(past):
        rule["speaker_independent"] = "not known"
    card = build_protocol_card(
        data, len(found), [Fold(title, [], [], test)], [leak], mapping, hashes, rule, 0
    )
    about = evaluated.model.card
    card["evaluated"] = {"model": model, "trained_on": about["corpus"]["title"]}
    card["selection"] = about["selection"]
    ids, speakers = contamination.find_overlap(test, card, past)
    found_again = {"recordings": ids, "speakers": speakers, "unknown_speakers": unknown}
    card["leaks"] = [vars(leak) | found_again | {"known": evaluated.seen_in_training is not None}]
    return card


def _warnings(
    trained: Model,
    leak: Mapping[str, Any],
    found: list[Utterance],
    mapping: Mapping[str, str],
    scales: Mapping[str, Scale],
) -> list[str]:
    """What the reader of the score must know."""
    said = [] if leak["known"] else [UNKNOWN_PAST]
    if ids := leak["recordings"]:
        said.append(f"the model has heard {len(ids)} of these recordings in training, such as {ids[0]}")
    if speakers := leak["speakers"]:
        said.append(
            f"the model has heard {len(speakers)} of these speakers in training, such as {speakers[0]}"
        )
    if leak["unknown_speakers"]:
        said.append(f"in training, the model has heard {contamination.UNKNOWN}")
    emotions = [u.labels["emotion"] for u in found if "emotion" in u.labels]
    if outside := sum(emotion not in mapping for emotion in emotions) if mapping else 0:
        which = format_counts(count_unmapped(found, mapping))
        said.append(f"{outside} of {len(emotions)} utterances have an emotion outside the classes: {which}")
    said += [f"{name} of the corpus has no known scale" for name in trained.scales if name not in scales]
    as_they_are = [name for name in scales if trained.scales[name] is None]
    return said + [f"{name} of the model is on no known scale: taken as it is" for name in as_they_are]

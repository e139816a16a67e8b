"""The cost of int8 or bf16: predictions compared with those of fp32, on the recordings of a corpus."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sertone import audio, corpora
from sertone.errors import SertoneError
from sertone.labels import rescale, scale_range
from sertone.runtime.answering import Model
from sertone.schema import Utterance
from sertone.scoring import metrics

MAX_LOSS_POINTS = 0.5
"""Points (hundredths) of UA or CCC that int8 may lose."""


def compare_precisions(
    exact: Model,
    converted: Model,
    class_map: Mapping[str, str],
    corpus: str,
    root: str | Path,
    reader: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Compare the predictions of two models on all utterances of a corpus.

    Args:
        exact: bundle in fp32.
        converted: the same model in another precision.
        class_map: emotion -> class; utterances of other emotions do not count in UA.
        corpus: its name.
        root: its folder, or the file of a manifest.
        reader: options of its reader, as `corpora.load` takes them.

    Returns:
        `corpus`, `utterances`; for the classes `equal_labels` (share), `mean_difference` of the
        probabilities; for the ratings `mean_rating_difference`, as a share of their scales; `scores` (`ua`,
        `valence.ccc`, ... -> `fp32`, `own`, `utterances`), and `loss_points`, the largest loss of a score,
        None where the corpus has no such label.

    Raises:
        SertoneError: as `corpora.load`, `audio.read`; `nothing_to_compare`.
    """
    utterances = corpora.load(corpus, root, **(reader or {}))
    if not utterances:
        raise SertoneError("nothing_to_compare", f"no recording in {root}", "one at least")
    pairs = [(_predict(exact, utterance), _predict(converted, utterance)) for utterance in utterances]
    # Axis 1: fp32 first, then the other precision.
    probabilities, ratings = (np.stack([[a[part], b[part]] for a, b in pairs]) for part in (0, 1))
    scores = _score_classes(exact, utterances, probabilities, class_map)
    scores |= _score_ratings(exact, utterances, ratings, corpora.load_sheet(corpus).SCALES)
    # Scores are shares; a point is a hundredth.
    losses = [100 * (score["fp32"] - score["own"]) for score in scores.values()]
    return {
        "corpus": corpora.load_sheet(corpus).TITLE,
        "utterances": len(utterances),
        **_measure_differences(exact, probabilities, ratings),
        "scores": scores,
        "loss_points": max(losses) if losses else None,
    }


def require_small_loss(comparison: Mapping[str, Any], precision: str, force: bool) -> None:
    """Refuse int8 if it loses too much.

    Args:
        comparison: as `compare_precisions` returns it.
        precision: precision of the bundle; `parity` has the tolerance of bf16.
        force: accept any loss.

    Raises:
        SertoneError: `int8_loss`.
    """
    loss = comparison["loss_points"]
    if precision == "int8" and not force and loss is not None and loss > MAX_LOSS_POINTS:
        scores = [
            f"{name} {score['own']:.3f}, in fp32 {score['fp32']:.3f}"
            for name, score in comparison["scores"].items()
        ]
        raise SertoneError(
            "int8_loss",
            f"int8 loses {loss:.2f} points on {comparison['corpus']}: {'; '.join(scores)}",
            f"no more than {MAX_LOSS_POINTS:g}",
            "export it in fp32 or bf16, or write it all the same with --force",
        )


def _predict(model: Model, utterance: Utterance) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities (K,) and ratings (R,)."""
    recording = audio.read(utterance.path, start_s=utterance.start_s, end_s=utterance.end_s)
    # Models need a minimum number of samples; shorter recordings are padded with silence.
    missing = max(0, model.min_samples - len(recording.samples))
    waveform = np.pad(recording.samples, (0, missing))[None]
    outputs = model.outputs(waveform, utterance.text if model.uses_text else None)
    return outputs.probabilities[0], outputs.ratings[0]


def _measure_differences(model: Model, probabilities: np.ndarray, ratings: np.ndarray) -> dict[str, float]:
    """Compare probabilities (N, 2, K) and ratings (N, 2, R); axis 1 has fp32 first."""
    differences = {}
    if model.classes:
        exact, converted = probabilities[:, 0], probabilities[:, 1]
        differences["equal_labels"] = float((exact.argmax(-1) == converted.argmax(-1)).mean())
        differences["mean_difference"] = float(np.abs(exact - converted).mean())
    if model.scales:
        ranges = np.asarray([scale_range(scale) for scale in model.scales.values()])
        mean = float(np.abs((ratings[:, 0] - ratings[:, 1]) / ranges).mean())
        differences["mean_rating_difference"] = mean
    return differences


def _score_classes(
    model: Model, utterances: Sequence[Utterance], probabilities: np.ndarray, class_map: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """Return the UA of both models on the utterances whose emotion is a class of the model."""
    targets = [class_map.get(str(utterance.labels.get("emotion"))) for utterance in utterances]
    rows = [row for row, target in enumerate(targets) if target in model.classes]
    if not rows:
        return {}
    labels = [str(targets[row]) for row in rows]
    predictions = [[model.classes[index] for index in side] for side in probabilities[rows].argmax(-1).T]
    exact, converted = (metrics.emotion_scores(labels, side)["ua"] for side in predictions)
    return {"ua": {"fp32": exact, "own": converted, "utterances": len(rows)}}


def _score_ratings(
    model: Model, utterances: Sequence[Utterance], ratings: np.ndarray, scales: Mapping[str, Any]
) -> dict[str, dict[str, float]]:
    """Return the CCC of both models for every rating of the corpus, on the scale of the corpus."""
    scores = {}
    for column, (name, model_scale) in enumerate(model.scales.items()):
        rows = [
            row for row, utterance in enumerate(utterances) if isinstance(utterance.labels.get(name), float)
        ]
        if name not in scales or not rows:
            continue
        targets = [float(utterances[row].labels[name]) for row in rows]
        # Without a known scale, the ratings of the model are taken as they are.
        from_scale = model_scale or scales[name]
        sides = [
            [rescale(float(value), from_scale, scales[name]) for value in ratings[rows, side, column]]
            for side in (0, 1)
        ]
        exact, converted = (metrics.rating_scores(targets, side)["ccc"] for side in sides)
        scores[f"{name}.ccc"] = {"fp32": exact, "own": converted, "utterances": len(rows)}
    return scores

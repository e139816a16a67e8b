"""What int8 or bf16 costs: its answers against those of fp32, on the recordings of a corpus."""

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

LIMIT = 0.5
"""Points of UA or CCC (hundredths) that int8 may lose."""


def compare_precisions(
    exact: Model,
    other: Model,
    class_map: Mapping[str, str],
    corpus: str,
    root: str | Path,
    reader: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Compares the answers of two models on all utterances of a corpus.

    Args:
        exact: in fp32.
        other: the same model in another precision.
        class_map: emotion -> class; utterances of other emotions do not count in UA.
        corpus: its name.
        root: its folder, or the manifest's file.
        reader: options of its reader, as `corpora.load` takes them.

    Returns:
        `corpus`, `utterances`; of the classes `equal_labels` (share), `mean_difference` of the
        probabilities; of the ratings `mean_rating_difference`, as a share of their scales; `scores` (`ua`,
        `valence.ccc`, ... -> `fp32`, `own`, `utterances`), and `loss_points`, the most that one of them
        lost, None where the corpus has no such label.

    Raises:
        SertoneError: as `corpora.load`, `audio.read`; `nothing_to_compare`.
    """
    utterances = corpora.load(corpus, root, **(reader or {}))
    if not utterances:
        raise SertoneError("nothing_to_compare", f"no recording in {root}", "one at least")
    answers = [(_answer(exact, u), _answer(other, u)) for u in utterances]
    shares, ratings = (np.stack([[a[part], b[part]] for a, b in answers]) for part in (0, 1))
    scores = _ua(exact, utterances, shares, class_map)
    scores |= _ccc(exact, utterances, ratings, corpora.load_sheet(corpus).SCALES)
    losses = [100 * (score["fp32"] - score["own"]) for score in scores.values()]
    return {
        "corpus": corpora.load_sheet(corpus).TITLE,
        "utterances": len(utterances),
        **_differences(exact, shares, ratings),
        "scores": scores,
        "loss_points": max(losses) if losses else None,
    }


def require_small_loss(found: Mapping[str, Any], precision: str, force: bool) -> None:
    """Refuses int8 that loses too much.

    Args:
        found: what `agreement` gave.
        precision: of the bundle; bf16 has a tolerance of its own, see `parity`.
        force: whatever it loses.

    Raises:
        SertoneError: `int8_loss`.
    """
    loss = found["loss_points"]
    if precision == "int8" and not force and loss is not None and loss > LIMIT:
        named = [f"{n} {s['own']:.3f}, in fp32 {s['fp32']:.3f}" for n, s in found["scores"].items()]
        raise SertoneError(
            "int8_loss",
            f"int8 loses {loss:.2f} points on {found['corpus']}: {'; '.join(named)}",
            f"no more than {LIMIT:g}",
            "export it in fp32 or bf16, or write it all the same with --force",
        )


def _answer(model: Model, utterance: Utterance) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (K,) and ratings (R,)."""
    read = audio.read(utterance.path, start_s=utterance.start_s, end_s=utterance.end_s)
    missing = max(0, model.min_samples - len(read.samples))
    given = model.outputs(
        np.pad(read.samples, (0, missing))[None], utterance.text if model.uses_text else None
    )
    return given.probabilities[0], given.ratings[0]


def _differences(model: Model, shares: np.ndarray, ratings: np.ndarray) -> dict[str, float]:
    """Of shares (N, 2, K) and ratings (N, 2, R), fp32 before the other."""
    found = {}
    if model.classes:
        first, second = shares[:, 0], shares[:, 1]
        found["equal_labels"] = float((first.argmax(-1) == second.argmax(-1)).mean())
        found["mean_difference"] = float(np.abs(first - second).mean())
    if model.scales:
        spans = np.asarray([scale_range(scale) for scale in model.scales.values()])
        found["mean_rating_difference"] = float(np.abs((ratings[:, 0] - ratings[:, 1]) / spans).mean())
    return found


def _ua(
    model: Model, utterances: Sequence[Utterance], shares: np.ndarray, class_map: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    targets = [class_map.get(str(u.labels.get("emotion"))) for u in utterances]
    rows = [row for row, target in enumerate(targets) if target in model.classes]
    if not rows:
        return {}
    labels = [str(targets[row]) for row in rows]
    told = [[model.classes[index] for index in side] for side in shares[rows].argmax(-1).T]
    first, second = (metrics.emotion_scores(labels, side)["ua"] for side in told)
    return {"ua": {"fp32": first, "own": second, "utterances": len(rows)}}


def _ccc(
    model: Model, utterances: Sequence[Utterance], ratings: np.ndarray, scales: Mapping[str, Any]
) -> dict[str, dict[str, float]]:
    found = {}
    for column, (name, own) in enumerate(model.scales.items()):
        rows = [row for row, u in enumerate(utterances) if isinstance(u.labels.get(name), float)]
        if name not in scales or not rows:
            continue
        targets = [float(utterances[row].labels[name]) for row in rows]
        sides = [
            [
                rescale(float(value), own or scales[name], scales[name])
                for value in ratings[rows, side, column]
            ]
            for side in (0, 1)
        ]
        first, second = (metrics.rating_scores(targets, side)["ccc"] for side in sides)
        found[f"{name}.ccc"] = {"fp32": first, "own": second, "utterances": len(rows)}
    return found

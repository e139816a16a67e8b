"""One self-contained HTML page for a run: scores, confusion, ratings, curves, speakers, protocol, recipe."""

from collections import defaultdict
from itertools import groupby
from math import isfinite
from pathlib import Path

from sertone.files import load_json
from sertone.report import cards, conditions, emotion, page, plots, protocol, ratings
from sertone.scoring import display
from sertone.scoring.display import SCORE_FORMATS
from sertone.sharing.card_scores import describe_choice
from sertone.utils import spreadsheet
from sertone.utils.wording import format_axis_value, format_count

TASK_NAMES = {
    "gender": "gender",
    "style": "style",
    "speaker": "speaker",
    "asr": "transcript",
}


def write(run: Path) -> Path:
    """Write `report.html` from the other files of a run folder.

    Args:
        run: folder of the run, with recipe.yaml, protocol.json, results.json and predictions.csv.

    Returns:
        the page's path.
    """
    from markupsafe import Markup

    results = load_json(run / "results.json", "not_a_run")
    card = load_json(run / "protocol.json", "not_a_run")
    rows = spreadsheet.read_rows(run / "predictions.csv")
    recipe = run / "recipe.yaml"  # missing if a model was evaluated on another corpus
    return page.write(
        run / "report.html",
        "run.html",
        title=f"{results['model']} on {card['corpus']['title']}",
        subtitle=_build_subtitle(card, results),
        card=card,
        unknown=display.describe_unknown_speakers(card),
        drawn=display.describe_drawn_units(display.count_test_speakers(card)),
        headline=cards.build_cards(results),
        chance=cards.describe_chance(results),
        emotion=emotion.build_section(results, rows),
        ratings=ratings.build_section(results, rows),
        modalities=conditions.build_section(results),
        folds=cards.build_fold_table(results),
        auxiliary=_build_auxiliary_table(results),
        curves=[curve | {"svg": Markup(curve["svg"])} for curve in _plot_curves(results)],
        best_of=describe_choice(run),
        trouble=_describe_trouble(results),
        cost=_describe_cost(results),
        # Set for a trained model on another corpus, not for a cross-validation.
        evaluated=card.get("evaluated"),
        leaks=protocol.describe_leaks(card, results["folds"]),
        protocol=protocol.build_rows(card),
        recipe=recipe.read_text(encoding="utf-8") if recipe.is_file() else "",
    )


def _build_subtitle(card: dict, results: dict) -> str:
    corpus = card["corpus"]
    utterances = format_count(corpus["utterances_used"], "utterance")
    speakers = f"{utterances} of {display.describe_speakers(corpus)}"
    if evaluated := card.get("evaluated"):
        return (
            f"Encoder {results['encoder']}, {evaluated['model']}, trained on {evaluated['trained_on']}; "
            f"{speakers}"
        )
    split = card["split"]["split"].replace("_", " ")
    folds = f"{format_count(len(results['folds']), 'fold')} ({split})"
    subtitle = (
        f"Encoder {results['encoder']}; {speakers}, {folds}, {display.describe_independence(card)}, "
        f"seed {card['seed']}"
    )
    if "chosen" in results:
        subtitle += "; settings chosen without the fold that they are tested on"
    return subtitle


def _build_auxiliary_table(results: dict) -> dict | None:
    """Return the scores of the auxiliary tasks after each stage: `head`, and `rows` with a cell for each.

    A cell holds the pooled score and the mean over folds. A single fold says little: it may hold one gender.
    """
    after = results.get("after_stages", {})
    columns = [*after.values(), results]
    scores = results["mean"] | results["pooled"]
    tasks = [task for task in scores if task != "emotion" and task not in results["ratings"]]
    rows = [_build_auxiliary_row(columns, task, score) for task in tasks for score in scores[task]]
    # All folds have the same stages, so the first one names the last stage.
    history = results["folds"][0]["history"]
    last_stage = history[-1]["stage"] if history else ""  # a last stage without epochs is not in the history
    last = [last_stage if last_stage and last_stage not in after else "last"] if after else []
    heads = [f"after stage {number} ({name})" for number, name in enumerate([*after, *last], 1)]
    return {"head": heads or ["score"], "rows": rows} if rows else None


def _build_auxiliary_row(columns: list[dict], task: str, score: str) -> dict:
    row = {"task": TASK_NAMES.get(task, task), "note": ""}
    if score == "note":
        return row | {"score": "accuracy", "note": columns[-1]["mean"][task]["note"]}
    cells = [[column[kind].get(task, {}).get(score) for kind in ("pooled", "mean")] for column in columns]
    texts = [["–" if value is None else f"{value:.1%}" for value in cell] for cell in cells]
    return row | {"score": SCORE_FORMATS[score].title, "cells": texts}


def _plot_curves(results: dict) -> list[dict]:
    """Return plots of losses, scores, gradients and learning rates by stage."""
    by_stage: dict[str, dict[str, list[dict]]] = defaultdict(dict)
    for fold in results["folds"]:
        for stage, entries in groupby(fold["history"], key=lambda entry: entry["stage"]):
            by_stage[stage][fold["name"]] = list(entries)
    ratings = {f"val_{name}": f"CCC of {name} of the validation speaker" for name in results["ratings"]}
    curves = []
    for number, (stage, folds) in enumerate(by_stage.items(), 1):
        title = f"Stage {number}, {stage}"
        for key, name in (CURVES | ratings | GRADIENTS).items():
            values = {
                fold: [entry[key] for entry in entries if key in entry] for fold, entries in folds.items()
            }
            curves += _plot_curve(f"{title}: {name}", values)
        rates = _collect_learning_rates(folds)
        alt = f"{title}: learning rate of {', '.join(rates)} over the epochs"
        curves += _plot_curve(f"{title}: learning rate", rates, alt)
    return curves


CURVES = {"loss": "loss", "ua": "UA in training", "val_ua": "UA of the validation speaker"}
"""Entry of the history -> name of its curve."""
GRADIENTS = {
    "gradient_norm": "gradient norm before clipping, mean",
    "gradient_norm_max": "gradient norm before clipping, largest",
    "clipped_steps": "share of steps whose gradient was clipped",
}


def _plot_curve(title: str, values: dict[str, list[float]], alt: str = "") -> list[dict]:
    """Return a list with a plot that has one line per name; an empty list if no value is finite."""
    finite = {name: [value for value in row if isfinite(value)] for name, row in values.items()}
    series = {name: row for name, row in finite.items() if row}
    if not series:
        return []
    alt = alt or f"{title}, from {_format_mean(series, 0)} to {_format_mean(series, -1)} over the epochs"
    return [{"title": title, "svg": plots.plot_lines(series, "epoch", alt), "names": list(series)}]


def _collect_learning_rates(folds: dict[str, list[dict]]) -> dict[str, list[float]]:
    """Return the learning rates after every epoch by part of the model; also by fold if they differ."""
    by_fold = {
        fold: [entry["learning_rates"] for entry in entries if "learning_rates" in entry]
        for fold, entries in folds.items()
    }
    rows = list(by_fold.values())
    equal = all(row == rows[0] for row in rows)
    series = {}
    for fold, row in list(by_fold.items())[: 1 if equal else None]:
        for part in row[0] if row else ():
            series[part if equal else f"{part}, {fold}"] = [rates[part] for rates in row]
    return series


def _format_mean(series: dict[str, list[float]], index: int) -> str:
    values = [row[index] for row in series.values()]
    mean = sum(values) / len(values)
    return format_axis_value(mean, mean)


def _describe_trouble(results: dict) -> str:
    """Return sentences on problems that did not end the run; empty if there were none."""
    folds = results["folds"]
    entries = [entry for fold in folds for entry in fold["history"]]
    skipped = sum(entry["skipped_steps"] for entry in entries)
    unfit = max((entry["unfit_transcripts"] for entry in entries), default=0)
    parts = []
    if mixed := results["folds_of_other_settings"]:
        parts.append(
            f"These folds were trained with other settings than this page shows: {', '.join(mixed)}."
        )
    if skipped:
        parts.append(f"Left out: {format_count(skipped, 'training step')} without a finite loss or gradient.")
    if bounded := sum(entry.get("bounded_batches", 0) for entry in entries):
        share = bounded / sum(entry["batches"] for entry in entries)
        parts.append(f"{share:.0%} of the batches are smaller than requested, because of train.batch_gb.")
    if unfit:  # CTC cannot align more characters than frames
        transcripts = format_count(unfit, "transcript")
        parts.append(f"Left out: up to {transcripts} per epoch, longer than their number of frames.")
    return " ".join(parts)


def _describe_cost(results: dict) -> str:
    """Return sentences on the duration of training, and on the time for waiting and padding."""
    entries = [entry for fold in results["folds"] for entry in fold["history"]]
    seconds = sum(entry["seconds"] for entry in entries)
    if not seconds:
        return ""
    busy = sum(entry["busy"] * entry["seconds"] for entry in entries) / seconds
    padding = sum(entry["padding_factor"] for entry in entries) / len(entries)
    epochs = format_count(len(entries), "epoch")
    return (
        f"{epochs} of {seconds / len(entries):.1f} s on average. {busy:.1%} of the time was spent on "
        f"computing rather than on waiting for data. With padding, {padding:.3f} s were computed per second "
        "of speech." + _describe_withheld_input(results)
    )


def _describe_withheld_input(results: dict) -> str:
    """Return a sentence on the share of training utterances without text or audio; empty without any."""
    entries = [entry for fold in results["folds"] for entry in fold["history"]]
    utterances = sum(fold["train"] * len(fold["history"]) for fold in results["folds"])
    parts = []
    for name in ("text", "audio"):
        if count := sum(entry.get(f"without_{name}", 0) for entry in entries):
            parts.append(f"the {name} of {count / utterances:.0%}")
    if not parts:
        return ""
    return f" Withheld in training, as a share of all utterances in all epochs: {', '.join(parts)}."

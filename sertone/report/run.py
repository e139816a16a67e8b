"""One self-contained HTML page for a run: scores, confusion, ratings, curves, speakers, protocol, recipe."""

from collections import defaultdict
from itertools import groupby
from math import isfinite
from pathlib import Path

from sertone.files import read_json
from sertone.report import cards, conditions, emotion, page, plots, protocol, ratings
from sertone.scoring import display
from sertone.scoring.display import SCORE_FORMATS, format_axis_value, format_count
from sertone.sharing.card_scores import describe_choice
from sertone.utils import spreadsheet

TASK_NAMES = {
    "gender": "gender",
    "style": "style",
    "speaker": "speaker",
    "asr": "transcript",
}


def write(run: Path) -> Path:
    """Writes `report.html` from the other files of a run folder.

    Args:
        run: with recipe.yaml, protocol.json, results.json and predictions.csv.

    Returns:
        the page's path.
    """
    from markupsafe import Markup

    results = read_json(run / "results.json", "not_a_run")
    card = read_json(run / "protocol.json", "not_a_run")
    rows = spreadsheet.read_rows(run / "predictions.csv")
    written = run / "recipe.yaml"  # not there where a model was evaluated on another corpus
    return page.write(
        run / "report.html",
        "run.html",
        title=f"{results['model']} on {card['corpus']['title']}",
        subtitle=_subtitle(card, results),
        card=card,
        unknown=display.describe_unknown_speakers(card),
        drawn=display.describe_drawn_units(display.count_test_speakers(card)),
        headline=cards.build_cards(results),
        chance=cards.describe_chance(results),
        emotion=emotion.build_section(results, rows),
        ratings=ratings.build_section(results, rows),
        modalities=conditions.build_section(results),
        folds=cards.build_fold_table(results),
        auxiliary=_auxiliary(results),
        curves=[curve | {"svg": Markup(curve["svg"])} for curve in _curves(results)],
        best_of=describe_choice(run),
        trouble=_describe_trouble(results),
        cost=_cost(results),
        evaluated=card.get("evaluated"),  # a model from elsewhere, rather than a cross-validation
        leaks=protocol.describe_leaks(card, results["folds"]),
        protocol=protocol.build_rows(card),
        recipe=written.read_text(encoding="utf-8") if written.is_file() else "",
    )


def _subtitle(card: dict, results: dict) -> str:
    corpus = card["corpus"]
    split = card["split"]["split"].replace("_", " ")
    if evaluated := card.get("evaluated"):
        return (
            f"Encoder {results['encoder']}, {evaluated['model']}, trained on {evaluated['trained_on']}; "
            f"{format_count(corpus['utterances_used'], 'utterance')} of {display.describe_speakers(corpus)}"
        )
    folds = f"{format_count(len(results['folds']), 'fold')} ({split})"
    chosen = "; settings chosen without the fold that they answer" if "chosen" in results else ""
    return (
        f"Encoder {results['encoder']}; {format_count(corpus['utterances_used'], 'utterance')} of "
        f"{display.describe_speakers(corpus)}, {folds}, {display.describe_independence(card)}, seed {card['seed']}{chosen}"
    )


def _auxiliary(results: dict) -> dict | None:
    """Return the scores of the auxiliary tasks after each stage: `head`, and `rows` with a cell for each.

    A cell holds the pooled score and the mean over folds: a fold of one gender, say, shows little alone.
    """
    after = results.get("after_stages", {})
    columns = [*after.values(), results]
    known = results["mean"] | results["pooled"]
    tasks = [task for task in known if task != "emotion" and task not in results["ratings"]]
    rows = [_score_of_task(columns, task, score) for task in tasks for score in known[task]]
    history = results["folds"][0]["history"]
    ended = history[-1]["stage"] if history else ""  # a last stage of no epochs is not in it
    last = [ended if ended and ended not in after else "last"] if after else []
    heads = [f"after stage {number} ({name})" for number, name in enumerate([*after, *last], 1)]
    return {"head": heads or ["score"], "rows": rows} if rows else None


def _score_of_task(columns: list[dict], task: str, score: str) -> dict:
    """Return a row of the auxiliary tasks' table."""
    row = {"task": TASK_NAMES.get(task, task), "note": ""}
    if score == "note":
        return row | {"score": "accuracy", "note": columns[-1]["mean"][task]["note"]}
    cells = [[own[kind].get(task, {}).get(score) for kind in ("pooled", "mean")] for own in columns]
    texts = [["–" if value is None else f"{value:.1%}" for value in cell] for cell in cells]
    return row | {"score": SCORE_FORMATS[score].title, "cells": texts}


def _curves(results: dict) -> list[dict]:
    """Losses, scores, gradients and learning rates by stage."""
    by_stage: dict[str, dict[str, list[dict]]] = defaultdict(dict)
    for fold in results["folds"]:
        for stage, entries in groupby(fold["history"], key=lambda entry: entry["stage"]):
            by_stage[stage][fold["name"]] = list(entries)
    ratings = {f"val_{name}": f"CCC of {name} of the validation speaker" for name in results["ratings"]}
    curves = []
    for number, (stage, runs) in enumerate(by_stage.items(), 1):
        title = f"Stage {number}, {stage}"
        for key, name in (CURVES | ratings | GRADIENTS).items():
            values = {f: [e[key] for e in es if key in e] for f, es in runs.items()}
            curves += _curve(f"{title}: {name}", values)
        rates = _learning_rates(runs)
        alt = f"{title}: learning rate of {', '.join(rates)} over the epochs"
        curves += _curve(f"{title}: learning rate", rates, alt)
    return curves


CURVES = {"loss": "loss", "ua": "UA in training", "val_ua": "UA of the validation speaker"}
"""Entry of the history -> what its curve is called."""
GRADIENTS = {
    "gradient_norm": "gradient norm before clipping, mean",
    "gradient_norm_max": "gradient norm before clipping, largest",
    "clipped_steps": "share of steps whose gradient was clipped",
}


def _curve(title: str, values: dict[str, list[float]], alt: str = "") -> list[dict]:
    """Return a plot with one line per name; none where no value is finite."""
    finite = {name: [value for value in row if isfinite(value)] for name, row in values.items()}
    series = {name: row for name, row in finite.items() if row}
    if not series:
        return []
    alt = alt or f"{title}, from {_ends(series, 0)} to {_ends(series, -1)} over the epochs"
    return [{"title": title, "svg": plots.plot_lines(series, "epoch", alt), "names": list(series)}]


def _learning_rates(runs: dict[str, list[dict]]) -> dict[str, list[float]]:
    """Return the rates at the end of every epoch by part of the model; by fold too where folds differ."""
    by_fold = {f: [e["learning_rates"] for e in es if "learning_rates" in e] for f, es in runs.items()}
    rows = list(by_fold.values())
    alike = all(row == rows[0] for row in rows)
    series = {}
    for fold, row in list(by_fold.items())[: 1 if alike else None]:
        for part in row[0] if row else ():
            series[part if alike else f"{part}, {fold}"] = [rates[part] for rates in row]
    return series


def _ends(series: dict[str, list[float]], index: int) -> str:
    values = [row[index] for row in series.values()]
    mean = sum(values) / len(values)
    return format_axis_value(mean, mean)


def _describe_trouble(results: dict) -> str:
    """What went wrong on the way without ending the run."""
    folds = results["folds"]
    entries = [entry for fold in folds for entry in fold["history"]]
    skipped = sum(entry["skipped_steps"] for entry in entries)
    unfit = max((entry["unfit_transcripts"] for entry in entries), default=0)
    parts = []
    if mixed := results["folds_of_other_settings"]:
        parts.append(f"Trained with other settings than this page shows: {', '.join(mixed)}.")
    if skipped:
        parts.append(f"Left out: {format_count(skipped, 'step')} without a finite loss or gradient.")
    if bounded := sum(entry.get("bounded_batches", 0) for entry in entries):
        share = bounded / sum(entry["batches"] for entry in entries)
        parts.append(f"{share:.0%} of the batches are smaller than asked for, by train.batch_gb.")
    if unfit:
        parts.append(
            f"Longer than their frames, so left out: up to {format_count(unfit, 'transcript')} per epoch."
        )
    return " ".join(parts)


def _cost(results: dict) -> str:
    """What the training took, and what of it was padding and waiting."""
    entries = [entry for fold in results["folds"] for entry in fold["history"]]
    seconds = sum(entry["seconds"] for entry in entries)
    if not seconds:
        return ""
    busy = sum(entry["busy"] * entry["seconds"] for entry in entries) / seconds
    padding = sum(entry["padding_factor"] for entry in entries) / len(entries)
    epochs = format_count(len(entries), "epoch")
    return (
        f"{epochs} of {seconds / len(entries):.1f} s on average. Of the time {busy:.1%} was "
        f"computing rather than waiting for data; {padding:.3f} s were computed per second of speech."
        + _withheld(results)
    )


def _withheld(results: dict) -> str:
    """How much of the training went without text or audio."""
    heard = sum(fold["train"] * len(fold["history"]) for fold in results["folds"])
    parts = []
    for name in ("text", "audio"):
        entries = [entry for fold in results["folds"] for entry in fold["history"]]
        if count := sum(entry.get(f"without_{name}", 0) for entry in entries):
            parts.append(f"the {name} {count / heard:.0%}")
    return f" Withheld in training, of all utterances of all epochs: {', '.join(parts)}." if parts else ""

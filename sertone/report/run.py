"""One self-contained HTML page for a run: scores, confusion, ratings, curves, speakers, protocol, recipe."""

from collections import defaultdict
from itertools import groupby
from math import isfinite
from pathlib import Path

from sertone import spreadsheet
from sertone.figures import FIGURES
from sertone.files import read_json
from sertone.report import cards, conditions, emotion, page, plots, protocol, ratings
from sertone.sharing.scores import best_of

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
    rows = spreadsheet.read(run / "predictions.csv")
    written = run / "recipe.yaml"  # not there where a model was evaluated on another corpus
    return page.write(
        run / "report.html",
        "run.html",
        title=f"{results['model']} on {card['corpus']['title']}",
        subtitle=_subtitle(card, results),
        card=card,
        headline=cards.headline(results),
        chance=cards.chance_words(results),
        emotion=emotion.section(results, rows),
        ratings=ratings.section(results, rows),
        modalities=conditions.section(results),
        folds=cards.folds(results),
        auxiliary=_auxiliary(results),
        curves=[curve | {"svg": Markup(curve["svg"])} for curve in _curves(results)],
        best_of=best_of(run),
        trouble=_trouble(results),
        cost=_cost(results),
        evaluated=card.get("evaluated"),  # a model from elsewhere, rather than a cross-validation
        leaks=protocol.leaks(card, results["folds"]),
        protocol=protocol.rows(card),
        recipe=written.read_text(encoding="utf-8") if written.is_file() else "",
    )


def _subtitle(card: dict, results: dict) -> str:
    corpus = card["corpus"]
    split = card["split"]["split"].replace("_", " ")
    if evaluated := card.get("evaluated"):
        return (
            f"Encoder {results['encoder']}, {evaluated['model']}, trained on {evaluated['trained_on']}; "
            f"{corpus['utterances_used']} utterances of {corpus['speakers']} speakers"
        )
    folds = f"{len(results['folds'])} folds ({split})"
    chosen = "; settings chosen without the fold that they answer" if "chosen" in results else ""
    return (
        f"Encoder {results['encoder']}; {corpus['utterances_used']} utterances of "
        f"{corpus['speakers']} speakers, {folds}, speaker-independent, seed {card['seed']}{chosen}"
    )


def _auxiliary(results: dict) -> list[dict]:
    """Pooled scores: a fold of one gender, say, has little to tell alone."""
    lines = []
    for task, scores in (results["mean"] | results["pooled"]).items():
        if task == "emotion" or task in results["ratings"]:
            continue
        for score, value in scores.items():
            note = score == "note"
            lines.append(
                {
                    "task": TASK_NAMES.get(task, task),
                    "score": "accuracy" if note else FIGURES[score].title,
                    "value": value if note else f"{value:.1%}",
                }
            )
    return lines


def _curves(results: dict) -> list[dict]:
    """Loss and scores by stage, one line per fold."""
    by_stage: dict[str, dict[str, list[dict]]] = defaultdict(dict)
    for fold in results["folds"]:
        for stage, entries in groupby(fold["history"], key=lambda entry: entry["stage"]):
            by_stage[stage][fold["name"]] = list(entries)
    curves = []
    for number, (stage, runs) in enumerate(by_stage.items(), 1):
        for key, name in (
            ("loss", "loss"),
            ("ua", "UA in training"),
            ("val_ua", "UA of the validation speaker"),
            *((f"val_{name}", f"CCC of {name} of the validation speaker") for name in results["ratings"]),
        ):
            known = {f: [e[key] for e in es if key in e] for f, es in runs.items()}
            series = {f: [value for value in values if isfinite(value)] for f, values in known.items()}
            series = {fold: values for fold, values in series.items() if values}
            if series:
                title = f"Stage {number}, {stage}: {name}"
                alt = f"{title}, from {_ends(series, 0)} to {_ends(series, -1)} over the epochs"
                svg = plots.lines(series, "epoch", alt)
                curves.append({"title": title, "svg": svg, "names": list(series)})
    return curves


def _ends(series: dict[str, list[float]], index: int) -> str:
    values = [row[index] for row in series.values()]
    return f"{sum(values) / len(values):.2f}"


def _trouble(results: dict) -> str:
    """What went wrong on the way without ending the run."""
    folds = results["folds"]
    entries = [entry for fold in folds for entry in fold["history"]]
    skipped = sum(entry["skipped_steps"] for entry in entries)
    unfit = max((entry["unfit_transcripts"] for entry in entries), default=0)
    parts = []
    if mixed := results["folds_of_other_settings"]:
        parts.append(f"Trained with other settings than this page shows: {', '.join(mixed)}.")
    if skipped:
        parts.append(f"{skipped} steps without a finite loss or gradient were skipped.")
    if unfit:
        parts.append(f"Up to {unfit} transcripts per epoch did not fit their frames and did not count.")
    return " ".join(parts)


def _cost(results: dict) -> str:
    """What the training took, and what of it was padding and waiting."""
    entries = [entry for fold in results["folds"] for entry in fold["history"]]
    seconds = sum(entry["seconds"] for entry in entries)
    if not seconds:
        return ""
    busy = sum(entry["busy"] * entry["seconds"] for entry in entries) / seconds
    padding = sum(entry["padding_factor"] for entry in entries) / len(entries)
    return (
        f"{len(entries)} epochs of {seconds / len(entries):.1f} s on average. Of the time {busy:.1%} was "
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

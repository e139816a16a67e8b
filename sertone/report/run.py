"""One self-contained HTML page for a run: scores, confusion, curves, speakers, protocol, recipe."""

import csv
import json
from collections import defaultdict
from itertools import groupby
from pathlib import Path

from sertone import intervals, licences, metrics
from sertone.report import confidence, page, plots

TASK_NAMES = {
    "gender": "gender",
    "style": "style",
    "speaker": "speaker",
    "asr": "transcript",
}
SCORE_NAMES = {
    "ua": "Unweighted accuracy (UA)",
    "wa": "Weighted accuracy (WA)",
    "macro_f1": "Macro-F1",
    "accuracy": "accuracy",
    "cer": "character error rate",
    "wer": "word error rate",
}


def write(run: Path) -> Path:
    """Writes `report.html` from the other files of a run folder.

    Args:
        run: with recipe.yaml, protocol.json, results.json and predictions.csv.

    Returns:
        the page's path.
    """
    from markupsafe import Markup

    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    card = json.loads((run / "protocol.json").read_text(encoding="utf-8"))
    with open(run / "predictions.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    written = run / "recipe.yaml"  # not there where a model was evaluated on another corpus
    recipe = written.read_text(encoding="utf-8") if written.is_file() else ""
    evaluated = card.get("evaluated")  # a model from elsewhere, rather than a cross-validation
    chance = 1 / len(results["classes"])
    curves = _curves(results["folds"])
    return page.write(
        run / "report.html",
        "run.html",
        title=f"{results['model']} on {card['corpus']['title']}",
        subtitle=_subtitle(card, results),
        card=card,
        classes=results["classes"],
        folds=results["folds"],
        chance=chance,
        headline=_headline(results),
        confidence=confidence.section(results),
        soft=_soft(results["pooled"]["emotion"]["soft"]),
        confusion=_confusion(results["pooled"]["emotion"]["confusion"]),
        speaker_plot=Markup(_speakers(rows, results["classes"], chance)),
        auxiliary=_auxiliary(results["mean"] | results["pooled"]),
        curves=[curve | {"svg": Markup(curve["svg"])} for curve in curves],
        trouble=_trouble(results),
        cost=_cost(results),
        evaluated=evaluated,
        leaks=_heard(card["leaks"][0]) if evaluated else _leaks(card["leaks"]),
        protocol=_protocol(card),
        recipe=recipe,
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
    return (
        f"Encoder {results['encoder']}; {corpus['utterances_used']} utterances of "
        f"{corpus['speakers']} speakers, {folds}, speaker-independent, seed {card['seed']}"
    )


def _headline(results: dict) -> list[dict]:
    pooled, mean = results["pooled"]["emotion"], results["mean"]["emotion"]
    return [
        {
            "name": SCORE_NAMES[score],
            "value": pooled[score],
            "intervals": [
                {"over": f"{own['units']} {unit}", "low": own[score][0], "high": own[score][1]}
                for unit, own in pooled["intervals"].items()
            ],
            "mean": mean[score],
            "chance": score == "ua",
        }
        for score in ("ua", "wa", "macro_f1")
    ]


def _soft(scores: dict | None) -> str:
    """How the probabilities agree with the annotators' votes, in one line."""
    if not scores:
        return ""
    return (
        f"Against the votes of the annotators, which {scores['utterances']} test utterances have: "
        f"Jensen-Shannon divergence {scores['jsd']:.3f} bits (0: equal, 1: nothing in common), "
        f"cosine {scores['cosine']:.3f} (1: equal)."
    )


def _confusion(table: list[list[int]]) -> list[list[dict]]:
    return [[{"count": count, "share": count / max(1, sum(row))} for count in row] for row in table]


def _speakers(rows: list[dict], classes: list[str], chance: float) -> str:
    """Scores of each speaker; the interval draws that speaker's utterances one by one."""
    by_speaker = defaultdict(list)
    for row in rows:
        by_speaker[row["speaker"]].append(row)
    shown = []
    for speaker, own in sorted(by_speaker.items()):
        targets, predictions = [r["target"] for r in own], [r["prediction"] for r in own]
        ua = metrics.emotion_scores(targets, predictions)["ua"]
        bounds = intervals.interval(intervals.tables(targets, predictions, range(len(own)), classes)[1])
        low, high = bounds["ua"] if bounds else (ua, ua)
        shown.append((f"{speaker} ({len(own)})", low, ua, high))
    words = ", ".join(f"{name} {ua:.0%}" for name, _, ua, _ in shown)
    return plots.intervals(shown, chance, f"Unweighted accuracy by speaker: {words}")


def _auxiliary(scored: dict[str, dict]) -> list[dict]:
    """Pooled scores: a fold of one gender, say, has little to tell alone."""
    lines = []
    for task, scores in scored.items():
        if task == "emotion":
            continue
        for score, value in scores.items():
            note = score == "note"
            lines.append(
                {
                    "task": TASK_NAMES.get(task, task),
                    "score": "accuracy" if note else SCORE_NAMES[score],
                    "value": value if note else f"{value:.1%}",
                }
            )
    return lines


def _curves(folds: list[dict]) -> list[dict]:
    """Loss and accuracy by stage, one line per fold."""
    by_stage: dict[str, dict[str, list[dict]]] = defaultdict(dict)
    for fold in folds:
        for stage, entries in groupby(fold["history"], key=lambda entry: entry["stage"]):
            by_stage[stage][fold["name"]] = list(entries)
    curves = []
    for number, (stage, runs) in enumerate(by_stage.items(), 1):
        for key, name in (
            ("loss", "loss"),
            ("ua", "UA in training"),
            ("val_ua", "UA of the validation speaker"),
        ):
            series = {f: [e[key] for e in es if key in e] for f, es in runs.items()}
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
    )


def _leaks(reports: list[dict]) -> list[dict]:
    lines = [
        {"level": "good", "text": "No speaker stands on two sides of a fold."},
        {
            "level": "good",
            "text": "No recording stands on two sides of a fold (compared by the SHA-256 of its file).",
        },
    ]
    shared = [report for report in reports if report["scripted_texts"]]
    if shared:
        shares = [report["test_in_texts"] for report in shared]
        texts = {text for report in shared for text in report["scripted_texts"]}
        lines.append(
            {
                "level": "care",
                "text": f"In {len(shared)} of {len(reports)} folds, {_span(shares)} "
                f"of the test utterances have words that also occur in training ({len(texts)} texts, such as "
                f"“{min(texts)}”). A model that reads words could profit from that.",
            }
        )
    else:
        lines.append({"level": "good", "text": "No spoken text occurs in training and in test."})
    partners = [report["fold"] for report in reports if report["sessions"]]
    if partners:
        lines.append(
            {
                "level": "care",
                "text": f"Dialogue partners of test speakers are in training in {len(partners)} folds.",
            }
        )
    return lines


def _heard(report: dict) -> list[dict]:
    """What of another corpus a model has heard in training."""
    lines = []
    for what, names in (("recording", report["recordings"]), ("speaker", report["speakers"])):
        if names:
            text = f"The model has heard {len(names)} of these {what}s in training, such as {names[0]}."
            lines.append({"level": "bad", "text": text})
        else:
            lines.append({"level": "good", "text": f"The model has heard no {what} of these in training."})
    return lines


def _span(shares: list[float]) -> str:
    low, high = f"{min(shares):.0%}", f"{max(shares):.0%}"
    return low if low == high else f"{low} to {high}"


def _text(text: dict) -> str:
    counted = ("with_text", "without_text", "failed")
    about = ((name.replace("_", " "), value) for name, value in text.items() if name not in counted)
    said = ", ".join(f"{name}: {value}" for name, value in about)
    failed = sum(map(len, text.get("failed", {}).values()))
    unread = f", {failed} of them because their audio cannot be read" if failed else ""
    return f"{said}; {text['with_text']} with text, {text['without_text']} without{unread}"


def _protocol(card: dict) -> list[tuple[str, str]]:
    corpus = card["corpus"]
    classes = ", ".join(f"{name} {count}" for name, count in corpus["by_class"].items())
    merged = ", ".join(f"{a} as {b}" for a, b in card["class_map"].items() if a != b)
    return [
        ("Corpus", f"{corpus['title']}. {corpus['citation']}"),
        ("Licence", licences.in_words(corpus["licence"])),
        ("Utterances", f"{corpus['utterances_used']} used of {corpus['utterances_found']} found"),
        *([("Text", _text(card["text"]))] if "text" in card else []),  # older runs do not say
        ("Classes", classes + (f" ({merged})" if merged else "")),
        ("Split", ", ".join(f"{k.replace('_', ' ')}: {v}" for k, v in card["split"].items())),
        ("Selection", card["selection"]),
        *((name, text) for name, text in card["metrics"].items()),
        ("Seed", str(card["seed"])),
        ("Versions", ", ".join(f"{name} {number}" for name, number in card["versions"].items())),
        ("File hashes", f"{len(card['file_hashes'])}, in protocol.json"),
    ]

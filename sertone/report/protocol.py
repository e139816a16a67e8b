"""The page's sections on what a score depends on: the leak check and the protocol card."""

from sertone import licences
from sertone.scoring import display
from sertone.scoring.display import format_count

UNKNOWN_HEARD = "utterances of unknown speakers{}: whether it has heard these speakers is not known"
"""What follows "has heard" where a model was trained on recordings whose speakers nobody names."""


def describe_leaks(card: dict, folds: list[dict]) -> list[dict]:
    """What training and test have in common, each with a `level` and its `text`.

    Args:
        card: the protocol card of a cross-validation, or of a model evaluated on another corpus.
        folds: of its results.
    """
    if card.get("evaluated"):
        return _heard(card["leaks"][0], _known(card)) + _unknown(card)
    return _unknown(card) + _leaks(card["leaks"], _known(card)) + _copies(folds)


def _known(card: dict) -> str:
    """Return what stands before the word speaker where not all are known."""
    return "known " if card["corpus"].get("unknown_speakers", 0) else ""


def _unknown(card: dict) -> list[dict]:
    """What nobody can check, where the corpus does not name all speakers."""
    text = display.describe_unknown_speakers(card)
    return [{"level": "care", "text": text}] if text else []


def _copies(folds: list[dict]) -> list[dict]:
    """Recordings that sound like copies of each other; older runs do not say."""
    if any("alike" not in fold for fold in folds):
        return []
    pairs = sorted({tuple(pair) for fold in folds for pair in fold["alike"]})
    if not pairs:
        return [{"level": "good", "text": "No two recordings on two sides of a fold sound like copies."}]
    many, first = format_count(len(pairs), "pair"), " and ".join(pairs[0])
    text = f"{many} of recordings on two sides of a fold sound like copies of each other, such as {first}."
    return [{"level": "bad", "text": text}]


def _leaks(reports: list[dict], known: str) -> list[dict]:
    lines = [
        {"level": "good", "text": f"No {known}speaker stands on two sides of a fold."},
        {
            "level": "good",
            "text": "No recording stands on two sides of a fold (compared by the SHA-256 of its file and of "
            "its samples).",
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
                "of the test utterances have words that also occur in training "
                f"({format_count(len(texts), 'text')}, such as “{min(texts)}”). "
                "A model that reads words could profit from that.",
            }
        )
    else:
        lines.append({"level": "good", "text": "No spoken text occurs in training and in test."})
    partners = [report["fold"] for report in reports if report["sessions"]]
    if partners:
        lines.append(
            {
                "level": "care",
                "text": "Dialogue partners of test speakers are in training in "
                f"{format_count(len(partners), 'fold')}.",
            }
        )
    return lines


def _heard(report: dict, known: str) -> list[dict]:
    """What of another corpus a model has heard in training."""
    if not report.get("known", True):
        text = "Nothing is known of the model's training: it may have heard these recordings or speakers."
        return [{"level": "care", "text": text}]
    lines = []
    unknown = report.get("unknown_speakers", 0)  # older evaluations do not say
    for what, names in (("recording", report["recordings"]), (f"{known}speaker", report["speakers"])):
        if names:
            text = f"The model has heard {len(names)} of these {what}s in training, such as {names[0]}."
            lines.append({"level": "bad", "text": text})
        elif what == "recording" or not unknown:
            lines.append({"level": "good", "text": f"The model has heard no {what} of these in training."})
    if unknown:
        text = f"The model has heard {UNKNOWN_HEARD.format(' in training')}."
        lines.append({"level": "care", "text": text})
    return lines


def _span(shares: list[float]) -> str:
    low, high = f"{min(shares):.0%}", f"{max(shares):.0%}"
    return low if low == high else f"{low} to {high}"


def build_rows(card: dict) -> list[tuple[str, str]]:
    """Name and content of every row of the protocol card."""
    corpus = card["corpus"]
    classes = ", ".join(f"{name} {count}" for name, count in corpus["by_class"].items())
    merged = ", ".join(f"{a} as {b}" for a, b in card["class_map"].items() if a != b)
    return [
        ("Corpus", f"{corpus['title']}. {corpus['citation']}"),
        ("Licence", licences.describe_licence(corpus["licence"])),
        ("Utterances", f"{corpus['utterances_used']} used of {corpus['utterances_found']} found"),
        ("Speakers", display.describe_speakers(corpus)),
        *([("Only", _only(only))] if (only := corpus.get("only")) else []),
        *([("Longest utterance", _limit(limit))] if (limit := card.get("max_seconds")) else []),
        *([("Text", _text(card["text"]))] if "text" in card else []),  # older runs do not say
        *([("Classes", classes + (f" ({merged})" if merged else ""))] if card["class_map"] else []),
        ("Split", ", ".join(f"{k.replace('_', ' ')}: {v}" for k, v in card["split"].items())),
        *([("Teacher", _describe_teacher(card["teacher"]))] if "teacher" in card else []),
        ("Selection", card["selection"]),
        *([("Settings", card["settings"])] if "settings" in card else []),
        *([("Encoder", card["encoder"])] if "encoder" in card else []),
        *((name, text) for name, text in card["metrics"].items()),
        ("Seed", str(card["seed"])),
        ("Versions", ", ".join(f"{name} {number}" for name, number in card["versions"].items())),
        ("File hashes", f"{len(card['file_hashes'])}, in protocol.json"),
    ]


def _only(only: dict) -> str:
    return "; ".join(f"{name}: {', '.join(values)}" for name, values in only.items())


def _limit(limit: dict) -> str:
    longer = f"{format_count(limit['utterances'], 'longer utterance')}: {limit['longer'].replace('_', ' ')}"
    return f"{limit['seconds']:g} s; {longer}"


def _describe_teacher(teacher: dict) -> str:
    said = f"{teacher['source']}, {teacher['weight']:g} of every target"
    known = "it has heard no recording and no speaker of the test sides"
    if unknown := teacher.get("unknown_speakers", 0):
        known = f"it has heard no recording of the test sides, but {UNKNOWN_HEARD.format('')}"
    if chosen_by := teacher.get("validation_speakers"):  # older runs do not say
        told = " it is known to have heard" * bool(unknown)
        known += f", and{told} {', '.join(chosen_by)} of their validation speakers"
    return f"{said}; {known}; weights {', '.join(teacher['weights'])}"


def _text(text: dict) -> str:
    counts = ("with_text", "without_text", "failed")
    about = ((name.replace("_", " "), value) for name, value in text.items() if name not in counts)
    said = ", ".join(f"{name}: {value}" for name, value in about)
    failed = sum(map(len, text.get("failed", {}).values()))
    unread = f", {failed} of them because their audio cannot be read" if failed else ""
    return f"{said}; {text['with_text']} with text, {text['without_text']} without{unread}"

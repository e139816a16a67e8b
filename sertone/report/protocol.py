"""The page's sections on what a score depends on: the leak check and the protocol card."""

from sertone import licences
from sertone.scoring import display
from sertone.utils.wording import format_count

UNKNOWN_SPEAKERS = "utterances of unknown speakers: it is not known whether these speakers are among them"


def describe_leaks(card: dict, folds: list[dict]) -> list[dict]:
    """Return what training and test data have in common, as lines with a `level` and a `text`.

    Args:
        card: the protocol card of a cross-validation, or of a model evaluated on another corpus.
        folds: folds of its results.
    """
    qualifier = _qualify_speakers(card)
    if card.get("evaluated"):
        return _describe_training_overlap(card["leaks"][0], qualifier) + _describe_unknown_speakers(card)
    return (
        _describe_unknown_speakers(card)
        + _describe_fold_leaks(card["leaks"], qualifier)
        + _describe_copies(folds)
    )


def _build_line(level: str, text: str) -> dict[str, str]:
    return {"level": level, "text": text}


def _qualify_speakers(card: dict) -> str:
    """Return the word before "speaker": `known `, or nothing if all speakers are known."""
    return "known " if card["corpus"].get("unknown_speakers", 0) else ""


def _describe_unknown_speakers(card: dict) -> list[dict]:
    """Return a line on the speakers that nobody can check, if the corpus does not name all of them."""
    text = display.describe_unknown_speakers(card)
    return [_build_line("care", text)] if text else []


def _describe_copies(folds: list[dict]) -> list[dict]:
    """Return a line on recordings that sound like copies of each other; older runs have no such entry."""
    if any("alike" not in fold for fold in folds):
        return []
    pairs = sorted({tuple(pair) for fold in folds for pair in fold["alike"]})
    if not pairs:
        return [_build_line("good", "No two recordings in different sets of a fold sound like copies.")]
    count = format_count(len(pairs), "pair")
    example = " and ".join(pairs[0])
    text = (
        f"Recordings in different sets of a fold sound like copies of each other: {count}, such as {example}."
    )
    return [_build_line("bad", text)]


def _describe_fold_leaks(reports: list[dict], qualifier: str) -> list[dict]:
    speakers = (
        f"No {qualifier}speaker occurs in more than one of the training, validation and test sets of a fold."
    )
    recordings = (
        "No recording occurs in more than one of these sets (compared by the SHA-256 of its file and of its "
        "samples)."
    )
    lines = [_build_line("good", speakers), _build_line("good", recordings), _describe_texts(reports)]
    # A session of two speakers may be divided between training and test.
    partners = [report["fold"] for report in reports if report["sessions"]]
    if partners:
        folds = format_count(len(partners), "fold")
        lines.append(
            _build_line("care", f"Dialogue partners of test speakers are in the training set in {folds}.")
        )
    return lines


def _describe_texts(reports: list[dict]) -> dict[str, str]:
    """Return a line on texts that were spoken both in training and in test."""
    shared = [report for report in reports if report["scripted_texts"]]
    if not shared:
        return _build_line("good", "No spoken text occurs both in training and in test.")
    shares = _format_range([report["test_in_texts"] for report in shared])
    texts = {text for report in shared for text in report["scripted_texts"]}
    return _build_line(
        "care",
        f"In {len(shared)} of {len(reports)} folds, {shares} of the test utterances have words that also "
        f"occur in training ({format_count(len(texts), 'text')}, such as “{min(texts)}”). A model that uses "
        "text could profit from that.",
    )


def _describe_training_overlap(report: dict, qualifier: str) -> list[dict]:
    """Return lines on the test recordings and speakers that a model has seen in training."""
    if not report.get("known", True):
        text = (
            "Nothing is known about the model's training data: it may include these recordings or speakers."
        )
        return [_build_line("care", text)]
    lines = []
    unknown = report.get("unknown_speakers", 0)  # missing in older evaluations
    for kind, names in (("recording", report["recordings"]), (f"{qualifier}speaker", report["speakers"])):
        if names:
            text = f"The model was trained on {len(names)} of these {kind}s, such as {names[0]}."
            lines.append(_build_line("bad", text))
        elif kind == "recording" or not unknown:
            # Where it was trained on unknown speakers, nobody can say that no speaker was among them.
            lines.append(_build_line("good", f"The model was trained on none of these {kind}s."))
    if unknown:
        lines.append(_build_line("care", f"The model was trained on {UNKNOWN_SPEAKERS}."))
    return lines


def _format_range(shares: list[float]) -> str:
    low, high = f"{min(shares):.0%}", f"{max(shares):.0%}"
    return low if low == high else f"{low} to {high}"


def build_rows(card: dict) -> list[tuple[str, str]]:
    """Return the name and the content of every row of the protocol card."""
    corpus = card["corpus"]
    versions = ", ".join(f"{name} {number}" for name, number in card["versions"].items())
    return [
        ("Corpus", f"{corpus['title']}. {corpus['citation']}"),
        ("Licence", licences.describe_licence(corpus["licence"])),
        ("Utterances", f"{corpus['utterances_used']} used of {corpus['utterances_found']} found"),
        ("Speakers", display.describe_speakers(corpus)),
        *_build_data_rows(card),
        ("Split", ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in card["split"].items())),
        *([("Teacher", _describe_teacher(card["teacher"]))] if "teacher" in card else []),
        ("Selection", card["selection"]),
        *([("Settings", card["settings"])] if "settings" in card else []),
        *([("Encoder", card["encoder"])] if "encoder" in card else []),
        *((name, text) for name, text in card["metrics"].items()),
        ("Seed", str(card["seed"])),
        ("Versions", versions),
        ("File hashes", f"{len(card['file_hashes'])}, in protocol.json"),
    ]


def _build_data_rows(card: dict) -> list[tuple[str, str]]:
    """Return the rows that not every card has: selection, length limit, text and classes."""
    rows = []
    if only := card["corpus"].get("only"):
        rows.append(("Only", _describe_selection(only)))
    if limit := card.get("max_seconds"):
        rows.append(("Longest utterance", _describe_limit(limit)))
    if "text" in card:  # missing in older runs
        rows.append(("Text", _describe_text(card["text"])))
    if card["class_map"]:
        rows.append(("Classes", _describe_classes(card)))
    return rows


def _describe_selection(only: dict) -> str:
    return "; ".join(f"{name}: {', '.join(values)}" for name, values in only.items())


def _describe_limit(limit: dict) -> str:
    longer = f"{format_count(limit['utterances'], 'longer utterance')}: {limit['longer'].replace('_', ' ')}"
    return f"{limit['seconds']:g} s; {longer}"


def _describe_classes(card: dict) -> str:
    classes = ", ".join(f"{name} {count}" for name, count in card["corpus"]["by_class"].items())
    merged = ", ".join(f"{label} as {name}" for label, name in card["class_map"].items() if label != name)
    return f"{classes} ({merged})" if merged else classes


def _describe_teacher(teacher: dict) -> str:
    share = f"{teacher['source']}, {teacher['weight']:g} of every target"
    unknown = teacher.get("unknown_speakers", 0)
    if unknown:
        training = f"trained on no recording of the test sets, but on {UNKNOWN_SPEAKERS}"
    else:
        training = "trained on no recording and no speaker of the test sets"
    if overlaps := teacher.get("validation_speakers"):  # missing in older runs
        caution = "as far as is known, " if unknown else ""
        training += f"; {caution}it was also trained on {', '.join(overlaps)} of the validation speakers"
    return f"{share}; {training}; weights {', '.join(teacher['weights'])}"


def _describe_text(text: dict) -> str:
    counts = ("with_text", "without_text", "failed")
    settings = ", ".join(
        f"{name.replace('_', ' ')}: {value}" for name, value in text.items() if name not in counts
    )
    failed = sum(map(len, text.get("failed", {}).values()))
    unreadable = f", {failed} of them because their audio cannot be read" if failed else ""
    return f"{settings}; {text['with_text']} with text, {text['without_text']} without{unreadable}"

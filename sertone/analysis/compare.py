"""Is one run better than another? Only where both followed one protocol can that be said."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sertone import intervals
from sertone.analysis.rows import Rows, counts_of, read_rows
from sertone.errors import SertoneError

PARTS = {
    "file_hashes": "the recordings",
    "segments": "where utterances start and end",
    "class_map": "the classes",
    "split": "the split",
    "test_speakers": "who is held out in which fold",
    "labels": "the labels",
}
"""Parts of a protocol card that have to be equal."""
SHOWN = {"ua": "UA", "wa": "WA", "macro_f1": "macro-F1"}


def compare(paths: Sequence[str | Path], *, force: bool = False) -> dict[str, Any]:
    """Compares runs with the first one.

    Args:
        paths: run folders, or folders of runs that differ in their seeds (`seed_0`, `seed_1`, as a study
            writes them), whose scores are averaged.
        force: compare although the protocols differ, on the utterances that all have in common.

    Returns:
        a JSON object: scores with intervals, paired differences, McNemar's test, a sentence for each.

    Raises:
        SertoneError: `too_few_runs`, `not_a_run`, `unlike_runs`, `unlike_protocols`, `nothing_in_common`.
    """
    if len(paths) < 2:
        raise SertoneError("too_few_runs", f"{len(paths)} run", "two or more to compare")
    sides = [[read_rows(run) for run in _runs(Path(path))] for path in paths]
    differing = _differing([_protocol(side[0]) for side in sides])
    if differing and not force:
        raise SertoneError(
            "unlike_protocols",
            f"{', '.join(map(str, paths))} differ in {', '.join(differing)}",
            "runs of one protocol: their scores do not measure the same thing",
            "--force compares what they have in common and says so",
        )
    sides = _in_common(sides) if differing else sides
    counts = [counts_of(side) for side in sides]
    return {
        "unlike": differing,
        "utterances": len(sides[0][0].rows),
        "speakers": counts[0].shape[1],
        "runs": [
            {"path": str(path), "seeds": len(side)} | _scores(own)
            for path, side, own in zip(paths, sides, counts, strict=True)
        ],
        "differences": [
            {"path": str(path)} | _difference(sides[0], side, counts[0], own)
            for path, side, own in list(zip(paths, sides, counts, strict=True))[1:]
        ],
    }


def _runs(path: Path) -> list[Path]:
    """One run, or its repetitions with other seeds."""
    return sorted(folder for folder in path.glob("seed_*") if folder.is_dir()) or [path]


def _protocol(run: Rows) -> dict[str, Any]:
    """The card, with who is held out, and the labels, which it does not hold."""
    card = json.loads((run.run / "protocol.json").read_text(encoding="utf-8"))
    labels = dict(zip(run.column("id"), run.column("target"), strict=True))
    return card | {"test_speakers": [fold["test_speakers"] for fold in card["folds"]], "labels": labels}


def _differing(cards: list[dict[str, Any]]) -> list[str]:
    """In words, what is not the same in all protocols."""
    return [words for part, words in PARTS.items() if any(card[part] != cards[0][part] for card in cards)]


def _in_common(sides: list[list[Rows]]) -> list[list[Rows]]:
    """The utterances that all runs were tested on, with the same label."""
    runs = [run for side in sides for run in side]
    common = set.intersection(*({(row["id"], row["target"], row["speaker"]) for row in r.rows} for r in runs))
    if not common:
        raise SertoneError(
            "nothing_in_common",
            "no utterance that all runs were tested on, with the same label",
            "some, to compare on",
        )
    classes = sorted({name for run in runs for name in run.classes})

    def kept(run: Rows) -> Rows:
        rows = [row for row in run.rows if (row["id"], row["target"], row["speaker"]) in common]
        return Rows(run.run, classes, rows)

    return [[kept(run) for run in side] for side in sides]


def _scores(counts: np.ndarray) -> dict[str, Any]:
    bounds = intervals.interval(counts)
    return {"scores": intervals.scores(counts), "intervals": bounds}


def _difference(
    first: list[Rows], second: list[Rows], first_counts: np.ndarray, second_counts: np.ndarray
) -> dict[str, Any]:
    """How a run differs from the first one; McNemar's test where each is one run."""
    found: dict[str, Any] = {"scores": {}, "mcnemar": None}
    if first_counts.shape[1] > 1:
        apart = intervals.difference(first_counts, second_counts)
        found["scores"] = {name: difference.to_json() for name, difference in apart.items()}
    if len(first) == len(second) == 1:
        right = [
            np.array(run.column("target")) == np.array(run.column("prediction"))
            for run in (first[0], second[0])
        ]
        found["mcnemar"] = intervals.mcnemar(*right)
    once = min(len(first), len(second)) == 1
    return found | {"sentence": sentence(found["scores"].get("ua"), first_counts.shape[1], once=once)}


def sentence(ua: dict[str, float] | None, speakers: int, *, once: bool) -> str:
    """What a difference in UA says, in plain words.

    Args:
        ua: of UA.
        speakers: how many there are.
        once: one side is a single training, whose seed nobody has varied.
    """
    if ua is None:
        return "With one speaker nothing can be said about others."
    points, p = abs(100 * ua["value"]), ua["p"]
    if not points:
        return f"It scores the same UA ({p_text(p)})."
    way = "higher" if ua["value"] > 0 else "lower"
    if p < 0.05:
        reach = sorted(abs(100 * ua[key]) for key in ("low", "high"))
        return (
            f"It scores {points:.1f} points of UA {way}, by {reach[0]:.1f} to {reach[1]:.1f} with 95 % "
            f"confidence: a difference that {speakers} speakers do show ({p_text(p)})."
            + (" Of one training each; another seed may turn it: compare several." if once else "")
        )
    return (
        f"It scores {points:.1f} points of UA {way}, but anything from {100 * ua['low']:+.1f} to "
        f"{100 * ua['high']:+.1f} is compatible with these {speakers} speakers ({p_text(p)}): they do not "
        "show which one is better."
    )


def p_text(p: float) -> str:
    """`p = 0.031`."""
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def to_text(found: dict[str, Any]) -> str:
    """A comparison as it is printed."""
    lines = []
    if found["unlike"]:
        lines += [
            f"NOT THE SAME PROTOCOL: the runs differ in {', '.join(found['unlike'])}.",
            f"Compared on the {found['utterances']} utterances that all have in common; take it with care.",
            "",
        ]
    for run in found["runs"]:
        seeds = f", mean of {run['seeds']} seeds" if run["seeds"] > 1 else ""
        lines.append(f"{run['path']}{seeds}")
        lines += [f"    {label:9}{_score(run, name)}" for name, label in SHOWN.items()]
    for difference in found["differences"]:
        lines += ["", f"{difference['path']} against {found['runs'][0]['path']}"]
        for name, label in SHOWN.items():
            if apart := difference["scores"].get(name):
                value, low, high = (100 * apart[key] for key in ("value", "low", "high"))
                lines.append(
                    f"    {label:9}{value:+.1f} points   {low:+.1f} to {high:+.1f}   {p_text(apart['p'])}"
                )
        if test := difference["mcnemar"]:
            lines.append(
                f"    McNemar  only the first right: {test['only_first']}, only this one: "
                f"{test['only_second']}, {p_text(test['p'])} (takes utterances for independent)"
            )
        lines.append(f"    {difference['sentence']}")
    seeds = " and seeds" if any(run["seeds"] > 1 for run in found["runs"]) else ""
    lines += ["", f"Intervals: 95 %, drawing {found['speakers']} speakers{seeds}; differences are paired."]
    return "\n".join(lines)


def _score(run: dict[str, Any], name: str) -> str:
    text = f"{run['scores'][name]:6.1%}"
    if run["intervals"]:
        low, high = run["intervals"][name]
        text += f"   {low:.1%} to {high:.1%}"
    return text

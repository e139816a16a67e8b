"""Comparison of audits on the same utterances: what each model tolerates, and paired differences in UA."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sertone.analysis.audit.answers import NO_LABEL, Answers
from sertone.analysis.audit.audit_files import ANSWERS, AUDIT, load_utterances
from sertone.analysis.audit.material import Condition
from sertone.analysis.comparison_text import format_p
from sertone.errors import SertoneError
from sertone.files import load_json
from sertone.scoring import intervals
from sertone.scoring.sufficient_statistics import SufficientStatistics


@dataclass(frozen=True)
class _Audited:
    """A finished audit: its folder, and the content of `audit.json`."""

    folder: Path
    content: dict[str, Any]

    def count_confusions(self, condition: Condition) -> SufficientStatistics:
        """Return the confusions of each speaker under a condition. No label is a class of its own."""
        answers = Answers.load(self.folder / ANSWERS / condition.file_name)
        columns = zip(load_utterances(self.folder), answers.labels, strict=True)
        rows = [row | {"prediction": label} for row, label in columns]
        classes = [*sorted({row["target"] for row in rows}), *sorted({*answers.labels}), NO_LABEL]
        return SufficientStatistics.from_rows(
            rows, "emotion", list(dict.fromkeys(classes)), [row["speaker"] for row in rows]
        )


def is_audit(folder: Path) -> bool:
    """Return whether a folder holds a finished audit."""
    return (folder / AUDIT).is_file()


def compare_audits(folders: Sequence[Path]) -> dict[str, Any]:
    """Compare audits with the first one.

    Args:
        folders: that `sertone audit` wrote, on the same utterances.

    Returns:
        a JSON object: the perturbations that all have, with the strengths that each model tolerates and the
        paired differences in UA at every strength; the tests with other verdicts.

    Raises:
        SertoneError: `too_few_runs`, `unlike_audits`.
    """
    if len(folders) < 2:
        raise SertoneError("too_few_runs", f"audits given: {len(folders)}", "two or more to compare")
    audits = [_Audited(folder, load_json(folder / AUDIT, "not_an_audit")) for folder in folders]
    _require_same_utterances(audits)
    shared = [
        name
        for name in audits[0].content["robustness"]
        if all(name in audit.content["robustness"] for audit in audits)
    ]
    return {
        "audits": [str(folder) for folder in folders],
        "perturbations": [_compare_perturbation(audits, name) for name in shared],
        "verdicts": _list_other_verdicts(audits),
    }


def to_text(comparison: dict[str, Any]) -> str:
    """Format a comparison as lines for people.

    Args:
        comparison: result of `compare_audits`.
    """
    lines = [f"{number}  {path}" for number, path in enumerate(comparison["audits"], 1)]
    for entry in comparison["perturbations"]:
        lines.append(f"\n{entry['label']}, UA{_describe_tolerated(entry)}")
        for point in entry["points"]:
            strength = f"{point['strength']:g} {entry['unit']}".strip() if entry["unit"] else "as recorded"
            lines.append(f"    {strength:>16}  " + "  ".join(f"{value:6.1%}" for value in point["ua"]))
            lines[-1] += "".join(f"   {_format_difference(d)}" for d in point["differences"])
    lines += ["", "Differences from the first in points, 95 % intervals over speakers, paired."]
    return "\n".join(lines)


def _require_same_utterances(audits: Sequence[_Audited]) -> None:
    first = load_utterances(audits[0].folder)
    for audit in audits[1:]:
        if load_utterances(audit.folder) != first:
            problem = f"{audits[0].folder} and {audit.folder} have other utterances or labels"
            raise SertoneError("unlike_audits", problem, "audits of models on the same utterances")


def _compare_perturbation(audits: Sequence[_Audited], name: str) -> dict[str, Any]:
    entries = [audit.content["robustness"][name] for audit in audits]
    points = []
    for number, point in enumerate(entries[0]["points"]):
        condition = Condition(name, point["strength"])
        sums = [audit.count_confusions(condition) for audit in audits]
        points.append(
            {
                "strength": point["strength"],
                "ua": [entry["points"][number]["ua"]["value"] for entry in entries],
                "differences": [_compute_difference(sums[0], other) for other in sums[1:]],
            }
        )
    first = entries[0]
    described = {"label": first.get("label", "unchanged"), "unit": first.get("unit", "")}
    return described | {"tolerated": [entry.get("tolerated") for entry in entries], "points": points}


def _compute_difference(first: SufficientStatistics, second: SufficientStatistics) -> dict[str, float] | None:
    """Return the difference in UA; None for a single speaker."""
    if first.unit_count < 2:
        return None
    return intervals.compute_differences(first, second)["ua"].to_json()


def _list_other_verdicts(audits: Sequence[_Audited]) -> list[dict[str, Any]]:
    """Return the tests whose verdicts differ."""
    verdicts = [
        {(test["part"], test["name"]): test["verdict"] for test in audit.content["tests"]} for audit in audits
    ]
    return [
        {"part": part, "name": name, "verdicts": [own.get((part, name)) for own in verdicts]}
        for part, name in verdicts[0]
        if len({own.get((part, name)) for own in verdicts}) > 1
    ]


def _describe_tolerated(entry: dict[str, Any]) -> str:
    if not entry["unit"]:
        return ""
    texts = ["never" if value is None else f"{value:.3g}" for value in entry["tolerated"]]
    return f"; five points are lost at {', '.join(texts)} {entry['unit']}"


def _format_difference(difference: dict[str, float] | None) -> str:
    if difference is None:
        return "–"
    value, low, high = (100 * difference[key] for key in ("value", "low", "high"))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f}, {format_p(difference['p'])})"

"""What can be wrong between the rows of a corpus."""

from collections import defaultdict
from collections.abc import Callable, Sequence

from sertone.schema import Problem, Utterance
from sertone.scoring.display import format_count, shorten_list


def find_duplicates(found: Sequence[Utterance]) -> list[Problem]:
    """Ids that occur twice, and rows that speak about the same stretch of the same file."""
    problems = []
    for name, same in _groups(found, lambda u: u.id).items():
        if len(same) > 1:
            paths = shorten_list([str(u.path) for u in same])
            problems.append(Problem("duplicate_id", name, f"{format_count(len(same), 'utterance')}: {paths}"))
    for (path, *_), same in _groups(found, lambda u: (u.path, u.start_s, u.end_s)).items():
        if len(same) > 1:
            labels = {str(u.labels.get("emotion", "no emotion")) for u in same}
            code = "conflicting_labels" if len(labels) > 1 else "duplicate_row"
            ids = shorten_list([u.id for u in same])
            problems.append(Problem(code, str(path), f"{ids}: {', '.join(sorted(labels))}"))
    return problems


def _groups(found: Sequence[Utterance], key: Callable) -> dict:
    groups = defaultdict(list)
    for utterance in found:
        groups[key(utterance)].append(utterance)
    return groups

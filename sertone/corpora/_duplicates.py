"""Checks for rows of a corpus that contradict or repeat each other."""

from collections import defaultdict
from collections.abc import Callable, Sequence

from sertone.schema import Problem, Utterance
from sertone.utils.wording import format_count, shorten_list


def find_duplicates(utterances: Sequence[Utterance]) -> list[Problem]:
    """Return a problem for every repeated id, and for every span of a file that has several rows."""
    problems = []
    for name, group in _group(utterances, lambda u: u.id).items():
        if len(group) > 1:
            paths = shorten_list([str(u.path) for u in group])
            message = f"{format_count(len(group), 'utterance')} with this id: {paths}"
            problems.append(Problem("duplicate_id", name, message))
    # Several utterances may share a file, but not the same span of it.
    for (path, *_), group in _group(utterances, lambda u: (u.path, u.start_s, u.end_s)).items():
        if len(group) > 1:
            labels = {str(u.labels.get("emotion", "no emotion")) for u in group}
            code = "conflicting_labels" if len(labels) > 1 else "duplicate_row"
            ids = shorten_list([u.id for u in group])
            problems.append(Problem(code, str(path), f"{ids}: {', '.join(sorted(labels))}"))
    return problems


def _group(utterances: Sequence[Utterance], key: Callable) -> dict:
    groups = defaultdict(list)
    for utterance in utterances:
        groups[key(utterance)].append(utterance)
    return groups

"""The folder of a run: one process at a time, and only one experiment per folder."""

import contextlib
import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sertone import recipe as recipes
from sertone.errors import SertoneError
from sertone.files import load_json, parse_yaml, quarantine, read_text, write_json, write_text
from sertone.training.fit import distributed
from sertone.utils.json_shape import find_misfits

RUN_FILES = (
    *("recipe.yaml", "protocol.json", "*.damaged[0-9]*", "results.json", "predictions.csv", "modalities.csv"),
    *("report.html", "fold_[0-9]*", "checkpoint", "resume", "encoder", "distill.json"),
)
"""Patterns of all files and folders that a run writes."""
TRAINED_FILES = ("fold_*", "checkpoint", "resume", "encoder")
"""Patterns of what is there as soon as a training has begun."""
MAX_LISTED = 5
"""Changes that an error lists at most."""


@contextlib.contextmanager
def claim(
    folder: Path,
    recipe: str,
    card: dict,
    *,
    force: bool,
    fresh: bool,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[None]:
    """Claim a folder for one experiment while the context lasts; the first process does it for all.

    Args:
        folder: created if it does not exist.
        recipe: as YAML.
        card: the protocol card.
        force: go on although recipe or protocol have changed since the run began.
        fresh: throw away what a run has written there.
        say: receives a line about every damaged file, which is renamed.

    Raises:
        SertoneError: `run_in_use`, `other_experiment`.
    """
    if not distributed.is_first():
        distributed.barrier()  # until the first process has claimed the folder
        yield
        return
    with lock(folder):
        if fresh:
            _empty(folder)
        if not force:
            _refuse_other_experiment(folder, recipe, card)
        _quarantine_damaged(folder, say)
        # Written again, since settings on which no result depends may have changed.
        write_text(folder / "recipe.yaml", recipe)
        write_json(folder / "protocol.json", card)
        distributed.barrier()
        yield


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Keep other processes from writing a folder, which is created if it does not exist.

    Raises:
        SertoneError: `run_in_use`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        try:
            # The system releases the lock when the process ends, also when it is killed.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SertoneError(
                "run_in_use",
                f"another process is writing to {folder}",
                "a separate folder for each run",
                "use --out",
            ) from None
        yield


def _empty(folder: Path) -> None:
    """Remove what a run writes, and nothing else."""
    for path in [path for pattern in RUN_FILES for path in folder.glob(pattern)]:
        # `rmtree` refuses a link to a folder. Only the link is removed, not the folder.
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


SHAPES: dict[str, dict[str, type]] = {
    "recipe.yaml": {},
    "protocol.json": {},
    "distill.json": {"history": list},
    "fold_[0-9]*/result.json": {
        "name": str,
        "rows": list,
        "metrics": dict,
        "experiment": str,
        "history": list,
    },
}
"""Files that a resumed run needs -> the shape of an intact one, see `json_shape`."""


def _quarantine_damaged(folder: Path, say: Callable[[str], None]) -> None:
    """Rename files that a crash or an unfinished copy has damaged, so that they are made again."""
    for pattern, shape in SHAPES.items():
        for path in folder.glob(pattern):
            content = _load_intact(path)
            if content is None or find_misfits(content, shape):
                say(f"{path} is damaged; renamed to {quarantine(path).name}")


def _load_intact(path: Path) -> dict[str, Any] | None:
    """Return the content of a JSON or YAML file; None where it is damaged or missing."""
    try:
        if path.suffix == ".json":
            return load_json(path, "torn")
        text = read_text(path, "torn")
        content = parse_yaml(text)
    except (SertoneError, ValueError):
        return None
    complete = text.endswith("\n...\n")  # the first half of a recipe is YAML too: its end is marked
    return content if complete and isinstance(content, dict) else None


def _refuse_other_experiment(folder: Path, recipe: str, card: dict) -> None:
    """Compare with the recipe and protocol that the run in the folder began with.

    Where nothing was trained, there are no results to mix up.

    Raises:
        SertoneError: `other_experiment`.
    """
    if not any(any(folder.glob(pattern)) for pattern in TRAINED_FILES):
        return
    settings = parse_yaml(recipe)
    before = [_load_intact(folder / name) for name in ("recipe.yaml", "protocol.json")]
    now = [settings, json.loads(_to_json(card))]  # as the card is once it has been written and read
    changes = []
    for old, new in zip(before, now, strict=True):
        if old is not None:
            changes += [change for change in _list_changes(old, new) if not change.startswith(NEUTRAL_KEYS)]
    if None in before and not changes:
        changes = _list_foreign_files(folder, fingerprint(settings, card))
    if changes:
        listed = "; ".join(changes[:MAX_LISTED])
        if len(changes) > MAX_LISTED:
            listed += f"; and {len(changes) - MAX_LISTED} more"
        raise SertoneError(
            "other_experiment",
            f"{folder} was begun with other settings or data: {listed}",
            "the same experiment, to resume it",
            _suggest_way_out(before[0], changes),
        )


PRECISION_CHANGE = "train.precision: was "


def _suggest_way_out(recipe: dict[str, Any] | None, changes: list[str]) -> str:
    """Return the way out of the error.

    Where only the precision differs, `auto` has become another one on another machine. Then the way out is to
    keep the first.
    """
    train = (recipe or {}).get("train", {})
    if "precision" in train and all(change.startswith(PRECISION_CHANGE) for change in changes):
        return f"resume with --set train.precision={train['precision']}, or start again with --fresh"
    return "choose another --out, remove that folder, start again with --fresh, or insist with --force"


def fingerprint(recipe: dict[str, Any], card: dict) -> str:
    """Return the hash of a recipe and its protocol, by which saved files name their experiment."""
    parts = (recipes.drop_neutral(recipe), card)
    text = "".join(json.dumps(part, sort_keys=True, default=str) for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()


FINGERPRINTED = ("fold_*/result.json", "resume/*/state.json", "fold_*/resume/*/state.json", "distill.json")
"""Files that a resumed run needs and that state the fingerprint of their experiment."""


def _list_foreign_files(folder: Path, experiment: str) -> list[str]:
    """Return a sentence about every file that states another experiment.

    They are the only evidence where recipe.yaml or protocol.json is damaged.

    Args:
        folder: folder of the run.
        experiment: the expected fingerprint.
    """
    paths = [path for pattern in FINGERPRINTED for path in sorted(folder.glob(pattern))]
    contents = [(path, _load_intact(path)) for path in paths]
    return [
        f"recipe.yaml or protocol.json is damaged, and {path.relative_to(folder)} is of another experiment"
        for path, content in contents
        if content is not None and content.get("experiment") != experiment
    ]


NEUTRAL_KEYS = tuple(f"train.{name}" for name in recipes.NEUTRAL)
"""Settings that may change when a run is resumed."""
MISSING = "not set"


def _to_json(value: dict) -> str:
    return json.dumps(value, default=str)


def _list_changes(before: Any, now: Any, name: str = "") -> list[str]:
    """Return every setting that differs, as `train.epochs: was [3, 37], now [1, 2]`.

    A run of an older version lacks the settings that have come since.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        changes = []
        for key in dict.fromkeys([*before, *now]):
            path = f"{name}.{key}".lstrip(".")
            changes += _list_changes(before.get(key, MISSING), now.get(key, MISSING), path)
        return changes
    return [] if before == now else [f"{name}: was {_shorten(before)}, now {_shorten(now)}"]


def _shorten(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) < 80 else f"{text[:77]}..."

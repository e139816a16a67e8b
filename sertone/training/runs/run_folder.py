"""A run's folder: one process at a time, and only one experiment per folder."""

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
from sertone.files import parse_yaml, quarantine, read_json, read_text, write_json, write_text
from sertone.training.fit import distributed
from sertone.utils.json_shape import find_misfits

RUN_FILES = (
    *("recipe.yaml", "protocol.json", "*.damaged[0-9]*", "results.json", "predictions.csv", "modalities.csv"),
    *("report.html", "fold_[0-9]*", "checkpoint", "resume", "encoder", "distill.json"),
)


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
    """Claims a folder for one experiment, for as long as the context lasts; the first rank does it for all.

    Args:
        folder: made if need be.
        recipe: as YAML.
        card: the protocol card.
        force: go on although recipe or protocol have changed since the run began.
        fresh: throw away what a run has written there.
        say: told of files that are damaged, and put aside.

    Raises:
        SertoneError: `run_in_use`, `other_experiment`.
    """
    if not distributed.is_first():
        distributed.barrier()  # for the first one's claim
        yield
        return
    with lock(folder):
        if fresh:
            _empty(folder)
        if not force:
            _refuse_other(folder, recipe, card)
        _put_damaged_aside(folder, say)
        write_text(folder / "recipe.yaml", recipe)
        write_json(folder / "protocol.json", card)
        distributed.barrier()
        yield


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Keeps other processes from writing a folder, which is made if need be.

    Raises:
        SertoneError: `run_in_use`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SertoneError(
                "run_in_use",
                f"another process writes {folder}",
                "a folder of one's own",
                "use --out",
            ) from None
        yield


def _empty(folder: Path) -> None:
    """Removes what a run writes, and nothing else."""
    for path in [path for pattern in RUN_FILES for path in folder.glob(pattern)]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


WHOLE: dict[str, dict[str, type]] = {
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
"""Files that a run goes on with, and what tells that they are whole; see `shape`."""


def _put_damaged_aside(folder: Path, say: Callable[[str], None]) -> None:
    """Rename what a crash of the machine or an unfinished copy has torn: what is missing is made again."""
    for pattern, shape in WHOLE.items():
        for path in folder.glob(pattern):
            content = _content(path)
            if content is None or find_misfits(content, shape):
                say(f"{path} is damaged: put aside as {quarantine(path).name}")


def _content(path: Path) -> dict[str, Any] | None:
    """Return what a JSON or YAML file holds; None where it is torn or not there."""
    try:
        if path.suffix == ".json":
            return read_json(path, "torn")
        text = read_text(path, "torn")
        content = parse_yaml(text)
    except (SertoneError, ValueError):
        return None
    whole = text.endswith("\n...\n")  # the first half of a recipe is YAML too: its end is marked
    return content if whole and isinstance(content, dict) else None


def _refuse_other(folder: Path, recipe: str, card: dict) -> None:
    """Compares with what the folder was begun with; where nothing was trained there is nothing to mix."""
    if not any(any(folder.glob(pattern)) for pattern in ("fold_*", "checkpoint", "resume", "encoder")):
        return
    settings = parse_yaml(recipe)
    before = [_content(folder / name) for name in ("recipe.yaml", "protocol.json")]
    pairs = zip(before, (settings, json.loads(_json(card))), strict=True)
    found = [change for then, now in pairs if then is not None for change in _changes(then, now)]
    changed = [change for change in found if not change.startswith(NEUTRAL)]
    if None in before and not changed:
        changed = _of_others(folder, fingerprint(settings, card))
    if changed:
        more = f"; and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise SertoneError(
            "other_experiment",
            f"{folder} was begun with other settings or data: {'; '.join(changed[:5])}{more}",
            "the same experiment, to go on with it",
            _way_out(before[0], changed),
        )


PRECISION = "train.precision: was "


def _way_out(recipe: dict[str, Any] | None, changed: list[str]) -> str:
    """Return what to do; where `auto` has become another precision on another machine, to keep the first."""
    train = (recipe or {}).get("train", {})
    if "precision" in train and all(change.startswith(PRECISION) for change in changed):
        return f"go on with --set train.precision={train['precision']}, or start again with --fresh"
    return "choose another --out, remove that folder, start again with --fresh, or insist with --force"


def fingerprint(recipe: dict[str, Any], card: dict) -> str:
    """Return the hash of a recipe and its protocol, by which results and saves tell their experiment."""
    parts = (recipes.drop_neutral(recipe), card)
    text = "".join(json.dumps(part, sort_keys=True, default=str) for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()


CARRIED = ("fold_*/result.json", "resume/*/state.json", "fold_*/resume/*/state.json", "distill.json")
"""Files that a run goes on with and that state the fingerprint of its experiment."""


def _of_others(folder: Path, own: str) -> list[str]:
    """Return what is not known to belong to an experiment: the only witnesses where its files are torn."""
    files = [path for pattern in CARRIED for path in sorted(folder.glob(pattern))]
    known = [(path, said) for path in files if (said := _content(path)) is not None]
    return [
        f"recipe.yaml or protocol.json is damaged, and {path.relative_to(folder)} is of another experiment"
        for path, said in known
        if said.get("experiment") != own
    ]


NEUTRAL = tuple(f"train.{name}" for name in recipes.NEUTRAL)
"""Settings that may change while a run goes on."""
MISSING = "not there"


def _json(value: dict) -> str:
    return json.dumps(value, default=str)


def _changes(before: Any, now: Any, name: str = "") -> list[str]:
    """Every setting that differs, as `train.epochs: was [3, 37], now [1, 2]`.

    A run of an older version lacks what has come since.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*before, *now])
        pairs = ((before.get(k, MISSING), now.get(k, MISSING), f"{name}.{k}".lstrip(".")) for k in keys)
        return [change for pair in pairs for change in _changes(*pair)]
    return [] if before == now else [f"{name}: was {_short(before)}, now {_short(now)}"]


def _short(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) < 80 else f"{text[:77]}..."

"""A run's folder: one process at a time, and only one experiment per folder."""

import contextlib
import difflib
import fcntl
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from sertone.errors import SertoneError
from sertone.training.checkpoint import write_json, write_text

WRITTEN = (
    *("recipe.yaml", "protocol.json", "results.json", "predictions.csv", "report.html"),
    *("fold_[0-9]*", "checkpoint", "resume"),
)


@contextlib.contextmanager
def claim(folder: Path, recipe: str, card: dict, *, force: bool, fresh: bool) -> Iterator[None]:
    """Claims a folder for one experiment, for as long as the context lasts.

    Args:
        folder: made if need be.
        recipe: as YAML.
        card: the protocol card.
        force: go on although recipe or protocol have changed since the run began.
        fresh: throw away what a run has written there.

    Raises:
        SertoneError: `run_in_use`, `other_experiment`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SertoneError(
                "run_in_use",
                f"another process writes {folder}",
                "a folder of one's own",
                "use --out",
            ) from None
        if fresh:
            _empty(folder)
        elif not force:
            _refuse_other(folder, recipe, card)
        write_text(folder / "recipe.yaml", recipe)
        write_json(folder / "protocol.json", card)
        yield


def _empty(folder: Path) -> None:
    """Removes what a run writes, and nothing else."""
    for path in [path for pattern in WRITTEN for path in folder.glob(pattern)]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _refuse_other(folder: Path, recipe: str, card: dict) -> None:
    """Compares with what the folder was begun with."""
    for name, now in (("recipe.yaml", recipe), ("protocol.json", json.dumps(card, indent=1))):
        path = folder / name
        if not path.is_file():
            continue
        before = path.read_text(encoding="utf-8")
        if name.endswith("json"):
            before, now = (json.dumps(json.loads(text), indent=1) for text in (before, now))
        changed = [
            line
            for line in difflib.unified_diff(before.splitlines(), now.splitlines(), n=0, lineterm="")
            if not line.startswith(("---", "+++", "@@"))
        ]
        if changed:
            shown = " | ".join(changed[:8])
            raise SertoneError(
                "other_experiment",
                f"{folder} was begun with another {name}: {shown}",
                "the same experiment, to go on with it",
                "choose another --out, start again with --fresh, or insist with --force",
            )

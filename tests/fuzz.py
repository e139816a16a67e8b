"""Artifacts that have come to harm by accident or on purpose: checkpoints, bundles, recipes. Run in a child process.

A case is a kind, the artifact to copy, and a seed; what comes of it is `answered`, the code of an error, or a
fault of ours: `traceback ...`, `unsound ...`.
"""

import contextlib
import copy
import io
import json
import math
import os
import random
import resource
import shutil
import tempfile
import traceback
import warnings
from pathlib import Path

import numpy as np
import yaml
from damage import rehash

GIGABYTES = 3
"""Beyond what the child has when it begins."""
ODD = [
    None, True, False, 0, -1, 1, 10**30, -(10**30), 2**31, 2**63, 1e308, math.nan, math.inf, -math.inf, 0.5, "", "x",
    "x" * 10_000, "../../etc/passwd", "/dev/zero", "\0", "\ud800", "é", [], [[]], {}, {"": ""}, [None] * 1000,
    {"name": {"name": {"name": 1}}}, list(range(2000)), "1", "NaN", [1, 2], {"low": 1, "high": 0},
]  # fmt: skip


def outcome_apart(*case):
    """`outcome` in a child process, whose memory is limited."""
    _limit_memory()
    return outcome(*case)


def outcome(kind, base, seed):
    """Copy an artifact, harm it, use it, and tell what came of it."""
    draw = random.Random(f"{kind} {Path(base).name} {seed}")
    with (
        tempfile.TemporaryDirectory(prefix="fuzz") as folder,
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(action="ignore"),
    ):
        target = Path(shutil.copytree(base, Path(folder) / "it", symlinks=True))
        HARM[kind](target, draw)
        return _used(USE[kind], target)


def _used(use, target):
    from sertone.errors import SertoneError

    try:
        return use(target)
    except SertoneError as error:
        return error.code
    except RecursionError:
        return "traceback RecursionError"
    except BaseException:
        return f"traceback {traceback.format_exc()[-1500:]}"


_limited = False


def _limit_memory():
    global _limited
    if not _limited:
        import sertone.training.testing.trained  # noqa: F401  so that its memory is counted as the program's

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + GIGABYTES * 2**30
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        _limited = True


# Harm


def places(values, path=()):
    """Paths of all values in a tree of objects and lists."""
    yield path
    parts = (
        values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    )
    for key, value in parts:
        yield from places(value, (*path, key))


def harmed(values, draw):
    """A copy of a tree in which one to three values are others, gone, doubled or renamed."""
    made = copy.deepcopy(values)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        known = [path for path in places(made) if path]
        if not known:
            break
        *parents, last = draw.choice(known)
        parent = made
        for key in parents:
            parent = parent[key]
        _harm_one(parent, last, draw)
    return made


def _harm_one(parent, key, draw):
    kind = draw.choice(["other", "other", "other", "gone", "nested", "renamed", "doubled", "moved"])
    value = parent[key]
    if kind == "other":
        parent[key] = draw.choice(ODD)
    elif kind == "nested":
        for _ in range(draw.choice([1, 50, 400])):
            value = [value] if draw.random() < 0.5 else {"it": value}
        parent[key] = value
    elif kind == "doubled" and isinstance(parent, list):
        parent.append(value)
    elif kind == "moved" and isinstance(value, int | float) and not isinstance(value, bool):
        parent[key] = draw.choice([value + 1, value - 1, value * 2, -value, value / 2, str(value)])
    elif kind == "renamed" and isinstance(parent, dict):
        parent[f"{key}_"] = parent.pop(key)
    else:
        parent.pop(key)


def harmed_bytes(data, draw):
    """Bytes flipped, lost, added or exchanged."""
    kind, changed = (
        draw.choice(["flip", "flip", "flips", "cut", "insert", "zeros", "empty", "noise", "twice"]),
        bytearray(data),
    )
    at = draw.randrange(max(1, len(changed)))
    if kind == "cut":
        return bytes(changed[:at])
    if kind == "insert":
        return bytes(changed[:at] + draw.randbytes(draw.choice([1, 8, 1000])) + changed[at:])
    if kind in ("empty", "noise"):
        return draw.randbytes(0 if kind == "empty" else 500)
    if kind == "twice":
        return bytes(changed * 2)
    if kind == "zeros":
        changed[at : at + 64] = bytes(min(64, len(changed) - at))
    near = 2000 if draw.random() < 0.7 else len(changed)  # headers are where it hurts
    for _ in range({"flip": 1, "flips": 20}.get(kind, 0)):
        changed[draw.randrange(min(near, len(changed)))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def replaced(path, draw):
    """Something else in the place of a file."""
    path.unlink()
    kind = draw.choice(["folder", "pipe", "zero", "loop", "nowhere", "gone", "self", "tty"])
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind != "gone":
        targets = {
            "zero": "/dev/zero",
            "loop": path,
            "nowhere": "nowhere",
            "self": path.parent,
            "tty": "/dev/tty",
        }
        path.symlink_to(targets[kind])


def harm_json(path, draw):
    path.write_text(json.dumps(harmed(json.loads(path.read_text()), draw)))


def harm_checkpoint(folder, draw):
    _harm_folder(folder, "checkpoint.json", draw)


def harm_bundle(folder, draw):
    _harm_folder(folder, "bundle.json", draw)


def _harm_folder(folder, marker, draw):
    """Mostly what the marker says, else another file; half of the time with hashes that fit."""
    chance, others = draw.random(), sorted(path for path in folder.iterdir() if path.name != marker)
    path = folder / marker if chance < 0.6 else draw.choice(others)
    if path.suffix == ".json" and chance < 0.85 and draw.random() < 0.85:
        harm_json(path, draw)
    elif draw.random() < 0.25:
        return replaced(path, draw)
    else:
        path.write_bytes(harmed_bytes(path.read_bytes(), draw))
    if path.name != marker and draw.random() < 0.7:
        rehash(folder, marker)
    return None


def harm_recipe(folder, draw):
    """The YAML as values, or as bytes."""
    path = folder / "recipe.yaml"
    if draw.random() < 0.8:
        values = harmed(yaml.safe_load(path.read_text()), draw)
        try:
            path.write_text(yaml.safe_dump(values))
        except RecursionError:
            path.write_text(json.dumps(values))
    elif draw.random() < 0.2:
        replaced(path, draw)
    else:
        path.write_bytes(harmed_bytes(path.read_bytes(), draw))


# Use


def use_model(folder):
    """Load it, answer, and describe it, as `predict` and `info` do."""
    import sertone
    from sertone.cli.models import info
    from sertone.sharing.model_folder import hash_model

    predictor = sertone.load(folder)
    noise = 0.1 * np.random.default_rng(0).standard_normal(8000)
    answers = [predictor.predict(noise, 16000, text=text) for text in ("well then", None)]
    hash_model(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        info(folder)
        info(folder, json_=True)
    return next(filter(None, map(_unsound, answers)), "") or answers[0].code or "answered"


def _unsound(answer):
    """What is wrong with an answer: a fault of ours, or numbers that are none."""
    if answer.code == "failed":
        return f"traceback {answer.message}"
    numbers = [*answer.probabilities.values(), *answer.dimensions.values()]
    total = sum(answer.probabilities.values())
    if not np.isfinite(numbers).all() or (answer.probabilities and abs(total - 1) > 0.01):
        return f"unsound {answer}"
    return ""


def use_recipe(folder):
    """Load it, read and split its corpus, and build its model, as every training does before it begins."""
    from sertone import recipe as recipes
    from sertone.training.experiment.experiment import prepare
    from sertone.training.runs.folds import build_checked_model

    recipe = recipes.load(folder / "recipe.yaml")
    recipes.dump(recipe)
    build_checked_model(prepare(recipe))
    return "answered"


HARM = {"checkpoint": harm_checkpoint, "bundle": harm_bundle, "recipe": harm_recipe}
USE = {"checkpoint": use_model, "bundle": use_model, "recipe": use_recipe}

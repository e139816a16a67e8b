"""The whole way from what was trained to a bundle that was checked."""

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sertone.audio import SAMPLING_RATE, file_hash
from sertone.errors import SertoneError
from sertone.export import card
from sertone.export.answers import Answers
from sertone.export.graphs import to_onnx
from sertone.export.parity import parity
from sertone.files import write_json, write_text
from sertone.runtime.bundle import CARD, FORMAT, GRAPH, MARKER, TOKENIZER, Bundle
from sertone.training.predict import Trained

MAX_SECONDS = 30.0
"""Longest stretch that a bundle answers at once, and up to which it is compared with torch."""


def export(
    source: str | Path, out: str | Path, *, name: str = "", say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Writes a model as a bundle; nothing stays where its answers are not those of torch.

    Args:
        source: a checkpoint folder, a fold, a run (the mean of its models), or OWNER/NAME on the hub.
        out: folder to write; what was there is replaced only by a bundle that was checked.
        name: of the bundle; by default the folder's.
        say: told what is being done.

    Returns:
        what `bundle.json` holds.

    Raises:
        SertoneError: `not_a_checkpoint`, `bad_weights`, `other_format`, `many_tokenizers`, `not_empty`,
            `parity`, `missing_extra`.
    """
    out = Path(out)
    _require_free(out)
    trained = Trained(source)
    _require_one_tokenizer(trained)
    say("tracing")
    aside = out.with_name(f".{out.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    _save(to_onnx(Answers(trained), _examples(trained)), aside / GRAPH)
    if trained.reads:
        write_text(aside / TOKENIZER, trained.vocabularies[0].tokenizer)
    about = _about(trained, name or out.name)
    write_bundle(aside, about)
    say("comparing with torch")
    about["parity"] = parity(trained, Bundle(aside))
    write_bundle(aside, about)
    shutil.rmtree(out, ignore_errors=True)
    aside.replace(out)
    return about


def write_bundle(folder: Path, about: dict[str, Any]) -> None:
    """Writes card and `bundle.json` beside the graph, the hashes of all files in it, the marker last."""
    write_text(folder / CARD, card.render(about))
    names = sorted(path.name for path in folder.iterdir() if path.name != MARKER)
    about["files"] = {name: file_hash(folder / name) for name in names}
    write_json(folder / MARKER, about)


def _about(trained: Trained, name: str) -> dict[str, Any]:
    calibration = asdict(trained.calibrations[0]) | {"threshold": trained.threshold}
    return {
        "format": FORMAT,
        "name": name,
        "precision": "fp32",
        "classes": trained.classes,
        "scales": {dimension: asdict(scale) for dimension, scale in trained.scales.items()},
        "class_map": trained.class_map,
        "hears": trained.hears,
        "reads": trained.reads,
        "sampling_rate": SAMPLING_RATE,
        "min_samples": trained.min_samples,
        "max_seconds": MAX_SECONDS,
        "models": len(trained.models),
        "calibration": calibration,
        "card": trained.card,
        "licences": trained.licences,
        "parity": {},
        "files": {},
    }


def _examples(trained: Trained) -> dict[str, Tensor]:
    """Two rows of each input."""
    examples = {}
    if trained.hears:
        examples["waveforms"] = 0.1 * torch.randn(2, max(SAMPLING_RATE, 2 * trained.min_samples))
    if trained.reads:
        examples["tokens"], examples["counts"] = trained.vocabularies[0].tokens(["well then", "so it is now"])
    return examples


def _save(graph: Any, path: Path) -> None:
    try:
        import onnx
    except ImportError:
        raise SertoneError(
            "missing_extra", "onnx is not installed", way_out='pip install "sertone[train]"'
        ) from None

    if graph.ByteSize() >= onnx.checker.MAXIMUM_PROTOBUF:
        raise SertoneError("too_large", f"a graph of {graph.ByteSize() / 1e9:.1f} GB", "less than 2 GB")
    onnx.save(graph, path)


def _require_one_tokenizer(trained: Trained) -> None:
    if len({vocabulary.tokenizer for vocabulary in trained.vocabularies}) > 1:
        raise SertoneError(
            "many_tokenizers",
            "the folds' models have tokenizers of their own",
            "one tokenizer",
            "export a fold, or train one model on all the data with `sertone train`",
        )


def _require_free(out: Path) -> None:
    """A bundle may be written again; nothing else is overwritten."""
    if out.exists() and not (out / MARKER).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise SertoneError("not_empty", f"{out} is there already", "a new or empty folder, or a bundle")

"""The whole export: from a model to a bundle that was compared with it."""

import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from sertone.audio import SAMPLING_RATE, file_hash
from sertone.errors import SertoneError
from sertone.export import card, from_checkpoint, from_huggingface
from sertone.export.exportable import ExportableModel
from sertone.export.onnx_graph import save_graph, to_onnx
from sertone.export.parity import TOLERANCES, check_parity
from sertone.export.precision import Precision, convert_precision
from sertone.export.precision_check import compare_precisions, require_small_loss
from sertone.files import write_bytes, write_json, write_text
from sertone.runtime.arithmetic_check import PROBE, UnverifiedBundleWarning, create_probe
from sertone.runtime.bundle import (
    CARD,
    FORMAT,
    FORMAT_WITHOUT_PROBE,
    GRAPH,
    MARKER,
    TOKENIZER,
    Bundle,
)
from sertone.sharing.card_audit import summarise_audit
from sertone.sharing.card_scores import Scores
from sertone.sharing.model_folder import hash_model
from sertone.utils.hub import HUGGING_FACE_PREFIX


def export(
    source: str | Path,
    out: str | Path,
    *,
    precision: Precision = "fp32",
    on: tuple[str, str | Path] | None = None,
    reader: Mapping[str, Any] | None = None,
    force: bool = False,
    name: str = "",
    scores: Path | None = None,
    coverage: float | None = None,
    elsewhere: Sequence[Path] = (),
    audit: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Write a model as a bundle. If its outputs are not those of torch, nothing is left behind.

    Args:
        source: a checkpoint folder, a fold, a run (the mean of its models), or OWNER/NAME of a Sertone model
            on the hub; `hf:FOLDER` or `hf:OWNER/NAME` of an audio-classification checkpoint of Hugging Face.
        out: folder to write; an existing bundle is replaced only after the new one was checked.
        precision: precision of the weights; see `precision`.
        on: name and root of a corpus on which int8 or bf16 is compared with fp32.
        reader: options of the reader of that corpus, such as `columns`.
        force: write int8 although it loses more than `precision_check.MAX_LOSS_POINTS` points.
        name: name of the bundle; by default the folder's.
        scores: run of a cross-validation of the same recipe, or a choice of it. The bundle states its
            scores, and its held-out predictions calibrate a model that was trained on all data. For a
            Hugging Face model: a folder that `sertone evaluate` wrote, as `elsewhere`.
        coverage: share of recordings for which the prediction of such a model is not marked unsure.
        elsewhere: folders that `sertone evaluate` wrote: scores on other corpora, for the card.
        audit: folder that `sertone audit` wrote for this model, for the card.
        say: called with a description of every step.

    Returns:
        the content of `bundle.json`.

    Raises:
        SertoneError: as `from_checkpoint.load_exportable`, `from_huggingface.load_exportable`,
            `Scores.from_run`, `Scores.from_evaluation`, `precision_check.compare_precisions`;
            `not_empty`, `not_ours`, `parity`, `int8_loss`, `nothing_to_compare`, `too_large`,
            `missing_extra`, `disk_full`.
    """
    out = Path(out).resolve()
    _require_free(out)
    _require_reduced_precision(precision, on)
    if str(source).startswith(HUGGING_FACE_PREFIX) and scores:  # its training corpus is not known
        scores, elsewhere = None, [scores, *elsewhere]
    other_scores = dict(Scores.from_evaluation(folder) for folder in elsewhere)
    audited = {"audit": summarise_audit(audit, hash_model(source))} if audit else {}
    exportable = _load(str(source), scores, coverage)
    with _temporary_folder(out, "exact") as exact_folder, _temporary_folder(out, precision) as folder:
        if exportable.note:
            say(exportable.note)
        say("tracing")
        about = _describe(exportable, name or out.name)
        about |= audited
        about["elsewhere"] = {corpus: asdict(corpus_scores) for corpus, corpus_scores in other_scores.items()}
        exact = bundle = _write_exact(exportable, exact_folder, about)
        say("comparing with torch")
        about["parity"] = check_parity(exportable.model, exact)
        if precision != "fp32":
            say(f"converting to {precision}")
            about |= {"precision": precision, "measured": {}}
            bundle = _write_converted(exact_folder, folder, about)
            about["parity"] = check_parity(exportable.model, bundle, tolerance=TOLERANCES[precision])
        if on:
            say(f"comparing with fp32 on {on[0]}")
            about["measured"] = compare_precisions(exact, bundle, about["class_map"], *on, reader)
            require_small_loss(about["measured"], precision, force)
        _complete(bundle, about)
        return _replace(out, bundle.folder, about)


def write_bundle(folder: Path, about: dict[str, Any]) -> None:
    """Write probe, card and `bundle.json` beside the graph, with the hashes of the other files.

    The card has no hash: the user who publishes a bundle may edit it.
    """
    _complete(_load_without_probe(folder, about), about)


def _load_without_probe(folder: Path, about: dict[str, Any]) -> Bundle:
    """Write the hashes of all files but card and `bundle.json`, and load them as a bundle without a probe."""
    (folder / PROBE).unlink(missing_ok=True)
    about.pop("probe", None)
    names = sorted(path.name for path in folder.iterdir() if path.name not in (MARKER, CARD))
    about["files"] = {name: file_hash(folder / name) for name in names}
    write_json(folder / MARKER, about | {"format": FORMAT_WITHOUT_PROBE})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnverifiedBundleWarning)
        return Bundle(folder)


def _complete(bundle: Bundle, about: dict[str, Any]) -> None:
    """Write the probe, the card and `bundle.json`; the hashes of the other files are in `about`."""
    signal, about["probe"] = create_probe(bundle, about["precision"])
    content = BytesIO()
    np.save(content, signal)
    write_bytes(bundle.folder / PROBE, content.getvalue())
    about["files"][PROBE] = file_hash(bundle.folder / PROBE)
    write_text(bundle.folder / CARD, card.render(about))
    # Last: a folder is a bundle once it has this file.
    write_json(bundle.folder / MARKER, about)


def _load(source: str, scores: Path | None, coverage: float | None) -> ExportableModel:
    if not source.startswith(HUGGING_FACE_PREFIX):
        return from_checkpoint.load_exportable(source, scores, coverage)
    if coverage is not None:
        raise SertoneError("not_ours", f"a coverage for {source}", "a model that Sertone trained")
    return from_huggingface.load_exportable(source.removeprefix(HUGGING_FACE_PREFIX))


def _write_exact(exportable: ExportableModel, folder: Path, about: dict[str, Any]) -> Bundle:
    save_graph(to_onnx(exportable.module, exportable.inputs), folder / GRAPH)
    if exportable.tokenizer:
        write_text(folder / TOKENIZER, exportable.tokenizer)
    return _load_without_probe(folder, about)


def _write_converted(exact: Path, folder: Path, about: dict[str, Any]) -> Bundle:
    convert_precision(exact / GRAPH, folder / GRAPH, about["precision"])
    if (exact / TOKENIZER).is_file():
        write_bytes(folder / TOKENIZER, (exact / TOKENIZER).read_bytes())
    return _load_without_probe(folder, about)


def _describe(exportable: ExportableModel, name: str) -> dict[str, Any]:
    """Return the content of `bundle.json`, before anything is compared."""
    model = exportable.model
    return {
        "format": FORMAT,
        "name": name,
        "model": dict(exportable.about),
        "precision": "fp32",
        "classes": model.classes,
        "scales": {name: asdict(scale) if scale else None for name, scale in model.scales.items()},
        "class_map": dict(exportable.class_map),
        "hears": model.uses_audio,
        "reads": model.uses_text,
        "sampling_rate": SAMPLING_RATE,
        "min_samples": model.min_samples,
        "max_seconds": model.max_seconds,
        "models": exportable.models,
        "calibration": dict(exportable.calibration),
        "card": model.card,
        "licences": model.licences,
        "scores": dict(exportable.scores),
        "parity": {},
        "files": {},
    }


@contextmanager
def _temporary_folder(out: Path, purpose: str) -> Iterator[Path]:
    """Yield an empty folder beside another one, and remove it afterwards."""
    folder = out.with_name(f".{out.name}.{purpose}.part")
    shutil.rmtree(folder, ignore_errors=True)  # of an export that was killed
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _replace(out: Path, folder: Path, about: dict[str, Any]) -> dict[str, Any]:
    shutil.rmtree(out, ignore_errors=True)
    folder.replace(out)
    return about


def _require_reduced_precision(precision: Precision, on: tuple[str, str | Path] | None) -> None:
    """Refuse a comparison of fp32 with itself."""
    if on and precision == "fp32":
        raise SertoneError(
            "nothing_to_compare",
            f"a corpus, {on[0]}, and weights in fp32",
            "int8 or bf16",
            "`sertone evaluate` scores a model on a corpus",
        )


def _require_free(out: Path) -> None:
    """Refuse to overwrite anything but a bundle."""
    if out == Path.cwd():
        raise SertoneError("not_empty", f"{out}, the working folder", "a new folder")
    if not out.exists():
        return
    names = {path.name for path in out.iterdir()} if out.is_dir() else {out.name}
    bundle_files = {MARKER, GRAPH, PROBE, TOKENIZER, CARD} if MARKER in names else set()
    if other_files := sorted(names - bundle_files):
        raise SertoneError(
            "not_empty", f"{out} exists, with {other_files[0]}", "a new or empty folder, or a bundle"
        )

"""The whole way from a model to a bundle that was checked."""

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
from sertone.export.bundle_cache import HUGGING_FACE_PREFIX
from sertone.export.exportable import ExportableModel
from sertone.export.onnx_graph import save_graph, to_onnx
from sertone.export.parity import TOLERANCES, check_parity
from sertone.export.precision import Precision, convert_precision
from sertone.export.precision_check import compare_precisions, require_small_loss
from sertone.files import write_bytes, write_json, write_text
from sertone.runtime.arithmetic_check import PROBE, UnverifiedBundleWarning, create_probe
from sertone.runtime.bundle import CARD, FORMAT, FORMAT_WITHOUT_PROBE, GRAPH, MARKER, TOKENIZER, Bundle
from sertone.sharing.card_scores import Scores


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
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Writes a model as a bundle; nothing stays where its answers are not those of torch.

    Args:
        source: a checkpoint folder, a fold, a run (the mean of its models), or OWNER/NAME of a model of ours
            on the hub; `hf:FOLDER` or `hf:OWNER/NAME` of an audio-classification checkpoint of Hugging Face.
        out: folder to write; what was there is replaced only by a bundle that was checked.
        precision: of the weights; see `precision`.
        on: name and root of a corpus on which int8 or bf16 is compared with fp32.
        reader: options of its reader, such as `columns`.
        force: write int8 although it loses more than `agreement.LIMIT` points.
        name: of the bundle; by default the folder's.
        scores: run of a cross-validation of the same recipe, or a choice of it, whose scores the bundle
            is to state, and whose held-out answers calibrate a model that was trained on all data; of a
            Hugging Face model a folder that `sertone evaluate` wrote, as `elsewhere`.
        coverage: share of recordings that shall get an answer of such a model; the others are unsure.
        elsewhere: folders that `sertone evaluate` wrote: scores on other corpora, for the card.
        say: told what is being done.

    Returns:
        what `bundle.json` holds.

    Raises:
        SertoneError: as `trained.source_of`, `Scores.of_run`, `Scores.of_evaluation`, `hub.source_of`,
            `agreement.agreement`; `not_empty`, `not_ours`, `parity`, `int8_loss`, `nothing_to_compare`,
            `too_large`, `missing_extra`, `disk_full`.
    """
    out = Path(out).resolve()
    _require_free(out)
    _require_some_loss(precision, on)
    if str(source).startswith(HUGGING_FACE_PREFIX) and scores:  # nobody here knows its training corpus
        scores, elsewhere = None, [scores, *elsewhere]
    others = dict(Scores.from_evaluation(folder) for folder in elsewhere)
    found = _source(str(source), scores, coverage)
    with _aside(out, "exact") as exact, _aside(out, precision) as made:
        if found.note:
            say(found.note)
        say("tracing")
        about = _about(found, name or out.name)
        about["elsewhere"] = {corpus: asdict(own) for corpus, own in others.items()}
        first = own = _write_exact(found, exact, about)
        say("comparing with torch")
        about["parity"] = check_parity(found.model, first)
        if precision != "fp32":
            say(f"lowering to {precision}")
            about |= {"precision": precision, "measured": {}}
            own = _write_lowered(exact, made, about)
            about["parity"] = check_parity(found.model, own, tolerance=TOLERANCES[precision])
        if on:
            say(f"comparing with fp32 on {on[0]}")
            about["measured"] = compare_precisions(first, own, about["class_map"], *on, reader)
            require_small_loss(about["measured"], precision, force)
        _prove(own, about)
        return _replace(out, own.folder, about)


def write_bundle(folder: Path, about: dict[str, Any]) -> None:
    """Writes probe, card and `bundle.json` beside the graph, with the hashes of what answers.

    The card has no hash: whoever publishes a bundle may mend it.
    """
    _prove(_unproven(folder, about), about)


def _unproven(folder: Path, about: dict[str, Any]) -> Bundle:
    """State the hashes of what answers, and load it as a bundle that has no probe yet."""
    (folder / PROBE).unlink(missing_ok=True)
    about.pop("probe", None)
    names = sorted(path.name for path in folder.iterdir() if path.name not in (MARKER, CARD))
    about["files"] = {name: file_hash(folder / name) for name in names}
    write_json(folder / MARKER, about | {"format": FORMAT_WITHOUT_PROBE})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnverifiedBundleWarning)
        return Bundle(folder)


def _prove(bundle: Bundle, about: dict[str, Any]) -> None:
    """Write the probe, and what makes a bundle complete; the hashes of the other files are known."""
    signal, about["probe"] = create_probe(bundle, about["precision"])
    content = BytesIO()
    np.save(content, signal)
    write_bytes(bundle.folder / PROBE, content.getvalue())
    about["files"][PROBE] = file_hash(bundle.folder / PROBE)
    write_text(bundle.folder / CARD, card.render(about))
    write_json(bundle.folder / MARKER, about)


def _source(source: str, scores: Path | None, coverage: float | None) -> ExportableModel:
    if source.startswith(HUGGING_FACE_PREFIX):
        if coverage is not None:
            found = f"a coverage for {source}"
            raise SertoneError("not_ours", found, "a model that was trained with this package")
        return from_huggingface.load_exportable(source.removeprefix(HUGGING_FACE_PREFIX))
    return from_checkpoint.load_exportable(source, scores, coverage)


def _write_exact(found: ExportableModel, folder: Path, about: dict[str, Any]) -> Bundle:
    save_graph(to_onnx(found.module, found.inputs), folder / GRAPH)
    if found.tokenizer:
        write_text(folder / TOKENIZER, found.tokenizer)
    return _unproven(folder, about)


def _write_lowered(exact: Path, folder: Path, about: dict[str, Any]) -> Bundle:
    convert_precision(exact / GRAPH, folder / GRAPH, about["precision"])
    if (exact / TOKENIZER).is_file():
        write_bytes(folder / TOKENIZER, (exact / TOKENIZER).read_bytes())
    return _unproven(folder, about)


def _about(found: ExportableModel, name: str) -> dict[str, Any]:
    model = found.model
    return {
        "format": FORMAT,
        "name": name,
        "model": dict(found.about),
        "precision": "fp32",
        "classes": model.classes,
        "scales": {name: asdict(scale) if scale else None for name, scale in model.scales.items()},
        "class_map": dict(found.class_map),
        "hears": model.uses_audio,
        "reads": model.uses_text,
        "sampling_rate": SAMPLING_RATE,
        "min_samples": model.min_samples,
        "max_seconds": model.max_seconds,
        "models": found.models,
        "calibration": dict(found.calibration),
        "card": model.card,
        "licences": model.licences,
        "scores": dict(found.scores),
        "parity": {},
        "files": {},
    }


@contextmanager
def _aside(out: Path, what: str) -> Iterator[Path]:
    """An empty folder beside another one, gone afterwards."""
    folder = out.with_name(f".{out.name}.{what}.part")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _replace(out: Path, made: Path, about: dict[str, Any]) -> dict[str, Any]:
    shutil.rmtree(out, ignore_errors=True)
    made.replace(out)
    return about


def _require_some_loss(precision: Precision, on: tuple[str, str | Path] | None) -> None:
    if on and precision == "fp32":
        raise SertoneError(
            "nothing_to_compare",
            f"a corpus, {on[0]}, and weights in fp32",
            "int8 or bf16",
            "`sertone evaluate` scores a model on a corpus",
        )


def _require_free(out: Path) -> None:
    """A bundle may be written again; nothing else is overwritten."""
    if out == Path.cwd():
        raise SertoneError("not_empty", f"{out}, the working folder", "a new folder")
    if not out.exists():
        return
    names = {path.name for path in out.iterdir()} if out.is_dir() else {out.name}
    if others := sorted(names - ({MARKER, GRAPH, PROBE, TOKENIZER, CARD} if MARKER in names else set())):
        raise SertoneError(
            "not_empty", f"{out} is there already, with {others[0]}", "a new or empty folder, or a bundle"
        )

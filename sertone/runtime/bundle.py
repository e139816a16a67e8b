"""The bundle: one folder with everything that a model needs to run, and no code.

    model.onnx       from raw waveform (and token ids) to calibrated probabilities and ratings
    bundle.json      inputs, outputs, protocol card, licences, calibration, probe, hashes
    probe.npy        a waveform with known outputs, see `arithmetic_check`
    tokenizer.json   of a model that uses text
    README.md        model card

The graph, axis letters B batch, N samples, S tokens, K classes, R dimensions:
    waveforms (B, N) float32, 16 kHz mono; all of one length
    tokens (B, S) and counts (B,) int64, for a model that uses text; a count of 0: no text
    -> probabilities (B, K), ratings (B, R), on the scales of the corpus, or on a scale that is not stated
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sertone.audio import SAMPLING_RATE, file_hash
from sertone.errors import AudioError, SertoneError, first_line, is_out_of_memory
from sertone.files import load_json, read_text
from sertone.labels import Scale, is_class_list, is_scale
from sertone.licences import LEDGER_SHAPE
from sertone.runtime.answering import Outputs, build_memory_error
from sertone.runtime.arithmetic_check import (
    PROBE,
    PROBE_FIELDS,
    build_damage_error,
    require_correct_arithmetic,
)
from sertone.runtime.card_shapes import AUDIT_SHAPE, are_scores
from sertone.runtime.graph_files import list_external_files
from sertone.runtime.tokenizer import parse_tokenizer
from sertone.utils.extras import install_command
from sertone.utils.json_shape import find_misfits

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FORMAT, FORMAT_WITHOUT_PROBE = 2, 1
"""The current format, and the one before bundles had probes, which can still be loaded."""
MARKER, GRAPH, TOKENIZER, CARD = "bundle.json", "model.onnx", "tokenizer.json", "README.md"
LONGEST_S = 3600.0
"""Upper limit of `max_seconds` and `min_samples` of any model, in seconds."""
FIELDS = {
    "format": int,
    "name": str,
    "precision": lambda name: name in ("fp32", "int8", "bf16"),
    "classes": is_class_list,
    "scales": {str: (is_scale, None)},
    "hears": bool,
    "reads": bool,
    "sampling_rate": lambda rate: rate == SAMPLING_RATE,
    "min_samples": lambda count: type(count) is int and 0 < count <= LONGEST_S * SAMPLING_RATE,
    "max_seconds": lambda seconds: not find_misfits(seconds, float, "it") and 0 < seconds <= LONGEST_S,
    "calibration": {"temperature": float, "threshold": (float, None)},
    "card": {
        "corpus": {"name": str, "title": str},
        "selection": str,
        "heard?": {"recordings": [str], "speakers": [str], "unknown_speakers?": int},
    },
    "licences": LEDGER_SHAPE,
    "models": int,
    "class_map": {str: str},
    "model?": {"name": str, "encoders": str},
    "scores?": are_scores,
    "elsewhere?": {str: are_scores},
    "audit?": AUDIT_SHAPE,
    "parity": {"largest_difference?": {str: float}},
    "probe?": PROBE_FIELDS,
    "files": {str: str},
}
"""The shape of `bundle.json`, see `utils.json_shape`."""
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
Device = Literal["cpu", "cuda"]
KEPT_SAMPLES = 10 * SAMPLING_RATE
"""Recordings up to this length leave their memory to the next one; longer ones return it to the system."""

_CONSISTENT: dict[str, Callable[[dict[str, Any]], bool]] = {
    "hears": lambda metadata: metadata["hears"] or metadata["reads"],
    "classes": lambda metadata: bool(metadata["classes"] or metadata["scales"]),
    "probe": lambda metadata: ("probe" in metadata) == (metadata["format"] != FORMAT_WITHOUT_PROBE),
    "files": lambda metadata: _list_required_files(metadata) <= metadata["files"].keys(),
}
"""Field -> condition between this field and others."""


def is_bundle(path: Path) -> bool:
    """Return whether a folder is a complete bundle."""
    return (path / MARKER).is_file()


def read_metadata(folder: Path) -> dict[str, Any]:
    """Return the content of `bundle.json`, after comparing the files with their hashes.

    Raises:
        SertoneError: `not_a_bundle`, `other_format`, `bad_bundle`.
    """
    if not is_bundle(folder):
        raise SertoneError("not_a_bundle", f"no {MARKER} in {folder}", "a folder that `sertone export` wrote")
    metadata = load_json(folder / MARKER, "bad_bundle")
    if metadata.get("format") not in (FORMAT, FORMAT_WITHOUT_PROBE):
        problem = f"{folder} has format {metadata.get('format')}"
        raise SertoneError("other_format", problem, f"format {FORMAT}", "export the model again")
    invalid = find_misfits(metadata, FIELDS)
    if not invalid:  # the conditions rely on the shape of the fields
        invalid = [name for name, is_met in _CONSISTENT.items() if not is_met(metadata)]
    if invalid:
        raise build_damage_error(folder, f"{MARKER} has no valid {', '.join(invalid[:5])}")
    _require_intact_files(folder, metadata["files"])
    return metadata


def _require_intact_files(folder: Path, hashes: dict[str, str]) -> None:
    for name, digest in hashes.items():
        # A name with a path could lead out of the bundle.
        if Path(name).name != name or not (folder / name).is_file():
            raise build_damage_error(folder, f"no {name}")
        if file_hash(folder / name) != digest:
            raise build_damage_error(folder, f"{name} has changed since the export")
    for name in list_external_files(folder / GRAPH, "bad_bundle"):
        if name not in hashes:
            raise build_damage_error(folder, f"{GRAPH} refers to {name!r}, which has no hash in {MARKER}")


def _list_required_files(metadata: dict[str, Any]) -> set[str]:
    """Return the files that a bundle must have."""
    optional = {TOKENIZER: metadata["reads"], PROBE: "probe" in metadata}
    return {GRAPH, *(name for name, is_required in optional.items() if is_required)}


@dataclass(frozen=True)
class BundleSettings:
    """Settings for running a bundle.

    Attributes:
        device: `cuda` requires onnxruntime-gpu.
        threads: for one recording; None: one per core.
    """

    device: Device = "cpu"
    threads: int | None = None


class Bundle:
    """A bundle that is ready to run: a `runtime.answering.Model`.

    Args:
        folder: that `sertone export` wrote.
        settings: for running it.

    Attributes:
        folder: as given.
        settings: as given.
        metadata: content of `bundle.json`.

    Raises:
        SertoneError: `not_a_bundle`, `other_format`, `bad_bundle`, `no_device`; `wrong_arithmetic` where
            this machine computes other outputs; `missing_extra` where `tokenizers` is needed, but missing.
    """

    def __init__(self, folder: str | Path, settings: BundleSettings | None = None) -> None:
        self.folder = Path(folder)
        self.settings = settings or BundleSettings()
        self.metadata = read_metadata(self.folder)
        scales = self.metadata["scales"].items()
        self.scales = {name: Scale(**scale) if scale else None for name, scale in scales}
        self.classes: list[str] = self.metadata["classes"]
        self.uses_audio: bool = self.metadata["hears"]
        self.uses_text: bool = self.metadata["reads"]
        self.min_samples: int = self.metadata["min_samples"]
        self.max_seconds: float = self.metadata["max_seconds"]
        self.threshold: float | None = self.metadata["calibration"]["threshold"]
        self.card: dict[str, Any] = self.metadata["card"]
        self.licences: list[dict[str, Any]] = self.metadata["licences"]
        self._tokenizer = _load_tokenizer(self.folder / TOKENIZER) if self.uses_text else None
        self._session = _create_session(self.folder, self.settings)
        # Dynamic quantisation shares one scale over a batch, so a row would depend on its neighbours.
        self._runs_one_by_one = self.metadata["precision"] == "int8"
        self._require_shapes()
        require_correct_arithmetic(self, self.folder, self.metadata.get("probe"))

    def __reduce__(self) -> tuple:
        """Pickle the path; unpickling loads and checks the bundle again."""
        return _reload_bundle, (self.folder.absolute(), self.settings)

    def truncates(self, text: str) -> bool:
        """Return whether a text is longer than the model uses."""
        return bool(self._tokenizer and self._tokenizer.encode(text).overflowing)

    def outputs(self, waveforms: np.ndarray, text: str | None = None) -> Outputs:
        """Return the outputs for recordings of one length (B, N); a text only for a single one."""
        if self._runs_one_by_one and len(waveforms) > 1:
            rows = [self.outputs(row[None], text) for row in waveforms]
            probabilities = np.concatenate([row.probabilities for row in rows])
            return Outputs(probabilities, np.concatenate([row.ratings for row in rows]))
        inputs = {"waveforms": np.asarray(waveforms, np.float32)} if self.uses_audio else {}
        if self.uses_text:
            inputs["tokens"], inputs["counts"] = self._encode_text(text, len(waveforms))
        options = _create_run_options() if waveforms.size > KEPT_SAMPLES else None
        try:
            probabilities, ratings = self._session.run(["probabilities", "ratings"], inputs, options)
        except Exception as error:  # onnxruntime has a separate class for every kind of failure
            raise _build_run_error(error) from None
        return Outputs(np.asarray(probabilities), np.asarray(ratings))

    def _encode_text(self, text: str | None, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Return token ids (B, S) and their counts (B,)."""
        ids: Sequence[int] = self._tokenizer.encode(text).ids if text and self._tokenizer else []
        # The axis S must not be empty, so no text is one padding token with a count of 0.
        return np.asarray([ids or [0]] * rows, np.int64), np.full(rows, len(ids), np.int64)

    def _require_shapes(self) -> None:
        """Refuse labels that do not fit the graph."""
        widths = {output.name: output.shape[-1] for output in self._session.get_outputs()}
        expected = {"probabilities": len(self.classes), "ratings": len(self.scales)}
        if widths != expected:
            problem = f"the graph has {widths} outputs, the labels are {expected}"
            raise build_damage_error(self.folder, problem)


@lru_cache(maxsize=1)
def _reload_bundle(folder: Path, settings: BundleSettings) -> Bundle:
    """Return a pickled bundle, once per process; its warnings were shown where it was loaded first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Bundle(folder, settings)


def _create_session(folder: Path, settings: BundleSettings) -> "InferenceSession":
    """Return a session of ONNX Runtime on the graph."""
    import onnxruntime

    if settings.device not in PROVIDERS:
        raise SertoneError("no_device", f"device {settings.device!r}", " or ".join(PROVIDERS))
    provider = PROVIDERS[settings.device]
    if provider not in onnxruntime.get_available_providers():
        raise _build_device_error(settings, "which this onnxruntime does not support")
    options = onnxruntime.SessionOptions()
    # A memory plan per input length would only grow: almost every recording has another length.
    options.enable_mem_pattern = False
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = settings.threads or 0  # 0: one per core
    # Threads that wait for work by spinning take the cores that decode the next recording.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(folder / GRAPH, options, [provider], enable_fallback=0)
    except Exception as error:  # onnxruntime has a separate class for every kind of bad graph
        raise build_damage_error(folder, f"{GRAPH}: {first_line(error)}") from None
    if provider not in session.get_providers():  # onnxruntime falls back to the CPU and only logs it
        raise _build_device_error(settings, "which cannot be used here")
    return session


def _build_device_error(settings: BundleSettings, reason: str) -> SertoneError:
    way_out = "pip install onnxruntime-gpu instead of onnxruntime, with the CUDA version that it requires"
    return SertoneError("no_device", f"device {settings.device!r}, {reason}", "cpu", way_out)


def _build_run_error(error: Exception) -> SertoneError:
    """Return the error of a recording for which the graph failed."""
    if is_out_of_memory(error):
        return build_memory_error(error)
    problem = f"the graph fails: {first_line(error)}"
    return AudioError("graph_failed", problem, "a graph that runs", "export or fetch the bundle again")


def _create_run_options() -> Any:
    """Return options with which ONNX Runtime gives the memory of a run back to the system."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def _load_tokenizer(path: Path) -> Any:
    text = read_text(path, "bad_bundle")
    try:
        return parse_tokenizer(text)
    except ImportError:
        problem = "a model that uses text"
        raise SertoneError("missing_extra", problem, "tokenizers", install_command("text")) from None
    except ValueError as error:
        raise build_damage_error(path.parent, f"{path.name}: {error}") from None

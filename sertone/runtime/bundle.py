"""The bundle: one folder with everything that is needed to use a model, and nothing that runs code.

    model.onnx       from raw waveform (and token ids) to calibrated probabilities and ratings
    bundle.json      what goes in, what comes out, protocol card, licences, calibration, probe, hashes
    probe.npy        a waveform whose answer is known: see `probe`
    tokenizer.json   of a model that reads text
    README.md        model card

The graph, axis letters B batch, N samples, S tokens, K classes, R dimensions:
    waveforms (B, N) float32, 16 kHz mono; all of one length
    tokens (B, S) and counts (B,) int64: of a model that reads; a count of 0: no text
    -> probabilities (B, K), ratings (B, R), on the scales of the corpus, or on one that nobody states
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
from sertone.files import read_json, read_text
from sertone.labels import Scale, is_class_list, is_scale
from sertone.licences import LEDGER_SHAPE
from sertone.runtime.answering import Outputs, build_memory_error
from sertone.runtime.arithmetic_check import PROBE, PROBE_FIELDS, require_correct_arithmetic
from sertone.runtime.graph_files import list_external_files
from sertone.runtime.tokenizer import parse_tokenizer
from sertone.scoring import display
from sertone.utils.extras import install_command
from sertone.utils.json_shape import find_misfits

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FORMAT, FORMAT_WITHOUT_PROBE = 2, 1
"""What is written now, and the format before there were probes, which is still read."""
MARKER, GRAPH, TOKENIZER, CARD = "bundle.json", "model.onnx", "tokenizer.json", "README.md"


def _are_scores(values: Any) -> bool:
    """Return whether a value is what `sharing.scores` writes; it is empty where nothing was scored."""
    shape = {"values": {str: float}, "intervals": {str: [float]}, "utterances": int, "speakers": int}
    if find_misfits(values, shape, "scores"):
        return values == {}
    names = [display.parse_score_name(name)[1] for name in [*values["values"], *values["intervals"]]]
    return all(name in display.SCORE_FORMATS for name in names)


LONGEST_S = 3600.0
"""No model answers longer recordings at once, or needs longer ones, in seconds."""
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
    "scores?": _are_scores,
    "elsewhere?": {str: _are_scores},
    "parity": {"largest_difference?": {str: float}},
    "probe?": PROBE_FIELDS,
    "files": {str: str},
}
"""The shape of `bundle.json`, see `shape`."""
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
Device = Literal["cpu", "cuda"]
KEPT_SAMPLES = 10 * SAMPLING_RATE
"""The memory that so much audio needs is kept for the next recording; that of longer ones is given back."""


_SOUND: dict[str, Callable[[dict[str, Any]], bool]] = {
    "hears": lambda said: said["hears"] or said["reads"],
    "classes": lambda said: bool(said["classes"] or said["scales"]),
    "probe": lambda said: ("probe" in said) == (said["format"] != FORMAT_WITHOUT_PROBE),
    "files": lambda said: _needed(said) <= said["files"].keys(),
}
"""What has to hold between fields."""


def is_bundle(path: Path) -> bool:
    """Whether a folder is a complete bundle."""
    return (path / MARKER).is_file()


def read_metadata(folder: Path) -> dict[str, Any]:
    """What `bundle.json` holds, after its files have been compared with their hashes.

    Raises:
        SertoneError: `not_a_bundle`, `other_format`, `bad_bundle`.
    """
    if not is_bundle(folder):
        raise SertoneError("not_a_bundle", f"no {MARKER} in {folder}", "a folder that `sertone export` wrote")
    said = read_json(folder / MARKER, "bad_bundle")
    if said.get("format") not in (FORMAT, FORMAT_WITHOUT_PROBE):
        found = said.get("format")
        raise SertoneError(
            "other_format", f"{folder} has format {found}", f"format {FORMAT}", "export the model again"
        )
    if wrong := find_misfits(said, FIELDS) or [name for name, sound in _SOUND.items() if not sound(said)]:
        raise _damaged(folder, f"{MARKER} has no sound {', '.join(wrong[:5])}")
    for name, digest in said["files"].items():
        if Path(name).name != name or not (folder / name).is_file():
            raise _damaged(folder, f"no {name}")
        if file_hash(folder / name) != digest:
            raise _damaged(folder, f"{name} is not what was exported")
    if strange := [
        name for name in list_external_files(folder / GRAPH, "bad_bundle") if name not in said["files"]
    ]:
        raise _damaged(folder, f"{GRAPH} refers to {strange[0]!r}, which has no hash in {MARKER}")
    return said


def _needed(said: dict[str, Any]) -> set[str]:
    """Return the files that a bundle cannot do without."""
    optional = {TOKENIZER: said["reads"], PROBE: "probe" in said}
    return {GRAPH, *(name for name, needed in optional.items() if needed)}


def _damaged(folder: Path, found: str) -> SertoneError:
    return SertoneError("bad_bundle", f"{folder}: {found}", "an intact bundle", "export or fetch it again")


@dataclass(frozen=True)
class BundleSettings:
    """How a bundle runs.

    Attributes:
        device: `cuda` where onnxruntime-gpu is installed.
        threads: of one recording's arithmetic; None: one per core.
    """

    device: Device = "cpu"
    threads: int | None = None


class Bundle:
    """A bundle that is ready to run: a `runtime.answering.Model`.

    Args:
        folder: what `sertone export` wrote.
        settings: how it runs.

    Attributes:
        folder: as given.
        settings: as given.
        about: what `bundle.json` holds.

    Raises:
        SertoneError: `not_a_bundle`, `other_format`, `bad_bundle`, `no_device`; `wrong_arithmetic` where
            this machine computes something else; `missing_extra` where a model reads and `tokenizers` is
            not installed.
    """

    def __init__(self, folder: str | Path, settings: BundleSettings | None = None) -> None:
        self.folder, self.metadata = Path(folder), read_metadata(Path(folder))
        self.settings = settings or BundleSettings()
        self.classes: list[str] = self.metadata["classes"]
        stated = self.metadata["scales"].items()
        self.scales = {name: Scale(**scale) if scale else None for name, scale in stated}
        self.uses_audio: bool = self.metadata["hears"]
        self.uses_text: bool = self.metadata["reads"]
        self.min_samples: int = self.metadata["min_samples"]
        self.max_seconds: float = self.metadata["max_seconds"]
        self.threshold: float | None = self.metadata["calibration"]["threshold"]
        self.card: dict[str, Any] = self.metadata["card"]
        self.licences: list[dict[str, Any]] = self.metadata["licences"]
        self._tokenizer = _tokenizer(self.folder / TOKENIZER) if self.uses_text else None
        self._session = _session(self.folder, self.settings)
        self._one_by_one = self.metadata["precision"] == "int8"
        self._require_shapes()
        require_correct_arithmetic(self, self.folder, self.metadata.get("probe"))

    def __reduce__(self) -> tuple:
        """Pickle the path: where it is unpickled, the bundle is loaded and proven again."""
        return _reopened, (self.folder.absolute(), self.settings)

    def truncates(self, text: str) -> bool:
        """Whether a text is longer than it reads."""
        return bool(self._tokenizer and self._tokenizer.encode(text).overflowing)

    def outputs(self, waveforms: np.ndarray, text: str | None = None) -> Outputs:
        """Answers recordings of one length (B, N); a text only of a single one."""
        if self._one_by_one and len(waveforms) > 1:  # or else they would share the scales of their numbers
            rows = [self.outputs(row[None], text) for row in waveforms]
            probabilities, ratings = ([row.probabilities for row in rows], [row.ratings for row in rows])
            return Outputs(np.concatenate(probabilities), np.concatenate(ratings))
        given: dict[str, np.ndarray] = (
            {"waveforms": np.asarray(waveforms, np.float32)} if self.uses_audio else {}
        )
        if self.uses_text:
            given["tokens"], given["counts"] = self._tokens(text, len(waveforms))
        options = _giving_back() if waveforms.size > KEPT_SAMPLES else None
        try:
            probabilities, ratings = self._session.run(["probabilities", "ratings"], given, options)
        except Exception as error:  # onnxruntime has a class of its own for every kind of failure
            raise _not_answered(error) from None
        return Outputs(np.asarray(probabilities), np.asarray(ratings))

    def _tokens(self, text: str | None, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (B, S) and how many count, (B,)."""
        ids: Sequence[int] = self._tokenizer.encode(text).ids if text and self._tokenizer else []
        return np.asarray([ids or [0]] * rows, np.int64), np.full(rows, len(ids), np.int64)

    def _require_shapes(self) -> None:
        """Refuses labels that do not fit the graph."""
        last = {output.name: output.shape[-1] for output in self._session.get_outputs()}
        expected = {"probabilities": len(self.classes), "ratings": len(self.scales)}
        if last != expected:
            raise _damaged(self.folder, f"the graph has {last} outputs, the labels are {expected}")


@lru_cache(maxsize=1)
def _reopened(folder: Path, settings: BundleSettings) -> Bundle:
    """Return a bundle that was pickled, once per process; whoever pickled it has seen the warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Bundle(folder, settings)


def _session(folder: Path, settings: BundleSettings) -> "InferenceSession":
    """ONNX Runtime on the graph. It does not plan memory for every length it meets: that only grows."""
    import onnxruntime

    if settings.device not in PROVIDERS:
        raise SertoneError("no_device", f"device {settings.device!r}", " or ".join(PROVIDERS))
    if PROVIDERS[settings.device] not in onnxruntime.get_available_providers():
        raise _no_device(settings, "which this onnxruntime does not know")
    options = onnxruntime.SessionOptions()
    options.enable_mem_pattern, options.log_severity_level = False, 3
    options.intra_op_num_threads = settings.threads or 0
    # Threads that wait for work by spinning take the cores that decode the next recording.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = [PROVIDERS[settings.device]]
    try:
        session = onnxruntime.InferenceSession(
            folder / GRAPH, options, providers=providers, enable_fallback=0
        )
    except Exception as error:  # onnxruntime has a class of its own for every kind of bad graph
        raise _damaged(folder, f"{GRAPH}: {first_line(error)}") from None
    if providers[0] not in session.get_providers():  # it takes the CPU and only logs it
        raise _no_device(settings, "which cannot be used here")
    return session


def _no_device(settings: BundleSettings, found: str) -> SertoneError:
    way_out = "pip install onnxruntime-gpu instead of onnxruntime, with the CUDA that it names"
    return SertoneError("no_device", f"device {settings.device!r}, {found}", "cpu", way_out)


def _not_answered(error: Exception) -> SertoneError:
    if is_out_of_memory(error):
        return build_memory_error(error)
    found = f"the graph cannot answer: {first_line(error)}"
    return AudioError("graph_failed", found, "a graph that answers", "export or fetch the bundle again")


def _giving_back() -> Any:
    """After which ONNX Runtime gives back the memory of a run."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def _tokenizer(path: Path) -> Any:
    text = read_text(path, "bad_bundle")
    try:
        return parse_tokenizer(text)
    except ImportError:
        found = "a model that reads text"
        raise SertoneError("missing_extra", found, "tokenizers", install_command("text")) from None
    except ValueError as error:
        raise _damaged(path.parent, f"{path.name}: {error}") from None

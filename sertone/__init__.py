"""Sertone: speech emotion recognition with results you can trust.

    import sertone

    sertone.load("runs/demo").predict("talk.wav")
    sertone.crossval("recipes/demo.yaml", out="runs/demo")

Importing this package does not import torch; functions import it when they need it.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sertone.version import __version__ as __version__

if TYPE_CHECKING:
    from sertone.analysis.audit.audit import AuditSettings, audit
    from sertone.analysis.evaluate import Evaluation
    from sertone.errors import SertoneError
    from sertone.recipe import Recipe
    from sertone.runtime.predictor import Predictor
    from sertone.runtime.timeline.plan import TimelineSettings
    from sertone.schema import Prediction

# On import, ONNX Runtime opens a database in the user's cache folder and looks up the host of a telemetry
# collector, unless this variable is set before, whichever module imports it. Child processes inherit it.
os.environ |= {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

MOST_THREADS = 1024
"""Most threads for one recording: more than machines have cores, and more than most allow one process."""
__all__ = [
    "AuditSettings", "Prediction", "SertoneError", "TimelineSettings",
    "ablate", "audit", "choose", "compare", "crossval", "distill", "evaluate", "layers", "load", "train",
]  # fmt: skip
_LAZY = {
    "AuditSettings": "analysis.audit.audit",
    "Prediction": "schema",
    "SertoneError": "errors",
    "TimelineSettings": "runtime.timeline.plan",
    "audit": "analysis.audit.audit",
}
"""Name -> module that is imported on first use."""


def __getattr__(name: str) -> Any:
    """Import a name of `_LAZY`."""
    if name not in _LAZY:
        raise AttributeError(f"module 'sertone' has no attribute {name!r}")
    return getattr(import_module(f"sertone.{_LAZY[name]}"), name)


def load(
    path: str | Path | None = None,
    *,
    classes: Mapping[str, str] | str | None = None,
    min_confidence: float | None = None,
    dimensions: Literal["corpus", "unit"] = "corpus",
    device: Literal["cpu", "cuda"] = "cpu",
    threads: int | None = None,
    any_sound: bool = False,
) -> "Predictor":
    """Load a model, and warn if its licences exclude commercial use (`licences.LicenceWarning`).

    Args:
        path: a bundle, which needs no torch; a run, one of its folds, or a checkpoint folder; OWNER/NAME of a
            bundle or checkpoint on the Hugging Face hub; or the folder of a Hugging Face
            audio-classification model (`hf:OWNER/NAME` on the hub), which is exported once into
            `~/.cache/sertone/bundles`. None: the model that comes with the package.
        classes: class of the model -> wanted class. Probabilities of merged classes are added; those of
            dropped classes are divided among the others. Or a text such as `angry,sad` or
            `happy=positive,sad=negative`.
        min_confidence: predictions below this confidence are unsure; None: the calibrated threshold.
        dimensions: the scale of dimensions: that of the `corpus`, or 0 to 1 (`unit`).
        device: `cuda` requires a GPU, and onnxruntime-gpu for a bundle.
        threads: threads for one recording; None: one per core.
        any_sound: label sounds that are no speech, too. By default noise, music or silence get no label.

    Raises:
        SertoneError: if there is no model, it is damaged, or it does not know a class.
    """
    from sertone import licences
    from sertone.errors import SertoneError
    from sertone.export.bundle_cache import resolve_model_folder
    from sertone.files import parse_map
    from sertone.runtime.answering import AnswerFormat
    from sertone.runtime.bundle import Bundle, BundleSettings, is_bundle
    from sertone.runtime.predictor import Predictor
    from sertone.sharing import model_folder as folders

    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise SertoneError("bad_threads", f"{threads} threads", f"1 to {MOST_THREADS}")
    folder = resolve_model_folder(path)
    if is_bundle(folder):
        model = Bundle(folder, BundleSettings(device, threads))
    else:
        # Name a missing file before importing torch, which may not be installed.
        folders.find_checkpoints(folder if path is None else path)
        from sertone.training.testing.trained import TorchModel

        model = TorchModel(folder, device=device, threads=threads)
    licences.warn_if_restricted(model.licences)
    mapping = parse_map(classes, "classes") if isinstance(classes, str) else classes
    return Predictor(AnswerFormat(model, mapping, min_confidence, dimensions, any_sound))


def crossval(
    recipe: "str | Path | Mapping[str, Any] | Recipe",
    out: str | Path,
    overrides: Iterable[str] = (),
    *,
    jobs: int | None = None,
    fresh: bool = False,
) -> Path:
    """Cross-validate a recipe; see `training.runs.crossval.cross_validate`.

    Args:
        recipe: YAML file, the mapping that such a file holds, or a `sertone.recipe.Recipe`.
        out: run folder; an interrupted run is resumed.
        overrides: settings such as `train.seed=1`.
        jobs: number of folds trained in parallel processes; None: one per GPU, or one per core. With 1 the
            folds are trained in this process.
        fresh: delete the contents of the run folder, and start again.

    Returns:
        the run folder.
    """
    from sertone import recipe as recipes
    from sertone.training.runs.crossval import cross_validate

    return cross_validate(recipes.resolve(recipe, overrides), out, jobs=jobs, fresh=fresh)


def train(
    recipe: "str | Path | Mapping[str, Any] | Recipe",
    out: str | Path,
    overrides: Iterable[str] = (),
    *,
    fresh: bool = False,
) -> Path:
    """Train one model on the whole corpus of a recipe; see `training.runs.train`.

    Args:
        recipe: YAML file, the mapping that such a file holds, or a `sertone.recipe.Recipe`.
        out: run folder.
        overrides: settings such as `train.seed=1`.
        fresh: delete the contents of the run folder, and start again.

    Returns:
        the checkpoint folder.
    """
    from sertone import recipe as recipes
    from sertone.training.runs import train

    return train.train(recipes.resolve(recipe, overrides), out, fresh=fresh)


def distill(recipe: str | Path, out: str | Path, overrides: Iterable[str] = ()) -> Path:
    """Distil a smaller encoder by a recipe file; see `training.distill.distill`.

    Args:
        recipe: YAML file.
        out: folder to write; an interrupted distillation is resumed.
        overrides: settings such as `train.seed=1`.

    Returns:
        the encoder's folder.
    """
    from sertone.training.distill import distill_recipe
    from sertone.training.distill.distill import distill as run

    return run(distill_recipe.load(recipe, overrides), out)


def ablate(study: str | Path, out: str | Path, overrides: Iterable[str] = ()) -> Path:
    """Run a study file; see `analysis.study.ablate`.

    Args:
        study: YAML file.
        out: folder of the study; an interrupted study is resumed.
        overrides: settings such as `data.root=IEMOCAP`, for all runs of the study.

    Returns:
        the study's folder.
    """
    from sertone.analysis.study.ablate import ablate as run

    return run(study, out, overrides)


def choose(study: str | Path, out: str | Path, overrides: Iterable[str] = ()) -> Path:
    """Choose among the settings of a study inside the training speakers of every fold.

    See `analysis.study.choose`.

    Args:
        study: YAML file.
        out: folder to write; an interrupted choice is resumed.
        overrides: settings such as `data.root=IEMOCAP`, for all runs of the study.

    Returns:
        the folder, with `choice.json` and the `recipe.yaml` of the best settings.
    """
    from sertone.analysis.study.choose import choose as run

    return run(study, out, overrides)


def compare(runs: Sequence[str | Path], *, force: bool = False) -> dict[str, Any]:
    """Compare runs or audits with the first one; see `analysis.compare`, `analysis.audit.compare_audits`.

    Args:
        runs: run folders, or folders of audits.
        force: compare runs even if their protocols differ.
    """
    from sertone.analysis.audit.compare_audits import compare_audits, is_audit
    from sertone.analysis.compare import compare as examine

    if runs and all(is_audit(Path(run)) for run in runs):
        return compare_audits([Path(run) for run in runs])
    return examine(runs, force=force)


def evaluate(
    model: str | Path | None,
    corpus: "str | Mapping[str, Any] | Recipe",
    root: str | Path | None = None,
    out: str | Path | None = None,
    *,
    classes: Mapping[str, str] | None = None,
    emotions: Mapping[str, str] | None = None,
    text: str | Mapping[str, Any] | None = None,
    scales: Mapping[str, tuple[float, float]] | None = None,
    only: Mapping[str, Sequence[str]] | None = None,
    reader: Mapping[str, Any] | None = None,
    fresh: bool = False,
) -> "Evaluation":
    """Score a model on a corpus; see `analysis.evaluate.evaluate`.

    Args:
        model: as for `load`; None: the model that comes with the package.
        corpus: name of the corpus; `manifest` for a table of your own. Or a recipe, or its `data` part, which
            also gives root, text, scales, `only`, reader and the longest utterance.
        root: folder of the corpus, or the manifest file.
        out: folder to write.
        classes: class of the model -> class to report.
        emotions: emotion of the corpus -> class of the model.
        text: source of the text for models that use text, as `data.text` of a recipe; None: the corpus.
        scales: rating of the corpus -> lowest and highest value.
        only: the part of the corpus to use, as `{"partition": ["Test2"]}`.
        reader: options of the reader, as `{"columns": {"path": "clip"}}`.
        fresh: replace another evaluation in the folder.

    Returns:
        scores, intervals, warnings and the folder.

    Raises:
        TypeError: if `out`, or `root` for a corpus name, is missing; if an argument repeats the recipe.
        SertoneError: as `analysis.evaluate.evaluate`.
    """
    from sertone.analysis.evaluate import evaluate as run
    from sertone.recipe import resolve_data

    if out is None:
        raise TypeError("evaluate() needs out, the folder to write")
    data = resolve_data(corpus, root=root, text=text, scales=scales, only=only, reader=reader)
    return run(model, data, out, classes=classes, emotions=emotions, fresh=fresh)


def layers(
    recipe: str | Path,
    out: str | Path,
    overrides: Iterable[str] = (),
    *,
    targets: Sequence[str] | None = None,
    encoder: Literal["audio", "text"] = "audio",
    pooling: Literal["mean", "statistics"] = "mean",
    weights: str | Path | None = None,
) -> dict[str, Any]:
    """Probe which layer of a recipe's encoder carries which information; see `analysis.layers`.

    Args:
        recipe: YAML file.
        out: folder to write; an interrupted analysis is resumed.
        overrides: settings such as `data.root=IEMOCAP`.
        targets: such as `arousal`, `emotion`, `speaker`; None: all targets with labels in the corpus.
        encoder: the audio encoder or the text encoder.
        pooling: pooling over the frames of an utterance.
        weights: a run whose models have learned weights for their layers.

    Returns:
        the content of `layers.json`.
    """
    from sertone import recipe as recipes
    from sertone.analysis.layers.probe_layers import probe_layers as examine

    read = recipes.load(recipe, overrides)
    return examine(read, out, target_names=targets, modality=encoder, pooling=pooling, weights=weights)

"""Sertone: speech emotion recognition that one can believe.

    import sertone

    sertone.load("runs/demo").predict("talk.wav")
    sertone.crossval("recipes/demo.yaml", out="runs/demo")

Importing this package imports no torch; the functions do, when they need it.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from sertone.analysis.evaluate import Evaluation
    from sertone.errors import SertoneError
    from sertone.recipe import Recipe
    from sertone.runtime.predictor import Predictor
    from sertone.runtime.timeline.plan import TimelineSettings
    from sertone.schema import Prediction

# When ONNX Runtime is imported, it opens a database in the user's cache folder and looks up a collector's
# host, unless this is set before, whoever imports it. Child processes inherit it.
os.environ |= {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

__version__ = "0.1.0"
MOST_THREADS = 1024
"""For one recording: more than any machine has cores for, and than most let a process have."""
__all__ = [
    "Prediction", "SertoneError", "TimelineSettings",
    "ablate", "choose", "compare", "crossval", "distill", "evaluate", "layers", "load", "train",
]  # fmt: skip
_TYPES = {
    "Prediction": "schema",
    "SertoneError": "errors",
    "TimelineSettings": "runtime.timeline.plan",
}


def __getattr__(name: str) -> Any:
    """Import the types that the functions take and return when they are first asked for."""
    if name not in _TYPES:
        raise AttributeError(f"module 'sertone' has no attribute {name!r}")
    return getattr(import_module(f"sertone.{_TYPES[name]}"), name)


def load(
    path: str | Path | None = None,
    *,
    classes: Mapping[str, str] | str | None = None,
    min_confidence: float | None = None,
    dimensions: Literal["corpus", "unit"] = "corpus",
    device: Literal["cpu", "cuda"] = "cpu",
    threads: int | None = None,
) -> "Predictor":
    """Loads a model, and warns where it is not for commercial use (`licences.LicenceWarning`).

    Args:
        path: a bundle, which needs no torch; a run, one fold of it, or a checkpoint folder; OWNER/NAME
            on the Hugging Face hub of a bundle or a checkpoint; or the folder of a Hugging Face
            audio-classification model (`hf:OWNER/NAME` on the hub), which is exported once into
            `~/.cache/sertone/bundles`. None: the model that comes with the package.
        classes: class of the model -> class wanted; what is merged is added, what is left out is divided
            among the rest. Or as a text, such as `angry,sad` or `happy=positive,sad=negative`.
        min_confidence: below it an answer is unsure; None: as the model was calibrated.
        dimensions: on the scale of the `corpus`, or from 0 to 1 (`unit`).
        device: `cuda` needs a card, and onnxruntime-gpu for a bundle.
        threads: for one recording; None: one per core.

    Raises:
        SertoneError: where there is none, it is damaged, or does not know a class.
    """
    from sertone import licences
    from sertone.errors import SertoneError
    from sertone.export.bundle_cache import resolve_model_folder
    from sertone.labels import parse_map
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
        folders.find_checkpoints(
            folder if path is None else path
        )  # says what is missing before torch is asked for
        from sertone.training.testing.trained import TorchModel

        model = TorchModel(folder, device=device, threads=threads)
    licences.warn_if_restricted(model.licences)
    mapping = parse_map(classes, "classes") if isinstance(classes, str) else classes
    return Predictor(model, AnswerFormat(mapping, min_confidence, dimensions))


def crossval(
    recipe: "str | Path | Mapping[str, Any] | Recipe",
    out: str | Path,
    overrides: Iterable[str] = (),
    *,
    jobs: int | None = None,
    fresh: bool = False,
) -> Path:
    """Cross-validate a recipe; see `training.crossval.cross_validate`.

    Args:
        recipe: YAML file, the mapping that such a file holds, or a `sertone.recipe.Recipe`.
        out: run folder; an interrupted run goes on.
        overrides: settings such as `train.seed=1`.
        jobs: folds at a time, in processes of their own; None: one per GPU, or one per core. With 1 the
            folds are trained in this process.
        fresh: throw away what is in the folder, and begin again.

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
        fresh: throw away what is in the folder, and begin again.

    Returns:
        the checkpoint folder.
    """
    from sertone import recipe as recipes
    from sertone.training.runs import train

    return train.train(recipes.resolve(recipe, overrides), out, fresh=fresh)


def distill(recipe: str | Path, out: str | Path, overrides: Iterable[str] = ()) -> Path:
    """Distils a smaller encoder by a recipe file; see `training.distill.distill`.

    Args:
        recipe: YAML file.
        out: folder to write; an interrupted distillation goes on.
        overrides: settings such as `train.seed=1`.

    Returns:
        the encoder's folder.
    """
    from sertone.training.distill import distill_recipe
    from sertone.training.distill.distill import distill as run

    return run(distill_recipe.load(recipe, overrides), out)


def ablate(study: str | Path, out: str | Path, overrides: Iterable[str] = ()) -> Path:
    """Runs a study file; see `analysis.ablate.ablate`.

    Args:
        study: YAML file.
        out: folder of the study; an interrupted one goes on.
        overrides: settings such as `data.root=IEMOCAP`, changed for all of it.

    Returns:
        the study's folder.
    """
    from sertone.analysis.study.ablate import ablate as run

    return run(study, out, overrides)


def choose(study: str | Path, out: str | Path, overrides: Iterable[str] = ()) -> Path:
    """Chooses among the settings of a study inside every fold; see `analysis.choose.choose`.

    Args:
        study: YAML file.
        out: folder to write; what was interrupted goes on.
        overrides: settings such as `data.root=IEMOCAP`, changed for all of it.

    Returns:
        the folder, with `choice.json` and the `recipe.yaml` of the best settings.
    """
    from sertone.analysis.study.choose import choose as run

    return run(study, out, overrides)


def compare(runs: Sequence[str | Path], *, force: bool = False) -> dict[str, Any]:
    """Compares runs with the first one; see `analysis.compare.compare`.

    Args:
        runs: run folders.
        force: although their protocols differ.
    """
    from sertone.analysis.compare import compare as examine

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
        model: as of `load`; None: the model that comes with the package.
        corpus: name of the corpus; `manifest` for a table of your own. Or a recipe, or what its part `data`
            holds, which says root, text, scales, `only`, reader and the longest utterance as well.
        root: its folder, or the manifest's file.
        out: folder to write.
        classes: class of the model -> class to report.
        emotions: emotion of the corpus -> class of the model.
        text: where a model that reads has it from, as `data.text` of a recipe; None: the corpus.
        scales: rating of the corpus -> lowest and highest value.
        only: what of the corpus to take, as `{"partition": ["Test2"]}`.
        reader: how it is read, as `{"columns": {"path": "clip"}}`.
        fresh: replace another evaluation that is in the folder.

    Returns:
        scores, intervals, warnings and the folder.

    Raises:
        TypeError: without `out`, or without `root` where the corpus is a name; with what a recipe says.
        SertoneError: as `analysis.evaluate.evaluate`.
    """
    from sertone.analysis.evaluate import evaluate as examine
    from sertone.recipe import resolve_data

    settings: dict[str, Any] = {"text": text, "scales": scales, "only": only, "reader": reader}
    if isinstance(corpus, str):
        settings["text"] = "corpus" if text is None else text
    else:
        if beside := [name for name, value in {"root": root, **settings}.items() if value is not None]:
            raise TypeError(f"evaluate() takes {', '.join(beside)} from the recipe: change it there")
        data = resolve_data(corpus)
        corpus, root = data.corpus, data.root
        settings = {"text": data.text.model_dump(), "scales": data.scales, "only": data.only}
        settings["reader"] = data.reader_options
        settings["limit"] = {"max_seconds": data.max_seconds, "longer": data.longer}
    if root is None or out is None:
        raise TypeError("evaluate() needs root, the corpus, and out, the folder to write")
    return examine(model, corpus, root, out, classes=classes, emotions=emotions, fresh=fresh, **settings)


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
    """Tells which layer of a recipe's encoder knows what; see `analysis.layers.layers`.

    Args:
        recipe: YAML file.
        out: folder to write; what was interrupted goes on.
        overrides: settings such as `data.root=IEMOCAP`.
        targets: such as `arousal`, `emotion`, `speaker`; None: all that the corpus has labels for.
        encoder: that of the audio, or that of the text.
        pooling: of an utterance's frames.
        weights: a run whose models have learnt weights for their layers.

    Returns:
        what `layers.json` holds.
    """
    from sertone import recipe as recipes
    from sertone.analysis.layers.probe_layers import probe_layers as examine

    read = recipes.load(recipe, overrides)
    return examine(read, out, target_names=targets, modality=encoder, pooling=pooling, weights=weights)

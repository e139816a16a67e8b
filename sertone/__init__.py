"""Sertone: speech emotion recognition that one can believe.

    import sertone

    sertone.load("runs/demo").predict("talk.wav")
    sertone.crossval("recipes/demo.yaml", out="runs/demo")

Importing this package imports no torch; the functions do, when they need it.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sertone.training.predict import Predictor

__version__ = "0.1.0"
__all__ = ["crossval", "load", "train"]


def load(path: str | Path) -> "Predictor":
    """Loads a trained model, and warns where it is not for commercial use (`licences.LicenceWarning`).

    Args:
        path: a run, one fold of it, a checkpoint folder, or OWNER/NAME on the Hugging Face hub.

    Raises:
        SertoneError: where there is none, or it is damaged.
    """
    from sertone import licences
    from sertone.training.predict import Predictor

    predictor = Predictor(path)
    licences.warn(predictor.licences)
    return predictor


def crossval(recipe: str | Path, out: str | Path, overrides: Iterable[str] = ()) -> Path:
    """Cross-validates a recipe file; see `training.crossval.cross_validate`.

    Args:
        recipe: YAML file.
        out: run folder; an interrupted run goes on.
        overrides: settings such as `train.seed=1`.

    Returns:
        the run folder.
    """
    from sertone import recipe as recipes
    from sertone.training.crossval import cross_validate

    return cross_validate(recipes.load(recipe, overrides), out)


def train(recipe: str | Path, out: str | Path, overrides: Iterable[str] = ()) -> Path:
    """Trains one model on the whole corpus of a recipe; see `training.single.train`.

    Args:
        recipe: YAML file.
        out: run folder.
        overrides: settings such as `train.seed=1`.

    Returns:
        the checkpoint folder.
    """
    from sertone import recipe as recipes
    from sertone.training import single

    return single.train(recipes.load(recipe, overrides), out)

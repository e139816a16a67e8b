"""One model from the whole corpus, to be used rather than scored."""

import shutil
from pathlib import Path

from sertone import recipe as recipes
from sertone.recipe import Recipe
from sertone.training.fit import distributed
from sertone.training.experiment.experiment import prepare
from sertone.training.runs.folds import train_fold, prepare_data
from sertone.training.fit.progress import RunProgress
from sertone.training.runs.run_folder import claim


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    force: bool = False,
    fresh: bool = False,
    quiet: bool = False,
) -> Path:
    """Trains on every utterance of the corpus and writes `out/checkpoint`.

    There is no test side, so there is no score: cross-validate the same recipe for that. With
    `protocol.validation: speaker` the last speaker is kept out to choose the epoch.

    Args:
        recipe: the experiment.
        out: run folder.
        force: go on although the recipe has changed.
        fresh: throw away what is in the folder.
        quiet: no progress lines.

    Returns:
        the checkpoint folder.

    Raises:
        SertoneError: as `prepare`, `gather` and the training.
    """
    distributed.init(recipe.train.device)
    out, say = Path(out), RunProgress(0, quiet).say
    experiment = prepare(recipe, everything=True, say=say)
    with claim(out, recipes.dump(recipe), experiment.card, force=force, fresh=fresh, say=say):
        with RunProgress(sum(recipe.train.epochs), quiet) as progress:
            train_fold(experiment, 0, out, prepare_data(experiment, progress), progress)
        if distributed.is_first():
            shutil.rmtree(out / "resume")
    return out / "checkpoint"

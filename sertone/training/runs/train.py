"""One model trained on the whole corpus, to be used rather than scored."""

import shutil
from pathlib import Path

from sertone import recipe as recipes
from sertone.recipe import Recipe
from sertone.training.experiment.experiment import prepare
from sertone.training.fit import distributed
from sertone.training.fit.progress import RunProgress
from sertone.training.runs.folds import prepare_data, train_fold
from sertone.training.runs.run_folder import claim


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    force: bool = False,
    fresh: bool = False,
    quiet: bool = False,
) -> Path:
    """Train on every utterance of the corpus and write `out/checkpoint`.

    There is no test set, so there is no score: cross-validate the same recipe for that. With
    `protocol.validation: speaker` the last speaker is kept out of training to choose the epoch.

    Args:
        recipe: the experiment.
        out: run folder.
        force: go on although the recipe has changed.
        fresh: throw away what is in the folder.
        quiet: no progress lines.

    Returns:
        the checkpoint folder.

    Raises:
        SertoneError: as `prepare`, `prepare_data` and the training.
    """
    distributed.init(recipe.train.device)
    out = Path(out)
    say = RunProgress(0, quiet).say
    experiment = prepare(recipe, everything=True, say=say)
    with claim(out, recipes.dump(recipe), experiment.card, force=force, fresh=fresh, say=say):
        with RunProgress(sum(recipe.train.epochs), quiet) as progress:
            train_fold(experiment, 0, out, prepare_data(experiment, progress), progress)
        # The checkpoint replaces the saved training state; without any epoch there is none.
        if distributed.is_first() and (out / "resume").exists():
            shutil.rmtree(out / "resume")
    return out / "checkpoint"

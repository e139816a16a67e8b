"""A demonstration on synthetic speech: corpus, cross-validation, report, one prediction."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sertone import corpora
from sertone import recipe as recipes
from sertone.runtime.answering import AnswerFormat
from sertone.runtime.predictor import Predictor
from sertone.schema import Prediction
from sertone.training.runs.crossval import cross_validate
from sertone.training.testing.trained import TorchModel
from sertone.utils import spreadsheet


@dataclass(frozen=True)
class DemoResult:
    """The files and results of the demo.

    Attributes:
        corpus: folder of the recordings.
        run: run folder.
        scores: pooled, by task, with their `intervals`.
        true_class: true class of the recording predicted.
        prediction: prediction by the model that was not trained on its speaker.
        model: that model's folder.
    """

    corpus: Path
    run: Path
    scores: dict
    true_class: str
    prediction: Prediction
    model: Path


def demo(folder: Path, overrides: Iterable[str] = (), *, fresh: bool = False) -> DemoResult:
    """Write `folder/corpora/demo` and `folder/runs/demo`; what is already there is kept.

    Args:
        folder: created if it does not exist.
        overrides: settings of the recipe such as `train.seed=1`.
        fresh: train again although there is a run.

    Raises:
        SertoneError: `missing_extra` without espeakng-loader.
    """
    corpus, run = folder / "corpora" / "demo", folder / "runs" / "demo"
    if not (corpus / "metadata.csv").is_file():  # the table is written last
        corpora.load_sheet("demo").fake(corpus)
    recipe = recipes.load(recipes.find_shipped_recipe("demo"), [f"data.root={corpus}", *overrides])
    cross_validate(recipe, run, fresh=fresh)
    row = spreadsheet.read_rows(run / "predictions.csv")[0]
    model = run / f"fold_{row['fold']}"  # the recording is in the test set of this fold
    prediction = Predictor(AnswerFormat(TorchModel(model))).predict(corpus / f"{row['id']}.wav")
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    return DemoResult(corpus, run, results["pooled"], row["target"], prediction, model)

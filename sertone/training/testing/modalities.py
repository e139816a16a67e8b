"""What a model that hears and reads is worth when one of the two is missing, or the text is an ASR's.

The same model answers the same test utterances, those that have text, under every condition. Errors of an ASR
are simulated: words are replaced at a given rate by others of the training side (`transcripts.noise`).
"""

from collections.abc import Sequence
from dataclasses import replace

from sertone.labels import has_words
from sertone.schema import Utterance
from sertone.training.experiment.experiment import Experiment
from sertone.training.fit.inference import predict_utterances
from sertone.training.fit.trainer import Trainer
from sertone.training.testing.fold_test import build_predictions
from sertone.transcripts.noise import add_word_errors, list_words

WITHHELD = {"audio and text": "", "audio alone": "text", "text alone": "audio"}
"""Condition -> what is withheld."""
READING = {"text": ""}
"""The same of a model that does not hear."""


def rows_by_condition(trainer: Trainer, experiment: Experiment, number: int) -> dict[str, list[dict]]:
    """Answers under every condition, as rows of predictions.csv; empty where no test utterance has text.

    Args:
        trainer: whose model is trained and on its device.
        experiment: of which it is a fold.
        number: of the fold.
    """
    spoken = [u for u in experiment.select_labelled(experiment.folds[number].test) if has_words(u.text)]
    if not spoken:
        return {}
    conditions = WITHHELD if trainer.model.encoder.width else READING
    found = {name: _rows(trainer, experiment, spoken, number, what) for name, what in conditions.items()}
    words = list_words(u.text for u in trainer.fold.train if u.text)
    rates = experiment.recipe.data.text.error_rates if len(words) > 1 else []
    for rate in rates:
        seed = trainer.config.seed
        heard = [replace(u, text=add_word_errors(u.text or "", rate, words, seed)) for u in spoken]
        found[f"{next(iter(conditions))} of {rate:.0%} WER"] = _rows(trainer, experiment, heard, number, "")
    return found


def _rows(
    trainer: Trainer, experiment: Experiment, test: Sequence[Utterance], number: int, withheld: str
) -> list[dict]:
    answers = predict_utterances(
        trainer.model, trainer.vocabulary, test, trainer.loader, trainer.fabric, withheld
    )
    rows = build_predictions(trainer, experiment, test, answers, number)["rows"]
    return [{key: value for key, value in row.items() if not key.startswith("p_")} for row in rows]

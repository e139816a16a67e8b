"""What a model is, from its checkpoint, or would be, from its recipe: for `sertone info`."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sertone import licences, models
from sertone import recipe as recipes
from sertone.analysis.cost import HUBERT_LARGE, count_parameters, measure_cost
from sertone.audio import SAMPLING_RATE
from sertone.catalogue import is_recipe
from sertone.models.contract import EmotionModel
from sertone.nn.vocabulary import Vocabulary
from sertone.sharing.model_folder import find_checkpoints
from sertone.training.experiment.experiment import prepare
from sertone.training.fit import checkpoint
from sertone.training.runs.results import describe_encoders


def describe(source: str | Path, overrides: Iterable[str] = (), *, measure: bool = False) -> dict[str, Any]:
    """What there is to say about a model.

    Args:
        source: a checkpoint, a fold, a run (its first fold), OWNER/NAME on the hub; or a recipe, whose
            corpus has to be there.
        overrides: settings of the recipe.
        measure: speed and memory as well, see `cost`.

    Returns:
        `model`, `encoders`, `answers` (task -> classes or scale), `hears`, `reads`, `min_samples`, `corpus`,
        `licences`, `cost`.

    Raises:
        SertoneError: where there is no such model, or it is damaged; as `prepare`.
    """
    if is_recipe(source):
        return _of_recipe(source, overrides, measure)
    model, vocabulary, about = checkpoint.load_model(find_checkpoints(source)[0])
    return _described(model, about["model"], vocabulary, about["card"]["corpus"]["title"], measure) | {
        "licences": about["licences"]
    }


def _of_recipe(path: str | Path, overrides: Iterable[str], measure: bool) -> dict[str, Any]:
    experiment = prepare(recipes.load(path, overrides), everything=True)
    vocabulary, options = experiment.build_vocabulary(0), experiment.recipe.model
    model, title = models.build(options, vocabulary), experiment.card["corpus"]["title"]
    return _described(model, options, vocabulary, title, measure) | {"licences": experiment.ledger(0)}


def _described(
    model: EmotionModel, options: Mapping[str, Any], vocabulary: Vocabulary, corpus: str, measure: bool
) -> dict[str, Any]:
    return {
        "model": options["name"],
        "encoders": describe_encoders(dict(options)),
        "answers": {task: _answer(task, vocabulary) for task in model.config.predicted_tasks},
        "reads": model.text is not None,
        "hears": model.encoder.width > 0,
        "min_samples": model.encoder.min_samples,
        "corpus": corpus,
        "cost": measure_cost(options, vocabulary) if measure else count_parameters(model),
    }


def _answer(task: str, vocabulary: Vocabulary) -> Any:
    return asdict(vocabulary.ratings[task]) if task in vocabulary.ratings else vocabulary.classes[task]


def to_text(found: Mapping[str, Any]) -> str:
    """As lines for people."""
    spent = found["cost"]
    shortest = f"mono speech at 16 kHz, at least {1000 * found['min_samples'] / SAMPLING_RATE:.0f} ms"
    rows = {
        "model": f"{found['model']}, {found['encoders']}",
        "input": ", and ".join([shortest] * found["hears"] + ["text"] * found["reads"]),
        "answers": "; ".join(_answer_in_words(*item) for item in found["answers"].items()),
        "parameters": f"{format_millions(spent['total'])}, of which {format_millions(spent['trained'])} are trained: "
        f"{spent['share_of_hubert_large']:.1%} of HuBERT-large ({format_millions(HUBERT_LARGE)}, no convolutions)",
        "": ", ".join(_part_in_words(*item) for item in spent["parts"].items()),
        "speed": _speed_in_words(spent),
        "corpus": found["corpus"],
        "licences": "; ".join(
            f"{e['what']} {e['of']}: {licences.describe_licence(e)}" for e in found["licences"]
        ),
    }
    return "\n".join(f"{name:11} {text}" for name, text in rows.items() if text)


def format_millions(count: int) -> str:
    """`23.5 M`, with two digits at least."""
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e6:.2g} M"


def _answer_in_words(task: str, answer: Any) -> str:
    if isinstance(answer, dict):
        return f"{task} from {answer['low']:g} to {answer['high']:g} {answer['unit']}"
    return f"{task}: {', '.join(answer)}"


def _part_in_words(part: str, counts: Mapping[str, int]) -> str:
    return f"{part} {format_millions(counts['total'])} ({format_millions(counts['trained'])} trained)"


def _speed_in_words(spent: Mapping[str, Any]) -> str:
    if "real_time_factor" not in spent:
        return ""
    faster = f"{1 / spent['real_time_factor']:.0f} times faster than real time on one core"
    return f"{faster} (one clip of 5 s); {spent['memory_mb']:.0f} MB for weights and one answer"

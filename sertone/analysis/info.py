"""Description of a model for `sertone info`, from its checkpoint or from its recipe."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sertone import models
from sertone import recipe as recipes
from sertone.analysis.bundle_info import describe_input, describe_licences, format_rows
from sertone.analysis.cost import HUBERT_LARGE, count_parameters, measure_cost
from sertone.catalogue import is_recipe
from sertone.errors import SertoneError
from sertone.models.contract import EmotionModel
from sertone.nn.vocabulary import Vocabulary
from sertone.recipe.train_parts import LoraConfig
from sertone.sharing.model_folder import find_checkpoints
from sertone.training.experiment.experiment import prepare
from sertone.training.fit import checkpoint
from sertone.training.runs.results import describe_encoders


def describe(source: str | Path, overrides: Iterable[str] = (), *, measure: bool = False) -> dict[str, Any]:
    """Describe a model.

    Args:
        source: a checkpoint, a fold, a run (its first fold), OWNER/NAME on the hub; or a recipe, which needs
            its corpus.
        overrides: settings of the recipe.
        measure: true to measure speed and memory too, see `cost.measure_cost`.

    Returns:
        `model`, `encoders`, `answers` (task -> classes or scale), `hears`, `reads`, `min_samples`, `corpus`,
        `licences`, `cost`.

    Raises:
        SertoneError: where the model is missing or damaged; see `prepare`.
    """
    if is_recipe(source):
        return _describe_recipe(source, overrides, measure)
    # All folds of a run have the same architecture, so the first describes them all.
    model, vocabulary, about = checkpoint.load_model(find_checkpoints(source)[0])
    corpus = about["card"]["corpus"]["title"]
    adapters = _find_lora(about["card"])
    description = _describe_model(model, about["model"], vocabulary, corpus, adapters, measure)
    return description | {"licences": about["licences"]}


def _find_lora(card: Mapping[str, Any]) -> LoraConfig | None:
    """Return `train.lora` of a checkpoint's card; None also where the card has no such entry.

    Raises:
        SertoneError: `bad_weights`.
    """
    train = card.get("train")
    lora = train.get("lora") if isinstance(train, dict) else None
    try:
        return None if lora is None else LoraConfig.model_validate(lora)
    except ValidationError as error:
        problem = f"the card's train.lora: {error.errors()[0]['msg']}"
        raise SertoneError("bad_weights", problem, "the settings of an adapter") from None


def _describe_recipe(path: str | Path, overrides: Iterable[str], measure: bool) -> dict[str, Any]:
    experiment = prepare(recipes.load(path, overrides), everything=True)
    vocabulary = experiment.build_vocabulary(0)
    options = experiment.recipe.model
    model = models.build(options, vocabulary)
    corpus = experiment.card["corpus"]["title"]
    lora = experiment.recipe.train.lora
    description = _describe_model(model, options, vocabulary, corpus, lora, measure)
    return description | {"licences": experiment.ledger(0)}


def _describe_model(
    model: EmotionModel,
    options: Mapping[str, Any],
    vocabulary: Vocabulary,
    corpus: str,
    lora: LoraConfig | None,
    measure: bool,
) -> dict[str, Any]:
    cost = measure_cost(options, vocabulary, lora) if measure else count_parameters(model, lora)
    return {
        "model": options["name"],
        "encoders": describe_encoders(dict(options)),
        "answers": {task: _get_outputs(task, vocabulary) for task in model.config.main_tasks},
        "reads": model.text is not None,
        # A model without audio input has an encoder of width 0.
        "hears": model.encoder.width > 0,
        "min_samples": model.encoder.min_samples,
        "corpus": corpus,
        "cost": cost,
    }


def _get_outputs(task: str, vocabulary: Vocabulary) -> Any:
    """Return the classes of a task, or its scale as a JSON object."""
    return asdict(vocabulary.ratings[task]) if task in vocabulary.ratings else vocabulary.classes[task]


def to_text(description: Mapping[str, Any]) -> str:
    """Format the result of `describe` as lines for people."""
    costs = description["cost"]
    rows = {
        "model": f"{description['model']}, {description['encoders']}",
        "input": describe_input(description),
        "outputs": "; ".join(_describe_task(*item) for item in description["answers"].items()),
        "parameters": _describe_parameters(costs),
        "": ", ".join(_describe_part(*item) for item in costs["parts"].items()),
        "speed": _describe_speed(costs),
        "corpus": description["corpus"],
        "licences": describe_licences(description),
    }
    return format_rows(rows)


def format_millions(count: int) -> str:
    """Format a number of parameters with at least two digits: `23.5 M`."""
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e6:.2g} M"


def _describe_task(task: str, outputs: Any) -> str:
    if isinstance(outputs, dict):
        return f"{task} from {outputs['low']:g} to {outputs['high']:g} {outputs['unit']}"
    return f"{task}: {', '.join(outputs)}"


def _describe_parameters(costs: Mapping[str, Any]) -> str:
    return (
        f"{format_millions(costs['total'])}, {format_millions(costs['trained'])} of them trained: "
        f"{costs['share_of_hubert_large']:.1%} of HuBERT-large ({format_millions(HUBERT_LARGE)} without "
        "convolutions)"
    )


def _describe_part(part: str, counts: Mapping[str, int]) -> str:
    return f"{part} {format_millions(counts['total'])} ({format_millions(counts['trained'])} trained)"


def _describe_speed(costs: Mapping[str, Any]) -> str:
    """Describe speed and memory. Return an empty text where they were not measured."""
    if "real_time_factor" not in costs:
        return ""
    speedup = f"{1 / costs['real_time_factor']:.0f} times faster than real time on one core"
    return f"{speedup} (one clip of 5 s); {costs['memory_mb']:.0f} MB for weights and one prediction"

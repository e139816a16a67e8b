"""The models: one file for each paper, and the folder is the list.

To add a model, add a file with its `Config`, the model's part of a recipe. `contract` says what training and
export ask of `Config` and of the model that it builds; `stage` is what the models have in common.
"""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any

from sertone.errors import SertoneError, first_line, is_out_of_memory
from sertone.labels import DIMENSIONS, Scale
from sertone.models.contract import EmotionModel, ModelConfig
from sertone.nn.vocabulary import Vocabulary
from sertone.recipe import Recipe
from sertone.recipe.settings import parse
from sertone.schema import Utterance
from sertone.utils.suggestions import did_you_mean, explain_name

SHARED_FILES = ("contract", "stage")
"""Files of the folder that are no models."""
MODELS = tuple(sorted({file.name for file in pkgutil.iter_modules(__path__)} - set(SHARED_FILES)))


def configure(values: dict[str, Any]) -> ModelConfig:
    """Check the `model` part of a recipe.

    Raises:
        SertoneError: `unknown_model`, `bad_recipe`.
    """
    options = dict(values)
    name = options.pop("name", None)
    choices = f"one of {', '.join(MODELS)}"
    if name is None:
        raise SertoneError("unknown_model", "the recipe has no model.name", choices)
    if name not in MODELS:
        hint = explain_name(name) or did_you_mean(name, MODELS)
        raise SertoneError("unknown_model", f"model.name {name!r}", choices, hint)
    return parse(_config_class(name), options, "model")


def _config_class(name: str) -> Any:
    return importlib.import_module(f"sertone.models.{name}").Config


def build_vocabulary(
    values: dict[str, Any],
    training: Sequence[Utterance],
    class_map: dict[str, str],
    scales: Mapping[str, Scale],
) -> Vocabulary:
    """Return the names and the text input of the model in the `model` part of a recipe.

    Args:
        values: the part of the recipe.
        training: utterances of a training set.
        class_map: emotion -> class.
        scales: rating -> scale of the corpus; at least those of the ratings that the model predicts.

    Raises:
        SertoneError: as `configure`; `missing_tokenizer`.
    """
    config = configure(values)
    ratings = {name: scales[name] for name in config.predicted_tasks if name in DIMENSIONS}
    mapping = class_map if "emotion" in config.predicted_tasks else {}
    tokenizer = config.text.make_tokenizer([u.text for u in training if u.text]) if config.text else ""
    return Vocabulary.from_utterances(training, mapping, ratings, tokenizer)


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema of recipes, for editors: that of `Recipe` with the options of every model."""
    schema = Recipe.model_json_schema()
    choices = []
    for name in MODELS:
        options = _config_class(name).model_json_schema()
        schema["$defs"] |= options.pop("$defs", {})
        options["properties"] = {"name": {"const": name}} | options["properties"]
        choices.append(options | {"required": ["name", *options.get("required", ())]})
    schema["properties"]["model"] = {"oneOf": choices}
    return schema


def build(values: dict[str, Any], vocabulary: Vocabulary) -> EmotionModel:
    """Build the model in the `model` part of a recipe.

    Raises:
        SertoneError: `out_of_memory`; as `configure`; as the encoder's loading.
    """
    config = configure(values)
    try:
        return config.build(vocabulary)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        problem = f"the model that model.name {values['name']!r} describes: {first_line(error)}"
        raise SertoneError(
            "out_of_memory", problem, "a model that fits the memory", "make it smaller"
        ) from None

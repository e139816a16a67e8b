"""The systems: one paper, one file; MODELS lists them.

Each file has `Config`, the model's part of a recipe, in which `answers` names the tasks that the model is
for and `later` the options that the first of several stages does not depend on, and
`Model(config, vocabulary)` with
    forward(batch, tasks) -> {task: HeadOutput}, at least those of `tasks`
    stages()       -> what is trained when
    encoder, text (or None), heads (task -> head)
"""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from sertone.errors import SertoneError, first_line, is_out_of_memory
from sertone.labels import DIMENSIONS, Scale
from sertone.nn.vocabulary import Vocabulary
from sertone.recipe import Recipe
from sertone.recipe.settings import Settings, parse
from sertone.schema import Utterance
from sertone.utils.suggestions import did_you_mean, explain_name

MODELS = ("baseline", "ispas2023", "oliveira2023", "wan2025")


def configure(values: dict[str, Any]) -> Settings:
    """Checks the `model` part of a recipe.

    Raises:
        SertoneError: `unknown_model`, `bad_recipe`.
    """
    options = dict(values)
    name = options.pop("name", None)
    if name is None:
        raise SertoneError("unknown_model", "the recipe has no model.name", f"one of {', '.join(MODELS)}")
    if name not in MODELS:
        known, near = ", ".join(MODELS), explain_name(name) or did_you_mean(name, MODELS)
        raise SertoneError("unknown_model", f"model.name {name!r}", f"one of {known}", near)
    return parse(importlib.import_module(f"sertone.models.{name}").Config, options, "model")


def build_vocabulary(
    values: dict[str, Any],
    training: Sequence[Utterance],
    class_map: dict[str, str],
    scales: Mapping[str, Scale],
) -> Vocabulary:
    """What goes into the model that the `model` part of a recipe names, and what its outputs mean.

    Args:
        values: the part of the recipe.
        training: utterances of a training side.
        class_map: emotion -> class.
        scales: rating -> scale of the corpus; at least those of the ratings that the model answers.

    Raises:
        SertoneError: as `configure`; `missing_tokenizer`.
    """
    config: Any = configure(values)
    ratings = {name: scales[name] for name in config.answers if name in DIMENSIONS}
    mapping = class_map if "emotion" in config.answers else {}
    tokenizer = config.text.make_tokenizer([u.text for u in training if u.text]) if config.text else ""
    return Vocabulary.from_utterances(training, mapping, ratings, tokenizer)


def recipe_schema() -> dict[str, Any]:
    """JSON Schema of recipes, for editors: that of `Recipe` with the options of every model."""
    schema = Recipe.model_json_schema()
    choices = []
    for name in MODELS:
        options = importlib.import_module(f"sertone.models.{name}").Config.model_json_schema()
        schema["$defs"] |= options.pop("$defs", {})
        options["properties"] = {"name": {"const": name}} | options["properties"]
        choices.append(options | {"required": ["name", *options.get("required", ())]})
    schema["properties"]["model"] = {"oneOf": choices}
    return schema


def build(values: dict[str, Any], vocabulary: Vocabulary) -> Any:
    """Build the model that the `model` part of a recipe names.

    Raises:
        SertoneError: `out_of_memory`; as `configure`; as the encoder's loading.
    """
    config = configure(values)
    try:
        return importlib.import_module(config.__module__).Model(config, vocabulary)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        found = f"the model that model.name {values['name']!r} describes: {first_line(error)}"
        raise SertoneError(
            "out_of_memory", found, "a model that fits the memory", "make it smaller"
        ) from None

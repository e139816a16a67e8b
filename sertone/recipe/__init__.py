"""Recipes: YAML files that describe an experiment, checked before anything runs.

`recipe` holds a recipe and its parts, `train_config` the `train` part, and `settings` reads YAML files
and explains unknown keys.
"""

from sertone.recipe.recipe import (
    NEUTRAL,
    AsrConfig,
    CorpusConfig,
    DataConfig,
    ProtocolConfig,
    Recipe,
    Split,
    TextConfig,
    drop_neutral,
    dump,
    find_shipped_recipe,
    load,
    resolve,
    resolve_data,
)
from sertone.recipe.train_config import TrainConfig

__all__ = [
    "NEUTRAL",
    "AsrConfig",
    "CorpusConfig",
    "DataConfig",
    "ProtocolConfig",
    "Recipe",
    "Split",
    "TextConfig",
    "TrainConfig",
    "drop_neutral",
    "dump",
    "find_shipped_recipe",
    "load",
    "resolve",
    "resolve_data",
]  # fmt: skip

"""The first steps of `wan2025` with both readings of its learning rates, and their effect on ARI.

    python bench/first_steps.py            base shape, about five minutes on two cores
    python bench/first_steps.py --tiny     a toy shape, to test that it runs

The data are a miniature of IEMOCAP whose tones are as long as their texts would take. The encoder is a
wav2vec 2.0 of base shape with random weights, so nothing is downloaded. Every row starts from the same
weights and sees the same batches of four with the same dropout, at stage 1. Printed are every loss, and the
size of ARI's residual relative to H_12 after the first step (0 before it). See docs/reproduce.md.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig

from sertone import corpora, models
from sertone import recipe as recipes
from sertone.corpora._files import write_tone
from sertone.nn.batch import Batch
from sertone.nn.encoders.huggingface import ArchitectureConfig
from sertone.nn.masks import frame_mask
from sertone.nn.pretrained import NO_MASKING
from sertone.recipe import Recipe
from sertone.training.data.caches import SharedCaches
from sertone.training.data.loader import BatchItem
from sertone.training.experiment.experiment import Experiment, prepare
from sertone.training.fit.epoch_statistics import EpochStatistics
from sertone.training.fit.progress import RunProgress
from sertone.training.fit.trainer import Trainer
from sertone.training.runs.folds import prepare_data

SEED, BATCH, CHARACTERS_PER_S = 0, 4, 12
TINY = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
TINY |= {"conv_dim": [32] * 7}
PRINTED = {"encoder": 1e-4, "downstream": 1e-3}
SETTINGS: list[tuple[str, str, str | dict[str, float]]] = [
    ("power_of_ten, full matrix", "ari_full", "power_of_ten"),
    ("printed, full matrix", "ari_full", "printed"),
    ("printed, diagonal", "ari_diagonal", "printed"),
    ("printed, scalar", "ari_scalar", "printed"),
    ("printed, full matrix with fusion: 1e-5", "ari_full", PRINTED | {"fusion": 1e-5}),
]
"""Name, fusion and learning rates of every row."""


def write_miniature(root: Path) -> None:
    """Write the corpus, with tones that are long enough for their texts."""
    # The miniature's own tones last a tenth of a second: CTC needs at least a frame for each character.
    corpora.load_sheet("iemocap").fake(root)
    for number, utterance in enumerate(corpora.load_utterances("iemocap", root)):
        write_tone(utterance.path, number, max(1.0, len(utterance.text or "") / CHARACTERS_PER_S))


def load_recipe(root: Path, tiny: bool, device: str) -> Recipe:
    """Return the paper's recipe, on the miniature and with a random encoder."""
    values = AutoConfig.for_model("wav2vec2", **(TINY if tiny else {})).to_diff_dict()
    # facebook/wav2vec2-base has no activation dropout, unlike the default of its configuration class.
    values |= NO_MASKING | {"model_type": "wav2vec2", "activation_dropout": 0.0}
    settings = [f"data.root={root}", f"train.device={device}", "train.speeds=[1.0]"]
    recipe = recipes.load(recipes.find_shipped_recipe("wan2025_wav2vec2"), settings)
    encoder = ArchitectureConfig(config=values, normalize=True).model_dump()
    frozen = 1 if tiny else recipe.model["frozen_layers"]
    model = recipe.model | {"encoder": encoder, "frozen_layers": frozen}
    return recipe.model_copy(update={"model": model})


def change_recipe(recipe: Recipe, fusion: str, rates: str | dict[str, float]) -> Recipe:
    """Return the recipe with another fusion and other learning rates."""
    values = recipe.model_dump()
    values["model"]["fusion"] = fusion
    values["train"]["learning_rate"] = rates
    return Recipe.model_validate(values)


def train_first_steps(
    experiment: Experiment, material: SharedCaches, steps: int
) -> tuple[list[float], float]:
    """Train a new model for some steps of stage 1.

    Returns:
        the loss of every step, and the norm of ARI's residual over that of H_12 after the first step.
    """
    torch.manual_seed(SEED)
    vocabulary, fold = experiment.build_vocabulary(0), experiment.folds[0]
    model = models.build(experiment.recipe.model, vocabulary)
    config, folder, quiet = experiment.recipe.train, Path("unused"), RunProgress(0, quiet=True)
    trainer = Trainer(model, vocabulary, fold, 0, config, material, folder, quiet)
    stepper = trainer.begin_stage(0)
    rng = np.random.default_rng(SEED)
    plan = [
        [BatchItem(fold.train[i]) for i in rng.choice(len(fold.train), BATCH, False)] for _ in range(steps)
    ]
    losses, ratio = [], 0.0
    for number, batch in enumerate(trainer.loader.batches(plan, list(stepper.stage.weights))):
        torch.manual_seed(number)  # every setting gets the same dropout masks
        stepper.begin_epoch()
        tally = EpochStatistics(1)
        stepper.step([batch], 1.0, [[row.utterance for row in plan[number]]], tally)
        losses.append(tally.summarise()["loss"])
        if number == 0:
            ratio = compute_residual_ratio(model, batch.to(trainer.fabric.device))
    return losses, ratio


@torch.no_grad()
def compute_residual_ratio(model: Any, batch: Batch) -> float:
    """Return the norm of ARI's residual over that of H_12, on the real frames of a batch."""
    model.eval()
    hidden, frames = batch.encode(model.encoder)
    mask = frame_mask(frames, hidden.shape[2])[..., None]
    # Padding frames are zeroed, since their states would count in the norms.
    residual = model.fusion.residual(hidden[:, 1:-1]) * mask
    last = hidden[:, -1] * mask
    return float(residual.norm() / last.norm())


def main() -> None:
    """Measure and print a table in Markdown."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_miniature(Path(folder))
        experiment = prepare(load_recipe(Path(folder), options.tiny, options.device), say=print)
        material = prepare_data(experiment, RunProgress(0, quiet=True))
        steps = " | ".join(map(str, range(1, options.steps + 1)))
        print(f"| rates and ARI | residual / H_12 after step 1 | {steps} |")
        print("|---" * (options.steps + 2) + "|")
        for name, fusion, rates in SETTINGS:
            recipe = change_recipe(experiment.recipe, fusion, rates)
            losses, ratio = train_first_steps(experiment.with_recipe(recipe), material, options.steps)
            print(f"| {name} | {ratio:.2g} | {' | '.join(f'{loss:.1f}' for loss in losses)} |", flush=True)


if __name__ == "__main__":
    main()

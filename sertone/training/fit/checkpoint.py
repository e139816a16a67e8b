"""Save and load trained models as safetensors and JSON only, written aside and then renamed.

checkpoint/
    model.safetensors      weights
    tokenizer.json         of a model that uses text
    card.md                model card
    checkpoint.json        configuration, vocabulary, calibration, protocol card, licences; written last, so
                           that it marks the folder as complete
"""

import shutil
from pathlib import Path

import torch
from torch import Tensor

from sertone import models
from sertone.audio import SAMPLING_RATE, file_hash
from sertone.errors import SertoneError
from sertone.files import read_text, write_json, write_text
from sertone.models.contract import EmotionModel
from sertone.nn.tensor_files import load_shapes, load_tensors, restore, save_tensors
from sertone.nn.vocabulary import Vocabulary
from sertone.scoring.calibration import Calibration
from sertone.sharing import model_card
from sertone.sharing import model_folder as folders
from sertone.sharing.card_scores import Scores
from sertone.sharing.model_folder import CARD, FORMAT, MARKER, TOKENIZER, WEIGHTS


def save_model(
    folder: Path,
    model: EmotionModel,
    options: dict,
    vocabulary: Vocabulary,
    card: dict,
    calibration: Calibration,
    ledger: list[dict],
) -> None:
    """Write a checkpoint.

    Args:
        folder: replaced if it exists.
        model: the trained model.
        options: the `model` part of the recipe.
        vocabulary: the meaning of its outputs.
        card: protocol card, and all else that should travel with the weights.
        calibration: calibration of its confidence.
        ledger: licences of everything that the model is built from.
    """
    description = options | {"encoder": model.encoder.describe() or None}
    if model.text:
        description["text"] = model.text.describe()
    content = {
        "format": FORMAT,
        "model": description,
        "vocabulary": vocabulary.to_json(),
        "sampling_rate": SAMPLING_RATE,
        "min_samples": model.encoder.min_samples,
        "calibration": calibration.to_json(),
        "card": card,
        "licences": ledger,
    }
    # A reader sees either the old folder or the complete new one.
    aside = create_empty_folder(folder.with_name(f".{folder.name}.part"))
    save_tensors(aside / WEIGHTS, copy_weights(model))
    if vocabulary.tokenizer:
        write_text(aside / TOKENIZER, vocabulary.tokenizer)
    # The hashes cover weights and tokenizer, not the card, which is written again with the scores.
    content["files"] = hash_files(aside)
    write_text(aside / CARD, model_card.render(content))
    write_json(aside / MARKER, content)
    shutil.rmtree(folder, ignore_errors=True)
    aside.replace(folder)


def update_model_card(folder: Path, scores: Scores) -> None:
    """Write the model card of a checkpoint again, with its scores."""
    write_text(folder / CARD, model_card.render(folders.read_about(folder), scores))


def load_model(folder: Path) -> tuple[EmotionModel, Vocabulary, dict]:
    """Load a checkpoint.

    Returns:
        The model in eval mode, its vocabulary, and the content of `checkpoint.json`.

    Raises:
        SertoneError: `not_a_checkpoint`, `bad_weights`, `other_format`.
    """
    content = folders.read_about(folder)
    files, tokenizer = [WEIGHTS], ""
    uses_text = bool(content["model"].get("text"))
    if uses_text:
        files.append(TOKENIZER)
    folders.require_intact(folder, files, content["files"])
    if uses_text:
        tokenizer = read_text(folder / TOKENIZER, "bad_weights")
    vocabulary = Vocabulary.from_json(content["vocabulary"], tokenizer)
    _require_matching_weights(folder, content["model"], vocabulary)
    model = models.build(content["model"], vocabulary)
    restore(model, load_tensors(folder / WEIGHTS), folder)
    return model.eval(), vocabulary, content


def _require_matching_weights(folder: Path, options: dict, vocabulary: Vocabulary) -> None:
    """Compare the description with the header of the weights, on a model that takes no memory.

    Raises:
        SertoneError: `bad_weights`, also where the description cannot be built.
    """
    try:
        # A model on the meta device has shapes, but no values.
        with torch.device("meta"):
            expected = {
                name: tuple(t.shape) for name, t in models.build(options, vocabulary).state_dict().items()
            }
    except Exception as error:  # Hugging Face and torch raise many types for options that do not fit
        if isinstance(error, SertoneError) and error.code == "remote_code":
            raise
        raise SertoneError(
            "bad_weights", f"{folder / MARKER}: {error}", "a description of a model that can be built"
        ) from None
    shapes = load_shapes(folder / WEIGHTS)
    differing = sorted(name for name in {*expected, *shapes} if expected.get(name) != shapes.get(name))
    if differing:
        name = differing[0]
        raise SertoneError(
            "bad_weights",
            f"{folder}: the shape of {name} is {shapes.get(name, 'missing')}",
            f"{expected.get(name, 'none')}, as {MARKER} describes the model",
        )


def create_empty_folder(folder: Path) -> Path:
    """Create a folder, and delete what it held before."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def hash_files(folder: Path) -> dict[str, str]:
    """Return file name -> hash of its content."""
    return {path.name: file_hash(path) for path in sorted(folder.iterdir())}


def copy_weights(model: EmotionModel) -> dict[str, Tensor]:
    """Return the weights of a model on the CPU, contiguous, as files need them."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}

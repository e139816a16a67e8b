"""The origin of an encoder that Sertone has trained: part of a model, or distilled from another encoder.

A folder that `distill` wrote:
    model.safetensors    weights; for an architecture of Hugging Face with config.json and
                         preprocessor_config.json
    README.md            model card
    encoder.json         architecture, licences, training data; marks the folder complete
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sertone.errors import SertoneError
from sertone.files import load_json
from sertone.licences import LEDGER_SHAPE
from sertone.sharing import model_folder as folders
from sertone.utils.json_shape import find_misfits

ENCODER, FORMAT = "encoder.json", 3
SHAPE = {
    "encoder": dict,
    "licences": LEDGER_SHAPE,
    "heard": folders.SEEN_SHAPE,
    "listened": folders.SEEN_SHAPE,
    "files": {folders.WEIGHTS: str},
}
"""The shape of `encoder.json`, see `json_shape`. Its keys are in the order of the attributes of `Origin`."""
NOTHING_SEEN: dict[str, list[str]] = {"recordings": [], "speakers": []}


@dataclass(frozen=True)
class Origin:
    """An encoder that Sertone has trained, with its licences and its training data.

    Attributes:
        folder: folder of its weights: a checkpoint, or a folder that `distill` wrote.
        encoder: its architecture, as `Encoder.describe` gives it.
        licences: the ledger of the corpora and models that it is built from.
        seen_with_labels: hashes of the recordings and speakers that it was trained on with labels, see
            `training.experiment.contamination`.
        seen_without_labels: the same for the recordings and speakers that it was distilled on.
        files: hashes of the files in the folder.
    """

    folder: Path
    encoder: dict[str, Any]
    licences: list[dict[str, Any]]
    seen_with_labels: dict[str, list[str]]
    seen_without_labels: dict[str, list[str]]
    files: dict[str, str]


def find_origin(options: Mapping[str, Any] | None) -> Origin | None:
    """Return the origin of the encoder that a recipe names; None where Sertone has not trained it.

    Args:
        options: `model.encoder` of a recipe, or `teacher`; None where a model has no encoder.

    Raises:
        SertoneError: as `read_origin`.
    """
    if not options:
        return None
    source = options.get("source")
    # A distilled encoder of Hugging Face's architecture can also be named as a pretrained one.
    if options.get("name") == "saved" or (source and (Path(source) / ENCODER).is_file()):
        return read_origin(str(source))
    return None


def read_origin(source: str) -> Origin:
    """Return the encoder of a model trained with Sertone, or one that `distill` wrote.

    Args:
        source: a checkpoint, a fold, the folder of `sertone train` or `sertone distill`, or OWNER/NAME on
            the hub.

    Raises:
        SertoneError: `not_a_checkpoint`, `many_models`, `bad_weights`, `other_format`, `foreign_source`,
            `no_speech_encoder`.
    """
    # `sertone distill` writes the encoder into a folder of its run.
    for folder in (Path(source), Path(source) / "encoder"):
        if (folder / ENCODER).is_file():
            about = _load_about(folder / ENCODER)
            return Origin(folder, *(about[key] for key in SHAPE))
    folder = folders.find_checkpoint(source)
    about = folders.read_about(folder)
    encoder, card = about["model"]["encoder"], about["card"]
    if not encoder:
        raise SertoneError(
            "no_speech_encoder", f"the model in {source} uses text only", "a model that uses audio"
        )
    listened = card.get("listened", NOTHING_SEEN)  # most models have no distilled encoder
    return Origin(folder, encoder, about["licences"], card["heard"], listened, about["files"])


def _load_about(marker: Path) -> dict[str, Any]:
    """Return the content of `encoder.json`.

    Raises:
        SertoneError: `bad_weights`, `other_format`, `foreign_source`.
    """
    about = load_json(marker, "bad_weights")
    if about.get("format") != FORMAT:
        raise folders.other_format_error(marker, about.get("format"), FORMAT)
    if misfits := find_misfits(about, SHAPE):
        problem = f"{marker} has no valid {', '.join(misfits)}"
        raise SertoneError("bad_weights", problem, "an intact file", "distil it again")
    folders.require_self_contained({"encoder": about["encoder"]}, marker)
    return about

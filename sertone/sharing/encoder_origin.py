"""Where an encoder comes from that Sertone has trained: out of a model, or distilled from another encoder.

A folder that `distill` wrote:
    model.safetensors    weights; with config.json and preprocessor_config.json where it is Hugging Face's
    README.md            model card
    encoder.json         architecture, licences, what it has heard; marks the folder complete
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sertone.errors import SertoneError
from sertone.files import read_json
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
"""Of `encoder.json`, see `shape`; the parts are those of `Origin`, in order."""
NOTHING_SEEN: dict[str, list[str]] = {"recordings": [], "speakers": []}


@dataclass(frozen=True)
class Origin:
    """What an encoder comes from.

    Attributes:
        folder: of its weights: a checkpoint, or what `distill` wrote.
        encoder: its architecture, as `Encoder.describe` gives it.
        licences: the ledger of what it was made of.
        heard: hashes of the recordings and speakers that it was trained on with labels (`training.heard`).
        listened: the same of those that it was distilled on without labels.
        files: hashes of the files in the folder.
    """

    folder: Path
    encoder: dict[str, Any]
    licences: list[dict[str, Any]]
    seen_with_labels: dict[str, list[str]]
    seen_without_labels: dict[str, list[str]]
    files: dict[str, str]


def find_origin(options: Mapping[str, Any] | None) -> Origin | None:
    """The origin of the encoder that a recipe names; None where Sertone has not trained it.

    Args:
        options: `model.encoder` of a recipe, or `teacher`; None where a model has none.

    Raises:
        SertoneError: as `find`.
    """
    if not options:
        return None
    source = options.get("source")
    if options.get("name") == "saved" or (source and (Path(source) / ENCODER).is_file()):
        return read_origin(str(source))
    return None


def read_origin(source: str) -> Origin:
    """The encoder of a model trained with Sertone, or one that `distill` wrote.

    Args:
        source: a checkpoint, a fold, what `sertone train` or `sertone distill` wrote, or OWNER/NAME on the
            hub.

    Raises:
        SertoneError: `not_a_checkpoint`, `many_models`, `bad_weights`, `other_format`, `foreign_source`,
            `no_speech_encoder`.
    """
    for folder in (Path(source), Path(source) / "encoder"):
        if (folder / ENCODER).is_file():
            about = _about(folder / ENCODER)
            return Origin(folder, *(about[key] for key in SHAPE))
    folder = folders.find_checkpoint(source)
    about = folders.read_about(folder)
    if not about["model"]["encoder"]:
        raise SertoneError("no_speech_encoder", f"the model in {source} only reads", "one that hears")
    card = about["card"]
    listened = card.get("listened", NOTHING_SEEN)
    heard, licences = card["heard"], about["licences"]
    return Origin(folder, about["model"]["encoder"], licences, heard, listened, about["files"])


def _about(marker: Path) -> dict[str, Any]:
    said = read_json(marker, "bad_weights")
    if said.get("format") != FORMAT:
        raise folders.other_format_error(marker, said.get("format"), FORMAT)
    if wrong := find_misfits(said, SHAPE):
        found = f"{marker} has no sound {', '.join(wrong)}"
        raise SertoneError("bad_weights", found, "an intact file", "distil it again")
    folders.require_self_contained({"encoder": said["encoder"]}, marker)
    return said

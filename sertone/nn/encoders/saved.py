"""The speech encoder of a model trained with Sertone, or written by `sertone distill`, to start from."""

import functools
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from sertone.errors import SertoneError
from sertone.nn.encoders.base import Encoder, EncoderSettings
from sertone.nn.encoders.config import list_kinds, union_by_name
from sertone.nn.encoders.huggingface import PretrainedEncoderConfig
from sertone.nn.encoders.transformers_encoder import TransformersEncoder
from sertone.nn.pretrained import silence_transformers
from sertone.nn.tensor_files import load_tensors, require_complete, restore, save_tensors, writing_tensors
from sertone.sharing import encoder_origin
from sertone.sharing.model_folder import MARKER, WEIGHTS, require_intact

ENCODER_PREFIX = "encoder."
"""Beginning of the names of the encoder's weights in a checkpoint."""


class SavedEncoderConfig(EncoderSettings):
    """The encoder of another model, to continue its training, with its LayerDrop and time masking."""

    name: Literal["saved"] = "saved"
    source: str
    """A checkpoint, a fold, what `sertone train` or `sertone distill` wrote, or OWNER/NAME on the hub."""

    def build(self) -> Encoder:
        """Load the weights; none may be missing.

        Raises:
            SertoneError: `not_a_checkpoint`, `many_models`, `other_format`, `bad_weights`, `missing_weights`.
        """
        origin = encoder_origin.read_origin(self.source)
        require_intact(origin.folder, [WEIGHTS], origin.files)
        if (origin.folder / "config.json").is_file():
            # `save_encoder` wrote it as transformers does.
            return PretrainedEncoderConfig(source=str(origin.folder)).build()
        encoder = build_from_description(origin.encoder)
        tensors = load_tensors(origin.folder / WEIGHTS)
        if (origin.folder / MARKER).is_file():  # a whole model, not an encoder of `sertone distill`
            tensors = {
                name.removeprefix(ENCODER_PREFIX): tensor
                for name, tensor in tensors.items()
                if name.startswith(ENCODER_PREFIX)
            }
        require_complete(encoder, tensors, origin.folder)
        restore(encoder, tensors, origin.folder)
        return encoder


def build_from_description(description: dict[str, Any]) -> Encoder:
    """Build the architecture that `Encoder.describe` describes, with random weights.

    Raises:
        SertoneError: `bad_weights`, where it is no description of an encoder.
    """
    try:
        config = _description_adapter().validate_python(description)
    except ValidationError as error:
        problem = f"the description of an encoder: {error.errors()[0]['msg']}"
        raise SertoneError("bad_weights", problem, "what `Encoder.describe` gives") from None
    return config.build()


@functools.cache
def _description_adapter() -> TypeAdapter[EncoderSettings]:
    """Return a check of descriptions: a file of weights may not name another file or a download."""
    return TypeAdapter(union_by_name([kind for kind in list_kinds() if kind.is_description]))


def save_encoder(encoder: Encoder, folder: Path) -> None:
    """Save an encoder without its marker.

    Args:
        encoder: one of Hugging Face is saved as `transformers` does, with its feature extractor; of any other
            only the weights.
        folder: an existing folder.
    """
    if not isinstance(encoder, TransformersEncoder):
        return save_tensors(folder / WEIGHTS, encoder.state_dict())
    with writing_tensors(folder / WEIGHTS), silence_transformers():
        encoder.to_model().save_pretrained(folder)
    encoder.make_extractor().save_pretrained(folder)

"""The model that comes with the package."""

from pathlib import Path

import sertone
from sertone.errors import SertoneError

NAME = "compact"


def find_folder() -> Path:
    """The bundle inside the package.

    Raises:
        SertoneError: `no_model`, where this copy of the package has none.
    """
    path = Path(sertone.__file__).parent / "bundled" / NAME
    if not path.is_dir():
        raise SertoneError(
            "no_model",
            "no model given, and none came with this copy of Sertone",
            "a bundle, a checkpoint folder, a run, or OWNER/NAME on the Hugging Face hub",
            "name it before the recordings: sertone predict MODEL FILE...",
        )
    return path

"""The model that comes with the package."""

from pathlib import Path

from sertone.errors import SertoneError

NAME = "compact"
PACKAGE = Path(__file__).parents[1]


def find_folder() -> Path:
    """Return the folder of the bundle inside the package.

    Raises:
        SertoneError: `no_model`, where this copy of the package has none.
    """
    folder = PACKAGE / "bundled" / NAME
    if not folder.is_dir():  # a source tree may lack it
        raise SertoneError(
            "no_model",
            "no model given, and this copy of Sertone contains none",
            "a bundle, a checkpoint folder, a run, or OWNER/NAME on the Hugging Face hub",
            "name it before the recordings: sertone predict MODEL FILE...",
        )
    return folder

"""The folder of a model by any of its names; a Hugging Face model becomes a bundle in a cache, once.

Imports no torch unless a model has to be exported.
"""

import tempfile
from hashlib import sha256
from pathlib import Path

from sertone import __version__
from sertone.audio import file_hash
from sertone.errors import SertoneError, first_line
from sertone.runtime import shipped
from sertone.runtime.bundle import FORMAT, is_bundle
from sertone.sharing import model_folder as folders
from sertone.utils import hub
from sertone.utils.extras import install_command
from sertone.utils.terminal import print_status

HUGGING_FACE_PREFIX = "hf:"
"""Before a folder or OWNER/NAME: an audio-classification model of Hugging Face."""
CACHE = "~/.cache/sertone/bundles"


def resolve_model_folder(source: str | Path | None) -> Path:
    """Return the folder of a bundle, a checkpoint or a run.

    Args:
        source: a folder, or OWNER/NAME on the hub; a folder of a Hugging Face model, or `hf:` and such a
            folder or OWNER/NAME, gives the folder of its bundle in the cache; None: the model of the package.

    Raises:
        SertoneError: `no_model`, `not_a_checkpoint`, `missing_extra`, `no_cache`; as `export.hub.source_of`.
    """
    if source is None:
        return shipped.find_folder()
    if isinstance(source, str) and source.startswith(HUGGING_FACE_PREFIX):
        return _exported(source.removeprefix(HUGGING_FACE_PREFIX))
    folder = folders.resolve_folder(source)
    return _exported(str(folder)) if hub.is_transformers_model(folder) else folder


def _exported(where: str) -> Path:
    """Return the bundle of a Hugging Face model, which is written at the first call."""
    files = hub.CONFIG_FILES + hub.SAFE_WEIGHTS
    folder = hub.resolve_folder(
        where, files, code="missing_encoder", expected="an audio-classification model"
    )
    hub.require_data_only(folder)
    try:
        target = Path(CACHE).expanduser() / _key(folder)
        if not is_bundle(target):
            print_status(f"{where} is a Hugging Face model: exporting it once, into {target}")
            _export(where, target)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        raise SertoneError(
            "no_cache", f"{CACHE}: {first_line(error)}", "a folder to write", _command(where)
        ) from None
    return target


def _key(folder: Path) -> str:
    """Return a hash of all that decides the bundle of a folder."""
    names = sorted(
        {path for pattern in (*hub.CONFIG_FILES, *hub.SAFE_WEIGHTS) for path in folder.glob(pattern)}
    )
    parts = [f"{path.name} {file_hash(path)}" for path in names if path.is_file()]
    return sha256("\n".join([__version__, str(FORMAT), *parts]).encode()).hexdigest()[:32]


def _export(where: str, target: Path) -> None:
    """Export beside the target and rename, so that two processes may do so at the same time."""
    try:
        from sertone.export.bundles import export
    except ImportError as error:
        raise SertoneError(
            "missing_extra",
            f"{where} is a Hugging Face model, and {error.name}, to export it, is not installed",
            "a bundle",
            f"{install_command('train')}; or, where that is installed: {_command(where)}",
        ) from None
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as aside:
        made = Path(aside) / target.name
        export(f"{HUGGING_FACE_PREFIX}{where}", made, name=Path(where).name)
        try:
            made.replace(target)
        except OSError:
            if not is_bundle(target):  # or else another process was faster
                raise


def _command(where: str) -> str:
    bundle = f"bundles/{Path(where).name}"
    return f"sertone export {HUGGING_FACE_PREFIX}{where} {bundle}, then predict with {bundle}"

"""Find the folder of a model by any of its names; a Hugging Face model is exported once into a cache.

torch is imported only if a model has to be exported.
"""

import tempfile
from hashlib import sha256
from pathlib import Path

from sertone.audio import file_hash
from sertone.errors import SertoneError, first_line
from sertone.runtime import shipped
from sertone.runtime.bundle import FORMAT, is_bundle
from sertone.sharing import model_folder
from sertone.utils import hub
from sertone.utils.extras import install_command
from sertone.utils.hub import HUGGING_FACE_PREFIX
from sertone.utils.terminal import print_status
from sertone.version import __version__

CACHE = "~/.cache/sertone/bundles"


def resolve_model_folder(source: str | Path | None) -> Path:
    """Return the folder of a bundle, a checkpoint or a run.

    Args:
        source: a folder, or OWNER/NAME on the hub. The folder of a Hugging Face model, or `hf:` and such a
            folder or OWNER/NAME, gives the folder of its bundle in the cache. None: the model that comes
            with the package.

    Raises:
        SertoneError: `no_model`, `not_a_checkpoint`, `missing_extra`, `no_cache`; as
            `from_huggingface.load_exportable`.
    """
    if source is None:
        return shipped.find_folder()
    if isinstance(source, str) and source.startswith(HUGGING_FACE_PREFIX):
        return _export_once(source.removeprefix(HUGGING_FACE_PREFIX))
    folder = model_folder.resolve_folder(source)
    return _export_once(str(folder)) if hub.is_transformers_model(folder) else folder


def _export_once(source: str) -> Path:
    """Return the bundle of a Hugging Face model; the first call writes it."""
    files = hub.CONFIG_FILES + hub.SAFE_WEIGHTS
    folder = hub.resolve_folder(
        source, files, code="missing_encoder", expected="an audio-classification model"
    )
    hub.require_data_only(folder)
    try:
        target = Path(CACHE).expanduser() / _compute_key(folder)
        if not is_bundle(target):
            print_status(f"{source} is a Hugging Face model: exporting it once, into {target}")
            _export(source, target)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        raise SertoneError(
            "no_cache", f"{CACHE}: {first_line(error)}", "a folder to write", _describe_command(source)
        ) from None
    return target


def _compute_key(folder: Path) -> str:
    """Return a hash of everything that determines the bundle: the versions and the files of the model."""
    patterns = (*hub.CONFIG_FILES, *hub.SAFE_WEIGHTS)
    names = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    parts = [f"{path.name} {file_hash(path)}" for path in names if path.is_file()]
    return sha256("\n".join([__version__, str(FORMAT), *parts]).encode()).hexdigest()[:32]


def _export(source: str, target: Path) -> None:
    """Export into a temporary folder and rename it, so that two processes may export at the same time."""
    try:
        from sertone.export.bundles import export
    except ImportError as error:
        raise SertoneError(
            "missing_extra",
            f"{source} is a Hugging Face model; to export it, {error.name} is needed, which is not installed",
            "a bundle",
            f"{install_command('train')}; or, where that is installed: {_describe_command(source)}",
        ) from None
    target.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder: a rename across file systems would not be atomic.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as temporary:
        bundle = Path(temporary) / target.name
        export(f"{HUGGING_FACE_PREFIX}{source}", bundle, name=Path(source).name)
        try:
            bundle.replace(target)
        except OSError:
            if not is_bundle(target):  # otherwise another process was faster
                raise


def _describe_command(source: str) -> str:
    bundle = f"bundles/{Path(source).name}"
    return f"sertone export {HUGGING_FACE_PREFIX}{source} {bundle}, then predict with {bundle}"

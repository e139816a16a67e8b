"""Extras: the optional parts of Sertone, and the command that installs one of them here."""

from pathlib import Path

MODULES = {
    "av": "media",
    "espeakng_loader": "demo",
    "faster_whisper": "asr",
    "httpx2": "hub",
    "huggingface_hub": "hub",
    "PIL": "png",
    "sounddevice": "listen",
    "tokenizers": "text",
}
"""Module -> the smallest extra that brings it. All others come with `train`."""


def install_command(extra: str, package: Path = Path(__file__).parents[1]) -> str:
    """Return the command that installs an extra, and works where Sertone was installed from.

    In a clone pip is given the clone, which stays editable. Elsewhere pip finds the installed Sertone by its
    name, and adds what the extra needs.

    Args:
        extra: such as `media`; several are joined by commas.
        package: folder of the package.
    """
    clone = package.parent
    if not (clone / "pyproject.toml").is_file():
        return f'pip install "sertone[{extra}]"'
    where = "." if clone == Path.cwd() else clone
    return f'pip install -e "{where}[{extra}]"'


def install_command_for(module: str | None) -> str:
    """Return the command that installs a module which could not be imported.

    Args:
        module: its name, as `ModuleNotFoundError.name` says.
    """
    return install_command(MODULES.get((module or "").partition(".")[0], "train"))

"""Optional extras of Sertone, and the commands that install them."""

from pathlib import Path

MODULES = {
    "av": "media",
    "espeakng_loader": "demo",
    "faster_whisper": "asr",
    "httpx2": "hub",
    "huggingface_hub": "hub",
    "peft": "lora",
    "PIL": "png",
    "python_stretch": "perturb",
    "scipy": "perturb",
    "sounddevice": "listen",
    "tensorboard": "log",
    "tokenizers": "text",
}
"""Module -> the smallest extra that includes it. All other modules come with `train`."""


def install_command(extra: str, package: Path = Path(__file__).parents[1]) -> str:
    """Return the pip command that adds an extra to this installation.

    For a clone, the command names the clone, which stays editable. Otherwise pip finds the installed Sertone
    by its name.

    Args:
        extra: such as `media`; separate several extras by commas.
        package: folder of the package.
    """
    clone = package.parent
    if not (clone / "pyproject.toml").is_file():
        return f'pip install "sertone[{extra}]"'
    target = "." if clone == Path.cwd() else clone
    return f'pip install -e "{target}[{extra}]"'


def install_command_for(module: str | None) -> str:
    """Return the command that installs a missing module.

    Args:
        module: name of the module, from `ModuleNotFoundError.name`.
    """
    return install_command(MODULES.get((module or "").partition(".")[0], "train"))

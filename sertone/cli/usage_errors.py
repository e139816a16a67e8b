"""What is wrong with a command line, in words: found, what may be meant, and where to look."""

from cyclopts.exceptions import (
    CycloptsError,
    MissingArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from sertone.errors import join_parts
from sertone.utils.suggestions import did_you_mean, explain_name

OTHER_COMMANDS = {
    **dict.fromkeys(("cv", "cross-validate", "cross_validate", "kfold"), "crossval"),
    **dict.fromkeys(("fit", "finetune", "fine-tune", "fine_tune"), "train"),
    **dict.fromkeys(("test", "score", "benchmark"), "evaluate"),
    **dict.fromkeys(("infer", "inference", "classify", "recognize", "recognise", "run"), "predict"),
    **dict.fromkeys(("datasets", "dataset", "data", "check"), "corpora"),
    **dict.fromkeys(("upload", "publish"), "push"),
    **dict.fromkeys(("studies", "models", "configs"), "recipes"),
    **dict.fromkeys(("tune", "search", "gridsearch", "sweep"), "choose"),
    **dict.fromkeys(("onnx", "convert"), "export"),
    **dict.fromkeys(("mic", "microphone", "stream", "live"), "listen"),
    **dict.fromkeys(("describe", "summary"), "info"),
}
"""What other programs call a command -> its name here."""


def describe_usage_error(error: CycloptsError) -> str:
    """Return one line about a command line that cannot be parsed.

    Args:
        error: what the parser says.
    """
    command = " ".join(("sertone", *(error.command_chain or ())))
    parts = _parts(error, command) or [str(error).rstrip(".")]
    return join_parts(*parts, f"`{command} --help` shows what it takes")


def _parts(error: CycloptsError, command: str) -> list[str]:
    """Found, and what may be meant; empty where the parser's own words are good."""
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        return _unknown_command(error, error.unused_tokens[0])
    if isinstance(error, UnknownOptionError):
        return _unknown_option(error)
    if isinstance(error, UnusedCliTokensError):
        token = (error.unused_tokens or [""])[0]
        setting = f"settings are changed with --set {token}" if "=" in token else ""
        return [f"{command} takes no further argument '{token}'", setting]
    if isinstance(error, MissingArgumentError) and error.argument:
        return [f"{command} needs {error.argument.name.lstrip('-').upper()}"]
    return []


def _unknown_command(error: UnknownCommandError, name: str) -> list[str]:
    commands = [other for other in error.app or () if not other.startswith("-")]
    other = OTHER_COMMANDS.get(name.lower(), "")
    meant = f"it is called {other!r} here" if other in commands else did_you_mean(name, commands)
    return [f"unknown command '{name}'", meant, f"commands: {', '.join(sorted(commands))}"]


def _unknown_option(error: UnknownOptionError) -> list[str]:
    name = (error.token.keyword or error.token.value).partition("=")[0]
    arguments = (argument for argument in error.argument_collection if argument.parse)
    options = [option for argument in arguments for option in argument.names if option.startswith("--")]
    meant = did_you_mean(name, options)
    if not meant and "--set" in options and (setting := explain_name(name.lstrip("-"))):
        meant = f"{setting}; settings are changed with --set KEY=VALUE"
    return [f"unknown option {name}", meant]

"""Messages for a command line that cannot be parsed: the problem, what may be meant, and where to look."""

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
"""Name of a command in other programs -> its name here."""


def describe_usage_error(error: CycloptsError) -> str:
    """Return one line about a command line that cannot be parsed.

    Args:
        error: error of the parser.
    """
    command = " ".join(("sertone", *(error.command_chain or ())))
    parts = _describe_problem(error, command) or [str(error).rstrip(".")]
    return join_parts(*parts, f"`{command} --help` shows its options")


def _describe_problem(error: CycloptsError, command: str) -> list[str]:
    """Return the problem and what may be meant; empty where the parser's own message is good."""
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        return _describe_unknown_command(error, error.unused_tokens[0])
    if isinstance(error, UnknownOptionError):
        return _describe_unknown_option(error)
    if isinstance(error, UnusedCliTokensError):
        token = (error.unused_tokens or [""])[0]
        suggestion = f"settings are changed with --set {token}" if "=" in token else ""
        return [f"{command} takes no further argument '{token}'", suggestion]
    if isinstance(error, MissingArgumentError) and error.argument:
        return [f"{command} requires {error.argument.name.lstrip('-').upper()}"]
    return []


def _describe_unknown_command(error: UnknownCommandError, name: str) -> list[str]:
    commands = [command for command in error.app or () if not command.startswith("-")]
    synonym = OTHER_COMMANDS.get(name.lower(), "")
    suggestion = f"it is called {synonym!r} here" if synonym in commands else did_you_mean(name, commands)
    return [f"unknown command '{name}'", suggestion, f"commands: {', '.join(sorted(commands))}"]


def _describe_unknown_option(error: UnknownOptionError) -> list[str]:
    name = (error.token.keyword or error.token.value).partition("=")[0]
    arguments = (argument for argument in error.argument_collection if argument.parse)
    options = [option for argument in arguments for option in argument.names if option.startswith("--")]
    suggestion = did_you_mean(name, options)
    # Many unknown options are settings of a recipe, such as --epochs.
    if not suggestion and "--set" in options and (setting := explain_name(name.lstrip("-"))):
        suggestion = f"{setting}; settings are changed with --set KEY=VALUE"
    return [f"unknown option {name}", suggestion]

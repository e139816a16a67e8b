"""The command line: parse, one library call, print. Results on stdout, progress on stderr.

Exit status: 0 all well; 1 a problem was found, or some items failed; 2 the command could not run.
"""

import io
import os
import select
import sys
import traceback
import warnings

from cyclopts import CycloptsError

from sertone.cli import (  # noqa: F401  importing a module registers its commands
    audit,
    corpora,
    export,
    layers,
    listen,
    models,
    predict,
    recipes,
    training,
)
from sertone.cli.common import app
from sertone.cli.usage_errors import describe_usage_error
from sertone.errors import SertoneError, is_out_of_memory
from sertone.utils.extras import install_command_for
from sertone.utils.terminal import print_status, print_text

MORE_MEMORY = "a smaller model, fewer --jobs, a lower train.batch_seconds or train.audio_cache_gb need less"
"""The way out when memory is short and no batch is to blame."""


def main() -> None:
    """Run the command line and exit with its status; of several processes (torchrun), the first prints."""
    if os.environ.get("RANK", "0") != "0":
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    elif isinstance(sys.stdout, io.TextIOWrapper):
        # JSON is UTF-8. A file name that cannot be encoded must not end a run.
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    warnings.showwarning = lambda message, *_, **__: print_status(
        f"warning  {' '.join(str(message).split())}"
    )
    try:
        status = app(exit_on_error=False, print_error=False)
    except (Exception, KeyboardInterrupt) as error:
        status = _handle_error(error)
    sys.exit(status)


def _handle_error(error: BaseException) -> int:
    """Print an error, and return the exit status."""
    match error:
        case CycloptsError():
            print_status(f"error [bad_command] {describe_usage_error(error)}")
        case SertoneError():
            print_status(f"error [{error.code}] {error}")
        case ModuleNotFoundError():
            print_status(
                f"error [missing_extra] {error.name} is not installed; {install_command_for(error.name)}"
            )
        case BrokenPipeError() if _is_output_closed():
            return 1
        case OSError():
            print_status(f"error [os] {error}")
        case KeyboardInterrupt():
            print_status(
                "interrupted; the same command resumes from the last save (`predict --out`: with --resume)"
            )
        case _ if is_out_of_memory(error):
            print_status(f"error [out_of_memory] {error}; {MORE_MEMORY}")
        case _:  # a bug in Sertone: the whole traceback, but not the status of "some items failed"
            print_text("".join(traceback.format_exception(error)), error=True)
    return 2


def _is_output_closed() -> bool:
    """Return whether nobody reads stdout any more, as after `head`; its buffer is discarded then."""
    if not hasattr(select, "poll"):  # Windows
        return False
    poll = select.poll()
    poll.register(sys.stdout, 0)
    is_closed = any(event & select.POLLERR for _, event in poll.poll(0))
    if is_closed:
        # Python flushes stdout at exit, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return is_closed

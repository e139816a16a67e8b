"""The command line: parse, one library call, print. Results on stdout, progress on stderr.

Exit status: 0 all well; 1 something was found wrong or some items failed; 2 could not run.
"""

import io
import os
import select
import sys
import traceback
import warnings

from cyclopts import CycloptsError

from sertone.cli import (  # noqa: F401  each adds its commands
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
"""The way out where memory was short and no batch is to blame."""


def _read_enough() -> bool:
    """Whether nobody reads stdout any more, as after `head`; what is left in its buffer then goes nowhere."""
    if not hasattr(select, "poll"):  # Windows
        return False
    poll = select.poll()
    poll.register(sys.stdout, 0)
    gone = any(event & select.POLLERR for _, event in poll.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone


def main() -> None:
    """Runs the command line and exits with its status. Of several ranks (torchrun) the first one prints."""
    if os.environ.get("RANK", "0") != "0":
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    elif isinstance(sys.stdout, io.TextIOWrapper):  # JSON is UTF-8, and no name of a file ends a run
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    warnings.showwarning = lambda message, *_, **__: print_status(
        f"warning  {' '.join(str(message).split())}"
    )
    try:
        status = app(exit_on_error=False, print_error=False)
    except CycloptsError as error:
        print_status(f"error [bad_command] {describe_usage_error(error)}")
        status = 2
    except SertoneError as error:
        print_status(f"error [{error.code}] {error}")
        status = 2
    except ModuleNotFoundError as error:
        print_status(
            f"error [missing_extra] {error.name} is not installed; {install_command_for(error.name)}"
        )
        status = 2
    except OSError as error:
        status = 1 if isinstance(error, BrokenPipeError) and _read_enough() else 2
        if status == 2:
            print_status(f"error [os] {error}")
    except Exception as error:  # a fault of ours: shown whole, but told apart from "some items failed"
        if is_out_of_memory(error):
            print_status(f"error [out_of_memory] {error}; {MORE_MEMORY}")
        else:
            print_text(traceback.format_exc(), error=True)
        status = 2
    except KeyboardInterrupt:
        print_status(
            "interrupted; the same command goes on from the last save (`predict --out`: with --resume)"
        )
        status = 2
    sys.exit(status)

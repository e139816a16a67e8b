"""The program, and the parameters that several commands have."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter, validators

from sertone import __version__

app = App(
    name="sertone",
    help="Speech emotion recognition: train, check and use models that one can believe.",
    version=__version__,
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # main() says how to go on
)
corpora_app = App(name="corpora", help="What can be read, and whether a copy of it is sound.")
app.command(corpora_app)

Flag = Annotated[bool, Parameter(negative="")]
RecipePath = Annotated[Path, Parameter(help="YAML file, see recipes/.")]
Overrides = Annotated[
    list[str] | None,
    Parameter(name="--set", negative="", help="Change a setting: --set train.seed=1. May be repeated."),
]
Force = Annotated[Flag, Parameter(help="Go on although recipe or data have changed since the run began.")]
Jobs = Annotated[
    int | None,
    Parameter(
        validator=validators.Number(gte=1),
        help="Folds trained side by side; one per card, or one per core, if not given.",
    ),
]
Fresh = Annotated[Flag, Parameter(help="Throw away what a run has written there, and begin again.")]


def score_line(scores: dict) -> str:
    """Pooled scores of emotion in one line."""
    over = scores["intervals"].get("speakers")
    span = "one speaker: no interval"
    if over:
        low, high = over["ua"]
        span = f"95 % interval over {over['units']} speakers {low:.1%} to {high:.1%}"
    return f"UA {scores['ua']:.1%} ({span}), WA {scores['wa']:.1%}"

"""The corpora: one data sheet per file, and the folder is the list.

Each module's docstring says what the corpus is, who made it, its licence and its file tree. Each has

    TITLE, CITATION            for protocol cards and reports
    LICENCE                    `licences.Licence`: what its owners allow
    LANGUAGE                   ISO 639-1 code; empty where the user's data decide
    NOTE                       what to keep in mind when reading scores on it
    EMOTIONS                   raw label -> name in `labels.EMOTIONS`
    SCALES                     rating -> `labels.Scale`
    utterances(root, report)   the reader; problems go to `report`
    fake(root, full=False)     writes a synthetic miniature of the real tree; `segments=N`
                               where there is no one size

and may have

    release(root)              which release a copy looks like, and by what; `check` says it
    CLASSES                    the class map of its recipes; `four` if not given
    PROTOCOL                   how its recipes split it, as `protocol` of one; `grouped_k_fold` if not given

The reader may take options of `data` in a recipe as keyword arguments: `columns`, `speaker_pattern`.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sertone.corpora._duplicates import find_duplicates
from sertone.errors import SertoneError
from sertone.labels import Scale
from sertone.schema import Problem, ReportProblem, Utterance, raise_on_error
from sertone.scoring.display import format_count
from sertone.utils.suggestions import did_you_mean

if TYPE_CHECKING:  # the light half does without pydantic
    from sertone.recipe import DataConfig


SELECTED_BY = ("speaker", "session", "split")
"""What utterances can be chosen by beside their labels."""


def list_names() -> list[str]:
    """The names of all corpora."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in found if not name.startswith("_"))


def load_sheet(name: str) -> ModuleType:
    """The module of one corpus.

    Raises:
        SertoneError: `unknown_corpus`.
    """
    if name not in list_names():
        known, near = list_names(), did_you_mean(name, list_names())
        raise SertoneError("unknown_corpus", f"corpus {name!r}", f"one of {', '.join(known)}", near)
    return importlib.import_module(f"sertone.corpora.{name}")


def resolve_scales(data: "DataConfig") -> dict[str, Scale]:
    """Rating -> its scale, as the data sheet of the corpus says; what the recipe says goes before.

    Raises:
        SertoneError: `unknown_corpus`.
    """
    return load_sheet(data.corpus).SCALES | {name: Scale(*ends) for name, ends in data.scales.items()}


def read_utterances(
    name: str,
    root: str | Path,
    report: ReportProblem = raise_on_error,
    *,
    labelled: bool = True,
    **options: Any,
) -> Iterator[Utterance]:
    """The utterances of a corpus, in a fixed order.

    Args:
        name: one of `names()`.
        root: its folder, or the manifest's file.
        report: called with every problem; by default an error ends the reading.
        labelled: or else a manifest needs neither labels nor speakers.
        options: of its reader, such as `columns`, as `data` of a recipe has them.

    Raises:
        SertoneError: `unknown_corpus`, `missing_root`, `no_such_option`, or the code of the first problem.
    """
    module, root = load_sheet(name), Path(root)
    if not root.exists():
        raise SertoneError(
            "missing_root",
            f"{root} does not exist",
            f"the root of {name}",
            "name your copy (in a recipe: --set data.root=PATH); to try things on, "
            f"`sertone corpora fake {name} {root}` writes a synthetic miniature",
        )
    for option in options:
        _require_taken(option, name)
    if _takes(name, "labelled"):
        options["labelled"] = labelled
    return module.utterances(root, report, **options)


def _takes(name: str, option: str) -> bool:
    return option in inspect.signature(load_sheet(name).utterances).parameters


def _require_taken(option: str, name: str) -> None:
    if not _takes(name, option):
        raise SertoneError(
            "no_such_option",
            f"{option} for {name}, whose files say it themselves",
            f"one of {', '.join(other for other in list_names() if _takes(other, option))}",
            f"leave data.{option} or --{option.replace('_', '-')} out",
        )


def fake(name: str, root: str | Path, full: bool = False, segments: int | None = None) -> None:
    """Writes a synthetic miniature of a corpus's tree into an empty or new folder.

    Args:
        name: one of `names()`.
        root: the folder.
        full: as many utterances as the real corpus, or what its sheet says.
        segments: how many utterances, of a corpus that has no one size (`msp_podcast`).

    Raises:
        SertoneError: `unknown_corpus`; `no_choice_of_size`; `not_empty`, as no real corpus is overwritten.
    """
    module, root = load_sheet(name), Path(root)
    sizes = [
        other for other in list_names() if "segments" in inspect.signature(load_sheet(other).fake).parameters
    ]
    if segments is not None and (name not in sizes or segments < 1):
        raise SertoneError(
            "no_choice_of_size",
            f"{format_count(segments, 'segment')} of {name}",
            f"1 or more, and of {', '.join(sizes)} only; the others have one size, and another with `full`",
        )
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise SertoneError("not_empty", f"{root} is there already", "a new or empty folder")
    module.fake(root, full, **({} if segments is None else {"segments": segments}))


def load(
    name: str,
    root: str | Path,
    only: Mapping[str, Sequence[str]] | None = None,
    *,
    labelled: bool = True,
    **options: Any,
) -> list[Utterance]:
    """The utterances of a corpus that is fit to train on.

    Args:
        name: one of `names()`.
        root: its folder, or the manifest's file.
        only: what of them to take: `speaker`, `session`, `split` or a label -> values; None: all.
        labelled: or else a manifest needs neither labels nor speakers, unless it is chosen by labels.
        options: of its reader, as `utterances` takes them.

    Raises:
        SertoneError: as `utterances`; `duplicate_id`, `conflicting_labels`, `duplicate_row`,
            `missing_file`, `nothing_selected`.
    """
    only = only or {}
    labelled = labelled or not set(only) <= set(SELECTED_BY)
    found = _selected(list(read_utterances(name, root, labelled=labelled, **options)), only)
    for problem in find_duplicates(found):
        raise_on_error(problem)
    if missing := [u.path for u in found if not u.path.is_file()]:
        more = f"; and {format_count(len(missing) - 1, 'other file')}" if len(missing) > 1 else ""
        raise_on_error(Problem("missing_file", str(missing[0]), f"no such file{more}"))
    return found


def _selected(found: list[Utterance], only: Mapping[str, Sequence[str]]) -> list[Utterance]:
    for name, wanted in only.items():
        there = {value for u in found if (value := _said(u, name))}
        if strange := [value for value in wanted if value not in there]:
            known = ", ".join(sorted(there)[:20]) + (", ..." if len(there) > 20 else "")
            raise SertoneError(
                "nothing_selected",
                f"data.only: no utterance has {name} {', '.join(strange)}",
                f"some of {known}" if there else f"another name: none has a {name}",
            )
        chosen = set(wanted)
        found = [u for u in found if _said(u, name) in chosen]
    return found


def _said(utterance: Utterance, name: str) -> str | None:
    """What the corpus says of an utterance under a name."""
    value = getattr(utterance, name) if name in SELECTED_BY else utterance.labels.get(name)
    return None if value is None else str(value)

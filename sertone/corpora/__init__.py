"""The corpora: one data sheet per file; the files of this folder are the list of corpora.

The docstring of each module describes the corpus, its authors, its licence and its file tree. Each module has

    TITLE, CITATION            for protocol cards and reports
    LICENCE                    `licences.Licence`: what its owners allow
    LANGUAGE                   ISO 639-1 code; empty if the user's data decide
    NOTE                       a caution for readers of its scores
    EMOTIONS                   raw label -> name in `labels.EMOTIONS`
    SCALES                     rating -> `labels.Scale`
    load_utterances(root, report)   the reader; problems go to `report`
    fake(root, full=False)     writes a synthetic miniature of the real tree; with the option `segments=N`
                               if the corpus has no fixed size

and may have

    guess_release(root)        the release that a copy looks like, and why; `check` reports it
    CLASSES                    the class map of its recipes; `four` if it is missing
    PROTOCOL                   the split of its recipes, as `protocol` of a recipe; `grouped_k_fold` if it is
                               missing

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
from sertone.utils.suggestions import did_you_mean
from sertone.utils.wording import format_count

if TYPE_CHECKING:  # prediction runs without pydantic, which recipes need
    from sertone.recipe import DataConfig


SELECTION_FIELDS = ("speaker", "session", "split")
"""Attributes, beside the labels, by which utterances can be selected."""


def list_names() -> list[str]:
    """Return the names of all corpora."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in names if not name.startswith("_"))  # helpers begin with an underscore


def load_sheet(name: str) -> ModuleType:
    """Return the data sheet of a corpus, which is its module.

    Raises:
        SertoneError: `unknown_corpus`.
    """
    names = list_names()
    if name not in names:
        raise SertoneError(
            "unknown_corpus", f"corpus {name!r}", f"one of {', '.join(names)}", did_you_mean(name, names)
        )
    return importlib.import_module(f"sertone.corpora.{name}")


def resolve_scales(data: "DataConfig") -> dict[str, Scale]:
    """Return rating -> its scale, from the data sheet; scales in the recipe override it.

    Raises:
        SertoneError: `unknown_corpus`.
    """
    return load_sheet(data.corpus).SCALES | {name: Scale(*ends) for name, ends in data.scales.items()}


def load_utterances(
    name: str,
    root: str | Path,
    report: ReportProblem = raise_on_error,
    *,
    labelled: bool = True,
    **options: Any,
) -> Iterator[Utterance]:
    """Yield the utterances of a corpus in a fixed order.

    Args:
        name: one of `list_names()`.
        root: its folder, or the manifest's file.
        report: called with every problem; by default, an error ends the reading.
        labelled: if false, a manifest needs neither labels nor speakers.
        options: options of its reader, such as `columns`, as in `data` of a recipe.

    Raises:
        SertoneError: `unknown_corpus`, `missing_root`, `no_such_option`, or the code of the first problem.
    """
    sheet, root = load_sheet(name), Path(root)
    if not root.exists():
        raise SertoneError(
            "missing_root",
            f"{root} does not exist",
            f"the folder of {name}",
            "give the path of your copy (in a recipe: --set data.root=PATH); to try it without a copy, "
            f"`sertone corpora fake {name} {root}` writes a synthetic miniature",
        )
    for option in options:
        _require_option(option, name)
    if _accepts_option(name, "labelled"):
        options["labelled"] = labelled
    return sheet.load_utterances(root, report, **options)


def _accepts_option(name: str, option: str) -> bool:
    return option in inspect.signature(load_sheet(name).load_utterances).parameters


def _require_option(option: str, name: str) -> None:
    if not _accepts_option(name, option):
        raise SertoneError(
            "no_such_option",
            f"{option} for {name}, whose files already contain this information",
            f"one of {', '.join(other for other in list_names() if _accepts_option(other, option))}",
            f"leave out data.{option} or --{option.replace('_', '-')}",
        )


def fake(name: str, root: str | Path, full: bool = False, segments: int | None = None) -> None:
    """Write a synthetic miniature of a corpus's tree into an empty or new folder.

    Args:
        name: one of `list_names()`.
        root: the folder.
        full: write as many utterances as the real corpus has, or as its sheet states.
        segments: number of utterances, for a corpus without a fixed size (`msp_podcast`).

    Raises:
        SertoneError: `unknown_corpus`, `no_choice_of_size`; `not_empty`, so that no real corpus is
            overwritten.
    """
    sheet, root = load_sheet(name), Path(root)
    sizable = [
        other for other in list_names() if "segments" in inspect.signature(load_sheet(other).fake).parameters
    ]
    if segments is not None and (name not in sizable or segments < 1):
        raise SertoneError(
            "no_choice_of_size",
            f"{format_count(segments, 'segment')} of {name}",
            f"1 or more segments of {', '.join(sizable)} only; the other corpora have a fixed size, and a "
            "larger one with `full`",
        )
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise SertoneError("not_empty", f"{root} already exists", "a new or empty folder")
    if segments is None:
        sheet.fake(root, full)
    else:
        sheet.fake(root, full, segments=segments)


def load(
    name: str,
    root: str | Path,
    only: Mapping[str, Sequence[str]] | None = None,
    *,
    labelled: bool = True,
    **options: Any,
) -> list[Utterance]:
    """Return the utterances of a corpus after checking that they can be trained on.

    Args:
        name: one of `list_names()`.
        root: its folder, or the manifest's file.
        only: the selection: `speaker`, `session`, `split` or a label -> values; None: all utterances.
        labelled: if false, a manifest needs neither labels nor speakers, unless `only` selects by labels.
        options: options of its reader, as in `load_utterances`.

    Raises:
        SertoneError: as `load_utterances`; `duplicate_id`, `conflicting_labels`, `duplicate_row`,
            `missing_file`, `nothing_selected`.
    """
    only = only or {}
    # A selection by a label needs the labels.
    labelled = labelled or not set(only) <= set(SELECTION_FIELDS)
    utterances = _select(list(load_utterances(name, root, labelled=labelled, **options)), only)
    for problem in find_duplicates(utterances):
        raise_on_error(problem)
    if missing := [u.path for u in utterances if not u.path.is_file()]:
        more = f"; and {format_count(len(missing) - 1, 'other file')}" if len(missing) > 1 else ""
        raise_on_error(Problem("missing_file", str(missing[0]), f"no such file{more}"))
    return utterances


def _select(utterances: list[Utterance], only: Mapping[str, Sequence[str]]) -> list[Utterance]:
    for field, wanted in only.items():
        present = {value for u in utterances if (value := _get_value(u, field))}
        if missing := [value for value in wanted if value not in present]:
            values = ", ".join(sorted(present)[:20]) + (", ..." if len(present) > 20 else "")
            raise SertoneError(
                "nothing_selected",
                f"data.only: no utterance has {field} {', '.join(missing)}",
                f"some of {values}" if present else f"another name: no utterance has a {field}",
            )
        selected = set(wanted)
        utterances = [u for u in utterances if _get_value(u, field) in selected]
    return utterances


def _get_value(utterance: Utterance, field: str) -> str | None:
    """Return the attribute or the label of an utterance as text; None if it has none."""
    value = getattr(utterance, field) if field in SELECTION_FIELDS else utterance.labels.get(field)
    return None if value is None else str(value)

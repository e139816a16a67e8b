"""Commands about corpora."""

import inspect
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from sertone import corpora, licences
from sertone.cli.common import Flag, corpora_app
from sertone.cli.reader_options import NO_READER_OPTIONS, ReaderOptions, parse_classes
from sertone.schema import Problem
from sertone.scoring.display import format_count
from sertone.utils.terminal import print_text


@corpora_app.command(name="list")
def list_corpora(name: str | None = None, /) -> int:
    """List the corpora that can be read, or show the data sheet of one.

    Args:
        name: a corpus; its files, labels and traps are shown.
    """
    if name:
        print_text(inspect.cleandoc(corpora.load_sheet(name).__doc__ or ""))
        return 0
    for name in corpora.list_names():
        sheet = corpora.load_sheet(name)
        print_text(f"{name:11} {(sheet.__doc__ or '').splitlines()[0]}")
        print_text(f"{'':11} licence: {licences.describe_licence(asdict(sheet.LICENCE))}")
    return 0


@corpora_app.command
def check(
    name: str,
    root: Path,
    /,
    *,
    classes: str | None = None,
    split: str | None = None,
    folds: int = 5,
    unknown_speakers: Literal["refuse", "accept"] | None = None,
    reader: ReaderOptions = NO_READER_OPTIONS,
    json_: Annotated[Flag, Parameter(name="--json")] = False,
) -> int:
    """Count a corpus, list every problem of it, and what training would refuse.

    Args:
        name: the corpus, see `sertone corpora list`.
        root: its folder, or the manifest's file.
        classes: `four` (neutral, happy with excited, angry, sad), `all`, or a map such as
            `annoyed=angry,calm=neutral`; if not given, as in the recipes for this corpus.
        split: the rule of the folds, as `protocol.split` of a recipe; if not given, as in the recipes for
            this corpus.
        folds: how many folds `grouped_k_fold` makes.
        unknown_speakers: whether utterances without a known speaker are refused, as
            `protocol.unknown_speakers` of a recipe; if not given, as in the recipes for this corpus.
        json_: print one JSON object instead of tables.
    """
    from sertone.corpora._check import check as examine

    sheet = corpora.load_sheet(name)
    chosen = parse_classes(classes or getattr(sheet, "CLASSES", "four"))
    protocol = {"split": "grouped_k_fold", "folds": folds, **getattr(sheet, "PROTOCOL", {})}
    asked = {"split": split, "unknown_speakers": unknown_speakers}
    protocol |= {name: value for name, value in asked.items() if value}
    rehearsal = _rehearsal({"corpus": name, "root": str(root), "classes": chosen}, protocol)
    report = examine(name, root, chosen, **rehearsal, **reader.to_keywords())
    if json_:
        print_text(json.dumps(report.to_json(), ensure_ascii=False))
    else:
        print_text(report.to_text())
    return 0 if report.is_sound else 1


def _rehearsal(data: dict[str, Any], protocol: dict[str, Any]) -> dict[str, Any]:
    """Return what tries out the folds, and its name; without the packages of training a note of that."""
    try:
        from sertone.protocol.corpus_split import describe_rule, find_split_problems
        from sertone.recipe import DataConfig, ProtocolConfig
        from sertone.recipe.settings import parse
    except ModuleNotFoundError as error:
        message = f"{error.name} is not installed, so no folds were tried; the extra `train` has it"
        return {"rehearse": lambda _: [Problem("folds_not_tried", "(folds)", message, "note")]}
    rule = parse(ProtocolConfig, protocol, "corpora check", "bad_command")
    chosen = parse(DataConfig, data, "corpora check", "bad_command")
    classes = chosen.classes if isinstance(chosen.classes, str) else "the given classes"
    return {
        "rehearse": lambda found: find_split_problems(found, chosen, rule),
        "checked_for": f"classes: {classes}, split: {describe_rule(rule)}",
    }


@corpora_app.command
def fake(name: str, root: Path, /, *, full: Flag = False, segments: int | None = None) -> int:
    """Write a synthetic miniature of a corpus's file tree.

    Args:
        name: the corpus.
        root: where to write it; made if need be.
        full: as many utterances as the real corpus; of `demo`, ten more voices; of `msp_podcast`, 5000.
        segments: of `msp_podcast`, whose releases differ in size, as many as wanted.
    """
    corpora.fake(name, root, full, segments)
    print_text(root)
    return 0


@corpora_app.command
def export(name: str, root: Path, out: Path, /, *, reader: ReaderOptions = NO_READER_OPTIONS) -> int:
    """Write a corpus as a manifest (CSV) that `manifest` reads.

    Args:
        name: the corpus.
        root: its folder.
        out: the CSV file.
    """
    from sertone.corpora._export import export as write

    print_text(f"{format_count(write(name, root, out, **reader.to_keywords()), 'utterance')} in {out}")
    return 0

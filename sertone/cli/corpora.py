"""Commands about corpora: list, check, imitate and export them."""

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
from sertone.utils.terminal import print_text
from sertone.utils.wording import format_count


@corpora_app.command(name="list")
def list_corpora(name: str | None = None, /) -> int:
    """List the corpora that Sertone reads, or show the data sheet of one.

    Args:
        name: Name of a corpus. Shows its files, its labels and its pitfalls.
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
    """Check a copy of a corpus: count it, list its problems, and list what training would refuse.

    Args:
        name: Name of the corpus, see `sertone corpora list`.
        root: Folder of the corpus, or the file of a manifest.
        classes: `four` (neutral, happy with excited, angry, sad), `all`, or a map such as
            `annoyed=angry,calm=neutral`. Default: as in the recipes for this corpus.
        split: Rule by which folds are made, as `protocol.split` of a recipe. Default: as in the recipes for
            this corpus.
        folds: Number of folds that `grouped_k_fold` makes.
        unknown_speakers: Refuse or accept utterances without a known speaker, as
            `protocol.unknown_speakers` of a recipe. Default: as in the recipes for this corpus.
        json_: Print one JSON object instead of tables.
    """
    from sertone.corpora._check import check as check_corpus

    sheet = corpora.load_sheet(name)
    class_map = parse_classes(classes or getattr(sheet, "CLASSES", "four"))
    # The data sheet of a corpus may fix the protocol of its recipes. Options of the command take precedence.
    protocol = {"split": "grouped_k_fold", "folds": folds, **getattr(sheet, "PROTOCOL", {})}
    options = {"split": split, "unknown_speakers": unknown_speakers}
    protocol |= {key: value for key, value in options.items() if value}
    rehearsal = _build_rehearsal({"corpus": name, "root": str(root), "classes": class_map}, protocol)
    report = check_corpus(name, root, class_map, **rehearsal, **reader.to_keywords())
    if json_:
        print_text(json.dumps(report.to_json(), ensure_ascii=False))
    else:
        print_text(report.to_text())
    return 0 if report.is_sound else 1


def _build_rehearsal(data: dict[str, Any], protocol: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments `rehearse` and `checked_for` of the corpus check: it tries to make the folds.

    Where the packages for training are not installed, `rehearse` only notes that.
    """
    try:
        from sertone.protocol.corpus_split import describe_rule, find_split_problems
        from sertone.recipe import DataConfig, ProtocolConfig
        from sertone.recipe.settings import parse
    except ModuleNotFoundError as error:
        message = f"{error.name} is not installed, so no folds were tried; the extra `train` installs it"
        return {"rehearse": lambda _: [Problem("folds_not_tried", "(folds)", message, "note")]}
    rule = parse(ProtocolConfig, protocol, "corpora check", "bad_command")
    config = parse(DataConfig, data, "corpora check", "bad_command")
    classes = config.classes if isinstance(config.classes, str) else "the given classes"
    return {
        "rehearse": lambda utterances: find_split_problems(utterances, config, rule),
        "checked_for": f"classes: {classes}, split: {describe_rule(rule)}",
    }


@corpora_app.command
def fake(name: str, root: Path, /, *, full: Flag = False, segments: int | None = None) -> int:
    """Write a synthetic miniature of a corpus, with the file tree of the real one.

    Args:
        name: Name of the corpus.
        root: Folder to write. It is created if it does not exist.
        full: Write as many utterances as the real corpus has; for `demo`, ten more speakers; for
            `msp_podcast`, 5000 utterances.
        segments: Number of utterances, for `msp_podcast` only: its releases differ in size.
    """
    corpora.fake(name, root, full, segments)
    print_text(root)
    return 0


@corpora_app.command
def export(name: str, root: Path, out: Path, /, *, reader: ReaderOptions = NO_READER_OPTIONS) -> int:
    """Write a corpus as a manifest: a CSV table that the corpus `manifest` reads.

    Args:
        name: Name of the corpus.
        root: Folder of the corpus.
        out: CSV file to write.
    """
    from sertone.corpora._export import export as export_manifest

    count = export_manifest(name, root, out, **reader.to_keywords())
    print_text(f"{format_count(count, 'utterance')} in {out}")
    return 0

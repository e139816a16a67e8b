"""Commands about corpora."""

import inspect
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from sertone import corpora, licences
from sertone.cli.parts import Flag, corpora_app
from sertone.terminal import say


@corpora_app.command(name="list")
def list_corpora(name: str | None = None, /) -> int:
    """List the corpora that can be read, or show the data sheet of one.

    Args:
        name: a corpus; its files, labels and traps are shown.
    """
    if name:
        say(inspect.cleandoc(corpora.sheet(name).__doc__ or ""))
        return 0
    for name in corpora.names():
        sheet = corpora.sheet(name)
        say(f"{name:11} {(sheet.__doc__ or '').splitlines()[0]}")
        say(f"{'':11} licence: {licences.in_words(asdict(sheet.LICENCE))}")
    return 0


@corpora_app.command
def check(
    name: str,
    root: Path,
    /,
    *,
    classes: str = "all",
    json_: Annotated[Flag, Parameter(name="--json")] = False,
) -> int:
    """Count a corpus and list every problem of it.

    Args:
        name: the corpus, see `sertone corpora list`.
        root: its folder, or the manifest's file.
        classes: `four` (neutral, happy with excited, angry, sad) or `all`.
        json_: print one JSON object instead of tables.
    """
    from sertone.corpora._check import check as examine

    report = examine(name, root, classes)
    if json_:
        say(json.dumps(report.to_json(), ensure_ascii=False))
    else:
        say(report.to_text())
    return 0 if report.sound else 1


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
    say(root)
    return 0


@corpora_app.command
def export(name: str, root: Path, out: Path, /) -> int:
    """Write a corpus as a manifest (CSV) that `manifest` reads.

    Args:
        name: the corpus.
        root: its folder.
        out: the CSV file.
    """
    from sertone.corpora._export import export as write

    say(f"{write(name, root, out)} utterances in {out}")
    return 0

"""Commands about the recipes and studies that come with Sertone."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from sertone import catalogue
from sertone.catalogue import Entry
from sertone.cli.common import Flag, recipes_app
from sertone.errors import SertoneError
from sertone.files import write_bytes
from sertone.utils.suggestions import find_near
from sertone.utils.terminal import print_text

HEADS = {
    "recipe": "Recipes: `sertone crossval NAME` scores, `sertone train NAME` makes a model for use",
    "distillation": "Distillations: `sertone distill NAME`",
    "study": "Studies: `sertone ablate NAME`, `sertone choose NAME`",
}
ROOT = "Name your copy of the corpus: --set data.root=PATH. `sertone corpora list` describes the corpora."
Study = Annotated[Flag, Parameter(help="The study of this name, where a recipe has the same name.")]


@recipes_app.command(name="list")
def list_recipes(*, json_: Annotated[Flag, Parameter(name="--json")] = False) -> int:
    """List the recipes and studies that come with Sertone: name, data, processor, purpose.

    Args:
        json_: Print one JSON array instead of a table.
    """
    entries = catalogue.list_entries()
    if json_:
        print_text(
            json.dumps([asdict(entry) | {"path": str(entry.path)} for entry in entries], ensure_ascii=False)
        )
        return 0
    for kind, head in HEADS.items():
        print_text(head)
        for entry in (entry for entry in entries if entry.kind == kind):
            print_text(f"  {entry.name:20} {entry.device}  {entry.data:26} {entry.purpose}")
    print_text(ROOT)
    return 0


@recipes_app.command
def show(name: str, /, *, study: Study = False) -> int:
    """Print the YAML of a recipe or study.

    Args:
        name: See `sertone recipes list`.
    """
    print_text(_entry(name, study=study).path.read_text(encoding="utf-8").rstrip("\n"))
    return 0


@recipes_app.command
def copy(name: str, to: Path = Path(), /, *, study: Study = False) -> int:
    """Copy a recipe or study, to be changed. A file that exists is never overwritten.

    Args:
        name: See `sertone recipes list`.
        to: File or folder to write to; the working directory if not given.
    """
    source = _entry(name, study=study).path
    target = to / source.name if to.is_dir() else to
    if target.suffix not in (".yaml", ".yml"):
        raise SertoneError(
            "bad_output", f"no folder {to}", "a folder that exists, or a name that ends in .yaml"
        )
    if target.exists():
        way_out = f"name another file: `sertone recipes copy {name} FILE.yaml`"
        raise SertoneError("output_exists", f"{target} is there already", "a new file", way_out)
    write_bytes(target, source.read_bytes())
    print_text(target)
    return 0


def _entry(name: str, *, study: bool) -> Entry:
    """Return what has this name: a recipe first, or a study.

    Raises:
        SertoneError: `missing_recipe`.
    """
    entries = catalogue.list_entries()
    same = [entry for entry in entries if entry.name == Path(name).stem]
    if found := [entry for entry in same if entry.kind == "study" or not study]:
        return found[0]
    names = ", ".join(find_near(name, (entry.name for entry in entries), catalogue.SHOWN))
    way_out = f"{f'near names: {names}; ' if names else ''}`sertone recipes list` shows all"
    raise SertoneError("missing_recipe", f"no recipe or study is called {name}", way_out=way_out)

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

HEADINGS = {
    "recipe": "Recipes: `sertone crossval NAME` scores, `sertone train NAME` makes a model for use",
    "distillation": "Distillations: `sertone distill NAME`",
    "study": "Studies: `sertone ablate NAME`, `sertone choose NAME`",
}
ROOT_HINT = (
    "Name your copy of the corpus: --set data.root=PATH. `sertone corpora list` describes the corpora."
)
Study = Annotated[Flag, Parameter(help="Use the study, if a recipe and a study have this name.")]


@recipes_app.command(name="list")
def list_recipes(*, json_: Annotated[Flag, Parameter(name="--json")] = False) -> int:
    """List the recipes and studies that come with Sertone: name, data, processor, purpose.

    Args:
        json_: Print one JSON array instead of a table.
    """
    entries = catalogue.list_entries()
    if json_:
        rows = [asdict(entry) | {"path": str(entry.path)} for entry in entries]
        print_text(json.dumps(rows, ensure_ascii=False))
        return 0
    width = max(len(entry.name) for entry in entries)
    for kind, heading in HEADINGS.items():
        print_text(heading)
        for entry in entries:
            if entry.kind == kind:
                print_text(f"  {entry.name:{width}} {entry.device}  {entry.data:26} {entry.purpose}")
    print_text(ROOT_HINT)
    return 0


@recipes_app.command
def show(name: str, /, *, study: Study = False) -> int:
    """Print the YAML of a recipe or study.

    Args:
        name: See `sertone recipes list`.
    """
    print_text(_find_entry(name, study=study).path.read_text(encoding="utf-8").rstrip("\n"))
    return 0


@recipes_app.command
def copy(name: str, to: Path = Path(), /, *, study: Study = False) -> int:
    """Copy a recipe or study, so that you can change it. A file that exists is never overwritten.

    Args:
        name: See `sertone recipes list`.
        to: File or folder to write to.
    """
    source = _find_entry(name, study=study).path
    target = to / source.name if to.is_dir() else to
    # Any other suffix is the misspelt name of a folder.
    if target.suffix not in (".yaml", ".yml"):
        raise SertoneError(
            "bad_output", f"no folder {to}", "a folder that exists, or a name that ends in .yaml"
        )
    if target.exists():
        way_out = f"name another file: `sertone recipes copy {name} FILE.yaml`"
        raise SertoneError("output_exists", f"{target} exists already", "a new file", way_out)
    write_bytes(target, source.read_bytes())
    print_text(target)
    return 0


def _find_entry(name: str, *, study: bool) -> Entry:
    """Return the recipe or, where there is none or `study` is set, the study of this name.

    Raises:
        SertoneError: `missing_recipe`.
    """
    entries = catalogue.list_entries()
    for entry in entries:
        if entry.name == Path(name).stem and (entry.kind == "study" or not study):
            return entry
    similar_names = ", ".join(find_near(name, (entry.name for entry in entries), catalogue.MAX_SUGGESTIONS))
    way_out = "`sertone recipes list` shows all"
    if similar_names:
        way_out = f"similar names: {similar_names}; {way_out}"
    raise SertoneError("missing_recipe", f"no recipe or study is called {name}", way_out=way_out)

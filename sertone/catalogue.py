"""The recipes and studies that come with Sertone: find them by name from any folder, and describe them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sertone.errors import SertoneError
from sertone.files import parse_yaml
from sertone.utils.suggestions import find_near

Kind = Literal["recipe", "distillation", "study"]
FOLDERS: dict[Kind, str] = {"recipe": "recipes", "distillation": "recipes", "study": "studies"}
COMMANDS: dict[Kind, str] = {"recipe": "crossval", "distillation": "distill", "study": "ablate"}
"""Kind of file -> the command that runs it."""
MAX_SUGGESTIONS = 5
"""Most similar names that an error lists."""


CORPORA = {"manifest": "your own table (manifest)", "demo": "demo (synthetic speech)"}
"""Descriptions of corpora whose names do not say which data you need."""


@dataclass(frozen=True)
class Entry:
    """The purpose and the requirements of a recipe or study.

    Attributes:
        name: the name that commands accept.
        kind: kind of file.
        purpose: the title of a study, or the first sentence of the comment in a recipe.
        data: the corpus.
        device: `GPU` if the comment at the top says that the file is for one, else `CPU`.
        path: the file.
    """

    name: str
    kind: Kind
    purpose: str
    data: str
    device: Literal["CPU", "GPU"]
    path: Path


def detect_kind(values: Mapping[str, Any]) -> Kind | None:
    """Return the kind of a file by its keys, None if they do not tell.

    Args:
        values: content of the YAML file.
    """
    if "rows" in values:
        return "study"
    if "model" in values:
        return "recipe"
    return "distillation" if "teacher" in values else None


def list_shipped(kind: Kind) -> dict[str, Path]:
    """Return name -> path of the files that come with Sertone.

    Args:
        kind: kind of file; recipes and distillations share a folder.
    """
    # The folders are inside an installed package, but next to the package in a source tree.
    package = Path(__file__).parent
    folders = (package / FOLDERS[kind], package.parent / FOLDERS[kind])
    folder = next(folder for folder in folders if folder.is_dir())
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_file(source: str | Path, kind: Kind) -> Path:
    """Return the file for a path or a name; an existing file takes precedence.

    Args:
        source: path, or name of a file that comes with Sertone.
        kind: kind of file.

    Raises:
        SertoneError: `missing_recipe` or `missing_study`.
    """
    path = Path(source)
    return path if path.is_file() else find_shipped(path, kind)


def find_shipped(source: str | Path, kind: Kind) -> Path:
    """Return a file that comes with Sertone.

    Args:
        source: `demo`, or `demo.yaml`, `recipes/demo.yaml` or `../recipes/demo.yaml`, which mean the same.
            A path into any other folder means a file of your own.
        kind: kind of file.

    Raises:
        SertoneError: `missing_recipe` or `missing_study`.
    """
    path, known = Path(source), list_shipped(kind)
    name, file = path.stem, f"{path.stem}.yaml"
    spellings = {(name,), (file,), (FOLDERS[kind], file), ("..", FOLDERS[kind], file)}
    if name in known and path.parts in spellings:
        return known[name]
    code = "missing_study" if kind == "study" else "missing_recipe"
    no_name = "" if name in known else f", and no {kind} of that name"
    raise SertoneError(code, f"no file {source}{no_name}", way_out=_suggest(path, kind))


def is_recipe(source: str | Path) -> bool:
    """Return whether a model's source is a recipe: a YAML file or the name of a recipe, not a folder."""
    path = Path(source)
    return path.suffix in (".yaml", ".yml") or (str(source) in list_shipped("recipe") and not path.exists())


def _suggest(path: Path, kind: Kind) -> str:
    """Suggest the recipe inside a folder, a file of another kind with this name, or similar names."""
    if (path / f"{kind}.yaml").is_file():
        return f"did you mean {path / f'{kind}.yaml'}?"
    if path.stem in list_shipped(kind):
        return f"`{path.stem}` without a folder is the {kind} that comes with Sertone"
    for other in FOLDERS:
        if FOLDERS[other] != FOLDERS[kind] and path.stem in list_shipped(other):
            return f"{path.stem} is a {other}: `sertone {COMMANDS[other]} {path.stem}` runs it"
    names = ", ".join(find_near(path.stem, list_shipped(kind), MAX_SUGGESTIONS))
    similar = f"similar names: {names}; " if names else ""
    return f"{similar}`sertone recipes list` shows all"


def require_kind(values: Mapping[str, Any], kind: Kind, source: str | Path) -> None:
    """Refuse a file of another kind.

    Args:
        values: content of the YAML file.
        kind: expected kind.
        source: path or name, for the error.

    Raises:
        SertoneError: `other_kind`.
    """
    actual = detect_kind(values)
    if actual not in (None, kind):
        way_out = f"`sertone {COMMANDS[actual]} {source}` runs it"
        raise SertoneError("other_kind", f"{source} is a {actual}", f"a {kind}", way_out)


def list_entries() -> list[Entry]:
    """Describe the recipes, distillations and studies that come with Sertone, in this order."""
    files = [*list_shipped("recipe").values(), *list_shipped("study").values()]
    entries = [_describe(path) for path in files]
    return sorted(entries, key=lambda entry: list(FOLDERS).index(entry.kind))


def _describe(path: Path) -> Entry:
    text = path.read_text(encoding="utf-8")
    values = parse_yaml(text)
    kind = detect_kind(values) or "recipe"
    base = find_shipped(values["recipe"], "recipe").read_text(encoding="utf-8") if kind == "study" else text
    corpus = str(parse_yaml(base)["data"]["corpus"])
    comment = _read_comment(text)
    purpose = values["title"] if kind == "study" else re.split(r"(?<=\.)\s", comment)[0].rstrip(".")
    device = "GPU" if re.search(r"\bGPU\b", comment) else "CPU"
    return Entry(path.stem, kind, str(purpose), CORPORA.get(corpus, corpus), device, path)


def _read_comment(text: str) -> str:
    """Return the comment at the top of a file, without the first line, which names the schema for editors."""
    comment = re.match(r"(?:# .*\n)*", text.partition("\n")[2])
    return " ".join(comment[0].replace("# ", " ").split()) if comment else ""

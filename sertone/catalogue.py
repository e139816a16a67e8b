"""The recipes and studies that come with Sertone: found by name from any folder, and described."""

import re
from collections.abc import Iterator, Mapping
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
SHOWN = 5
"""Near names that an error lists at most."""


CORPORA = {"manifest": "your own table (manifest)", "demo": "demo (synthetic speech)"}
"""Corpora whose names alone do not tell what is needed."""
BASE_LAYERS = 12
"""Transformer layers of a base model. Where all of them are frozen, their output is computed once."""


@dataclass(frozen=True)
class Entry:
    """What a recipe or study is for, and what it needs.

    Attributes:
        name: by which commands find it.
        kind: of file.
        purpose: a study's title, or the first sentence of a recipe's own comment.
        data: the corpus.
        device: `CPU`, or `GPU` where a pretrained encoder is trained.
        path: the file.
    """

    name: str
    kind: Kind
    purpose: str
    data: str
    device: Literal["CPU", "GPU"]
    path: Path


def detect_kind(values: Mapping[str, Any]) -> Kind | None:
    """Return the kind of file that a mapping is read from, None where its keys do not tell.

    Args:
        values: what the YAML file holds.
    """
    if "rows" in values:
        return "study"
    if "model" in values:
        return "recipe"
    return "distillation" if "teacher" in values else None


def list_shipped(kind: Kind) -> dict[str, Path]:
    """Return the files that come with Sertone by their names, such as `demo`.

    Args:
        kind: of file; recipes and distillations share a folder.
    """
    package = Path(__file__).parent  # installed: inside the package; a source tree: beside it
    folders = (package / FOLDERS[kind], package.parent / FOLDERS[kind])
    folder = next(folder for folder in folders if folder.is_dir())
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_file(source: str | Path, kind: Kind) -> Path:
    """Return the file that a path or a name means; a file that exists wins.

    Args:
        source: path, or name of a file that comes with Sertone.
        kind: of file.

    Raises:
        SertoneError: `missing_recipe` or `missing_study`.
    """
    path = Path(source)
    return path if path.is_file() else find_shipped(path, kind)


def find_shipped(source: str | Path, kind: Kind) -> Path:
    """Return the file that comes with Sertone under a name.

    Args:
        source: `demo`, or `demo.yaml`, `recipes/demo.yaml` or `../recipes/demo.yaml`, which mean the same.
            A path into any other folder means a file of your own.
        kind: of file.

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
    raise SertoneError(code, f"no file {source}{no_name}", way_out=_way_out(path, kind))


def is_recipe(source: str | Path) -> bool:
    """Return whether a source of a model means a recipe: a YAML file, or the name of one, not a folder."""
    path = Path(source)
    return path.suffix in (".yaml", ".yml") or (str(source) in list_shipped("recipe") and not path.exists())


def _way_out(path: Path, kind: Kind) -> str:
    """Name the recipe in a folder, a file of another kind with this name, or names spelt nearly like it."""
    if (path / f"{kind}.yaml").is_file():
        return f"did you mean {path / f'{kind}.yaml'}?"
    if path.stem in list_shipped(kind):
        return f"`{path.stem}`, without a folder, is the {kind} that comes with Sertone"
    for other in FOLDERS:
        if FOLDERS[other] != FOLDERS[kind] and path.stem in list_shipped(other):
            return f"{path.stem} is a {other}: `sertone {COMMANDS[other]} {path.stem}` runs it"
    names = ", ".join(find_near(path.stem, list_shipped(kind), SHOWN))
    return f"{f'near names: {names}; ' if names else ''}`sertone recipes list` shows all"


def require_kind(values: Mapping[str, Any], kind: Kind, source: str | Path) -> None:
    """Refuse a file of another kind.

    Args:
        values: what the YAML file holds.
        kind: the kind expected.
        source: path or name, for the error.

    Raises:
        SertoneError: `other_kind`.
    """
    found = detect_kind(values)
    if found not in (None, kind):
        way_out = f"`sertone {COMMANDS[found]} {source}` runs it"
        raise SertoneError("other_kind", f"{source} is a {found}", f"a {kind}", way_out)


def list_entries() -> list[Entry]:
    """Describe every recipe, distillation and study that comes with Sertone, in this order."""
    files = [*list_shipped("recipe").values(), *list_shipped("study").values()]
    found = [_describe(path) for path in files]
    return sorted(found, key=lambda entry: list(FOLDERS).index(entry.kind))


def _describe(path: Path) -> Entry:
    text = path.read_text(encoding="utf-8")
    values = parse_yaml(text)
    kind = detect_kind(values) or "recipe"
    base = find_shipped(values["recipe"], "recipe").read_text(encoding="utf-8") if kind == "study" else text
    recipe = parse_yaml(base)
    corpus = str(recipe["data"]["corpus"])
    device = "GPU" if _trains_pretrained(recipe) or _trains_pretrained(values) else "CPU"
    purpose = values["title"] if kind == "study" else _first_sentence(text)
    return Entry(path.stem, kind, str(purpose), CORPORA.get(corpus, corpus), device, path)


def _first_sentence(text: str) -> str:
    """Return the first sentence of the comment at the top of a recipe, after the line for editors."""
    comment = re.match(r"(?:# .*\n)+", text.partition("\n")[2])
    words = " ".join(comment[0].replace("# ", " ").split()) if comment else ""
    return re.split(r"(?<=\.)\s", words)[0].rstrip(".")


def _trains_pretrained(values: Mapping[str, Any]) -> bool:
    """Return whether pretrained weights are trained, in a recipe or in the rows and columns of a study."""
    model = values.get("model", {})
    frozen = model.get("frozen_layers", 0) if isinstance(model, dict) else 0
    return frozen < BASE_LAYERS and any(part.get("name") == "pretrained" for part in _sections(values))


def _sections(values: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield a mapping and all mappings inside it."""
    yield values
    for value in values.values():
        if isinstance(value, dict):
            yield from _sections(value)

"""Text of pages, generated from the package: corpora, modules, commands, settings of recipes."""

import ast
import importlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import docstrings
import faults

from sertone import corpora, licences
from sertone.cli import app
from sertone.labels import FOUR_CLASSES
from sertone.models import MODELS, recipe_schema
from sertone.training.distill import distill_recipe

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "sertone"


def modules() -> dict[str, str]:
    """Return public module -> first line of its docstring, without corpora and the command line."""
    summaries = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("sertone", *path.relative_to(PACKAGE).with_suffix("").parts)
        name = ".".join(part for part in parts if part != "__init__")
        # Data sheets of corpora and the commands have separate pages.
        sheet = parts[1] == "corpora" and parts[2] != "__init__"
        if sheet or parts[1] == "cli" or any(part.startswith("_") for part in name.split(".")):
            continue
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        summaries[name] = docstring.split("\n")[0]
    return summaries


def page_of(path: str) -> str:
    """Return the page of a source file, given without its suffix."""
    folder, name = path.rsplit("/", 1)
    if folder == "sertone/corpora" and name in corpora.list_names():
        return f"corpora/{name}.md"
    return f"api/{path.replace('/', '.').removesuffix('.__init__')}.md"


def groups() -> dict[str, list[str]]:
    """Return package -> its public modules; a module with children heads a separate group."""
    grouped: dict[str, list[str]] = {"sertone": []}
    for name in modules():
        parts = name.split(".")
        is_package = (PACKAGE.parent / Path(*parts) / "__init__.py").is_file()
        home = name if is_package else ".".join(parts[:-1])
        grouped.setdefault(home, []).append(name)
    return grouped


def module_page(name: str) -> str:
    """Return the API page of one module."""
    return f"# {name}\n\n::: {name}\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def module_table() -> str:
    """Return a table of links to all modules, by package."""
    about = modules()
    listed = (name for names in groups().values() for name in names)
    return table(("module", ""), ((f"[`{name}`](api/{name}.md)", about[name]) for name in listed))


def corpus_page(name: str) -> str:
    """Return the page of one corpus, generated from its data sheet."""
    sheet = corpora.load_sheet(name)
    folder = "my_speech" if name == "manifest" else name
    miniature = f"sertone corpora fake {name} {folder}\nfind {folder} -type f | sort | head -8"
    example = 'exec="1" source="material-block" result="text"'
    parts = [
        f"# {name}",
        docstrings.markdown(sheet.__doc__ or ""),
        _facts(name, sheet),
        "## Emotions",
        _emotions(sheet),
        _scales(sheet),
        "## A miniature, and the output of `check`",
        f"Written without any recording of the corpus:\n\n```bash {example}\n{miniature}\n```",
        f"```bash {example}\nsertone corpora check {name} {folder}\n```",
        "## Functions",
        *(f"::: sertone.corpora.{name}.{function}\n    options: {{show_root_heading: true, heading_level: 3}}"
          for function in ("utterances", "release", "fake") if hasattr(sheet, function)),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def _licence(sheet: ModuleType) -> str:
    text = licences.describe_licence(asdict(sheet.LICENCE))
    return f"[{text}]({sheet.LICENCE.url})" if sheet.LICENCE.url else text


def _facts(name: str, sheet: ModuleType) -> str:
    rows = {"in a recipe": f"`data.corpus: {name}`", "licence": _licence(sheet), "language": sheet.LANGUAGE}
    rows |= {"citation": sheet.CITATION, "when reading scores": sheet.NOTE}
    return table((sheet.TITLE, ""), (row for row in rows.items() if row[1]))


def _emotions(sheet: ModuleType) -> str:
    head = ("label of the corpus", "emotion", "class with `data.classes: four`")
    return table(
        head, ((f"`{raw}`", name, FOUR_CLASSES.get(name, "-")) for raw, name in sheet.EMOTIONS.items())
    )


def _scales(sheet: ModuleType) -> str:
    rows = ((name, f"{scale.low:g} to {scale.high:g} {scale.unit}") for name, scale in sheet.SCALES.items())
    return "## Ratings\n\n" + table(("rating", "scale"), rows) if sheet.SCALES else ""


def corpus_table() -> str:
    """Return a table of links to all corpora, with their licences."""
    sheets = {name: corpora.load_sheet(name) for name in corpora.list_names()}
    rows = (
        (f"[`{name}`](corpora/{name}.md)", (sheet.__doc__ or "").split("\n")[0], _licence(sheet))
        for name, sheet in sheets.items()
    )
    return table(("corpus", "", "licence"), rows)


def commands() -> str:
    """Return the help of every command, as the command line prints it."""
    text = app.generate_docs(output_format="markdown", heading_level=1, flatten_commands=False)
    return text[text.index("\n## sertone") :]


HEAD = ("key", "default", "meaning")
"""Head of a table of settings."""
REQUIRED = "**required**"
"""Text in place of the default of a key that has none."""


def settings() -> str:
    """Return the tables of all keys of a recipe, with default and meaning."""
    schema = recipe_schema()
    parts = []
    for section in ("data", "protocol", "train"):
        parts.append(f"## `{section}`")
        parts.append(_section(schema, _resolve(schema, schema["properties"][section]), section))
    options = dict(zip(MODELS, schema["properties"]["model"]["oneOf"], strict=True))
    for name, option in options.items():
        parts += [f"## `model` with `name: {name}`", _section(schema, option, "model")]
    fields = {"model.encoder": options["ispas2023"]["properties"]["encoder"]}
    fields["model.text"] = options["ispas2023"]["properties"]["text"]["anyOf"][0]
    for key, field in fields.items():
        for encoder in field["oneOf"]:
            section = _resolve(schema, encoder)
            parts.append(f"## `{key}` with `name: {section['properties']['name']['const']}`")
            parts += [section.get("description", ""), _section(schema, section, key)]
    return "\n\n".join(parts)


def distillation() -> str:
    """Return the table of all keys of a distillation recipe."""
    schema = distill_recipe.recipe_schema()
    rows = ((f"`{key.lstrip('.')}`", default, text) for key, default, text in _keys(schema, schema, ""))
    return table(HEAD, rows)


def _section(schema: dict, part: dict, prefix: str) -> str:
    rows = ((f"`{key}`", default, text) for key, default, text in _keys(schema, part, prefix))
    return table(HEAD, rows)


def _keys(schema: dict, part: dict, prefix: str, always: bool = True) -> Iterator[tuple[str, str, str]]:
    """Yield dotted key, default and description of every key; nested sections are unfolded.

    Args:
        schema: JSON schema of the whole recipe.
        part: JSON schema of a section.
        prefix: key of the section.
        always: False if the section is absent unless a recipe names it.
    """
    needed = part.get("required", ())
    for name, field in part["properties"].items():
        inner, key = _resolve(schema, field), f"{prefix}.{name}"
        if "const" in field:
            continue
        if key in ("model.encoder", "model.text", ".teacher"):
            page = "[Recipes](recipes.md)" if key == ".teacher" else "below"
            default = REQUIRED if name in needed else f"`{json.dumps(field['default'])}`"
            yield key, default, f"{' '.join(field.get('description', '').split())} See {page}.".strip()
            continue
        options = [_resolve(schema, option) for option in inner.get("anyOf", ())]
        sections = [option for option in (inner, *options) if "properties" in option]
        default = _default(field, sections, required=name in needed)
        yield (
            key,
            default if always else default.replace(REQUIRED, "required with it"),
            _describe(field, inner),
        )
        for section in sections:
            yield from _keys(schema, section, key, always=field.get("default", {}) is not None)


def _resolve(schema: dict, field: dict) -> dict[str, Any]:
    if "$ref" in field:
        return schema["$defs"][field["$ref"].rsplit("/", 1)[-1]]
    return field


def _default(field: dict, sections: list[dict], *, required: bool) -> str:
    """Return the default as YAML; a section refers to the defaults of its keys, which follow it."""
    if required:
        return REQUIRED
    if sections and field.get("default", {}) is not None:
        return "the defaults below"
    return f"`{json.dumps(field['default'])}`" if "default" in field else "`{}`"


def _describe(field: dict, inner: dict) -> str:
    text = field.get("description") or inner.get("description") or ""
    choices = [f"`{value}`" for value in inner.get("enum", ())]
    if not all(choice in text for choice in choices):
        text = f"{text} One of {', '.join(choices)}."
    return " ".join(text.split()).replace("|", "&#124;")


def docstring(module: str) -> str:
    """Return the docstring of a module as Markdown."""
    return docstrings.markdown(importlib.import_module(module).__doc__ or "")


MAKERS = {
    "modules": module_table,
    "corpora": corpus_table,
    "commands": commands,
    "settings": settings,
    "distillation": distillation,
    "faults": lambda: faults.page(PACKAGE),
    "docstring": docstring,
}
"""NAME -> function that returns the text for `<!-- generated: NAME ARGUMENT -->` in a page."""

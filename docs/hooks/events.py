"""Hooks of the MkDocs build.

They generate pages from the package, run the examples in scratch folders, and convert formulas to MathML.
"""

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import formulas
import generated
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from sertone import corpora

SOURCE = re.compile(r"\]\(\.\./(sertone/[\w/]+)\.py\)")
MARKER = re.compile(r"<!-- generated: (\w+)(?: (\S+))? -->")
ROOT_PAGES = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
HOME = Path.cwd()
SCRATCH = tempfile.TemporaryDirectory(prefix="sertone-docs-")  # removed when the program ends


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the generated pages to the navigation, and formulas to Markdown."""
    fences = config.mdx_configs.setdefault("pymdownx.superfences", {}).setdefault("custom_fences", [])
    fences.append({"name": "math", "class": "formula", "format": formulas.block})
    config.markdown_extensions.append(formulas.Formulas())  # pyright: ignore[reportArgumentType]
    _section(config.nav, "Corpora").extend({name: f"corpora/{name}.md"} for name in corpora.list_names())
    for package, names in generated.groups().items():
        _section(config.nav, "API").append(
            {package: [{name.removeprefix(f"{package}."): f"api/{name}.md"} for name in names]}
        )
    return config


def _section(nav: list | dict | str | None, title: str) -> list:
    """Return the list of pages under a title, at any depth."""
    for entry in nav if isinstance(nav, list) else ():
        for name, pages in entry.items():
            if name == title:
                return pages
            if isinstance(pages, list) and (section := _section(pages, title)):
                return section
    return []


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of corpora and modules, and the pages in the root of the repository."""
    pages = {f"corpora/{name}.md": generated.corpus_page(name) for name in corpora.list_names()}
    pages |= {f"api/{name}.md": generated.module_page(name) for name in generated.modules()}
    for page, source in ROOT_PAGES.items():
        pages[page] = (generated.ROOT / source).read_text(encoding="utf-8").replace("](docs/", "](")
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_pre_build(config: MkDocsConfig) -> None:
    """Make the examples run offline with this interpreter's `sertone`, and stop at a command that fails."""
    # Bash reads the file that BASH_ENV names before it runs a script.
    strict = Path(SCRATCH.name) / "strict.sh"
    strict.write_text("set -e\n")
    os.environ["BASH_ENV"] = str(strict)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["PYTHONPATH"] = str(generated.ROOT)
    os.environ["HF_HUB_OFFLINE"] = "1"


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Replace the markers by generated text, and links to source files by links to their API pages.

    The examples of a page run next, in a separate scratch folder that holds the recipes.
    """
    folder = Path(SCRATCH.name) / page.file.src_uri
    shutil.copytree(generated.ROOT / "recipes", folder / "recipes")
    os.chdir(folder)
    markdown = SOURCE.sub(lambda link: f"]({generated.page_of(link[1])})", markdown)
    return MARKER.sub(lambda marker: generated.MAKERS[marker[1]](*filter(None, [marker[2]])), markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Return from the scratch folders to the folder of the build."""
    os.chdir(HOME)

"""The documentation: its generated parts are complete, and the site builds offline."""

import ast
import html
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st

import sertone
from sertone import corpora
from sertone.analysis.study.study import Study

DOCS = REPOSITORY / "docs"
HOOKS = DOCS / "hooks"
PACKAGE = REPOSITORY / "sertone"
EXECUTED = re.compile(r'^```\w+ exec="1".*result="', re.M)
FORMULA = re.compile(r"^```math$|\$`.+?`\$", re.M)


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(HOOKS))


def public_modules():
    """Names of the modules, by import rather than by file, without private ones."""
    names = {"sertone"} | {m.name for m in pkgutil.walk_packages(sertone.__path__, "sertone.")}
    return {name for name in names if not any(part.startswith("_") for part in name.split("."))}


def modules_with_other_pages():
    commands = {name for name in public_modules() if name.split(".")[1:2] == ["cli"]}
    return {f"sertone.corpora.{name}" for name in corpora.list_names()} | commands


def test_every_public_module_has_a_page_and_a_place_in_one_group():
    import generated

    pages = set(generated.modules())
    assert pages == public_modules() - modules_with_other_pages()
    assert sorted(name for names in generated.groups().values() for name in names) == sorted(pages)
    assert all(generated.modules().values())


def test_every_code_of_an_error_is_in_the_table():
    import faults

    known = {fault.code for fault in faults.faults(PACKAGE)}
    for path in PACKAGE.rglob("*.py"):
        codes = re.findall(
            r'\b(?:SertoneError|AudioError|ChildDiedError|ChildStuckError|Problem)\(\s*"(\w+)",',
            path.read_text(),
        )
        assert set(codes) <= known, path
    page = faults.page(PACKAGE)
    assert all(f"| `{code}` |" in page for code in known)


def test_warnings_and_chosen_codes_are_in_the_table():
    import faults

    kinds = {(fault.kind, fault.code) for fault in faults.faults(PACKAGE)}
    warnings = {"truncated", "streamed_header", "clipped", "no_speech", "anti_phase", "padded"}
    warnings |= {"no_text", "text_truncated", "text_not_read", "text_not_divided", "turns_left_out"}
    warnings |= {"other_duration", "not_scaled", "corrupt", "trailing_data", "odd_header", "gaps"}
    assert {code for kind, code in kinds if kind == "warning"} == warnings
    assert {("AudioError", "no_permission"), ("Problem", "conflicting_labels")} <= kinds


def test_messages_are_those_of_the_call(tmp_path):
    import faults

    source = """
LIMIT = 8
def read(path, n):
    message = f"{n} of {LIMIT}"
    report(Problem("too_many", str(path), message))
    message = "another"
    raise SertoneError("no_such", f"{path.name!r} <b>", "one of " + ", ".join(known()), way_out="look")
"""
    (tmp_path / "reader.py").write_text(source)
    problem, error = sorted(faults.faults(tmp_path), key=lambda fault: fault.kind)
    assert (problem.kind, problem.code, problem.message) == ("Problem", "too_many", "<var>n</var> of 8")
    assert error.message == "<var>name</var> &lt;b&gt;; expected one of …; look"


def keys(values, prefix=""):
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and name not in ("learning_rates", "encoder_config", "only"):
            yield from keys(value, f"{key}.")
        else:
            yield key


@pytest.mark.parametrize("recipe", sorted((REPOSITORY / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_key_of_the_recipes_is_explained(recipe):
    import generated

    values = yaml.safe_load(recipe.read_text())
    text = generated.distillation() if "teacher" in values else generated.settings()
    used = set(keys(values)) - {"model.name", "model.encoder.name", "model.text.name"}
    used -= {"teacher.name", "teacher.source"}
    assert not [key for key in used if f"| `{key}` |" not in text]


FRAGMENT = re.compile(r"(Of|As|What|Where|How|Such|Off|Those?|That)\b")
"""Beginnings of texts that are no sentences."""


def rows(text):
    """Key -> default and meaning, of tables in Markdown."""
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_every_setting_is_explained_in_sentences():
    import generated

    recipes, distillation = rows(generated.settings()), rows(generated.distillation())
    assert len(recipes) > 90 and len(distillation) > 30
    for key, (_, meaning) in (recipes | distillation).items():
        assert re.match(r"[A-Z`]", meaning) and meaning.endswith((".", ".)")), key
        assert not FRAGMENT.match(meaning), key
    study = Study.model_json_schema()
    fields = [field for part in (study, *study["$defs"].values()) for field in part["properties"].values()]
    assert all(field["description"].endswith(".") for field in fields)


def test_the_tables_state_required_keys_and_defaults():
    import generated

    defaults = {key: default for key, (default, *_) in rows(generated.settings()).items()}
    required = {key for key, default in defaults.items() if default == "**required**"}
    assert {"data.corpus", "data.root", "model.encoder"} <= required
    assert not any(key.startswith(("protocol.", "train.")) for key in required)
    assert (defaults["data.only"], defaults["data.scales"]) == ("`{}`", "`{}`")
    assert (defaults["train.cache"], defaults["train.cache.limit_gb"]) == ("the defaults below", "`8.0`")
    assert (defaults["train.teacher"], defaults["train.teacher.source"]) == ("`null`", "required with it")


def test_every_command_has_its_help():
    import generated

    text = generated.commands()
    commands = {
        (node, ast.unparse(decorator))
        for path in (PACKAGE / "cli").glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
        if ".command" in ast.unparse(decorator) or "app.command" in ast.unparse(decorator)
    }
    assert len(commands) >= 12
    for node, decorator in commands:
        first = (ast.get_docstring(node) or "").split("\n")[0].split(".")[0]
        assert f"\n{first}" in text, (node.name, decorator)


def documented_arguments(docstring):
    names, in_section = [], False
    for line in docstring.splitlines():
        if not line.startswith("    ") and line.strip():
            in_section = line.strip() == "Args:"
        elif in_section and (match := re.match(r"    \*{0,2}(\w+)(?: \([^)]*\))?:", line)):
            names.append(match[1])
    return names


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_documented_arguments_are_arguments(path):
    """The strict build of the site refuses others, but takes minutes."""
    for node in ast.walk(ast.parse(path.read_text())):
        functions = [node] if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else []
        if isinstance(node, ast.ClassDef):
            functions = [f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"]
        for function in functions:
            listed = function.args
            arguments = {*listed.posonlyargs, *listed.args, *listed.kwonlyargs, listed.vararg, listed.kwarg}
            names = {argument.arg for argument in arguments if argument}
            assert set(documented_arguments(ast.get_docstring(node) or "")) <= names, node.name


@given(st.lists(st.sampled_from(["word", "    - item", "      more", "    a  tree", "", "two: words"])))
def test_nothing_of_a_docstring_is_lost(lines):
    import inspect

    import docstrings

    text = "\n".join(["First.", "", *lines])
    markdown = docstrings.markdown(text).replace("```text", " ").replace("```", " ")
    assert markdown.split() == inspect.cleandoc(text).split()


def test_trees_and_lists_of_docstrings_keep_their_form():
    import docstrings

    markdown = docstrings.markdown(
        "What.\n\nTree:\n    a/b   file\n      c\n\n    d\nThen:\n    - one\n      two\n"
    )
    assert "Tree:\n\n```text\na/b   file\n  c\n\nd\n```\n\nThen:\n\n- one\n  two" in markdown


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site; requests to the internet would meet a closed port."""
    folder = tmp_path_factory.mktemp("site")
    closed = "http://127.0.0.1:9"
    quiet = {"http_proxy": closed, "https_proxy": closed, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    process = subprocess.run(command, cwd=REPOSITORY, env=os.environ | quiet, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return folder


def pages(site):
    return {path.relative_to(site).as_posix(): path.read_text() for path in site.rglob("*.html")}


@pytest.mark.slow
def test_no_page_needs_the_internet(site):
    built = pages(site)
    assert len(built) > 50
    for name, text in built.items():
        for tag in re.findall(r"<(?:script|link|img|iframe|source|video|audio|object)\b[^>]*>", text):
            assert not re.search(r"""(?:src|href|data)=["']?(?:https?:)?//""", tag), (name, tag)
    for style in site.rglob("*.css"):
        assert not re.search(r"""(?:url\(|@import)\s*["']?(?:https?:)?//""", style.read_text()), style
    own_scripts = (
        set(site.rglob("*.js")) - set(site.glob("assets/javascripts/**/*")) - set(site.glob("search/*"))
    )
    assert own_scripts and not [script for script in own_scripts if re.search("https?:", script.read_text())]
    assert (site / "search/search_index.js").read_text().startswith("var __index")


@pytest.mark.slow
def test_every_corpus_module_and_command_has_its_page(site):
    built = pages(site)
    assert {f"corpora/{name}.html" for name in corpora.list_names()} <= set(built)
    assert {f"api/{name}.html" for name in public_modules() - modules_with_other_pages()} <= set(built)
    for name in corpora.list_names():
        text = html.unescape(re.sub(r"<[^>]+>", "", built[f"corpora/{name}.html"]))
        sheet = corpora.load_sheet(name)
        assert sheet.LICENCE.name in text and all(label in text for label in sheet.EMOTIONS)
    for command in ("corpora check", "corpora list", "crossval", "train", "predict", "demo"):
        assert f'id="sertone-{command.replace(" ", "-")}"' in built["commands.html"]


@pytest.mark.slow
def test_examples_ran_and_show_their_output(site):
    built = pages(site)
    assert not [name for name, text in built.items() if "Traceback (most recent" in text]
    for source in DOCS.glob("*.md"):
        wanted = len(EXECUTED.findall(source.read_text()))
        assert built[source.stem + ".html"].count('class="result"') == wanted, source
    assert "95 % interval over 10 speakers" in built["quick-start.html"]
    for word in ("missing_cell", "neutrall", "truncated", "empty_file"):
        assert word in built["own-data.html"]
    assert "error [speaker_leak]" in html.unescape(built["protocols.html"])


@pytest.mark.slow
def test_formulas_are_mathml(site):
    built = pages(site)
    sources = {page: len(FORMULA.findall(page.read_text())) for page in DOCS.glob("*.md")}
    assert sum(sources.values()) > 10
    for source, count in sources.items():
        assert len(re.findall(r"<math\b", built[source.stem + ".html"])) == count, source


@pytest.mark.slow
def test_no_marker_is_left(site):
    assert not [name for name, text in pages(site).items() if "<!-- generated:" in text]

"""The table of errors, read from the source: every code, and what is said with it.

Found are the calls `SertoneError("code", ...)`, of classes derived from it, and `Problem(...)`, and the
warnings that the readers of audio keep as `found["code"] = ...`.
"""

import ast
import html
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

SECTIONS = {
    "SertoneError": ("A command stops", "Printed as `error [code] ...`; the exit status is 2."),
    "AudioError": (
        "A recording is refused",
        "`predict` answers with status `error` and this code and goes on; training stops before it begins "
        "with `unreadable_audio`, which names the recordings; `corpora check` lists them.",
    ),
    "warning": (
        "A recording is doubtful",
        "`predict` answers with status `warning` and this code, or refuses with `--strict`.",
    ),
    "Problem": (
        "A corpus has a problem",
        "Listed by `corpora check`; training stops at those of severity error.",
    ),
}
WARNING_FILES = (
    *("reader.py", "decoder.py", "converter.py", "chunks.py", "ogg.py", "mpeg.py", "matroska.py"),
    *("predictor.py", "texts.py", "summary.py", "cutting.py", "prefetch.py"),
)
"""The files whose warnings are about a recording."""
SPELT_OUT = ast.JoinedStr | ast.Constant | ast.UnaryOp
"""Values that are shown in the place of the variable that holds them."""
Values = dict[str, ast.expr]
"""What is known of variables."""


@dataclass(frozen=True)
class Fault:
    """One place in the source: kind of SECTIONS, code, what is said, file below the package."""

    kind: str
    code: str
    says: str
    file: str


def faults(package: Path) -> list[Fault]:
    """All of a package, in the order of its files."""
    found = []
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(package.rglob("*.py"))}
    kinds = _kinds(trees.values())
    for path, tree in trees.items():
        constants = _assigned(tree.body)
        for scope in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            for kind, code, says in _in_scope(scope, constants, kinds, path.name in WARNING_FILES):
                found.append(Fault(kind, code, says, path.relative_to(package).as_posix()))
    return found


def _kinds(trees: Iterable[ast.Module]) -> dict[str, str]:
    """Class -> kind of SECTIONS; what derives from one of them counts as that, unless it has a section."""
    kinds = {kind: kind for kind in SECTIONS}
    nodes = (node for tree in trees for node in ast.walk(tree))
    for node in (node for node in nodes if isinstance(node, ast.ClassDef)):
        for base in map(ast.unparse, node.bases):
            if base in kinds:
                kinds.setdefault(node.name, kinds[base])
    return kinds


def page(package: Path) -> str:
    """The tables, as Markdown."""
    found = faults(package)
    parts = []
    for kind, (title, meaning) in SECTIONS.items():
        rows: dict[str, list[Fault]] = defaultdict(list)
        for fault in found:
            if fault.kind == kind:
                rows[fault.code].append(fault)
        parts.append(f"## {title}\n\n{meaning}\n\n| code | says | in |\n|---|---|---|")
        parts[-1] += "".join(f"\n{_row(code, rows[code])}" for code in sorted(rows))
    return "\n\n".join(parts)


def _row(code: str, same: list[Fault]) -> str:
    says = "<br>".join(dict.fromkeys(fault.says for fault in same if fault.says))
    files = "<br>".join(dict.fromkeys(f"`{fault.file}`" for fault in same))
    return f"| `{code}` | {says} | {files} |"


def _in_scope(
    scope: ast.FunctionDef, constants: Values, kinds: dict[str, str], hears: bool
) -> Iterator[tuple[str, str, str]]:
    assigns = [node for node in ast.walk(scope) if isinstance(node, ast.Assign)]
    for node in ast.walk(scope):
        line = getattr(node, "lineno", 0)
        values = constants | _assigned(inner for inner in assigns if inner.lineno < line)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds:
            kind = kinds[node.func.id]
            for code in _codes(node.args[0], values):
                yield kind, code, _message(kind, node, values)
        elif hears and isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            for code in _codes(node.targets[0].slice, {}):
                yield "warning", code, _text(node.value, values)
        elif hears and isinstance(node, ast.Return) and node.value:
            for table in (part for part in ast.walk(node.value) if isinstance(part, ast.Dict)):
                for key, value in zip(table.keys, table.values, strict=True):
                    for code in _codes(key, {}):
                        yield "warning", code, _text(value, values)


def _assigned(nodes: Iterable[ast.AST]) -> Values:
    """Variable -> the last value written to it."""
    return {
        target.id: node.value
        for node in nodes
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _codes(node: ast.AST | None, values: Values) -> list[str]:
    if isinstance(node, ast.Name):
        node = values.get(node.id)
    if isinstance(node, ast.IfExp):
        return _codes(node.body, values) + _codes(node.orelse, values)
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def _message(kind: str, call: ast.Call, values: Values) -> str:
    """Found, expected, way out, as the error joins them; of a problem its message."""
    if kind == "Problem":
        return _text(call.args[2], values)
    parts = dict(zip(("found", "expected", "way_out"), call.args[1:], strict=False))
    parts |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    said = {name: _text(value, values) for name, value in parts.items()}
    if said.get("expected"):
        said["expected"] = f"expected {said['expected']}"
    return "; ".join(text for name in ("found", "expected", "way_out") if (text := said.get(name)))


def _text(node: ast.AST, values: Values) -> str:
    """A message as Markdown, with the names of what is filled in as variables."""
    if isinstance(node, ast.Constant):
        return html.escape(str(node.value), quote=False).replace("|", "&#124;")
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, values) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return _text(node.value, values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left, values) + _text(node.right, values)
    if isinstance(node, ast.UnaryOp):
        return ast.unparse(node)
    if isinstance(node, ast.Name) and isinstance(values.get(node.id), SPELT_OUT):
        return _text(values[node.id], {name: values[name] for name in values if name != node.id})
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return f"<var>{name.replace('_', ' ').strip()}</var>" if name else "…"

"""The tables of error codes and their messages, read from the source.

They list the calls `SertoneError("code", ...)`, those of its subclasses, and `Problem(...)`. They also list
the warnings about a recording, which the code keeps as `warnings["code"] = ...`.
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
        "`predict` gives a result with status `error` and this code, and continues. Training stops before it "
        "begins with `unreadable_audio`, which names the recordings. `corpora check` lists them.",
    ),
    "warning": (
        "A recording is doubtful",
        "`predict` gives a result with status `warning` and this code, or refuses with `--strict`.",
    ),
    "Problem": (
        "A corpus has a problem",
        "`corpora check` lists it. Training stops if its severity is error.",
    ),
}
WARNING_SOURCES = (
    *("audio/", "runtime/predictor.py", "runtime/texts.py", "runtime/prefetch.py"),
    *("runtime/timeline/summary.py", "runtime/timeline/cutting.py"),
)
"""Beginnings of the paths of files whose warnings are about a recording."""
SPELT_OUT = ast.JoinedStr | ast.Constant | ast.UnaryOp
"""Values that are shown instead of the variable that holds them."""
Values = dict[str, ast.expr]
"""Variable -> the value that it is assigned."""


@dataclass(frozen=True)
class Fault:
    """One place in the source: kind of SECTIONS, code, message, file below the package."""

    kind: str
    code: str
    message: str
    file: str


def faults(package: Path) -> list[Fault]:
    """Return all faults of a package, in the order of its files."""
    collected = []
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(package.rglob("*.py"))}
    kinds = _kinds(trees.values())
    for path, tree in trees.items():
        constants = _assignments(tree.body)
        file = path.relative_to(package).as_posix()
        for scope in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            for kind, code, message in _find(scope, constants, kinds, file.startswith(WARNING_SOURCES)):
                collected.append(Fault(kind, code, message, file))
    return collected


def _kinds(trees: Iterable[ast.Module]) -> dict[str, str]:
    """Return class -> kind of SECTIONS; a subclass without its own section has the kind of its base."""
    kinds = {kind: kind for kind in SECTIONS}
    nodes = (node for tree in trees for node in ast.walk(tree))
    for node in (node for node in nodes if isinstance(node, ast.ClassDef)):
        for base in map(ast.unparse, node.bases):
            if base in kinds:
                kinds.setdefault(node.name, kinds[base])
    return kinds


def page(package: Path) -> str:
    """Return the tables as Markdown."""
    collected = faults(package)
    parts = []
    for kind, (title, meaning) in SECTIONS.items():
        rows: dict[str, list[Fault]] = defaultdict(list)
        for fault in collected:
            if fault.kind == kind:
                rows[fault.code].append(fault)
        parts.append(f"## {title}\n\n{meaning}\n\n| code | message | in |\n|---|---|---|")
        parts[-1] += "".join(f"\n{_row(code, rows[code])}" for code in sorted(rows))
    return "\n\n".join(parts)


def _row(code: str, places: list[Fault]) -> str:
    messages = "<br>".join(dict.fromkeys(fault.message for fault in places if fault.message))
    files = "<br>".join(dict.fromkeys(f"`{fault.file}`" for fault in places))
    return f"| `{code}` | {messages} | {files} |"


def _find(
    scope: ast.FunctionDef, constants: Values, kinds: dict[str, str], has_warnings: bool
) -> Iterator[tuple[str, str, str]]:
    """Yield kind, code and message of the faults in a function."""
    assigns = [node for node in ast.walk(scope) if isinstance(node, ast.Assign)]
    for node in ast.walk(scope):
        line = getattr(node, "lineno", 0)
        # A variable may be assigned several times: the last assignment above the call counts.
        values = constants | _assignments(inner for inner in assigns if inner.lineno < line)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds:
            kind = kinds[node.func.id]
            for code in _codes(node.args[0], values):
                yield kind, code, _message(kind, node, values)
        elif has_warnings:
            yield from (("warning", code, message) for code, message in _find_warnings(node, values))


def _find_warnings(node: ast.AST, values: Values) -> Iterator[tuple[str, str]]:
    """Yield code and message of the warnings that a statement or call adds to a recording.

    Three forms occur: `warnings["code"] = message`, a dictionary of them that is assigned or returned, and
    `replace(prediction, status="warning", code="code", message=message)`.
    """
    target = node.targets[0] if isinstance(node, ast.Assign) else None
    if isinstance(node, ast.Assign) and isinstance(target, ast.Subscript):
        for code in _codes(target.slice, {}):
            yield code, _text(node.value, values)
    elif isinstance(node, ast.Return) or (isinstance(target, ast.Name) and target.id == "warnings"):
        for table in (part for part in ast.walk(node) if isinstance(part, ast.Dict)):
            for key, value in zip(table.keys, table.values, strict=True):
                yield from ((code, _text(value, values)) for code in _codes(key, {}))
    elif isinstance(node, ast.Call):
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        if {"status", "code", "message"} <= keywords.keys() and _codes(keywords["status"], {}) == ["warning"]:
            message = _choose_last(keywords["message"], values)
            yield from ((code, _text(message, values)) for code in _codes(keywords["code"], {}))


def _choose_last(node: ast.expr, values: Values) -> ast.expr:
    """Return the last alternative of a message: the first one repeats an earlier message in front of it."""
    value = values.get(node.id, node) if isinstance(node, ast.Name) else node
    return value.orelse if isinstance(value, ast.IfExp) else node


def _assignments(nodes: Iterable[ast.AST]) -> Values:
    """Return variable -> the last value assigned to it."""
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
    if isinstance(node, ast.BoolOp):
        return [code for value in node.values for code in _codes(value, values)]
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def _message(kind: str, call: ast.Call, values: Values) -> str:
    """Return found, expected and way out as the error joins them, or the message of a problem."""
    if kind == "Problem":
        return _text(call.args[2], values)
    parts = dict(zip(("found", "expected", "way_out"), call.args[1:], strict=False))
    parts |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    texts = {name: _text(value, values) for name, value in parts.items()}
    if texts.get("expected"):
        texts["expected"] = f"expected {texts['expected']}"
    return "; ".join(text for name in ("found", "expected", "way_out") if (text := texts.get(name)))


def _text(node: ast.AST, values: Values) -> str:
    """Return a message as Markdown; values that are filled in appear as variables."""
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

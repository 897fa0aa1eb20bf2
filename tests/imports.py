"""Who imports whom: the modules of a package, and the imports at their tops, inside functions and for types only."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple


class Import(NamedTuple):
    """One module importing another of the same package."""

    importer: str
    imported: str
    line: int
    inside: bool
    """Whether it happens when a function is called, rather than when the module is imported."""


def modules_of(package: Path, name: str) -> dict[str, Path]:
    """Dotted name → file of every module below `package`, which is imported as `name`."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = [name, *path.relative_to(package).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_within(modules: Mapping[str, Path]) -> list[Import]:
    """Every import of one of `modules` by another, those for types only included."""
    found = []
    for name, path in modules.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for node, inside in _statements(ast.parse(path.read_text(encoding="utf-8"))):
            targets = sorted(_targets(node, package, modules) - {name})
            found += [Import(name, imported, node.lineno, inside) for imported in targets]
    return found


def circles(edges: list[Import]) -> list[set[str]]:
    """Sets of modules each of which leads to every other one."""
    reached = {name: _reached(name, edges) for name in {edge.importer for edge in edges}}
    found: list[set[str]] = []
    for name, after in sorted(reached.items()):
        if name in after and not any(name in circle for circle in found):
            found.append({other for other in after if name in reached.get(other, ())})
    return found


def _statements(tree: ast.AST, inside: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node, inside
        yield from _statements(node, inside or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))


def _targets(node: ast.Import | ast.ImportFrom, package: str, modules: Mapping[str, Path]) -> set[str]:
    """The modules that one statement in `package` imports."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names if alias.name in modules}
    above = package.split(".")
    base = (
        ".".join(above[: len(above) - node.level + 1] + ([node.module] if node.module else [])) if node.level else node.module
    )
    named = {f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules else str(base) for alias in node.names}
    return named & set(modules)


def _reached(start: str, edges: list[Import]) -> set[str]:
    """The modules that importing `start`, and calling everything in it, imports."""
    following: dict[str, set[str]] = {}
    for edge in edges:
        following.setdefault(edge.importer, set()).add(edge.imported)
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for imported in following.get(waiting.pop(), set()) - seen:
            seen.add(imported)
            waiting.append(imported)
    return seen

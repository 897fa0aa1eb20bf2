"""Imports run downwards only, and importing the package is cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from imports import circles, imports_within, modules_of

import embedstore

PACKAGE = Path(embedstore.__file__).parent

LAYERS = [
    {"errors", "_version"},
    {"registry", "spec"},
    {"_core"},
    {"sources", "encoders", "evaluation"},
    {"store", "indexing", "heads", "reports"},
    {"ingest", "retrieval"},
    {"training", "duplicates", "demo"},
    {"exporting", "serving"},
    {"__init__"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}

LATER = 17
"""Imports of embedstore's own modules inside its functions. Each is to put off a heavy library, such as torch."""

HEAVY = (
    "torch",
    "faiss",
    "xgboost",
    "pyarrow",
    "duckdb",
    "pandas",
    "h5py",
    "sklearn",
    "PIL",
    "timm",
    "open_clip",
    "matplotlib",
    "jinja2",
    "scipy",
    "fastapi",
    "optuna",
    "onnx",
    "lancedb",
)


def imports_of(path: Path) -> set[str]:
    """Top-level rooms of embedstore that a module imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {name.split(".")[1] for name in names if name.startswith("embedstore.")}
    return found


def test_imports_run_downwards() -> None:
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for other in imports_of(path):
            assert other == room or RANK[other] < RANK[room], f"{path} ({room}) imports {other}"


@pytest.mark.parametrize(("folder", "name"), [("embedstore", "embedstore"), ("cli", "embedstore_cli")])
def test_no_module_imports_itself_through_others(folder: str, name: str) -> None:
    """Neither at the top of modules, nor through imports inside functions or for types only."""
    assert circles(imports_within(modules_of(PACKAGE.parent / folder, name))) == []


def test_imports_inside_functions_are_counted() -> None:
    """A new one needs a reason; where one goes, the number goes down with it."""
    found = [edge for edge in imports_within(modules_of(PACKAGE, "embedstore")) if edge.inside]
    assert len(found) <= LATER, "\n".join(f"{edge.importer}:{edge.line} imports {edge.imported}" for edge in found)


def test_every_folder_is_packaged() -> None:
    listed = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = [p.parent.relative_to(PACKAGE.parent).as_posix().replace("/", ".") for p in PACKAGE.rglob("__init__.py")]
    assert sorted(listed) == sorted([*folders, "embedstore_cli"])


def test_nothing_lies_loose() -> None:
    """Modules are in wings, and a file's name occurs once, so that it says where something is."""
    loose = {p.stem for p in PACKAGE.glob("*.py")}
    assert loose == {"__init__", "_version", "errors", "registry", "spec"}
    names = Counter(p.stem for p in PACKAGE.rglob("*.py") if p.stem not in {"__init__", "base", "report"})
    assert not [name for name, times in names.items() if times > 1]


def test_heads_and_indexes_know_no_store() -> None:
    for room in ("heads", "indexing", "encoders", "sources", "evaluation"):
        for path in (PACKAGE / room).glob("*.py"):
            assert "store" not in imports_of(path), path


def loaded_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split("\n")[-2].split())


def test_import_is_light() -> None:
    assert not loaded_after("import embedstore").intersection(HEAVY)


def test_help_is_light() -> None:
    run = "try: main()\nexcept SystemExit: pass"
    code = f"sys.argv=['embedstore','--help']\nfrom embedstore_cli.main import main\n{run}"
    assert not loaded_after(code).intersection({*HEAVY, "numpy"})


def test_search_by_id_does_not_import_torch(store: embedstore.Store) -> None:
    code = f"import embedstore as es\nes.search({str(store.path)!r}, id='item-00')"
    assert not loaded_after(code).intersection({"torch", "xgboost", "pandas", "timm"})

"""What the campaign knows of the format: how to change a store so that every digest is right again.

A hostile store comes with valid digests, so they are no shield; see `embedstore/store/FORMAT.md`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MANIFEST = "store.json"
Document = dict[str, Any]


class Forge:
    """A store at `path` whose files are replaced."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, file: str) -> Document:
        """A JSON document of the store."""
        return dict(json.loads((self.path / file).read_bytes()))

    def write(self, file: str, body: Document) -> None:
        """Replace a JSON document by `body`, sealed as the old one was; what names its digest follows."""
        from embedstore._core.encoding import sealed

        data = sealed({k: v for k, v in body.items() if k != "digest"}) if "digest" in body else body
        self.write_raw(file, json.dumps(data).encode())

    def write_raw(self, file: str, data: bytes) -> None:
        """Replace any file; a space's description has its digest in the manifest, which follows."""
        (self.path / file).write_bytes(data)
        folder, _, name = file.rpartition("/")
        if name == "space.json":
            manifest = self.read(MANIFEST)
            manifest["spaces"][folder.removeprefix("spaces/")]["spec_sha256"] = hashlib.sha256(data).hexdigest()
            self.write(MANIFEST, manifest)

    def edit(self, file: str, change: Callable[[Document], None]) -> None:
        """Change a JSON document in place."""
        data = self.read(file)
        change(data)
        self.write(file, data)

    def parts(self) -> list[str]:
        """Every file that the manifest names."""
        return [ref["file"] for ref in _refs(self.read(MANIFEST))]

    def replace_part(self, file: str, data: bytes, **changes: Any) -> None:
        """Replace a part and what the manifest says of it; `changes` are keys of its reference (`rows`, `offsets`, …)."""
        (self.path / file).write_bytes(data)
        self.refer(file, bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), xxh3=self._sum(file), **changes)

    def refer(self, file: str, /, **changes: Any) -> None:
        """Change what the manifest says of a part."""

        def change(manifest: Document) -> None:
            for ref in _refs(manifest):
                if ref["file"] == file:
                    ref.update({k: v for k, v in changes.items() if k in ref or k in ("offsets", "xxh3")})

        self.edit(MANIFEST, change)

    def _sum(self, file: str) -> str:
        """Of a vector part none, which has a reader compare the SHA-256 instead; see FORMAT.md."""
        from embedstore._core.sums import sum_of_file

        return "" if file.endswith(".h5") else sum_of_file(self.path / file)

    def named(self, folder: str) -> dict[str, str]:
        """Role → file of what ``head.json`` or ``index.json`` in `folder` names."""
        return {role: f"{folder}/{entry['file']}" for role, entry in self.read(self._naming(folder))["files"].items()}

    def replace_named(self, folder: str, role: str, data: bytes) -> None:
        """Replace such a file; heads name theirs by digest."""
        digest = hashlib.sha256(data).hexdigest()
        naming = self._naming(folder)
        old = self.named(folder)[role].rpartition("/")[2]
        new = old
        if naming.endswith("head.json"):
            stem, dot, suffix = role.rpartition(".")
            new = f"{stem}-{digest[:12]}{dot}{suffix}"
        (self.path / folder / old).unlink()
        (self.path / folder / new).write_bytes(data)

        def change(document: Document) -> None:
            entry = document["files"][role]
            entry.update({"file": new, "sha256": digest})
            if "bytes" in entry:
                entry["bytes"] = len(data)

        self.edit(naming, change)

    def _naming(self, folder: str) -> str:
        return f"{folder}/index.json" if (self.path / folder / "index.json").exists() else f"{folder}/head.json"

    def documents(self) -> list[str]:
        """Every JSON document."""
        return sorted(str(path.relative_to(self.path)) for path in self.path.rglob("*.json"))

    def folders(self) -> list[str]:
        """Every folder with files of its own that a document names: heads and indexes."""
        return [file.rpartition("/")[0] for file in self.documents() if file.endswith(("head.json", "index.json"))]


def _refs(manifest: Document) -> Iterator[Document]:
    yield from manifest["items"]
    yield from manifest["tombstones"]
    for entry in manifest["spaces"].values():
        yield from entry["parts"]
        yield from entry["failures"]


def places(value: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of everything in a JSON document, but the lists' later elements."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, child in inner:
        yield (*at, str(key))
        yield from places(child, (*at, str(key)))


def put(document: Document, at: tuple[str, ...], value: Any) -> None:
    """Set what lies at a path, or delete it where `value` is `DELETED`."""
    holder: Any = document
    for key in at[:-1]:
        holder = holder[int(key) if isinstance(holder, list) else key]
    last: Any = int(at[-1]) if isinstance(holder, list) else at[-1]
    if value is DELETED:
        del holder[last]
    else:
        holder[last] = value


DELETED = object()

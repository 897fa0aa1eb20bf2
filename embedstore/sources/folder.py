"""A folder of files as a source.

Files that share a folder and a stem are one item: ``dog.jpg`` with ``dog.txt`` is an image with its caption. The first
folder below the root is the ``label`` (torchvision's ImageFolder convention); where the first folders are all named like
splits (``train``, ``val``, ``test``), they are the ``split`` and the next folder is the label.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from embedstore.errors import SourceError
from embedstore.sources.base import BATCH_ROWS, EXTENSIONS, ID, MODALITY_OF
from embedstore.splits import is_split

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, str | None]


class FolderSource:
    """The files below `root`, in sorted order; hidden files and unknown file types are left out.

    Parameters
    ----------
    root : path
        A folder.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise SourceError(f"{self.root} is not a folder.")
        found = {MODALITY_OF[e] for e in _extensions(self.root) if e in MODALITY_OF}
        self._modalities = tuple(m for m in EXTENSIONS if m in found)
        if not self._modalities:
            known = ", ".join(e for extensions in EXTENSIONS.values() for e in extensions[:2])
            raise SourceError(f"{self.root} holds no file of a known type ({known}, …).")
        folders = {
            Path(folder).relative_to(self.root).parts[0]
            for folder, files in _walk(self.root)
            if files and folder != str(self.root)
        }
        self._has_splits = bool(folders) and all(is_split(name) for name in folders)

    @property
    def name(self) -> str:
        return str(self.root)

    @property
    def modalities(self) -> tuple[str, ...]:
        return self._modalities

    def count(self) -> int | None:
        return sum(1 for _ in self._rows())

    def batches(self) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        names = [ID, *self._modalities, "label", *(["split"] if self._has_splits else [])]
        schema = pa.schema([(name, pa.string()) for name in names])
        for rows in _grouped(self._rows(), BATCH_ROWS):
            columns = [pa.array([row.get(name) for row in rows], pa.string()) for name in names]
            yield pa.record_batch(columns, schema=schema)

    def _rows(self) -> Iterator[Row]:
        for folder, files in _walk(self.root):
            parts = Path(os.path.relpath(folder, self.root)).parts
            row: Row = {}
            if self._has_splits:
                row["split"], parts = (parts[0] if parts else None), parts[1:]
            row["label"] = _text(parts[0]) if parts else None
            for item in _items_of(folder, files):
                primary = next(item[m] for m in EXTENSIONS if item.get(m))
                item_id = _text(os.path.relpath(str(primary), self.root).replace(os.sep, "/"))
                uris = {m: _text(os.path.abspath(path)) for m, path in item.items() if m != "text"}
                yield {ID: item_id, **row, **uris, "text": _caption(item.get("text"))}


def holds_media(root: Path) -> bool:
    """Whether there is a picture, a sound or a video below `root`."""
    endings = (os.path.splitext(file)[1].lower() for _, files in _walk(root) for file in files)
    return any(MODALITY_OF.get(ending, "text") != "text" for ending in endings)


def _items_of(folder: str, files: list[str]) -> Iterator[dict[str, str]]:
    """Modality → path of each item of one folder."""
    stems: dict[str, dict[str, list[str]]] = {}
    for file in files:
        stem, extension = os.path.splitext(file)
        if modality := MODALITY_OF.get(extension.lower()):
            stems.setdefault(stem, {}).setdefault(modality, []).append(os.path.join(folder, file))
    for found in stems.values():
        primary = next(m for m in EXTENSIONS if m in found)
        shared = {m: paths[0] for m, paths in found.items() if m != primary}
        for path in found[primary]:
            yield {primary: path, **shared}


def _caption(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes().decode("utf-8-sig", errors="replace").strip()
    except OSError:
        return None  # such as a broken link: the caption is missing


def _walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    for folder, folders, files in os.walk(root):
        if "store.json" in files:  # a store that lies in the dataset
            folders[:] = []
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield folder, sorted(name for name in files if not name.startswith("."))


def _extensions(root: Path) -> Iterable[str]:
    return {os.path.splitext(file)[1].lower() for _, files in _walk(root) for file in files}


def _grouped(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    group: list[Row] = []
    for row in rows:
        group.append(row)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _text(path: str) -> str:
    """A file name as UTF-8 text; bytes that are not UTF-8 are shown as escapes (such a file becomes a read failure)."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

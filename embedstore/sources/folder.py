"""A folder of files as a source.

Files that share a folder and a stem are one item: ``dog.jpg`` with ``dog.txt`` is an image with its caption. The first
folder below the root is the ``label`` (torchvision's ImageFolder convention); where the first folders are all named like
splits (``train``, ``val``, ``test``), they are the ``split`` and the next folder is the label. A folder of splits with classes
below them and of something else is refused. Folders without a file of a known type do not count.

Links are followed, to folders too, but not to a folder that the link lies in.

A text that is blank is missing; one that cannot be read, or is not UTF-8, is a failure of its item's text.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedstore.errors import SourceError
from embedstore.sources.base import EXTENSIONS, ID, MODALITY_OF
from embedstore.sources.records import as_batches
from embedstore.sources.texts import read_text, text_fields, text_values
from embedstore.splits import is_split

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]


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
        found: set[str] = set()
        below: dict[str, bool] = {}  # first folder → whether files lie in folders below it
        for folder, files in _walk(self.root):
            if kinds := {MODALITY_OF[e] for file in files if (e := os.path.splitext(file)[1].lower()) in MODALITY_OF}:
                found |= kinds
                if parts := Path(folder).relative_to(self.root).parts:
                    below[parts[0]] = below.get(parts[0], False) or len(parts) > 1
        self._modalities = tuple(m for m in EXTENSIONS if m in found)
        if not self._modalities:
            known = ", ".join(e for extensions in EXTENSIONS.values() for e in extensions[:2])
            raise SourceError(f"{self.root} holds no file of a known type ({known}, …).")
        others = [name for name in below if not is_split(name)]
        self._has_splits = bool(below) and not others
        if others and (splits := [name for name, deep in below.items() if deep and is_split(name)]):
            split, other = repr(_text(splits[0])), repr(_text(others[0]))
            also = f" (and {len(others) - 1:,} more)" if len(others) > 1 else ""
            raise SourceError(
                f"{self.root} holds {split}, a split with folders of its own, beside {other}{also}, which is no split. "
                f"Move {other} away or into a split, or embed {split} alone; if {split} is a label, rename it."
            )

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

        names = [ID, *(m for m in self._modalities if m != "text"), "label", *(["split"] if self._has_splits else [])]
        texts = text_fields() if "text" in self._modalities else []
        return as_batches(self._rows(), pa.schema([*((name, pa.string()) for name in names), *texts]))

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
                text = text_values(partial(read_text, os.path.abspath(item["text"]))) if "text" in item else {}
                yield {ID: item_id, **row, **uris, **text}


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


def _walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Each folder with its files; a folder that lies in itself, by way of a link, is walked once."""
    trails: dict[str, tuple[str, ...]] = {str(root): (os.path.realpath(root),)}  # folder to come → real paths down to it
    for folder, folders, files in os.walk(root, followlinks=True):
        trail = trails.pop(folder)
        if "store.json" in files:  # a store that lies in the dataset
            folders[:] = []
            continue
        real = {name: os.path.realpath(os.path.join(folder, name)) for name in sorted(folders) if not name.startswith(".")}
        folders[:] = [name for name, path in real.items() if path not in trail]
        trails |= {os.path.join(folder, name): (*trail, real[name]) for name in folders}
        yield folder, sorted(name for name in files if not name.startswith("."))


def _text(path: str) -> str:
    """A file name as UTF-8 text; bytes that are not UTF-8 are shown as escapes (such a file becomes a read failure)."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

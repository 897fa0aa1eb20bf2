"""A folder of files as a source.

Files that share a folder and a stem are one item: ``dog.jpg`` with ``dog.txt`` is an image with its caption. The first
folder below the root is the ``label`` (torchvision's ImageFolder convention); where the first folders are all named like
splits (``train``, ``val``, ``test``), they are the ``split`` and the next folder is the label. A folder of splits with classes
below them and of something else is refused. Folders without a file of a known type do not count.

Links are followed, to folders too, but not to a folder that the link lies in.

A text is that of the file whose whole name it bears (``dog.jpg.txt``), else of those that share its stem (``dog.txt``).
A text that is blank is missing; one that cannot be read, or is not UTF-8, is a failure of its item's text.

What becomes no item is counted, by `FolderSource.notes`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedstore._core.splits import is_split
from embedstore.errors import SourceError
from embedstore.sources.base import EXTENSIONS, ID, MODALITY_OF
from embedstore.sources.confined import Root
from embedstore.sources.left_out import STORE, LeftOut, shown
from embedstore.sources.manifests import TABLES, Manifest, manifest_of
from embedstore.sources.records import as_batches
from embedstore.sources.text_files import read_text, text_fields, text_values

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]


class FolderSource:
    """The files below `root`, in sorted order; hidden files and unknown file types are left out and counted.

    Parameters
    ----------
    root : path
        A folder.
    """

    def __init__(self, root: str | os.PathLike[str], *, within: Root | None = None) -> None:
        self.root = Path(root)
        self._within = within
        if not self.root.is_dir():
            raise SourceError(f"{self.root} is not a folder.")
        self._left_out, self._unread, self._manifests = LeftOut(), list[str](), list[Manifest]()
        self._has_splits = False
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
            for _ in self._rows():
                pass
            told = "".join(f" {note}" for note in self.notes)
            raise SourceError(f"{self.root} holds no file of a known type ({known}, …).{told}")
        others = [name for name in below if not is_split(name)]
        self._has_splits = bool(below) and not others
        if others and (splits := [name for name, deep in below.items() if deep and is_split(name)]):
            split, other = repr(shown(splits[0])), repr(shown(others[0]))
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

    @property
    def notes(self) -> list[str]:
        """What was left out."""
        return [*self._left_out.notes(), *([self.unread] if self.unread else [])]

    @property
    def manifests(self) -> list[Manifest]:
        """The tables of its own files that the folder holds."""
        return self._manifests

    @property
    def unread(self) -> str | None:
        """Which folders could not be looked into."""
        if not self._unread:
            return None
        several = f"{len(self._unread):,} folders" if len(self._unread) > 1 else "1 folder"
        return f"left out: {several} that cannot be read (the first: {self._unread[0]})."

    def count(self) -> int | None:
        return sum(1 for folder, files in _walk(self.root) for _ in _items_of(folder, files, LeftOut()))

    def batches(self) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        names = [ID, *(m for m in self._modalities if m != "text"), "label", *(["split"] if self._has_splits else [])]
        texts = text_fields() if "text" in self._modalities else []
        return as_batches(self._rows(), pa.schema([*((name, pa.string()) for name in names), *texts]))

    def _rows(self) -> Iterator[Row]:
        left_out = self._left_out = LeftOut()
        unread = self._unread = list[str]()
        manifests = self._manifests = list[Manifest]()
        for folder, files in _walk(self.root, left_out, unread):
            for file in files:
                if os.path.splitext(file)[1].lower() not in MODALITY_OF:
                    _leave_out(self.root, os.path.join(folder, file), left_out, manifests)
            parts = Path(os.path.relpath(folder, self.root)).parts
            row: Row = {}
            if self._has_splits:
                row["split"], parts = (parts[0] if parts else None), parts[1:]
            row["label"] = shown(parts[0]) if parts else None
            for item in _items_of(folder, files, left_out):
                primary = next(item[m] for m in EXTENSIONS if item.get(m))
                item_id = shown(os.path.relpath(str(primary), self.root).replace(os.sep, "/"))
                uris = {m: shown(os.path.abspath(path)) for m, path in item.items() if m != "text"}
                text = {}
                if "text" in item:
                    text = text_values(partial(read_text, os.path.abspath(item["text"]), root=self._within))
                yield {ID: item_id, **row, **uris, **text}


def holds_media(root: Path) -> bool:
    """Whether there is a picture, a sound or a video below `root`."""
    endings = (os.path.splitext(file)[1].lower() for _, files in _walk(root) for file in files)
    return any(MODALITY_OF.get(ending, "text") != "text" for ending in endings)


def _items_of(folder: str, files: list[str], left_out: LeftOut) -> Iterator[dict[str, str]]:
    """Modality → path of each item of one folder."""
    stems: dict[str, dict[str, list[str]]] = {}
    for file in files:
        stem, extension = os.path.splitext(file)
        if modality := MODALITY_OF.get(extension.lower()):
            stems.setdefault(stem, {}).setdefault(modality, []).append(os.path.join(folder, file))
    media = [file for file in files if MODALITY_OF.get(os.path.splitext(file)[1].lower(), "text") != "text"]
    whole = {file: stems.pop(file)["text"] for file in media if set(stems.get(file, ())) == {"text"}}  # dog.jpg.txt
    for found in stems.values():
        primary = next(m for m in EXTENSIONS if m in found)
        shared = {m: paths for m, paths in found.items() if m not in (primary, "text")}
        stem_texts = [] if primary == "text" else found.get("text", [])
        wanted = False
        for path in found[primary]:
            texts = whole.pop(os.path.basename(path), None)
            wanted |= texts is None
            text = (texts or stem_texts)[:1]
            left_out.others("text(s) beside another of the same name", (texts or [])[1:])
            yield {primary: path, **{m: paths[0] for m, paths in shared.items()}, **({"text": text[0]} if text else {})}
        for modality, paths in shared.items():
            left_out.others(f"{modality} file(s) beside another of the same name", paths[1:])
        if not wanted:  # each of the files has a text of its whole name
            whole |= {path: [path] for path in stem_texts[:1]}
        left_out.others("text(s) beside another of the same name", stem_texts[1:])
    for texts in whole.values():
        yield {"text": texts[0]}
        left_out.others("text(s) beside another of the same name", texts[1:])


def _leave_out(root: Path, path: str, left_out: LeftOut, manifests: list[Manifest]) -> None:
    """Count a file of no known type, by what it is."""
    name = shown(os.path.relpath(path, root))
    if not os.path.exists(path):
        left_out.other("link(s) to nothing" if os.path.islink(path) else "file(s) that went away", name)
    elif path.lower().endswith(TABLES) and (manifest := manifest_of(path)):
        manifests.append(manifest)
    else:
        left_out.file(path)


def _walk(root: Path, left_out: LeftOut | None = None, unread: list[str] | None = None) -> Iterator[tuple[str, list[str]]]:
    """Each folder with its files; a folder that lies in itself, by way of a link, is walked once.

    What is not walked is counted in `left_out`, what cannot be is named in `unread`.
    """
    left_out, unread = left_out or LeftOut(), [] if unread is None else unread

    def failed(error: OSError) -> None:
        unread.append(f"{shown(os.fspath(error.filename))}: {error.strerror}")

    trails: dict[str, tuple[str, ...]] = {str(root): (os.path.realpath(root),)}  # folder to come → real paths down to it
    for folder, folders, files in os.walk(root, followlinks=True, onerror=failed):
        trail = trails.pop(folder)
        if STORE in files:
            left_out.store(shown(os.path.relpath(folder, root)))
            folders[:] = []
            continue
        for name in sorted([*folders, *files]):
            if name.startswith("."):
                kind = "hidden folder(s)" if name in folders else "hidden file(s)"
                left_out.other(kind, shown(os.path.relpath(os.path.join(folder, name), root)))
        real = {name: os.path.realpath(os.path.join(folder, name)) for name in sorted(folders) if not name.startswith(".")}
        folders[:] = [name for name, path in real.items() if path not in trail]
        for name in real.keys() - set(folders):
            left_out.other("link(s) to a folder above", shown(os.path.relpath(os.path.join(folder, name), root)))
        trails |= {os.path.join(folder, name): (*trail, real[name]) for name in folders}
        yield folder, sorted(name for name in files if not name.startswith("."))

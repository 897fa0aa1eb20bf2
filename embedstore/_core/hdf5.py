"""Datasets of HDF5 files that somebody else made: their bytes lie in the file itself, and are as many as it can hold.

An HDF5 file may point at other files (external links, virtual datasets, external storage), and may claim any size for what
it does not hold (a fill value, compressed zeros).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedstore._core.folders import regular_file
from embedstore.errors import CorruptStoreError, StoreError, one_line

if TYPE_CHECKING:
    import h5py

RATIO = 1100
"""Nothing that HDF5 compresses with by itself makes more of a byte (deflate reaches 1,032)."""
UNCHECKED = 64 << 20
"""Datasets up to so many bytes may claim what they like."""
CHUNK = 1 << 30
"""Most bytes of a chunk, which is decompressed at once."""
_REST = "An HDF5 file that was written by somebody else is read only where its numbers lie in it as they are."


def plain_dataset(h5: h5py.Group, name: str, where: str, *, below: Path | None = None) -> h5py.Dataset:
    """The dataset `name` of `h5`, whose bytes are in this file.

    Parameters
    ----------
    where : str
        The file, for messages.
    below : Path, optional
        A folder in whose files a virtual dataset may lie: what a store's ``embeddings.h5`` shows lies in its parts.

    Raises
    ------
    KeyError
        There is none of that name.
    CorruptStoreError
        A soft or external link, a virtual dataset, external storage, values that are no plain numbers or texts, or a size that
        the file cannot hold.
    """
    import h5py

    node: Any = h5
    for step in name.strip("/").split("/"):
        if not isinstance(node, h5py.Group):
            raise KeyError(name)
        link = node.get(step, getlink=True)
        if not isinstance(link, h5py.HardLink):
            if link is None:
                raise KeyError(name)
            raise _refused(where, name, "a link, which may lead out of the file")
        node = node[step]
    if not isinstance(node, h5py.Dataset):
        raise _refused(where, name, "no dataset")
    if node.is_virtual:
        if below is None:
            raise _refused(where, name, "a virtual dataset, which shows other files")
        _refuse_elsewhere(node, where, name, below)
        return node
    if node.external:
        raise _refused(where, name, "stored in another file")
    refuse_claims(node, where, name)
    return node


def _refuse_elsewhere(dataset: h5py.Dataset, where: str, name: str, folder: Path) -> None:
    """Refuse a virtual dataset that shows anything but plain datasets of regular files below `folder`, or claims more."""
    import h5py

    shown, seen = 0, set()
    for source in dataset.virtual_sources():
        shown += source.vspace.get_select_npoints()
        if (source.file_name, source.dset_name) in seen:
            continue
        seen.add((source.file_name, source.dset_name))
        steps = source.file_name.split("/")
        if "" in steps or ".." in steps:
            raise _refused(where, name, f"a virtual dataset, which shows {source.file_name}")
        try:
            regular_file(folder, source.file_name)
            with h5py.File(folder / source.file_name) as other:
                plain_dataset(other, source.dset_name, str(folder / source.file_name))
        except (StoreError, OSError) as error:
            raise _refused(where, name, f"a virtual dataset, which shows {source.file_name}: {one_line(error, 120)}") from error
    if shown < math.prod(dataset.shape):
        raise _refused(where, name, f"said to have {math.prod(dataset.shape):,} numbers, of which its parts hold {shown:,}")


def refuse_claims(dataset: h5py.Dataset, where: str, name: str) -> None:
    """Refuse a dataset that claims more than its file can hold.

    Raises
    ------
    CorruptStoreError
    """
    shape = dataset.shape
    if shape is None:
        raise _refused(where, name, "empty")
    claimed, held = math.prod(shape) * dataset.dtype.itemsize, dataset.id.get_storage_size()
    if claimed > UNCHECKED and claimed > RATIO * held:
        raise _refused(where, name, f"said to have {claimed:,} bytes, of which the file holds {held:,}")
    chunk = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
    if dataset.chunks and chunk > CHUNK:
        raise _refused(where, name, f"in chunks of {chunk:,} bytes, of which at most {CHUNK:,} are read at once")


def _refused(where: str, name: str, what: str) -> CorruptStoreError:
    return CorruptStoreError(f"{where}: /{name.strip('/')} is {what}.", _REST)

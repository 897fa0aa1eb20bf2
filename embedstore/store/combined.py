"""`embeddings.h5`: one HDF5 file of virtual datasets over every part, so that any HDF5 tool opens the whole store.

A derived file: readers of embedstore never use it, and it is written anew when a writer closes.
"""

from __future__ import annotations

import errno
import os
import shutil
from io import FileIO
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from embedstore._core.encoding import encoding
from embedstore._core.folders import Folder, regular_file, write_all
from embedstore.errors import StoreError, reason_of
from embedstore.store.format import COMBINED
from embedstore.store.part_files import HASH, PLACE, VECTORS
from embedstore.store.parts import in_memory
from embedstore.store.reader import StoreReader
from embedstore.store.space import PieceSpace

if TYPE_CHECKING:
    import h5py
    import pyarrow as pa

    from embedstore.store.space import Space


def write_combined(store: StoreReader) -> None:
    """Write ``embeddings.h5`` for the store's generation.

    For each space a group with ``vectors`` (n, dim), ``row`` (n,) int64, ``hash`` (n, 16) uint8, all virtual, and ``id``
    (n,) strings; removed items are left out, so that it shows what `Space.vectors` shows. A space with several vectors an
    item has ``pieces/vectors`` (m, dim), ``pieces/row`` (m,) and ``pieces/place`` (m, 2) besides.
    """
    import h5py

    width = store.items.longest_id()
    size = sum(_most_bytes(space, width) for space in store.spaces.values())
    try:
        with Folder.at(store.path) as folder, folder.replacing(COMBINED) as file:
            _reserve(file, (1 << 20) + size)
            with h5py.File(file.name, "r+", libver="latest") as h5:
                h5.attrs.update({**encoding("embedstore-combined"), "generation": store.generation})
                spaces = list(store.spaces.values())
                for i, space in enumerate(spaces):
                    group = h5.create_group(space.name)
                    _write_vectors(group, space)
                    if space.pieces is not None:
                        _write_vectors(group.create_group("pieces"), space.pieces)
                    if (same := next((other for other in spaces[:i] if _same_rows(space, other)), None)) is not None:
                        group["id"] = h5[same.name]["id"]  # a link
                    else:
                        _write_ids(group, store, space, width)
    except OSError as error:  # derived: the store is whole without it
        raise StoreError(f"{COMBINED} could not be renewed ({reason_of(error)}); everything committed is safe.") from error


def _reserve(file: FileIO, size: int) -> None:
    """Make `file` an empty HDF5 file with room on the disk for `size` bytes: HDF5 does not survive a full disk."""
    with in_memory("latest") as h5:
        h5.flush()
        image = h5.id.get_file_image()
    write_all(file, memoryview(image))
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    elif shutil.disk_usage(Path(file.name).parent).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _most_bytes(space: Space, width: int) -> int:
    """What a space takes in the file at most."""
    own = len(space) * width + (1 << 16) + sum(3 * (256 + len(file)) for file, *_ in space.live_ranges())
    return own if space.pieces is None else own + _most_bytes(space.pieces, 0)


def _same_rows(space: Space, other: Space) -> bool:
    """Whether both hold vectors of the same items in the same order, as far as that can be seen part by part."""
    if len(space) != len(other):
        return False
    blocks = zip_longest(space.row_blocks(), other.row_blocks())
    return all(a is not None and b is not None and np.array_equal(a, b) for a, b in blocks)


def _write_vectors(group: h5py.Group, space: Space) -> None:
    import h5py

    group.attrs.update(
        {
            "fingerprint": space.fingerprint,
            "encoder": space.spec.name,
            "modality": space.spec.modality,
            "dim": space.dim,
        }
    )
    n = len(space)
    columns = {
        VECTORS: ((n, space.dim), space.dtype),
        "row": ((n,), np.dtype("<i8")),
        **({PLACE: ((n, 2), np.dtype("<f8"))} if isinstance(space, PieceSpace) else {HASH: ((n, 16), np.dtype("u1"))}),
    }
    layouts = {key: h5py.VirtualLayout(shape, dtype) for key, (shape, dtype) in columns.items()}
    at = 0
    for file, total, lo, hi in space.live_ranges():
        for key, ((_, *rest), dtype) in columns.items():
            source = h5py.VirtualSource(file, key, shape=(total, *rest), dtype=dtype)
            layouts[key][at : at + hi - lo] = source[lo:hi]
        at += hi - lo
    for key, layout in layouts.items():
        if n:
            group.create_virtual_dataset(key, layout)
        else:
            group.create_dataset(key, shape=layout.shape, dtype=layout.dtype)


def _write_ids(group: h5py.Group, store: StoreReader, space: Space, width: int) -> None:
    """Ids as bytes in UTF-8, all of `width`, a block at a time."""
    import h5py

    ids = group.create_dataset("id", shape=(len(space),), dtype=h5py.string_dtype("utf-8", width))
    at = 0
    for rows in space.row_blocks():
        there = ids.id.get_space()
        there.select_hyperslab((at,), rows.shape)
        values = _fixed_width(_ids(store, rows), width)  # NumPy's type does not say UTF-8: the file's does
        ids.id.write(h5py.h5s.create_simple(rows.shape), there, values, ids.id.get_type())
        at += len(rows)


def _ids(store: StoreReader, rows: npt.NDArray[np.int64]) -> pa.Array:
    import pyarrow as pa

    return store.items.take(rows, ["id"]).column("id").cast(pa.large_binary()).combine_chunks()


def _lengths(array: pa.Array) -> npt.NDArray[np.int64]:
    """Bytes of each of `array` (n,), a LargeBinaryArray."""
    import pyarrow.compute as pc

    return np.asarray(pc.binary_length(array), np.int64)


def _fixed_width(array: pa.Array, width: int) -> npt.NDArray[np.bytes_]:
    """The values of a LargeBinaryArray (n,), filled up with zeros to `width` bytes."""
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    out = np.zeros((len(array), width), np.uint8)
    out[np.arange(width) < _lengths(array)[:, None]] = np.frombuffer(data or b"", np.uint8)[ends[0] : ends[-1]]
    return out.view(f"S{width}").reshape(-1)


def combined_is_current(store: StoreReader) -> bool:
    """Whether ``embeddings.h5`` shows the store's generation."""
    import h5py

    try:
        regular_file(store.path, COMBINED)
        with h5py.File(store.path / COMBINED, "r") as h5:
            return int(h5.attrs.get("generation", -1)) == store.generation
    except (OSError, LookupError, ValueError, TypeError, RuntimeError):  # whatever HDF5 says of a damaged one
        return False

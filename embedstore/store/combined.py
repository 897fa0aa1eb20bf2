"""`embeddings.h5`: one HDF5 file of virtual datasets over every part, so that any HDF5 tool opens the whole store.

A derived file: readers of embedstore never use it, and it is written anew when a writer closes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from embedstore._encoding import encoding
from embedstore._files import write_bytes
from embedstore.errors import StoreError, reason_of
from embedstore.store.format import COMBINED
from embedstore.store.parts import HASH, VECTORS
from embedstore.store.reader import Store

if TYPE_CHECKING:
    import h5py
    import pyarrow as pa

    from embedstore.store.space import Space


def write_combined(store: Store) -> None:
    """Write ``embeddings.h5`` for the store's generation.

    For each space a group with ``vectors`` (n, dim), ``row`` (n,) int64, ``hash`` (n, 16) uint8, all virtual, and ``id``
    (n,) strings; removed items are left out, so that it shows what `Space.vectors` shows.
    """
    import h5py

    with h5py.File(COMBINED, "w", driver="core", backing_store=False, libver="latest") as h5:
        h5.attrs.update({**encoding("embedstore-combined"), "generation": store.generation})
        for name, space in store.spaces.items():
            _write_space(h5.create_group(name), store, space)
        h5.flush()
        image = h5.id.get_file_image()
    try:
        write_bytes(store.path / COMBINED, image)
    except OSError as error:  # derived: the store is whole without it
        (store.path / f"{COMBINED}.tmp").unlink(missing_ok=True)
        raise StoreError(f"{COMBINED} could not be renewed ({reason_of(error)}); everything committed is safe.") from error


def _write_space(group: h5py.Group, store: Store, space: Space) -> None:
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
        HASH: ((n, 16), np.dtype("u1")),
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
    ids = _fixed_width(store.items.take(space.rows, ["id"]).column("id")) if n else np.empty(0, "S1")
    group.create_dataset("id", data=ids.astype(h5py.string_dtype("utf-8", ids.itemsize), copy=False))


def _fixed_width(column: pa.ChunkedArray) -> npt.NDArray[np.bytes_]:
    """Strings (n,) as bytes in UTF-8, all as wide as the longest."""
    import pyarrow as pa

    array = column.cast(pa.large_binary()).combine_chunks()
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    lengths = np.diff(ends)
    out = np.zeros((len(array), max(1, int(lengths.max(initial=0)))), np.uint8)
    out[np.arange(out.shape[1]) < lengths[:, None]] = np.frombuffer(data or b"", np.uint8)[ends[0] : ends[-1]]
    return out.view(f"S{out.shape[1]}").reshape(-1)


def combined_is_current(store: Store) -> bool:
    """Whether ``embeddings.h5`` shows the store's generation."""
    import h5py

    path = store.path / COMBINED
    if not os.path.exists(path):
        return False
    try:
        with h5py.File(path, "r") as h5:
            return int(h5.attrs.get("generation", -1)) == store.generation
    except OSError:
        return False

"""Reading and writing single parts: vectors in contiguous HDF5, tables in Parquet.

A part is written beside its final name, flushed to disk, then renamed. Nothing here knows of generations.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedstore._core.atomic_files import ALIGNED, DIRECT_BYTES, write_hashed
from embedstore._core.encoding import check_encoding, encoding
from embedstore._core.folders import Folder
from embedstore._core.hdf5 import plain_dataset
from embedstore._core.keys import KEY_BYTES, Keys
from embedstore._core.pieces import Pieces
from embedstore._core.sums import sum_of, sums_of
from embedstore.errors import CorruptStoreError, one_line
from embedstore.store.format import PartRef
from embedstore.store.part_files import HASH, PLACE, ROW, SUMS, VECTORS, PartFiles, of_pieces

if TYPE_CHECKING:
    import h5py
    import pyarrow as pa

Array = npt.NDArray[Any]

NEEDED = {"embedstore-items": ("row", "id"), "embedstore-tombstones": ("row",), "embedstore-failures": ("row",)}
"""Columns that every table of a kind has, without nulls."""
GROUP = 1 << 16
"""Rows of a row group: what is decoded where one row is looked up in a part too large to keep."""
UNIQUE = ("row", "id")
"""Columns of tables in which nothing repeats: a dictionary of their values would double them."""
_MAKING = threading.Lock()


def write_vectors(root: Path, file: str, vectors: Array, rows: Array, hashes: Keys) -> PartRef:
    """Write one vector part.

    Parameters
    ----------
    vectors : (n, dim) float16 or float32
    rows : (n,) int64
    hashes : (n, 2) uint64
        Content hash of the payload that each vector was made from.
    """
    digests = np.ascontiguousarray(hashes).view(np.uint8).reshape(len(rows), KEY_BYTES)
    arrays = {VECTORS: np.ascontiguousarray(vectors), ROW: np.ascontiguousarray(rows, "<i8"), HASH: digests}
    return _write_arrays(root, file, "embedstore-vectors", arrays)


def write_pieces(root: Path, file: str, pieces: Pieces, rows: Array) -> PartRef:
    """Write the part of the pieces of items whose rows are `rows` (n,) int64; `PartRef.rows` counts pieces."""
    arrays = {
        VECTORS: np.ascontiguousarray(pieces.vectors),
        ROW: np.repeat(np.ascontiguousarray(rows, "<i8"), pieces.counts),
        PLACE: np.ascontiguousarray(pieces.places, "<f8"),
    }
    return _write_arrays(root, file, "embedstore-pieces", arrays)


def _write_arrays(root: Path, file: str, kind: str, arrays: dict[str, Array]) -> PartRef:
    arrays[SUMS] = sums_of(arrays, VECTORS)
    with _MAKING:  # threads that miss the cache at once would each make it
        frame, offsets = _frame(kind, tuple((name, array.shape, array.dtype.str) for name, array in arrays.items()))
    written: list[bytes | memoryview] = [frame[0]]
    for name, between in zip(offsets, frame[1:], strict=True):
        written += [arrays[name].reshape(-1).view(np.uint8).data, between]
    *folders, name = file.split("/")
    with Folder.below(root, *folders) as folder:
        digest = write_hashed(folder, name, written)
    known = {name: offset for name, offset in offsets.items() if arrays[name].size}
    return PartRef(file, len(arrays[ROW]), sum(map(len, written)), digest, known, xxh3=f"{sum_of(arrays[SUMS]):016x}")


@lru_cache(maxsize=8)
def _frame(kind: str, datasets: tuple[tuple[str, tuple[int, ...], str], ...]) -> tuple[list[bytes], dict[str, int]]:
    """The bytes of an HDF5 file around its contiguous datasets, and the offset of each, in the order of the file.

    HDF5 makes them in memory, around zeros: it does not survive a full disk, a plain write does; and the same frame serves all
    parts of one size.
    """
    with in_memory(("earliest", "v110")) as h5:
        h5.attrs.update(encoding(kind))
        for name, shape, dtype in datasets:
            h5.create_dataset(name, data=np.zeros(shape, dtype))  # no chunks, no compression: contiguous
        h5.flush()
        at = {name: h5[name].id.get_offset() for name, _, _ in datasets}
        sizes = {name: h5[name].nbytes for name, _, _ in datasets}
        image = h5.id.get_file_image()
    offsets = dict(sorted(((name, offset) for name, offset in at.items() if offset is not None), key=lambda entry: entry[1]))
    ends = [0, *(offset + sizes[name] for name, offset in offsets.items())]
    return [image[lo:hi] for lo, hi in zip(ends, [*offsets.values(), len(image)], strict=True)], offsets


@contextmanager
def in_memory(libver: str | tuple[str, str]) -> Iterator[h5py.File]:
    """A new HDF5 file in memory alone, one at a time in a thread; large datasets begin at a multiple of `ALIGNED`.

    Its name is the thread's: HDF5 opens no two files of one name at once, there either.
    """
    import h5py

    aligned = {"alignment_threshold": DIRECT_BYTES, "alignment_interval": ALIGNED}
    with h5py.File(str(threading.get_ident()), "w", driver="core", backing_store=False, libver=libver, **aligned) as h5:
        yield h5


def read_array(files: PartFiles, ref: PartRef, name: str, dtype: Any, width: int | None = None, *, check: bool = True) -> Array:
    """Dataset `name` of a vector part: a read-only memory map at its offset, or a copy where it cannot be mapped.

    Parameters
    ----------
    check : bool
        Compare vectors now; otherwise the caller does, as it goes through them. Datasets of one sum are always compared.

    Returns
    -------
    ndarray, shape (ref.rows,) or (ref.rows, width), of `dtype`
    """
    shape = (ref.rows,) if width is None else (ref.rows, width)
    if ref.offsets.get(name) is None:
        return _read_hdf5(files.whole(ref), kind_of(ref), name, shape, dtype)
    path, offset = _fitting(files, ref, name, shape, dtype)
    array = np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)
    if name != VECTORS:
        files.check_single(ref, name, array)
    elif check:
        files.check_vectors(ref, array.itemsize * (width or 1))
    return array


def _fitting(files: PartFiles, ref: PartRef, name: str, shape: tuple[int, ...], dtype: Any) -> tuple[Path, int]:
    """The path and offset of a dataset, which must lie within the file."""
    path, offset = files.path(ref), ref.offsets[name]
    if offset + math.prod(shape) * np.dtype(dtype).itemsize > ref.bytes:
        raise files.damaged(ref, f"cannot hold the dataset /{name} of shape {shape} that it should")
    return path, offset


def read_into(out: Array, files: PartFiles, ref: PartRef, name: str, *, first: int = 0) -> None:
    """Read rows of dataset `name` of a vector part, from `first` on, into `out`, C-contiguous and of its dtype.

    A plain read at the offset: copying out of a fresh memory map would pay a page fault every 4 KiB. What was not compared
    before is summed while it is in the processor's cache.
    """
    if ref.offsets.get(name) is None:
        whole = _read_hdf5(files.whole(ref), kind_of(ref), name, (ref.rows, *out.shape[1:]), out.dtype)
        out[...] = whole[first : first + len(out)]
        return
    path, offset = _fitting(files, ref, name, (ref.rows, *out.shape[1:]), out.dtype)
    row_bytes = math.prod(out.shape[1:]) * out.itemsize
    with open(path, "rb", buffering=0) as file:
        file.seek(offset + first * row_bytes)
        view = memoryview(out.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        if name != VECTORS or files.known(ref):
            _fill(view, file, files, ref)
        else:
            _fill_checked(view, file, files, ref, first, row_bytes)
    if name != VECTORS:
        files.check_single(ref, name, out)


def _fill(view: memoryview, file: FileIO, files: PartFiles, ref: PartRef) -> None:
    while len(view):
        if not (count := file.readinto(view)):
            raise files.damaged(ref, "is shorter than it was")
        view = view[count:]


def _fill_checked(view: memoryview, file: FileIO, files: PartFiles, ref: PartRef, first: int, row_bytes: int) -> None:
    """Fill `view` with the vectors from `first` on, each block of them compared with its sum."""
    last = first + len(view) // row_bytes
    lo, hi = files.block_edges(ref, first, last)
    if lo < first or hi > last:  # the blocks at the ends are compared for themselves
        files.check_picked(ref, np.asarray([first, last - 1]), row_bytes)
    for at, end in files.runs(ref, first, last, row_bytes):
        piece = view[(at - first) * row_bytes : (end - first) * row_bytes]
        _fill(piece, file, files, ref)
        if (at, end) == files.block_edges(ref, at, end):
            files.check_rows(ref, at, piece, row_bytes)


def kind_of(ref: PartRef) -> str:
    """The encoding type of a part in HDF5."""
    return "embedstore-pieces" if of_pieces(ref) else "embedstore-vectors"


def _read_hdf5(path: Path, kind: str, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
    import h5py

    try:
        with h5py.File(path, "r") as h5:
            check_encoding(h5.attrs, kind, str(path))
            dataset = plain_dataset(h5, name, str(path))
            if dataset.shape != shape:
                raise CorruptStoreError(f"{path}: /{name} has shape {dataset.shape}, committed was {shape}.")
            return np.asarray(dataset[()], dtype=dtype)
    except (OSError, KeyError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise CorruptStoreError(f"{path}: dataset /{name} cannot be read ({one_line(error)}).") from error


def write_table(root: Path, file: str, table: pa.Table, kind: str, *, first_row: int = -1) -> PartRef:
    """Write `table` as a Parquet part whose schema metadata carries the encoding type and version."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    stamped = table.replace_schema_metadata({key: str(value) for key, value in encoding(kind).items()})
    nested = any(pa.types.is_nested(field.type) for field in table.schema)  # whose leaves have names of their own
    repeating = nested or [name for name in table.column_names if name not in UNIQUE]
    *folders, final = file.split("/")
    with Folder.below(root, *folders) as folder, folder.replacing(final) as opened:
        pq.write_table(stamped, Path(opened.name), compression="zstd", use_dictionary=repeating, row_group_size=GROUP)
    return PartRef.of(root, file, table.num_rows, first_row=first_row)


def _refuse_unlike(files: PartFiles, ref: PartRef, table: pa.Table, name: str) -> None:
    """Refuse a table in which the column `name` is not there once, of its type and without nulls."""
    import pyarrow as pa

    types = [field.type for field in table.schema if field.name == name]
    right = (pa.int64(),) if name == ROW else (pa.string(), pa.large_string())
    if len(types) != 1 or types[0] not in right or table.column(name).null_count:
        raise files.damaged(ref, f"has no column {name!r} of {right[0]} without nulls")


def row_numbers(table: pa.Table) -> npt.NDArray[np.int64]:
    """Column ``row`` (n,) of a table of items, tombstones, failures or splits; read-only.

    Arrow's own `to_numpy` imports pandas where that is installed, which takes longer than a search.
    """
    import pyarrow as pa

    column = table.column(ROW)
    if column.type != pa.int64():
        column = column.cast(pa.int64())
    chunks = [chunk for chunk in column.chunks if len(chunk)]
    rows = [np.frombuffer(chunk.buffers()[1], np.int64)[chunk.offset : chunk.offset + len(chunk)] for chunk in chunks]
    return rows[0] if len(rows) == 1 else np.concatenate([np.empty(0, np.int64), *rows])


def read_table(
    files: PartFiles, ref: PartRef, kind: str, columns: list[str] | None = None, *, group: int | None = None
) -> pa.Table:
    """The table of a Parquet part, or one row group of it; columns that the part lacks are left out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = files.whole(ref)
    try:
        with pq.ParquetFile(path) as file:
            metadata = {k.decode(): v.decode() for k, v in (file.schema_arrow.metadata or {}).items()}
            check_encoding(metadata, kind, str(path))
            present = None if columns is None else [c for c in columns if c in file.schema_arrow.names]
            rows = file.metadata.num_rows
            if group is None:
                table = file.read(columns=present, use_threads=False)
            else:
                table = file.read_row_group(group, columns=present, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise CorruptStoreError(f"{path} cannot be read ({error}).") from error
    for name in NEEDED[kind]:
        if columns is None or name in columns:
            _refuse_unlike(files, ref, table, name)
    if rows != ref.rows or (group is None and table.num_rows != rows):
        raise files.damaged(ref, f"has {rows:,} rows, committed were {ref.rows:,}")
    return table.replace_schema_metadata(None)


def group_edges(files: PartFiles, ref: PartRef) -> npt.NDArray[np.int64]:
    """Offsets (g + 1,) of the row groups of a Parquet part, from 0 to its number of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = files.whole(ref)
    try:
        metadata = pq.read_metadata(path)
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        raise CorruptStoreError(f"{path} cannot be read ({error}).") from error
    return np.cumsum([0, *sizes])

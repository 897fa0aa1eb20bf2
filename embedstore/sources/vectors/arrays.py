"""Two-dimensional arrays of floats in files, read in blocks of rows: ``.npy``, ``.npz``, HDF5, arrays in memory.

No pickle: an array of Python objects is refused.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol
from zipfile import BadZipFile, ZipFile

import numpy as np
import numpy.typing as npt

from embedstore._core.hdf5 import RATIO, UNCHECKED, plain_dataset
from embedstore.errors import CorruptStoreError, EmbedstoreError, SourceError, UsageError, next_step, one_line, reason_of

if TYPE_CHECKING:
    import h5py

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Block = tuple[Sequence[Array], "Mask | None"]
"""Rows in pieces (m, dim) of float16, float32, float64, int8 or uint8, and which of all are there (n,); None: all are."""

PREFERRED = ("vectors", "embeddings", "embedding", "vector", "emb", "arr_0")
"""Names that settle which of several arrays or columns holds the vectors."""

ID_NAMES = ("id", "ids")


class Matrix(Protocol):
    """Vectors in a fixed order, read from the first to the last."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def itemsize(self) -> int:
        """Bytes of a number as it comes."""

    @property
    def files(self) -> Sequence[tuple[str, int]]:
        """Name and rows of each file."""

    def blocks(self, size: int) -> Iterator[Block]:
        """Every row, in blocks of `size`; the last may be shorter.

        Raises
        ------
        SourceError
        """


class Rows(Protocol):
    """One array whose rows can be read anywhere."""

    name: str
    shape: tuple[int, int]
    dtype: np.dtype[Any]

    def read(self, lo: int, hi: int) -> Array: ...


class Stacked:
    """Arrays one after the other, as one matrix."""

    def __init__(self, name: str, arrays: Sequence[Rows]) -> None:
        self.name = name
        self._arrays = arrays
        first = arrays[0]
        for other in arrays[1:]:
            if other.shape[1] != first.shape[1]:
                raise SourceError(
                    f"{other.name} holds vectors of {other.shape[1]} numbers, but {first.name} of {first.shape[1]}. "
                    "Import them into spaces of their own."
                )
        self.shape = (sum(array.shape[0] for array in arrays), first.shape[1])
        self.itemsize = max(array.dtype.itemsize for array in arrays)
        self.files = [(array.name, array.shape[0]) for array in arrays]

    def blocks(self, size: int) -> Iterator[Block]:
        held: list[Array] = []
        for array in self._arrays:
            lo = 0
            while lo < array.shape[0]:
                hi = min(array.shape[0], lo + size - sum(map(len, held)))
                held.append(array.read(lo, hi))
                if sum(map(len, held)) == size:
                    yield held, None
                    held = []
                lo = hi
        if held:
            yield held, None


class MemoryRows:
    """An array in memory."""

    def __init__(self, array: Array, name: str = "the array") -> None:
        self.name = name
        self.shape, self.dtype = checked(array.shape, array.dtype, name)
        self._array = array

    def read(self, lo: int, hi: int) -> Array:
        return self._array[lo:hi]


class NpyRows:
    """A ``.npy`` file, mapped a block at a time."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        with _readable(path), open(path, "rb") as file:
            shape, fortran, dtype = read_header(file, self.name)
            self._offset = file.tell()
            size = os.fstat(file.fileno()).st_size
        self.shape, self.dtype = checked(shape, dtype, self.name)
        self._order: Any = "F" if fortran else "C"
        self._path = path
        wanted = self._offset + self.shape[0] * self.shape[1] * self.dtype.itemsize
        if size < wanted:
            raise SourceError(f"{path} is cut off: it has {size:,} bytes, its header promises {wanted:,}. Copy it again.")

    def read(self, lo: int, hi: int) -> Array:
        if self._order == "F":
            return np.memmap(self._path, self.dtype, "r", self._offset, self.shape, "F")[lo:hi]
        offset = self._offset + lo * self.shape[1] * self.dtype.itemsize
        return np.memmap(self._path, self.dtype, "r", offset, (hi - lo, self.shape[1]))


class HdfRows:
    """A dataset of an HDF5 file, whatever its layout."""

    def __init__(self, path: Path, dataset: str) -> None:
        self.name = f"{path}:{dataset}"
        self._path, self._dataset = path, dataset
        with open_hdf(path) as file:
            node = plain_dataset(file, dataset, str(path), below=path.parent)
            self._virtual = bool(node.is_virtual)
            self.shape, self.dtype = checked(node.shape, node.dtype, self.name)

    def read(self, lo: int, hi: int) -> Array:
        with open_hdf(self._path) as file:
            if self._virtual:  # looked at once: it may show thousands of files
                return np.asarray(file[self._dataset][lo:hi])
            return np.asarray(plain_dataset(file, self._dataset, str(self._path))[lo:hi])


@dataclass(frozen=True)
class NpzMatrix:
    """An array of an ``.npz`` file, decompressed as it is read."""

    path: Path
    member: str
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    fortran: bool

    @classmethod
    def open(cls, path: Path, member: str) -> NpzMatrix:
        with open_npz(path) as archive, archive.open(f"{member}.npy") as file:
            shape, fortran, dtype = read_header(file, f"{path}: array {member!r}")
        return cls(path, member, *checked(shape, dtype, f"{path}: array {member!r}"), fortran)

    @property
    def name(self) -> str:
        return f"{self.path}:{self.member}"

    @property
    def itemsize(self) -> int:
        return int(self.dtype.itemsize)

    @property
    def files(self) -> Sequence[tuple[str, int]]:
        return [(self.name, self.shape[0])]

    def blocks(self, size: int) -> Iterator[Block]:
        if self.fortran:
            yield from Stacked(self.name, [MemoryRows(read_member(self.path, self.member), self.name)]).blocks(size)
            return
        width = self.shape[1] * self.dtype.itemsize
        with open_npz(self.path) as archive, archive.open(f"{self.member}.npy") as file:
            read_header(file, self.name)
            for lo in range(0, self.shape[0], size):
                count = min(size, self.shape[0] - lo)
                data = file.read(count * width)
                if len(data) < count * width:
                    raise SourceError(f"{self.name} is cut off in row {lo + len(data) // width}. Copy {self.path} again.")
                yield [np.frombuffer(data, self.dtype).reshape(count, -1)], None


def npz_arrays(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Name → shape and dtype of the arrays in an ``.npz`` file."""
    found = {}
    with open_npz(path) as archive:
        for member in archive.namelist():
            if member.endswith(".npy"):
                with archive.open(member) as file:
                    shape, _, dtype = read_header(file, f"{path}: {member}")
                found[member.removesuffix(".npy")] = (shape, dtype)
    return found


def hdf_datasets(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Path in the file → shape and dtype of every dataset."""
    found = {}

    def visit(name: str, node: Any) -> None:
        if hasattr(node, "dtype") and node.shape is not None:
            found["/" + name] = (node.shape, node.dtype)

    with open_hdf(path) as file:
        file.visititems(visit)
    return found


def chosen(arrays: dict[str, tuple[tuple[int, ...], np.dtype[Any]]], wanted: str | None, where: str, option: str) -> str:
    """The name of the array that holds the vectors: the one `wanted`, or the only one of floats in two dimensions.

    Raises
    ------
    UsageError, SourceError
    """
    if wanted is not None:
        for name in (wanted, f"/{wanted}"):
            if name in arrays:
                return name
        raise UsageError(f"{where} holds no {wanted!r}. It holds {', '.join(sorted(arrays)) or 'nothing'}.")
    fits = [name for name, (shape, dtype) in arrays.items() if len(shape) == 2 and is_vector_dtype(dtype)]
    if len(fits) > 1:
        fits = [name for known in PREFERRED for name in fits if name.rpartition("/")[2].lower() == known] or fits
        if len(fits) > 1 and fits[0].rpartition("/")[2].lower() == fits[1].rpartition("/")[2].lower():
            raise UsageError(f"{where} holds several arrays of vectors: {', '.join(sorted(fits))}. Name one: {option}.")
    if len(fits) == 1 or (fits and fits[0].rpartition("/")[2].lower() in PREFERRED):
        return fits[0]
    if fits:
        raise UsageError(f"{where} holds several arrays of vectors: {', '.join(sorted(fits))}. Name one: {option}.")
    held = ", ".join(f"{name} ({dtype}{list(shape)})" for name, (shape, dtype) in arrays.items()) or "nothing"
    raise SourceError(f"{where} holds no two-dimensional array of floats. It holds {held}.")


def is_vector_dtype(dtype: np.dtype[Any]) -> bool:
    """Whether vectors may come in `dtype`: float16, float32 or float64, or int8 or uint8 (quantized)."""
    return (dtype.kind == "f" and dtype.itemsize <= 8) or (dtype.kind in "iu" and dtype.itemsize == 1)


def checked(shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> tuple[tuple[int, int], np.dtype[Any]]:
    """Refuse what is no matrix of floats."""
    if dtype.hasobject:
        raise SourceError(f"{name} holds Python objects, which only a pickle can store: they are not read. Save plain numbers.")
    if not is_vector_dtype(dtype):
        raise SourceError(f"{name} holds {dtype}; expected float16, float32, float64, int8 or uint8.")
    if len(shape) != 2 or min(shape) < 1:
        raise SourceError(f"{name} has the shape {tuple(shape)}; expected (n, dim), at least one vector of one number.")
    return (int(shape[0]), int(shape[1])), dtype


def read_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and dtype of a ``.npy`` stream, which is left at its first number."""
    from numpy.lib import format as npy

    try:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except OSError:
        raise
    except Exception as error:  # numpy parses it as Python, whose parser has errors of many kinds
        raise SourceError(f"{name} is not an array as numpy.save writes it ({one_line(error, 120)}).") from error
    return shape, fortran, dtype


def read_member(path: Path, member: str) -> Array:
    """A whole array of an ``.npz`` file, such as its ids."""
    with open_npz(path) as archive, archive.open(f"{member}.npy") as file:
        shape, _, dtype = read_header(file, f"{path}: array {member!r}")
        claimed, packed = math.prod(shape) * dtype.itemsize, archive.getinfo(f"{member}.npy").compress_size
        if dtype.hasobject or min(shape, default=0) < 0 or claimed > RATIO * packed + UNCHECKED:
            raise SourceError(f"{path}: array {member!r} is said to have {claimed:,} bytes of {dtype}, of which it holds none.")
    with open_npz(path) as archive, archive.open(f"{member}.npy") as file:
        try:
            return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
        except ValueError as error:
            raise SourceError(f"{path}: array {member!r} cannot be read ({one_line(error, 120)}).") from error


def read_array(path: Path, *, mapped: bool = False) -> Array:
    """A whole ``.npy`` file of plain values, in memory or `mapped`.

    Raises
    ------
    SourceError
        It is none, or has not as many values as its header promises.
    """
    with _readable(path), open(path, "rb") as file:
        shape, fortran, dtype = read_header(file, str(path))
        held, count = os.fstat(file.fileno()).st_size - file.tell(), math.prod(shape)
        if dtype.hasobject or min(shape, default=0) < 0 or count * dtype.itemsize > held:
            raise SourceError(f"{path} should hold {dtype}{shape}, of which it has {held:,} bytes. Copy it again.")
        order: Any = "F" if fortran else "C"
        if mapped and count:
            return np.memmap(path, dtype, "r", file.tell(), shape, order)
        return np.fromfile(file, dtype, count).reshape(shape, order=order)


@contextmanager
def open_npz(path: Path) -> Iterator[ZipFile]:
    """An ``.npz`` file; what is wrong with it, then or later, is a `SourceError`."""
    with _readable(path):
        try:
            with ZipFile(path) as archive:
                yield archive
        except (BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise SourceError(f"{path} is damaged or no .npz file ({one_line(error, 120)}).") from error


@contextmanager
def open_hdf(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file, read-only."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except CorruptStoreError as error:
        raise SourceError(str(error)) from error
    except (OSError, LookupError, ValueError, TypeError, RuntimeError, OverflowError) as error:  # h5py's, by what HDF5 says
        if isinstance(error, EmbedstoreError):
            raise
        raise SourceError(f"{path} cannot be read as HDF5 ({one_line(error, 160)}).") from error


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {reason_of(error)}.{next_step(error)}") from error

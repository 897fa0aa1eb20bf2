"""`Exporter`: what a target is asked. One small file a target; a package from outside brings one by the entry points
``embedstore.exporters``.

An exporter is told what the items are and hands back what the target holds; it knows neither the store nor the closing check.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from embedstore._core.pieces import Pieces
from embedstore.errors import FingerprintError, UsageError
from embedstore.spec import EncoderSpec

if TYPE_CHECKING:
    import pyarrow as pa

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Int = npt.NDArray[np.int64]

ID, VERSION = "id", "embedstore_version"
"""Columns that every target has: an item's id, and an int64 that changes when anything of the item does."""

RECORD = "embedstore"
"""Under this name a target keeps what was exported to it, as JSON; see `Plan.record`."""
KIND, FORMAT = "embedstore-export", 1
PLACE_BYTES = 16


@dataclass(frozen=True)
class PieceColumns:
    """Where a target keeps the pieces of a space whose items have several vectors.

    Parameters
    ----------
    vectors : str
        The column of their vectors.
    places : str or None
        That of where each begins and ends; None where no piece says it.
    each : int
        About how many an item has.
    """

    vectors: str
    places: str | None
    each: int

    @property
    def names(self) -> tuple[str, ...]:
        return (self.vectors,) if self.places is None else (self.vectors, self.places)


@dataclass(frozen=True)
class VectorColumn:
    """The vectors of one space as a target has them.

    Parameters
    ----------
    space : str
    column : str
        Its name in the target.
    dtype : numpy dtype
        Of the target: float16 or float32.
    spec : EncoderSpec
        What made the vectors.
    pieces : PieceColumns, optional
        Of a space whose items have several vectors, of which `column` holds the mean.
    """

    space: str
    column: str
    dtype: np.dtype[Any]
    spec: EncoderSpec
    pieces: PieceColumns | None = None

    @property
    def dim(self) -> int:
        return self.spec.dim

    def to_dict(self) -> dict[str, Any]:
        return {
            "column": self.column,
            "dim": self.dim,
            "dtype": self.dtype.name,
            "fingerprint": self.spec.fingerprint,
            "encoder": self.spec.to_dict(),
            **({} if self.pieces is None else {"pieces": list(self.pieces.names)}),
        }

    @property
    def names(self) -> tuple[str, ...]:
        """Of all its columns."""
        return (self.column,) if self.pieces is None else (self.column, *self.pieces.names)

    @property
    def bytes_per_item(self) -> int:
        vector = self.dim * self.dtype.itemsize
        return vector if self.pieces is None else vector + self.pieces.each * (vector + PLACE_BYTES)


@dataclass(frozen=True)
class Plan:
    """What an export is going to write.

    Parameters
    ----------
    name : str
        Of the table or collection, where a target has several.
    vectors : tuple of VectorColumn
    metadata : pyarrow.Schema
        Names and types of the other columns but `ID` and `VERSION`.
    items : int
    longest_id : int
        Bytes in UTF-8.
    last_row : int
        No item has a row above it.
    """

    name: str
    vectors: tuple[VectorColumn, ...]
    metadata: pa.Schema
    items: int
    longest_id: int
    last_row: int

    @property
    def record(self) -> dict[str, Any]:
        """What the target keeps of the export, so that a later one mixes nothing: the encoder behind every column."""
        spaces = {column.space: column.to_dict() for column in self.vectors}
        return {"encoding-type": KIND, "encoding-version": FORMAT, "spaces": spaces}

    @property
    def bytes_per_item(self) -> int:
        """Of the vectors."""
        return sum(column.bytes_per_item for column in self.vectors)


@dataclass(frozen=True)
class Slice:
    """Some items, in order of their rows.

    Parameters
    ----------
    ids : list of str, n of them
    rows, versions : (n,) int64
    metadata : pyarrow.Table
        Of n rows and the columns of `Plan.metadata`.
    vectors : mapping of column to (n, dim)
        In the dtype of the target; zeros where an item has none.
    present : mapping of column to (n,) bool
    pieces : mapping of column to Pieces
        Of the items that are present, in the dtype of the target; of columns with `VectorColumn.pieces`.
    """

    ids: list[str]
    rows: Int
    versions: Int
    metadata: pa.Table
    vectors: Mapping[str, Array]
    present: Mapping[str, Mask]
    pieces: Mapping[str, Pieces] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)


class Items(Protocol):
    """The items that are wanted in the target."""

    def __len__(self) -> int: ...

    def positions(self, ids: Sequence[str]) -> Int:
        """Where each of `ids` (m,) is among the items; -1 where it is not wanted."""

    def versions(self, size: int) -> Iterator[tuple[Int, list[str]]]:
        """Versions (n,) and ids of all items in order, `size` at a time."""

    def take(self, positions: Int) -> Slice:
        """The items at `positions`, ascending."""

    def vectors(self, column: str, positions: Int) -> tuple[Array, Mask]:
        """Vectors (m, dim) of the items at `positions` in a column, zeros where one has none, and which have one (m,)."""

    def count(self, column: str) -> int:
        """How many of the items have a vector in a column."""


class Found(NamedTuple):
    """An item as the target has it: metadata as `Exporter.kept` writes it, column → vector (dim,), or None, and its pieces."""

    metadata: Mapping[str, Any]
    vectors: Mapping[str, Array | None]
    pieces: Mapping[str, Pieces] = {}


@dataclass
class Changes:
    """What an export changed in the target, in items."""

    written: int = 0
    unchanged: int = 0
    removed: int = 0


Progress = Callable[[int], None]
"""Told how many items are done."""


class Exporter(ABC):
    """A target of an export: a context manager, opened for one `Plan`.

    Parameters
    ----------
    out : str
        A path or an address, as the user wrote it.
    """

    dtypes: tuple[str, ...] = ("float16", "float32")
    """What its vectors may be; others become the last."""
    keeps_length: ClassVar[bool] = True
    """Whether a vector comes back to the bit, and not scaled to unit length."""
    missing_is_zeros: bool = False
    """Whether zeros come back where an item has no vector."""
    keeps_pieces: ClassVar[bool] = False
    """Whether it has room for all vectors of an item that has several, besides their mean."""
    needs_all: ClassVar[bool] = False
    """Whether items that miss a vector have to be left out."""

    def __init__(self, out: str) -> None:
        self.out = out
        self.notes: list[str] = []

    def spaces(self, specs: Mapping[str, EncoderSpec]) -> list[str]:
        """Names of the spaces, of those asked for, that the target has room for; all, unless it says otherwise."""
        return list(specs)

    def column_of(self, space: str) -> str:
        """What the vectors of `space` are called."""
        return f"{space}_vector"

    def metadata_name(self, column: str) -> str:
        """What a metadata column is called."""
        return column

    @property
    def own_columns(self) -> tuple[str, ...]:
        """Names that no metadata column may have."""
        return (ID, VERSION)

    @property
    def where(self) -> str:
        """The target in messages."""
        return self.out

    @property
    def always_exact(self) -> bool:
        """Whether it searches exactly where nothing is said, so that one measurement stands for both."""
        return False

    @abstractmethod
    def open(self, plan: Plan) -> None:
        """Open the target, or make it, after a look at what it holds (`check_record`).

        Raises
        ------
        UsageError, FingerprintError
            It holds something else.
        OutputError
            It cannot be reached or written.
        MissingDependencyError
        """

    @abstractmethod
    def update(self, items: Items, progress: Progress) -> Changes:
        """Make the target hold these items and no others. What it has already stays; after a kill it goes on."""

    @abstractmethod
    def counts(self) -> tuple[int, dict[str, int] | None]:
        """Items in the target, and vectors by column (None where it cannot count them)."""

    @abstractmethod
    def fetch(self, ids: Sequence[str]) -> dict[str, Found]:
        """Those of `ids` that are there."""

    @abstractmethod
    def prepare(self, exact: bool) -> bool:
        """Make ready for searches, exact ones or as the target does them by default; false where it has no such ones."""

    @abstractmethod
    def nearest(self, column: str, queries: Array, k: int, *, exact: bool) -> list[list[str]]:
        """Ids of the `k` items nearest by cosine to each of `queries` (m, dim) float32."""

    def kept(self, metadata: pa.Table) -> list[dict[str, Any]]:
        """Metadata as the target returns it."""
        return metadata.to_pylist() or [{}] * metadata.num_rows

    def close(self) -> None:  # noqa: B027 - files have nothing to let go of
        """Let go of the target."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_record(held: Any, plan: Plan, where: str, other: str) -> None:
    """Refuse a target that holds something else than `plan` writes.

    Parameters
    ----------
    held : mapping or None
        What the target keeps of an earlier export.
    where : str
        The target, in the message.
    other : str
        How to name another one.

    Raises
    ------
    UsageError
        It was not made by an export, or holds other spaces.
    FingerprintError
        It holds vectors of another encoder.
    """
    if not isinstance(held, Mapping) or held.get("encoding-type") != KIND:
        raise UsageError(f"{where} is there already, and no export of embedstore: nothing is written to it. {other}")
    if held.get("encoding-version") != FORMAT:
        raise UsageError(f"{where} was exported by another version of embedstore. Update embedstore, or: {other}")
    spaces = held.get("spaces") or {}
    for column in plan.vectors:
        mine, theirs = column.to_dict(), spaces.get(column.space)
        if theirs is None:
            continue
        if theirs.get("fingerprint") != mine["fingerprint"]:
            encoder = (theirs.get("encoder") or {}).get("name", "another encoder")
            raise FingerprintError(
                f"{where} holds vectors of {encoder} (fingerprint {theirs.get('fingerprint')}) as {column.space!r}; the store "
                f"has those of {column.spec.label}. They cannot be compared. {other}"
            )
        if theirs.get("dtype") != mine["dtype"] or theirs.get("column") != mine["column"]:
            raise UsageError(
                f"{where} holds {column.space!r} as {theirs.get('dtype')} in {theirs.get('column')!r}; asked for is "
                f"{mine['dtype']} in {mine['column']!r}. Give --dtype {theirs.get('dtype')}, or: {other}"
            )
    if set(spaces) != {column.space for column in plan.vectors}:
        raise UsageError(
            f"{where} holds the spaces {', '.join(spaces) or 'none'}; asked for are "
            f"{', '.join(column.space for column in plan.vectors)}. Export the same: --space {','.join(spaces)}. Or: {other}"
        )

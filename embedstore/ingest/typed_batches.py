"""Batches of a source with one type for each column: the store's, the user's, or the plain one of what came first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedstore._core.column_types import ColumnType, plain_type, shown, word_of
from embedstore._core.column_values import MisfitError, fitted, plain
from embedstore.errors import SourceError, UsageError
from embedstore.sources.base import BYTES, ID, RESERVED, TEXT_FAILED
from embedstore.spec import MODALITIES

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Known:
    """Types of columns that somebody else than the store knows.

    Parameters
    ----------
    kinds : mapping of metadata column to Arrow type
        Of columns that may be there.
    owner : str
        Who knows them, for messages.
    exact : bool
        Refuse whole numbers that float64 rounds.
    """

    kinds: Mapping[str, pa.DataType]
    owner: str = "the store"
    exact: bool = True


class Typed:
    """Gives every column of a source its type, and keeps it for all that comes later.

    Parameters
    ----------
    where : str
        The source, for messages.
    stored : mapping of column to Arrow type
        What the store holds already.
    said : mapping of column to ColumnType
        What the user declares.
    owner : str
        Who holds the columns so, for messages.
    exact : bool
        Refuse whole numbers that float64 rounds, in columns of numbers.
    first : int
        The number that messages give the first row: 0 or 1.

    Attributes
    ----------
    kinds : dict
        Metadata column → Arrow type, of all that is known so far.

    Raises
    ------
    UsageError
        A declared type contradicts the store's, or a column that is no metadata is declared.
    """

    def __init__(
        self,
        where: str,
        stored: Mapping[str, pa.DataType],
        said: Mapping[str, ColumnType] | None = None,
        *,
        owner: str = "the store",
        exact: bool = True,
        first: int = 1,
    ) -> None:
        self._where = where
        self._owner = owner
        self._exact = exact
        self._first = first
        self.kinds: dict[str, pa.DataType] = {name: kind for name, kind in stored.items() if name not in RESERVED}
        self._stored = frozenset(self.kinds)
        self._said = dict(said or {})
        self._left_out: dict[str, str] = {}
        self._by_lower = {name.lower(): name for name in self.kinds}
        for name, declared in self._said.items():
            if name in RESERVED:
                raise UsageError(f"{name!r} is no metadata column; only those can be declared (--type).")
            kind = declared.arrow()
            if self.kinds.setdefault(name, kind) != kind:
                raise UsageError(
                    f"The store holds column {name!r} as {word_of(self.kinds[name])}; it cannot be {declared.word} as well. "
                    "Rename the column, or make a new store."
                )

    @property
    def known(self) -> frozenset[str]:
        """The columns whose types were settled before anything was read."""
        return self._stored | self._said.keys()

    def batches(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches, typed.

        Raises
        ------
        SourceError
            A value does not fit (names its row, the value and the type), or two columns differ in case only.
        UsageError
            There is no such column as one that was declared.
        """
        import pyarrow as pa

        start = 0
        for batch in batches:
            yield pa.RecordBatch.from_pydict(self.columns(zip(batch.schema.names, batch.columns, strict=True), start))
            start += batch.num_rows

    def columns(self, columns: Iterable[tuple[str, Any]], start: int) -> dict[str, Any]:
        """Columns (name, array) whose first values are those of row `start` (from 0), typed; those left out are not in it.

        Raises
        ------
        SourceError, UsageError
            As `batches` does.
        """
        columns = list(columns)
        if start == 0:
            self._refuse_unknown(name for name, _ in columns)
        typed = ((name, self._column(name, column, start)) for name, column in columns)
        return {name: column for name, column in typed if column is not None}

    def notes(self) -> list[str]:
        """What was left out, for people."""
        return [f"Column {name!r} {why} and is left out." for name, why in self._left_out.items()]

    def _column(self, name: str, column: Any, start: int) -> Any | None:
        import pyarrow as pa

        if name == TEXT_FAILED:
            return column
        if name in RESERVED:
            return column.cast(pa.string()) if pa.types.is_null(column.type) else self._plain(name, column, start)
        if name in self.kinds:
            return self._fitted(name, column, start)
        if (twin := self._by_lower.get(name.lower())) is not None:
            raise SourceError(
                f"{self._where}: columns {twin!r} and {name!r} differ in case only, which SQL cannot tell apart. Rename one."
            )
        kind = plain_type(column.type)
        if kind is not None and (pa.types.is_null(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            self._left_out[name] = "holds nothing" if pa.types.is_null(kind) else "holds bytes"
            return None
        column = self._plain(name, column, start)
        self.kinds[name] = column.type
        self._by_lower[name.lower()] = name
        self._left_out.pop(name, None)
        return column

    def _fitted(self, name: str, column: Any, start: int) -> Any:
        said = self._said.get(name)
        try:
            return fitted(column, self.kinds[name], pattern=None if said is None else said.format, exact=self._exact)
        except MisfitError as error:
            if name in self._stored:
                because = f"the type of the column in {self._owner}. Mend the value, or rename the column"
            elif said is not None:
                because = "which the column is declared to be (--type)"
            else:
                because = f"like the values before it. If the column is to be text: --type {name}=text"
            raise SourceError(
                f"{self._place(start, error)}: {name} is {shown(error.value)}, no {error.expected}, {because}."
            ) from error

    def _plain(self, name: str, column: Any, start: int) -> Any:
        try:
            return plain(column)
        except MisfitError as error:
            mend = f"Keep the column as text: --type {name}=text" if name not in (ID, *MODALITIES) else "Mend the value"
            raise SourceError(
                f"{self._place(start, error)}: {name} is {shown(error.value)}, no {error.expected}. {mend}."
            ) from error
        except TypeError as error:
            raise SourceError(f"{self._where}: column {name!r} {error}. Convert it, or leave it out.") from None

    def _place(self, start: int, error: MisfitError) -> str:
        row = start + error.position + self._first
        return f"{self._where}: row {row}{' (from 0)' if self._first == 0 else ''}"

    def _refuse_unknown(self, names: Iterable[str]) -> None:
        metadata = [name for name in names if name not in RESERVED and name.removesuffix(BYTES) not in MODALITIES]
        for name in self._said:
            if name not in metadata:
                raise UsageError(f"{self._where} has no metadata column {name!r}. Columns: {', '.join(metadata) or 'none'}.")

"""The metadata of WebDataset samples: of their ``json`` members, or of a Parquet file beside each shard."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from embedstore._core.atomic_files import parquet_table
from embedstore._core.column_types import plain_type
from embedstore._core.column_values import MisfitError, fitted
from embedstore.errors import PayloadError, SourceError, one_line
from embedstore.sources.files import exists, read_payload
from embedstore.sources.records import JsonColumns
from embedstore.sources.samples import Sample
from embedstore.sources.tar import IS_TAR

if TYPE_CHECKING:
    import pyarrow as pa

JSON, KEY = "json", "key"
"""The extension of metadata, and the column that joins a Parquet file to the samples."""


class ShardMetadata(Protocol):
    """The metadata of samples, shard by shard."""

    def types(self) -> dict[str, pa.DataType]:
        """Key → Arrow type, of those that are known by now."""

    def leave_text(self, names: Iterable[str], name_of: Callable[[str], str]) -> None:
        """See `embedstore.sources.base.Source`; `name_of` says what the store calls a key."""

    def start(self) -> None:
        """The shards are read from the first one on."""

    def open(self, shard: str) -> None:
        """The samples to come are those of `shard`."""

    def values(self, sample: Sample) -> dict[str, Any]:
        """The values of a sample, by key."""

    def notes(self) -> list[str]:
        """What was left out."""


class _FromJson:
    """The member ``json`` of each sample; `keyless` is a Parquet file that was not read."""

    def __init__(self, first: Sequence[Sample], keyless: str | None = None) -> None:
        self._columns = JsonColumns(_parsed(sample) for sample in first)
        self._keyless = keyless

    def types(self) -> dict[str, pa.DataType]:
        return self._columns.types()

    def leave_text(self, names: Iterable[str], name_of: Callable[[str], str]) -> None:
        self._columns.leave_text(names, name_of)

    def start(self) -> None:
        pass

    def open(self, shard: str) -> None:
        pass

    def values(self, sample: Sample) -> dict[str, Any]:
        record = _parsed(sample)
        self._columns.learn([record])
        return self._columns.values(record, sample.place)

    def notes(self) -> list[str]:
        return [f"{self._keyless} has no column {KEY!r} and was not read."] if self._keyless else []


class _FromParquet:
    """The Parquet file beside each shard; a column's type is that of the first shard that has it."""

    def __init__(self, first: pa.Table, timeout: float) -> None:
        self._timeout = timeout
        self._types: dict[str, pa.DataType] = {}
        self._names: dict[str, None] = {}
        self._rows: dict[str, dict[str, Any]] = {}
        self._counts: Counter[str] = Counter()
        self._learn(first.schema)

    def types(self) -> dict[str, pa.DataType]:
        return self._types

    def leave_text(self, names: Iterable[str], name_of: Callable[[str], str]) -> None:
        pass  # Parquet has types

    def start(self) -> None:
        self._rows, self._counts = {}, Counter()

    def open(self, shard: str) -> None:
        import pyarrow as pa

        path = sibling(shard, ".parquet")
        table = _read_sidecar(path, self._timeout)
        self._learn(table.schema)
        self._counts["unused"] += len(self._rows)
        try:
            columns = {
                n: fitted(table[n], t) if n in table.column_names else pa.nulls(len(table), t) for n, t in self._types.items()
            }
        except MisfitError as error:
            raise SourceError(
                f"{path}: {error}, as its column is in the first shard. Make the columns' types the same."
            ) from error
        rows = pa.table(columns).to_pylist() if columns else [{}] * len(table)
        self._rows = dict(zip(table[KEY].cast(pa.string()).to_pylist(), rows, strict=True))

    def values(self, sample: Sample) -> dict[str, Any]:
        self._counts["json"] += JSON in sample.members
        if sample.key not in self._rows:
            self._counts["without"] += 1
        return self._rows.pop(sample.key, {})

    def notes(self) -> list[str]:
        empty = [name for name in self._names if name not in self._types]
        unused = self._counts["unused"] + len(self._rows)
        counts = self._counts
        told = {
            f"{counts['without']:,} samples have no row in the Parquet file beside their shard.": counts["without"],
            f"{unused:,} rows of the Parquet files beside the shards have no sample.": unused,
            f"left out: {counts['json']:,} .json (Parquet files beside the shards give the metadata).": counts["json"],
            f"Columns without a value are not kept: {', '.join(map(repr, empty))}.": len(empty),
        }
        return [sentence for sentence, count in told.items() if count]

    def _learn(self, schema: pa.Schema) -> None:
        """Columns of nothing but nulls have no type yet."""
        import pyarrow as pa

        self._names |= dict.fromkeys(name for name in schema.names if name != KEY)
        new = {f.name: plain_type(f.type) or f.type for f in schema if f.name not in (KEY, *self._types)}
        self._types |= {name: kind for name, kind in new.items() if not pa.types.is_null(kind)}


def metadata_of(shard: str, first: Sequence[Sample], timeout: float) -> ShardMetadata:
    """What gives the metadata of shards, by the one called `shard` and its `first` samples."""
    sidecar = sibling(shard, ".parquet")
    if exists(sidecar, timeout=timeout):
        table = _read_sidecar(sidecar, timeout)
        if KEY in table.column_names:
            return _FromParquet(table, timeout)
        return _FromJson(first, sidecar)
    return _FromJson(first)


def _read_sidecar(path: str, timeout: float) -> pa.Table:
    import pyarrow as pa

    try:
        return parquet_table(read_payload(path, timeout=timeout))
    except PayloadError as error:
        raise SourceError(f"{error.reason}. The first shard has such a file, so every shard should.") from error
    except pa.ArrowException as error:
        raise SourceError(f"{path} cannot be read as parquet: {one_line(error)}") from error


def _parsed(sample: Sample) -> Mapping[str, Any]:
    content = sample.members.get(JSON)
    try:
        record = json.loads(content) if content else {}
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{sample.place}: its json is not JSON ({one_line(error, 120)}).") from error
    if not isinstance(record, dict):
        raise SourceError(f"{sample.place}: its json is no object.")
    return record


def sibling(shard: str, ending: str) -> str:
    """The file beside a shard with its stem and another `ending`."""
    return IS_TAR.sub("", shard) + ending

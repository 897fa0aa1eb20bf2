"""WebDataset tars as a source: members that share a key are one item.

The key is a member's path up to the first dot of its base name, the rest its extension. Pictures, sounds and videos are
payloads, ``txt`` (``text``, ``caption``) is the text, ``cls`` the label; ``json`` gives metadata, unless a Parquet file of the
same stem lies beside the shard (as img2dataset writes it): then that does, joined by its column ``key``. Other members
are not read; they are counted by ending. A link in place of a member that would be read is an error.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from embedstore._core.arguments import TIMEOUT
from embedstore._core.atomic_files import parquet_table
from embedstore._core.column_types import as_text, plain_type
from embedstore._core.column_values import MisfitError, fitted
from embedstore.errors import PayloadError, SourceError, UsageError, one_line
from embedstore.sources.base import BYTES, EXTENSIONS, ID, free_name, kept_names, renamed
from embedstore.sources.files import absolute, exists, is_url, read_payload
from embedstore.sources.left_out import LeftOut
from embedstore.sources.records import SNIFFED, JsonColumns, as_batches
from embedstore.sources.samples import LABEL, Parts, Sample, key_and_extension, label_of, modality_of
from embedstore.sources.tar import IS_TAR, members
from embedstore.sources.text_files import text_fields, text_of, text_values

if TYPE_CHECKING:
    import pyarrow as pa

SHARD_KEY = "shard/key"
"""What ``--id-column`` takes for keys that are unique within their shard only."""

_JSON, _KEY = "json", "key"


class WebDatasetSource:
    """The samples of tar files, shard after shard.

    Modalities and the metadata's types are learned from the first `SNIFFED` samples.

    Parameters
    ----------
    shards : sequence of str
        Paths or URLs of ``.tar``, ``.tar.gz``, ``.tar.zst`` or ``.tar.bz2`` files.
    columns : mapping, optional
        Modality → extension of its members (or metadata key, for ``"text"``); ``"id"`` → metadata key, or `SHARD_KEY`.
    name : str, optional
        What messages call it.
    timeout : float
        Seconds that a read from a URL may take.
    beside : LeftOut, optional
        What lies beside the tars and is not read.
    """

    def __init__(
        self,
        shards: Sequence[str],
        columns: Mapping[str, str] | None = None,
        *,
        name: str | None = None,
        timeout: float = TIMEOUT,
        beside: LeftOut | None = None,
    ) -> None:
        self._beside = beside or LeftOut()
        self._shards = list(shards)
        if not self._shards:
            raise SourceError(f"{name} holds no tar; expected files ending in .tar, .tar.gz, .tar.zst or .tar.bz2.")
        self._name = name or self._shards[0]
        if gone := [shard for shard in self._shards if not is_url(shard) and not os.path.isfile(shard)]:
            raise SourceError(f"{gone[0]} does not exist; {len(self._shards) - len(gone)} of {len(self._shards)} shards do.")
        self._timeout = timeout
        self._named: dict[str, str] = {}
        self._left_out = LeftOut()
        first = list(islice((s for shard in self._shards for s in self._samples(shard, {_JSON})), SNIFFED))
        self._parts = Parts(first)
        self._metadata = _metadata_of(self._shards[0], first, timeout)
        self._name_columns(first, columns or {})
        seen = {modality for sample in first for modality in EXTENSIONS if self._extension(sample, modality)}
        self._modalities = tuple(m for m in EXTENSIONS if m in seen or m in self._named)
        self._has_label = any(LABEL in sample.members for sample in first)
        if not self._modalities:
            found = ", ".join(sorted({e for sample in first for e in sample.members})) or "none"
            raise SourceError(f"{self._name} holds nothing of a known type (jpg, png, txt, flac, mp4, …). Extensions: {found}.")
        self._starts: list[int] = []

    @property
    def name(self) -> str:
        return self._name

    @property
    def modalities(self) -> tuple[str, ...]:
        return self._modalities

    def count(self) -> int | None:
        """From the ``_stats.json`` files of img2dataset, where every shard has one."""
        try:
            return sum(int(json.loads(read_payload(_sibling(s, "_stats.json")))["successes"]) for s in self._local())
        except (PayloadError, ValueError, KeyError, TypeError):
            return None

    def batches(self) -> Iterator[pa.RecordBatch]:
        return as_batches(self._rows(), self._schema)

    def leave_text(self, names: Iterable[str]) -> None:
        """See `embedstore.sources.base.Source`."""
        self._metadata.leave_text(names, self._column)

    @property
    def notes(self) -> list[str]:
        """What was left out or renamed."""
        return [
            *renamed({key: self._column(key) for key in self._metadata.types()}),
            *self._left_out.notes(),
            *self._beside.notes(),
            *self._metadata.notes(),
        ]

    def duplicate_hint(self, first: int, second: int) -> str:
        """Which shards the two positions lie in, and what to do."""
        one, other = (self._shards[bisect_right(self._starts, position) - 1] for position in (first, second))
        if one == other:
            return f"Both lie in {one}. The members of a sample have to follow one another, and keys to be unique."
        return f"They lie in {one} and {other}; --id-column {SHARD_KEY} puts the shard's name before the key."

    def _rows(self) -> Iterator[dict[str, Any]]:
        wanted = {_JSON, LABEL, *self._named.values()}
        self._starts, position, self._left_out = [], 0, LeftOut()
        self._metadata.start()
        for shard in self._shards:
            self._starts.append(position)
            self._metadata.open(shard)
            for sample in self._samples(shard, wanted, self._modalities):
                self._count_unread(sample)
                yield self._row(sample)
                position += 1

    def _row(self, sample: Sample) -> dict[str, Any]:
        metadata = self._metadata.values(sample)
        self._has_label |= LABEL in sample.members and "label" not in self._metadata.types()
        row: dict[str, Any] = {self._column(key): value for key, value in metadata.items()}
        used = {modality: self._extension(sample, modality) for modality in self._modalities}
        self._parts.refuse_mixed(sample, filter(None, used.values()))
        self._count_unused(sample, used)
        for modality, extension in used.items():
            if modality == "text":
                row.update(self._text(sample, extension, metadata))
            elif extension:
                row[modality] = f"{absolute(sample.shard)}#{sample.names[extension]}"
                row[modality + BYTES] = sample.members[extension]
        if self._has_label:
            row["label"] = label_of(sample)
        return {**row, ID: self._id(sample, metadata)}

    def _text(self, sample: Sample, extension: str | None, metadata: Mapping[str, Any]) -> dict[str, Any]:
        if extension:
            content = sample.members[extension] or b""
            return text_values(lambda: text_of(content))
        return {"text": (as_text(metadata.get(self._named.get("text", ""))) or "").strip() or None}

    def _id(self, sample: Sample, metadata: Mapping[str, Any]) -> str:
        named = self._named.get(ID)
        if named is None:
            return sample.key
        if named == SHARD_KEY:
            return f"{IS_TAR.sub('', sample.shard.rpartition('/')[2])}/{sample.key}"
        value = as_text(metadata.get(named))
        if value is None:
            raise SourceError(f"{sample.place} has no {named!r}, which is to give the id.")
        return value

    def _schema(self) -> pa.Schema:
        import pyarrow as pa

        fields = [(ID, pa.string()), *((m, pa.string()) for m in self._modalities if m != "text")]
        fields += text_fields() if "text" in self._modalities else []
        fields += [(m + BYTES, pa.large_binary()) for m in self._modalities if m != "text"]
        fields += [("label", pa.string())] if self._has_label else []
        types = self._metadata.types()
        kept_names(map(self._column, types), self._name)
        return pa.schema([*fields, *((self._column(key), kind) for key, kind in types.items())])

    def _column(self, key: str) -> str:
        return "label_" if key == "label" and self._has_label else free_name(key)

    def _extension(self, sample: Sample, modality: str) -> str | None:
        """The extension of the sample's payload of this modality."""
        if modality in self._named:
            return self._named[modality] if self._named[modality] in sample.members else None
        found = [extension for extension in sample.members if modality_of(extension) == modality]
        plain = [extension for extension in found if "." not in extension] or found
        if len(plain) > 1:
            self._parts.refuse_several(sample, modality, plain)
        return plain[0] if plain else None

    def _count_unread(self, sample: Sample) -> None:
        """Members that are neither payloads nor metadata."""
        for extension, name in sample.names.items():
            if extension not in {_JSON, LABEL, *self._named.values()} and modality_of(extension) is None:
                self._left_out.file(name)

    def _count_unused(self, sample: Sample, used: Mapping[str, str | None]) -> None:
        """Payloads and labels of a sample that are not taken."""
        for extension, name in sample.names.items():
            modality = modality_of(extension)
            if modality is not None and extension not in used.values():
                late = f"{modality} member(s) of which the first {SNIFFED:,} samples have none"
                beside = f"{modality} member(s) beside the one that is read"
                self._left_out.other(beside if modality in used else late, name)
        if LABEL in sample.members and not self._has_label:
            self._left_out.other(f"label(s) in .{LABEL}, after metadata with a key 'label' came first", sample.key)

    def _name_columns(self, first: Sequence[Sample], columns: Mapping[str, str]) -> None:
        extensions = {extension: None for sample in first for extension in sample.members}
        keys = list(self._metadata.types())
        for word, column in columns.items():
            known = [SHARD_KEY, *keys] if word == ID else [*extensions, *(keys if word == "text" else [])]
            if column not in known:
                raise UsageError(f"{self._name} has no {column!r} for --{word}-column. There is: {', '.join(known)}.")
        self._named = dict(columns)

    def _samples(self, shard: str, wanted: set[str], modalities: Sequence[str] = ()) -> Iterator[Sample]:
        """The samples of a shard, with the bytes of members whose extension is `wanted` or of a modality."""

        def reads(name: str) -> bool:
            extension = key_and_extension(name)[1]
            return extension in wanted or modality_of(extension) in modalities

        def known(name: str) -> bool:
            extension = key_and_extension(name)[1]
            return extension in {*wanted, LABEL} or modality_of(extension) is not None

        sample: Sample | None = None
        for name, content in members(shard, reads, known, timeout=self._timeout):
            key, extension = key_and_extension(name)
            if not extension:
                base = name.rpartition("/")[2]
                self._left_out.other("hidden file(s)", name) if base.startswith(".") else self._left_out.file(base)
                continue
            if sample is None or sample.key != key:
                if sample is not None:
                    yield sample
                sample = Sample(shard, key)
            if extension in sample.members:
                raise SourceError(f"{sample.place} has two members ending in .{extension}. Rename one.")
            sample.members[extension], sample.names[extension] = content, name
        if sample is not None:
            yield sample

    def _local(self) -> list[str]:
        if any(map(is_url, self._shards)):
            raise ValueError("shards at URLs are not asked for their size")
        return self._shards


class _Metadata(Protocol):
    """The metadata of samples, shard by shard."""

    def types(self) -> dict[str, pa.DataType]: ...

    def leave_text(self, names: Iterable[str], name_of: Callable[[str], str]) -> None: ...

    def start(self) -> None: ...

    def open(self, shard: str) -> None: ...

    def values(self, sample: Sample) -> dict[str, Any]: ...

    def notes(self) -> list[str]: ...


class _FromJson:
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
        return [f"{self._keyless} has no column {_KEY!r} and was not read."] if self._keyless else []


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

        path = _sibling(shard, ".parquet")
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
        self._rows = dict(zip(table[_KEY].cast(pa.string()).to_pylist(), rows, strict=True))

    def values(self, sample: Sample) -> dict[str, Any]:
        self._counts["json"] += _JSON in sample.members
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

        self._names |= dict.fromkeys(name for name in schema.names if name != _KEY)
        new = {f.name: plain_type(f.type) or f.type for f in schema if f.name not in (_KEY, *self._types)}
        self._types |= {name: kind for name, kind in new.items() if not pa.types.is_null(kind)}


def _metadata_of(shard: str, first: Sequence[Sample], timeout: float) -> _Metadata:
    sidecar = _sibling(shard, ".parquet")
    if exists(sidecar, timeout=timeout):
        table = _read_sidecar(sidecar, timeout)
        if _KEY in table.column_names:
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
    content = sample.members.get(_JSON)
    try:
        record = json.loads(content) if content else {}
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{sample.place}: its json is not JSON ({one_line(error, 120)}).") from error
    if not isinstance(record, dict):
        raise SourceError(f"{sample.place}: its json is no object.")
    return record


def _sibling(shard: str, ending: str) -> str:
    return IS_TAR.sub("", shard) + ending

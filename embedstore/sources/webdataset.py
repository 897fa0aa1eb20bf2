"""WebDataset tars as a source: members that share a key are one item.

The key is a member's path up to the first dot of its base name, the rest its extension. Pictures, sounds and videos are
payloads, ``txt`` (``text``, ``caption``) is the text, ``cls`` the label; ``json`` gives metadata, unless a Parquet file of the
same stem lies beside the shard (as img2dataset writes it): then that does, joined by its column ``key``. Other members
are not read. A link in place of a member that would be read is an error.
"""

from __future__ import annotations

import glob
import json
import os
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from embedstore._files import parquet_table
from embedstore._types import MisfitError, as_text, fitted, plain_type
from embedstore.errors import PayloadError, SourceError, UsageError, one_line
from embedstore.sources.base import BYTES, EXTENSIONS, ID, MODALITY_OF, free_name, kept_names, renamed
from embedstore.sources.files import TIMEOUT, absolute, exists, is_url, matching, read_payload
from embedstore.sources.records import SNIFFED, JsonColumns, as_batches
from embedstore.sources.tar import IS_TAR, members
from embedstore.sources.texts import text_fields, text_of, text_values

if TYPE_CHECKING:
    import pyarrow as pa

SHARD_KEY = "shard/key"
"""What ``--id-column`` takes for keys that are unique within their shard only."""

_TEXTS = ("txt", "text", "caption")
_JSON, _LABEL, _KEY = "json", "cls", "key"
_MEMBER = re.compile(r"^(?:\./)*((?:.*/)?[^./]+)\.([^/]+)$")
_BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass
class Sample:
    """One sample of a shard: extension → bytes, in order; None for those that were not asked for."""

    shard: str
    key: str
    members: dict[str, bytes | None] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        return f"{self.shard}: sample {self.key!r}"


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
    """

    def __init__(
        self,
        shards: Sequence[str],
        columns: Mapping[str, str] | None = None,
        *,
        name: str | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self._shards = list(shards)
        if not self._shards:
            raise SourceError(f"{name} holds no tar; expected files ending in .tar, .tar.gz, .tar.zst or .tar.bz2.")
        self._name = name or self._shards[0]
        if gone := [shard for shard in self._shards if not is_url(shard) and not os.path.isfile(shard)]:
            raise SourceError(f"{gone[0]} does not exist; {len(self._shards) - len(gone)} of {len(self._shards)} shards do.")
        self._timeout = timeout
        self._named: dict[str, str] = {}
        first = list(islice((s for shard in self._shards for s in self._samples(shard, {_JSON})), SNIFFED))
        self._metadata = _metadata_of(self._shards[0], first, timeout)
        self._name_columns(first, columns or {})
        seen = {modality for sample in first for modality in EXTENSIONS if self._extension(sample, modality)}
        self._modalities = tuple(m for m in EXTENSIONS if m in seen or m in self._named)
        self._has_label = any(_LABEL in sample.members for sample in first)
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

    def duplicate_hint(self, first: int, second: int) -> str:
        """Which shards the two positions lie in, and what to do."""
        one, other = (self._shards[bisect_right(self._starts, position) - 1] for position in (first, second))
        if one == other:
            return f"Both lie in {one}. The members of a sample have to follow one another, and keys to be unique."
        return f"They lie in {one} and {other}; --id-column {SHARD_KEY} puts the shard's name before the key."

    def _rows(self) -> Iterator[dict[str, Any]]:
        wanted = {_JSON, _LABEL, *self._named.values()}
        self._starts, position = [], 0
        for shard in self._shards:
            self._starts.append(position)
            self._metadata.open(shard)
            for sample in self._samples(shard, wanted, self._modalities):
                yield self._row(sample)
                position += 1

    def _row(self, sample: Sample) -> dict[str, Any]:
        metadata = self._metadata.values(sample)
        row: dict[str, Any] = {self._column(key): value for key, value in metadata.items()}
        for modality in self._modalities:
            extension = self._extension(sample, modality)
            if modality == "text":
                row.update(self._text(sample, extension, metadata))
            elif extension:
                row[modality] = f"{absolute(sample.shard)}#{sample.names[extension]}"
                row[modality + BYTES] = sample.members[extension]
        if self._has_label:
            row["label"] = _label(sample)
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

    @property
    def notes(self) -> list[str]:
        """The keys that have another name in the store."""
        return renamed({key: self._column(key) for key in self._metadata.types()})

    def _column(self, key: str) -> str:
        return "label_" if key == "label" and self._has_label else free_name(key)

    def _extension(self, sample: Sample, modality: str) -> str | None:
        """The extension of the sample's payload of this modality."""
        if modality in self._named:
            return self._named[modality] if self._named[modality] in sample.members else None
        found = [extension for extension in sample.members if _modality_of(extension) == modality]
        plain = [extension for extension in found if "." not in extension] or found
        if len(plain) > 1:
            raise SourceError(f"{sample.place} has {' and '.join(plain)}. Name one: --{modality}-column {plain[0]}")
        return plain[0] if plain else None

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
            extension = _key_and_extension(name)[1]
            return extension in wanted or _modality_of(extension) in modalities

        def known(name: str) -> bool:
            extension = _key_and_extension(name)[1]
            return extension in {*wanted, _LABEL} or _modality_of(extension) is not None

        sample: Sample | None = None
        for name, content in members(shard, reads, known, timeout=self._timeout):
            key, extension = _key_and_extension(name)
            if not extension:
                continue
            if sample is None or sample.key != key:
                if sample is not None:
                    yield sample
                sample = Sample(shard, key)
            if extension in sample.members:
                raise SourceError(f"{sample.place} has two members ending in .{extension}. Keep one.")
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

    def open(self, shard: str) -> None: ...

    def values(self, sample: Sample) -> dict[str, Any]: ...


class _FromJson:
    def __init__(self, first: Sequence[Sample]) -> None:
        self._columns = JsonColumns(_parsed(sample) for sample in first)

    def types(self) -> dict[str, pa.DataType]:
        return self._columns.types()

    def leave_text(self, names: Iterable[str], name_of: Callable[[str], str]) -> None:
        self._columns.leave_text(names, name_of)

    def open(self, shard: str) -> None:
        pass

    def values(self, sample: Sample) -> dict[str, Any]:
        record = _parsed(sample)
        self._columns.learn([record])
        return self._columns.values(record, sample.place)


class _FromParquet:
    """The Parquet file beside each shard; a column's type is that of the first shard that has it."""

    def __init__(self, first: pa.Table, timeout: float) -> None:
        self._timeout = timeout
        self._types: dict[str, pa.DataType] = {}
        self._learn(first.schema)
        self._rows: dict[str, dict[str, Any]] = {}

    def types(self) -> dict[str, pa.DataType]:
        return self._types

    def leave_text(self, names: Iterable[str], name_of: Callable[[str], str]) -> None:
        pass  # Parquet has types

    def open(self, shard: str) -> None:
        import pyarrow as pa

        path = _sibling(shard, ".parquet")
        table = _read_sidecar(path, self._timeout)
        self._learn(table.schema)
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
        return self._rows.get(sample.key, {})

    def _learn(self, schema: pa.Schema) -> None:
        """Columns of nothing but nulls have no type yet."""
        import pyarrow as pa

        new = {f.name: plain_type(f.type) or f.type for f in schema if f.name not in (_KEY, *self._types)}
        self._types |= {name: kind for name, kind in new.items() if not pa.types.is_null(kind)}


def _metadata_of(shard: str, first: Sequence[Sample], timeout: float) -> _Metadata:
    sidecar = _sibling(shard, ".parquet")
    if exists(sidecar, timeout=timeout):
        table = _read_sidecar(sidecar, timeout)
        if _KEY in table.column_names:
            return _FromParquet(table, timeout)
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
    except ValueError as error:
        raise SourceError(f"{sample.place}: its json is not JSON ({one_line(error, 120)}).") from error
    if not isinstance(record, dict):
        raise SourceError(f"{sample.place}: its json is no object.")
    return record


def _key_and_extension(name: str) -> tuple[str, str]:
    """Of a member; both are empty for a name without a dot, or with nothing before it."""
    match = _MEMBER.match(name)
    return (match[1], match[2].lower()) if match else ("", "")


def _modality_of(extension: str) -> str | None:
    last = extension.rpartition(".")[2]
    return "text" if last in _TEXTS else MODALITY_OF.get(f".{last}")


def _label(sample: Sample) -> str | None:
    try:
        return text_of(sample.members.get(_LABEL) or b"")
    except PayloadError as error:
        raise SourceError(f"{sample.place}: its {_LABEL} is {error.reason}. Save it as UTF-8, or leave it out.") from error


def _sibling(shard: str, ending: str) -> str:
    return IS_TAR.sub("", shard) + ending


def shards_in(folder: str) -> list[str]:
    """The tars that lie in `folder`, sorted by name."""
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if IS_TAR.search(name)]


def expand(pattern: str, *, timeout: float = TIMEOUT) -> list[str]:
    """The shards that ``data-{000..012}.tar``, ``{a,b}.tar``, a glob, or one name stands for; in order.

    Raises
    ------
    SourceError
        No file matches a glob.
    """
    shards: list[str] = []
    for one in _braces(pattern):
        if glob.has_magic(one) and (is_url(one) or not os.path.exists(one)):
            if not (found := matching(one, timeout=timeout)):
                raise SourceError(f"{one} matches no file.")
            shards += found
        else:
            shards.append(one)
    return shards


def _braces(pattern: str) -> list[str]:
    if not (match := _BRACES.search(pattern)):
        return [pattern]
    head, inner, tail = pattern[: match.start()], match[1], pattern[match.end() :]
    if numbers := re.fullmatch(r"(\d+)\.\.(\d+)", inner):
        low, high = numbers[1], numbers[2]
        width = len(low) if low.startswith("0") or len(low) == len(high) else 0
        choices = [str(n).zfill(width) for n in range(int(low), int(high) + 1)]
    else:
        choices = inner.split(",")
    return [expanded for choice in choices for expanded in _braces(head + choice + tail)]

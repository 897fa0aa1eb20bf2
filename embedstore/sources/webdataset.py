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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from embedstore._core.arguments import TIMEOUT
from embedstore._core.column_types import as_text
from embedstore.errors import PayloadError, SourceError, UsageError
from embedstore.sources.base import BYTES, EXTENSIONS, ID, free_name, kept_names, renamed
from embedstore.sources.files import absolute, is_url, read_payload
from embedstore.sources.left_out import LeftOut
from embedstore.sources.records import SNIFFED, as_batches
from embedstore.sources.samples import LABEL, Parts, Sample, key_and_extension, label_of, modality_of
from embedstore.sources.shard_metadata import JSON, metadata_of, sibling
from embedstore.sources.tar import IS_TAR, members
from embedstore.sources.text_files import text_fields, text_of, text_values

if TYPE_CHECKING:
    import pyarrow as pa

SHARD_KEY = "shard/key"
"""What ``--id-column`` takes for keys that are unique within their shard only."""


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
        first = list(islice((s for shard in self._shards for s in self._samples(shard, {JSON})), SNIFFED))
        self._parts = Parts(first)
        self._metadata = metadata_of(self._shards[0], first, timeout)
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
            return sum(int(json.loads(read_payload(sibling(s, "_stats.json")))["successes"]) for s in self._local())
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
        wanted = {JSON, LABEL, *self._named.values()}
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
            if extension not in {JSON, LABEL, *self._named.values()} and modality_of(extension) is None:
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

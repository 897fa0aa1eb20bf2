"""What the package ``datasets`` keeps of its features in Arrow schemas and Parquet files, and columns that hold payloads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from embedstore._core.column_types import word_of
from embedstore._core.column_values import plain
from embedstore.sources.files import relative_to

if TYPE_CHECKING:
    import pyarrow as pa

PATH, CONTENT = "path", "bytes"
"""Fields of the struct as which pictures, sounds and videos are kept."""


def features_of(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Column → feature, from an Arrow schema; nothing where `datasets` did not write it."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return {name: feature for name, feature in features.items() if isinstance(feature, dict)}


def named_labels(column: pa.Array, feature: Mapping[str, Any] | None) -> pa.Array:
    """A column of class labels as their names; any other column as it is."""
    import pyarrow as pa

    if not feature or feature.get("_type") != "ClassLabel" or not feature.get("names"):
        return column
    names = pa.array(feature["names"], pa.string())
    known = [i if i is not None and 0 <= i < len(names) else None for i in column.to_pylist()]  # -1: no label
    return names.take(pa.array(known, pa.int64()))


def holds_payloads(kind: pa.DataType) -> bool:
    """Whether a column of this type holds paths, bytes, or a struct of both."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return {CONTENT, PATH} <= {kind.field(i).name for i in range(kind.num_fields)}
    return word_of(kind) in ("text", "bytes")


def payload_bytes(column: pa.Array) -> pa.Array | None:
    """The bytes in a column of payloads; None in one of paths."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_struct(column.type):
        column = pc.struct_field(column, CONTENT)
    return plain(column) if word_of(column.type) == "bytes" else None


def payload_uris(
    paths: Sequence[str | None], payloads: pa.Array | None, ids: Sequence[str], *, container: str, folder: str
) -> pa.Array:
    """Where payloads are: files, relative to `folder`; ``CONTAINER#PATH`` (or ``#ID``) where the bytes are in `container`."""
    import pyarrow as pa

    inside = [False] * len(paths) if payloads is None else payloads.is_valid().to_pylist()
    uris = [
        f"{container}#{path or item}" if within else relative_to(folder, path) if path and path.strip() else None
        for path, item, within in zip(paths, ids, inside, strict=True)
    ]
    return pa.array(uris, pa.string())

"""Encoding types and versions: the two keys that every persisted file carries. See store/FORMAT.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedstore.errors import CorruptStoreError, FormatVersionError

VERSIONS: dict[str, tuple[int, ...]] = {
    "embedstore-store": (1,),
    "embedstore-space": (1,),
    "embedstore-vectors": (1,),
    "embedstore-items": (1,),
    "embedstore-failures": (1,),
    "embedstore-tombstones": (1,),
    "embedstore-combined": (1,),
    "embedstore-head": (1,),
    "embedstore-index": (1,),
}
"""Encoding type → versions this embedstore reads; it writes the last."""


def encoding(kind: str) -> dict[str, Any]:
    """The two keys that every file of this `kind` carries."""
    return {"encoding-type": kind, "encoding-version": VERSIONS[kind][-1]}


def check_encoding(attributes: Mapping[str, Any], kind: str, where: str) -> None:
    """Refuse what `where` holds if it is not a `kind` of a version that is read here.

    Raises
    ------
    CorruptStoreError
        It is something else.
    FormatVersionError
        It is a later (or withdrawn) version.
    """
    found = attributes.get("encoding-type")
    found = found.decode() if isinstance(found, bytes) else found
    if found != kind:
        raise CorruptStoreError(f"{where} should be of type {kind!r} but says {found!r}. Restore it from a backup.")
    version = int(attributes.get("encoding-version", -1))
    if version not in VERSIONS[kind]:
        raise FormatVersionError(
            f"{where} has {kind} format version {version}; this embedstore reads {list(VERSIONS[kind])}. "
            "Install a newer embedstore: pip install -U embedstore"
        )

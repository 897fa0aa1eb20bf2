"""Encoding types, versions and digests: the keys that every persisted document carries. See store/FORMAT.md."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from embedstore.errors import CorruptStoreError, FormatVersionError

VERSIONS: dict[str, tuple[int, ...]] = {
    "embedstore-store": (1, 2),
    "embedstore-space": (1, 2, 3, 4, 5),
    "embedstore-vectors": (1, 2),
    "embedstore-pieces": (1,),
    "embedstore-items": (1,),
    "embedstore-failures": (1,),
    "embedstore-tombstones": (1,),
    "embedstore-combined": (1,),
    "embedstore-head": (1, 2),
    "embedstore-out-of-fold": (1,),
    "embedstore-onnx-head": (1,),
    "embedstore-index": (1,),
    "embedstore-left": (1,),
    "embedstore-repair": (1,),
}
"""Encoding type → versions this embedstore reads; it writes the last, or the least that says all there is to say."""

UNSEALED = {"embedstore-store", "embedstore-space", "embedstore-head"}
"""Documents that carry no digest in version 1."""


def encoding(kind: str, version: int | None = None) -> dict[str, Any]:
    """The two keys that every file of this `kind` carries; of the last version, or of an earlier `version` that will do."""
    return {"encoding-type": kind, "encoding-version": VERSIONS[kind][-1] if version is None else version}


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
    version = attributes.get("encoding-version", -1)
    try:
        version = int(version)
    except (TypeError, ValueError, OverflowError):
        raise CorruptStoreError(
            f"{where} says it has format version {str(version)[:40]!r}. Restore it from a backup."
        ) from None
    if version not in VERSIONS[kind]:
        raise FormatVersionError(
            f"{where} has {kind} format version {version}; this embedstore reads {list(VERSIONS[kind])}. "
            "Install a newer embedstore: pip install -U embedstore"
        )


def sealed(body: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON document with the digest of its own content: `body`, as JSON has it, then ``digest`` (a new one)."""
    plain = {key: value for key, value in json.loads(json.dumps(body)).items() if key != "digest"}
    return {**plain, "digest": digest_of(plain)}


def digest_of(body: Mapping[str, Any]) -> str:
    """Hexadecimal SHA-256 of a JSON object without its ``digest``: keys sorted, no spaces, ASCII escapes."""
    plain = {key: value for key, value in body.items() if key != "digest"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def open_sealed(data: Mapping[str, Any], kind: str, where: str, remedy: str = "Restore it from a backup.") -> dict[str, Any]:
    """The body of a document of this `kind`, after a look at its type, version and digest.

    Raises
    ------
    CorruptStoreError
        It is something else, or a byte of it is not as it was written; ends with `remedy`.
    FormatVersionError
    """
    check_encoding(data, kind, where)
    if "digest" in data or kind not in UNSEALED or data["encoding-version"] != 1:
        try:
            held = digest_of(data)
        except (RecursionError, ValueError) as error:
            raise CorruptStoreError(f"{where} cannot be read ({type(error).__name__}). {remedy}") from error
        if data.get("digest") != held:
            raise CorruptStoreError(f"{where}: its contents differ from what was written (its own digest says so). {remedy}")
    return {key: value for key, value in data.items() if key != "digest"}

"""`space.json`: what every vector of a space has in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from embedstore._core.atomic_files import json_bytes, read_json, sha256_file
from embedstore._core.encoding import encoding, open_sealed, sealed
from embedstore.errors import CorruptStoreError, StoreError
from embedstore.spec import TEXT, EncoderSpec

DTYPES = ("float16", "float32")
PLAIN, WITH_COLUMN, WITH_PIECES = 2, 3, 4
"""Versions of the document: a reader that does not know the second would embed other texts into the space, one that does not
know the third would forget the pieces."""


@dataclass(frozen=True)
class SpaceInfo:
    """`space.json`: what every vector of the space has in common.

    Parameters
    ----------
    name : str
    spec : EncoderSpec
    dtype : str
        ``"float16"`` or ``"float32"``: how vectors are stored.
    provenance, license : mapping, str or None
        Library versions and device of the run that created the space, and the licence of the weights where their makers say
        it; for people, never compared.
    column : str, optional
        The metadata column whose texts are embedded; None: the payloads of the encoder's modality.
    pieces : str, optional
        What items have several vectors of, such as ``"frame"``; None: one vector an item.
    """

    name: str
    spec: EncoderSpec
    dtype: str
    provenance: Mapping[str, str] = field(default_factory=dict)
    license: str | None = None
    column: str | None = None
    pieces: str | None = None

    @property
    def payload(self) -> str:
        """The column of the store's items that is embedded: a modality, or a metadata column."""
        return self.column or self.spec.modality

    @property
    def _version(self) -> int:
        if self.pieces is not None:
            return WITH_PIECES
        return PLAIN if self.column is None else WITH_COLUMN

    def to_dict(self) -> dict[str, Any]:
        body = {
            **encoding("embedstore-space", self._version),
            "name": self.name,
            "dtype": self.dtype,
            "dim": self.spec.dim,
            "normalized": self.spec.normalized,
            "alignment": self.spec.alignment,
            "fingerprint": self.spec.fingerprint,
            "encoder": self.spec.to_dict(),
            "provenance": dict(self.provenance),
            **({"license": self.license} if self.license else {}),
            **({} if self.column is None else {"column": self.column}),
            **({} if self.pieces is None else {"pieces": self.pieces}),
        }
        return sealed(body)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str) -> SpaceInfo:
        data = open_sealed(data, "embedstore-space", where)
        try:
            spec = EncoderSpec.from_dict(data["encoder"])
            info = cls(data["name"], spec, data["dtype"], data["provenance"], data.get("license"), data.get("column"))
            info = replace(info, pieces=data.get("pieces"))
            recorded = data["fingerprint"]
        except (KeyError, TypeError) as error:
            raise CorruptStoreError(f"{where} is damaged ({error!r}). Restore it from a backup.") from error
        except StoreError as error:
            raise CorruptStoreError(f"{where}: {error}") from error
        texts = isinstance(info.provenance, dict) and all(isinstance(value, str) for value in info.provenance.values())
        if not (texts and isinstance(info.name, str) and isinstance(info.license, str | None) and info.dtype in DTYPES):
            raise CorruptStoreError(f"{where}: its name, dtype, provenance or license cannot be. Restore it from a backup.")
        if not (info.column is None or (isinstance(info.column, str) and info.column and spec.modality == TEXT)):
            raise CorruptStoreError(f"{where}: its column cannot be. Restore it from a backup.")
        if not (info.pieces is None or (isinstance(info.pieces, str) and info.pieces)):
            raise CorruptStoreError(f"{where}: what its pieces are cannot be. Restore it from a backup.")
        if spec.fingerprint != recorded:
            raise CorruptStoreError(
                f"{where} records fingerprint {recorded} but describes an encoder of fingerprint {spec.fingerprint}. "
                "Restore it from a backup."
            )
        return info

    def to_json(self) -> bytes:
        return json_bytes(self.to_dict())


def space_file(name: str) -> str:
    return f"spaces/{name}/space.json"


def read_space_info(root: Path, name: str, sha256: str) -> SpaceInfo:
    """The description of space `name`, whose file has the digest that the manifest says."""
    path = root / space_file(name)
    info = SpaceInfo.from_dict(read_json(path, root), str(path))
    if sha256_file(path) != sha256:
        raise CorruptStoreError(f"{path}: its bytes differ from what was committed (SHA-256). Restore it from a backup.")
    if info.name != name:  # it becomes paths
        raise CorruptStoreError(f"{path} describes a space {info.name!r}, not {name!r}. Restore it from a backup.")
    return info

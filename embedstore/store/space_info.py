"""`space.json`: what every vector of a space has in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from embedstore._core.atomic_files import json_bytes, read_json, sha256_file
from embedstore._core.encoding import encoding, open_sealed, sealed
from embedstore._core.message_parts import spelled
from embedstore.errors import CorruptStoreError, StoreError
from embedstore.spec import LEFT_OUT, MESSAGE, MODALITIES, TEXT, EncoderSpec

DTYPES = ("float16", "float32")
PLAIN, WITH_COLUMN, OF_MESSAGES, WITH_PIECES = 2, 3, 4, 5
"""Versions of the document: a reader that does not know the second would embed other texts into the space, one that does not
know the fourth would forget the pieces."""


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
        """What is embedded of the store's items: a modality, a metadata column, or several of them as ``{COLUMN}+{COLUMN}``.

        Two spaces with one `payload` are of the same bytes. A message that is left out where it lacks a part ends in ``!``.
        """
        if self.parts:
            return spelled(self.parts) + ("!" if self.whole else "")
        return self.column or self.spec.modality

    @property
    def parts(self) -> tuple[str, ...]:
        """The columns that its messages are made of; none where it is no space of messages."""
        return self.spec.parts

    @property
    def whole(self) -> bool:
        """Whether a message that lacks a part is missing."""
        return bool(self.parts) and self.spec.preprocessing.get("lacking") == LEFT_OUT

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the store's items that it is embedded from."""
        return self.parts or (self.column or self.spec.modality,)

    @property
    def texts(self) -> tuple[str, ...]:
        """The metadata columns among them, all of which are texts."""
        return tuple(name for name in self.columns if name not in MODALITIES)

    @property
    def _version(self) -> int:
        if self.pieces is not None:
            return WITH_PIECES
        if self.parts:
            return OF_MESSAGES
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
        if spec.modality == MESSAGE and not _are_parts(spec.preprocessing.get("parts")):
            raise CorruptStoreError(f"{where}: the parts of its messages cannot be. Restore it from a backup.")
        if spec.fingerprint != recorded:
            raise CorruptStoreError(
                f"{where} records fingerprint {recorded} but describes an encoder of fingerprint {spec.fingerprint}. "
                "Restore it from a backup."
            )
        return info

    def to_json(self) -> bytes:
        return json_bytes(self.to_dict())


def _are_parts(given: object) -> bool:
    return isinstance(given, list | tuple) and len(given) > 1 and all(isinstance(name, str) and name for name in given)


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

"""`hash`: deterministic vectors from the bytes of a payload. For tests and documentation, on any modality.

Equal payloads get equal vectors; nothing else is meant by them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from embedstore.encoders.base import EncoderRequest, Vectors
from embedstore.errors import UsageError
from embedstore.spec import EncoderSpec


class HashEncoder:
    """Vectors in [-1, 1)^dim from SHAKE-128 of the payload.

    Parameters
    ----------
    dim : int
    modality : str
    name : str
    """

    batch_size = 4096
    truncated = 0

    def __init__(self, dim: int, modality: str, name: str = "hash") -> None:
        self.spec = EncoderSpec(name=name, family="hash", model=f"shake128-{dim}", weights="none", modality=modality, dim=dim)

    def prepare(self, payload: bytes) -> bytes:
        return payload

    def encode(self, batch: Sequence[bytes]) -> Vectors:
        shake, dim = hashlib.shake_128, self.spec.dim
        data = b"".join([shake(payload).digest(dim) for payload in batch])
        vectors: Vectors = (
            np.frombuffer(data, dtype=np.uint8).reshape(-1, dim).astype(np.float32) - np.float32(128)
        ) / np.float32(128)
        return vectors

    def provenance(self) -> Mapping[str, str]:
        return {}


def load(request: EncoderRequest) -> HashEncoder:
    """hash or hash:DIM: deterministic vectors of any payload, for tests and documentation."""
    argument = request.argument or "64"
    if not argument.isdigit() or not 1 <= int(argument) <= 65536:
        raise UsageError(f"hash:DIM takes a dimension from 1 to 65536. Got {argument!r} instead.")
    return HashEncoder(int(argument), request.modality, request.name)

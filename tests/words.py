"""A custom encoder that makes several vectors of a text, one of each word, and stores of them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import embedstore as es
from embedstore._core.pieces import Pieces
from embedstore.encoders.hash import HashEncoder
from embedstore.sources import MemorySource
from embedstore.spec import EncoderSpec

DIM = 8


class Words(HashEncoder):
    """A vector of each word of a text; that of the text is their mean."""

    pieces = "word"

    def __init__(self, dim: int = DIM) -> None:
        super().__init__(dim, "text")
        self.spec = EncoderSpec("words", "words", "words", "none", "text", dim)

    def encode(self, batch: Any) -> Any:
        return self.encode_pieces(batch)[0]

    def encode_pieces(self, batch: Any) -> Any:
        words = [payload.decode().split() for payload in batch]
        counts = np.array([len(some) for some in words])
        vectors = np.stack([word_vector(word) for some in words for word in some])
        starts = np.cumsum(counts) - counts
        places = np.concatenate([np.stack([np.arange(n), np.arange(n) + 1.0], axis=1) for n in counts])
        return np.add.reduceat(vectors, starts) / counts[:, None].astype(np.float32), Pieces(vectors, counts, places)


@lru_cache
def word_vector(word: str) -> Any:
    return np.random.default_rng(list(word.encode())).normal(size=DIM).astype(np.float32)


def texts(n: int, seed: int = 0, *, words: int = 50) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(f"w{word}" for word in rng.integers(0, words, rng.integers(1, 7))) for _ in range(n)]


def embedded(path: Path, given: list[str], **columns: Any) -> es.Store:
    ids = [f"i{i}" for i in range(len(given))]
    es.embed(MemorySource({"id": ids, "text": given, **columns}), path, text=Words())
    return es.Store.open(path)

"""Which index to build: by the number of vectors, their dimension and the memory at hand. Knows nothing of FAISS.

A recipe says how the vectors are organised (exact, HNSW graph, IVF lists) and how they are coded. What it will need is
estimated before anything is built.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from typing import Any

from embedstore.errors import UsageError

EXACT_UP_TO = 50_000
GRAPH_UP_TO = 5_000_000
LINKS = 32
TRAIN_PER_ENTRY = 32
TRAIN_PER_LIST = 64
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}

FACTORIES = "Flat, HNSW32, HNSW32,Flat, HNSW32,SQfp16, HNSW32,RaBitQ2, IVF1024,SQ8 or IVF1024,RaBitQ"
_FACTORY = re.compile(r"(?:(HNSW|IVF)(\d+)(?:,(Flat|SQfp16|SQ8|RaBitQ[1-9]?))?|(Flat))")


@dataclass(frozen=True)
class Recipe:
    """One way to index `n` vectors.

    Parameters
    ----------
    kind : str
        ``"exact"``, ``"hnsw"`` or ``"ivf"``.
    size : int
        Links per vertex of a graph, number of inverted lists; 0 for exact.
    codes : str
        How vectors are kept: ``"Flat"`` (float32), ``"SQfp16"``, ``"SQ8"``, ``"RaBitQ"`` (one bit a dimension) or
        ``"RaBitQ2"``. See `reranked`.
    """

    kind: str
    size: int = 0
    codes: str = "Flat"

    def __str__(self) -> str:
        names = {"exact": "Flat", "hnsw": f"HNSW{self.size}", "ivf": f"IVF{self.size}"}
        return names[self.kind] if self.kind == "exact" else f"{names[self.kind]},{self.codes}"

    @property
    def reranked(self) -> bool:
        """Whether what codes find is ranked by the stored vectors: float32 codes are those vectors."""
        return self.codes != "Flat"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def parse(cls, factory: str) -> Recipe:
        """From a FAISS-like factory string.

        Raises
        ------
        UsageError
            Naming what can be built.
        """
        match = _FACTORY.fullmatch(factory.replace(" ", "").replace("_", ","))
        if not match:
            raise UsageError(f"{factory!r} is no index that can be built here. Take one like {FACTORIES}.")
        if match[4]:
            return cls("exact")
        kind, size, codes = match[1].lower(), int(match[2]), match[3] or ("SQfp16" if match[1] == "HNSW" else "SQ8")
        if kind == "hnsw" and not 4 <= size <= 128:
            raise UsageError(f"A graph of {size} links a vertex makes no sense: between 4 and 128, usually 32.")
        if kind == "ivf" and size < 1:
            raise UsageError("An IVF index needs at least one list.")
        if kind == "hnsw" and codes == "SQ8":
            raise UsageError("HNSW over SQ8 codes loses recall that re-ranking does not return. Take SQfp16 or RaBitQ2.")
        return cls(kind, size, {"RaBitQ1": "RaBitQ"}.get(codes, codes))

    def bytes(self, n: int, dim: int) -> int:
        """Memory of the finished index."""
        if self.kind == "exact":
            return 0
        links = 8 * self.size + 4 * self.size // 16 + 16 if self.kind == "hnsw" else 16
        lists = 4 * dim * self.size if self.kind == "ivf" else 0
        return int(n * (code_bytes(self.codes, dim) + links + 4) + lists)

    def build_bytes(self, n: int, dim: int) -> int:
        """Memory while it is built, beside the interpreter: measured factors for growing arrays and buffers."""
        if self.kind == "ivf":
            return int(1.6 * self.bytes(n, dim)) + self.train_bytes(dim) + (320 << 20)
        seen = 4 * dim * min(n, n_entries(n) * TRAIN_PER_ENTRY)  # by k-means, for where walks begin
        return int(1.1 * self.bytes(n, dim)) + seen + (320 << 20)

    def check_fits(self, n: int, dim: int, memory: int) -> None:
        """Raise `UsageError` where `n` vectors cannot be indexed in `memory` bytes."""
        if (needed := self.build_bytes(n, dim)) > memory:
            raise UsageError(
                f"{self} of {n:,} vectors of {dim} numbers needs {needed:,} bytes to build; {memory:,} were given. "
                f"Give it --memory {_gigabytes(needed)}, or leave out --factory."
            )

    def train_bytes(self, dim: int) -> int:
        """The sample that k-means sees, and its scores."""
        return self.size * TRAIN_PER_LIST * (dim * 4 + 16) if self.kind == "ivf" else 0


def code_bytes(codes: str, dim: int) -> int:
    """Bytes a vector takes in `codes`."""
    if codes.startswith("RaBitQ"):
        bits = int(codes[6:] or 1)
        return math.ceil(dim / 8) * bits + (8 if bits == 1 else 20)
    return dim * {"Flat": 4, "SQfp16": 2, "SQ8": 1}[codes]


def choose(n: int, dim: int, memory: int | None = None, *, on_gpu: bool = False) -> Recipe:
    """What to try first for `n` vectors of `dim` numbers within `memory` bytes.

    Raises
    ------
    UsageError
        Nothing fits; names the least that would.
    """
    if n <= EXACT_UP_TO:
        return Recipe("exact")
    graphs = (
        [Recipe("hnsw", LINKS, codes) for codes in (("Flat",) if on_gpu else ("SQfp16", "RaBitQ2"))] if n <= GRAPH_UP_TO else []
    )
    lists = [Recipe("ivf", n_lists(n), codes) for codes in ("SQ8", "RaBitQ2", "RaBitQ")]
    tried = [*graphs, *lists]
    for recipe in tried:
        if memory is None or recipe.build_bytes(n, dim) <= memory:
            return recipe
    least = min(recipe.build_bytes(n, dim) for recipe in tried)
    raise UsageError(
        f"No index of {n:,} vectors of {dim} numbers can be built in {memory or 0:,} bytes; the smallest needs {least:,}. "
        f"Give it --memory {_gigabytes(least)}, or leave the space without an index: search is exact then."
    )


def _gigabytes(count: int) -> str:
    """Rounded up, as `parse_bytes` reads it."""
    return f"{math.ceil(count / 1e9 * 10) / 10:g}GB"


def n_lists(n: int) -> int:
    """Number of inverted lists: about 4 √n, a power of two."""
    return int(2 ** max(0, round(math.log2(4 * math.sqrt(max(n, 1))))))


def n_entries(n: int) -> int:
    """Vectors of a graph to begin from: about 2 √n, a power of two."""
    return int(2 ** max(0, round(math.log2(2 * math.sqrt(max(n, 1))))))


def parse_bytes(given: str | int | None, what: str = "memory") -> int | None:
    """``"4GB"`` (10⁹ each), ``"512MiB"`` or a number of bytes."""
    if given is None or isinstance(given, int):
        return given
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?\s*", given.upper())
    if not match or float(match[1]) <= 0:
        raise UsageError(f"{what} should be a size such as 4GB or 512MB. Got {given!r} instead.")
    return int(float(match[1]) * UNITS[match[2] or ""])


def parse_seconds(given: str | float | None) -> float | None:
    """``"5ms"``, ``"0.2s"`` or a number of seconds."""
    if given is None or isinstance(given, (int, float)):
        return given
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(us|ms|s)\s*", given.lower())
    if not match or float(match[1]) <= 0:
        raise UsageError(f"latency should be a time such as 5ms or 0.2s. Got {given!r} instead.")
    return float(match[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[match[2]]

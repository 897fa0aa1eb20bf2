"""On a GPU: exact search in torch, and building a graph with cuVS's CAGRA, which is tuned and searched on a CPU like any other.

The graph needs the wheel faiss-gpu-cuvs; exact search needs torch alone, and filters by itself (the plain faiss-gpu wheel
takes a filter and ignores it).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from embedstore._core.device_errors import device_failure
from embedstore._core.unit import unit_rows
from embedstore.errors import EncoderOutOfMemoryError, UsageError
from embedstore.indexing.vectors import BLOCK, Float, Positions, Vectors
from embedstore.registry import require

if TYPE_CHECKING:
    import torch

Result = TypeVar("Result")

SCORES = 1 << 28
"""Products of queries and vectors that are held at once, in float32: 1 GiB. Halved where a device has less memory left."""
PICKED = 1 << 28
"""Numbers of a subset's vectors that are copied at once: 1 GiB in float32. Halved in the same way."""
SHIFT = 2048.0


def cagra_graph(unit: Float, links: int, device: str) -> Any:
    """A FAISS HNSW index (float32, L2) of unit vectors (n, d) whose base layer is a CAGRA graph of 2 · `links` a vertex.

    Raises
    ------
    UsageError
        No GPU, or a FAISS that was built without cuVS.

    Notes
    -----
    Ootomo et al., CAGRA, ICDE 2024.
    """
    faiss = require("faiss", extra="gpu")
    if not hasattr(faiss, "GpuIndexCagra") or not faiss.get_num_gpus():
        raise UsageError(
            "Building on a GPU needs one, and FAISS with cuVS: pip install 'embedstore[gpu]'. "
            "Leave out --device to build on the CPU."
        )
    config = faiss.GpuIndexCagraConfig()
    config.device = int(device.partition(":")[2] or 0)
    config.graph_degree, config.intermediate_graph_degree = 2 * links, 4 * links
    on_gpu = faiss.GpuIndexCagra(faiss.StandardGpuResources(), unit.shape[1], faiss.METRIC_L2, config)
    on_gpu.train(unit)
    index = faiss.IndexHNSWCagra()
    index.base_level_only = True  # upper levels would be built on the CPU, vertex by vertex
    on_gpu.copyTo(index)
    index.hnsw.entry_point = index.hnsw.max_level = 0  # FAISS leaves -1, where a graph of no vectors would begin
    return index


class FlatOnGpu:
    """Every vector on a torch device, and exact cosines by one matrix product.

    Vectors that are stored in float16 stay so, as they are. A query is the sum of two float16 numbers, of which the second
    holds what rounding took from the first, and products are summed in float32: scores are those of float32 to 1e-6.

    Parameters
    ----------
    vectors : Vectors
    device : str
        Of torch.

    Raises
    ------
    UsageError
        There is no such device, or the vectors do not fit on it.
    """

    def __init__(self, vectors: Vectors, device: str) -> None:
        self._torch: Any = require("torch")
        torch = self._torch
        self._scores = SCORES
        self._picked = max(1, PICKED // max(vectors.dim, 1))
        half = any(block.dtype == np.float16 for block in islice(vectors.blocks(1), 1))
        dtype = torch.float16 if half else torch.float32
        try:
            self._rows = torch.empty((len(vectors), vectors.dim), dtype=dtype, device=device)
            self._inverse = torch.empty(len(vectors), dtype=torch.float32, device=device)
            self._keep(vectors, half=half)
        except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
            raise UsageError(
                f"{len(vectors):,} vectors of {vectors.dim} cannot be kept on {device!r}: {error}".split("\n")[0]
            ) from error

    def _keep(self, vectors: Vectors, *, half: bool) -> None:
        """Fill the device's rows and the inverses of their lengths."""
        torch, device = self._torch, self._rows.device
        stage = None
        if device.type != "cpu":  # pinned memory is copied faster, and torch warns of a store's blocks: they are read-only
            size = (min(BLOCK, len(vectors)), vectors.dim)
            stage = torch.empty(size, dtype=self._rows.dtype, pin_memory=device.type == "cuda")
        start = 0
        for block in vectors.blocks(BLOCK):
            rows = self._rows[start : start + len(block)]
            staged = rows if stage is None else stage[: len(block)]
            staged.numpy()[...] = block if half else unit_rows(block)
            if stage is not None:
                rows.copy_(staged)  # waits: the stage is filled again
            lengths = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float32)
            self._inverse[start : start + len(rows)] = torch.where(lengths > 0, 1 / lengths, 0)
            start += len(rows)

    def search(self, unit: Float, k: int, subset: Positions | None = None) -> tuple[Float, Positions]:
        """The `k` nearest of unit queries (m, dim), k no more than there are; looks at `subset` alone where it is given.

        Returns
        -------
        scores : (m, k) float32, descending
        positions : (m, k) int64

        Raises
        ------
        UsageError
            The device has no memory left for one query, or one vector.
        EncoderError
            It failed.
        """
        if subset is None:
            return self._nearest(unit, self._rows, self._inverse, k)
        chosen = np.asarray(subset, np.int64)
        scores, found = np.empty((len(unit), 0), np.float32), np.empty((len(unit), 0), np.int64)
        lo = 0
        while lo < len(chosen):
            some = chosen[lo : lo + self._picked]
            copied = self._fitting(partial(self._copied, some))
            if copied is None:
                self._pick_half(len(some))
                continue
            best, places = self._nearest(unit, *copied, min(k, len(some)))
            del copied  # before the next are
            scores, found = _best_of((scores, best), (found, some[places]), k)
            lo += len(some)
        return scores, found

    def _nearest(self, unit: Float, rows: torch.Tensor, inverse: torch.Tensor, k: int) -> tuple[Float, Positions]:
        """Scores and positions (m, k) among `rows`, of which there are no fewer than k."""
        scores, found = np.empty((len(unit), k), np.float32), np.empty((len(unit), k), np.int64)
        lo = 0
        while lo < len(unit):
            some = unit[lo : lo + self._at_once(len(rows))]
            best = self._fitting(partial(self._best, some, rows, inverse, k))
            if best is None:
                self._hold_half(len(some), len(rows))
                continue
            scores[lo : lo + len(some)], found[lo : lo + len(some)] = best
            lo += len(some)
        return scores, found

    def _fitting(self, work: Callable[[], Result]) -> Result | None:
        """What `work` gives; None where the device has too little memory left for it.

        Raises
        ------
        EncoderError
            The device failed.
        """
        try:
            return work()
        except RuntimeError as error:
            failure = device_failure(error, self._rows.device)
            if failure is None:
                raise
            if not isinstance(failure, EncoderOutOfMemoryError):
                raise failure from error
        self._torch.cuda.empty_cache()  # what was computed went with the error
        return None

    def _copied(self, chosen: Positions) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the vectors at positions: rows, and inverses of their lengths."""
        places = self._torch.tensor(chosen, device=self._rows.device)
        return self._rows[places], self._inverse[places]

    def _pick_half(self, count: int) -> None:
        """From now on, of the `count` vectors of a subset that were to be copied at once."""
        if count == 1:
            raise self._full("Looking at a part of the vectors")
        self._picked = count // 2

    def _at_once(self, count: int) -> int:
        """Queries whose products with `count` vectors are held at once."""
        return max(1, self._scores // (self._each * max(count, 1)))

    def _hold_half(self, queries: int, count: int) -> None:
        """From now on, of what the products of `queries` with `count` vectors would have taken."""
        if queries == 1:
            raise self._full(f"A query of {count:,} vectors")
        self._scores = queries * self._each * count // 2

    def _full(self, work: str) -> UsageError:
        return UsageError(f"{work} needs more memory than {self._rows.device} has left. Use --device cpu.")

    @property
    def _each(self) -> int:
        """Products that are held for a score."""
        return 2 if self._rows.dtype == self._torch.float16 else 1

    def _best(self, unit: Float, rows: torch.Tensor, inverse: torch.Tensor, k: int) -> tuple[Float, Positions]:
        """As `_nearest`, of all queries at once."""
        torch = self._torch
        queries = torch.tensor(unit, device=rows.device)
        best = torch.topk(self._products(queries, rows).mul_(inverse), k, dim=1)
        return best.values.cpu().numpy(), best.indices.cpu().numpy()

    def _products(self, queries: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """float32 (m, n)."""
        torch = self._torch
        if rows.dtype == torch.float32:
            return queries @ rows.T
        coarse = queries.half()
        rest = queries.sub_(coarse.float()).mul_(SHIFT).half()  # shifted out of the subnormal numbers
        both = self._mm(torch.cat((coarse, rest)), rows.T)  # one pass over the vectors
        return both[: len(queries)].add_(both[len(queries) :], alpha=1 / SHIFT)

    def _mm(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """float16 (m, d) by (d, n): products are summed, and given, in float32."""
        if a.is_cuda:
            return self._torch.mm(a, b, out_dtype=self._torch.float32)  # type: ignore[no-any-return]
        return a.float() @ b.float()


def _best_of(scores: Sequence[Float], found: Sequence[Positions], k: int) -> tuple[Float, Positions]:
    """The `k` best, or as many as there are, of scores (m, k1), (m, k2), … with their positions."""
    if all(not part.shape[1] for part in scores[:-1]):
        return scores[-1], found[-1]
    every = np.concatenate(scores, axis=1)
    order = np.argsort(-every, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(every, order, axis=1), np.take_along_axis(np.concatenate(found, axis=1), order, axis=1)

"""On a GPU: exact search in torch, and building a graph with cuVS's CAGRA, which is tuned and searched on a CPU like any other.

The graph needs the wheel faiss-gpu-cuvs; exact search needs torch alone, and filters by itself (the plain faiss-gpu wheel
takes a filter and ignores it).
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from embedstore._core.unit import unit_rows
from embedstore.errors import UsageError
from embedstore.indexing.vectors import Float, Positions, Vectors
from embedstore.registry import require

if TYPE_CHECKING:
    import torch

SCORES = 1 << 26  # at once, of which two products and their sum are held: 1 GiB
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
        half = any(block.dtype == np.float16 for block in islice(vectors.blocks(1), 1))
        try:
            self._rows = torch.empty((len(vectors), vectors.dim), dtype=torch.float16 if half else torch.float32, device=device)
            self._inverse = torch.empty(len(vectors), dtype=torch.float32, device=device)
            start = 0
            for block in vectors.blocks():
                rows = torch.from_numpy(np.ascontiguousarray(block) if half else unit_rows(block)).to(device)
                lengths = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float32)
                self._rows[start : start + len(rows)] = rows
                self._inverse[start : start + len(rows)] = torch.where(lengths > 0, 1 / lengths, 0)
                start += len(rows)
        except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
            raise UsageError(
                f"{len(vectors):,} vectors of {vectors.dim} cannot be kept on {device!r}: {error}".split("\n")[0]
            ) from error

    def search(self, unit: Float, k: int, subset: Positions | None = None) -> tuple[Float, Positions]:
        """The `k` nearest of unit queries (m, dim), k no more than there are; looks at `subset` alone where it is given.

        Returns
        -------
        scores : (m, k) float32, descending
        positions : (m, k) int64
        """
        torch = self._torch
        rows, inverse = self._rows, self._inverse
        if subset is not None:
            chosen = torch.from_numpy(np.asarray(subset, np.int64)).to(rows.device)
            rows, inverse = rows[chosen], inverse[chosen]
        scores, found = np.empty((len(unit), k), np.float32), np.empty((len(unit), k), np.int64)
        size = max(1, SCORES // max(len(rows), 1))
        for lo in range(0, len(unit), size):
            queries = torch.from_numpy(np.ascontiguousarray(unit[lo : lo + size])).to(rows.device)
            best = torch.topk(self._products(queries, rows) * inverse, k, dim=1)
            scores[lo : lo + size], found[lo : lo + size] = best.values.cpu().numpy(), best.indices.cpu().numpy()
        return scores, found if subset is None else np.asarray(subset, np.int64)[found]

    def _products(self, queries: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """float32 (m, n)."""
        if rows.dtype == self._torch.float32:
            return queries @ rows.T
        coarse = queries.half()
        rest = ((queries - coarse.float()) * SHIFT).half()  # shifted out of the subnormal numbers
        return self._mm(coarse, rows.T) + self._mm(rest, rows.T) / SHIFT

    def _mm(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        if a.is_cuda:
            return self._torch.mm(a, b, out_dtype=self._torch.float32)  # type: ignore[no-any-return]
        return a.float() @ b.float()

"""Building a graph on a GPU with cuVS's CAGRA, to be tuned and searched on a CPU like any other graph.

Needs the wheel faiss-gpu-cuvs. Search stays on the CPU: the plain faiss-gpu wheel takes a filter and ignores it.
"""

from __future__ import annotations

from typing import Any

from embedstore.errors import UsageError
from embedstore.indexing.vectors import Float
from embedstore.registry import require


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

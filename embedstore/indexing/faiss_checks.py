"""FAISS's files: what in them leads elsewhere leads to something that is there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from embedstore._core.foreign_files import remember, try_once
from embedstore.registry import require

KIND = "faiss"
FEW = 10


def note_made(sha256: str) -> None:
    """This machine made the index file of this digest."""
    remember(KIND, sha256)


def try_index(path: Path, sha256: str) -> None:
    """Have a child process look through an index file that was not made here, once.

    Raises
    ------
    CorruptStoreError
    """
    try_once(KIND, sha256, f"{__name__}:check_index", path)


def check_index(path: Path) -> None:
    """Load an index, look at every link of it, and search it; runs in a child process.

    Raises
    ------
    ValueError, RuntimeError
        It cannot be loaded, or leads to vectors that do not exist.
    """
    faiss = require("faiss", extra="cpu")
    faiss.omp_set_num_threads(1)
    whole = faiss.read_index(os.fspath(path), faiss.IO_FLAG_MMAP_IFC)
    if whole.d < 1 or whole.ntotal < 0:
        raise ValueError(f"it holds {whole.ntotal} vectors of {whole.d} numbers")
    index = whole
    if isinstance(index, faiss.IndexIDMap):
        if index.id_map.size() != index.ntotal:
            raise ValueError("its labels are not as many as its vectors")
        index = faiss.downcast_index(index.index)
    _check(faiss, index, whole.ntotal, whole.d)
    unit = np.random.default_rng(0).normal(size=(2, whole.d)).astype(np.float32)
    whole.search(unit, min(FEW, max(int(whole.ntotal), 1)))


def _check(faiss: Any, index: Any, count: int, dim: int) -> None:
    """Look at an index without labels, and at what it is made of."""
    if index.ntotal != count or index.d != dim or index.metric_type != faiss.METRIC_L2:
        raise ValueError(f"it holds {index.ntotal} vectors of {index.d} numbers, not {count} of {dim}")
    if isinstance(index, faiss.IndexHNSW):
        _check_graph(faiss, index.hnsw, count)
        _check(faiss, faiss.downcast_index(index.storage), count, dim)
    elif isinstance(index, faiss.IndexIVF):
        _check(faiss, faiss.downcast_index(index.quantizer), index.nlist, dim)
        _check_lists(faiss, index, count)
    elif not isinstance(index, faiss.IndexFlatCodes):
        raise ValueError(f"it is an {type(index).__name__}, which is never made here")
    elif index.codes.size() != count * index.code_size:
        raise ValueError("its codes are not as many as its vectors")


def _check_graph(faiss: Any, graph: Any, count: int) -> None:
    """Every vertex has the links of its layers, and they lead to vertices that reach as high."""
    levels, offsets = (faiss.vector_to_array(part).astype(np.int64) for part in (graph.levels, graph.offsets))
    neighbours = faiss.vector_to_array(graph.neighbors)
    room = faiss.vector_to_array(graph.cum_nneighbor_per_level).astype(np.int64)
    if not count:
        return
    if len(levels) != count or len(offsets) != count + 1 or not 1 <= levels.min() <= levels.max() < len(room):
        raise ValueError("its graph is not over its vectors")
    if offsets[0] or (np.diff(offsets) != room[levels]).any() or offsets[-1] > len(neighbours) or (np.diff(room) < 0).any():
        raise ValueError("the links of its graph overlap")
    if not -1 <= neighbours.min() <= neighbours.max() < count:
        raise ValueError("its graph leads to vectors that do not exist")
    top = int(graph.max_level)
    if not 0 <= graph.entry_point < count or not 0 <= top < levels[graph.entry_point]:
        raise ValueError("its graph begins nowhere")
    for level in range(1, int(levels.max())):
        high = np.flatnonzero(levels > level)
        links = [neighbours[offsets[v] + room[level] : offsets[v] + room[level + 1]] for v in high]
        reached = np.concatenate(links)
        if (levels[reached[reached >= 0]] <= level).any():
            raise ValueError("its graph leads to vectors that are not on a layer")


def _check_lists(faiss: Any, index: Any, count: int) -> None:
    lists = index.invlists
    if lists.nlist != index.nlist or lists.code_size != index.code_size:
        raise ValueError("its lists are not as many as it says")
    held = 0
    for number in range(lists.nlist):
        if size := lists.list_size(number):
            ids = faiss.rev_swig_ptr(lists.get_ids(number), size)
            held += size
            if not 0 <= ids.min() <= ids.max() < count:
                raise ValueError("a list names vectors that do not exist")
    if held != count:
        raise ValueError(f"its lists hold {held} vectors, not {count}")

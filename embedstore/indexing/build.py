"""Building FAISS indexes by recipe, from vectors that are read once, in blocks.

Everything inside is L2 over unit vectors, which ranks as the cosine does and which every FAISS kind knows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.kmeans import assign, kmeans
from embedstore._core.unit import unit_rows
from embedstore.indexing.entries import Entries
from embedstore.indexing.gpu import cagra_graph
from embedstore.indexing.recipe import TRAIN_PER_ENTRY, TRAIN_PER_LIST, Recipe, n_entries
from embedstore.indexing.vectors import BLOCK, Float, Positions, Vectors
from embedstore.registry import require

CONSTRUCTION = ((200_000, 200), (10**18, 128))
"""efConstruction for up to so many vectors. With 400 a search tries less, but over more links: it takes as many distances."""
Progress = Callable[[str], None]


def build(
    recipe: Recipe,
    vectors: Vectors,
    wanted: npt.NDArray[np.bool_],
    *,
    threads: int,
    seed: int,
    device: str,
    say: Progress,
) -> tuple[Any, Recipe, Entries | None]:
    """A FAISS index over the vectors where `wanted` (n,), and what it became. A GPU builds graphs of float32 codes.

    Labels count the wanted vectors in order. A graph comes with entries: FAISS by itself would begin walks through one that
    a GPU built at the nearest of some vertices drawn at random (by its version, anew for every query), far from what is asked.
    """
    faiss = require("faiss", extra="cpu")
    faiss.omp_set_num_threads(threads)
    if recipe.kind == "hnsw" and device.startswith("cuda"):
        say("graph on the GPU")
        graph = cagra_graph(np.concatenate(list(blocks_of(vectors, wanted))), recipe.size, device)
        return graph, recipe, _entries(vectors, wanted, seed)
    if recipe.kind == "hnsw":
        return _graph(recipe, vectors, wanted, say), recipe, _entries(vectors, wanted, seed)
    index = _lists(recipe, vectors, wanted, seed, say)
    return index, replace(recipe, size=int(index.nlist)), None


def add(index: Any, unit: Float) -> bool:
    """Add unit vectors (m, d) to a built index; False where its kind takes none."""
    if getattr(index, "base_level_only", False):
        return False
    if hasattr(index, "hnsw"):
        index.add(unit)
    else:
        _add_to_lists(index, unit, _centroids_of(index))
    return True


def blocks_of(vectors: Vectors, wanted: npt.NDArray[np.bool_]) -> Any:
    """Unit float32 blocks of the vectors where `wanted`."""
    start = 0
    for raw in vectors.blocks(BLOCK):
        keep = wanted[start : start + len(raw)]
        start += len(raw)
        if keep.any():
            yield unit_rows(raw if keep.all() else raw[keep])


def _graph(recipe: Recipe, vectors: Vectors, wanted: npt.NDArray[np.bool_], say: Progress) -> Any:
    faiss = require("faiss", extra="cpu")
    n, done = int(wanted.sum()), 0
    index = _empty_graph(vectors.dim, recipe.size, recipe.codes)
    index.hnsw.efConstruction = next(effort for most, effort in CONSTRUCTION if n <= most)
    if not index.is_trained:
        index.train(sample(vectors, wanted, 10_000, seed=0))
    storage = faiss.downcast_index(index.storage)
    storage.codes.resize(len(vectors) * storage.code_size)  # once: growing by doubling, it would be there twice
    for block in blocks_of(vectors, wanted):
        index.add(block)
        done += len(block)
        say(f"graph: {done:,} of {n:,} vectors")
    return index


def _entries(vectors: Vectors, wanted: npt.NDArray[np.bool_], seed: int) -> Entries:
    """The medoids of k-means over a sample."""
    count = min(n_entries(int(wanted.sum())), int(wanted.sum()))
    labels = _sampled(int(wanted.sum()), count * TRAIN_PER_ENTRY, seed)
    seen = _picked(vectors, wanted, labels)
    medoids = np.unique(assign(kmeans(seen, count, seed=seed), seen))
    return Entries.of(seen[medoids], labels[medoids])


def _empty_graph(dim: int, links: int, codes: str) -> Any:
    faiss = require("faiss", extra="cpu")
    if codes.startswith("RaBitQ"):
        return faiss.IndexHNSWRaBitQ(dim, links, int(codes[6:] or 1))
    if codes == "SQfp16":
        return faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_fp16, links, faiss.METRIC_L2)
    return faiss.IndexHNSWFlat(dim, links, faiss.METRIC_L2)


def _lists(recipe: Recipe, vectors: Vectors, wanted: npt.NDArray[np.bool_], seed: int, say: Progress) -> Any:
    faiss = require("faiss", extra="cpu")
    n = int(wanted.sum())
    recipe = replace(recipe, size=min(recipe.size, n))
    seen = sample(vectors, wanted, recipe.size * TRAIN_PER_LIST, seed=seed)
    say(f"k-means: {recipe.size:,} lists from {len(seen):,} vectors")
    centroids = kmeans(seen, recipe.size, seed=seed)
    quantizer = faiss.IndexFlatL2(vectors.dim) if recipe.size <= 4096 else faiss.IndexHNSWFlat(vectors.dim, 32)
    quantizer.add(centroids)
    quantizer.this.disown()
    if recipe.codes.startswith("RaBitQ"):
        bits = int(recipe.codes[6:] or 1)
        index = faiss.IndexIVFRaBitQ(quantizer, vectors.dim, recipe.size, faiss.METRIC_L2, True, bits)
    else:
        kind = {"SQ8": faiss.ScalarQuantizer.QT_8bit, "SQfp16": faiss.ScalarQuantizer.QT_fp16}.get(recipe.codes)
        if kind is None:
            index = faiss.IndexIVFFlat(quantizer, vectors.dim, recipe.size, faiss.METRIC_L2)
        else:
            index = faiss.IndexIVFScalarQuantizer(quantizer, vectors.dim, recipe.size, kind, faiss.METRIC_L2)
    index.own_fields = True
    index.train(seen)  # k-means is done: this fits the codes alone
    del seen
    done = 0
    for block in blocks_of(vectors, wanted):
        _add_to_lists(index, block, centroids)
        done += len(block)
        say(f"lists: {done:,} of {n:,} vectors")
    return index


def _add_to_lists(index: Any, unit: Float, centroids: Float) -> None:
    faiss = require("faiss", extra="cpu")
    nearest = assign(unit, centroids)
    labels = np.arange(index.ntotal, index.ntotal + len(unit), dtype=np.int64)
    index.add_core(len(unit), faiss.swig_ptr(unit), faiss.swig_ptr(labels), faiss.swig_ptr(nearest))


def _centroids_of(index: Any) -> Float:
    return np.asarray(index.quantizer.reconstruct_n(0, index.nlist), np.float32)


def sample(vectors: Vectors, wanted: npt.NDArray[np.bool_], size: int, *, seed: int) -> Float:
    """Up to `size` of the wanted vectors at random, as unit rows, read in the order they lie in."""
    return _picked(vectors, wanted, _sampled(int(wanted.sum()), size, seed))


def _sampled(n: int, size: int, seed: int) -> Positions:
    """Up to `size` of `n`, ascending."""
    return np.sort(np.random.default_rng(seed).choice(n, size, replace=False)) if n > size else np.arange(n)


def _picked(vectors: Vectors, wanted: npt.NDArray[np.bool_], labels: Positions) -> Float:
    """The wanted vectors of these ascending labels as unit rows."""
    chosen = np.zeros(len(vectors), bool)
    chosen[np.flatnonzero(wanted)[labels]] = True
    out, at = np.empty((len(labels), vectors.dim), np.float32), 0
    for block in blocks_of(vectors, chosen):  # walking is cheaper than picking, and leaves no pages behind
        out[at : at + len(block)] = block
        at += len(block)
    return out

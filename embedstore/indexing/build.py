"""Building FAISS indexes by recipe, from vectors that are read once, in blocks.

Everything inside is L2 over unit vectors, which ranks as the cosine does and which every FAISS kind knows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.indexing.entries import Entries
from embedstore.indexing.gpu import cagra_graph
from embedstore.indexing.recipe import RELINKED_UP_TO, TRAIN_PER_ENTRY, TRAIN_PER_LIST, Recipe, n_entries
from embedstore.indexing.relink import add_linked, can_relink, relink
from embedstore.indexing.vectors import BLOCK, Float, Positions, Vectors, unit_rows
from embedstore.registry import require

KMEANS_ROUNDS = 8
GRAPH_CODES = ("RaBitQ2", "SQfp16", "Flat")
CONSTRUCTION = ((200_000, 200), (10**18, 128))
"""efConstruction for up to so many vectors. With 400 a search tries less, but over more links: it takes as many distances."""
Progress = Callable[[str], None]


def build(
    recipe: Recipe,
    vectors: Vectors,
    wanted: npt.NDArray[np.bool_],
    keys: npt.NDArray[np.uint64],
    *,
    threads: int,
    seed: int,
    device: str,
    say: Progress,
) -> tuple[dict[str, Any], Entries | None]:
    """FAISS indexes over the vectors where `wanted` (n,), by their codes: several over one graph where codes are ``"any"``.

    Labels count the wanted vectors in order; `keys` (n,) are equal for copies of one vector. A graph that was built on the
    CPU comes with entries.
    """
    faiss = require("faiss", extra="cpu")
    faiss.omp_set_num_threads(threads)
    if recipe.kind == "hnsw" and device.startswith("cuda"):
        say("graph on the GPU")
        return {"Flat": cagra_graph(np.concatenate(list(blocks_of(vectors, wanted))), recipe.size, device)}, None
    if recipe.kind == "hnsw":
        entries = _entries(vectors, wanted, seed)
        return _graph(recipe, vectors, wanted, keys[wanted], entries, threads, say), entries
    return {recipe.codes: _lists(recipe, vectors, wanted, seed, say)}, None


def add(index: Any, unit: Float, keys: npt.NDArray[np.uint64], entries: Entries | None, *, threads: int) -> bool:
    """Add unit vectors (m, d) to a built index of n; False where its kind takes none. `keys` (n + m,) as for `build`."""
    if getattr(index, "base_level_only", False):
        return False
    if entries is not None and _relinks(index, index.ntotal):
        add_linked(index, unit, keys, entries.labels, threads=threads)
    elif hasattr(index, "hnsw"):
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


def _relinks(index: Any, n: int) -> bool:
    return n <= RELINKED_UP_TO and can_relink(index)


def _graph(
    recipe: Recipe,
    vectors: Vectors,
    wanted: npt.NDArray[np.bool_],
    keys: npt.NDArray[np.uint64],
    entries: Entries,
    threads: int,
    say: Progress,
) -> dict[str, Any]:
    n = int(wanted.sum())
    first = "Flat" if recipe.codes == "any" else recipe.codes
    index = _empty_graph(vectors.dim, recipe.size, first)
    index.hnsw.efConstruction = next(effort for most, effort in CONSTRUCTION if n <= most)
    if not index.is_trained:
        index.train(sample(vectors, wanted, 10_000, seed=0))
    done = 0
    for block in blocks_of(vectors, wanted):
        index.add(block)
        done += len(block)
        say(f"graph: {done:,} of {n:,} vectors")
    if _relinks(index, n):
        for done in relink(index, keys, entries.labels, threads=threads):
            say(f"links: {done:,} of {n:,} vectors")
    built = {first: index}
    if recipe.codes == "any":
        for codes in GRAPH_CODES:
            if codes != first:
                say(f"coding as {codes}")
                built[codes] = _recoded(index, recipe, codes, vectors, wanted)
    return built


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


def _recoded(graph: Any, recipe: Recipe, codes: str, vectors: Vectors, wanted: npt.NDArray[np.bool_]) -> Any:
    """The same graph over other codes: built from exact distances, walked with cheap ones."""
    faiss = require("faiss", extra="cpu")
    index = _empty_graph(vectors.dim, recipe.size, codes)
    index.train(sample(vectors, wanted, 10_000, seed=0))
    storage = faiss.downcast_index(index.storage)
    for block in blocks_of(vectors, wanted):
        storage.add(block)
    method = index.hnsw.search_method
    index.hnsw = graph.hnsw
    index.hnsw.search_method = method
    index.ntotal = graph.ntotal
    return index


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


def kmeans(unit: Float, k: int, *, seed: int) -> Float:
    """Spherical k-means: `k` unit centroids (k, d) of unit vectors (n, d), n ≥ k; an empty cluster starts again at random."""
    rng = np.random.default_rng(seed)
    centroids = unit[rng.choice(len(unit), k, replace=False)].copy()
    for _ in range(KMEANS_ROUNDS):
        nearest = assign(unit, centroids)
        order = np.argsort(nearest, kind="stable")
        used, first = np.unique(nearest[order], return_index=True)
        for lo in range(0, unit.shape[1], 64):  # a few columns at a time: no second copy of the sample
            centroids[used, lo : lo + 64] = np.add.reduceat(unit[order, lo : lo + 64], first, axis=0)
        empty = np.setdiff1d(np.arange(k), used)
        centroids[empty] = unit[rng.choice(len(unit), len(empty), replace=False)]
        centroids = unit_rows(centroids)
    return np.asarray(centroids)


def assign(unit: Float, centroids: Float) -> Positions:
    """The centroid (n,) int64 nearest to each unit vector, by blocked matrix products."""
    nearest = np.empty(len(unit), np.int64)
    size = max(256, (1 << 22) // len(centroids))
    for lo in range(0, len(unit), size):
        nearest[lo : lo + size] = np.argmax(unit[lo : lo + size] @ centroids.T, axis=1)
    return nearest

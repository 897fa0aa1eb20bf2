"""Better links for a built HNSW graph: every vector's neighbours are searched for once more and pruned less greedily.

FAISS links a vector among those that were there before it, and drops a link as soon as a kept neighbour is nearer to its end.
Here, once all are in, the nearest of each are searched for again and pruned with some slack, which leaves more and longer
links, and a search needs fewer steps. Copies of one vector would fill every place with one another and become an island: the
first of them alone is linked, the others hang from it.

Notes
-----
Subramanya et al., DiskANN, NeurIPS 2019 (the second pass, and the rule of pruning).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.distinct import distinct
from embedstore.indexing.vectors import Float, Positions
from embedstore.registry import require

NEAREST = 64
CROWDED = 64
"""Of a vector that has no room for all links back to it, so many are looked at, the nearest first."""
SLACK = 1.1
"""A link goes when a kept one's end is nearer to its end by this factor, of squared distances."""
FAN = 16
"""How many copies hang from the first, and how many more from each of those."""
BLOCK = 8192
AT_ONCE = 1 << 14
PRUNED_BYTES = 16 << 20
"""Of neighbours' vectors, in each thread."""
SAME = 1e-6

Labels = npt.NDArray[np.int32]
NOTHING = -4.0  # less than any cosine


def can_relink(index: Any) -> bool:
    """Whether the FAISS index is a graph whose vectors can be read back as they are."""
    return hasattr(index, "hnsw") and not getattr(index, "base_level_only", False) and _kind(index) is not None


def relink(index: Any, keys: npt.NDArray[np.uint64], begin: Positions, *, threads: int = 1) -> Iterator[int]:
    """Search again for the neighbours of the vectors in a FAISS HNSW index, in place; yields how many are done.

    Where fewer vectors can be reached afterwards (those around a hub, or around very many copies), the links of before are
    put back.

    Parameters
    ----------
    index
        An HNSW index, L2, of unit vectors in float32 or float16.
    keys : (n,) uint64
        Equal for copies of one vector and for nothing else.
    begin : (c,) int64
        Labels that walks begin at.
    threads : int
    """
    graph = _Graph(index)
    everything = np.arange(graph.n)
    before = graph.links(everything)
    reached = _reached(before, begin)
    yield from _relink(graph, keys, everything, threads)
    if _reached(graph.links(everything), begin) < reached:
        graph.put(everything, before)


def add_linked(index: Any, unit: Float, keys: npt.NDArray[np.uint64], begin: Positions, *, threads: int = 1) -> None:
    """Add unit vectors (m, dim) to an index that was relinked; `keys` (n + m,) as for `relink`, copies all new or all old.

    FAISS makes room for links to new vectors by its own rule: what others had is put back, and the new ones join them by ours,
    unless fewer vectors could be reached than FAISS's way.
    """
    graph = _Graph(index)
    old = np.arange(graph.n)
    links = graph.links(old)
    index.add(unit)
    graph = _Graph(index)  # FAISS moved its arrays
    everything = np.arange(graph.n)
    added = graph.links(everything)
    for _ in _relink(graph, keys, everything[len(old) :], threads, links):
        pass
    if _reached(graph.links(everything), begin) < _reached(added, begin):
        graph.put(everything, added)


def _reached(links: Labels, begin: Positions) -> int:
    """How many vectors can be reached from those at `begin`."""
    seen = np.zeros(len(links), bool)
    new = distinct(begin)
    while len(new):
        seen[new] = True
        near = links[new]
        new = distinct(near[near >= 0].astype(np.int64))
        new = new[~seen[new]]
    return int(seen.sum())


def _relink(
    graph: _Graph, keys: npt.NDArray[np.uint64], chosen: Positions, threads: int, before: Labels | None = None
) -> Iterator[int]:
    """`relink` for the vectors `chosen`; the links of those before them become `before`, and get those back from these."""
    first = _first_copies(keys)
    own = chosen[first[chosen] == chosen]
    found = np.full((len(own), graph.width), -1, np.int32)
    with ThreadPoolExecutor(threads) as pool:
        for lo in range(0, len(own), BLOCK):
            near, cosines = graph.nearest(own[lo : lo + BLOCK], first, threads)
            found[lo : lo + BLOCK] = _pruned(graph, near, cosines, pool)
            yield lo + len(near)
        if before is not None:
            graph.put(np.arange(len(before)), before)
        graph.put(chosen, np.full((1, graph.width), -1, np.int32))
        graph.put(own, found)
        for targets, links, nearness in _with_ways_back(graph, own, found):
            graph.put(targets, links if nearness is None else _pruned(graph, links, nearness, pool))
    _hang(graph, chosen, first)


class _Graph:
    """The lowest layer of a FAISS HNSW index, and the vectors in it, without a copy."""

    def __init__(self, index: Any) -> None:
        faiss = require("faiss", extra="cpu")
        self._faiss, self._index = faiss, index
        self.n, hnsw = int(index.ntotal), index.hnsw
        self.width = int(hnsw.nb_neighbors(0))
        self._starts = faiss.rev_swig_ptr(hnsw.offsets.data(), self.n).astype(np.int64)
        self._links = faiss.rev_swig_ptr(hnsw.neighbors.data(), hnsw.neighbors.size())
        codes, kind = faiss.downcast_index(index.storage).codes, _kind(index)
        assert kind is not None
        self.dim = int(index.d)
        self._vectors = faiss.rev_swig_ptr(codes.data(), codes.size()).view(kind).reshape(self.n, -1)

    def vectors(self, labels: npt.NDArray[Any]) -> Float:
        """Unit vectors (m, dim)."""
        return np.asarray(self._vectors[labels], np.float32)

    def links(self, labels: npt.NDArray[Any]) -> Labels:
        """(m, width), -1 where there is none."""
        return np.asarray(self._links[self._starts[labels][:, None] + np.arange(self.width)])

    def put(self, labels: npt.NDArray[Any], links: Labels) -> None:
        """Make (m, width), or one row for all, the links of `labels` (m,)."""
        self._links[self._starts[labels][:, None] + np.arange(self.width)] = links

    def cosines(self, labels: npt.NDArray[Any], others: npt.NDArray[Any]) -> Float:
        """Of each of `labels` (e,) to that in the same place of `others` (e,)."""
        size = 4096
        parts = [slice(lo, lo + size) for lo in range(0, len(labels), size)]
        found = [np.einsum("ed,ed->e", self.vectors(labels[part]), self.vectors(others[part])) for part in parts]
        return np.concatenate([*found, np.empty(0, np.float32)])

    def nearest(self, labels: Positions, first: Labels, threads: int) -> tuple[Labels, Float]:
        """Others that each of `labels` (m,) may be linked to, and their cosines, descending: the nearest, and its links."""
        self._faiss.omp_set_num_threads(threads)
        k = min(NEAREST + 1, self.n)
        effort = self._faiss.SearchParametersHNSW(efSearch=k)
        distances, near = self._index.search(self.vectors(labels), k, params=effort)
        cosines = 1 - distances / 2
        cosines[near < 0] = NOTHING
        before = self.links(labels)
        at, place = np.nonzero(before >= 0)
        so_far = np.full(before.shape, NOTHING, np.float32)
        so_far[at, place] = self.cosines(labels[at], before[at, place])
        near, cosines = np.concatenate([near, before], axis=1), np.concatenate([cosines, so_far], axis=1)
        near = np.where(near < 0, -1, first[near]).astype(np.int32)
        near[near == labels[:, None]] = -1
        near, cosines = _sorted(near, cosines)
        most = int((near >= 0).sum(axis=1).max(initial=1))
        return near[:, :most], cosines[:, :most]


def _kind(index: Any) -> type[np.floating[Any]] | None:
    faiss = require("faiss", extra="cpu")
    storage = faiss.downcast_index(index.storage)
    if isinstance(storage, faiss.IndexFlat):
        return np.float32
    half = isinstance(storage, faiss.IndexScalarQuantizer) and storage.sq.qtype == faiss.ScalarQuantizer.QT_fp16
    return np.float16 if half else None


def _first_copies(keys: npt.NDArray[np.uint64]) -> Labels:
    """The label (n,) of the first copy of each vector."""
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    return np.asarray(first[which], np.int32)


def _sorted(near: Labels, cosines: Float) -> tuple[Labels, Float]:
    """Rows by descending cosine, each label once, -1 last."""
    order = np.argsort(near, axis=1, kind="stable")
    by_label = np.take_along_axis(near, order, 1)
    again = np.zeros(near.shape, bool)
    np.put_along_axis(again, order[:, 1:], by_label[:, 1:] == by_label[:, :-1], 1)
    gone = again | (near < 0)
    near, cosines = np.where(gone, -1, near), np.where(gone, np.float32(NOTHING), cosines)
    order = np.argsort(-cosines, axis=1, kind="stable")
    return np.take_along_axis(near, order, 1), np.take_along_axis(cosines, order, 1)


def _pruned(graph: _Graph, near: Labels, cosines: Float, pool: ThreadPoolExecutor) -> Labels:
    """Of each row of `near` (m, k), nearest first, the links to keep (m, width)."""
    if not len(near):
        return np.empty((0, graph.width), np.int32)
    size = max(1, PRUNED_BYTES // (4 * graph.dim * near.shape[1]))
    starts = range(0, len(near), size)
    parts = pool.map(lambda lo: _prune(graph, near[lo : lo + size], cosines[lo : lo + size]), starts)
    return np.concatenate(list(parts))


def _prune(graph: _Graph, near: Labels, cosines: Float) -> Labels:
    vectors = graph.vectors(np.maximum(near, 0))
    between = np.matmul(vectors, vectors.transpose(0, 2, 1))
    np.multiply(between, -SLACK, out=between)
    between += np.float32(SLACK)
    distances = (1 - cosines)[:, None, :]  # halves of squared ones
    hides = (between < distances) & (distances > SAME)  # copies hide one another by rounding alone
    gone, kept = near < 0, np.zeros(near.shape, bool)
    for k in range(near.shape[1]):
        taken = ~gone[:, k]
        kept[:, k] = taken
        gone |= taken[:, None] & hides[:, k]
    order = np.argsort(~kept, axis=1, kind="stable")[:, : graph.width]
    links = np.full((len(near), graph.width), -1, np.int32)
    links[:, : order.shape[1]] = np.where(np.take_along_axis(kept, order, 1), np.take_along_axis(near, order, 1), -1)
    return links


def _with_ways_back(graph: _Graph, sources: Positions, found: Labels) -> Iterator[tuple[Positions, Labels, Float | None]]:
    """What `found` (m', k) leads to from `sources`: labels (m,), their links and those back, and the cosines to these.

    Where there is room, links are (m, width), in any order and without cosines; else (m, CROWDED), nearest first.
    """
    for lo in range(0, graph.n, AT_ONCE):
        at, place = np.nonzero((found >= lo) & (found < lo + AT_ONCE))
        ends, others = found[at, place].astype(np.int64), sources[at]
        targets = distinct(ends)
        before = graph.links(targets)
        at, place = np.nonzero(before >= 0)
        ends, others = np.concatenate([targets[at], ends]), np.concatenate([before[at, place], others])
        ends, others = np.divmod(distinct(ends * graph.n + others), graph.n)
        room = np.bincount(np.searchsorted(targets, ends)) <= graph.width
        for some in (room, ~room):
            mine = some[np.searchsorted(targets, ends)]
            row, near = np.searchsorted(targets[some], ends[mine]), others[mine]
            if some is room:
                yield targets[some], _padded(row, near, graph.width, -1), None
                continue
            cosines = graph.cosines(ends[mine], near)
            order = np.lexsort((-cosines, row))
            row, near, cosines = row[order], near[order], cosines[order]
            yield targets[some], _padded(row, near, CROWDED, -1), _padded(row, cosines, CROWDED, NOTHING)


def _padded(row: Positions, values: npt.NDArray[Any], width: int, fill: float) -> npt.NDArray[Any]:
    """`values` (e,) of ascending rows, from 0 on, as an array of `width` columns: the first of each row, `fill` behind them."""
    column = np.arange(len(row)) - np.searchsorted(row, row)
    out = np.full((int(row.max(initial=-1)) + 1, width), fill, np.int32 if values.dtype.kind == "i" else values.dtype)
    fits = column < width
    out[row[fits], column[fits]] = values[fits]
    return out


def _hang(graph: _Graph, labels: Positions, first: Labels) -> None:
    """Give the copies among `labels` (m,) links: those of the first (`first` is (n,)), and a tree of all of them."""
    fan = min(FAN, graph.width // 4)
    order = labels[np.argsort(first[labels], kind="stable")]
    _, starts, counts = np.unique(first[order], return_index=True, return_counts=True)
    for start, count in zip(starts[counts > 1], counts[counts > 1], strict=True):
        copies = order[start : start + count]
        common = graph.links(copies[:1])[0]
        common = common[common >= 0][: graph.width - fan - 1]
        for i in range(count):
            row = np.full(graph.width, -1, np.int32)
            below, above = copies[i * fan + 1 : (i + 1) * fan + 1], copies[(i - 1) // fan :][: 1 if i else 0]
            links = np.concatenate([below, above, common])
            row[: len(links)] = links
            graph.put(copies[i : i + 1], row[None])

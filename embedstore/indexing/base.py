"""One built FAISS index with what it needs to answer: which vector each label is, and the vectors to re-rank from."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.unit import unit_rows
from embedstore.indexing.entries import Entries
from embedstore.indexing.one_query import ALL_AT_ONCE, Single
from embedstore.indexing.pages import use_huge_pages
from embedstore.indexing.recipe import Recipe
from embedstore.indexing.vectors import Array, Float, Positions, Vectors
from embedstore.registry import require

CHUNK = 128
RERANKED_BYTES = 8 << 20
INT32 = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Setting:
    """How hard a search tries.

    Parameters
    ----------
    effort : int
        ``efSearch`` of a graph, ``nprobe`` of lists.
    candidates : int
        How many of the best by code are re-ranked by their stored vectors; no less than the results asked for.
    again : int
        Effort of a second look, at queries whose best result has a lower score than `doubt`: where nothing is near, walks end
        too early. 0 for none.
    doubt : float
    """

    effort: int
    candidates: int
    again: int = 0
    doubt: float = -1.0

    def scaled(self, factor: float) -> Setting:
        """Try `factor` times as hard."""
        effort, candidates, again = (int(np.ceil(x * factor)) for x in (self.effort, self.candidates, self.again))
        return Setting(effort, candidates, again, self.doubt)


class Base:
    """An immutable FAISS index over some of `vectors`.

    Parameters
    ----------
    index
        The FAISS index; its label ``i`` is the vector at position ``labels[i]``.
    recipe : Recipe
    labels : (n,) int32 or int64
    vectors : Vectors
        To re-rank from.
    entries : Entries, optional
        Where walks through a graph begin; without, they descend through its layers.
    """

    def __init__(
        self, index: Any, recipe: Recipe, labels: npt.NDArray[Any], vectors: Vectors, entries: Entries | None = None
    ) -> None:
        self.index = index
        self.recipe = recipe
        self.labels = labels
        self.vectors = vectors
        self.entries = entries
        self._faiss = require("faiss", extra="cpu")
        self._known_parameters: dict[int, Any] = {}
        self._of_thread = threading.local()
        self._pool: tuple[tuple[int, int], ThreadPoolExecutor] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def plain(self) -> bool:
        """Whether labels are positions."""
        return bool(len(self.labels) == 0 or (self.labels == np.arange(len(self.labels))).all())

    @property
    def most_effort(self) -> int:
        """Where more effort changes nothing."""
        return len(self) if self.recipe.kind == "hnsw" else int(self.index.nlist)

    def settle(self) -> None:
        """Move the arrays of a graph to huge pages, for an index that will be searched often."""
        if self.recipe.kind == "hnsw":
            codes = self._faiss.downcast_index(self.index.storage).codes
            use_huge_pages(int(codes.data()), codes.size())
            use_huge_pages(int(self.index.hnsw.neighbors.data()), self.index.hnsw.neighbors.size() * 4)

    def search(self, unit: Float, k: int, setting: Setting, *, threads: int = 1) -> tuple[Float, Positions]:
        """The `k` nearest of each query, by cosine.

        Parameters
        ----------
        unit : (m, dim) float32
            Unit vectors.

        Returns
        -------
        scores : (m, k) float32
            Descending; -inf where there is no result.
        positions : (m, k) int64
            -1 where there is no result.
        """
        candidates = min(len(self), max(k, setting.candidates))
        least = candidates if self.recipe.kind == "hnsw" else 1
        parameters = self._parameters(max(setting.effort, least))
        harder = self._parameters(setting.again) if setting.again > max(setting.effort, least) else None
        chunk = CHUNK
        if self.recipe.reranked:
            chunk = min(chunk, max(1, RERANKED_BYTES // (4 * candidates * self.vectors.dim)))
        alone = len(unit) <= 4 or threads == 1
        chunk = chunk if alone else min(chunk, -(-len(unit) // threads))
        starts = range(0, max(len(unit), 1), chunk)
        found: list[Any] = [None] * len(starts)
        left = iter(enumerate(starts))

        def work() -> None:
            try:
                for i, lo in left:
                    part = unit[lo : lo + chunk]
                    scores, positions = found[i] = self._part(part, k, candidates, parameters)
                    if harder is not None and len(doubted := np.flatnonzero(scores[:, 0] < setting.doubt)):
                        scores[doubted], positions[doubted] = self._part(part[doubted], k, candidates, harder)
            except BaseException:
                for _ in left:  # nobody need go on
                    pass
                raise

        helpers = 0 if alone else min(threads, len(starts)) - 1
        others = [self._threads(threads).submit(work) for _ in range(helpers)]
        work()  # this thread too: to wake a sleeping one takes as long as a query
        for other in others:
            if not other.cancel():  # what has not begun has nothing left to do
                other.result()
        return self._joined(found)

    def one(self, query: Array, k: int, setting: Setting) -> tuple[Float, Positions] | None:
        """`search` for one query (dim,), of any length but zero. None where the query or the answer needs more care."""
        if self.recipe.codes not in ("Flat", "SQfp16"):
            return None
        candidates = min(len(self), max(k, setting.candidates)) if self.recipe.reranked else k
        single = getattr(self._of_thread, "single", None)
        if single is None or single.k != candidates:
            single = self._of_thread.single = Single(self.index, self.entries, self.vectors.dim, candidates)
        effort = max(setting.effort, candidates) if self.recipe.kind == "hnsw" else setting.effort
        harder = self._parameters(setting.again) if setting.again > effort else None
        found = single.ask(query, self._parameters(effort), harder, setting.doubt)
        if found is None:
            return None
        scores, labels = found
        positions = labels if self.plain else self.labels.take(labels).astype(np.int64)
        return scored(self.vectors, single.query, positions, k) if self.recipe.reranked else (scores, positions)

    def _joined(self, parts: list[tuple[Float, Positions]]) -> tuple[Float, Positions]:
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([scores for scores, _ in parts]), np.concatenate([positions for _, positions in parts])

    def _threads(self, threads: int) -> ThreadPoolExecutor:
        """Our own threads, each with one of FAISS's: every caller of FAISS would otherwise start a pool of its own.

        A forked process has none of the threads of its parent, and makes a pool of its own.
        """
        key = threads, os.getpid()
        if self._pool is None or self._pool[0] != key:
            self._pool = key, ThreadPoolExecutor(threads, "embedstore-search")
        return self._pool[1]

    def _parameters(self, effort: int) -> Any:
        faiss = self._faiss
        if self.recipe.kind == "hnsw":
            if effort not in self._known_parameters:
                self._known_parameters[effort] = faiss.SearchParametersHNSW(efSearch=min(effort, INT32))
            return self._known_parameters[effort]
        options = {"nprobe": min(effort, self.index.nlist)}
        if self.recipe.codes.startswith("RaBitQ"):
            return faiss.IVFRaBitQSearchParameters(**options)
        return faiss.SearchParametersIVF(**options)

    def _part(self, unit: Float, k: int, candidates: int, parameters: Any) -> tuple[Float, Positions]:
        faiss = self._faiss
        faiss.omp_set_num_threads(1)
        distances, labels = np.empty((len(unit), candidates), np.float32), np.empty((len(unit), candidates), np.int64)
        unit_at, answer = faiss.swig_ptr(unit), (faiss.swig_ptr(distances), faiss.swig_ptr(labels))
        if self.entries is None:  # FAISS's own wrapper would cost a fifth of a short search
            self.index.search_c(len(unit), unit_at, candidates, *answer, parameters)
        else:
            begin = self.entries.nearest(unit)
            begin_at = faiss.swig_ptr(begin[0]), faiss.swig_ptr(begin[1])
            self.index.search_level_0(len(unit), unit_at, candidates, *begin_at, *answer, 1, ALL_AT_ONCE, parameters)
        positions = labels if self.plain else self.labels.take(labels, mode="clip").astype(np.int64)
        positions[labels < 0] = -1
        if self.recipe.reranked:
            return ranked(self.vectors, unit, positions, k)
        length = np.einsum("md,md->m", unit, unit)[:, None]  # 1, or 0 for a query of zeros
        scores = (length + 1 - distances) / 2
        scores[labels < 0] = -np.inf
        return scores[:, :k], positions[:, :k]


def ranked(vectors: Vectors, unit: Float, positions: Positions, k: int) -> tuple[Float, Positions]:
    """Scores (m, k) and positions of the `k` best of candidates (m, c) by their stored vectors; -1 among them is none."""
    m, candidates = positions.shape
    raw = vectors.take(np.maximum(positions, 0).ravel())
    rows = np.asarray(raw, np.float32).reshape(m, candidates, vectors.dim)
    lengths = np.sqrt(np.einsum("mcd,mcd->mc", rows, rows))
    if lengths.size and not (lengths.min() >= 1e-15 and lengths.max() < np.inf):  # as in `unit_rows`
        rows, lengths = unit_rows(raw).reshape(m, candidates, vectors.dim), np.ones((m, candidates), np.float32)
    scores = np.matmul(rows, unit[:, :, None])[..., 0]
    scores /= lengths
    scores[positions < 0] = -np.inf
    if k < candidates:
        best = np.argpartition(scores, candidates - k, axis=1)[:, candidates - k :]
        scores, positions = np.take_along_axis(scores, best, 1), np.take_along_axis(positions, best, 1)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)


def scored(vectors: Vectors, unit: Float, positions: Positions, k: int) -> tuple[Float, Positions]:
    """`ranked` for one query (1, dim) and its candidates (1, c), at the least cost of Python."""
    raw = vectors.take(positions[0])
    rows = raw.astype(np.float32)
    squared = np.einsum("cd,cd->c", rows, rows)
    if not (squared.min() > 1e-30 and squared.max() < np.inf):
        return ranked(vectors, unit, positions, k)
    scores = rows @ unit[0]
    scores /= np.sqrt(squared)
    order = (-scores).argsort(kind="stable")[:k]
    return scores[order][None], positions[:, order]

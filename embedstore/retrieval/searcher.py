"""`Searcher`: one store, its open indexes and the encoders of queries, kept for search after search."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from embedstore._core.arguments import as_type, shown, strings
from embedstore._core.pieces import Pieces
from embedstore.errors import UsageError
from embedstore.indexing.exact import RESIDENT_BYTES
from embedstore.retrieval.aligned_spaces import ProjectedSpace, SearchableSpace
from embedstore.retrieval.asked import Asked, combined, joined, weighted
from embedstore.retrieval.filters_kept import Filters, Mask
from embedstore.retrieval.fusion import POOL, Folded, diverse, first_of_each, folded, under
from embedstore.retrieval.index import OpenIndex, Origin, open_index, origin_of, states, unchanged
from embedstore.retrieval.queries import Resolver
from embedstore.retrieval.search_options import Query, SearchOptions, several
from embedstore.retrieval.search_result import Hit, SearchResult, certainty, described
from embedstore.retrieval.several_queries import Ranking, ranked_together
from embedstore.retrieval.several_vectors import best_items, nearest_items, placed, vectors_of
from embedstore.store import Store
from embedstore.store.format import HEAD, HEADS
from embedstore.store.indexes import INDEX

__all__ = ["Searcher"]

Rows = npt.NDArray[np.int64]
Float = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float64]

DEEPER, LEAST, MORE = 4, 50, 1000
"""Where results are thinned, so many times more are looked for at first; at least and at most so many more."""


class Searcher:
    """Searches one store, pinned to the generation it opened; encoders and indexes are loaded once and kept.

    Threads may share it.

    Parameters
    ----------
    store : Store
    device : str
        For encoding queries; where it is a GPU that was named (``"cuda"``) and `resident`, exact search runs there as well.
    resident : bool
        Read indexes and vectors into memory, for many searches; otherwise files are mapped and a search touches what it needs.
    exact_bytes : int
        Of vectors that are kept in the form that exact search takes.
    before : Searcher, optional
        One of the same store and device, whose encoders are taken over, and what it read of spaces that have the same parts.
    """

    def __init__(
        self,
        store: Store,
        *,
        device: str = SearchOptions.device,
        resident: bool = False,
        exact_bytes: int = RESIDENT_BYTES,
        before: Searcher | None = None,
    ) -> None:
        if not isinstance(store, Store):
            raise UsageError(f"A Searcher is made of a Store: Searcher(Store.open(PATH)). Got {shown(store)} instead.")
        self.store = store
        device = as_type(device, str, "device")
        self.queries: Resolver = Resolver(store, device=device, before=before.queries if before else None)
        self._resident = resident
        self._exact_bytes = exact_bytes
        self._exact_on = device if resident and device.startswith("cuda") else "cpu"
        self.filters: Filters = Filters(store, before.filters if before is not None and before.store is store else None)
        self._answers = threading.local()
        self._opening = threading.RLock()
        self._seen = states(self._watched)
        self._indexes: dict[str, tuple[Origin, OpenIndex]] = {}
        if before is not None and (before._resident, before._exact_on) == (resident, self._exact_on):
            self._indexes = unchanged(before._indexes, self.queries.spaces)

    def search(self, **query: Unpack[Query]) -> SearchResult:
        """See `embedstore.search`; the device is that of the searcher."""
        if "device" in query:
            raise UsageError("A Searcher has a device: Searcher(store, device=…). Leave it out of its searches.")
        return self.answer(SearchOptions.of(query))

    def answer(self, wanted: SearchOptions) -> SearchResult:
        """The answer to a question whose options are checked."""
        columns = self.columns(wanted.columns)
        if wanted.group_by is not None:
            self.columns([wanted.group_by])
        start = time.perf_counter()
        self._answers.used = {}
        asked = self.asked(wanted)
        encoded = time.perf_counter()
        for one in asked:
            self.index(one.space)
        loaded = time.perf_counter()
        rows, scores, folded = self._ranked(asked, wanted)
        found = time.perf_counter()
        ranks = range(wanted.offset + 1, wanted.offset + 1 + len(rows))
        scored = [combined(group) for group in joined(asked).values()] if wanted.fusion == "score" else asked
        hits = placed(scored, rows, self.hits(rows, scores, columns, ranks, folded))
        fetched = time.perf_counter()
        took = {"encode": encoded - start, "load": loaded - encoded, "search": found - loaded, "fetch": fetched - found}
        return self.result(asked, hits, took, self.answered())

    def result(self, asked: Sequence[Asked], hits: list[Hit], took: Mapping[str, float], used: dict[str, Any]) -> SearchResult:
        """The answer to `asked`: its hits, the seconds that each step took, and how it was found."""
        notes = [one.note for one in asked if one.note]
        notes += [note for one in asked if (note := self.index(one.space).note)]
        alignments = [one.space.head for one in asked if isinstance(one.space, ProjectedSpace)]
        return SearchResult(
            hits,
            " + ".join(joined(asked)),
            {key: round(1000 * s, 2) for key, s in took.items()},
            used,
            " ".join(dict.fromkeys(notes)) or None,
            " + ".join(dict.fromkeys(alignments)) or None,
            list(dict.fromkeys(name for one in asked for name in one.aligned)),
        )

    def nearest(
        self,
        space: SearchableSpace,
        queries: npt.NDArray[Any],
        k: int,
        *,
        exclude: Rows | None = None,
        among: Rows | None = None,
        recall: float | None = None,
    ) -> tuple[Float, Rows]:
        """The `k` nearest vectors of `space` to each of many query vectors of the same space.

        Parameters
        ----------
        queries : (m, dim)
        exclude : (m,) int64, optional
            For each query the row of an item to leave out, such as its own; -1 for none.
        among : (r,) int64, optional
            Rows to look at; default all.
        recall : float, optional
            An operating point of the index; 1 for exact search.

        Returns
        -------
        scores : (m, k) float32, or narrower where the space has fewer vectors
            Cosines, descending; NaN beyond the last result.
        rows : (m, k) int64, likewise
            Rows of the store; -1 beyond the last result.
        """
        keep = space.live if among is None else self.filters.among(space, among)
        return self._nearest(space, queries, k, keep, exclude, recall)

    def nearest_to_pieces(
        self, space: SearchableSpace, pieces: Pieces, k: int, *, exclude: Rows, among: Rows | None, recall: float | None
    ) -> tuple[Float, Rows]:
        """`nearest` of queries that have several vectors each, by MaxSim."""
        keep = space.live if among is None else self.filters.among(space, among)
        scores, rows = np.full((len(pieces), k), np.nan, np.float32), np.full((len(pieces), k), -1, np.int64)
        for i, own in enumerate(exclude.tolist()):
            several = pieces.take([i]).vectors
            found, values = best_items(self._finder(space, several, keep, recall), space, several, k + 1)
            stays = np.flatnonzero(found != own)[:k]
            rows[i, : len(stays)], scores[i, : len(stays)] = found[stays], values[stays]
        return scores, rows

    def nearest_kept(
        self, space: SearchableSpace, queries: npt.NDArray[Any], k: int, keep: Mask | None, recall: float | None
    ) -> tuple[Float, Rows, dict[str, Any]]:
        """`nearest` among the positions that `filter` says, and how it was answered."""
        self._answers.used = {}
        scores, rows = self._nearest(space, queries, k, keep, None, recall)
        return scores, rows, self.answered()

    def index(self, space: SearchableSpace) -> OpenIndex:
        """The index of `space`, opened when first needed."""
        with self._opening:
            if space.name not in self._indexes:
                origin = origin_of(space)
                opened = open_index(space, resident=self._resident, device=self._exact_on, exact_bytes=self._exact_bytes)
                self._indexes[space.name] = origin, opened
            return self._indexes[space.name][1]

    def current(self) -> bool:
        """Whether the indexes and heads of the store are still those that were there when this was made."""
        return states(self._watched) == self._seen

    @cached_property
    def _watched(self) -> list[str]:
        heads = self.store.path / HEADS
        indexes = [space.index_folder / INDEX for space in self.queries.spaces.values()]
        folders = sorted(heads.iterdir()) if heads.is_dir() else []  # a head that is being saved has a folder first
        return [str(path) for path in (heads, *(folder / HEAD for folder in folders), *indexes)]

    def answered(self) -> dict[str, Any]:
        """How this thread's last search was answered, or the least certain call of `nearest` since: ``type``, ``recall``, …"""
        return dict(getattr(self._answers, "used", {}))

    def _nearest(
        self,
        space: SearchableSpace,
        queries: npt.NDArray[Any],
        k: int,
        keep: Mask | None,
        exclude: Rows | None,
        recall: float | None,
    ) -> tuple[Float, Rows]:
        found = self._finder(space, queries, keep, recall)
        wanted = k if exclude is None else k + 1
        if space.unit is not None:
            scores, rows = nearest_items(found, len(queries), space.raw_rows, len(space), wanted)
        else:
            scores, positions = found(None, wanted)
            rows = np.where(positions < 0, -1, space.raw_rows[positions]) if len(space.raw_rows) else positions
            scores = np.where(positions < 0, np.float32(np.nan), scores)
        if exclude is not None:
            own = rows == np.asarray(exclude)[:, None]
            order = np.argsort(own, axis=1, kind="stable")  # what is left out goes to the end
            rows = np.take_along_axis(np.where(own, -1, rows), order, axis=1)[:, :k]
            scores = np.take_along_axis(np.where(own, np.float32(np.nan), scores), order, axis=1)[:, :k]
        return scores, rows

    def _finder(
        self, space: SearchableSpace, queries: npt.NDArray[Any], keep: Mask | None, recall: float | None
    ) -> Callable[[Rows | None, int], tuple[Float, Rows]]:
        """Finds as many of the vectors nearest to some queries (m, dim), or to all, as it is told: scores and positions."""
        opened = self.index(space).index

        def found(at: Rows | None, depth: int) -> tuple[Float, Rows]:
            some = queries if at is None or len(at) == len(queries) else queries[at]
            answer = opened.search(some, depth, keep=keep, recall=recall)
            used = described(opened.report_.type, opened.report_.at, answer.plan, answer.recall)
            self._answers.used = min(self.answered() or used, used, key=certainty)
            return answer.scores, answer.positions

        return found

    def asked(self, wanted: SearchOptions) -> list[Asked]:
        """Every query of the question, with its weight."""
        if wanted.spaces is None:
            return weighted(self._asked_in(wanted.space, wanted), wanted.weights, wanted.fusion)
        asked = []
        for space, weight in wanted.spaces.items():
            own = weighted(self._asked_in(space, wanted), wanted.weights, wanted.fusion)
            asked += [replace(one, weight=one.weight * weight) for one in own]
        return asked

    def _asked_in(self, space: str | None, wanted: SearchOptions) -> list[Asked]:
        """Every query as one of `space`."""
        asked = [
            self.queries.payload(modality, given, space)
            for modality in ("text", "image", "audio", "video")
            for given in several(getattr(wanted, modality), modality)
        ]
        asked += [self.queries.item(item, space) for item in several(wanted.id, "id")]
        if wanted.vector is not None:
            asked.append(self.queries.vector(wanted.vector, space))
        if wanted.like or wanted.unlike:
            like, unlike = strings(wanted.like or [], "like"), strings(wanted.unlike or [], "unlike")
            beside = asked[0].space.name if asked else None
            asked.append(self.queries.examples(like, unlike, space if beside is None else beside, alone=not asked))
        if not asked:
            raise UsageError("Say what to search for: words, --text, --image, --audio, --video, --id, --vector or --like.")
        return asked

    def _ranked(self, asked: Sequence[Asked], wanted: SearchOptions) -> tuple[Rows, Scores, Folded]:
        """Rows and scores of the page that is wanted, and which rows are folded into each."""
        needed = -(-wanted.last // POOL) * POOL if wanted.diversity else wanted.last
        depth = needed + min(max(DEEPER * needed, LEAST), MORE) if wanted.group_by or wanted.fold is not None else needed
        folded_rows: Folded = {}
        while True:
            rows, scores, rest = self._candidates(asked, depth, wanted)
            exhausted = len(rows) < depth
            if wanted.min_score is not None:
                kept = scores >= wanted.min_score
                exhausted |= rest < wanted.min_score
                rows, scores = rows[kept], scores[kept]
            if wanted.group_by is not None:
                (values,) = self.store.items.lookup.values(rows, [wanted.group_by])
                places = first_of_each(values, wanted.per_group)
                rows, scores = rows[places], scores[places]
            if wanted.fold is not None:
                heads = folded(vectors_of(rows, asked[0].space), wanted.fold, needed)
                folded_rows = under(rows, heads)
                first = heads == np.arange(len(rows))
                rows, scores = rows[first], scores[first]
            if exhausted or len(rows) >= needed:
                break
            depth *= 4
        if wanted.diversity and len(rows):
            rows, scores = rows[:needed], scores[:needed]
            fused = len(asked) > 1 and (wanted.fusion != "score" or len(joined(asked)) > 1)
            order = diverse(scores, vectors_of(rows, asked[0].space), wanted.diversity, fused=fused)
            rows, scores = rows[order], scores[order]
        return rows[wanted.offset : wanted.last], scores[wanted.offset : wanted.last], folded_rows

    def _candidates(self, asked: Sequence[Asked], depth: int, wanted: SearchOptions) -> tuple[Rows, Scores, float]:
        """The `depth` best rows, their scores, and what no other row scores more than."""
        leave_out = np.asarray([row for one in asked for row in one.leave_out], np.int64)
        if wanted.fusion == "score":
            asked = [combined(group) for group in joined(asked).values()]
        if len(asked) == 1:
            rows, scores = self._one(asked[0], depth, wanted, leave_out)
            return rows, scores, float(scores[-1]) if len(scores) == depth else -np.inf
        indexed = (wanted.recall is None or wanted.recall < 1) and any(
            not self.index(one.space).index.report_.exact for one in asked
        )

        def search(one: Asked, deep: int) -> Ranking:
            return self._one(one, deep, wanted, leave_out)

        return ranked_together(asked, depth, wanted.fusion, search, indexed=indexed, exact=lambda: self.answered()["exact"])

    def _one(self, asked: Asked, depth: int, wanted: SearchOptions, leave_out: Rows) -> Ranking:
        keep, deeper = self.filters.positions(asked.space, wanted.where), depth + len(leave_out)
        if asked.pieces is not None:
            best, values = best_items(
                self._finder(asked.space, asked.pieces, keep, wanted.recall), asked.space, asked.pieces, deeper
            )
            stays = ~np.isin(best, leave_out)
            return best[stays][:depth], values[stays][:depth]
        scores, rows = self._nearest(asked.space, asked.vector[None], deeper, keep, None, wanted.recall)
        kept = rows[0] >= 0
        if len(leave_out):
            kept &= ~np.isin(rows[0], leave_out)
        return rows[0][kept][:depth], scores[0][kept][:depth].astype(np.float64)

    def columns(self, columns: Sequence[str] | None) -> list[str]:
        """The columns to return with each hit; `UsageError` where there is no such column."""
        types = self.store.items.column_types()
        if columns is None:
            return self.store.items.metadata_columns()
        columns = strings(columns, "columns")
        if unknown := [c for c in columns if c not in types]:
            raise UsageError(f"No column is called {unknown[0]!r}. Columns: {', '.join(types)}.")
        return columns

    def hits(
        self, rows: Rows, scores: npt.NDArray[Any], columns: list[str], ranks: Sequence[int], folded: Folded | None = None
    ) -> list[Hit]:
        """Hits of `rows` (n,) with their `scores` (n,), `ranks` (n,) and the values of `columns`."""
        lookup = self.store.items.lookup
        ids, *values = lookup.values(rows, ["id", *columns])
        every = zip(*values, strict=True) if values else ((),) * len(ids)
        named = [dict(zip(columns, own, strict=True)) for own in every]
        hits = [
            Hit(rank, own, round(score, 6), metadata, row=row)
            for rank, own, score, metadata, row in zip(ranks, ids, scores.tolist(), named, rows.tolist(), strict=True)
        ]
        if not folded:
            return hits
        under = [np.asarray(folded.get(row, ()), np.int64) for row in rows.tolist()]
        names = [lookup.values(own, ["id"])[0] for own in under]
        return [replace(hit, folded=own) for hit, own in zip(hits, names, strict=True)]

"""`find_duplicates`: exact and near copies among a store's items, and their removal. Wiring of stores and duplicate search."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedstore._core.arguments import shown
from embedstore._core.distinct import distinct
from embedstore._core.threads import bounded
from embedstore.duplicates.dedup_options import THRESHOLD, DedupOptions
from embedstore.duplicates.pairs import (
    DECIMALS,
    Clusters,
    Pairs,
    cluster,
    first_equal,
    joined,
    lowest_cosines,
    pairs_above,
    score_pairs,
)
from embedstore.duplicates.pictures import read_thumbnails
from embedstore.duplicates.pixels import alike_pairs
from embedstore.duplicates.report import Duplicate, DuplicateCluster, DuplicateReport
from embedstore.errors import StoreError, UsageError
from embedstore.indexing.vectors import directed
from embedstore.retrieval.searcher import Searcher
from embedstore.store import Space, Store
from embedstore.store.items import SIZE

__all__ = ["THRESHOLD", "find_duplicates", "remove_duplicates"]

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

PIXELS_UP_TO = 1_000_000
"""Distinct pictures; a thumbnail takes 768 bytes, and reading so many files takes a core 15 minutes."""
ALL_PAIRS_UP_TO = 200_000
"""Vectors; beyond, the nearest neighbours of each are looked at instead of all pairs, and the report says so."""
NEIGHBOURS = 32
QUERIES = 8192
APPROXIMATE_SLACK = 0.02
"""How far an index that stores rounded vectors may be off; what it finds is scored again by the vectors themselves."""


@bounded()
def find_duplicates(
    store: Store | str | Path,
    *,
    space: str | Sequence[str] | None = DedupOptions.space,
    threshold: float | None = DedupOptions.threshold,
    where: str | None = DedupOptions.where,
    exact_only: bool = DedupOptions.exact_only,
    pixels: bool | None = DedupOptions.pixels,
    on_progress: Callable[[str], None] | None = None,
) -> DuplicateReport:
    """Items that are copies of others: the same payload, nearly the same pixels, or nearly the same vector.

    Exact copies have one content hash; of each payload one item is compared with all others. Near copies of a picture are
    found by its pixels: the files are read again, and two pictures are near where their 16 × 16 thumbnails of the whole
    picture are (`embedstore.duplicates.pixels`). That finds shrunken and recompressed copies, whose vectors may be far apart,
    and tells the members of a series of drawings apart, whose vectors are not. A picture whose file cannot be read any more,
    and anything that is no picture, is compared by vector.

    A cluster is an item to keep and its duplicates: **every duplicate is near to the item that is kept**, and no two items
    that are left are near. Clusters are not chains (single linkage), in which the ends have nothing in common.

    Which item is kept: the one that most others are near to, so that fewest are left; of equals, as in every pair, the
    picture with the most pixels, then the largest file, since copies are made smaller more often than larger; then the one
    that was added first.

    Parameters
    ----------
    space : str or sequence of str, optional
        Where to compare. Default: an image space, else a text space. Of several spaces an item must have a vector in each,
        and be near in each; a copy is exact if it is in each.
    threshold : float, optional
        Cosine from which on two items are near where pixels are not compared, above 0 and at most 1. It depends on the
        encoder; the default is 0.98, chosen for images by EfficientNet-Lite0. By vector pictures that were saved again are
        found, shrunken ones are not at any useful threshold, and what a centre crop cuts off has not been seen
        (benchmarks/RESULTS.md): look before you remove.
    where : str, optional
        SQL over the metadata columns; the matching items alone are compared.
    exact_only : bool
        Look for exact copies alone; no vector and no file is read.
    pixels : bool, optional
        Compare pictures by their pixels. Default: in image spaces, unless a threshold is given.
    on_progress : callable, optional
        Is told what is going on, in a few words.

    Raises
    ------
    UsageError
        An unknown space, a threshold out of range, nothing to compare, or more pairs than could be duplicates.
    """
    options = DedupOptions(space=space, threshold=threshold, pixels=pixels, where=where, exact_only=exact_only)
    opened = store if isinstance(store, Store) else Store.open(store)
    start = time.perf_counter()
    spaces = _spaces(opened, options.spaces)
    pictures = [s for s in spaces if s.spec.modality == "image"]
    if pixels and not pictures:
        raise UsageError(f"Pixels are those of images, but {', '.join(s.name for s in spaces)} has none. Leave out --pixels.")
    rows = _rows(opened, spaces, where)
    first = first_equal(np.hstack([s.hash_of(rows) for s in spaces]))
    zeros = _without_direction(spaces, rows)
    first = np.where(zeros, np.arange(len(rows)), first)
    heads, of_head = np.unique(first, return_inverse=True)
    search = _Search(opened, spaces, rows, heads, of_head, options.cosine, on_progress or (lambda text: None))
    if zeros.any():
        search.notes.append(f"{int(zeros.sum()):,} items have imported vectors of zeros, which are like nothing.")
    if not exact_only:
        if options.by_pixels and pictures:
            search.by_pixels(pictures[0])
        search.by_vector()
    copies = np.bincount(of_head)
    found = cluster(len(heads), joined(search.pairs), weights=copies, preference=search.preference())
    kept = heads[found.representative[of_head]]
    return DuplicateReport(
        store=opened.path,
        generation=opened.generation,
        spaces=[s.name for s in spaces],
        threshold=None if exact_only else options.cosine,
        items=len(rows),
        clusters=_clusters(opened, rows, kept, *search.scored(found), first),
        approximate=search.approximate,
        pixels=search.compared,
        seconds=time.perf_counter() - start,
        notes=search.notes,
    )


def remove_duplicates(store: Store, report: DuplicateReport) -> Store:
    """Remove every duplicate of `report`, keep its representatives, and return the new generation; again, nothing.

    Raises
    ------
    StoreError
        The report is of another store, or the store has changed since: an item may no longer be what it was.
    """
    if not isinstance(report, DuplicateReport):
        raise UsageError(f"report must be what find_duplicates returned. Got {shown(report)} instead.")
    now = store.refresh()
    if report.store.resolve() != now.path.resolve():
        raise StoreError(f"The report is of {report.store}, not of {now.path}. Find the duplicates of this store first.")
    if len(now.absent(report.ids)) == len(set(report.ids)):
        return now  # done already
    if now.generation != report.generation:
        raise StoreError(
            f"{now.path} has changed since its duplicates were found (generation {report.generation}, now {now.generation}). "
            "Find them again."
        )
    return now.remove(report.ids)


def _spaces(store: Store, names: Sequence[str] | None) -> list[Space]:
    if not store.spaces:
        raise UsageError(f"{store.path} has no space yet. Embed something first: embedstore embed DATASET --store …")
    if names is not None:
        if not names:
            raise UsageError(f"space names no space. Spaces: {', '.join(store.spaces)}.")
        return [store.space(name) for name in names]
    order = {"image": 0, "text": 1}
    return [min(store.spaces.values(), key=lambda s: order.get(s.spec.modality, 2))]


def _rows(store: Store, spaces: Sequence[Space], where: str | None) -> Rows:
    """Rows (n,) ascending of the items with a vector in each of `spaces`."""
    rows = store.items.rows if where is None else store.where(where)
    matching = len(rows)
    for space in spaces:
        rows = rows[space.has(rows)]
    if not len(rows):
        names = " and ".join(s.name for s in spaces)
        what = "matches no item" if where is not None and not matching else f"leaves no item with a vector in {names}"
        raise UsageError(
            f"--where {where!r} {what}." if where is not None else f"{store.path}: no item has a vector in {names}."
        )
    return rows


def _without_direction(spaces: Sequence[Space], rows: Rows) -> Mask:
    """Items (n,) with an imported vector of zeros: equal ones are no copies, for nothing is known of the payloads."""
    zeros = np.zeros(len(rows), bool)
    for space in spaces:
        if space.spec.declared:
            zeros |= ~directed(space, rows)
    return zeros


class _Search:
    """Pairs of distinct payloads that are near, as positions in `heads`.

    Parameters
    ----------
    rows : (n,) int64
        Of the items, ascending.
    heads : (h,) int64
        Position in `rows` of the first item of each distinct payload.
    of_head : (n,) int64
        Position in `heads` of each item's payload.
    """

    def __init__(
        self,
        store: Store,
        spaces: Sequence[Space],
        rows: Rows,
        heads: Rows,
        of_head: Rows,
        threshold: float,
        say: Callable[[str], None],
    ) -> None:
        self._store, self._spaces, self._rows, self._of_head = store, spaces, rows, of_head
        self._payloads = rows[heads]
        self._threshold, self._say = threshold, say
        self._areas = np.zeros(len(heads), np.int64)
        self._seen: Mask = self._areas > 0
        self.pairs: list[Pairs] = []
        self.notes: list[str] = []
        self.approximate = False
        self.compared: int | None = None

    def by_pixels(self, space: Space) -> None:
        """Compare the pictures that can be read."""
        if len(self._payloads) > PIXELS_UP_TO:
            self.notes.append(f"compared by vector: pixels are compared of up to {PIXELS_UP_TO:,} distinct pictures.")
            return
        found = read_thumbnails(
            self._store, space, self._payloads, on_progress=lambda share: self._say(f"{share:.0%} of the pictures read")
        )
        self._areas, self._seen, self.compared = found.areas, found.read, int(found.read.sum())
        if found.problem:
            unread = len(self._seen) - self.compared
            self.notes.append(
                f"{unread:,} of {len(self._seen):,} pictures were compared by vector (cosine {self._threshold:g} or more), "
                f"because they cannot be read again; the first, {found.problem}"
            )
        positions = np.flatnonzero(self._seen)
        alike = alike_pairs(
            found.thumbnails.take(self._seen), on_progress=lambda share: self._say(f"{share:.0%} of the pictures compared")
        )
        pairs = Pairs(positions[alike.left], positions[alike.right], 1 - alike.differences)
        others = [s for s in self._spaces if s.spec.modality != "image"]
        if others and len(pairs):
            near = self._cosines(others, pairs.left, pairs.right) >= self._threshold
            pairs = Pairs(pairs.left[near], pairs.right[near], pairs.scores[near])
        self.pairs.append(pairs)

    def by_vector(self) -> None:
        """Compare what has no pixels with everything."""
        if self._seen.all():
            return
        if len(self._payloads) <= ALL_PAIRS_UP_TO:
            self.pairs.append(self._all_pairs())
        else:
            self.approximate = True
            self.pairs.append(self._neighbours())

    def preference(self) -> npt.NDArray[np.int64]:
        """Higher (h,) for pictures with more pixels, of equally many for larger files."""
        sizes = np.column_stack([self._areas, _sizes(self._store, self._spaces[0], self._payloads)])
        return np.unique(sizes, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)

    def scored(self, found: Clusters) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Of each item the cosine and the pixel difference to its representative, NaN where pixels were not compared."""
        every = np.arange(len(found.scores))
        moved = np.flatnonzero((found.representative != every) & self._seen & self._seen[found.representative])
        scores, differences = found.scores.copy(), np.full(len(every), np.nan)
        if len(moved):
            differences[moved] = np.round(1 - found.scores[moved], DECIMALS)
            scores[moved] = self._cosines(self._spaces, moved, found.representative[moved])
        return scores[self._of_head], differences[self._of_head]

    def _cosines(self, spaces: Sequence[Space], left: Rows, right: Rows) -> npt.NDArray[np.float64]:
        """The lowest cosine (p,) of each pair; only the vectors of these are read."""
        named, at = np.unique(np.concatenate([left, right]), return_inverse=True)
        vectors = [s.take(self._payloads[named]) for s in spaces]
        return lowest_cosines(vectors, at[: len(left)], at[len(left) :])

    def _all_pairs(self) -> Pairs:
        order = np.argsort(self._seen, kind="stable")  # those without pixels first
        vectors = [s.take(self._payloads[order]) for s in self._spaces]
        pairs = pairs_above(
            vectors,
            self._threshold,
            first=int((~self._seen).sum()),
            on_progress=lambda share: self._say(f"{share:.0%} of all pairs"),
        )
        left, right = order[pairs.left], order[pairs.right]
        return Pairs(np.minimum(left, right), np.maximum(left, right), pairs.scores)

    def _neighbours(self) -> Pairs:
        """Pairs among the nearest neighbours, in the first space, of each payload without pixels."""
        searcher, asked = Searcher(self._store), np.flatnonzero(~self._seen)
        left, right, full = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
        for lo in range(0, len(asked), QUERIES):
            block = self._payloads[asked[lo : lo + QUERIES]]
            scores, found = searcher.nearest(self._spaces[0], self._spaces[0].take(block), NEIGHBOURS, exclude=block)
            full += int((scores[:, -1] >= self._threshold).sum())
            i, j = np.nonzero(scores >= self._threshold - APPROXIMATE_SLACK)
            at = np.minimum(np.searchsorted(self._rows, found[i, j]), len(self._rows) - 1)
            compared = self._rows[at] == found[i, j]  # a filter may have left the neighbour out
            left.append(asked[i[compared] + lo])
            right.append(self._of_head[at[compared]])
            self._say(f"{min(1, (lo + QUERIES) / len(asked)):.0%} of the items")
        self.notes.append(
            f"approximate: with {len(self._payloads):,} distinct payloads the {NEIGHBOURS} nearest neighbours of each were "
            f"looked at, not all pairs (which is done up to {ALL_PAIRS_UP_TO:,}); a near copy may have been overlooked."
        )
        if full:
            self.notes.append(
                f"{full:,} items have {NEIGHBOURS} neighbours or more above the threshold; run it again after removing these."
            )
        vectors = [s.take(self._payloads) for s in self._spaces]
        return score_pairs(vectors, np.concatenate(left), np.concatenate(right)).at_least(self._threshold)


def _sizes(store: Store, space: Space, rows: Rows) -> npt.NDArray[np.int64]:
    """Bytes (n,) of each item's file; 0 where its payload is no file."""
    column = f"{space.spec.modality}{SIZE}"
    if column not in store.items.column_types():
        return np.zeros(len(rows), np.int64)
    sizes = store.items.take(rows, [column]).column(column).to_pylist()
    return np.array([size or 0 for size in sizes], np.int64)


def _clusters(
    store: Store,
    rows: Rows,
    kept: npt.NDArray[np.intp],
    scores: npt.NDArray[np.float64],
    differences: npt.NDArray[np.float64],
    first: Rows,
) -> list[DuplicateCluster]:
    """Clusters of the positions whose representative `kept` (n,) is another; `first` (n,) tells payloads apart."""
    members = np.flatnonzero(kept != np.arange(len(rows)))
    same = first[members] == first[kept[members]]
    score = np.where(same, 1.0, scores[members])
    difference = np.where(same, np.nan, differences[members])
    order = np.lexsort((members, -score, difference, ~same))
    named = distinct(np.concatenate([members, kept[members]]))
    ids = dict(zip(named.tolist(), store.items.take(rows[named], ["id"]).column("id").to_pylist(), strict=True))
    found: dict[int, list[Duplicate]] = {}
    columns = (kept[members], members, score, same, difference)
    for head, m, s, e, d in zip(*(a[order].tolist() for a in columns), strict=True):
        found.setdefault(head, []).append(Duplicate(ids[m], s, "exact" if e else "near", None if np.isnan(d) else d))
    largest = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    return [DuplicateCluster(ids[head], duplicates) for head, duplicates in largest]

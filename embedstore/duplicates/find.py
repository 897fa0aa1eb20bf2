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
from embedstore.duplicates.near import CONTENTS, Search
from embedstore.duplicates.pairs import cluster, first_equal, joined
from embedstore.duplicates.report import Duplicate, DuplicateCluster, DuplicateReport
from embedstore.errors import StoreError, UsageError
from embedstore.indexing.vectors import directed
from embedstore.store import Space, Store

__all__ = ["THRESHOLD", "find_duplicates", "remove_duplicates"]

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


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
    and tells the members of a series of drawings apart, whose vectors are not. Films are compared likewise by nine frames,
    sounds by fingerprints of their spectra (`embedstore.duplicates.spectra`), which finds copies in another format, at another
    rate or loudness, or with silence before them. Texts, and files that cannot be read any more, are compared by vector.

    A cluster is an item to keep and its duplicates: **every duplicate is near to the item that is kept**, and no two items
    that are left are near. Clusters are not chains (single linkage), in which the ends have nothing in common.

    Which item is kept: the one that most others are near to, so that fewest are left; of equals, as in every pair, the
    picture or film with the most pixels, then the largest file, since copies are made smaller more often than larger; then
    the one that was added first.

    Parameters
    ----------
    space : str or sequence of str, optional
        Where to compare. Default: an image space, else a text space, else the first. Of several spaces an item must have a
        vector in each, and be near in each; a copy is exact if it is in each.
    threshold : float, optional
        Cosine from which on two items are near where vectors are compared, above 0 and at most 1. It depends on the
        encoder; the default is 0.98, chosen for images by EfficientNet-Lite0. By vector pictures that were saved again are
        found, shrunken ones are not at any useful threshold, and what a centre crop cuts off has not been seen
        (benchmarks/RESULTS.md): look before you remove.
    where : str, optional
        SQL over the metadata columns; the matching items alone are compared.
    exact_only : bool
        Look for exact copies alone; no vector and no file is read.
    pixels : bool, optional
        Compare pictures, films and sounds by themselves instead of by vector. Default: unless a threshold is given.
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
    if pixels and not any(s.spec.modality in CONTENTS for s in spaces):
        raise UsageError(
            f"Pixels are those of images and videos, spectra those of sounds; {', '.join(s.name for s in spaces)} has neither. "
            "Leave out --pixels."
        )
    rows = _rows(opened, spaces, where)
    first = first_equal(np.hstack([s.hash_of(rows) for s in spaces]))
    zeros = _without_direction(spaces, rows)
    first = np.where(zeros, np.arange(len(rows)), first)
    heads, of_head = np.unique(first, return_inverse=True)
    search = Search(opened, spaces, rows, heads, of_head, options.cosine, on_progress or (lambda text: None))
    if zeros.any():
        search.notes.append(f"{int(zeros.sum()):,} items have imported vectors of zeros, which are like nothing.")
    if not exact_only:
        if options.by_pixels:
            search.by_content()
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
        by=search.by,
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

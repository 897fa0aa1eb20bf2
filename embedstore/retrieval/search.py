"""`search`: the nearest items to texts, images, items or vectors."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Unpack

from embedstore.retrieval.search_options import Question, SearchOptions
from embedstore.retrieval.search_result import SearchResult
from embedstore.retrieval.searcher import Searcher
from embedstore.store import Store

__all__ = ["search"]

KEPT_BYTES = 256 << 20
"""Of vectors that `search` may keep with a store in the form that exact search takes; who makes a `Searcher` wants more."""


def search(store: Store | str | Path, **query: Unpack[Question]) -> SearchResult:
    """The `k` items nearest to a query, by cosine.

    The space's index answers where there is one (``embedstore index``), with the recall that was measured; otherwise search is
    exact. Items added since the index was built are searched exactly beside it.

    Parameters
    ----------
    text, image, audio, video : str or path, or several
        Words, and files by their paths, or as `Contents` where they are in memory. Encoded by the encoder of the space that
        is searched.
    id : str, or several
        An item's own vector; the item is left out of the results.
    vector : QueryVector or (dim,) array
    like, unlike : sequence of str
        Ids of examples: towards the first, away from the second.
    weights : sequence of float, optional
        One for each query where there are several, in the order above.
    fusion : str
        How queries in different spaces are joined: ``"score"``, a weighted mean of standard scores, or ``"rrf"``,
        reciprocal ranks. Queries in one space are added as vectors.
    space : str, optional
        Which space to search. Without it: for a text or an image one that the query can be compared with, preferring
        one of another modality by the same model (a CLIP text finds images); for an id the first that has the item. A space
        that `align` made is searched only where it is named.
    spaces : mapping of str to float, optional
        Instead of one space several, each with its weight: the query is asked in each of them, and the answers are joined.
    k, offset : int
        How many results, and how many to skip before them.
    where : str, optional
        SQL over the metadata columns; the `k` nearest among the matching items are returned.
    columns : sequence of str, optional
        Columns to return with each hit; default: all metadata.
    min_score : float, optional
        Leave out results below.
    diversity : float
        From 0 (nearest) to 1: how much a result should differ from those before it (maximal marginal relevance).
    group_by : str, optional
        Column of which each value is returned at most `per_group` times.
    fold : float, optional
        Of results that are nearer to one another than this cosine, in the space of the first query, one is shown: the best
        one. Its `folded` has the ids of the others that were looked at.
    recall : float, optional
        An operating point of the index other than the one it was built for; 1 for exact search.
    device : str
        For encoding queries.

    Returns
    -------
    SearchResult

    Raises
    ------
    UsageError
        The query cannot be compared with the space; says what can be done instead.
    FingerprintError
        The query comes from another encoder; shows both fingerprints.
    """
    wanted = SearchOptions.of(query)
    if not isinstance(store, Store):
        return Searcher(Store.open(store), device=wanted.device).answer(wanted)
    searcher = store.kept.get((Searcher, wanted.device))
    if searcher is None or not searcher.current():
        its_own = weakref.proxy(store)  # or both would live until Python looks for cycles, with their files and memory
        searcher = Searcher(its_own, device=wanted.device, exact_bytes=KEPT_BYTES, before=searcher)
        store.kept[Searcher, wanted.device] = searcher
    return searcher.answer(wanted)

"""`eval_search`: how often the nearest items are the right ones. Wiring of stores, search and evaluation."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.threads import bounded
from embedstore.evaluation.bootstrap import Bootstrap, Score
from embedstore.evaluation.metrics import scores_to_dict
from embedstore.evaluation.ranking import expected_at_random, ranking_metrics, shuffle_ties
from embedstore.indexing.exact import ExactIndex
from embedstore.retrieval.aligned_spaces import ProjectedSpace, SearchableSpace
from embedstore.retrieval.eval_queries import (
    ITEMS,
    Rows,
    Sample,
    Task,
    by_column,
    by_item,
    by_pairs,
    comparable_spaces,
    two_spaces,
)
from embedstore.retrieval.eval_search_options import EvalSearchOptions
from embedstore.retrieval.judged_pairs import read_pairs
from embedstore.retrieval.searcher import Searcher
from embedstore.store import Store

__all__ = ["RetrievalFigures", "SearchEvaluation", "eval_search"]

DEPTH = 1000
"""Results that mAP and MRR look at."""
WHOLE = ("map", "mrr")
QUERY_BLOCK = 1024

Search = Callable[[npt.NDArray[Any], int, Rows], tuple[npt.NDArray[np.float32], Rows]]
"""Queries (b, dim), depth and the rows to exclude (b,) to scores and rows (b, depth); NaN and -1 beyond the last result."""


@dataclass(frozen=True)
class RetrievalFigures:
    """Scores over one gallery.

    Parameters
    ----------
    queries : int
        That the scores are means over.
    without_relevant : int
        Queries left out because nothing in the gallery is relevant to them.
    gallery : int
        Items that are ranked; a query that is one of them is left out of its own ranking.
    relevant : float
        Relevant items of a query, in the mean.
    metrics : mapping of metric to Score
        ``hit@k``, ``precision@k``, ``recall@k``, ``ndcg@k``, ``map`` and ``mrr``. In mode ``"items"`` ``recall@k`` is the
        share of queries that find their item, and there is neither hit nor precision.
    chance : mapping of metric to float
        What a random ranking gets in expectation.
    """

    queries: int
    without_relevant: int
    gallery: int
    relevant: float
    metrics: dict[str, Score]
    chance: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "metrics": scores_to_dict(self.metrics)}


@dataclass(frozen=True)
class SearchEvaluation:
    """What `eval_search` returns.

    Parameters
    ----------
    mode : str
        ``"relevance"``, ``"pairs"`` or ``"items"``.
    relevance : str
        What counts as relevant, in words.
    source : str
        The space of the query vectors, or ``"text"`` where texts were encoded.
    target : str
        The space that was searched.
    depth : int
        Results that ``map`` and ``mrr`` look at.
    figures : RetrievalFigures
    copies : int
        Items with the payload of an earlier one.
    deduplicated : RetrievalFigures, optional
        The same without copies, among queries and gallery; None where there are none, and for pairs.
    """

    mode: str
    relevance: str
    source: str
    target: str
    depth: int
    figures: RetrievalFigures
    copies: int
    deduplicated: RetrievalFigures | None
    seconds: float
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The document of ``embedstore eval-search --json``."""
        return {
            "mode": self.mode,
            "relevance": self.relevance,
            "from": self.source,
            "to": self.target,
            **self.figures.to_dict(),
            "depth": self.depth,
            "copies": self.copies,
            "deduplicated": self.deduplicated.to_dict() if self.deduplicated else None,
            "seconds": self.seconds,
            "notes": self.notes,
        }


@bounded()
def eval_search(
    store: Store | str | Path,
    *,
    relevance: str | None = EvalSearchOptions.relevance,
    pairs: str | os.PathLike[str] | None = EvalSearchOptions.pairs,
    source: str | None = EvalSearchOptions.source,
    target: str | None = EvalSearchOptions.target,
    k: int | Sequence[int] = EvalSearchOptions.k,
    queries: int = EvalSearchOptions.queries,
    where: str | None = EvalSearchOptions.where,
    seed: int = EvalSearchOptions.seed,
    device: str = EvalSearchOptions.device,
    searcher: Searcher | None = None,
) -> SearchEvaluation:
    """Score retrieval, with bootstrap intervals, beside what a random ranking would get.

    What is relevant is said in one of three ways. With `relevance`, every item is a query by its own vector, and items with
    the same value in that column are relevant; itself it is left out. With `pairs`, a file says which items answer which
    queries. With neither, the query is an item's vector in `source`, and the answer the same item in `target`; there, an item
    with the same payload on either side is as right as the item itself.

    Results of equal score, such as copies, are put in random order. The intervals draw queries (those of one payload together)
    and leave the gallery as it is.

    Parameters
    ----------
    store : Store or path
    relevance : str, optional
        Metadata column; items without a value take no part.
    pairs : path, optional
        A table with a column ``query`` (a text) or ``query_id`` (an item), ``id`` (an item that is relevant to it) and
        optionally ``grade`` (a number above 0, for nDCG). Several rows a query.
    source, target : str, optional
        Spaces of the query vectors and of the items that are searched; the same if only one is named.
    k : int or sequence of int
        Cut-offs.
    queries : int
        At most so many, drawn at random.
    where : str, optional
        SQL over the metadata columns: only these items take part, as queries and in the gallery.
    seed : int
        Of the sample, the order of ties and the bootstrap.
    device : str
        For encoding texts.
    searcher : Searcher, optional
        One of this store, that has loaded its vectors already.

    Raises
    ------
    UsageError
        Two spaces that cannot be compared, an unknown column, or no query that has a relevant item.
    SourceError
        A file of pairs that cannot be right; names the row.
    """
    started = time.perf_counter()
    options = EvalSearchOptions(
        relevance=relevance,
        pairs=pairs,
        source=source,
        target=target,
        k=k,
        queries=queries,
        where=where,
        seed=seed,
        device=device,
    )
    ks = options.cut_offs
    opened = store if isinstance(store, Store) else Store.open(store)
    searcher = searcher or Searcher(opened, device=device)
    allowed = opened.items.rows if where is None else opened.where(where)
    sample = Sample(queries, seed)
    if pairs is not None:
        plan = by_pairs(read_pairs(pairs), searcher, source, target, allowed, sample)
    elif relevance is not None:
        plan = by_column(opened, relevance, *comparable_spaces(searcher, source, target), allowed, sample)
    else:
        asked, searched = two_spaces(searcher, source, target)
        unseen = _unseen(allowed, asked, searched)
        plan = by_item(asked, searched, unseen, sample)
        if len(unseen) < len(allowed):
            plan.notes.append(f"{len(allowed) - len(unseen):,} items that the alignment was fitted on take no part")
    depth = max(DEPTH, *ks)
    names = _metric_names(plan.mode, ks)
    figures = [_measure(task, names, searcher, ks, depth=depth, seed=seed) for task in plan.tasks]
    answered = searcher.answered()
    if not answered.get("exact", True):
        plan.notes.append(
            f"searched by the index {answered['type']}, whose recall@{answered['at']} is {answered['recall']:.3f}; "
            f"what it missed counts as not found. It tries harder for more results: {', '.join(WHOLE)} look at {depth:,}, "
            f"figures @k at the first {max(ks)}, as a search for so many finds them"
        )
    return SearchEvaluation(
        mode=plan.mode,
        relevance=plan.relevance,
        source=plan.source,
        target=plan.tasks[0].target.name,
        depth=depth,
        figures=figures[0],
        copies=plan.copies,
        deduplicated=figures[1] if len(figures) > 1 else None,
        seconds=round(time.perf_counter() - started, 3),
        notes=plan.notes,
    )


def _unseen(allowed: npt.NDArray[np.int64], *spaces: SearchableSpace) -> npt.NDArray[np.int64]:
    """Rows that no aligner behind `spaces` was fitted on."""
    for space in spaces:
        if isinstance(space, ProjectedSpace):
            allowed = np.setdiff1d(allowed, space.fitted_on)
    return allowed


def _metric_names(mode: str, ks: Sequence[int]) -> dict[str, str]:
    """What each reported metric is called in `ranking_metrics`."""
    if mode == ITEMS:  # one answer a query: found or not is its recall
        named = [(f"recall@{k}", f"hit@{k}") for k in ks] + [(f"ndcg@{k}", f"ndcg@{k}") for k in ks]
    else:
        named = [(f"{name}@{k}", f"{name}@{k}") for name in ("hit", "precision", "recall", "ndcg") for k in ks]
    return dict([*named, *((name, name) for name in WHOLE)])


def _measure(
    task: Task, names: dict[str, str], searcher: Searcher, ks: Sequence[int], *, depth: int, seed: int
) -> RetrievalFigures:
    m = len(task.exclude)
    relevant, ideal = task.judgements.relevant, task.judgements.ideal(max(ks))
    search = _search_in(task.gallery, task.target, searcher)
    indexed = len(task.gallery) == len(task.target) and not searcher.index(task.target).index.report_.exact
    depths = (max(ks), depth) if indexed else (depth,)  # an index that is asked for more tries harder
    blocks, rng = [], np.random.default_rng(seed)
    for lo in range(0, m, QUERY_BLOCK):
        at = slice(lo, min(lo + QUERY_BLOCK, m))
        block: dict[str, npt.NDArray[np.float64]] = {}
        for deep in depths:
            scores, rows = search(task.vectors(at), deep, task.exclude[at])
            rows = shuffle_ties(scores, rows, rng)
            relevance = task.judgements.grades(at, rows)
            found = ranking_metrics(relevance, relevant[at], ideal[at], ks, depth=depth)
            block = {**found, **{name: values for name, values in block.items() if name not in WHOLE}}
        blocks.append(block)
    candidates = len(task.gallery) - np.isin(task.exclude, task.gallery)
    chance = expected_at_random(relevant, candidates, ideal, task.judgements.total, ks, depth=depth)
    bootstrap = Bootstrap.of(m, groups=task.groups, seed=seed)
    return RetrievalFigures(
        queries=m,
        without_relevant=task.without_relevant,
        gallery=len(task.gallery),
        relevant=float(relevant.mean()),
        metrics={name: bootstrap.mean(np.concatenate([b[inner] for b in blocks])) for name, inner in names.items()},
        chance={name: float(chance[inner].mean()) for name, inner in names.items()},
    )


def _search_in(gallery: Rows, space: SearchableSpace, searcher: Searcher) -> Search:
    """The whole space is searched as users search it, a part of it exactly."""
    if len(gallery) == len(space):
        return lambda queries, depth, exclude: searcher.nearest(space, queries, depth, exclude=exclude)
    if space.unit is not None:
        return lambda queries, depth, exclude: searcher.nearest(
            space, queries, depth, exclude=exclude, among=gallery, recall=1.0
        )
    index = ExactIndex(space.take(gallery))

    def search(queries: npt.NDArray[Any], depth: int, exclude: Rows) -> tuple[npt.NDArray[np.float32], Rows]:
        scores, positions = index.search(queries, depth + 1)
        rows = gallery[positions]
        own = rows == exclude[:, None]
        last = np.argsort(own, axis=1, kind="stable")[:, :depth]
        kept = np.where(own, np.float32(np.nan), scores)
        return np.take_along_axis(kept, last, axis=1), np.take_along_axis(np.where(own, -1, rows), last, axis=1)

    return search

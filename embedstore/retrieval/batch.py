"""`search_batch`: the neighbours of many vectors at once, to a file; over a whole space that is its k-NN graph."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedstore._core.arguments import as_type, shown
from embedstore._core.result_files import FORMATS, write_tables
from embedstore._core.threads import bounded
from embedstore._core.words import counted
from embedstore.errors import UsageError
from embedstore.retrieval.aligned_spaces import SearchableSpace
from embedstore.retrieval.query_files import read_queries
from embedstore.retrieval.search_options import SearchOptions
from embedstore.retrieval.searcher import Searcher
from embedstore.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["BatchReport", "search_batch"]

BLOCK = 1024
ANSWERS = 1 << 22  # of a block, where many are asked for

Block = tuple[list[Any], npt.NDArray[Any], npt.NDArray[np.int64] | None]


@dataclass(frozen=True)
class BatchReport:
    """What was searched and written.

    Parameters
    ----------
    queries, neighbours : int
    space, out : str
    seconds, queries_per_s : float
    index : mapping
        As of `SearchResult`.
    zeros : int
        Items of the space that were not asked: their vectors are all zeros and have no direction.
    """

    queries: int
    neighbours: int
    space: str
    out: str
    seconds: float
    queries_per_s: float
    index: dict[str, Any] = field(default_factory=dict)
    zeros: int = 0

    def __str__(self) -> str:
        how = "exact" if self.index.get("exact", True) else f"recall@{self.index['at']} {self.index['recall']:.3f}"
        return (
            f"{counted(self.queries, 'query', 'queries')} in space {self.space!r} ({how}): "
            f"{self.queries_per_s:,.0f} queries/s; {counted(self.neighbours, 'neighbour')} written to {self.out}"
            + (f"; {counted(self.zeros, 'item')} with a vector of zeros not asked" if self.zeros else "")
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@bounded()
def search_batch(
    store: Store | str | Path,
    queries: str | Path | npt.NDArray[Any],
    out: str | Path | None,
    *,
    space: str | None = SearchOptions.space,
    k: int = SearchOptions.k,
    where: str | None = SearchOptions.where,
    recall: float | None = SearchOptions.recall,
    device: str = SearchOptions.device,
    on_progress: Callable[[str], None] = lambda text: None,
) -> BatchReport:
    """The `k` nearest items of every query, written as rows ``query, rank, id, score``.

    Parameters
    ----------
    queries : str, Path or (m, dim) array
        A ``.npy`` file, or a space of the store: then every item is a query (called by its id), left out of its own answer.
    out : str or Path
        ``.parquet``, ``.csv`` or ``.jsonl``; appears when it is complete.
    space : str, optional
        The space to search; default the one that `queries` names, or the one that fits.
    device : str
        ``"cuda"`` searches on a GPU where search is exact.

    Raises
    ------
    UsageError
        Queries that fit no space, or have no direction; another suffix or no such folder; `k` or `recall` that make no sense.
    OutputError
        `out` cannot be written.
    """
    import pyarrow as pa

    wanted = SearchOptions(space=space, k=k, where=where, recall=recall, device=device)
    opened = store if isinstance(store, Store) else Store.open(store)
    out = as_type(out, str | os.PathLike[str] | None, "out")
    if out is None or Path(out).suffix.lower() not in FORMATS:
        raise UsageError(f"Say where to write the neighbours: --out FILE with one of {', '.join(FORMATS)}. Got {out} instead.")
    searcher = Searcher(opened, device=wanted.device, resident=True)
    target, asked, blocks = _blocks(searcher, queries, space, wanted.k)
    among = None if where is None else opened.where(where)
    start = time.perf_counter()
    path = Path(out)
    counts = [0, 0, 0]

    def tables() -> Iterator[pa.Table]:
        for names, vectors, own in blocks:
            if own is not None and len(at := np.flatnonzero(vectors.any(axis=1))) < len(names):  # a space's own vectors
                counts[2] += len(names) - len(at)
                names, vectors, own = [names[i] for i in at], vectors[at], own[at]
                if not names:
                    continue
            if own is not None and asked is not None and asked.unit is not None and target.unit is not None:
                scores, rows = searcher.nearest_to_pieces(
                    target, asked.pieces_of(own), wanted.k, exclude=own, among=among, recall=wanted.recall
                )
            else:
                scores, rows = searcher.nearest(target, vectors, wanted.k, exclude=own, among=among, recall=wanted.recall)
            table = _table(opened, names, scores, rows)
            counts[0] += len(names)
            counts[1] += table.num_rows
            on_progress(f"{counted(counts[0], 'query', 'queries')}")
            yield table

    schema = pa.schema({"query": pa.string(), "rank": pa.int32(), "id": pa.string(), "score": pa.float32()})
    write_tables(path, schema, tables())
    seconds = time.perf_counter() - start
    return BatchReport(
        counts[0],
        counts[1],
        target.name,
        str(path),
        round(seconds, 3),
        round(counts[0] / seconds, 1),
        searcher.answered(),
        counts[2],
    )


def _blocks(
    searcher: Searcher, queries: str | Path | npt.NDArray[Any], space: str | None, k: int
) -> tuple[SearchableSpace, SearchableSpace | None, Iterator[Block]]:
    """The space to search, the one whose items are asked if it is one, and the queries."""
    if not isinstance(queries, np.ndarray | str | os.PathLike):
        raise UsageError(f"queries must be a .npy file, a space, or an array (m, dim). Got {shown(queries)} instead.")
    if isinstance(queries, (str, Path)) and str(queries) in searcher.queries.spaces:
        asked = searcher.queries.space(str(queries))
        target = searcher.queries.space(space) if space else asked
        if asked.fingerprint != target.fingerprint and (
            asked.spec.alignment is None or asked.spec.alignment != target.spec.alignment
        ):
            raise UsageError(f"Vectors of space {asked.name!r} cannot be compared with those of {target.name!r}.")
        return target, asked, _of_space(searcher.store, asked, _block(target, k))
    if isinstance(queries, str) and not queries.strip():
        raise UsageError("--batch is empty; give a .npy of shape (m, dim), or a space of the store.")
    vectors = (
        queries if isinstance(queries, np.ndarray) else read_queries(Path(queries), spaces=searcher.queries.spaces, mapped=True)
    )
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        raise UsageError(f"Queries should be numbers of shape (m, dim). Got {vectors.dtype}{vectors.shape} instead.")
    fits = [
        s for s in ([searcher.queries.space(space)] if space else searcher.store.spaces.values()) if s.dim == vectors.shape[1]
    ]
    if len(fits) != 1:
        known = ", ".join(f"{s.name} ({s.dim})" for s in searcher.queries.spaces.values())
        raise UsageError(
            f"Queries of {vectors.shape[1]} numbers fit {len(fits)} spaces; say which: --space NAME. Spaces: {known}."
        )
    return fits[0], None, _of_array(vectors, _block(fits[0], k))


def _block(target: SearchableSpace, k: int) -> int:
    """How many queries to answer at once."""
    return max(1, min(BLOCK, ANSWERS // max(1, min(k, len(target)))))


def _of_space(store: Store, space: SearchableSpace, size: int) -> Iterator[Block]:
    for lo in range(0, len(space), size):
        rows = space.rows[lo : lo + size]
        yield store.items.take(rows, ["id"]).column("id").to_pylist(), space.take(rows), rows


def _of_array(vectors: npt.NDArray[Any], size: int) -> Iterator[Block]:
    for lo in range(0, len(vectors), size):
        with np.errstate(over="ignore"):
            block = np.asarray(vectors[lo : lo + size]).astype(np.float32)
        if len(bad := np.flatnonzero(~np.isfinite(block).all(axis=1))):
            raise UsageError(f"Query {lo + int(bad[0])} holds NaN, infinity, or numbers that float32 cannot hold.")
        if len(bad := np.flatnonzero(~block.any(axis=1))):
            raise UsageError(f"Query {lo + int(bad[0])} is all zeros; it has no direction to search in.")
        yield [str(lo + i) for i in range(len(block))], block, None


def _table(store: Store, names: list[Any], scores: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> pa.Table:
    import pyarrow as pa

    kept = rows >= 0
    query, rank = np.nonzero(kept)
    found, at = np.unique(rows[kept], return_inverse=True)
    ids = store.items.take(found, ["id"]).column("id").combine_chunks() if len(found) else pa.array([], pa.string())
    return pa.table(
        {
            "query": pa.array(names, pa.string()).take(pa.array(query)),
            "rank": pa.array(rank + 1, pa.int32()),
            "id": ids.take(pa.array(at)),
            "score": pa.array(scores[kept].astype(np.float32)),
        }
    )

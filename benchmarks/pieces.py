"""Several vectors an item: what an index over the pieces finds of the exact MaxSim, and what it costs.

    python -m benchmarks.pieces [--tiny] [--items 20000] [--pieces 8] [--dim 64]

Items of clustered pieces, as frames of films are: each item draws from three of the clusters. Queries are items of the store,
by all of their pieces (MaxSim) and by one vector of a cluster. Exact answers come from comparing everything in float32 with
NumPy; an HNSW index is tuned for a recall of .95 of pieces. Beside it a space of one vector an item with as many vectors, to
see what keeping pieces costs to read.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import embedstore as es
from embedstore._core.pieces import Pieces
from embedstore._core.unit import unit_rows
from embedstore.encoders.hash import HashEncoder
from embedstore.retrieval.searcher import Searcher
from embedstore.sources import MemorySource
from embedstore.spec import EncoderSpec

Array = np.ndarray[Any, Any]
K = 10


class Drawn(HashEncoder):
    """Texts are numbers of items; their pieces were drawn before."""

    pieces = "piece"

    def __init__(self, drawn: Array, *, several: bool) -> None:
        super().__init__(drawn.shape[2], "text")
        self.spec = EncoderSpec(f"drawn-{several}", "drawn", "drawn", "none", "text", drawn.shape[2])
        self._drawn = drawn
        if not several:
            self.pieces = None  # type: ignore[assignment]

    def encode(self, batch: Any) -> Any:
        return self.encode_pieces(batch)[0]

    def encode_pieces(self, batch: Any) -> Any:
        found = self._drawn[[int(payload) for payload in batch]]
        counts = np.full(len(found), found.shape[1])
        return unit_rows(found.mean(axis=1)), Pieces.nowhere(found.reshape(-1, found.shape[2]), counts)


def drawn_pieces(items: int, pieces: int, dim: int) -> Array:
    """Unit vectors (items, pieces, dim): those of an item lie around three of items / 20 centres."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(max(8, items // 20), dim)).astype(np.float32)
    own = rng.integers(0, len(centres), (items, 3))
    chosen = np.take_along_axis(own, rng.integers(0, 3, (items, pieces)), axis=1)
    noise = rng.normal(0, 0.5, (items, pieces, dim)).astype(np.float32)
    return unit_rows((centres[chosen] + noise).reshape(-1, dim)).reshape(items, pieces, dim)


def exact(drawn: Array, item: int) -> list[str]:
    """The ids of the items of the largest MaxSim to one, without itself."""
    stored = unit_rows(drawn.reshape(-1, drawn.shape[2]).astype(np.float16)).reshape(drawn.shape)
    cosines = stored[item] @ stored.reshape(-1, drawn.shape[2]).T
    scores = cosines.reshape(drawn.shape[1], len(drawn), -1).max(axis=2).mean(axis=0)
    scores[item] = -np.inf
    return [f"i{i}" for i in np.argsort(-scores, kind="stable")[:K].tolist()]


def asked(searcher: Searcher, items: list[int], **options: Any) -> tuple[list[list[str]], float]:
    """Ids found for each item by its pieces, and milliseconds a query (median)."""
    found, seconds = [], []
    for item in items:
        start = time.perf_counter()
        found.append([hit.id for hit in searcher.search(id=f"i{item}", k=K, **options).results])
        seconds.append(time.perf_counter() - start)
    return found, 1000 * float(np.median(seconds))


def read_seconds(space: Any) -> float:
    start = time.perf_counter()
    for _ in space.blocks():
        pass
    space.take(space.rows[:: max(1, len(space) // 1000)])
    return time.perf_counter() - start


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="300 items, to see that it runs")
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--pieces", type=int, default=8)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--queries", type=int, default=200)
    given = parser.parse_args(arguments)
    items, queries = (300, 10) if given.tiny else (given.items, given.queries)
    drawn = drawn_pieces(items, given.pieces, given.dim)
    source = MemorySource({"id": [f"i{i}" for i in range(items)], "text": [str(i) for i in range(items)]})
    with tempfile.TemporaryDirectory() as folder:
        for several in (True, False):
            es.embed(source, Path(folder) / str(several), text=Drawn(drawn, several=several))
        store, plain = (es.Store.open(Path(folder) / str(several)) for several in (True, False))
        chosen = np.random.default_rng(1).choice(items, queries, replace=False).tolist()
        truth = [exact(drawn, item) for item in chosen]
        every, every_ms = asked(Searcher(store, resident=True), chosen)
        report = es.index(store, factory="HNSW32", recall=0.95)
        found, found_ms = asked(Searcher(es.Store.open(store.path), resident=True), chosen)
        recall = [float(np.mean([len(set(a) & set(b)) / K for a, b in zip(truth, one, strict=True)])) for one in (every, found)]
        turns = [(read_seconds(plain.spaces["text"]), read_seconds(store.spaces["text"])) for _ in range(5)]
        result = {
            "items": items,
            "pieces": len(store.spaces["text"].raw),
            "exact": {"recall@10": recall[0], "ms": round(every_ms, 2)},
            "index": {
                "recall@10": recall[1],
                "ms": round(found_ms, 2),
                "of pieces": min(score.value for score in report.level().recall.values()),
            },
            "reading one vector an item, seconds": [round(min(one), 5) for one in zip(*turns, strict=True)],
        }
    for name, value in result.items():
        print(f"{name}: {value}")
    return result


if __name__ == "__main__":
    main()

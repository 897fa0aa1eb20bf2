"""Which of a store's payloads are near: by what their files hold, or by their vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from embedstore.duplicates.content import Content, read_again
from embedstore.duplicates.pairs import DECIMALS, Clusters, Pairs, in_all, lowest_cosines, pairs_above, score_pairs
from embedstore.duplicates.pictures import Pictures
from embedstore.duplicates.recordings import Recordings
from embedstore.duplicates.sheets import Films
from embedstore.retrieval.searcher import Searcher
from embedstore.store import Space, Store
from embedstore.store.items import SIZE

__all__ = ["CONTENTS", "Search"]

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

CONTENTS: dict[str, type[Content]] = {"image": Pictures, "video": Films, "audio": Recordings}
"""Modality → how its payloads are compared by themselves."""
ALL_PAIRS_UP_TO = 200_000
"""Vectors; beyond, the nearest neighbours of each are looked at instead of all pairs, and the report says so."""
NEIGHBOURS = 32
QUERIES = 8192
APPROXIMATE_SLACK = 0.02
"""How far an index that stores rounded vectors may be off; what it finds is scored again by the vectors themselves."""


class Search:
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
        self._store, self._spaces, self._of_head = store, spaces, of_head
        self._payloads = rows[heads]
        self._threshold, self._say = threshold, say
        self._contents: list[Content] = []
        self._seen: Mask = np.zeros(len(heads), bool)
        self.pairs: list[Pairs] = []
        self.notes: list[str] = []
        self.approximate = False
        self.compared: int | None = None

    def by_content(self) -> None:
        """Compare what can be read by itself: pictures by pixels, films by frames, sounds by spectra."""
        first = {space.spec.modality: space for space in reversed(self._spaces)}
        kinds = {first[modality]: kind for modality, kind in CONTENTS.items() if modality in first}
        for kind in kinds.values():
            if len(self._payloads) > kind.up_to:
                self.notes.append(f"compared by vector: {kind.by} are compared of up to {kind.up_to:,} distinct {kind.noun}.")
                return
        if not kinds:
            return
        self._contents = [self._read(space, kind) for space, kind in kinds.items()]
        self._seen = np.all([content.sizes > 0 for content in self._contents], axis=0)
        self.compared = int(self._seen.sum())
        positions = np.flatnonzero(self._seen)
        pairs = in_all([self._alike(content, positions) for content in self._contents])
        others = [s for s in self._spaces if s.spec.modality not in CONTENTS]
        if others and len(pairs):
            near = self._cosines(others, pairs.left, pairs.right) >= self._threshold
            pairs = Pairs(pairs.left[near], pairs.right[near], pairs.scores[near])
        self.pairs.append(pairs)

    @property
    def by(self) -> str | None:
        """What was compared; None where vectors alone were."""
        return " and ".join(content.by for content in self._contents) or None

    def _read(self, space: Space, kind: type[Content]) -> Content:
        content = kind(len(self._payloads))

        def say(share: float) -> None:
            self._say(f"{share:.0%} of the {content.noun} read")

        problem = read_again(content, self._store, space, self._payloads, on_progress=say)
        if problem:
            self.notes.append(
                f"{int((content.sizes == 0).sum()):,} of {len(self._payloads):,} {content.noun} were compared by vector "
                f"(cosine {self._threshold:g} or more), because they cannot be read again; the first, {problem}"
            )
        return content

    def _alike(self, content: Content, positions: Rows) -> Pairs:
        return content.pairs(positions, lambda share: self._say(f"{share:.0%} of the {content.noun} compared"))

    def by_vector(self) -> None:
        """Compare what was not compared by itself with everything."""
        if self._seen.all():
            return
        if len(self._payloads) <= ALL_PAIRS_UP_TO:
            self.pairs.append(self._all_pairs())
        else:
            self.approximate = True
            self.pairs.append(self._neighbours())

    def preference(self) -> npt.NDArray[np.int64]:
        """Higher (h,) for pictures and films with more pixels, of equally many for larger files."""
        areas = [content.sizes for content in self._contents]
        sizes = np.column_stack([*areas, _sizes(self._store, self._spaces[0], self._payloads)])
        return np.unique(sizes, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)

    def scored(self, found: Clusters) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Of each item the cosine and the difference to its representative, NaN where vectors alone were compared."""
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
        order = np.argsort(self._seen, kind="stable")  # those that were not read first
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
        """Pairs among the nearest neighbours, in the first space, of each payload that was not read."""
        searcher, asked = Searcher(self._store), np.flatnonzero(~self._seen)
        left, right, full = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
        for lo in range(0, len(asked), QUERIES):
            block = self._payloads[asked[lo : lo + QUERIES]]
            queries = self._spaces[0].take(block)  # among distinct payloads: exact copies would be all that is found
            scores, found = searcher.nearest(self._spaces[0], queries, NEIGHBOURS, exclude=block, among=self._payloads)
            full += int((scores[:, -1] >= self._threshold).sum())
            i, j = np.nonzero(scores >= self._threshold - APPROXIMATE_SLACK)
            left.append(asked[i + lo])
            right.append(np.searchsorted(self._payloads, found[i, j]))
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

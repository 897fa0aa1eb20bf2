"""Which queries `eval_search` asks, of which gallery, and what answers them: by a column, by judged pairs, or by item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.distinct import distinct
from embedstore._core.keys import hash_strings
from embedstore.errors import SourceError, UsageError
from embedstore.evaluation.judgements import Judgements, PairedAnswers, SameValue
from embedstore.indexing.vectors import directed
from embedstore.retrieval.aligned_spaces import SearchableSpace
from embedstore.retrieval.judged_pairs import QueryPairs
from embedstore.retrieval.searcher import Searcher
from embedstore.store import Store
from embedstore.store.view import is_null

Rows = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

RELEVANCE, PAIRS, ITEMS = "relevance", "pairs", "items"
TEXT_BLOCK = 256


@dataclass(frozen=True)
class Task:
    """Queries, the gallery they are ranked in, and what is relevant.

    Parameters
    ----------
    gallery : (g,) int64, ascending
    vectors : function of a slice of the m queries to their vectors (b, dim)
    exclude : (m,) int64
        The row that a query must not find; -1 for none.
    without_relevant : int
    groups : (m,) int64
        Queries of one payload share a group.
    """

    target: SearchableSpace
    gallery: Rows
    vectors: Callable[[slice], npt.NDArray[Any]]
    exclude: Rows
    judgements: Judgements
    without_relevant: int
    groups: Codes


@dataclass(frozen=True)
class Plan:
    """The ranking of all, and that without copies where there are some."""

    mode: str
    relevance: str
    source: str
    tasks: list[Task]
    copies: int
    notes: list[str]


@dataclass(frozen=True)
class Sample:
    """At most `most` queries, drawn at random."""

    most: int
    seed: int

    def draw(self, candidates: Codes, notes: list[str]) -> Codes:
        """Some of the queries (n,) that have something to find, in their order."""
        if not len(candidates):
            raise UsageError(
                "No query has a relevant item in the gallery: there is nothing to score. "
                "Check what says which items are relevant, and --where."
            )
        if len(candidates) <= self.most:
            return candidates
        notes.append(f"{self.most:,} of {len(candidates):,} queries, drawn with seed {self.seed}")
        rng = np.random.default_rng(self.seed)
        return candidates[np.sort(rng.choice(len(candidates), self.most, replace=False))]


@dataclass(frozen=True)
class _Items:
    """Items as queries: the vector of each in `source` is searched in `target`, and equal values are relevant.

    Parameters
    ----------
    rows : (n,) int64, ascending
        All items that take part.
    values : (n, c) int64
        Codes of each; see `SameValue`.
    payloads : (n,) int64
        Codes of what the vectors in `source` were made from.
    """

    mode: str
    source: SearchableSpace
    target: SearchableSpace
    rows: Rows
    values: Codes
    payloads: Codes

    def queries(self) -> tuple[Rows, int]:
        """The items (m,) that have a direction and something to find, and how many have nothing to find."""
        rows = self.rows[self.source.has(self.rows)]
        rows = rows[directed(self.source, rows)]
        gallery = self.rows[self.target.has(self.rows)]
        found = self._judgements(rows, gallery).relevant > 0
        return rows[found], int((~found).sum())

    def task(self, queries: Rows, without_relevant: int) -> Task:
        gallery = self.rows[self.target.has(self.rows)]
        return Task(
            target=self.target,
            gallery=gallery,
            vectors=lambda at: self.source.take(queries[at]),
            exclude=queries if self.mode == RELEVANCE else np.full(len(queries), -1),
            judgements=self._judgements(queries, gallery),
            without_relevant=without_relevant,
            groups=self.payloads[np.searchsorted(self.rows, queries)],
        )

    def only(self, keep: npt.NDArray[np.bool_]) -> _Items:
        """Some of the items (n,)."""
        return replace(self, rows=self.rows[keep], values=self.values[keep], payloads=self.payloads[keep])

    def _judgements(self, queries: Rows, gallery: Rows) -> SameValue:
        ranked, asked = (self.values[np.searchsorted(self.rows, rows)] for rows in (gallery, queries))
        own = np.isin(queries, gallery) & (self.mode == RELEVANCE)
        return SameValue(gallery, ranked, asked, own)


def comparable_spaces(searcher: Searcher, source: str | None, target: str | None) -> tuple[SearchableSpace, SearchableSpace]:
    """The spaces of queries and gallery; one that is not named is the same as the other."""
    store = searcher.store
    named = [name for name in (source, target) if name is not None]
    if not named:
        if len(store.spaces) != 1:
            known = ", ".join(store.spaces) or "none yet"
            raise UsageError(f"Say which space to search: --space NAME. Spaces of {store.path}: {known}.")
        named = list(store.spaces)
    asked, searched = searcher.queries.space(named[0]), searcher.queries.space(named[-1])
    ours, theirs = asked.spec.alignment, searched.spec.alignment
    if asked is not searched and (ours is None or ours != theirs):
        held = " and ".join(f"{space.name!r} has {space.spec.alignment or 'none'}" for space in (asked, searched))
        raise UsageError(
            f"Vectors of space {asked.name!r} cannot be compared with those of {searched.name!r}: they share no alignment "
            f"({held}). Learn one: "
            f"embedstore align {store.path} --from {asked.name} --to {searched.name}"
        )
    return asked, searched


def two_spaces(searcher: Searcher, source: str | None, target: str | None) -> tuple[SearchableSpace, SearchableSpace]:
    if source is None and target is None:
        raise UsageError("Say what is relevant: --relevance COLUMN, --pairs FILE, or --from SPACE --to SPACE.")
    if source is None or target is None or source == target:
        raise UsageError(
            f"In space {source or target!r} alone every item finds itself. Name two aligned spaces by --from and --to, or say "
            "what is relevant: --relevance COLUMN or --pairs FILE."
        )
    return comparable_spaces(searcher, source, target)


def by_column(
    store: Store, column: str, source: SearchableSpace, target: SearchableSpace, allowed: Rows, sample: Sample
) -> Plan:
    if column not in (known := store.items.metadata_columns()):
        raise UsageError(f"{store.path} has no metadata column {column!r}. Columns: {', '.join(known) or 'none'}.")
    rows = allowed[source.has(allowed) | target.has(allowed)]
    values = _value_codes(store.items.take(rows, [column]).column(column).to_pylist(), column)
    rows, values = rows[values >= 0], values[values >= 0]
    unlabelled = int((source.has(allowed) | target.has(allowed)).sum()) - len(rows)
    notes = [f"{unlabelled:,} items have no {column} and take no part"] if unlabelled else []
    items = _Items(RELEVANCE, source, target, rows, values[:, None], _payload_codes(source, rows))
    return _item_plan(items, f"the same {column}", sample, notes)


def by_item(source: SearchableSpace, target: SearchableSpace, allowed: Rows, sample: Sample) -> Plan:
    rows = allowed[source.has(allowed) | target.has(allowed)]
    payloads = _payload_codes(source, rows)
    values = np.stack([payloads, _payload_codes(target, rows)], axis=1)
    return _item_plan(_Items(ITEMS, source, target, rows, values, payloads), "the same item", sample, [])


def _item_plan(items: _Items, relevance: str, sample: Sample, notes: list[str]) -> Plan:
    held = items.rows[items.source.has(items.rows)]
    if zeros := int((~directed(items.source, held)).sum()):
        notes.append(f"{zeros:,} items are no queries, for their vectors in {items.source.name} are all zeros")
    queries, alone = items.queries()
    queries = sample.draw(queries, notes)
    tasks = [items.task(queries, alone)]
    distinct = _distinct(items)
    if not distinct.all():
        once = items.only(distinct)
        able, alone = once.queries()
        if len(left := np.intersect1d(queries, able)):
            tasks.append(once.task(left, alone))
        else:
            notes.append("without copies no query has a relevant item")
    return Plan(items.mode, relevance, items.source.name, tasks, int((~distinct).sum()), notes)


def _value_codes(values: list[Any], column: str) -> Codes:
    """Equal values have equal codes (n,); -1 where there is none."""
    codes: dict[Any, int] = {}
    try:
        return np.array([-1 if is_null(v) else codes.setdefault(v, len(codes)) for v in values], np.int64)
    except TypeError:
        raise UsageError(f"Column {column!r} holds lists or structures; expected text, numbers or truth values.") from None


def _payload_codes(space: SearchableSpace, rows: Rows) -> Codes:
    """Items (n,) whose vectors were made from the same payload have one code; one without vector or hash is alone."""
    hashes = space.hash_of(rows)
    known = np.flatnonzero(hashes.any(axis=1))
    codes = len(rows) + np.arange(len(rows))
    codes[known] = np.unique(hashes[known], axis=0, return_inverse=True)[1].reshape(-1)
    return codes


def _distinct(items: _Items) -> npt.NDArray[np.bool_]:
    """Which items (n,) share their payload with no earlier one in either space."""
    left = np.arange(len(items.rows))
    for space in {items.target.name: items.target, items.source.name: items.source}.values():
        left = left[np.sort(np.unique(_payload_codes(space, items.rows[left]), return_index=True)[1])]
    keep = np.zeros(len(items.rows), bool)
    keep[left] = True
    return keep


def by_pairs(
    pairs: QueryPairs, searcher: Searcher, source: str | None, target: str | None, allowed: Rows, sample: Sample
) -> Plan:
    answers = _rows_of(searcher.store, pairs, pairs.ids, "id")
    if pairs.texts:
        if source not in (None, target):
            raise UsageError(f"{pairs.path} holds texts, not items of space {source!r}. Leave out --from.")
        return _by_texts(pairs, answers, searcher, searcher.queries.comparable("text", target), allowed, sample)
    asked, searched = comparable_spaces(searcher, source, target)
    items = _rows_of(searcher.store, pairs, pairs.queries, "query_id")
    usable = asked.has(items) & np.isin(items, allowed)
    usable[usable] = directed(asked, items[usable])
    if asked is searched:
        usable &= items != answers
    gallery = allowed[searched.has(allowed)]
    chosen = _chosen(pairs, items, answers, usable & np.isin(answers, gallery), sample)
    task = Task(
        target=searched,
        gallery=gallery,
        vectors=lambda at: asked.take(chosen.queries[at]),
        exclude=chosen.queries if asked is searched else np.full(len(chosen.queries), -1),
        judgements=chosen.judged,
        without_relevant=chosen.without_relevant,
        groups=_payload_codes(asked, chosen.queries),
    )
    return Plan(PAIRS, f"pairs of {pairs.path.name}", asked.name, [task], 0, chosen.notes)


def _by_texts(
    pairs: QueryPairs, answers: Rows, searcher: Searcher, searched: SearchableSpace, allowed: Rows, sample: Sample
) -> Plan:
    gallery = allowed[searched.has(allowed)]
    texts = np.array(pairs.queries, object)
    chosen = _chosen(pairs, texts, answers, np.isin(answers, gallery), sample)
    vectors = _encoded(searcher, searched, chosen.queries.tolist())
    if len(zeros := np.flatnonzero(~vectors.any(axis=1))):
        raise UsageError(
            f"The vector of the text {chosen.queries[zeros[0]]!r} is all zeros; it has no direction to search in. "
            f"Remove it from {pairs.path}."
        )
    task = Task(
        target=searched,
        gallery=gallery,
        vectors=lambda at: vectors[at],
        exclude=np.full(len(vectors), -1),
        judgements=chosen.judged,
        without_relevant=chosen.without_relevant,
        groups=np.arange(len(vectors)),
    )
    return Plan(PAIRS, f"pairs of {pairs.path.name}", "text", [task], 0, chosen.notes)


@dataclass(frozen=True)
class _Chosen:
    """The distinct queries (m,) that are asked, and their answers."""

    queries: npt.NDArray[Any]
    judged: PairedAnswers
    without_relevant: int
    notes: list[str]


def _chosen(
    pairs: QueryPairs, queries: npt.NDArray[Any], answers: Rows, usable: npt.NDArray[np.bool_], sample: Sample
) -> _Chosen:
    """A sample of the queries (p,) that have a usable pair; all usable pairs of these."""
    notes = []
    if unusable := int((~usable).sum()):
        why = "an item has no vector or one of zeros, is kept out by --where, or would be its own answer"
        notes.append(f"{unusable:,} of {len(usable):,} pairs take no part: {why}")
    names, of = np.unique(queries, return_inverse=True)
    able = distinct(of[usable])
    drawn = sample.draw(able, notes)
    used = usable & np.isin(of, drawn)
    judged = PairedAnswers.of(np.searchsorted(drawn, of[used]), answers[used], pairs.grades[used], len(drawn))
    return _Chosen(names[drawn], judged, len(names) - len(able), notes)


def _rows_of(store: Store, pairs: QueryPairs, ids: Sequence[str], column: str) -> Rows:
    rows = store.items.id_table.lookup(hash_strings(ids))
    if len(missing := np.flatnonzero(rows < 0)):
        first = missing[0]
        raise SourceError(
            f"{pairs.path}: {column} {ids[first]!r} of row {first + 1} is no item of {store.path}"
            + (f" ({len(missing):,} such rows)." if len(missing) > 1 else ".")
            + " Mend or remove it."
        )
    return rows


def _encoded(searcher: Searcher, space: SearchableSpace, texts: Sequence[str]) -> Vectors:
    """Vectors (m, dim) of texts, by the encoder that `space` is searched with."""
    return searcher.queries.encode(space, "text", [text.encode() for text in texts])

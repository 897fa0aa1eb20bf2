"""Many questions at once: what waits together is encoded together and searched together."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import EmbedstoreError
from embedstore.retrieval.asked import Asked
from embedstore.retrieval.search_options import SearchOptions
from embedstore.retrieval.search_result import SearchResult
from embedstore.retrieval.searcher import Searcher
from embedstore.retrieval.several_vectors import placed

__all__ = ["answer_all", "joins"]

Answer = SearchResult | EmbedstoreError
Key = tuple[str, int, str | None, float | None]


@dataclass
class _Found:
    """One question on its way: its place, the query as a vector, and what was found."""

    at: int
    wanted: SearchOptions
    asked: Asked
    columns: list[str]
    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    used: Mapping[str, Any]


def joins(wanted: SearchOptions) -> bool:
    """Whether a question is answered together with others: one text, id or vector, in one space, in order of score."""
    given = [wanted.text, wanted.id, wanted.vector]
    several = (
        wanted.image,
        wanted.audio,
        wanted.video,
        wanted.like,
        wanted.unlike,
        wanted.weights,
        wanted.spaces,
        wanted.group_by,
        wanted.fold,
    )
    one = sum(value is not None for value in given) == 1 and all(isinstance(v, str) for v in given[:2] if v is not None)
    return one and not any(value is not None for value in several) and not wanted.diversity


def answer_all(searcher: Searcher, questions: Sequence[SearchOptions]) -> list[Answer]:
    """The answer to each question, or the error that it ends in; each as if it were asked alone.

    Texts of one space are encoded in one batch, and plain questions to one space are one search: for 64 of them that costs
    a fraction of 64 searches. Times are those of the whole batch, which is what each question waits for.

    Parameters
    ----------
    searcher : Searcher
    questions : sequence of SearchOptions

    Examples
    --------
    >>> questions = [SearchOptions(text=words) for words in ("a red car", "a boat")]  # doctest: +SKIP
    >>> [answer.results[0].id for answer in answer_all(searcher, questions)]  # doctest: +SKIP
    """
    answers: list[Answer | None] = [None] * len(questions)
    start = time.perf_counter()
    found = _resolved(searcher, questions, answers)
    encoded = time.perf_counter()
    for one in found:
        searcher.index(one.asked.space)
    loaded = time.perf_counter()
    found = _searched(searcher, found, answers)
    ended = time.perf_counter()
    hits = _hits(searcher, found)
    fetched = time.perf_counter()
    took = {"encode": encoded - start, "load": loaded - encoded, "search": ended - loaded, "fetch": fetched - ended}
    for one, own in zip(found, hits, strict=True):
        answers[one.at] = searcher.result([one.asked], own, took, dict(one.used))
    for at, wanted in enumerate(questions):
        if answers[at] is None:
            answers[at] = _or_error(searcher, wanted)
    return [answer for answer in answers if answer is not None]


def _or_error(searcher: Searcher, wanted: SearchOptions) -> Answer:
    try:
        return searcher.answer(wanted)
    except EmbedstoreError as error:
        return error


def _resolved(searcher: Searcher, questions: Sequence[SearchOptions], answers: list[Answer | None]) -> list[_Found]:
    """The plain questions as vectors; what is wrong with one becomes its answer."""
    vectors = _encoded(searcher, questions)
    found = []
    for at, wanted in enumerate(questions):
        if not joins(wanted):
            continue
        try:
            columns = searcher.columns(wanted.columns)
            if isinstance(wanted.text, str) and (wanted.space, wanted.text) in vectors:
                asked = searcher.queries.payload("text", wanted.text, wanted.space, vectors[wanted.space, wanted.text])
            else:
                (asked,) = searcher.asked(wanted)
            if asked.pieces is not None:
                continue  # a question of several vectors is one for itself
            found.append(_Found(at, wanted, asked, columns, np.empty(0, np.int64), np.empty(0), {}))
        except EmbedstoreError as error:
            answers[at] = error
    return found


def _encoded(searcher: Searcher, questions: Sequence[SearchOptions]) -> dict[tuple[str | None, str], npt.NDArray[np.float32]]:
    """Vectors of the texts that are asked, by space and text; a batch that fails is left to the questions one by one."""
    texts: dict[str | None, dict[str, None]] = {}
    for wanted in questions:
        if joins(wanted) and isinstance(wanted.text, str) and wanted.text.strip():
            texts.setdefault(wanted.space, {})[wanted.text] = None
    vectors = {}
    for space, every in texts.items():
        if len(every) > 1:
            try:
                target = searcher.queries.comparable("text", space)
                if searcher.queries.asks_with_pieces(target, "text"):
                    continue
                made = searcher.queries.encode(target, "text", [text.encode() for text in every])
            except (EmbedstoreError, UnicodeError):
                continue
            vectors.update({(space, text): vector for text, vector in zip(every, made, strict=True)})
    return vectors


def _searched(searcher: Searcher, found: Sequence[_Found], answers: list[Answer | None]) -> list[_Found]:
    """Search once for all questions of one space, filter, depth and operating point."""
    groups: dict[Key, list[_Found]] = {}
    for one in found:
        depth = one.wanted.last + len(one.asked.leave_out)
        groups.setdefault((one.asked.space.name, depth, one.wanted.where, one.wanted.recall), []).append(one)
    done = []
    for (_, depth, where, recall), group in groups.items():
        try:
            space = group[0].asked.space
            keep = searcher.filters.positions(space, where)
            queries = np.stack([one.asked.vector for one in group])
            scores, rows, used = searcher.nearest_kept(space, queries, depth, keep, recall)
        except EmbedstoreError as error:
            answers_of = {one.at: error for one in group}
            for at, failed in answers_of.items():
                answers[at] = failed
            continue
        for one, own_rows, own_scores in zip(group, rows, scores, strict=True):
            one.rows, one.scores = _page(one, own_rows, own_scores)
            one.used = used
            done.append(one)
    return done


def _page(
    one: _Found, rows: npt.NDArray[np.int64], scores: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """What of its nearest rows a question wants to see."""
    kept = rows >= 0
    for row in one.asked.leave_out:
        kept &= rows != row
    if one.wanted.min_score is not None:
        kept &= scores >= one.wanted.min_score
    page = slice(one.wanted.offset, one.wanted.last)
    return rows[kept][page], scores[kept][page].astype(np.float64)


def _hits(searcher: Searcher, found: Sequence[_Found]) -> list[list[Any]]:
    """The hits of each question; those that want the same columns are read at once."""
    hits: list[list[Any]] = [[] for _ in found]
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, one in enumerate(found):
        groups.setdefault(tuple(one.columns), []).append(i)
    for columns, members in groups.items():
        rows = np.concatenate([found[i].rows for i in members])
        scores = np.concatenate([found[i].scores for i in members])
        offsets = [found[i].wanted.offset for i in members]
        counts = [len(found[i].rows) for i in members]
        every = searcher.hits(rows, scores, list(columns), ranks=_ranks(offsets, counts))
        ends = np.cumsum(counts)
        for i, count, end in zip(members, counts, ends.tolist(), strict=True):
            hits[i] = placed([found[i].asked], found[i].rows, every[end - count : end])
    return hits


def _ranks(offsets: Sequence[int], counts: Sequence[int]) -> list[int]:
    return [rank for offset, count in zip(offsets, counts, strict=True) for rank in range(offset + 1, offset + count + 1)]

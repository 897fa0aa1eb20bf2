"""`compact`: a store without what was removed, and indexes that know everything again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embedstore.errors import EmbedstoreError
from embedstore.indexing.measure import SAME
from embedstore.retrieval.aligned_spaces import SearchableSpace, spaces_of
from embedstore.retrieval.compact_options import CompactOptions
from embedstore.retrieval.index import index, open_index
from embedstore.retrieval.index_options import RECORDED
from embedstore.retrieval.searcher import Searcher
from embedstore.store import Store, path_of
from embedstore.store.indexes import IndexRecord
from embedstore.store.rewrite import compact_parts, worth_compacting

__all__ = ["CompactReport", "compact"]

UNKNOWN_SHARE = 0.1
CHECKED_QUERIES = 500


@dataclass
class CompactReport:
    """What a compaction did.

    Parameters
    ----------
    reason : str
        Why parts were rewritten; empty where they were not.
    files, bytes : (int, int)
        Named by the store before and after.
    indexes : mapping of str to str
        What was done to the index of each space, and why.
    """

    reason: str = ""
    files: tuple[int, int] = (0, 0)
    bytes: tuple[int, int] = (0, 0)
    indexes: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def compact(
    store: Store | str | Path, *, force: bool = CompactOptions.force, on_progress: Callable[[str], None] = lambda text: None
) -> CompactReport:
    """Rewrite what is worth rewriting: parts with removed rows or too many small ones, and indexes that fell behind.

    An index is built again, with the options it was built with, where its space was rewritten, where a tenth of the vectors
    came or went since, or where its recall, measured now on stored vectors, is below its target.

    Parameters
    ----------
    force : bool
        Rewrite everything.
    """
    force = CompactOptions(force=force).force
    path = path_of(store)
    report = CompactReport()
    with Store.open(path).writer() as writer:
        report.reason = worth_compacting(writer.store) or ("asked for" if force else "")
        before = list(writer.store.manifest.refs())
        if report.reason:
            compact_parts(writer, on_progress)
        after = list(writer.store.manifest.refs())
        report.files = len(before), len(after)
        report.bytes = sum(ref.bytes for ref in before), sum(ref.bytes for ref in after)
    opened = Store.open(path)
    for name, space in spaces_of(opened).items():
        options = _options(space)
        if options is None:
            continue
        why = "asked for" if force else _behind(opened, space)
        if why:
            on_progress(f"index of {name}")
            try:
                index(opened, name, **options, on_progress=on_progress)
                report.indexes[name] = f"built again: {why}"
            except EmbedstoreError as error:  # the parts are rewritten all the same; search is exact meanwhile, and says so
                report.indexes[name] = f"not built again: {error}"
        else:
            report.indexes[name] = "kept"
    return report


def _options(space: SearchableSpace) -> dict[str, Any] | None:
    """How the index of `space` was built; None where there is none."""
    try:
        record = IndexRecord.read(space.index_folder)
    except EmbedstoreError:
        return {}
    if record is None:
        return None
    return {name: record.index["options"][name] for name in RECORDED if name in record.index.get("options", {})}


def _behind(store: Store, space: SearchableSpace) -> str | None:
    """Why an index should be built again."""
    opened = open_index(space)
    if opened.problem:
        return opened.problem
    base = opened.index.base_
    if base is None:
        count = len(space.raw_rows) if space.live is None else int(space.live.sum())
        grown = count - opened.index.report_.n
        return f"{grown:,} vectors came since" if grown > UNKNOWN_SHARE * count else None
    live = np.ones(len(space.raw_rows), bool) if space.live is None else space.live
    unknown = int(live.sum()) - int(live[base.labels].sum())
    gone = len(base) - int(live[base.labels].sum())
    if unknown + gone > UNKNOWN_SHARE * len(base):
        return f"{unknown:,} vectors came and {gone:,} went since"
    recall = _recall_now(store, space, opened.index.report_.at)
    if recall < opened.index.report_.target:
        return f"recall@{opened.index.report_.at} is {recall:.3f} now"
    return None


def _recall_now(store: Store, space: SearchableSpace, at: int) -> float:
    rows = np.random.default_rng(0).choice(space.rows, min(CHECKED_QUERIES, len(space)), replace=False)
    searcher, queries = Searcher(store), space.take(rows)
    exact, _ = searcher.nearest(space, queries, at, exclude=rows, recall=1)
    found, _ = searcher.nearest(space, queries, at, exclude=rows)
    kth = np.nanmin(exact, axis=1, keepdims=True)
    return float(np.mean(np.nan_to_num(found, nan=-2) >= kth - SAME))

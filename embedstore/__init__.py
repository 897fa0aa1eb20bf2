"""Embed a dataset once, train heads on it in seconds, search it in milliseconds.

Importing this package is cheap: torch, faiss, xgboost, pyarrow and duckdb are imported when first needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedstore._align import AlignReport, align
    from embedstore._batch import BatchReport, search_batch
    from embedstore._compact import CompactReport, compact
    from embedstore._dedup import find_duplicates, remove_duplicates
    from embedstore._duplicate_report import DuplicateReport
    from embedstore._embed import EmbedReport, embed
    from embedstore._eval_search import SearchEvaluation, eval_search
    from embedstore._evaluate import evaluate
    from embedstore._import import ImportReport, import_vectors
    from embedstore._index import IndexReport, index
    from embedstore._predict import predict
    from embedstore._query import QueryVector
    from embedstore._request import SearchResult
    from embedstore._search import Searcher, search
    from embedstore._train import train
    from embedstore.errors import EmbedstoreError
    from embedstore.heads import Head, LinearHead, make_head
    from embedstore.indexing.approximate import VectorIndex
    from embedstore.spec import EncoderSpec
    from embedstore.store import Store, View
    from embedstore.store.verify import verify

_HOMES = {
    "AlignReport": "embedstore._align",
    "BatchReport": "embedstore._batch",
    "CompactReport": "embedstore._compact",
    "DuplicateReport": "embedstore._duplicate_report",
    "EmbedReport": "embedstore._embed",
    "EmbedstoreError": "embedstore.errors",
    "EncoderSpec": "embedstore.spec",
    "Head": "embedstore.heads",
    "ImportReport": "embedstore._import",
    "IndexReport": "embedstore._index",
    "LinearHead": "embedstore.heads",
    "QueryVector": "embedstore._query",
    "SearchEvaluation": "embedstore._eval_search",
    "SearchResult": "embedstore._request",
    "Searcher": "embedstore._search",
    "Store": "embedstore.store",
    "VectorIndex": "embedstore.indexing.approximate",
    "View": "embedstore.store",
    "align": "embedstore._align",
    "compact": "embedstore._compact",
    "embed": "embedstore._embed",
    "eval_search": "embedstore._eval_search",
    "evaluate": "embedstore._evaluate",
    "find_duplicates": "embedstore._dedup",
    "import_vectors": "embedstore._import",
    "index": "embedstore._index",
    "make_head": "embedstore.heads",
    "predict": "embedstore._predict",
    "remove_duplicates": "embedstore._dedup",
    "repair": "embedstore._repair",
    "search": "embedstore._search",
    "search_batch": "embedstore._batch",
    "train": "embedstore._train",
    "verify": "embedstore.store.verify",
}

__version__ = "0.1.0"

__all__ = [
    "AlignReport",
    "BatchReport",
    "CompactReport",
    "DuplicateReport",
    "EmbedReport",
    "EmbedstoreError",
    "EncoderSpec",
    "Head",
    "ImportReport",
    "IndexReport",
    "LinearHead",
    "QueryVector",
    "SearchEvaluation",
    "SearchResult",
    "Searcher",
    "Store",
    "VectorIndex",
    "View",
    "align",
    "compact",
    "embed",
    "eval_search",
    "evaluate",
    "find_duplicates",
    "import_vectors",
    "index",
    "make_head",
    "predict",
    "remove_duplicates",
    "repair",
    "search",
    "search_batch",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'embedstore' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})

"""Embed a dataset once, train heads on it in seconds, search it in milliseconds.

Importing this package is cheap: torch, faiss, xgboost, pyarrow and duckdb are imported when first needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from embedstore._version import __version__ as __version__

if TYPE_CHECKING:
    from embedstore.duplicates.find import find_duplicates, remove_duplicates
    from embedstore.duplicates.report import DuplicateReport
    from embedstore.errors import EmbedstoreError
    from embedstore.exporting.export import export
    from embedstore.exporting.export_head import HeadExport, export_head
    from embedstore.exporting.report import ExportReport
    from embedstore.heads import Head, LinearHead, make_head
    from embedstore.indexing.vector_index import VectorIndex
    from embedstore.ingest.embed import EmbedReport, embed
    from embedstore.ingest.import_vectors import ImportReport, import_vectors
    from embedstore.retrieval.align import AlignReport, align
    from embedstore.retrieval.batch import BatchReport, search_batch
    from embedstore.retrieval.compact import CompactReport, compact
    from embedstore.retrieval.eval_search import SearchEvaluation, eval_search
    from embedstore.retrieval.index import IndexReport, index
    from embedstore.retrieval.query_vector import QueryVector
    from embedstore.retrieval.search import search
    from embedstore.retrieval.search_result import SearchResult
    from embedstore.retrieval.searcher import Searcher
    from embedstore.serving.serve import serve
    from embedstore.spec import EncoderSpec
    from embedstore.store import Store, View
    from embedstore.store.verify import verify
    from embedstore.training.compare import CompareReport, compare
    from embedstore.training.evaluate import evaluate
    from embedstore.training.labels import LabelReport, labels
    from embedstore.training.out_of_fold import OutOfFold, out_of_fold
    from embedstore.training.predict import predict
    from embedstore.training.saved_heads import SavedHead, delete_head, list_heads, rename_head
    from embedstore.training.select import Selection, select
    from embedstore.training.train import train

_HOMES = {
    "AlignReport": "embedstore.retrieval.align",
    "BatchReport": "embedstore.retrieval.batch",
    "CompactReport": "embedstore.retrieval.compact",
    "CompareReport": "embedstore.training.compare",
    "DuplicateReport": "embedstore.duplicates.report",
    "EmbedReport": "embedstore.ingest.embed",
    "EmbedstoreError": "embedstore.errors",
    "EncoderSpec": "embedstore.spec",
    "ExportReport": "embedstore.exporting.report",
    "Head": "embedstore.heads",
    "HeadExport": "embedstore.exporting.export_head",
    "ImportReport": "embedstore.ingest.import_vectors",
    "IndexReport": "embedstore.retrieval.index",
    "LabelReport": "embedstore.training.labels",
    "LinearHead": "embedstore.heads",
    "OutOfFold": "embedstore.training.out_of_fold",
    "QueryVector": "embedstore.retrieval.query_vector",
    "SavedHead": "embedstore.training.saved_heads",
    "SearchEvaluation": "embedstore.retrieval.eval_search",
    "SearchResult": "embedstore.retrieval.search_result",
    "Searcher": "embedstore.retrieval.searcher",
    "Selection": "embedstore.training.select",
    "Store": "embedstore.store",
    "VectorIndex": "embedstore.indexing.vector_index",
    "View": "embedstore.store",
    "align": "embedstore.retrieval.align",
    "compact": "embedstore.retrieval.compact",
    "compare": "embedstore.training.compare",
    "delete_head": "embedstore.training.saved_heads",
    "embed": "embedstore.ingest.embed",
    "eval_search": "embedstore.retrieval.eval_search",
    "evaluate": "embedstore.training.evaluate",
    "export_head": "embedstore.exporting.export_head",
    "export": "embedstore.exporting.export",
    "find_duplicates": "embedstore.duplicates.find",
    "import_vectors": "embedstore.ingest.import_vectors",
    "index": "embedstore.retrieval.index",
    "labels": "embedstore.training.labels",
    "list_heads": "embedstore.training.saved_heads",
    "make_head": "embedstore.heads",
    "out_of_fold": "embedstore.training.out_of_fold",
    "predict": "embedstore.training.predict",
    "remove_duplicates": "embedstore.duplicates.find",
    "rename_head": "embedstore.training.saved_heads",
    "repair": "embedstore.ingest.repair",
    "search": "embedstore.retrieval.search",
    "search_batch": "embedstore.retrieval.batch",
    "select": "embedstore.training.select",
    "serve": "embedstore.serving.serve",
    "train": "embedstore.training.train",
    "verify": "embedstore.store.verify",
}


__all__ = [
    "AlignReport",
    "BatchReport",
    "CompactReport",
    "CompareReport",
    "DuplicateReport",
    "EmbedReport",
    "EmbedstoreError",
    "EncoderSpec",
    "ExportReport",
    "Head",
    "HeadExport",
    "ImportReport",
    "IndexReport",
    "LabelReport",
    "LinearHead",
    "OutOfFold",
    "QueryVector",
    "SavedHead",
    "SearchEvaluation",
    "SearchResult",
    "Searcher",
    "Selection",
    "Store",
    "VectorIndex",
    "View",
    "align",
    "compact",
    "compare",
    "delete_head",
    "embed",
    "eval_search",
    "evaluate",
    "export",
    "export_head",
    "find_duplicates",
    "import_vectors",
    "index",
    "labels",
    "list_heads",
    "make_head",
    "out_of_fold",
    "predict",
    "remove_duplicates",
    "rename_head",
    "repair",
    "search",
    "search_batch",
    "select",
    "serve",
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

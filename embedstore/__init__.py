"""Embed a dataset once, train heads on it in seconds, search it in milliseconds.

Importing this package is cheap: torch, faiss, xgboost, pyarrow and duckdb are imported when first needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedstore._embed import EmbedReport, embed
    from embedstore._evaluate import evaluate
    from embedstore._predict import predict
    from embedstore._search import QueryVector, Searcher, SearchResult, search
    from embedstore._train import train
    from embedstore.errors import EmbedstoreError
    from embedstore.heads import Head, LinearHead, make_head
    from embedstore.spec import EncoderSpec
    from embedstore.store import Store, View
    from embedstore.store.verify import verify

_HOMES = {
    "EmbedReport": "embedstore._embed",
    "EmbedstoreError": "embedstore.errors",
    "EncoderSpec": "embedstore.spec",
    "Head": "embedstore.heads",
    "LinearHead": "embedstore.heads",
    "QueryVector": "embedstore._search",
    "SearchResult": "embedstore._search",
    "Searcher": "embedstore._search",
    "Store": "embedstore.store",
    "View": "embedstore.store",
    "embed": "embedstore._embed",
    "evaluate": "embedstore._evaluate",
    "make_head": "embedstore.heads",
    "predict": "embedstore._predict",
    "search": "embedstore._search",
    "train": "embedstore._train",
    "verify": "embedstore.store.verify",
}

__version__ = "0.1.0"

__all__ = [
    "EmbedReport",
    "EmbedstoreError",
    "EncoderSpec",
    "Head",
    "LinearHead",
    "QueryVector",
    "SearchResult",
    "Searcher",
    "Store",
    "View",
    "embed",
    "evaluate",
    "make_head",
    "predict",
    "search",
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

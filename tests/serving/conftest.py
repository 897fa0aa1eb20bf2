"""A server without a network: the application of a small store, asked through Starlette's client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import embedstore as es
from embedstore.serving.app import create_app
from embedstore.serving.serve_options import ServeOptions

HERE = "http://127.0.0.1"


@pytest.fixture
def client(store: es.Store) -> Iterator[TestClient]:
    """A server of the store of twelve items that may write."""
    app = create_app(store, ServeOptions(writable=True, seconds=20.0))
    with TestClient(app, base_url=HERE, raise_server_exceptions=False) as asked:
        yield asked


@pytest.fixture
def picture(table: Path) -> bytes:
    """The file of item-02."""
    return (table.parent / "images" / "2.png").read_bytes()

"""A server without a network: the application of a small store, asked through Starlette's client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import write_csv, write_image
from starlette.testclient import TestClient

import embedstore as es
from embedstore.serving.app import create_app
from embedstore.serving.serve_options import ServeOptions

HERE = "http://127.0.0.1"


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, es.Store]]:
    """A server that many tests ask and none changes, and its store: that of the fixture `store`."""
    folder = tmp_path_factory.mktemp("reading")
    rows: list[dict[str, object]] = []
    for i in range(12):
        write_image(folder / f"{i}.png", seed=min(i, 10))
        text, label = "" if i == 3 else f"text {i}", "odd" if i % 2 else "even"
        rows.append({"id": f"item-{i:02d}", "image": f"{i}.png", "text": text, "label": label, "price": i * 1.5})
    es.embed(write_csv(folder / "table.csv", rows), folder / "a.store", image="hash:32", text="hash:16")
    store = es.Store.open(folder / "a.store")
    with TestClient(create_app(store), base_url=HERE, raise_server_exceptions=False) as asked:
        yield asked, store


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

"""Hostile requests are answered with one clear line and a 4xx, and the server goes on serving."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import embedstore as es
from embedstore.serving import guards
from embedstore.serving.app import create_app
from embedstore.serving.serve import _listening
from embedstore.serving.serve_options import ServeOptions

HERE = "http://127.0.0.1"
JSON = {"content-type": "application/json"}
TOKEN = "a-token-of-many-letters"


def refused(answer: Any, *statuses: int) -> str:
    """What was said, on one line, with a next step and without a trace of the inside."""
    assert answer.status_code in statuses, answer.text[:300]
    said = answer.json()
    assert said.keys() == {"error", "next"}
    assert "\n" not in said["error"]
    assert len(said["error"]) < 500
    for inside in ("Traceback", "site-packages", 'File "', "pydantic", "sqlite", "/tmp/"):
        assert inside not in answer.text
    return str(said["error"])


def bomb() -> bytes:
    """A PNG of a few kilobytes that says it has 40,000 × 40,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(5_001 * 100))) + chunk(b"IEND", b"")
    )


def posted(path: str = "/v1/search", **given: Any) -> Any:
    return lambda client: client.post(path, **given)


HOSTILE: dict[str, tuple[Any, tuple[int, ...]]] = {
    "a body that is too large": (posted(content=b" " * 20_000_000, headers=JSON), (413,)),
    "a body that says it is huge": (posted(content=b"{}", headers={**JSON, "content-length": "9" * 30}), (400, 413)),
    "no JSON": (posted(content=b"{", headers=JSON), (400,)),
    "nested JSON": (posted(content=b"[" * 200_000, headers=JSON), (400,)),
    "JSON that is no object": (posted(json=[1]), (422,)),
    "bytes that are no UTF-8": (posted(content=b'{"query": {"text": "\xff"}}', headers=JSON), (400,)),
    "a lone surrogate": (posted(content=b'{"query": {"text": "\\ud800"}}', headers=JSON), (400, 422)),
    "NaN": (posted(content=b'{"query": {"vector": [NaN, 1]}}', headers=JSON), (400, 422)),
    "infinity": (posted(content=b'{"query": {"vector": [1e999, 1]}}', headers=JSON), (400, 422)),
    "a number that float32 cannot hold": (posted(json={"query": {"vector": [1e300] * 32}}), (400,)),
    "a vector of zeros": (posted(json={"query": {"vector": [0.0] * 32}}), (400,)),
    "another dimension": (posted(json={"query": {"vector": [1.0] * 7}}), (400,)),
    "an endless vector": (posted(json={"query": {"vector": [1.0] * 70_000}}), (422,)),
    "a huge k": (posted(json={"k": 10**9}), (422,)),
    "a negative offset": (posted(json={"offset": -1}), (422,)),
    "k in words": (posted(json={"k": "ten"}), (422,)),
    "an unknown key": (posted(json={"where": "1=1; DROP TABLE items"}), (422,)),
    "SQL as a column": (posted(json={"filter": [{"field": '"; DROP TABLE items; --', "op": "=", "value": 1}]}), (400,)),
    "SQL as an operator": (posted(json={"filter": [{"field": "label", "op": "= 1 OR 1", "value": 1}]}), (422,)),
    "a space that is a path": (posted(json={"query": {"text": "a"}, "space": "../../etc"}), (404,)),
    "an id that is a path": (lambda client: client.get("/v1/thumbnail", params={"id": "../../etc/passwd"}), (404,)),
    "a head that is a path": (lambda client: client.get("/v1/heads/..%2f..%2fsecrets"), (404,)),
    "a file beside the page": (lambda client: client.get("/static/..%2fapp.py"), (404,)),
    "a file above the page": (lambda client: client.get("/static/%2e%2e/%2e%2e/app.py"), (404,)),
    "an absolute file": (lambda client: client.get("/static/%2fetc%2fpasswd"), (404,)),
    "an upload without a file": (posted("/v1/search/upload", data={"request": "{}"}), (415, 422)),
    "an upload with a strange request": (
        posted("/v1/search/upload", files={"file": ("a.png", b"x")}, data={"request": '{"k": 0}'}),
        (400,),
    ),
    "an image that is an address": (posted(json={"query": {"image": "http://169.254.169.254/"}, "space": "image"}), (400,)),
    "form data": (posted(content=b"k=1", headers={"content-type": "application/x-www-form-urlencoded"}), (415,)),
    "plain text": (posted(content=b"{}", headers={"content-type": "text/plain"}), (415,)),
    "compressed JSON": (posted(content=zlib.compress(b"{}"), headers={**JSON, "content-encoding": "deflate"}), (400,)),
    "another site's page": (posted(json={}, headers={"origin": "http://evil.example"}), (403,)),
    "a form of another site": (
        posted("/v1/search/upload", files={"file": ("a.png", b"x")}, headers={"origin": "http://evil.example"}),
        (403,),
    ),
    "a form that tells no origin": (
        posted("/v1/search/upload", files={"file": ("a.png", b"x")}, headers={"sec-fetch-site": "cross-site"}),
        (403,),
    ),
    "a page of another port": (posted(json={}, headers={"origin": "http://127.0.0.1:8888"}), (403,)),
    "a page of a neighbour": (posted(json={}, headers={"sec-fetch-site": "same-site"}), (403,)),
    "a picture on another site's page": (
        lambda client: client.get("/v1/thumbnail?id=item-01", headers={"sec-fetch-site": "cross-site"}),
        (403,),
    ),
    "a sandboxed page": (posted(json={}, headers={"origin": "null"}), (403,)),
    "a name that was rebound": (posted(json={}, headers={"host": "evil.example"}), (421,)),
    "another method": (lambda client: client.delete("/v1/search", headers=JSON), (405,)),
    "too many marks": (posted("/v1/teach", json={"classes": {"+": ["a"] * 1001}}), (422,)),
    "an item marked twice": (posted("/v1/teach", json={"classes": {"+": ["item-01"], "-": ["item-01"]}}), (400,)),
    "a head whose name is a path": (
        posted("/v1/teach/save", json={"name": "../x", "classes": {"+": ["item-01"], "-": ["item-02"]}}),
        (400,),
    ),
    "points beside a map": (posted("/v1/map/items", json={"key": "1.pca.image", "rows": [10**18]}), (400,)),
    "a map of nothing": (lambda client: client.get("/v1/map", params={"space": "none"}), (404,)),
}


@pytest.fixture
def decoding(table: Path, tmp_path: Path) -> es.Store:
    """A store whose images are decoded; the encoder of the others here takes any bytes."""
    es.embed(table, tmp_path / "decoded.store", image="effnet-lite0")
    return es.Store.open(tmp_path / "decoded.store")


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    from helpers import write_csv, write_image

    folder = tmp_path_factory.mktemp("attacked")
    rows = []
    for i in range(6):
        write_image(folder / f"{i}.png", seed=i)
        rows.append({"id": f"item-{i:02d}", "image": f"{i}.png", "text": f"text {i}", "label": "a" if i < 3 else "<b>b</b>"})
    es.embed(write_csv(folder / "table.csv", rows), folder / "a.store", image="hash:32", text="hash:16")
    app = create_app(folder / "a.store", ServeOptions(writable=True))
    with TestClient(app, base_url=HERE, raise_server_exceptions=False) as client:
        yield client


@pytest.mark.offline_models
def test_an_image_that_cannot_be_decoded_is_refused(decoding: es.Store) -> None:
    with TestClient(create_app(decoding), base_url=HERE) as client:
        for data in (bomb(), b"\x89PNG nothing", b"", b"GIF89a" + bytes(100)):
            refused(client.post("/v1/search/upload", files={"file": ("a.png", data)}), 400)
        assert client.get("/health").status_code == 200


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_and_the_server_goes_on(attacked: TestClient, name: str) -> None:
    ask, statuses = HOSTILE[name]
    refused(ask(attacked), *statuses)
    assert len(attacked.post("/v1/search", json={"query": {"text": "text 1"}, "k": 2}).json()["results"]) == 2


def test_the_page_itself_and_links_to_it_are_served(attacked: TestClient) -> None:
    for site in ("same-origin", "none"):
        own = {"origin": HERE, "sec-fetch-site": site}
        assert attacked.post("/v1/search", json={"k": 1}, headers=own).status_code == 200
        sent = attacked.post("/v1/search/upload", files={"file": ("a", b"any bytes")}, headers=own)
        assert sent.status_code == 200
    for path in ("/", "/static/main.js"):
        assert attacked.get(path, headers={"sec-fetch-site": "cross-site"}).status_code == 200


def test_html_in_captions_is_json_and_no_page(attacked: TestClient) -> None:
    answer = attacked.post("/v1/search", json={"filter": [{"field": "label", "op": "=", "value": "<b>b</b>"}]})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert [r["metadata"]["label"] for r in answer.json()["results"]] == ["<b>b</b>"] * 3


def test_every_answer_has_the_headers(attacked: TestClient) -> None:
    for answer in (
        attacked.get("/health"),
        attacked.get("/none"),
        attacked.post("/v1/search", headers={"host": "evil.example"}),
    ):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "server" not in answer.headers


def test_a_slow_body_is_given_up(store: es.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "BODY_SECONDS", 0.05)
    app = create_app(store)
    sent: list[Any] = []

    async def ask() -> None:
        headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json"), (b"content-length", b"100")]
        scope = {"type": "http", "method": "POST", "path": "/v1/search", "raw_path": b"/v1/search", "headers": headers}
        scope |= {"query_string": b"", "http_version": "1.1", "scheme": "http", "server": ("127.0.0.1", 80), "client": None}
        parts = iter([{"type": "http.request", "body": b"{", "more_body": True}])

        async def receive() -> Any:
            part = next(parts, None)
            return part if part is not None else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        await app(scope, receive, send)

    asyncio.run(ask())
    assert (sent[0]["status"], json.loads(sent[1]["body"])["error"]) == (408, "The body did not arrive in 0.05 s.")


def test_a_token_is_asked_for_everywhere_but_the_empty_page(store: es.Store) -> None:
    app = create_app(store, ServeOptions(host="0.0.0.0"), token=TOKEN)
    with TestClient(app, base_url="http://photos.example") as client:
        for path in ("/v1/store", "/v1/item?id=item-01", "/metrics", "/openapi.json", "/none"):
            for headers in (
                {},
                {"authorization": "Bearer wrong"},
                {"authorization": TOKEN},
                {"authorization": f"bearer {TOKEN}x"},
            ):
                answer = client.get(path, headers=headers)
                assert refused(answer, 401) == "The token is missing or wrong."
                assert TOKEN not in answer.text
        assert [client.get(path).status_code for path in ("/health", "/ready")] == [200, 200]
        assert client.get("/v1/store", headers={"authorization": f"Bearer {TOKEN}"}).json()["n_items"] == 12
        same = {"authorization": f"Bearer {TOKEN}", "origin": "http://photos.example"}
        assert client.post("/v1/search", json={}, headers=same).status_code == 200
        behind = {**same, "origin": "https://photos.example:8443"}  # a proxy that passes a host of its own
        assert client.post("/v1/search", json={}, headers=behind).status_code == 403
        assert client.post("/v1/search", json={}, headers={**behind, "sec-fetch-site": "same-origin"}).status_code == 200


def test_it_writes_only_where_it_may(store: es.Store) -> None:
    before = sorted(path for path in store.path.rglob("*"))
    marks = {"+": ["item-01"], "-": ["item-02"]}
    with TestClient(create_app(store), base_url=HERE) as client:
        assert client.get("/v1/map", params={"space": "image"}).status_code == 200
        assert client.post("/v1/teach", json={"classes": marks}).status_code == 200
        refused(client.post("/v1/teach/save", json={"name": "mine", "classes": marks}), 403)
    assert sorted(path for path in store.path.rglob("*")) == before


def test_an_error_that_nobody_expected_shows_nothing_of_the_inside(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret of the inside")

    monkeypatch.setattr("embedstore.serving.routes_items._item", broken)
    answer = client.get("/v1/item", params={"id": "item-01"})
    assert refused(answer, 500) == "The server failed in a way that was not expected."
    assert "secret" not in answer.text
    assert client.get("/v1/store").status_code == 200


def test_no_answer_waits_for_an_acknowledgement() -> None:
    """Headers and body are two writes: without TCP_NODELAY the second one waits 40 ms where clients acknowledge late."""
    with _listening(ServeOptions(port=0)) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

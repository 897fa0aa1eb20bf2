"""Files, tables, tars and lists at URLs, through fsspec."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import formats
import pytest
from formats import ThumbnailEncoder
from helpers import write_csv, write_image

import embedstore as es
from embedstore.errors import MissingDependencyError, PayloadError, SourceError, UsageError
from embedstore.sources import files, open_source
from embedstore.sources.files import open_file, read_file, read_payload, relative_to

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def bucket() -> Iterator[Any]:
    """An empty filesystem in memory."""
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    yield filesystem
    filesystem.store.clear()


def upload(bucket: Any, folder: Path) -> None:
    bucket.put(f"{folder}/", "/b/", recursive=True)


def counts(report: es.EmbedReport, space: str) -> tuple[int, int, int, int]:
    s = report.spaces[space]
    return s.embedded, s.unchanged, s.missing, s.failed


@pytest.mark.parametrize("kind", ["csv", "jsonl", "blobs", "structs", "list", "tars"])
def test_datasets_at_urls(kind: str, bucket: Any, tmp_path: Path) -> None:
    rows = formats.make_rows(tmp_path, 10)
    local = getattr(formats, f"as_{kind}")(tmp_path, rows)
    es.embed(local, tmp_path / "local", image=ThumbnailEncoder())
    upload(bucket, tmp_path)
    url = "memory://b/" + (f"{local.name}/data-*.tar" if kind == "tars" else local.name)
    assert counts(es.embed(url, tmp_path / "s", image=ThumbnailEncoder()), "image") == (10, 0, 0, 0)
    assert counts(es.embed(url, tmp_path / "s", image=ThumbnailEncoder()), "image") == (0, 10, 0, 0)
    stores = [es.Store.open(tmp_path / name) for name in ("local", "s")]
    assert (stores[0].space("image").vectors() == stores[1].space("image").vectors()).all()
    uris = stores[1].items.table(["image"]).column("image").to_pylist()
    assert all(uri.startswith(("memory://b/", "memory:///b/")) for uri in uris)


def test_files_that_a_local_table_names(bucket: Any, tmp_path: Path) -> None:
    write_image(tmp_path / "x" / "a.png")
    bucket.put(str(tmp_path / "x" / "a.png"), "/b/a.png")
    uris = ["memory://b/a.png", f"file://{tmp_path}/x/a.png", "memory://b/none.png", "nope://b/a.png"]
    path = write_csv(tmp_path / "t.csv", [{"id": str(i), "image": uri} for i, uri in enumerate(uris)])
    report = es.embed(path, tmp_path / "s", image="hash")
    assert counts(report, "image") == (2, 0, 0, 2)
    reasons = [failure[3] for failure in report.failures]
    assert reasons[0] == "memory://b/none.png: No such file"
    assert "Protocol not known: nope" in reasons[1]
    bucket.pipe_file("/b/a.png", b"changed")  # a URL counts as unchanged until --rehash
    assert counts(es.embed(path, tmp_path / "s", image="hash"), "image") == (0, 2, 0, 2)
    assert counts(es.embed(path, tmp_path / "s", image="hash", rehash=True), "image") == (1, 1, 0, 2)


def test_payloads_at_urls_have_a_limit_too(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PAYLOAD_BYTES", 10)
    memory, asked = fsspec.get_filesystem_class("memory"), []
    read = memory.cat_file

    def cat_file(self: Any, path: str, **options: Any) -> bytes:
        asked.append(options)
        if options and not self.size(path):
            raise OSError("416: Range Not Satisfiable")  # as S3 and HTTP say of no bytes
        return read(self, path, **options)  # type: ignore[no-any-return]

    monkeypatch.setattr(memory, "cat_file", cat_file)
    for size in (0, 10, 11):
        bucket.pipe_file(f"/b/{size}", b"x" * size)
        (tmp_path / str(size)).write_bytes(b"x" * size)
    assert [read_payload(f"memory://b/{size}") for size in (0, 10)] == [b"", b"x" * 10]
    with pytest.raises(PayloadError, match=r"memory://b/11 has more than 10 bytes$"):
        read_payload("memory://b/11")
    assert asked == [{"end": 11}] * 3
    assert read_payload(f"FILE://{tmp_path}/10") == b"x" * 10
    with pytest.raises(PayloadError, match="has 11 bytes, of at most 10"):
        read_payload(f"file://{tmp_path}/11")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PayloadError, match="is not a regular file"):
        read_payload(f"file://{tmp_path}/pipe")


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Reads of the memory filesystem wait until the test is over."""
    over = threading.Event()
    memory = fsspec.get_filesystem_class("memory")
    for name in ("cat_file", "_open", "exists", "info"):
        monkeypatch.setattr(memory, name, lambda *_, **__: over.wait(60) and None)
    yield
    over.set()


def test_a_read_that_hangs_is_a_failure(hanging: None, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", [{"id": "a", "image": "memory://b/a.png"}])
    report = es.embed(path, tmp_path / "s", image="hash", timeout=0.05)
    assert counts(report, "image") == (0, 0, 0, 1)
    assert report.failures[0][3] == "memory://b/a.png: no answer in 0.05 s; --timeout raises the limit"
    with pytest.raises(SourceError, match=r"memory://b/x\.tar: no answer in 0.05 s"):
        open_source("memory://b/x.tar", timeout=0.05)
    with pytest.raises(UsageError, match="timeout must be above 0"):
        es.embed(path, tmp_path / "s", image="hash", timeout=0)


def test_a_stream_that_hangs_half_way(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.pipe_file("/b/x.txt", b"a.png\n")
    over = threading.Event()
    with open_file("memory://b/x.txt", timeout=0.05) as file:
        monkeypatch.setattr(file, "_file", type("Hanging", (), {"read": lambda *_: over.wait(60), "close": over.set})())
        with pytest.raises(SourceError, match=r"no answer in 0\.05 s"):
            file.read(10)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    fsspec.filesystem("memory")
    with pytest.raises(MissingDependencyError, match=r"Reading s3:// needs a package of its own\. Run: pip install s3fs"):
        read_payload("s3://b/a.png")
    monkeypatch.setitem(__import__("sys").modules, "fsspec.core", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'embedstore\[remote\]'"):
        read_payload("memory://b/a.png")
    with pytest.raises(PayloadError, match="is not a local file"):
        read_file("memory://b/a.png")


def test_what_is_not_there(bucket: Any) -> None:
    for name in ("t.csv", "t.parquet", "l.txt", "a.png", "folder"):
        with pytest.raises(SourceError, match=rf"memory://b/{name} does not exist"):
            open_source(f"memory://b/{name}")
    with pytest.raises(SourceError, match=r"x\.tar cannot be read: No such file"):
        open_source("memory://b/x.tar")
    bucket.pipe_file("/b/empty.csv", b"")
    with pytest.raises(SourceError, match="is empty"):
        open_source("memory://b/empty.csv")


def test_relative_paths() -> None:
    assert relative_to("s3://b/d", "x/a.png") == "s3://b/d/x/a.png"
    assert relative_to("s3://b/d", "/c/a.png") == "s3:///c/a.png"
    assert relative_to("/d", "../a.png") == "/a.png"
    assert relative_to("/d", "gs://b/a.png") == "gs://b/a.png"

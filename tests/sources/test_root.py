"""`--root` confines what a table of others leads to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers import run, write_csv, write_image

import embedstore as es
from embedstore.errors import PayloadError, UsageError


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A table in a folder of its own, that leads out of it in every way there is."""
    inside = tmp_path / "theirs"
    secret = write_image(tmp_path / "private" / "secret.png")
    write_image(inside / "images" / "mine.png", seed=1)
    (inside / "images" / "link.png").symlink_to(secret)
    (inside / "images" / "linked").symlink_to(secret.parent)
    (inside / "images" / "fine.png").symlink_to(inside / "images" / "mine.png")
    paths = {
        "mine": "images/mine.png",
        "fine": "images/fine.png",
        "as url": f"file://{inside}/images/mine.png",
        "absolute": str(secret),
        "dots": "../private/secret.png",
        "link": "images/link.png",
        "folder link": "images/linked/secret.png",
        "file": f"file://{secret}",
        "encoded": f"file://{inside}/%2e%2e/private/secret.png",
        "web": "https://example.invalid/a.png",
        "bucket": "s3://bucket/a.png",
        "neighbour": f"{inside}-too/a.png",
    }
    return write_csv(inside / "table.csv", [{"id": name, "image": path} for name, path in paths.items()])


def test_payloads_outside_the_root_are_failures(theirs: Path, tmp_path: Path) -> None:
    report = es.embed(theirs, tmp_path / "s", image="hash:8", root=theirs.parent)
    store = es.Store.open(tmp_path / "s")
    assert report.spaces["image"].failed == 9
    assert set(store.items.take(store.space("image").rows, ["id"]).column("id").to_pylist()) == {"mine", "fine", "as url"}
    reasons = {row["id"]: row["reason"] for row in store.space("image").failures.to_pylist()}
    assert "is not below --root" in reasons["dots"]
    assert "is a URL" in reasons["web"]
    sizes = store.items.table(["id", "image.size"]).to_pylist()
    assert {row["id"] for row in sizes if row["image.size"] is not None} == {"mine", "fine", "as url"}


def test_strict_stops_at_the_first(theirs: Path, tmp_path: Path) -> None:
    with pytest.raises(PayloadError, match="--root"):
        es.embed(theirs, tmp_path / "s", image="hash:8", root=theirs.parent, strict=True)


def test_texts_in_files_are_confined_too(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret words")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").write_text("words")
    os.symlink(tmp_path / "secret.txt", folder / "b.txt")
    (folder / "list.lst").write_text("a.txt\n../secret.txt\n")
    for dataset in (folder, folder / "list.lst"):
        path = tmp_path / f"s-{dataset.name}"
        report = es.embed(dataset, path, text="hash:8", root=folder)
        assert (report.spaces["text"].embedded, report.spaces["text"].failed) == (1, 1)
        assert "secret words" not in es.Store.open(path).items.table(["text"]).column("text").to_pylist()


def test_a_root_is_a_folder(theirs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a folder"):
        es.embed(theirs, tmp_path / "s", image="hash:8", root=theirs)
    assert not (tmp_path / "s").exists()


def test_the_command_line_has_it(theirs: Path, tmp_path: Path) -> None:
    done = run("embed", theirs, "--store", tmp_path / "s", "--image", "hash:8", "--root", theirs.parent)
    assert "9 failed" in " ".join(done.stdout.split()), done.stdout

"""WebDataset tars: grouping, metadata, img2dataset's folders, damage."""

from __future__ import annotations

import gzip
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import formats
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from formats import write_tar
from helpers import write_image

import embedstore as es
from embedstore.errors import DuplicateIdError, SourceError, UsageError
from embedstore.sources import WebDatasetSource, open_source


def rows_of(source: Any) -> list[dict[str, Any]]:
    return pa.Table.from_batches(list(source.batches())).to_pylist()


def error_of(function: Any, *arguments: Any) -> str:
    with pytest.raises((SourceError, UsageError)) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_members_that_share_a_key_are_one_item(tmp_path: Path) -> None:
    members = {
        "./a/1.JPG": b"A", "./a/1.txt": "\ufeff eins \n".encode(), "./a/1.cls": b"3\n", "./a/1.npy": b"never read",
        "./a/2.seg.png": b"S", "./a/2.json": b'{"n": 1, "label": "x", "box": [1, 2]}',
        "b.c/3.flac": b"F", "b.c/3.caption": b" ", ".hidden.jpg": b"H", "README": b"R",
    }  # fmt: skip
    path = write_tar(tmp_path / "x.tar", members)
    source = WebDatasetSource([str(path)])
    assert source.modalities == ("image", "audio", "text")
    assert rows_of(source) == [
        {
            **{"id": "a/1", "image": f"{path}#./a/1.JPG", "image.bytes": b"A", "audio": None, "audio.bytes": None},
            **{"text": "eins", "text.failed": None, "label": "3", "n": None, "label_": None, "box": None},
        },
        {
            **{"id": "a/2", "image": f"{path}#./a/2.seg.png", "image.bytes": b"S", "audio": None, "audio.bytes": None},
            **{"text": None, "text.failed": None, "label": None, "n": 1, "label_": "x", "box": [1, 2]},
        },
        {
            **{"id": "b.c/3", "image": None, "image.bytes": None, "audio": f"{path}#b.c/3.flac", "audio.bytes": b"F"},
            **{"text": None, "text.failed": None, "label": None, "n": None, "label_": None, "box": None},
        },
    ]


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tgz", "tar.zst", "tar.bz2"])
def test_compressed_shards(ending: str, tmp_path: Path) -> None:
    plain = write_tar(tmp_path / "p", {f"{i}.txt": f"text {i}".encode() for i in range(5)})
    codec = {"tar": None, "tar.gz": "gzip", "tgz": "gzip", "tar.zst": "zstd", "tar.bz2": "bz2"}[ending]
    with pa.output_stream(tmp_path / f"x.{ending}", compression=codec) as out:
        out.write(plain.read_bytes())
    found = rows_of(open_source(tmp_path / f"x.{ending}"))
    assert [(row["id"], row["text"]) for row in found] == [(str(i), f"text {i}") for i in range(5)]
    whole = (tmp_path / f"x.{ending}").read_bytes()
    (tmp_path / f"x.{ending}").write_bytes(whole[: len(whole) // 2])
    assert f"x.{ending} is damaged" in error_of(lambda: rows_of(open_source(tmp_path / f"x.{ending}")))


def test_the_folder_that_img2dataset_writes(tmp_path: Path) -> None:
    schema = pa.schema([("caption", pa.string()), ("key", pa.string()), ("status", pa.string()), ("width", pa.int32())])
    schema = schema.append(pa.field("error_message", pa.null()))
    for shard in range(2):
        keys = [f"{shard:05d}{i:04d}" for i in range(4)]
        rows = [
            {"caption": f"c{k}", "key": k, "status": "success" if i else "failed_to_download", "width": i}
            for i, k in enumerate(keys)
        ]
        members = {}
        for key in keys[1:]:
            picture = write_image(tmp_path / "picture.jpg", seed=int(key)).read_bytes()
            members |= {f"{key}.jpg": picture, f"{key}.txt": f"c{key}".encode(), f"{key}.json": b'{"other": 1}'}
        write_tar(tmp_path / "out" / f"{shard:05d}.tar", members)
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "out" / f"{shard:05d}.parquet")
        (tmp_path / "out" / f"{shard:05d}_stats.json").write_text(json.dumps({"count": 4, "successes": 3}))
    source = open_source(tmp_path / "out")
    assert (source.count(), source.modalities) == (6, ("image", "text"))
    found = rows_of(source)
    assert [row["id"] for row in found] == ["000000001", "000000002", "000000003", "000010001", "000010002", "000010003"]
    assert {row["status"] for row in found} == {"success"}
    assert [row["width"] for row in found] == [1, 2, 3] * 2
    assert all(row["text"] == row["caption"] for row in found)
    assert found[0].keys() == {"id", "image", "text", "text.failed", "image.bytes", "caption", "status", "width"}
    (tmp_path / "out" / "00001.parquet").unlink()
    assert "00001.parquet: No such file or directory. The first shard has such a file" in error_of(rows_of, source)


def test_names_choose_members_and_metadata(tmp_path: Path) -> None:
    members = {"1.left.jpg": b"L", "1.right.jpg": b"R", "1.json": b'{"uid": 17, "alt": "words"}'}
    path = write_tar(tmp_path / "x.tar", members)
    assert "sample '1' has left.jpg and right.jpg. Name one: --image-column left.jpg" in error_of(open_source, path)
    source = open_source(path, {"image": "right.jpg", "id": "uid", "text": "alt"})
    row = rows_of(source)[0]
    assert (row["id"], row["image.bytes"], row["text"], row["uid"]) == ("17", b"R", "words", 17)
    message = error_of(open_source, path, {"image": "png"})
    assert "has no 'png' for --image-column. There is: left.jpg, right.jpg, json." in message
    assert "holds nothing of a known type" in error_of(open_source, write_tar(tmp_path / "y.tar", {"a.npy": b""}))


def test_a_key_in_two_shards_says_which_and_what_to_do(tmp_path: Path) -> None:
    for name in "ab":
        write_tar(tmp_path / f"{name}.tar", {f"{i}.txt": f"{name} {i}".encode() for i in range(3)})
    with pytest.raises(DuplicateIdError) as caught:
        es.embed(tmp_path, tmp_path / "s", text="hash")
    shards = f"They lie in {tmp_path}/a.tar and {tmp_path}/b.tar; --id-column shard/key"
    assert f"items 1 and 4 both have the id '0'. {shards}" in str(caught.value)
    assert es.embed(tmp_path, tmp_path / "s", text="hash", columns={"id": "shard/key"}).items == 6
    assert es.Store.open(tmp_path / "s").items.table(["id"]).column("id").to_pylist()[3] == "b/0"
    apart = [("1.txt", b"x"), ("2.txt", b"y"), ("1.json", b"{}")]
    write_tar(tmp_path / "c" / "c.tar", apart)
    with pytest.raises(DuplicateIdError, match="The members of a sample have to follow one another"):
        es.embed(tmp_path / "c", tmp_path / "t", text="hash")
    write_tar(tmp_path / "d.tar", [("1.txt", b"x"), ("1.txt", b"y")])
    assert "sample '1' has two members ending in .txt" in error_of(open_source, tmp_path / "d.tar")


def test_damage_is_never_taken_for_the_end(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "whole.tar", {f"{i}.txt": b"x" * 900 for i in range(3)}).read_bytes()
    path = tmp_path / "x.tar"
    for cut, after in ((700, ""), (1536, "0.txt"), (1700, "0.txt"), (2500, "0.txt"), (3 * 1536, "2.txt")):
        path.write_bytes(whole[:cut])
        message = error_of(lambda: rows_of(open_source(path)))
        assert message.startswith(f"{path} is damaged {f'after {after!r}, byte ' if after else 'at its start'}"), (cut, message)
        assert "Fetch it again, or leave it out; what was committed is kept." in message
    path.write_bytes(whole[:1536] + b"\xff" * 512 + whole[2048:])
    assert "damaged after '0.txt', byte 1,412: bad checksum" in error_of(lambda: rows_of(open_source(path)))
    path.write_bytes(b"this is no tar" * 100)
    assert "damaged at its start" in error_of(open_source, path)
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(whole)[:-30] + b"\0" * 30)
    assert "x.tar.gz is damaged" in error_of(lambda: rows_of(open_source(tmp_path / "x.tar.gz")))
    path.write_bytes(b"")
    assert "damaged at its start: the file ends without the end mark" in error_of(open_source, path)


def test_what_follows_the_end_mark_is_no_silent_end(tmp_path: Path) -> None:
    one, two = (write_tar(tmp_path / f"{i}.tar", {f"{i}.txt": b"words"}).read_bytes() for i in (1, 2))
    for name, content in {"x.tar": one + two, "x.tar.gz": gzip.compress(one) + gzip.compress(two)}.items():
        (tmp_path / name).write_bytes(content)
        message = error_of(lambda name=name: rows_of(open_source(tmp_path / name)))
        assert f"{name} is damaged after '1.txt', byte 517: something follows its end mark" in message
    (tmp_path / "x.tar").write_bytes(one + bytes(3 << 20))  # filled up
    assert [row["id"] for row in rows_of(open_source(tmp_path / "x.tar"))] == ["1"]


def test_a_damaged_shard_keeps_what_was_committed(tmp_path: Path) -> None:
    for shard in range(2):
        write_tar(tmp_path / f"{shard}.tar", {f"{shard}-{i}.txt": f"{shard} {i}".encode() for i in range(3500)})
    whole = (tmp_path / "1.tar").read_bytes()
    (tmp_path / "1.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"1\.tar is damaged after '1-\d+\.txt'"):
        es.embed(tmp_path, tmp_path / "s", text="hash:8")
    assert len(es.Store.open(tmp_path / "s")) == 4096
    (tmp_path / "1.tar").write_bytes(whole)
    report = es.embed(tmp_path, tmp_path / "s", text="hash:8")
    assert (report.spaces["text"].embedded, report.spaces["text"].unchanged) == (7000 - 4096, 4096)


def test_metadata_that_changes_its_type_names_the_sample(tmp_path: Path) -> None:
    members = {f"{i}.json": b'{"n": 1}' for i in range(1000)} | {"late.json": b'{"n": "one"}', "0.txt": b"x"}
    path = write_tar(tmp_path / "x.tar", sorted(members.items()))
    said = error_of(lambda: rows_of(open_source(path)))
    assert "x.tar: sample 'late': 'n' is \"one\", no integer like the values before it" in said
    write_tar(path, {"a.txt": b"x", "a.json": b"{"})
    assert "sample 'a': its json is not JSON" in error_of(open_source, path)


def test_as_the_package_reads_it(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    rows = formats.make_rows(tmp_path, 10)
    formats.as_tars(tmp_path, rows)
    shards = sorted(map(str, (tmp_path / "tars").glob("*.tar")))
    expected = list(webdataset.WebDataset(shards, shardshuffle=False))
    found = rows_of(open_source(tmp_path / "tars"))
    assert [row["id"] for row in found] == [sample["__key__"] for sample in expected]
    assert [row["image.bytes"] for row in found] == [sample.get("jpg") or sample.get("png") for sample in expected]


@pytest.mark.parametrize("kind", ["hard", "symbolic"])
@pytest.mark.parametrize("name", ["b.png", "a.txt", "a.cls", "b.json", "b.seg.JPG", "./c/d.flac"])
def test_links_in_place_of_members_are_refused(kind: str, name: str, tmp_path: Path) -> None:
    folder, path = tmp_path / "d", tmp_path / "x.tar"
    (folder / name).parent.mkdir(parents=True)
    (folder / "a.jpg").write_bytes(b"A")
    (os.link if kind == "hard" else os.symlink)(folder / "a.jpg", folder / name)

    def pack(dereference: bool) -> None:
        with tarfile.open(path, "w", dereference=dereference) as tar:
            for member in ("a.jpg", name):
                tar.add(folder / member, member)

    pack(dereference=False)
    message = error_of(open_source, path)
    assert f"{path}: {name!r} is a {kind} link to" in message
    assert message.endswith("Make it again without links: tar --dereference --hard-dereference.")
    pack(dereference=True)
    with tarfile.open(path) as tar:
        assert [member.name for member in tar if member.isreg()] == ["a.jpg", name]


def link(name: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "0.txt"
    return info


def test_a_late_link_is_refused_and_links_that_are_no_members_are_skipped(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", {f"{i}.txt": f"text {i}".encode() for i in range(1500)})
    with tarfile.open(path, "a") as tar:
        for name in ("folder", "README", "0.npy", ".hidden.txt", "v1.2"):
            tar.addfile(link(name))
            tar.addfile(link(name, tarfile.LNKTYPE))
    assert len(rows_of(open_source(path))) == 1500
    with tarfile.open(path, "a") as tar:
        tar.addfile(link("late.txt", tarfile.LNKTYPE))
    source = open_source(path)
    assert f"{path}: 'late.txt' is a hard link to '0.txt'" in error_of(rows_of, source)


def test_a_link_whose_extension_is_named_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", {"0.raw": b"A", "0.txt": b"x"})
    with tarfile.open(path, "a") as tar:
        tar.addfile(link("1.raw"))
    assert open_source(path).modalities == ("text",)
    source = open_source(path, {"image": "raw"})
    assert "'1.raw' is a symbolic link" in error_of(rows_of, source)


def test_names_with_dots_never_lose_an_item(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"Track 2.0 (Clean).txt": b"a", "Track 2.1 (Live).txt": b"b"})
    message = error_of(open_source, path)
    assert "'Track 2.0 (Clean).txt' and 'Track 2.1 (Live).txt': a key ends at the first dot" in message
    assert "Name one" not in message
    mixed = write_tar(tmp_path / "b.tar", {"v 1.0.jpg": b"A", "v 1.1.txt": b"b", "w.txt": b"c"})
    assert "is made of 'v 1.0.jpg' and 'v 1.1.txt': a key ends" in error_of(lambda: rows_of(open_source(mixed)))
    folder = tmp_path / "unpacked"
    with tarfile.open(path) as tar:
        tar.extractall(folder, filter="data")
    assert len(rows_of(open_source(folder))) == 2
    one = write_tar(tmp_path / "d.tar", {"Track 2.0.jpg": b"A", "Track 2.0.txt": b"b"})
    assert [(row["image.bytes"], row["text"]) for row in rows_of(open_source(one))] == [(b"A", "b")]
    parts = {f"{i}.{part}": b"x" for i in range(3) for part in ("rgb.jpg", "caption.txt")}
    assert len(rows_of(open_source(write_tar(tmp_path / "e.tar", parts)))) == 3


def test_members_that_are_not_read_are_counted(tmp_path: Path) -> None:
    members = {f"{i}.txt": b"text" for i in range(1001)}
    members |= {"0.npy": b"", "1.heic": b"", "2.heic": b"", "3.left.txt": b"left", "README": b"", "._4.txt": b""}
    members = dict(sorted(members.items(), key=lambda entry: entry[0].split(".")[0].zfill(5)))
    path = write_tar(tmp_path / "a.tar", members | {"9999.wav": b"", "9999.json": b'{"image": 1}', "9999.cls": b"7"})
    source = open_source(path)
    found = rows_of(source)
    assert (len(found), found[-1]["label"], found[-1]["image_"]) == (1002, "7", 1)
    assert source.notes == [
        "Column 'image' is kept as 'image_'.",
        "left out: 2 .heic (no decoder); convert them to JPEG or PNG.",
        "left out: 1 .npy, 1 without an ending (not of a known type).",
        "left out: 1 hidden file (such as '._4.txt').",
        "left out: 1 text member beside the one that is read (such as '3.left.txt').",
        "left out: 1 audio member of which the first 1,000 samples have none (such as '9999.wav').",
    ]
    report = es.embed(path, tmp_path / "s", text="hash:8")
    assert report.notes[: len(source.notes)] == source.notes


def test_what_a_parquet_beside_a_shard_leaves_out_is_counted(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"0.txt": b"a", "0.json": b'{"x": 1}', "1.txt": b"b", "2.txt": b"c"})
    rows = [{"key": "0", "n": 1, "error": None}, {"key": "1", "n": 2, "error": None}, {"key": "gone", "n": 3, "error": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    source = open_source(path)
    for _ in range(2):
        assert [row["n"] for row in rows_of(source)] == [1, 2, None]
        assert source.notes == [
            "1 samples have no row in the Parquet file beside their shard.",
            "1 rows of the Parquet files beside the shards have no sample.",
            "left out: 1 .json (Parquet files beside the shards give the metadata).",
            "Columns without a value are not kept: 'error'.",
        ]
    pq.write_table(pa.Table.from_pylist([{"name": "0", "n": 1}]), tmp_path / "a.parquet")
    source = open_source(path)
    assert [row["x"] for row in rows_of(source)] == [1, None, None]
    assert source.notes == [f"{tmp_path}/a.parquet has no column 'key' and was not read."]


def test_what_lies_beside_tars_is_counted(tmp_path: Path) -> None:
    for name in ("a.tar", "more/b.tar"):
        write_tar(tmp_path / name, {"1.txt": b"x"})
    for name in ("a_stats.json", "x.heic", "notes.md", ".cache"):
        (tmp_path / name).write_bytes(b"{}")
    source = open_source(tmp_path)
    assert len(rows_of(source)) == 1
    assert source.notes == [  # type: ignore[attr-defined]
        "left out: 1 .heic (no decoder); convert them to JPEG or PNG.",
        "left out: 1 .md (not of a known type).",
        "left out: 1 hidden file (such as '.cache').",
        "left out: 1 folder beside the tars (such as 'more').",
    ]

"""What becomes no item of a folder or a list is counted and named: in the report and in `--json`."""

from __future__ import annotations

import io
import json
import os
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from embedstore_cli.main import app
from helpers import write_image
from PIL import Image
from typer.testing import CliRunner

import embedstore as es
from embedstore.encoders.payloads.images import decode_rgb
from embedstore.errors import SourceError, UsageError
from embedstore.sources import FolderSource, open_source
from embedstore.sources.base import EXTENSIONS


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def read(source: object) -> list[dict[str, object]]:
    return pa.Table.from_batches(list(source.batches())).to_pylist()  # type: ignore[attr-defined]


def test_pictures_without_a_decoder_are_counted_by_ending(tmp_path: Path) -> None:
    write_image(tmp_path / "d" / "a.png")
    touch(tmp_path / "d", "1.HEIC", "x/2.heic", "3.jxl", "4.svg", "5.cr2", "notes.md", "README")
    run = CliRunner().invoke(app, ["embed", str(tmp_path / "d"), "--store", str(tmp_path / "s"), "--image", "hash:8", "--json"])
    assert json.loads(run.stdout)["notes"] == [
        "left out: 2 .heic, 1 .cr2, 1 .jxl, 1 .svg (no decoder); convert them to JPEG or PNG.",
        "left out: 1 .md, 1 without an ending (not of a known type).",
    ]
    with pytest.raises(SourceError, match=r"no file of a known type.*left out: 1 .heic"):
        FolderSource(tmp_path / "d" / "x")


@pytest.mark.parametrize("ending", ["jp2", "j2k", "jpx", "ico", "icns", "tga", "dds", "qoi", "pcx", "dib", "pbm", "apng"])
def test_formats_that_pillow_decodes_give_their_pixels(ending: str) -> None:
    assert f".{ending}" in EXTENSIONS["image"]
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    pixels = np.where(pixels[..., :1] > 127, 255, 0).repeat(3, 2).astype(np.uint8) if ending == "pbm" else pixels
    image = Image.fromarray(pixels)
    named = {"jpx": "JPEG2000", "pbm": "PPM", "apng": "PNG", "j2k": "JPEG2000", "jp2": "JPEG2000"}
    buffer = io.BytesIO()
    image = image.convert("1", dither=Image.Dither.NONE) if ending == "pbm" else image
    options = {"no_jp2": True} if ending == "j2k" else {"sizes": [(16, 16), (64, 64)]} if ending == "ico" else {}
    image.save(buffer, named.get(ending, ending.upper()), **options)
    found = np.asarray(decode_rgb(buffer.getvalue(), max_pixels=10**7))
    if ending == "icns":  # holds the picture in several sizes, the largest scaled up
        assert found.shape[0] >= 64
    else:
        assert np.array_equal(found, pixels)


def test_an_icon_gives_its_largest_frame_on_white() -> None:
    image = Image.new("RGBA", (48, 48), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 24, 48))
    buffer = io.BytesIO()
    image.save(buffer, "ICO", sizes=[(16, 16), (48, 48)])
    found = np.asarray(decode_rgb(buffer.getvalue(), max_pixels=10**6))
    assert found.shape == (48, 48, 3)
    assert (found[:, :24] == (255, 0, 0)).all()
    assert (found[:, 24:] == 255).all()


def test_what_is_hidden_linked_wrongly_or_a_store_is_counted(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    write_image(folder / "a.png")
    touch(folder, ".DS_Store", ".cache/b.png", "old/store.json")
    (folder / "gone").symlink_to("nowhere")
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "up").symlink_to(".")
    (folder / "empty.png").touch()
    source = FolderSource(folder)
    assert [row["id"] for row in read(source)] == ["a.png", "empty.png", "gone.png"]
    assert source.notes == [
        "left out: 1 hidden file (such as '.DS_Store').",
        "left out: 1 hidden folder (such as '.cache').",
        "left out: 1 link to a folder above (such as 'up').",
        "left out: 1 link to nothing (such as 'gone').",
        "left out: 1 store of embedstore (such as 'old').",
    ]
    report = es.embed(folder, tmp_path / "s", image="hash:8")
    assert {item: stage for _, item, stage, _ in report.failures}["gone.png"] == "read"


def test_a_folder_that_cannot_be_read_is_named_and_nothing_is_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "d"
    write_image(folder / "a.png")
    write_image(folder / "shut" / "b.png", 1)
    es.embed(folder, tmp_path / "s", image="hash:8")
    scandir = os.scandir

    def refusing(path: str = ".") -> object:
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    source = FolderSource(folder)
    read(source)
    assert source.notes == [f"left out: 1 folder that cannot be read (the first: {folder}/shut: Permission denied)."]
    with pytest.raises(UsageError, match=r"--prune removed nothing.*shut"):
        es.embed(folder, tmp_path / "s", image="hash:8", prune=True)
    assert len(es.Store.open(tmp_path / "s")) == 2


def test_texts_go_with_the_file_whose_name_they_bear(tmp_path: Path) -> None:
    for name in ("Track 2.0.jpg", "photo.jpg", "photo.png", "one.jpg"):
        write_image(tmp_path / name)
    texts = {
        "Track 2.0.txt": "two",
        "photo.jpg.txt": "whole",
        "photo.txt": "stem",
        "one.jpg.txt": "1",
        "one.txt": "own",
        "b.c.txt": "bc",
        "b.c.txt.txt": "of a text",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    source = FolderSource(tmp_path)
    assert {row["id"]: row["text"] for row in read(source)} == {
        "Track 2.0.jpg": "two",
        "photo.jpg": "whole",
        "photo.png": "stem",
        "one.jpg": "1",
        "one.txt": "own",
        "b.c.txt": "bc",
        "b.c.txt.txt": "of a text",
    }
    assert source.notes == []


def test_second_files_of_one_name_are_counted(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    touch(tmp_path, "a.mp3", "a.wav", "a.txt", "a.TXT")
    source = FolderSource(tmp_path)
    (row,) = read(source)
    assert row["audio"] == str(tmp_path / "a.mp3")
    assert source.notes == [
        "left out: 1 audio file beside another of the same name (such as 'a.wav').",
        "left out: 1 text beside another of the same name (such as 'a.txt').",
    ]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_a_table_of_the_folders_files_names_the_command(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "my photos"
    write_image(folder / "a.png")
    write_image(folder / "b.png", 1)
    path = folder / f"metadata.{kind}"
    rows = [{"file_name": "a.png", "mood": "calm"}, {"file_name": "b.png", "mood": "glad"}]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        mark = "\t" if kind == "tsv" else ","
        path.write_text("".join(mark.join(line) + "\n" for line in [("file_name", "mood"), *(r.values() for r in rows)]))
    (folder / "other.csv").write_text("x,y\n1,2\n")
    report = es.embed(folder, tmp_path / "s", image={"im": "hash:8"})
    *rest, note = report.notes
    assert rest == ["left out: 1 .csv (not of a known type)."]
    assert "(column 'file_name') and was not read" in note
    command = shlex.split(note.partition("instead: ")[2])
    assert command[:3] == ["embedstore", "embed", str(path)]
    command[command.index("--store") + 1] = str(tmp_path / "t")
    assert CliRunner().invoke(app, command[1:]).exit_code == 0
    store = es.Store.open(tmp_path / "t")
    assert sorted(store.items.take(store.items.rows, ["mood"]).column("mood").to_pylist()) == ["calm", "glad"]
    assert list(store.spaces) == ["im"]


def test_lists_count_pictures_without_a_decoder(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    (tmp_path / "l.txt").write_text("a.png\nb.HEIC\nc.jxl\n")
    source = open_source(str(tmp_path / "l.txt"))
    assert [row["id"] for row in read(source)] == ["a.png"]
    assert source.count() == 1
    assert source.notes == ["left out: 1 .heic, 1 .jxl (no decoder); convert them to JPEG or PNG."]  # type: ignore[attr-defined]
    (tmp_path / "m.txt").write_text("b.heic\n")
    with pytest.raises(SourceError, match=r"left out: 1 .heic"):
        open_source(str(tmp_path / "m.txt"))


def test_what_is_not_there_is_told_in_a_few_words(tmp_path: Path) -> None:
    write_image(tmp_path / "photos" / "a.png")
    touch(tmp_path, "photos.csv", "notes.md", ".photo")
    (tmp_path / "link").symlink_to("nowhere")
    for given, words in {
        "Photo": f"Photo does not exist. Similar names in {tmp_path}: photos, photos.csv.",
        "notes": f"notes does not exist. Similar names in {tmp_path}: notes.md.",
        "zebra.csv": "zebra.csv does not exist.",
        "album/2024/a.csv": f"album/2024/a.csv does not exist: there is no folder {tmp_path}/album.",
        "phots/a.png": f"phots/a.png does not exist: there is no folder {tmp_path}/phots. "
        f"Similar names in {tmp_path}: photos, photos.csv.",
        "notes.md/a.png": f"notes.md/a.png does not exist: {tmp_path}/notes.md is a file.",
        "link": "link is a link to nothing.",
    }.items():
        with pytest.raises(SourceError) as told:
            open_source(tmp_path / given)
        assert str(told.value) == f"{tmp_path}/{words}"
        with pytest.raises(SourceError) as told:
            es.import_vectors(tmp_path / given, tmp_path / "s", modality="text")
        assert str(told.value) == f"{tmp_path}/{words}"
    with pytest.raises(SourceError, match=r"notes\.md: expected a file ending in .csv.*, or a folder \(of media"):
        open_source(tmp_path / "notes.md")
    with pytest.raises(SourceError, match="DATASET is empty: name a folder"):
        open_source("")


def test_a_store_is_no_dataset(tmp_path: Path) -> None:
    """Neither where it is named, nor where it lies beside the parts of a table or beside arrays."""
    folder = tmp_path / "data"
    for i in range(2):
        (folder / "parts").mkdir(parents=True, exist_ok=True)
        table = pa.table({"id": [f"{i}-{n}" for n in range(3)], "text": [f"text {n}" for n in range(3)]})
        pq.write_table(table, folder / "parts" / f"part-{i}.parquet")
    first = es.embed(folder, folder / "a.store", text="hash:8")
    again = es.embed(folder, folder / "a.store", text="hash:8")
    assert (first.items, again.items, again.spaces["text"].unchanged) == (6, 6, 6)
    assert "left out: 1 store of embedstore (such as 'a.store')." in again.notes
    assert [row["id"] for row in read(open_source(folder))] == ["0-0", "0-1", "0-2", "1-0", "1-1", "1-2"]
    with pytest.raises(SourceError, match=r"a\.store is a store of embedstore, no dataset: give the folder or table that"):
        open_source(folder / "a.store")
    np.save(folder / "x.npy", np.eye(3, dtype=np.float32))
    report = es.import_vectors(folder, tmp_path / "b.store", modality="text")
    assert report.items == 3
    assert "left out: 1 store of embedstore (such as 'a.store')." in report.notes
    with pytest.raises(SourceError, match=r"a\.store/embeddings\.h5:/SPACE/vectors"):
        es.import_vectors(folder / "a.store", tmp_path / "b.store", modality="text")

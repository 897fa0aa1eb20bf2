"""Extraction: what is embedded, what is left alone, what fails and what that costs."""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import write_csv, write_image
from PIL import Image

import embedstore as es
from embedstore._core import keys
from embedstore._core.keys import KeyTable
from embedstore.encoders.base import Outside, outside_of, prepare_all, stands_for
from embedstore.encoders.cut import Cut
from embedstore.encoders.hash import HashEncoder
from embedstore.encoders.payloads.images import ImageTransform
from embedstore.errors import (
    DuplicateIdError,
    EncoderError,
    EncoderOutOfMemoryError,
    PayloadError,
    SourceError,
    UsageError,
)
from embedstore.ingest import produce, readers
from embedstore.ingest.claims import SpaceState
from embedstore.ingest.consume import Encoding
from embedstore.ingest.engines import local
from embedstore.ingest.produce import Batch, ChunkEnd
from embedstore.ingest.stages import Clock
from embedstore.sources import MemorySource
from embedstore.store.space import Space

TRANSFORM = ImageTransform((8, 8), "shortest", 8, "bicubic", (0.5,) * 3, (0.5,) * 3)


class PixelEncoder(HashEncoder):
    """Decodes images for real; the vector is the pixels."""

    def __init__(self) -> None:
        super().__init__(192, "image", "pixels")

    def prepare(self, payload: bytes) -> np.ndarray:  # type: ignore[override,type-arg]
        return TRANSFORM(payload, max_pixels=178_956_970)

    def encode(self, batch: Sequence[np.ndarray]) -> np.ndarray:  # type: ignore[override,type-arg]
        return np.stack(batch)[..., :3].reshape(len(batch), -1).astype(np.float32) / 255


def counts(report: es.EmbedReport, space: str) -> tuple[int, int, int, int]:
    s = report.spaces[space]
    return s.embedded, s.unchanged, s.missing, s.failed


def test_a_run_without_anything_new_looks_at_no_payload_and_says_what_took_its_time(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(space: Space) -> KeyTable:
        raise AssertionError("the content hashes of a whole space were gathered")

    path = tmp_path / "s.store"
    es.embed(table, path, text="hash:64")
    monkeypatch.setattr(Space, "hash_table", property(refuse))
    clock = Clock()
    monkeypatch.setattr("embedstore.ingest.embed.Clock", lambda: clock)
    report = es.embed(table, path, text="hash:64")
    assert report.spaces["text"].unchanged + report.spaces["text"].missing == report.items
    assert clock.busy["compare"] > 0
    assert clock.busy["encode"] == 0
    assert set(report.shares) == {"read", "compare", "decode", "encode", "write"}


def edit(path: Path, change: Mapping[int, Mapping[str, str]]) -> None:
    with open(path, newline="", encoding="utf-8") as file:
        rows = [{**row, **change.get(i, {})} for i, row in enumerate(csv.DictReader(file))]
    write_csv(path, rows)


def test_first_run_second_run(table: Path, tmp_path: Path) -> None:
    first = es.embed(table, tmp_path / "s", image="hash", text="hash")
    assert first.items == first.added == 12
    assert counts(first, "image") == (12, 0, 0, 0)
    assert first.spaces["image"].distinct == 11  # one file twice
    assert counts(first, "text") == (11, 0, 1, 0)
    before = (tmp_path / "s" / "store.json").read_bytes()
    second = es.embed(table, tmp_path / "s", image="hash", text="hash")
    assert counts(second, "image") == (0, 12, 0, 0)
    assert counts(second, "text") == (0, 11, 1, 0)
    assert (second.added, second.updated) == (0, 0)
    assert (tmp_path / "s" / "store.json").read_bytes() == before


def test_exactly_the_changed_payloads_are_embedded(store: es.Store, table: Path) -> None:
    write_image(table.parent / "images" / "5.png", seed=99)
    edit(table, {8: {"text": "a new title"}})
    report = es.embed(table, store)  # with the store's own encoders
    assert counts(report, "image") == (1, 11, 0, 0)
    assert counts(report, "text") == (1, 10, 1, 0)
    assert (report.added, report.updated) == (0, 2)
    after = store.refresh()
    assert len(after) == 12
    rows = after.items.rows_of(["item-05", "item-08", "item-04"])
    assert rows.tolist() == [12, 13, 4]
    encoder = HashEncoder(32, "image")
    fresh = encoder.encode([(table.parent / "images" / "5.png").read_bytes()])
    np.testing.assert_array_equal(after.space("image").take(rows[:1]), fresh.astype(np.float16))
    old = store.items.rows_of(["item-05"])
    np.testing.assert_array_equal(after.space("text").take(rows[:1]), store.space("text").take(old))
    assert es.verify(after).clean
    assert counts(es.embed(table, store.refresh()), "image") == (0, 12, 0, 0)


def test_metadata_changes_move_no_vector_through_an_encoder(store: es.Store, table: Path) -> None:
    edit(table, {2: {"label": "changed", "price": ""}})
    report = es.embed(table, store)
    assert [counts(report, s)[0] for s in ("image", "text")] == [0, 0]
    assert report.updated == 1
    after = store.refresh()
    item = after.items.take(after.items.rows_of(["item-02"])).to_pylist()[0]
    assert (item["label"], item["price"]) == ("changed", None)
    assert after.space("image").has(after.items.rows_of(["item-02"]))[0]


def test_a_touched_file_is_read_but_not_embedded(store: es.Store, table: Path) -> None:
    os.utime(table.parent / "images" / "1.png", (1, 1))
    report = es.embed(table, store)
    assert counts(report, "image") == (0, 12, 0, 0)
    assert report.updated == 0


def test_rehash_finds_a_change_that_size_and_mtime_hide(store: es.Store, table: Path) -> None:
    path = table.parent / "images" / "1.png"
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(bytes(content))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert counts(es.embed(table, store), "image")[0] == 0
    assert counts(es.embed(table, store.refresh(), rehash=True), "image")[0] == 1


def test_a_second_source_adds_a_modality_and_keeps_the_rest(tmp_path: Path, table: Path) -> None:
    es.embed(
        MemorySource({"id": ["item-00", "item-01"], "text": ["a", "b"], "owner": ["x", "y"]}), tmp_path / "s", text="hash:8"
    )
    report = es.embed(table, tmp_path / "s", image="hash:8")
    assert (report.added, report.updated) == (10, 2)
    store = es.Store.open(tmp_path / "s")
    row = store.items.rows_of(["item-00"])
    item = store.items.take(row).to_pylist()[0]
    assert (item["owner"], item["text"], item["label"]) == ("x", "text 0", "even")
    assert store.space("image").has(row)[0]
    assert not store.space("text").has(row)[0]  # its text changed, and this run embedded images only
    assert counts(es.embed(table, store), "text") == (11, 0, 1, 0)


def test_a_second_space_of_one_modality(store: es.Store, table: Path) -> None:
    report = es.embed(table, store, image={"small": "hash:4"})
    assert counts(report, "small") == (12, 0, 0, 0)
    assert report.updated == 0
    assert len(store.refresh().space("small")) == 12
    assert store.refresh().manifest.items == store.manifest.items


def test_duplicate_ids_name_both_rows_and_nothing_is_written(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "d.csv", [{"id": i, "text": "x"} for i in ("a", "b", "a")])
    with pytest.raises(DuplicateIdError, match=r"d\.csv: rows 1 and 3 both have the id 'a'"):
        es.embed(path, tmp_path / "d.store", text="hash")
    assert not (tmp_path / "d.store").exists()
    with pytest.raises(DuplicateIdError, match="items 1 and 3"):
        es.embed(MemorySource({"id": ["a", "b", "a"], "text": ["x"] * 3}), tmp_path / "d.store", text="hash")


@pytest.fixture
def awkward(tmp_path: Path) -> Path:
    """Good and bad files; the good ones' names start with 'good'."""
    folder = tmp_path / "awkward"
    write_image(folder / "good.jpg")
    whole = (folder / "good.jpg").read_bytes()
    (folder / "bad-truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "bad-empty.jpg").write_bytes(b"")
    (folder / "bad-text.png").write_text("this is not a picture")
    Image.new("1", (20_000, 20_000)).save(folder / "bad-huge.png")
    pixels = Image.open(folder / "good.jpg")
    pixels.convert("CMYK").save(folder / "good-cmyk.jpg")
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(ramp).save(folder / "good-16bit.png")
    palette = pixels.convert("P")
    palette.info["transparency"] = 0
    palette.save(folder / "good-palette.png", transparency=0)
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "good-animated.gif", save_all=True, append_images=frames[1:])
    write_image(folder / "good-Ünïcødé 日本.png", seed=3)
    return folder


def test_every_bad_file_is_one_failure_with_its_reason(awkward: Path, tmp_path: Path) -> None:
    report = es.embed(awkward, tmp_path / "s", image=PixelEncoder())
    assert counts(report, "image") == (6, 0, 0, 4)
    store = es.Store.open(tmp_path / "s")
    failures = {row["id"]: (row["stage"], row["reason"]) for row in store.space("image").failures.to_pylist()}
    assert set(failures) == {"bad-truncated.jpg", "bad-empty.jpg", "bad-text.png", "bad-huge.png"}
    assert all(stage == "decode" for stage, _ in failures.values())
    assert "the image is damaged: Truncated File Read" in failures["bad-truncated.jpg"][1]
    assert "empty (0 bytes)" in failures["bad-empty.jpg"][1]
    assert "not an image" in failures["bad-text.png"][1]
    assert "400,000,000 pixels, over the limit of 178,956,970; --max-pixels" in failures["bad-huge.png"][1]
    ids = store.items.take(store.space("image").rows, ["id"]).column("id").to_pylist()
    assert sorted(i for i in ids if i.startswith("good")) == sorted(ids)
    assert len(ids) == 6
    again = es.embed(awkward, store, image=PixelEncoder())
    assert counts(again, "image") == (0, 6, 0, 4)
    assert store.refresh().generation == store.generation
    (awkward / "bad-empty.jpg").write_bytes((awkward / "good.jpg").read_bytes())
    mended = es.embed(awkward, store, image=PixelEncoder())
    assert counts(mended, "image") == (1, 6, 0, 3)
    assert es.verify(store.refresh()).clean


def test_strict_raises_and_keeps_nothing(awkward: Path, tmp_path: Path) -> None:
    with pytest.raises(PayloadError, match=r"item 'bad-.*'"):
        es.embed(awkward, tmp_path / "s", image=PixelEncoder(), strict=True)
    assert not (tmp_path / "s").exists()
    first = es.embed(awkward, tmp_path / "s", image=PixelEncoder())
    again = es.embed(awkward, tmp_path / "s", image=PixelEncoder())
    assert sorted(again.failures) == sorted(first.failures)  # known ones are told, too
    with pytest.raises(PayloadError, match=r"item 'bad-.*'"):
        es.embed(awkward, tmp_path / "s", image=PixelEncoder(), strict=True)


def test_strict_names_the_first_failure_of_the_dataset(tmp_path: Path) -> None:
    class NoSecond(HashEncoder):
        def prepare(self, payload: bytes) -> bytes:
            if payload.startswith(b"no"):
                raise PayloadError("decode", "no")
            return super().prepare(payload)

    picture = write_image(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"x")
    images = [str(picture), None, str(tmp_path / "bad.png"), str(tmp_path / "gone.png"), None, None]
    texts = ["x", "no, a text", None, None, "no, b", "y"]
    data = MemorySource({"id": list("abcdef"), "image": images, "text": texts})
    encoders = {"image": PixelEncoder(), "text": NoSecond(8, "text", "n")}
    with pytest.raises(PayloadError, match=r"item 'b', space 'text'"):
        es.embed(data, tmp_path / "s", strict=True, **encoders)
    report = es.embed(data, tmp_path / "s", **encoders)
    assert [(item, space) for space, item, _, _ in report.failures] == [
        ("b", "text"),
        ("c", "image"),
        ("d", "image"),
        ("e", "text"),
    ]
    with pytest.raises(PayloadError, match=r"item 'b', space 'text'"):  # a known one
        es.embed(data, tmp_path / "s", strict=True, **encoders)


def test_failures_that_keep_their_vector_are_told(tmp_path: Path) -> None:
    paths = [write_image(tmp_path / f"{i}.png", i) for i in range(3)]
    data = MemorySource({"id": ["a", "b", "c"], "image": [str(path) for path in paths]})
    es.embed(data, tmp_path / "s", image=PixelEncoder())
    paths[1].unlink()
    report = es.embed(data, tmp_path / "s", image=PixelEncoder())
    assert counts(report, "image") == (0, 2, 0, 1)
    assert report.to_dict()["spaces"]["image"]["kept"] == 1
    words = "1 of the failures in space 'image' keep the vector that they had; info --failures does not list them."
    assert words in report.notes
    store = es.Store.open(tmp_path / "s")
    assert (len(store.space("image")), store.space("image").failures.num_rows) == (3, 0)


def test_unreadable_files_are_tried_again(table: Path, tmp_path: Path) -> None:
    path = table.parent / "images" / "4.png"
    content = path.read_bytes()
    path.unlink()
    report = es.embed(table, tmp_path / "s", image="hash")
    assert counts(report, "image") == (11, 0, 0, 1)
    assert report.failures[0][1:3] == ("item-04", "read")
    path.write_bytes(content)
    assert counts(es.embed(table, tmp_path / "s", image="hash"), "image") == (1, 11, 0, 0)
    path.unlink()  # gone again: the vector stays, the failure is told
    report = es.embed(table, tmp_path / "s", image="hash")
    assert counts(report, "image")[3] == 1
    assert len(es.Store.open(tmp_path / "s").space("image")) == 12


def test_a_failing_item_costs_itself_only(tmp_path: Path) -> None:
    class Moody(HashEncoder):
        def encode(self, batch):  # type: ignore[no-untyped-def]
            if any(b"bad" in payload for payload in batch):
                raise RuntimeError("the model does not like it")
            vectors = super().encode(batch)
            vectors[[b"nan" in payload for payload in batch]] = np.nan
            return vectors

    texts = ["a", "bad", "c", "nan", "e"]
    source = MemorySource({"id": list("12345"), "text": texts})
    report = es.embed(source, tmp_path / "s", text=Moody(8, "text", "moody"))
    assert counts(report, "text") == (3, 0, 0, 2)
    reasons = [f["reason"] for f in es.Store.open(tmp_path / "s").space("text").failures.to_pylist()]
    assert reasons == ["the model does not like it", "the encoder returned a vector that is not finite"]


def test_out_of_memory_halves_the_batch(tmp_path: Path) -> None:
    sizes = []

    class Small(HashEncoder):
        batch_size = 64

        def encode(self, batch):  # type: ignore[no-untyped-def]
            sizes.append(len(batch))
            if len(batch) > 10:
                raise EncoderOutOfMemoryError("too large")
            return super().encode(batch)

    source = MemorySource({"id": [str(i) for i in range(300)], "text": [f"t{i}" for i in range(300)]})
    report = es.embed(source, tmp_path / "s", text=Small(8, "text", "hash:8"))
    assert counts(report, "text") == (300, 0, 0, 0)
    expected = HashEncoder(8, "text").encode([f"t{i}".encode() for i in range(300)])
    np.testing.assert_array_equal(es.Store.open(tmp_path / "s").space("text").vectors(), expected.astype(np.float16))
    assert max(sizes[-5:]) <= 8


def test_a_bad_payload_of_a_batch_is_found_by_halving(tmp_path: Path) -> None:
    sizes: list[int] = []

    class Moody(HashEncoder):
        batch_size = 256

        def encode(self, batch):  # type: ignore[no-untyped-def]
            sizes.append(len(batch))
            if any(b"bad" in payload for payload in batch):
                raise RuntimeError("the model does not like it")
            return super().encode(batch)

    texts = [f"t{i:03}" for i in range(256)]
    texts[100] = "bad"
    report = es.embed(MemorySource({"id": texts, "text": texts}), tmp_path / "s", text=Moody(8, "text", "hash:8"))
    assert counts(report, "text") == (255, 0, 0, 1)
    assert sorted(sizes, reverse=True) == [256, *sorted(2 * [2**i for i in range(8)], reverse=True)]


@pytest.mark.parametrize("when", ["at the start", "later"])
def test_batches_are_begun_ahead_and_fail_alone(when: str, tmp_path: Path) -> None:
    class Ahead(HashEncoder):
        batch_size = 16

        def start(self, batch):  # type: ignore[no-untyped-def]
            if when == "at the start":
                self.refuse(batch)
            return lambda: self.encode(batch)

        def encode(self, batch):  # type: ignore[no-untyped-def]
            self.refuse(batch)
            return super().encode(batch)

        def refuse(self, batch):  # type: ignore[no-untyped-def]
            if len(batch) > 1 and any(b"large" in payload for payload in batch):
                raise EncoderOutOfMemoryError("too large")
            if any(b"bad" in payload for payload in batch):
                raise RuntimeError("the model does not like it")

    texts = [f"text {i}" for i in range(9000)]
    texts[700], texts[2000] = "text bad", "text large"
    report = es.embed(
        MemorySource({"id": list(map(str, range(9000))), "text": texts}), tmp_path / "s", text=Ahead(8, "text", "h")
    )
    assert counts(report, "text") == (8999, 0, 0, 1)
    space = es.Store.open(tmp_path / "s").space("text")
    assert [f["reason"] for f in space.failures.to_pylist()] == ["the model does not like it"]
    expected = HashEncoder(8, "text").encode([t.encode() for i, t in enumerate(texts) if i != 700])
    np.testing.assert_array_equal(space.vectors(), expected.astype(np.float16))


def test_no_payload_is_dropped_when_the_batch_size_changes_between_two_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = itertools.cycle([16, 16, 1, 8])
    monkeypatch.setattr(SpaceState, "batch_size", property(lambda state: next(sizes), lambda state, size: None), raising=False)
    texts = [f"text {i}" for i in range(300)]
    es.embed(MemorySource({"id": list(map(str, range(300))), "text": texts}), tmp_path / "s", text="hash:8")
    expected = HashEncoder(8, "text").encode([t.encode() for t in texts])
    np.testing.assert_array_equal(es.Store.open(tmp_path / "s").space("text").vectors(), expected.astype(np.float16))


@pytest.mark.parametrize("method", ["prepare", "encode"])
@pytest.mark.parametrize("error", [UsageError, EncoderError])
def test_what_is_wrong_with_the_encoder_is_not_put_down_to_the_items(
    method: str, error: type[Exception], tmp_path: Path
) -> None:
    def failing(self: object, given: object) -> object:
        raise error("there is no such device")

    broken = type("Broken", (HashEncoder,), {method: failing})
    source = MemorySource({"id": ["a", "b"], "text": ["x", "y"]})
    with pytest.raises(error, match="there is no such device"):
        es.embed(source, tmp_path / "s", text=broken(8, "text", "h"))
    assert not (tmp_path / "s").exists()


def test_a_batch_size_below_one_is_refused(tmp_path: Path) -> None:
    encoder = type("Stuck", (HashEncoder,), {"batch_size": 0})(8, "text", "h")
    with pytest.raises(EncoderError, match="h has a batch_size of 0; it should be 1 or more"):
        es.embed(MemorySource({"id": ["a"], "text": ["x"]}), tmp_path / "s", text=encoder)


def test_tables_of_contents_on_disk_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "SEGMENT", 64)
    texts = [f"text {i % 1700}" for i in range(4000)]
    source = MemorySource({"id": [f"i{i}" for i in range(4000)], "text": texts})
    assert es.embed(source, tmp_path / "s", text="hash:8").spaces["text"].distinct == 1700
    again = es.embed(source, tmp_path / "s", text={"text": "hash:8", "other": "hash:16"})
    assert (again.spaces["text"].unchanged, again.spaces["other"].distinct) == (4000, 1700)
    expected = HashEncoder(8, "text").encode([t.encode() for t in texts])
    np.testing.assert_array_equal(es.Store.open(tmp_path / "s").space("text").vectors(), expected.astype(np.float16))


def test_a_payload_without_a_vector_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put = SpaceState.put
    monkeypatch.setattr(SpaceState, "put", lambda state, claims, vectors, pieces: put(state, claims[1:], vectors[1:]))
    with pytest.raises(EncoderError, match="1 payloads of space 'text' got neither a vector nor a failure"):
        es.embed(MemorySource({"id": ["a", "b"], "text": ["x", "y"]}), tmp_path / "s", text="hash:8")
    assert not (tmp_path / "s").exists()


def test_a_batch_is_begun_before_the_last_one_is_waited_for() -> None:
    steps: list[str] = []

    class State:
        batch_size = 8

        @property
        def encoder(self) -> State:
            return self

        def start(self, prepared: list[str]) -> object:
            steps.append(f"start {prepared[0]}")
            return lambda: f"vector of {prepared[0]}"

        def encode(self, prepared: list[str]) -> object:
            raise AssertionError("it was begun")

        def put(self, claims: object, vectors: str, pieces: None) -> None:
            steps.append(vectors)

    def batch(text: str) -> Batch:
        return Batch(State(), np.arange(1), [text])  # type: ignore[arg-type]

    encoding = Encoding(Clock(), lambda end: steps.append(f"close {end.claims['s']}"))
    for event in (batch("a"), ChunkEnd(None, {"s": 1}), batch("b"), batch("c"), ChunkEnd(None, {"s": 3})):  # type: ignore[arg-type]
        encoding.add(event)
    encoding.finish()
    encoding.stop()
    assert steps == [
        "start a", "start b", "vector of a", "close 1", "start c", "vector of b", "vector of c", "close 3",
    ]  # fmt: skip
    encoding.add(batch("d"))
    encoding.add(ChunkEnd(None, {"s": 4}))  # type: ignore[arg-type]
    encoding.stop()
    encoding.finish()
    assert steps[8:] == ["start d"]


def test_what_was_encoded_is_kept_when_the_source_fails(tmp_path: Path) -> None:
    class Ahead(HashEncoder):
        def start(self, batch):  # type: ignore[no-untyped-def]
            return lambda: super(Ahead, self).encode(batch)

        def encode(self, batch):  # type: ignore[no-untyped-def]
            return self.start(batch)()

    class Breaks(MemorySource):
        def batches(self):  # type: ignore[no-untyped-def]
            yield from super().batches()
            raise SourceError("the tar is cut off")

    source = Breaks({"id": list(map(str, range(8192))), "text": [f"text {i}" for i in range(8192)]})
    with pytest.raises(SourceError, match="cut off"):
        es.embed(source, tmp_path / "s", text=Ahead(8, "text", "h"))
    assert len(es.Store.open(tmp_path / "s").space("text")) == 8192


def test_a_class_that_changes_encode_or_prepare_alone_is_asked_that(tmp_path: Path) -> None:
    class Base(HashEncoder):
        def start(self, batch):  # type: ignore[no-untyped-def]
            return lambda: self.encode(batch)

        def prepare_batch(self, payloads):  # type: ignore[no-untyped-def]
            return [self.prepare(payload) for payload in payloads]

        @property
        def outside(self) -> Outside:
            return Outside("no:where", dict, (1,))

        def encode(self, batch):  # type: ignore[no-untyped-def]
            return super().encode(batch)

        def prepare(self, payload):  # type: ignore[no-untyped-def]
            return super().prepare(payload)

    class Changed(Base):
        def encode(self, batch):  # type: ignore[no-untyped-def]
            return 5 * super().encode(batch)

        def prepare(self, payload):  # type: ignore[no-untyped-def]
            return payload + b"!"

    made = [kind(8, "text") for kind in (HashEncoder, Base, Changed)]
    assert [stands_for(encoder, "start", "encode") for encoder in made] == [False, True, False]
    assert [outside_of(encoder) is not None for encoder in made] == [False, True, False]
    assert [prepare_all(encoder, [b"a"]) for encoder in made] == [[b"a"], [b"a"], [b"a!"]]
    cut = Cut(made[2], 4)
    assert (outside_of(cut), prepare_all(cut, [b"a"])) == (None, [b"a!"])


def test_what_an_instance_has_outranks_no_subclass() -> None:
    given = Outside("no:where", {}, (1,))

    class Declared(HashEncoder):
        outside: Outside | None = None

        def __init__(self) -> None:
            super().__init__(8, "image")
            self.outside = given

        def prepare(self, payload: bytes) -> Any:
            return payload

    class Undeclared(HashEncoder):
        def __init__(self) -> None:
            super().__init__(8, "image")
            self.outside = given

    class Changed(Declared):
        def prepare(self, payload: bytes) -> Any:
            return payload[::-1]

    class Both(HashEncoder):
        def __init__(self) -> None:
            super().__init__(8, "image")
            self.prepare = bytes.strip  # type: ignore[assignment, method-assign]
            self.outside = given

    class Alone(Declared):
        def __init__(self) -> None:
            super().__init__()
            del self.outside
            self.prepare = bytes.strip  # type: ignore[method-assign]

    made = [Declared(), Undeclared(), Changed(), Both(), Alone()]
    assert [outside_of(encoder) for encoder in made] == [given, None, None, given, None]


def test_texts_are_encoded_by_length_and_come_back_in_order(tmp_path: Path) -> None:
    seen: list[int] = []

    class Watching(HashEncoder):
        batch_size = 16

        def encode(self, batch):  # type: ignore[no-untyped-def]
            seen.extend(map(len, batch))
            return super().encode(batch)

    rng = np.random.default_rng(0)
    texts = ["x" * n + str(i) for i, n in enumerate(rng.integers(1, 50, 200))]
    es.embed(MemorySource({"id": list(map(str, range(200))), "text": texts}), tmp_path / "s", text=Watching(8, "text", "h"))
    assert seen == sorted(seen)
    expected = HashEncoder(8, "text").encode([t.encode() for t in texts])
    np.testing.assert_array_equal(es.Store.open(tmp_path / "s").space("text").vectors(), expected.astype(np.float16))


def test_several_chunks_with_repeats_across_them(tmp_path: Path) -> None:
    n = 20_000
    texts = [f"text {i % 700}" for i in range(n)]
    source = MemorySource({"id": [f"i{i}" for i in range(n)], "text": texts})
    report = es.embed(source, tmp_path / "s", text="hash:8")
    assert (report.spaces["text"].embedded, report.spaces["text"].distinct) == (n, 700)
    store = es.Store.open(tmp_path / "s")
    assert len(store.manifest.spaces["text"].parts) == 5
    expected = HashEncoder(8, "text").encode([t.encode() for t in texts])
    np.testing.assert_array_equal(store.space("text").vectors(), expected.astype(np.float16))
    assert es.verify(store).clean


def test_a_finished_space_is_not_looked_through_beside_a_new_one(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    es.embed(table, tmp_path / "s", image="hash:8")
    claimed = []
    claim = SpaceState.claim
    monkeypatch.setattr(SpaceState, "claim", lambda state, hashes: claimed.append(state.name) or claim(state, hashes))
    report = es.embed(table, tmp_path / "s", image={"image": "hash:8", "two": "hash:16"})
    assert (counts(report, "image")[:2], counts(report, "two")[:2]) == ((0, 12), (12, 0))
    assert set(claimed) == {"two"}


@pytest.mark.parametrize(("group", "most"), [(1, 1 << 20), (7, 1 << 20), (32, 1 << 20), (1000, 50)])
def test_files_claimed_a_few_at_a_time_get_their_own_vectors(
    group: int, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(produce, "GROUP", group)
    monkeypatch.setattr(produce, "GROUP_BYTES", most)
    contents = [f"content {i % 40}".encode() for i in range(100)]
    for i, content in enumerate(contents):
        if i % 10:
            (tmp_path / str(i)).write_bytes(content)
    files = [str(tmp_path / str(i)) for i in range(100)]
    report = es.embed(MemorySource({"id": list(map(str, range(100))), "image": files}), tmp_path / "s", image="hash:16")
    assert counts(report, "image") == (90, 0, 0, 10)
    assert report.spaces["image"].distinct == 36
    space = es.Store.open(tmp_path / "s").spaces["image"]
    assert space.rows.tolist() == [i for i in range(100) if i % 10]
    encoder = HashEncoder(16, "image")
    expected = encoder.encode([encoder.prepare(contents[i]) for i in range(100) if i % 10])
    np.testing.assert_array_equal(space.vectors(), expected.astype(np.float16))


@pytest.mark.parametrize(("size", "most"), [(100, 11), (500, 3), (2000, 2)])
def test_few_large_files_are_read_ahead(size: int, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many bytes, not so many groups."""
    waiting = [0]

    class Asked(Future[Any]):
        """Is done when it is asked for."""

        def __init__(self, work: Callable[[], Any], *, reads: bool) -> None:
            super().__init__()
            self._work, self._reads = work, reads

        def result(self, timeout: float | None = None) -> Any:
            waiting.append(waiting[-1] - self._reads)
            return self._work()

    class Pool(ThreadPoolExecutor):
        def submit(self, work: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
            reads = work.__name__ == "_timed_read"
            waiting.append(waiting[-1] + reads)
            return Asked(partial(work, *given, **named), reads=reads)

    monkeypatch.setattr(local, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(produce, "GROUP_BYTES", 100)
    paths = [str(tmp_path / f"{i}.bin") for i in range(14)]
    for i, path in enumerate(paths):
        Path(path).write_bytes(bytes([i]) * size)
    report = es.embed(MemorySource({"id": paths, "image": paths}), tmp_path / "s", image="hash:8", workers=4)
    assert report.spaces["image"].embedded == 14
    assert max(waiting) == most


def test_usage_errors_say_what_to_do(table: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Name an encoder .*--image effnet-lite0"):
        es.embed(table, tmp_path / "s")
    with pytest.raises(UsageError, match="has no audio for encoder 'hash'; it has image, text"):
        es.embed(table, tmp_path / "s", audio="hash")
    with pytest.raises(UsageError, match=r"No encoder is called 'nope'\. Known: clap, colbert, effnet-lite0"):
        es.embed(table, tmp_path / "s", image="nope")
    with pytest.raises(UsageError, match="takes image, not text"):
        es.embed(table, tmp_path / "s", text="effnet-lite0")
    with pytest.raises(SourceError, match="does not exist"):
        es.embed(tmp_path / "none.csv", tmp_path / "s", text="hash")
    with pytest.raises(UsageError, match="cannot name a space"):
        es.embed(table, tmp_path / "s", image={"../x": "hash"})
    for pixels in (0, -5):
        with pytest.raises(UsageError, match=f"max_pixels must be at least 1. Got {pixels} instead"):
            es.embed(table, tmp_path / "s", image="hash", max_pixels=pixels)
    assert not (tmp_path / "s").exists()


def test_a_column_that_changes_type_is_refused(store: es.Store, table: Path) -> None:
    edit(table, {0: {"price": "cheap"}})
    with pytest.raises(SourceError, match="row 1: price is 'cheap', no number, the type of the column in the store"):
        es.embed(table, store)


def test_full_disk_keeps_what_was_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from embedstore.store import writer

    real, calls = writer.write_vectors, []

    def failing(*args):  # type: ignore[no-untyped-def]
        calls.append(args)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return real(*args)

    monkeypatch.setattr(writer, "write_vectors", failing)
    source = MemorySource({"id": [f"i{i}" for i in range(10_000)], "text": [f"t{i}" for i in range(10_000)]})
    with pytest.raises(es.EmbedstoreError, match=r"No space left on device.*everything committed before is safe"):
        es.embed(source, tmp_path / "s", text="hash:8")
    assert len(es.Store.open(tmp_path / "s").space("text")) == 8192
    assert es.embed(source, tmp_path / "s", text="hash:8").spaces["text"].unchanged == 8192
    assert es.verify(es.Store.open(tmp_path / "s")).clean


def test_a_run_on_one_modality_keeps_the_vectors_of_the_other(store: es.Store, table: Path) -> None:
    edit(table, {4: {"text": "changed"}, 5: {"label": "changed"}})
    write_image(table.parent / "images" / "5.png", seed=77)  # not looked at by a run on texts
    es.embed(table, store, text="hash:16")
    after = store.refresh()
    rows = after.items.rows_of(["item-04", "item-05"])
    assert after.space("image").has(rows).all()
    report = es.embed(table, after)
    assert (counts(report, "image"), counts(report, "text")) == ((1, 11, 0, 0), (0, 11, 1, 0))
    assert es.verify(after.refresh()).clean


def test_a_touched_file_and_a_label_cost_no_second_embedding(store: es.Store, table: Path) -> None:
    os.utime(table.parent / "images" / "1.png", (1, 1))
    edit(table, {1: {"label": "changed"}})
    es.embed(table, store, text="hash:16")
    assert counts(es.embed(table, store.refresh()), "image") == (0, 12, 0, 0)


def test_known_failures_survive_a_new_space_and_an_update(awkward: Path, tmp_path: Path) -> None:
    es.embed(awkward, tmp_path / "s", image={"a": PixelEncoder()})
    report = es.embed(awkward, tmp_path / "s", image={"a": PixelEncoder(), "b": PixelEncoder()})
    assert (counts(report, "a"), counts(report, "b")) == ((0, 6, 0, 4), (6, 0, 0, 4))
    (awkward / "bad-empty.txt").write_text("a caption: the item changes")
    assert counts(es.embed(awkward, tmp_path / "s", image={"a": PixelEncoder()}), "a") == (0, 6, 0, 4)
    info = es.Store.open(tmp_path / "s").info()["spaces"]
    assert [(info[n]["vectors"], info[n]["missing"], info[n]["failed"]) for n in "ab"] == [(6, 0, 4)] * 2


def test_a_file_that_vanished_keeps_its_vector_whatever_else_changes(store: es.Store, table: Path) -> None:
    path = table.parent / "images" / "4.png"
    content = path.read_bytes()
    path.unlink()
    assert counts(es.embed(table, store), "image") == (0, 11, 0, 1)
    assert store.refresh().generation == store.generation
    edit(table, {4: {"label": "changed"}})
    assert counts(es.embed(table, store.refresh()), "image") == (0, 11, 0, 1)
    assert len(store.refresh().space("image")) == 12
    path.write_bytes(content)
    assert counts(es.embed(table, store.refresh()), "image") == (0, 12, 0, 0)


def test_a_file_that_could_not_be_read_is_not_taken_for_unchanged(
    store: es.Store, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its item gets a row of its own in the meantime, beside the vector of the older file."""
    es.embed(table, store, image={"other": PixelEncoder()})
    write_image(table.parent / "images" / "4.png", seed=77, size=(50, 40))
    edit(table, {4: {"label": "changed"}})
    with monkeypatch.context() as broken:
        broken.setattr(readers, "read_payload", _no_answer)
        assert counts(es.embed(table, store.refresh(), image="hash:32"), "image") == (0, 11, 0, 1)
    report = es.embed(table, store.refresh(), image={"image": "hash:32", "other": PixelEncoder()})
    assert [counts(report, space) for space in ("image", "other")] == [(1, 11, 0, 0)] * 2


def _no_answer(path: str, **options: Any) -> bytes:
    raise PayloadError("read", f"{path}: Input/output error")


def test_columns_that_only_some_parts_have(tmp_path: Path) -> None:
    path = tmp_path / "s"
    es.embed(MemorySource({"id": ["a", "b"], "text": ["x", "y"], "image.w": [1, 2], "void": [None, None]}), path, text="hash")
    es.embed(MemorySource({"id": ["c"], "text": ["z"], "price": [4], "void": ["v"]}), path, text="hash")
    assert es.search(path, id="a", k=1, where="id = 'b'").results[0].metadata == {"image.w": 2, "price": None, "void": None}
    report = es.embed(MemorySource({"id": ["a"], "text": ["x"], "image.w": [9]}), path, text="hash")
    assert report.updated == 1
    assert es.search(path, id="b", k=1, where="id = 'a'").results[0].metadata["image.w"] == 9


def test_nested_metadata_with_nan_is_unchanged(tmp_path: Path) -> None:
    source = MemorySource({"id": ["a"], "text": ["x"], "tags": [["p", "q"]], "box": [{"x": float("nan"), "y": 1.0}]})
    es.embed(source, tmp_path / "s", text="hash")
    assert es.embed(source, tmp_path / "s", text="hash").updated == 0
    wider = MemorySource({"id": ["a"], "text": ["x"], "box": [{"x": 1.0, "y": 1.0, "z": 2.0}]})
    with pytest.raises(SourceError, match=r"row 1: box is \{.*\}, no record, the type of the column in the store"):
        es.embed(wider, tmp_path / "s", text="hash")


def test_one_string_is_one_id(store: es.Store) -> None:
    assert len(store.remove("item-01")) == 11
    with pytest.raises(UsageError, match=r"ids must be strings. Got 1 \(int\)"):
        store.remove([1])  # type: ignore[list-item]


def test_encoders_that_misbehave(tmp_path: Path) -> None:
    class Short(HashEncoder):
        def encode(self, batch):  # type: ignore[no-untyped-def]
            return super().encode(batch)[:-1]

    class Picky(HashEncoder):
        def prepare(self, payload):  # type: ignore[no-untyped-def]
            if payload == b"b":
                raise ValueError("not this one")
            return payload

    source = MemorySource({"id": ["a", "b", "c"], "text": ["a", "b", "c"]})
    with pytest.raises(es.EmbedstoreError, match=r"returned vectors of shape \(2, 4\) for 3 payloads"):
        es.embed(source, tmp_path / "s", text=Short(4, "text"))
    assert counts(es.embed(source, tmp_path / "s", text=Picky(4, "text")), "text") == (2, 0, 0, 1)


def test_long_thin_images_and_pipes_are_failures(tmp_path: Path) -> None:
    Image.new("L", (1, 600_000)).save(tmp_path / "thin.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.txt").symlink_to(tmp_path / "nowhere")
    wide = ImageTransform((224, 224), "shortest", 256, "bicubic", (0.5,) * 3, (0.5,) * 3)

    class Wide(PixelEncoder):
        def prepare(self, payload: bytes) -> np.ndarray:  # type: ignore[override,type-arg]
            return wide(payload, max_pixels=178_956_970)

    report = es.embed(tmp_path, tmp_path / "s.store", image=Wide())
    assert counts(report, "image") == (0, 0, 1, 2)
    assert {f[3].split(": ")[-1].split(" is ")[-1] for f in report.failures} == {
        "not a regular file",
        "too long and thin to be cropped",
    }
    again = es.embed(tmp_path, tmp_path / "s.store", image=Wide())  # the store lies in the dataset
    assert again.items == report.items


def test_a_refused_writer_deletes_nothing(tmp_path: Path) -> None:
    source = MemorySource({"id": ["a"], "text": ["x"]})
    es.Store.open(tmp_path / "s", create=True)
    with es.Store.open(tmp_path / "s").writer(), pytest.raises(es.EmbedstoreError, match="Another process"):
        es.embed(source, tmp_path / "s", text="hash")
    assert (tmp_path / "s" / "store.json").exists()
    with pytest.raises(UsageError, match="workers must be at least 1"):
        es.embed(source, tmp_path / "s", text="hash", workers=0)


def test_items_that_the_dataset_no_longer_has_are_counted_and_pruned(tmp_path: Path) -> None:
    def source(*ids: str) -> MemorySource:
        return MemorySource({"id": list(ids), "text": [f"text {i}" for i in ids]})

    es.embed(source(*"abcde"), tmp_path / "s", text="hash")
    report = es.embed(source(*"acf"), tmp_path / "s")
    assert (report.added, report.absent, report.removed) == (1, 3, 0)
    with pytest.raises(UsageError, match=r"None of the 6 items that .* held is in .*, so --prune removed nothing"):
        es.embed(source(*"xy"), tmp_path / "s", prune=True)
    with pytest.raises(PayloadError):
        es.embed(
            MemorySource({"id": ["a"], "image": [str(tmp_path / "gone.png")]}),
            tmp_path / "s",
            image="hash",
            strict=True,
            prune=True,
        )
    assert len(es.Store.open(tmp_path / "s")) == 8
    report = es.embed(source(*"acfxg"), tmp_path / "s", prune=True)
    assert (report.added, report.absent, report.removed) == (1, 0, 4)
    assert report.to_dict()["removed"] == 4
    store = es.Store.open(tmp_path / "s")
    assert sorted(store.items.take(store.items.rows, ["id"])["id"].to_pylist()) == sorted("acfxg")
    assert len(store.space("text")) == 5
    es.verify(tmp_path / "s")
    assert es.embed(source(*"acfxg"), tmp_path / "s", prune=True).removed == 0

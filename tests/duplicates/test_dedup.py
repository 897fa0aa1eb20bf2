"""Duplicates against brute force; what clusters promise; removal, files and errors."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from helpers import run
from PIL import Image, ImageDraw

import embedstore as es
from embedstore.duplicates import find, near, pairs
from embedstore.duplicates import pixels as pixels_module
from embedstore.duplicates.find import find_duplicates, remove_duplicates
from embedstore.duplicates.pairs import Pairs, cluster, first_equal, pairs_above, score_pairs
from embedstore.duplicates.pictures import Pictures
from embedstore.duplicates.pixels import LARGEST, LIMIT, NOISE, PixelPairs, Thumbnails, alike_pairs, contrasts
from embedstore.duplicates.report import DuplicateReport
from embedstore.encoders.hash import HashEncoder
from embedstore.encoders.payloads.images import decode_rgb
from embedstore.encoders.payloads.thumbnail import thumbnail
from embedstore.errors import PayloadError, StoreError, UsageError
from embedstore.sources import MemorySource


class Numbers(HashEncoder):
    """Texts 'x y z …' are their vectors."""

    def encode(self, batch):  # type: ignore[no-untyped-def]
        return np.array([[float(w) for w in payload.split()] for payload in batch], dtype=np.float32)


def groups_of_vectors(n: int, dim: int, seed: int = 0, spread: float = 0.4) -> np.ndarray:
    """Vectors around n / 8 centres: cosines of every size."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n // 8, dim))[rng.integers(0, n // 8, n)] + spread * rng.normal(size=(n, dim))


def cosines(x: np.ndarray) -> np.ndarray:
    unit = np.asarray(x, np.float64) / np.linalg.norm(np.asarray(x, np.float64), axis=1, keepdims=True)
    return unit @ unit.T


def vector_store(path: Path, x: np.ndarray, ids: list[str] | None = None, **columns: object) -> es.Store:
    texts = [" ".join(f"{v:.4f}" for v in row) for row in x]
    data = {"id": ids or [f"i{i}" for i in range(len(x))], "text": texts, **columns}
    es.embed(MemorySource(data), path, text=Numbers(x.shape[1], "text", "numbers"), dtype="float32")
    return es.Store.open(path)


class Centre(HashEncoder):
    """A picture's vector is the middle of it."""

    def prepare(self, payload: bytes) -> bytes:
        picture = decode_rgb(payload, max_pixels=1 << 24).resize((40, 40))
        return picture.crop((16, 16, 24, 24)).resize((2, 2)).tobytes()

    def encode(self, batch):  # type: ignore[no-untyped-def]
        return np.array([list(payload) for payload in batch], dtype=np.float32) + 1


def drawing(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Shapes on a gradient."""
    rng = np.random.default_rng(seed)
    low, high = rng.integers(0, 256, (2, 3))
    ramp = np.linspace(0, 1, size[0])[None, :, None] if seed % 2 else np.linspace(0, 1, size[1])[:, None, None]
    picture = Image.fromarray(np.broadcast_to(low + ramp * (high - low), (size[1], size[0], 3)).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for shape in (draw.ellipse, draw.rectangle, draw.ellipse):
        x, y = rng.uniform(0, 0.7, 2) * size
        w, h = rng.uniform(0.1, 0.5, 2) * size
        shape([x, y, x + w, y + h], fill=tuple(rng.integers(0, 256, 3).tolist()))
    return picture


def saved(picture: Image.Image, path: Path, **options: object) -> str:
    picture.save(path, **options)
    return str(path)


def picture_store(path: Path, files: dict[str, str], **columns: object) -> es.Store:
    data = {"id": list(files), "image": list(files.values()), **columns}
    encoders = {"text": HashEncoder(8, "text", "hash")} if "text" in columns else {}
    es.embed(MemorySource(data), path, image=Centre(12, "image", "centre"), **encoders)
    return es.Store.open(path)


def shrunken(picture: Image.Image, folder: Path, name: str, scale: float, quality: int = 40) -> str:
    small = picture.resize([round(side * scale) for side in picture.size], Image.Resampling.BICUBIC)
    return saved(small, folder / f"{name}.jpg", quality=quality)


def as_set(pairs: Pairs | PixelPairs) -> set[tuple[int, int]]:
    return set(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))


def kept_and_gone(report: DuplicateReport) -> tuple[list[str], list[str]]:
    return [c.representative for c in report.clusters], report.ids


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("block", [7, 64, 150, 4096])
def test_pairs_equal_brute_force(dtype: type, block: int) -> None:
    x = groups_of_vectors(150, 12).astype(dtype)
    expected = cosines(x)
    found = pairs_above([x], 0.8, block=block)
    i, j = np.nonzero(np.triu(expected, 1) >= 0.8)
    assert len(i) > 50
    assert as_set(found) == set(zip(i.tolist(), j.tolist(), strict=True))
    np.testing.assert_allclose(found.scores, expected[found.left, found.right], atol=1e-5)


def test_pairs_of_several_spaces_have_the_lowest_cosine() -> None:
    x, y = groups_of_vectors(120, 8, spread=0.2), groups_of_vectors(120, 5, spread=0.2)
    expected = np.minimum(cosines(x), cosines(y))
    found = pairs_above([x, y], 0.6, block=50)
    i, j = np.nonzero(np.triu(expected, 1) >= 0.6)
    assert len(i) > 10
    assert as_set(found) == set(zip(i.tolist(), j.tolist(), strict=True))
    again = score_pairs([x, y], np.concatenate([j, i]), np.concatenate([i, j]), block=9)
    assert as_set(again) == as_set(found)
    np.testing.assert_allclose(again.scores, expected[again.left, again.right], atol=1e-5)


def test_equal_vectors_have_cosine_one_and_zeros_are_like_nothing() -> None:
    x = np.repeat(np.random.default_rng(0).normal(size=(40, 1280)), 2, axis=0).astype(np.float32)
    x[0:2] = 0
    found = pairs_above([x], 1.0)
    assert as_set(found) == {(i, i + 1) for i in range(2, 80, 2)}
    assert set(found.scores) == {1.0}


@pytest.mark.parametrize(("first", "block"), [(0, 64), (1, 64), (40, 7), (40, 64), (150, 64)])
def test_pairs_with_one_of_the_first(first: int, block: int) -> None:
    x = groups_of_vectors(150, 12)
    every = as_set(pairs_above([x], 0.8))
    shares: list[float] = []
    found = pairs_above([x], 0.8, first=first, block=block, on_progress=shares.append)
    assert as_set(found) == {(i, j) for i, j in every if i < first}
    assert shares == sorted(shares)
    assert shares[-1:] == [1][:first]


def test_too_many_pairs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "MAX_PAIRS", 100)
    with pytest.raises(UsageError, match=r"More than 100 pairs.*0\.5.*higher threshold"):
        pairs_above([np.ones((30, 3))], 0.5)


def test_memory_is_bounded() -> None:
    import tracemalloc

    x = np.random.default_rng(0).normal(size=(6000, 8)).astype(np.float32)
    tracemalloc.start()
    pairs_above([x], 0.999, block=256)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6  # all cosines are 144 MB


def test_first_equal() -> None:
    keys = np.array([[1, 2], [2, 1], [1, 2], [3, 3], [2, 1], [1, 2]], np.uint64)
    assert first_equal(keys).tolist() == [0, 1, 0, 3, 1, 0]


@pytest.mark.parametrize("seed", range(5))
def test_clusters_keep_their_promise(seed: int) -> None:
    x = groups_of_vectors(400, 6, seed)
    expected = cosines(x)
    found = cluster(400, pairs_above([x], 0.9))
    kept = np.flatnonzero(found.representative == np.arange(400))
    gone = np.flatnonzero(found.representative != np.arange(400))
    assert set(found.representative) <= set(kept)  # nobody's representative is itself removed
    np.testing.assert_allclose(found.scores[gone], expected[gone, found.representative[gone]], atol=1e-5)
    assert (found.scores[gone] >= 0.9).all()
    assert np.triu(expected[np.ix_(kept, kept)], 1).max() < 0.9 + 1e-5  # nothing is left to find
    np.testing.assert_allclose(found.scores[gone], expected[np.ix_(gone, kept)].max(axis=1), atol=1e-5)  # the nearest one


def test_clusters_are_no_chains() -> None:
    angles = np.radians(np.arange(0, 91, 10))  # each is near to the next, the ends are orthogonal
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = cluster(10, pairs_above([x], np.cos(np.radians(11))))
    assert np.bincount(found.representative).max() == 3


def test_representatives() -> None:
    star = Pairs(np.array([0, 1, 2]), np.array([3, 3, 3]), np.full(3, 0.9))
    assert cluster(4, star).representative.tolist() == [3, 3, 3, 3]  # most neighbours
    pair = Pairs(np.array([0]), np.array([1]), np.array([0.9]))
    assert cluster(2, pair).representative.tolist() == [0, 0]  # the first
    assert cluster(2, pair, preference=np.array([5, 6])).representative.tolist() == [1, 1]  # the preferred
    assert cluster(3, Pairs(*np.empty((2, 0), np.int64), np.empty(0))).representative.tolist() == [0, 1, 2]


def test_copies_by_hash_with_any_encoder(store: es.Store) -> None:
    report = find_duplicates(store)
    assert report.spaces == ["image"]
    assert [(c.representative, [(m.id, m.score, m.kind) for m in c.members]) for c in report.clusters] == [
        ("item-10", [("item-11", 1.0, "exact")])
    ]
    assert (report.items, report.counts, report.approximate) == (12, {"exact": 1, "near": 0}, False)
    exact = find_duplicates(store, exact_only=True)
    assert (exact.clusters, exact.threshold) == (report.clusters, None)
    assert find_duplicates(store, space="text").items == 11
    assert find_duplicates(store, space=["image", "text"]).clusters == []  # their texts differ
    assert find_duplicates(store, where="label = 'odd'").clusters == []


def test_exact_copies_need_no_vectors(store: es.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(es.store.Space, "take", None)
    assert find_duplicates(store, exact_only=True).ids == ["item-11"]


def test_store_keeps_the_promise_and_a_second_run_finds_nothing(tmp_path: Path) -> None:
    x = np.round(groups_of_vectors(300, 6), 4)
    x[200:230] = x[:30]
    store = vector_store(tmp_path / "s", x)
    report = find_duplicates(store, threshold=0.9)
    expected = cosines(x)
    kept, gone = kept_and_gone(report)
    assert len(set(gone)) == len(gone)
    assert not set(gone) & set(kept)
    for found in report.clusters:
        for m in found.members:
            a, b = int(m.id[1:]), int(found.representative[1:])
            assert m.score >= 0.9
            assert m.score == pytest.approx(expected[a, b], abs=1e-5)
            assert (m.kind == "exact") == (x[a] == x[b]).all()
        assert [m.score for m in found.members] == sorted((m.score for m in found.members), reverse=True)
    sizes = [len(c.members) for c in report.clusters]
    assert sizes == sorted(sizes, reverse=True)
    assert find_duplicates(store, threshold=0.9).clusters == report.clusters  # the same each time
    left = remove_duplicates(store, report)
    assert len(left) == 300 - len(gone)
    left.items.rows_of(kept)
    assert find_duplicates(left, threshold=0.9).clusters == []


def test_nearest_neighbours_find_the_same_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = groups_of_vectors(120, 6)
    x[100:110] = x[:10]
    store = vector_store(tmp_path / "s", x, price=list(range(120)))
    exact = find_duplicates(store, threshold=0.9)
    some = find_duplicates(store, threshold=0.9, where="price % 3 > 0")
    monkeypatch.setattr(near, "ALL_PAIRS_UP_TO", 50)
    monkeypatch.setattr(near, "QUERIES", 33)
    found = find_duplicates(store, threshold=0.9)
    assert found.clusters == exact.clusters
    assert (found.approximate, exact.approximate) == (True, False)
    assert "32 nearest neighbours" in found.notes[0]
    assert find_duplicates(store, threshold=0.9, where="price % 3 > 0").clusters == some.clusters
    monkeypatch.setattr(near, "NEIGHBOURS", 1)
    assert any("run it again" in note for note in find_duplicates(store, threshold=0.9).notes)


def test_copies_and_filtered_items_take_no_neighbour_s_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty copies, and forty near ones that a filter leaves out, are nearer than what is looked for."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((130, 12))
    x[10:50] = x[0]
    x[50:90] = x[1] + 0.025 + 0.001 * rng.standard_normal((40, 12))
    x[90:92] = x[:2] + 0.05
    store = vector_store(tmp_path / "s", x, price=[int(50 <= i < 90) for i in range(130)])
    expected = find_duplicates(store, threshold=0.9, where="price = 0")
    assert len(expected.clusters) == 2
    monkeypatch.setattr(near, "ALL_PAIRS_UP_TO", 5)
    found = find_duplicates(store, threshold=0.9, where="price = 0")
    assert (found.clusters, found.approximate) == (expected.clusters, True)
    assert not any("run it again" in note for note in found.notes)


def test_the_largest_file_is_kept(tmp_path: Path) -> None:
    for name, level in {"a": 9, "b": 1, "c": 0}.items():
        Image.new("RGB", (40, 30), "teal").save(tmp_path / f"{name}.png", compress_level=level)
    data = {"id": list("abc"), "image": [str(tmp_path / f"{name}.png") for name in "abc"]}

    class Pixels(HashEncoder):
        def prepare(self, payload: bytes) -> bytes:
            return Image.open(io.BytesIO(payload)).tobytes()

    es.embed(MemorySource(data), tmp_path / "s", image=Pixels(16, "image", "pixels"))
    report = find_duplicates(tmp_path / "s")
    assert kept_and_gone(report) == (["c"], ["a", "b"])
    assert report.counts == {"exact": 0, "near": 2}


def copies_and_others(count: int = 60) -> Thumbnails:
    """Thumbnails of drawings, each four times: as it is, with noise, with one other pixel, and in other colours."""
    rng = np.random.default_rng(0)
    base = np.stack([thumbnail(png(drawing(seed))).pixels for seed in range(count)]).astype(np.float32)
    spot = base.copy()
    spot[:, 5, 5] = 255 - spot[:, 5, 5]
    kinds = [base, base + rng.normal(0, rng.uniform(0, 9, (count, 1, 1, 1)), base.shape), spot, base[..., ::-1]]
    pixels = np.clip(np.concatenate(kinds), 0, 255).astype(np.uint8)
    return Thumbnails(pixels, rng.choice([0.0, 0.05, 0.05, 0.2], len(pixels)))


def png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("block", [7, 64, 2048])
def test_alike_pairs_equal_brute_force(block: int) -> None:
    some = copies_and_others()
    x = some.pixels.astype(np.float64)
    i, j = np.triu_indices(len(x), 1)
    contrast = x.std(axis=(1, 2))
    contrast = np.sqrt((contrast**2).mean(axis=1)) + NOISE
    np.testing.assert_allclose(contrasts(some.pixels), contrast, rtol=1e-5)
    unit = np.minimum(contrast[i], contrast[j])
    mean = np.sqrt(((x[i] - x[j]) ** 2).mean(axis=(1, 2, 3))) / unit
    largest = np.abs(x[i] - x[j]).mean(axis=3).max(axis=(1, 2)) / unit
    near = (mean <= LIMIT) & (largest <= LARGEST) & (np.abs(some.aspect[i] - some.aspect[j]) <= 0.1)
    assert 20 < near.sum() < ((mean <= LIMIT) & (largest <= LARGEST)).sum() < (mean <= LIMIT).sum()
    found = alike_pairs(some, block=block)
    assert as_set(found) == set(zip(i[near].tolist(), j[near].tolist(), strict=True))
    of_pair = dict(zip(zip(i.tolist(), j.tolist(), strict=True), mean, strict=True))
    wanted = [of_pair[pair] for pair in zip(found.left.tolist(), found.right.tolist(), strict=True)]
    np.testing.assert_allclose(found.differences, wanted, atol=1e-5)
    assert len(alike_pairs(some.take(np.zeros(0, int)))) == 0


def test_too_many_alike_pictures_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels_module, "MAX_PAIRS", 100)
    with pytest.raises(UsageError, match=r"More than 100 pairs of pictures look the same.*--no-pixels"):
        alike_pairs(Thumbnails(np.zeros((30, 16, 16, 3), np.uint8), np.zeros(30)))


def test_comparing_pixels_takes_bounded_memory() -> None:
    import tracemalloc

    few = copies_and_others().pixels
    rng = np.random.default_rng(0)
    many = few[rng.integers(0, len(few), 6000)] // rng.integers(1, 9, (6000, 1, 1, 3)).astype(np.uint8)
    tracemalloc.start()
    alike_pairs(Thumbnails(many, np.arange(6000.0)), block=256)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e7  # all differences are 14 GB


def test_a_thumbnail_shows_the_whole_picture() -> None:
    picture = Image.new("RGB", (320, 160), "white")
    ImageDraw.Draw(picture).rectangle([0, 0, 19, 159], fill="black")  # a centre crop hides it
    pixels, aspect, area = thumbnail(png(picture))
    assert (pixels.shape, pixels.dtype, aspect, area) == ((16, 16, 3), np.uint8, pytest.approx(np.log(2)), 51200)
    assert pixels[:, 0].max() < 30 < 250 < pixels[:, 2:].min()
    clear = Image.new("RGBA", (50, 50), (255, 0, 0, 0))
    assert (thumbnail(png(clear)).pixels == 255).all()  # transparency is white
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(turned, "JPEG", exif=exif)
    assert thumbnail(turned.getvalue()).aspect == pytest.approx(-np.log(2))
    with pytest.raises(PayloadError, match="damaged"):
        thumbnail(png(drawing(0))[:300])
    with pytest.raises(PayloadError, match="over the limit"):
        thumbnail(png(picture), max_pixels=1000)


def test_a_draft_of_a_large_jpeg_is_near_to_the_whole() -> None:
    large = io.BytesIO()
    drawing(3, (1600, 1200)).save(large, "JPEG", quality=90)
    pixels, aspect, area = thumbnail(large.getvalue())
    assert area == 1600 * 1200
    whole = decode_rgb(large.getvalue(), max_pixels=1 << 24).resize((16, 16), Image.Resampling.BICUBIC)
    pair = Thumbnails(np.stack([pixels, np.asarray(whole)]), np.array([aspect, np.log(4 / 3)]))
    assert alike_pairs(pair).differences[0] < 0.03


def test_shrunken_and_recompressed_copies_are_found(tmp_path: Path) -> None:
    files, copies = {}, {}
    for i in range(24):
        picture = drawing(i)
        files[f"{i}"] = saved(picture, tmp_path / f"{i}.png")
        copies[f"{i} small"] = shrunken(picture, tmp_path, f"{i}s", 0.5 + i / 80)
        copies[f"{i} coarse"] = shrunken(picture, tmp_path, f"{i}c", 1, quality=30)
        copies[f"{i} saved"] = saved(picture, tmp_path / f"{i}.webp", quality=80)
    store = picture_store(tmp_path / "s", {**files, **copies})
    report = find_duplicates(store)
    assert report.pixels == 96
    assert report.notes == []
    assert len(report.ids) >= 0.95 * len(copies)
    for found in report.clusters:
        names = [found.representative, *(m.id for m in found.members)]
        assert len({name.split()[0] for name in names}) == 1
        assert "small" not in names[0]  # the picture with the most pixels is kept
    assert all(m.difference <= LIMIT and m.kind == "near" for c in report.clusters for m in c.members)
    assert find_duplicates(remove_duplicates(store, report)).clusters == []


def test_what_the_encoder_does_not_see_is_compared(tmp_path: Path) -> None:
    plain, framed = Image.new("RGB", (90, 90), "white"), Image.new("RGB", (90, 90), "white")
    ImageDraw.Draw(framed).rectangle([0, 0, 20, 20], fill="navy")
    recoloured = Image.new("RGB", (90, 90), "black")
    pictures = {"plain": plain, "framed": framed, "recoloured": recoloured}
    store = picture_store(tmp_path / "s", {n: saved(p, tmp_path / f"{n}.png") for n, p in pictures.items()})
    assert find_duplicates(store).clusters == []
    by_vector = find_duplicates(store, pixels=False)
    assert (set(by_vector.ids), by_vector.pixels) == ({"plain", "recoloured"}, None)
    assert find_duplicates(store, threshold=0.98).clusters == by_vector.clusters  # a threshold is one of vectors
    assert find_duplicates(store, threshold=0.98, pixels=True).clusters == []


def test_pictures_that_cannot_be_read_are_compared_by_vector(tmp_path: Path) -> None:
    picture = drawing(1)
    files = {
        "kept": saved(picture, tmp_path / "kept.png"),
        "small": shrunken(picture, tmp_path, "small", 0.6, 90),
        "gone": saved(picture, tmp_path / "gone.webp", lossless=True),
        "other": saved(drawing(2), tmp_path / "other.png"),
        "changed": saved(drawing(5), tmp_path / "changed.png"),
        "copy": saved(drawing(2), tmp_path / "copy.png"),
    }
    store = picture_store(tmp_path / "s", files)
    (tmp_path / "gone.webp").unlink()
    saved(picture, tmp_path / "changed.png")
    report = find_duplicates(store)
    assert [(c.representative, [(m.id, m.kind) for m in c.members]) for c in report.clusters] == [
        ("kept", [("small", "near"), ("gone", "near")]),
        ("other", [("copy", "exact")]),
    ]
    small, gone = report.clusters[0].members
    assert small.difference is not None
    assert small.difference < LIMIT
    assert (gone.difference, gone.score) == (None, 1.0)
    assert report.pixels == 3
    assert len(report.notes) == 1
    assert "2 of 5 pictures were compared by vector (cosine 0.98 or more)" in report.notes[0]
    assert "the first, gone: " in report.notes[0]
    changed = find_duplicates(store, where="id = 'changed' or id = 'other'")
    assert "has changed since it was embedded" in changed.notes[0]
    assert find_duplicates(store, where="id <> 'gone' and id <> 'changed'").notes == []


def test_unread_pictures_have_neighbours_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"{i}{k}": saved(drawing(i), tmp_path / f"{i}.{k}") for i in range(12) for k in ("png", "tiff")}
    store = picture_store(tmp_path / "s", files)
    for i in range(6):
        (tmp_path / f"{i}.png").unlink()
    expected = find_duplicates(store)
    assert len(expected.ids) >= 12
    monkeypatch.setattr(near, "ALL_PAIRS_UP_TO", 5)
    found = find_duplicates(store)
    assert (found.clusters, found.approximate, expected.approximate) == (expected.clusters, True, False)


def test_texts_must_agree_too(tmp_path: Path) -> None:
    picture = drawing(1)
    files = {"a": saved(picture, tmp_path / "a.png"), "b": shrunken(picture, tmp_path, "b", 0.7)}
    files["c"] = shrunken(picture, tmp_path, "c", 0.6)
    store = picture_store(tmp_path / "s", files, text=["one", "one", "two"])
    assert find_duplicates(store).ids == ["b", "c"]
    assert find_duplicates(store, space=["image", "text"]).ids == ["b"]
    assert find_duplicates(store, space="text").pixels is None
    with pytest.raises(UsageError, match=r"Pixels are those of images and videos, spectra those of sounds; text has neither"):
        find_duplicates(store, space="text", pixels=True)


def test_very_many_pictures_are_compared_by_vector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = picture_store(tmp_path / "s", {str(i): saved(drawing(i), tmp_path / f"{i}.png") for i in range(4)})
    monkeypatch.setattr(Pictures, "up_to", 3)
    report = find_duplicates(store)
    assert report.pixels is None
    assert "compared by vector" in report.notes[0]


def test_reports_are_read_again(tmp_path: Path) -> None:
    x = np.repeat(np.eye(4), 2, axis=0) + 1e-3 * np.random.default_rng(0).normal(size=(8, 4))
    x[1] = x[0]
    ids = ['ä, "1"', "日本\n2", "=3", "4 \U0001f431", "5", "6", "7", "8"]
    report = find_duplicates(vector_store(tmp_path / "s", x, ids))
    assert len(report.ids) == 4
    document = json.loads(report.save(tmp_path / "d.json").read_text(encoding="utf-8"))
    assert document == json.loads(json.dumps(report.to_dict()))
    assert (document["exact"], document["near"]) == (1, 3)
    with open(report.save(tmp_path / "d.CSV"), newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    shown = {"=3": "'=3"}  # no formula in a spreadsheet
    expected = [
        (str(n), shown.get(c.representative, c.representative), m.id, str(m.score), m.kind, "")
        for n, c in enumerate(report.clusters, 1)
        for m in c.members
    ]
    assert [tuple(row.values()) for row in rows] == expected
    assert list(rows[0]) == ["cluster", "representative", "id", "score", "kind", "difference"]
    assert len(remove_duplicates(es.Store.open(tmp_path / "s"), report)) == 4
    with pytest.raises(UsageError, match=r"d\.txt should end in one of \.csv, \.json"):
        report.save(tmp_path / "d.txt")
    with pytest.raises(UsageError, match="no folder"):
        report.save(tmp_path / "none" / "d.csv")


def test_threshold_out_of_range(store: es.Store) -> None:
    for threshold in (0, -0.1, 1.01, float("nan"), True, "0.9"):
        with pytest.raises(
            UsageError, match=r"threshold must be (a cosine above 0 and at most 1, such as 0\.98|a number)\. Got"
        ):
            find_duplicates(store, threshold=threshold)  # type: ignore[arg-type]


def test_nothing_to_compare(store: es.Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no space 'sound'. Spaces: image, text"):
        find_duplicates(store, space="sound")
    with pytest.raises(UsageError, match="names no space"):
        find_duplicates(store, space=[])
    with pytest.raises(UsageError, match="matches no item"):
        find_duplicates(store, where="price > 1e9")
    with pytest.raises(UsageError, match="no item with a vector in text"):
        find_duplicates(store, where="id = 'item-03'", space="text")
    with pytest.raises(UsageError, match="has no space yet"):
        find_duplicates(es.Store.open(tmp_path / "new", create=True))
    with pytest.raises(UsageError, match="no item has a vector in image"):
        find_duplicates(store.remove([f"item-{i:02d}" for i in range(12)]))


def test_one_item_has_no_duplicates(tmp_path: Path) -> None:
    report = find_duplicates(vector_store(tmp_path / "s", np.ones((1, 3))))
    assert (report.items, report.clusters) == (1, [])


def test_a_stale_or_foreign_report_removes_nothing(store: es.Store, tmp_path: Path) -> None:
    report = find_duplicates(store)
    other = vector_store(tmp_path / "other", np.eye(3))
    with pytest.raises(StoreError, match=r"The report is of .*a\.store, not of .*other"):
        remove_duplicates(other, report)
    store.remove(["item-00"])
    with pytest.raises(StoreError, match=r"has changed.*generation.*Find them again"):
        remove_duplicates(store, report)
    assert len(store.refresh()) == 11


def test_command(store: es.Store, tmp_path: Path) -> None:
    shown = run("dedup", store.path).stdout
    assert "item-10" in shown
    assert "1 of 12 items are duplicates by image (1 exact, 0 near by pixels)" in shown
    assert "(1 exact, 0 near at cosine 0.98 or more)" in run("dedup", store.path, "--no-pixels").stdout
    assert "--remove" in shown
    assert f"default {find.THRESHOLD}" in " ".join(run("dedup", "--help").stdout.split())
    out = tmp_path / "d.csv"
    done = run("dedup", store.path, "--exact", "--out", out, "--remove", "--json")
    document = json.loads(done.stdout)
    assert (document["removed"], document["left"], document["threshold"]) == (1, 11, None)
    assert "1 duplicate written" in done.stderr
    assert "item-11" in out.read_text(encoding="utf-8")
    assert "Removed 0; 11 items are left." in run("dedup", store.path, "--space", "image,text", "--remove").stdout
    assert "should end in one of" in run("dedup", store.path, "--out", "d.txt", code=2).stderr

"""Videos: frames at the middle of equal parts, one vector or one failure a film, in little memory."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from media import film, sound, wave
from PIL import Image

import embedstore as es
from embedstore.encoders import load_encoder
from embedstore.encoders.payloads import films
from embedstore.encoders.payloads.films import frames
from embedstore.encoders.payloads.scenes import scene_middles
from embedstore.encoders.trust import absolute_name, local_path
from embedstore.errors import PayloadError, UsageError
from embedstore.sources import MemorySource

av = pytest.importorskip("av")


def scenes_of(lengths: list[int], *, kind: str = "mp4", flicker: bool = False, seed: int = 0) -> bytes:
    """A film of scenes of these numbers of frames at 25 a second: patterns that move, each unlike the others."""
    out, rng = io.BytesIO(), np.random.default_rng(seed)
    with av.open(out, "w", format=kind) as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 96, 64, "yuv420p", 2_000_000
        for length in lengths:
            blocks = np.kron(rng.integers(0, 256, (8, 20, 3)), np.ones((8, 8, 1))).astype(np.uint8)
            for number in range(length):
                pixels = np.ascontiguousarray(blocks[:, number % 64 : number % 64 + 96])
                pixels = 255 - pixels if flicker and number % 2 else pixels
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return out.getvalue()


def levels(payload: bytes, count: int) -> list[int]:
    """Which frame each found one is, by its level."""
    return [round(float(np.asarray(image)[-8:].mean()) / 10) for image, _ in frames(payload, count)]


def turned(payload: bytes) -> bytes:
    """The film with a display matrix that turns it by 90 degrees, as telephones write it."""
    at = payload.index(b"tkhd") + 4 + 40
    quarter = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    return payload[:at] + quarter + payload[at + 36 :]


def test_frames_are_those_at_the_middle_of_equal_parts() -> None:
    assert levels(film(list(range(24))), 4) == [3, 9, 15, 21]
    assert levels(film(list(range(24)), gap=1), 24) == list(range(24))
    assert levels(film(list(range(3))), 8) == [0, 1, 2]
    assert levels(film([0]), 8) == [0]


@pytest.mark.parametrize("kind", ["mp4", "matroska", "m4v"])
def test_frames_have_their_times(kind: str) -> None:
    found = frames(film(list(range(24)), kind=kind), 4)
    assert [frame.seconds for frame in found] == pytest.approx([3 / 25, 9 / 25, 15 / 25, 21 / 25], abs=1e-3)


@pytest.mark.parametrize("kind", ["mp4", "m4v"])
def test_the_frames_of_scenes_are_in_their_middle(kind: str) -> None:
    payload = scenes_of([20, 50, 30, 40], kind=kind)
    found, again = (frames(payload, 8, "scenes") for _ in range(2))
    assert [frame.seconds for frame in found] == pytest.approx([10 / 25, 45 / 25, 85 / 25, 119.5 / 25], abs=0.041)
    assert [frame.image.tobytes() for frame in found] == [frame.image.tobytes() for frame in again]


def test_motion_and_flicker_are_no_scenes() -> None:
    assert len(frames(scenes_of([60]), 8, "scenes")) == 1
    assert len(frames(scenes_of([60], flicker=True), 8, "scenes")) == 1
    assert len(frames(film([0]), 8, "scenes")) == 1
    with pytest.raises(PayloadError, match="no video"):
        frames(b"nothing", 8, "scenes")


def test_the_strongest_changes_count_and_short_scenes_do_not() -> None:
    times = np.arange(100) / 25
    changes = np.full(100, 2.0)
    changes[[30, 60, 65, 80]] = [40, 70, 60, 50]
    assert scene_middles(times, changes, 9) == pytest.approx([0.6, 1.8, 2.8, 3.58])  # 65 is too near to 60
    assert scene_middles(times, changes, 3) == pytest.approx([1.2, 2.8, 3.58])
    assert scene_middles(times, changes, 1) == pytest.approx([1.98])
    changes[:] = 50  # everything changes all the time
    assert scene_middles(times, changes, 9) == pytest.approx([1.98])
    assert scene_middles(times[:0], changes[:0], 9) == []


def test_a_film_of_a_varying_rate_is_sampled_by_time() -> None:
    assert levels(film([0, 1, 2, 3, 4, 5, 50, 100], kind="matroska"), 2) == [5, 6]


def test_a_film_that_does_not_say_how_long_it_is_is_walked() -> None:
    raw = film(list(range(24)), kind="m4v")  # an elementary stream
    assert levels(raw, 4) == [3, 9, 15, 21]


def of_two_sizes(first: tuple[int, int], then: tuple[int, int], count: int) -> bytes:
    """A film whose container knows its first frame's size alone, as MJPEG may change its size in every frame."""

    def jpeg(width: int, height: int) -> bytes:
        out = io.BytesIO()
        Image.new("RGB", (width, height), "grey").save(out, "JPEG")
        return out.getvalue()

    out = io.BytesIO()
    with av.open(out, "w", format="matroska") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = *first, "yuvj420p"
        container.start_encoding()
        for number, data in enumerate([jpeg(*first), *[jpeg(*then)] * (count - 1)]):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.is_keyframe = stream, number * 40, number * 40, True
            packet.time_base = Fraction(1, 1000)
            container.mux(packet)
    return out.getvalue()


@pytest.mark.parametrize("sampling", films.SAMPLINGS)
def test_every_frame_is_bounded_and_not_only_what_the_header_says(monkeypatch: pytest.MonkeyPatch, sampling: str) -> None:
    payload = of_two_sizes((64, 48), (200, 100), 4)
    assert (200, 100) in {frame.image.size for frame in frames(payload, 4)}
    monkeypatch.setattr(films, "MAX_PIXELS", 10_000)
    with pytest.raises(PayloadError, match="frames of more than 10,000 pixels"):
        frames(payload, 4, sampling)
    with pytest.raises(PayloadError, match="frames of more than 10,000 pixels"):
        films.cover(io.BytesIO(of_two_sizes((200, 100), (64, 48), 2)))
    found = frames(of_two_sizes((64, 48), (1600, 1600), 4), 4)  # for so much more FFmpeg makes no room
    assert [frame.image.size for frame in found] == [(64, 48)]


def test_pictures_that_are_kept_take_a_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = film(list(range(4)))
    assert [frame.image.size for frame in frames(payload, 4)] == [(64, 48)] * 4
    monkeypatch.setattr(films, "MAX_KEPT", 64 * 48 * 3)
    assert [frame.image.size for frame in frames(payload, 4)] == [(32, 24)] * 4
    assert [frame.image for frame in frames(payload, 4, each=lambda image: image.size)] == [(64, 48)] * 4
    with pytest.raises(UsageError, match="the encoder's own"):  # not the film's
        frames(payload, 4, each=Mock(side_effect=UsageError("the encoder's own")))


@pytest.mark.parametrize(("kind", "passes"), [("mp4", 1), ("matroska", 2), ("mpegts", 2), ("m4v", 2)])
def test_a_film_is_decoded_a_bounded_number_of_times(monkeypatch: pytest.MonkeyPatch, kind: str, passes: int) -> None:
    """With one key frame, and in kinds that have no index, however many frames are wanted."""
    payload = film(list(range(100)), kind=kind, gap=200)
    expected = [frame.seconds for frame in frames(payload, 20)]
    assert len(expected) == 20
    monkeypatch.setattr(films, "MAX_DECODED", 100 * passes)
    assert [frame.seconds for frame in frames(payload, 20)] == expected
    monkeypatch.setattr(films, "MAX_DECODED", 10)
    for sampling in films.SAMPLINGS:
        with pytest.raises(PayloadError, match="more than 10 frames to decode; cut it into shorter films"):
            frames(payload, 20, sampling)


def test_a_turned_film_stands_upright() -> None:
    ((image, _),) = frames(turned(film([0])), 1)
    assert image.size == (48, 64)
    ((flat, _),) = frames(film([0]), 1)
    assert flat.size == (64, 48)
    upper = np.asarray(flat)[:8].mean()
    sides = np.asarray(image)[:, :8].mean(), np.asarray(image)[:, -8:].mean()
    assert min(abs(side - upper) for side in sides) < 3


def test_a_film_that_was_cut_off_gives_the_frames_that_it_has() -> None:
    whole = film(list(range(24)), kind="matroska", gap=4)
    found = levels(whole[: len(whole) * 2 // 3], 4)
    assert found
    assert set(found) <= set(range(24))


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"", "no video that FFmpeg reads"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "no video that FFmpeg reads|without a frame"),
        (film(list(range(24)))[:200], "no video that FFmpeg reads|without a frame"),
        (sound(wave(0.1)), "without a video stream"),
    ],
    ids=["empty", "a picture", "cut off", "a sound"],
)
def test_what_is_no_film_is_one_failure(payload: bytes, said: str) -> None:
    with pytest.raises(PayloadError, match=said):
        frames(payload, 8)


def test_the_vector_is_the_mean_of_the_frames_vectors_whatever_the_batch() -> None:
    encoder: Any = load_encoder("frames:3:hash:16", "video")
    inner: Any = load_encoder("hash:16", "image")
    payloads = [film(list(range(n))) for n in (2, 9, 20)]
    together = encoder.encode([encoder.prepare(payload) for payload in payloads])
    for payload, row in zip(payloads, together, strict=True):
        files = [io.BytesIO() for _ in frames(payload, 3)]
        for file, (image, _) in zip(files, frames(payload, 3), strict=True):
            image.save(file, "BMP")
        mean = inner.encode([file.getvalue() for file in files]).astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(row, mean, atol=1e-6)
        assert (encoder.encode([encoder.prepare(payload)])[0] == row).all()


def test_images_find_films_of_the_same_encoder(tmp_path: Path) -> None:
    made = {"dark": film([0]), "light": film(list(range(25)))}
    table = tmp_path / "films"
    table.mkdir()
    for name, payload in made.items():
        (table / f"{name}.mp4").write_bytes(payload)
    (table / "broken.mp4").write_bytes(b"nothing")
    report = es.embed(table, tmp_path / "s", video="frames:1:hash")
    assert (report.spaces["video"].embedded, report.spaces["video"].failed) == (2, 1)
    ((image, _),) = frames(made["dark"], 1)
    image.save(tmp_path / "frame.bmp")
    answer = es.search(tmp_path / "s", image=tmp_path / "frame.bmp", k=1)
    assert (answer.results[0].id, round(answer.results[0].score, 3)) == ("dark.mp4", 1.0)
    assert es.search(tmp_path / "s", video=table / "light.mp4", k=1).results[0].id == "light.mp4"


def test_the_name_says_how_many_frames_and_its_path_is_seen() -> None:
    first, second = (load_encoder(f"frames:{n}:hash", "video").spec for n in (4, 5))
    assert first.fingerprint != second.fingerprint
    assert first.alignment == second.alignment
    assert local_path("frames:timm:local-dir:./m") == "./m"
    assert absolute_name("frames:9:st:./m") == f"frames:9:st:{Path('m').absolute()}"
    scenes = load_encoder("frames:scenes:4:hash", "video").spec
    assert scenes.fingerprint != first.fingerprint == load_encoder("frames:4:hash", "video").spec.fingerprint
    assert scenes.alignment == first.alignment
    assert load_encoder("frames:scenes:hash", "video").spec.preprocessing["frames"] == 8
    assert absolute_name("frames:scenes:9:st:./m") == f"frames:scenes:9:st:{Path('m').absolute()}"
    with pytest.raises(UsageError, match="frames: needs an encoder of images"):
        load_encoder("frames:", "video")
    with pytest.raises(UsageError, match="takes 1 to 1024 frames"):
        load_encoder("frames:0:hash", "video")
    with pytest.raises(UsageError, match="frames: takes an encoder of images"):
        load_encoder("frames:nothing", "video")
    with pytest.raises(UsageError, match="takes video and image and text, not audio"):
        load_encoder("frames:hash", "audio")


def test_a_blank_payload_is_missing(tmp_path: Path) -> None:
    data = MemorySource({"id": ["a", "b"], "video": [film([0, 1]), None]})
    assert es.embed(data, tmp_path / "s", video="frames:hash").spaces["video"].missing == 1


MEASURED = """
import resource, sys
from embedstore.encoders.payloads.films import frames
payload = open(sys.argv[1], "rb").read()
import av, PIL.Image
frames(open(sys.argv[2], "rb").read(), 8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert len(frames(payload, 8)) == 8
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_ten_minutes_of_film_take_little_memory(tmp_path: Path) -> None:
    (tmp_path / "long.mp4").write_bytes(film(list(range(0, 15_000, 5)), size=(640, 360), gap=50))
    (tmp_path / "short.mp4").write_bytes(film(list(range(9)), size=(640, 360)))
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "long.mp4"), str(tmp_path / "short.mp4")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 300 * 1024


def test_films_and_images_of_an_encoder_without_texts_take_no_texts(tmp_path: Path) -> None:
    data = MemorySource({"id": ["a", "b"], "video": [film([0]), film([0, 1, 2])], "text": ["a dark film", "a grey one"]})
    es.embed(data, tmp_path / "s", video="frames:1:hash", text="hash:16")
    answer = es.search(tmp_path / "s", text="a grey one", k=1)
    assert (answer.space, answer.results[0].id) == ("text", "b")


def test_search_says_when_the_frame_is_shown_that_is_most_like_the_query(tmp_path: Path) -> None:
    """One frame of another picture, 2.44 seconds into one of three films, is found by that picture."""
    folder = tmp_path / "films"
    folder.mkdir()
    planted = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    for number, name in enumerate("abc"):
        (folder / f"{name}.mp4").write_bytes(planted_film(planted, at=61 if name == "b" else None, level=40 * number))
    report = es.embed(folder, tmp_path / "s", video="frames:50:hash:64+pieces")
    assert report.spaces["video"].embedded == 3
    store = es.Store.open(tmp_path / "s")
    assert store.spaces["video"].pieces_of(store.items.rows).counts.tolist() == [50, 50, 50]
    shown = next(frame for frame in frames((folder / "b.mp4").read_bytes(), 50) if abs(frame.seconds - 2.44) < 0.01)
    shown.image.save(tmp_path / "frame.bmp")
    (hit,) = es.search(store, image=tmp_path / "frame.bmp", k=1).results
    assert (hit.id, round(hit.score, 3)) == ("b.mp4", 1.0)
    assert hit.piece is not None
    assert (hit.piece.unit, hit.piece.number, hit.piece.start) == ("frame", 30, pytest.approx(2.44, abs=1e-3))
    assert str(hit.piece) == "0:02.4"
    same = es.search(store, video=folder / "b.mp4", k=2).results  # all frames of the film against all of every film
    assert (same[0].id, round(same[0].score, 3)) == ("b.mp4", 1.0)
    one = load_encoder("frames:50:hash:64", "video").spec
    assert store.spaces["video"].fingerprint != one.fingerprint
    assert store.spaces["video"].spec.alignment == one.alignment


def planted_film(pixels: np.ndarray[Any, Any], *, at: int | None, level: int, length: int = 100) -> bytes:
    """A film of 25 frames a second of one level, and of `pixels` at the frame `at`."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", 12
        for number in range(length):
            grey = np.full_like(pixels, level + number % 7)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels if number == at else grey, format="rgb24")))
        container.mux(stream.encode())
    return out.getvalue()

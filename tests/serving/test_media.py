"""Sounds and films over HTTP: seen as waveforms and frames, played with ranges, and searched by."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import write_csv, write_image
from starlette.testclient import TestClient

import embedstore as es
from embedstore._core.keys import hash_file
from embedstore.encoders.payloads.faces import BARS, waveform_svg
from embedstore.encoders.payloads.films import cover
from embedstore.encoders.payloads.sounds import peaks
from embedstore.errors import PayloadError
from embedstore.reports.data import ReportData
from embedstore.reports.page import render_html
from embedstore.serving.app import create_app
from embedstore.serving.known_files import KnownFiles
from embedstore.serving.playable import Playables, media_type, modality_of
from embedstore.serving.session import Session
from embedstore.serving.thumbnails import Thumbnails
from embedstore.training.item_cards import small_cards

pytest.importorskip("soundfile")
av = pytest.importorskip("av")
HERE = "http://127.0.0.1"


def tone(path: Path, pitch: float, seconds: float = 0.4) -> Path:
    import soundfile

    time = np.arange(int(16_000 * seconds)) / 16_000
    soundfile.write(path, np.sin(2 * np.pi * pitch * time) * np.linspace(1, 0, len(time)), 16_000)
    return path


def film(path: Path, levels: list[int]) -> Path:
    """A film whose frames are grey, each of one level; browsers play .webm."""
    with av.open(str(path), "w") as made:
        stream = made.add_stream("libvpx" if path.suffix == ".webm" else "mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in levels:
            made.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")))
        made.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    rows: list[dict[str, str]] = []
    for number in range(4):
        tone(folder / f"{number}.wav", 300 * (number + 1))
        moving = film(folder / f"{number}.{'webm' if number % 2 else 'mp4'}", [0] * 3 + [80 + 40 * number] * 20)
        rows.append({"id": f"sound-{number}", "audio": f"{number}.wav", "text": f"tone {number}"})
        rows.append({"id": f"film-{number}", "video": moving.name})
    write_image(folder / "0.png", seed=0)
    rows.append({"id": "both", "image": "0.png", "audio": "0.wav", "text": "a picture that sounds"})
    rows.append({"id": "words", "text": "words alone"})
    with open(folder / "table.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "image", "audio", "video", "text"])
        writer.writeheader()
        writer.writerows(rows)
    es.embed(
        folder / "table.csv", folder / "a.store", image="hash:32", audio="logmel", video="frames:2:hash:32", text="hash:16"
    )
    return folder


@pytest.fixture(scope="module")
def client(data: Path) -> Iterator[TestClient]:
    with TestClient(create_app(data / "a.store"), base_url=HERE, raise_server_exceptions=False) as asked:
        yield asked


def results(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return list(answer.json()["results"])


def test_results_say_what_can_be_seen_and_played(client: TestClient) -> None:
    found = {one["id"]: (one["kind"], one["media"]) for one in results(client.post("/v1/search", json={}))}
    assert found["sound-0"] == ("audio", ["audio"])
    assert found["film-0"] == ("video", ["video"])
    assert found["both"] == ("image", ["audio"])
    assert found["words"] == ("text", [])


def test_what_was_not_embedded_is_not_offered(tmp_path: Path) -> None:
    """A sound that failed, a picture that no space is of, and one that lies elsewhere: cards ask for none of them."""
    write_image(tmp_path / "0.png", seed=0)
    (tmp_path / "bad.wav").write_bytes(b"no sound at all")
    tone(tmp_path / "good.wav", 500)
    rows = [
        {"id": "failed", "image": "0.png", "audio": "bad.wav", "text": "one"},
        {"id": "heard", "image": "0.png", "audio": "good.wav", "text": "two"},
        {"id": "read", "image": "0.png", "audio": "", "text": "three"},
    ]
    es.embed(write_csv(tmp_path / "t.csv", rows), tmp_path / "a.store", audio="logmel", text="hash:16")
    with TestClient(create_app(tmp_path / "a.store"), base_url=HERE) as client:
        for request in ({}, {"query": {"text": "one"}}):
            found = {one["id"]: (one["kind"], one["media"]) for one in results(client.post("/v1/search", json=request))}
            assert found == {"failed": ("text", []), "heard": ("audio", ["audio"]), "read": ("text", [])}
        assert client.get("/v1/item", params={"id": "failed"}).json()["kind"] == "text"


def test_a_sound_is_seen_as_a_waveform_and_a_film_as_a_frame(client: TestClient) -> None:
    wave = client.get("/v1/thumbnail", params={"id": "sound-1"})
    assert (wave.status_code, wave.headers["content-type"]) == (200, "image/svg+xml")
    assert wave.text.startswith("<svg xmlns=")
    assert len(wave.content) < 2000
    known = {"if-none-match": wave.headers["etag"]}
    assert client.get("/v1/thumbnail", params={"id": "sound-1", "size": 64}, headers=known).status_code == 304
    frame = client.get("/v1/thumbnail", params={"id": "film-1"})
    assert (frame.headers["content-type"], frame.content[:3]) == ("image/jpeg", b"\xff\xd8\xff")
    of_both = [client.get("/v1/thumbnail", params={"id": "both", **space}) for space in ({}, {"space": "audio"})]
    assert [one.headers["content-type"] for one in of_both] == ["image/jpeg", "image/svg+xml"]
    assert client.get("/v1/thumbnail", params={"id": "words"}).status_code == 404


def test_a_sound_is_sent_whole_or_in_part(client: TestClient, data: Path) -> None:
    whole = client.get("/v1/media", params={"id": "sound-0"})
    own = (data / "0.wav").read_bytes()
    assert (whole.status_code, whole.headers["content-type"], whole.content) == (200, "audio/wav", own)
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert "media-src 'self'" in whole.headers["content-security-policy"]
    part = client.get("/v1/media", params={"id": "sound-0"}, headers={"range": "bytes=100-199"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, own[100:200], f"bytes 100-199/{len(own)}")
    last = client.get("/v1/media", params={"id": "sound-0"}, headers={"range": "bytes=-10", "if-range": whole.headers["etag"]})
    assert (last.status_code, last.content) == (206, own[-10:])
    other = client.get("/v1/media", params={"id": "sound-0"}, headers={"range": "bytes=-10", "if-range": '"another"'})
    assert (other.status_code, len(other.content)) == (200, len(own))
    assert client.get("/v1/media", params={"id": "sound-0"}, headers={"range": f"bytes={len(own)}-"}).status_code == 416
    moving = client.get("/v1/media", params={"id": "film-0"})
    assert (moving.headers["content-type"], moving.content) == ("video/mp4", (data / "0.mp4").read_bytes())
    assert client.get("/v1/media", params={"id": "both"}).content == own
    assert client.get("/v1/media", params={"id": "both", "modality": "video"}).status_code == 404
    for gone in ("words", "nobody"):
        assert client.get("/v1/media", params={"id": gone}).status_code == 404


def test_a_sound_that_the_browser_has_is_not_sent_again(client: TestClient) -> None:
    tag = client.get("/v1/media", params={"id": "sound-0"}).headers["etag"]
    for known in (tag, f'"other", W/{tag}', "*"):
        answer = client.get("/v1/media", params={"id": "sound-0"}, headers={"if-none-match": known, "range": "bytes=0-9"})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    assert client.get("/v1/media", params={"id": "sound-0"}, headers={"if-none-match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        ("bytes=999999999-", 416), ("bytes=-0", 416), ("items=0-1", 400), ("bytes=5-2", 400), ("bytes", 400), ("bytes=-", 400),
        ("bytes=x-9", 400), ("bytes=1-y", 400), ("bytes=--5", 400), ("bytes=²-", 400), (f"bytes={'9' * 5000}-", 400),
        ("bytes=0-999999999", 206), ("bytes=-999999999", 206), ("bytes=0-1,5-6", 200), (" BYTES = 0 - 1 ", 206),
    ],
)  # fmt: skip
def test_a_range_that_is_none_is_refused_as_json(client: TestClient, data: Path, wanted: str, status: int) -> None:
    size = (data / "0.wav").stat().st_size
    answer = client.get("/v1/media", params={"id": "sound-0"}, headers={"range": wanted.encode("latin-1")})
    assert answer.status_code == status
    if status >= 400:
        assert set(answer.json()) == {"error", "next"}
        assert answer.headers.get("content-range") == (f"bytes */{size}" if status == 416 else None)
    else:
        assert len(answer.content) == (2 if wanted == " BYTES = 0 - 1 " else size)


def test_the_file_that_was_looked_at_is_the_one_that_is_sent(tmp_path: Path) -> None:
    """Between the look and the sending another file takes its place; and one written to in place is looked at again."""
    path = tone(tmp_path / "a.wav", 500)
    es.embed(write_csv(tmp_path / "t.csv", [{"id": "a", "audio": "a.wav"}]), tmp_path / "a.store", audio="logmel")
    own, session, playables = path.read_bytes(), Session(es.Store.open(tmp_path / "a.store")), Playables(KnownFiles())
    found = playables.of(session, "a")
    assert found is not None
    (tmp_path / "b.wav").write_bytes(b"a secret")
    (tmp_path / "b.wav").replace(path)
    with found.file as file:
        file.seek(0)
        assert file.read() == own
    path.write_bytes(own)
    found = playables.of(session, "a")
    assert found is not None
    found.file.close()
    with open(path, "r+b") as written:
        written.write(b"RIFX")
    os.utime(path, ns=(found.status.st_atime_ns, found.status.st_mtime_ns))  # its length and time are as they were
    assert playables.of(session, "a") is None


def test_only_what_was_embedded_is_sent(client: TestClient, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another file at the same place, of the same length and written at the same time, is noticed by its inode."""
    path = data / "3.wav"
    before = path.stat()
    assert client.get("/v1/media", params={"id": "sound-3"}).status_code == 200
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes()[:-2] + b"\1\1")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)
    assert client.get("/v1/media", params={"id": "sound-3"}).status_code == 404
    path.unlink()
    os.mkfifo(path)
    assert client.get("/v1/media", params={"id": "sound-3"}).status_code == 404
    assert client.get("/v1/thumbnail", params={"id": "sound-3"}).status_code == 404
    monkeypatch.setattr("embedstore.serving.own_files.is_url", lambda path: True)
    assert client.get("/v1/media", params={"id": "sound-0"}).status_code == 404


def test_a_picture_is_drawn_once_and_a_file_is_read_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks meanwhile waits; that a file has no picture is kept as well, and what the disk says against it is not."""
    drawn: list[int] = []
    read: list[int] = []
    begun, go = threading.Event(), threading.Event()
    faults: list[Exception] = [OSError(5, "no disk")]

    def slow(file: Any, modality: str, side: int, **given: Any) -> bytes:
        drawn.append(side)
        begun.set()
        go.wait(10)
        if side > 256:
            raise faults.pop() if faults else PayloadError("decode", "is damaged")
        return b"<svg"

    def spied(file: Any) -> bytes:
        read.append(1)
        return hash_file(file)

    monkeypatch.setattr("embedstore.serving.thumbnails.small_picture", slow)
    monkeypatch.setattr("embedstore.serving.known_files.hash_file", spied)
    session, files = Session(es.Store.open(data / "a.store")), KnownFiles()
    pictures = Thumbnails(files)
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(pictures.of, session, "film-1", 100) for _ in range(3)]
        assert begun.wait(10)
        go.set()
        assert len({one.result(10) for one in asked}) == 1
    assert (drawn, read) == ([128], [1])
    assert [pictures.of(session, "film-1", 300) for _ in range(4)] == [None] * 4
    assert drawn == [128, 512, 512]  # the disk was asked again, the damaged file was not
    assert Playables(files).of(session, "film-1") is not None
    assert read == [1]


@pytest.mark.parametrize("field", ["file", "audio"])
def test_a_sound_is_searched_by(client: TestClient, data: Path, field: str) -> None:
    sent = {field: ("mine", (data / "2.wav").read_bytes())}
    found = results(client.post("/v1/search/upload", files=sent, data={"request": '{"k": 2}'}))
    assert found[0]["id"] == "sound-2"
    assert found[0]["score"] > 0.999


def test_a_film_is_searched_by_and_base64_too(client: TestClient, data: Path) -> None:
    whole = (data / "2.mp4").read_bytes()
    assert results(client.post("/v1/search/upload", files={"video": whole}))[0]["id"] == "film-2"
    assert results(client.post("/v1/search/upload", files={"file": whole}))[0]["id"] == "film-2"
    encoded = base64.b64encode((data / "1.wav").read_bytes()).decode()
    assert results(client.post("/v1/search", json={"query": {"audio": encoded}}))[0]["id"] == "sound-1"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"audio": b"no sound at all"}, "The audio cannot be used: is no sound that libsndfile reads"),
        ({"video": b"no film at all"}, "The video cannot be used: is no video that FFmpeg reads"),
        ({"audio": b""}, "The audio cannot be used"),
        ({"audio": b"a", "video": b"b"}, "One of file, image, audio, video should be sent; got audio and video."),
    ],
)
def test_what_cannot_be_searched_by_is_told_in_one_line(client: TestClient, files: dict[str, bytes], said: str) -> None:
    answer = client.post("/v1/search/upload", files=files, data={"request": json.dumps({"k": 1})})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(said)


def test_bytes_say_what_a_file_is(data: Path) -> None:
    kinds = {
        b"RIFF\0\0\0\0WAVEfmt ": "audio/wav",
        b"fLaC\0\0": "audio/flac",
        b"OggS\0\2" + b"\0" * 22 + b"\1\x1eOpusHead": "audio/ogg",
        b"OggS\0\2" + b"\0" * 22 + b"\1\x2a\x80theora": "video/ogg",
        b"\xff\xfb\x90\0": "audio/mpeg",
        b"\xff\xf1\x50\0": "audio/aac",
        b"\0\0\0\x20ftypM4A ": "audio/mp4",
        b"\0\0\0\x20ftypisom": "video/mp4",
        b"\x1aE\xdf\xa3": "video/webm",
        b"\0\0\0\x20ftypavif": None,
        b"<html><script>": None,
        b"\x89PNG\r\n\x1a\n": None,
        b"": None,
        b"\xff": None,
    }
    assert {head: media_type(head) for head in kinds} == kinds
    assert media_type(b"\0\0\0\x20ftypisom", "audio") == "audio/mp4"
    assert [modality_of(head) for head in (b"fLaC", b"\x1aE\xdf\xa3", b"\x89PNG")] == ["audio", "video", "image"]


def test_a_waveform_is_as_high_as_the_sound_is_loud(tmp_path: Path) -> None:
    found = peaks(io.BytesIO(tone(tmp_path / "a.wav", 1000).read_bytes()), 4)
    assert found == pytest.approx([1, 0.75, 0.5, 0.25], abs=0.02)
    assert waveform_svg(io.BytesIO(tone(tmp_path / "b.wav", 1000, 1 / 16_000).read_bytes())).count(b"M") == BARS  # one sample
    with pytest.raises(PayloadError, match="no sound that libsndfile reads"):
        peaks(io.BytesIO(b"nothing"), 4)


def test_the_frame_of_a_film_is_not_black(tmp_path: Path) -> None:
    def level(levels: list[int]) -> float:
        return float(np.asarray(cover(io.BytesIO(film(tmp_path / "a.mp4", levels).read_bytes())).convert("L")).mean())

    assert level([200] * 5) == pytest.approx(200, abs=3)
    assert level([0] * 30 + [150] * 10) == pytest.approx(150, abs=3)
    assert level([0] * 5) < 3
    with pytest.raises(PayloadError, match="no video that FFmpeg reads"):
        cover(io.BytesIO(b"nothing"))


def test_reports_show_waveforms_and_frames(data: Path) -> None:
    view = es.Store.open(data / "a.store").view(inputs=["audio", "video", "text"])
    every = ["a"] * len(view)
    cards = small_cards(view, labelled=every, predicted=every, probability=np.ones(len(view)), alone={})
    shown = {card.id: (card.shown, (card.thumbnail or b"")[:4]) for card in cards}
    assert shown["sound-0"] == ("waveform", b"<svg")
    assert shown["film-0"] == ("frame", b"\xff\xd8\xff\xe0")
    assert shown["both"][0] == "image"
    assert shown["words"] == ("image", b"")
    page = render_html(ReportData("topic", {}, {}, mistakes=[card for card in cards if card.id in ("sound-0", "film-0")]))
    assert 'src="data:image/svg+xml;base64,' in page
    assert 'alt="Waveform of sound-0"' in page
    assert 'alt="Frame of film-0"' in page

"""Copies of sounds and films: found by what the files hold, whatever format, rate, loudness or size."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_dedup import run, saved

import embedstore as es
from embedstore.demo.clips import CLASSES, RATE
from embedstore.duplicates import content
from embedstore.duplicates.find import find_duplicates, remove_duplicates
from embedstore.duplicates.near import CONTENTS
from embedstore.duplicates.pairs import Pairs, in_all
from embedstore.duplicates.sheets import ACROSS, sheet
from embedstore.duplicates.spectra import LIMIT, SHIFT, alike_sounds, difference
from embedstore.encoders.payloads import fingerprint as prints
from embedstore.encoders.payloads.fingerprint import fingerprint
from embedstore.encoders.payloads.sounds import decode_sound
from embedstore.errors import PayloadError
from embedstore.sources import MemorySource

sf = pytest.importorskip("soundfile")


def clip(label: str, number: int) -> Any:
    """One of the demo's sounds, a second and a half at 16 kHz."""
    samples, _ = CLASSES[label](np.random.default_rng([number, *label.encode()]))
    return 0.6 * samples / np.abs(samples).max()


def sound(samples: Any, rate: int = RATE, kind: str = "FLAC", **how: Any) -> bytes:
    out = io.BytesIO()
    sf.write(out, samples, rate, format=kind, **how)
    return out.getvalue()


def at_44100(samples: Any) -> Any:
    import soxr

    return soxr.resample(samples, RATE, 44_100)


COPIES = {
    "mp3": lambda x: sound(at_44100(x), 44_100, "MP3"),
    "vorbis": lambda x: sound(x, RATE, "OGG"),
    "quiet": lambda x: sound(np.stack([x, x], axis=1) / 2, RATE),
    "moved": lambda x: sound(np.concatenate([np.zeros(RATE // 5), x / 2]), RATE, "MP3"),
}


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of three sounds of each of four classes, which have a copy each."""
    folder = tmp_path_factory.mktemp("sounds")
    files = {}
    for label in ("bird", "drum", "siren", "waves"):
        for number, kind in enumerate(("mp3", "vorbis", "quiet")):
            samples = clip(label, number)
            files[f"{label} {number}"] = sound(at_44100(samples), 44_100)
            kind = "moved" if label == "drum" else kind
            files[f"{label} {number} {kind}"] = COPIES[kind](samples)
    for name, payload in files.items():
        (folder / name).write_bytes(payload)
    data = MemorySource({"id": list(files), "audio": [str(folder / name) for name in files]})
    es.embed(data, folder / "s", audio="logmel")
    return folder / "s"


def test_files_are_read_by_as_many_threads_as_the_process_may_use(sounds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Spied(ThreadPoolExecutor):
        def __init__(self, workers: int, **how: Any) -> None:
            asked.append(workers)
            super().__init__(workers, **how)

    monkeypatch.setattr(content, "ThreadPoolExecutor", Spied)
    monkeypatch.setattr(content, "allowed", lambda: 3)
    find_duplicates(sounds)
    assert asked == [3]


def test_copies_of_sounds_are_found_and_sounds_of_one_class_are_not(sounds: Path) -> None:
    report = find_duplicates(sounds)
    assert (report.items, report.pixels, report.by, report.notes) == (24, 24, "spectra", [])
    assert report.counts == {"exact": 0, "near": 12}
    for cluster in report.clusters:
        (member,) = cluster.members
        assert member.id.startswith(cluster.representative + " ")  # the larger file is kept
        assert member.difference is not None
        assert 0 <= member.difference <= LIMIT
    by_vector = find_duplicates(sounds, threshold=0.995)
    assert (by_vector.by, by_vector.pixels) == (None, None)
    assert set(by_vector.ids) != set(report.ids)


def test_the_command_says_what_was_compared(sounds: Path) -> None:
    shown = run("dedup", sounds, "--out", sounds.parent / "found.json").stdout
    assert "12 of 24 items are duplicates by audio (0 exact, 12 near by spectra)" in shown
    assert "largest difference" in shown
    assert json.loads((sounds.parent / "found.json").read_text(encoding="utf-8"))["by"] == "spectra"


def test_bits_are_those_of_the_paper() -> None:
    samples = clip("waves", 0)
    found = fingerprint(sound(samples, subtype="PCM_24"))
    x = prints.sounding(decode_sound(sound(samples, subtype="PCM_24"), RATE))
    padded = np.pad(np.asarray(x / np.abs(x).max(), np.float64), prints.FRAME // 2)
    edges = np.geomspace(200, 6500, 34)
    hertz = np.fft.rfftfreq(2048, 1 / RATE)
    energies = np.array(
        [
            [power[(hertz >= low) & (hertz < high)].mean() for low, high in pairwise(edges)]
            for at in range(0, len(padded) - 2047, 256)
            for power in [np.abs(np.fft.rfft(padded[at : at + 2048] * np.hanning(2048))) ** 2]
        ]
    )
    levels = np.log(energies + 1e-4 * energies.max())
    grows = [
        [levels[n, m] - levels[n, m + 1] - (levels[n - 1, m] - levels[n - 1, m + 1]) > 0 for m in range(32)]
        for n in range(1, len(levels))
    ]
    bits = np.array([int("".join("01"[int(bit)] for bit in row), 2) for row in grows], np.uint32)
    assert len(found.bits) == len(bits)
    assert np.bitwise_count(found.bits ^ bits).sum() <= 0.002 * 32 * len(bits)  # float32 rounds a few differently
    outline = np.stack([part.mean(axis=0) for part in np.array_split(np.repeat(levels, 16, axis=0), 16)])
    np.testing.assert_allclose(found.outline, (outline - outline.mean()).ravel(), atol=1e-3)
    assert found.seconds == pytest.approx(len(x) / RATE)


def test_loudness_and_silence_around_do_not_count() -> None:
    samples = clip("siren", 1)
    loud = fingerprint(sound(samples, subtype="PCM_24"))
    quiet = fingerprint(sound(np.concatenate([np.zeros(RATE), samples / 8, np.zeros(RATE)]), subtype="PCM_24"))
    assert difference(loud.bits, quiet.bits) < 0.05
    np.testing.assert_allclose(loud.outline, quiet.outline, atol=0.05)
    silent = fingerprint(sound(np.zeros(RATE)))
    assert not silent.outline.any()
    assert len(fingerprint(sound(np.full(1, 0.3))).bits) == 0
    with pytest.raises(PayloadError, match="no sound"):
        fingerprint(b"nothing")


def test_silence_is_like_nothing() -> None:
    few = [fingerprint(sound(np.zeros(n))) for n in (RATE, RATE, 9, 1)]
    outlines, seconds = np.stack([f.outline for f in few]), np.array([f.seconds for f in few])
    assert len(alike_sounds(outlines, [f.bits for f in few], seconds)) == 0


@pytest.mark.parametrize(("before", "expected"), [(0, 0.1), (5, 0.1), (-SHIFT, 0.1), (SHIFT + 20, 0.5)])
def test_the_difference_is_that_where_bits_fit_best(before: int, expected: float) -> None:
    rng = np.random.default_rng(0)
    bits = rng.random((200, 32)) < 0.5
    other = bits ^ (rng.random(bits.shape) < 0.1)
    noise = rng.random((abs(before), 32)) < 0.5
    other = np.concatenate([noise, other]) if before >= 0 else other[-before:]
    a, b = (np.packbits(x, axis=1).view(">u4").ravel().astype(np.uint32) for x in (bits, other))
    assert difference(a, b) == difference(b, a) == pytest.approx(expected, abs=0.02)
    assert difference(a, b[:100]) == 1  # too little of the longer one
    assert difference(a[:0], b[:0]) == 1


def test_sounds_of_other_lengths_are_no_copies() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 1 << 32, 100, dtype=np.uint32)
    outlines = np.repeat(rng.normal(size=(1, 8)), 3, axis=0)
    found = alike_sounds(outlines, [bits, bits, bits], np.array([1.0, 1.15, 1.4]))
    assert (found.left.tolist(), found.right.tolist(), found.scores.tolist()) == ([0], [1], [1.0])


def test_pairs_that_all_agree_on() -> None:
    one = Pairs(np.array([3, 0, 1]), np.array([4, 2, 2]), np.array([0.9, 0.8, 0.7]))
    two = Pairs(np.array([1, 3, 0]), np.array([2, 4, 1]), np.array([0.95, 0.6, 1.0]))
    found = in_all([one, two])
    assert set(zip(found.left.tolist(), found.right.tolist(), found.scores.tolist(), strict=True)) == {(3, 4, 0.6), (1, 2, 0.7)}
    assert in_all([one]) is one
    empty = Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    assert len(in_all([empty, one])) == len(in_all([one, empty])) == len(in_all([empty, empty])) == 0


def test_sounds_that_cannot_be_read_are_compared_by_vector(tmp_path: Path) -> None:
    files = {"a": sound(clip("bird", 0)), "b": sound(clip("bird", 0), kind="WAV"), "c": sound(clip("drum", 0))}
    for name, payload in files.items():
        (tmp_path / name).write_bytes(payload)
    paths = {name: str(tmp_path / name) for name in files}
    data = MemorySource({"id": list(files), "audio": list(paths.values())})
    es.embed(data, tmp_path / "s", audio="logmel")
    assert find_duplicates(tmp_path / "s").ids == ["a"]  # the WAV is larger
    (tmp_path / "b").unlink()
    report = find_duplicates(tmp_path / "s")
    assert report.ids == ["b"]  # of what cannot be read, the size counts for nothing
    assert (report.pixels, report.clusters[0].members[0].difference) == (2, None)
    assert "1 of 3 sounds were compared by vector (cosine 0.98 or more)" in report.notes[0]


def test_pictures_and_sounds_must_both_be_copies(tmp_path: Path) -> None:
    from test_dedup import drawing

    images, audios = [], []
    for number, (seed, made) in enumerate([(1, ("bird", 0)), (1, ("bird", 0)), (1, ("drum", 1)), (2, ("bird", 0))]):
        kind = "png" if number else "bmp"
        images.append(saved(drawing(seed), tmp_path / f"{number}.{kind}"))
        (tmp_path / f"{number}.snd").write_bytes(COPIES["vorbis"](clip(*made)) if number else sound(clip(*made)))
        audios.append(str(tmp_path / f"{number}.snd"))
    data = MemorySource({"id": list("abcd"), "image": images, "audio": audios})
    es.embed(data, tmp_path / "s", image="hash", audio="logmel")
    report = find_duplicates(tmp_path / "s", space=["audio", "image"])
    assert (report.ids, report.by) == (["b"], "pixels and spectra")
    assert find_duplicates(tmp_path / "s", space="audio").counts == {"exact": 0, "near": 2}
    assert find_duplicates(tmp_path / "s", space="image").counts == {"exact": 0, "near": 2}


av = pytest.importorskip("av")


def film(
    seed: int, *, size: tuple[int, int] = (128, 96), rate: int = 25, bits: int = 500_000, first: int = 0, seconds: int = 1
) -> bytes:
    """Three scenes of a second or more, in each of which a camera moves over a pattern of its own."""
    out, rng = io.BytesIO(), np.random.default_rng(seed)
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = *size, "yuv420p", bits
        for _ in range(3):
            pattern = np.kron(rng.integers(0, 256, (6, 12, 3)), np.ones((16, 16, 1))).astype(np.uint8)
            for number in range(first, rate * seconds):
                left = 64 * number // (rate * seconds)
                view = av.VideoFrame.from_ndarray(np.ascontiguousarray(pattern[:, left : left + 128]), format="rgb24")
                container.mux(stream.encode(view.reformat(*size, "yuv420p")))
        container.mux(stream.encode())
    return out.getvalue()


def test_copies_of_films_are_found_by_their_frames(tmp_path: Path) -> None:
    films = {
        "one": film(1),
        "one small": film(1, size=(64, 48), bits=100_000),
        "one slow": film(1, rate=15),
        "same": film(1),
        "half as fast": film(1, seconds=2),
        "two": film(2),
        "damaged": b"no film",
    }
    for name, payload in films.items():
        (tmp_path / name).write_bytes(payload)
    data = MemorySource({"id": list(films), "video": [str(tmp_path / name) for name in films]})
    es.embed(data, tmp_path / "s", video="frames:2:hash")
    report = find_duplicates(tmp_path / "s")
    assert (report.items, report.pixels, report.by) == (6, 5, "frames")
    ((kept, members),) = [(c.representative, {m.id: m.kind for m in c.members}) for c in report.clusters]
    assert (kept, members) == ("one", {"one small": "near", "one slow": "near", "same": "exact"})
    assert find_duplicates(remove_duplicates(es.Store.open(tmp_path / "s"), report)).clusters == []


def test_a_sheet_shows_the_frames_in_their_order() -> None:
    whole, few = sheet(film(1)), sheet(film(1, first=24))
    side = len(whole.pixels) // ACROSS
    assert (whole.pixels.shape, whole.area) == ((48, 48, 3), 128 * 96)
    assert whole.shape == pytest.approx((np.log(4 / 3), np.log(1 + 70 / 25)), abs=1e-3)
    tiles = [few.pixels[:side, side * i : side * (i + 1)] for i in range(3)]
    assert (tiles[0] == tiles[1]).all()  # a film of three frames shows each three times
    assert (few.pixels[:side] != few.pixels[side : 2 * side]).any()
    with pytest.raises(PayloadError, match="no video"):
        sheet(b"nothing")


def test_very_many_sounds_are_compared_by_vector(sounds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CONTENTS["audio"], "up_to", 3)
    report = find_duplicates(sounds)
    assert (report.pixels, report.by) == (None, None)
    assert report.notes == ["compared by vector: spectra are compared of up to 3 distinct sounds."]

"""Sounds: any file gives one vector or one failure, and windows are the same every time."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media import film, sound, track, wave

import embedstore as es
from embedstore.encoders import load_encoder
from embedstore.encoders.logmel import RATE, log_mel, statistics
from embedstore.encoders.payloads.sounds import decode_sound, peaks, windows
from embedstore.errors import PayloadError, UsageError
from embedstore.sources import MemorySource

sf = pytest.importorskip("soundfile")


@pytest.fixture(scope="module")
def logmel() -> Any:
    return load_encoder("logmel", "audio")


def vector(encoder: Any, payload: bytes) -> Any:
    return encoder.encode([encoder.prepare(payload)])[0]


ODD = {
    "silent": sound(np.zeros(16_000)),
    "of one sample": sound(np.full(1, 0.3)),
    "of one sample at 48 kHz": sound(np.full(1, 0.3), 48_000),
    "of 8 channels": sound(np.stack([wave(1, hertz=110 * (i + 1)) for i in range(8)], axis=1)),
    "at 8 kHz": sound(wave(1, 8000), 8000),
    "at 96 kHz": sound(wave(0.5, 96_000), 96_000),
    "of float64": sound(wave(1), subtype="DOUBLE"),
    "loud": sound(wave(1) * 1e30, subtype="FLOAT"),
    "FLAC": sound(wave(1), kind="FLAC"),
    "Vorbis": sound(wave(1), kind="OGG"),
    "Opus": sound(wave(1, 48_000), 48_000, "OGG", "OPUS"),
    "MP3": sound(wave(1), kind="MP3"),
    "cut in the middle": sound(wave(1))[:9000],
}


@pytest.mark.parametrize("kind", ODD)
def test_every_odd_sound_has_one_vector(logmel: Any, kind: str) -> None:
    found = vector(logmel, ODD[kind])
    assert found.shape == (384,)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert found.any()


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"", "no sound that libsndfile reads"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "no sound that libsndfile reads"),
        (ODD["FLAC"][:30], "no sound that libsndfile reads"),
        (sound(np.zeros(0)), "without samples"),
        (sound(np.array([0.1, np.nan, 0.2]), subtype="FLOAT"), "not finite"),
        (sound(np.zeros(8), 1), "has 1 samples a second; a sound has at least 1,000"),
        (track(np.zeros(8), "matroska", codec="pcm_s16le", rate=999), "has 999 samples a second"),
    ],
    ids=["empty", "a picture", "cut off", "without samples", "not finite", "slow", "a slow track"],
)
def test_what_is_no_sound_is_one_failure(logmel: Any, payload: bytes, said: str) -> None:
    with pytest.raises(PayloadError, match=said):
        logmel.prepare(payload)


@pytest.mark.parametrize(
    ("kind", "how"),
    [("ipod", {}), ("adts", {}), ("matroska", {}), ("mp4", {"film": True}), ("ac3", {"codec": "ac3"})],
    ids=["m4a", "aac", "mkv", "film", "ac3"],
)
def test_what_libsndfile_does_not_read_is_decoded_by_ffmpeg(logmel: Any, kind: str, how: dict[str, Any]) -> None:
    samples = np.sin(2 * np.pi * np.cumsum(np.linspace(300, 3000, 88_200)) / 44_100) / 2
    payload = track(samples, kind, **how)
    found = decode_sound(payload, 44_100)
    assert len(samples) <= len(found) <= len(samples) + 2500  # codecs work in frames
    shift = np.argmax(np.fft.irfft(np.fft.rfft(found, 1 << 18) * np.conj(np.fft.rfft(samples, 1 << 18))))
    assert np.corrcoef(np.roll(np.pad(found, (0, 2500)), -int(shift))[: len(samples)], samples)[0, 1] > 0.99
    assert len(decode_sound(payload, 16_000)) == pytest.approx(len(found) * 160 / 441, abs=2)
    assert (vector(logmel, payload) == vector(logmel, payload)).all()


@pytest.mark.parametrize(("kind", "film"), [("ipod", False), ("adts", False), ("mp4", True)], ids=["m4a", "aac", "film"])
def test_what_libsndfile_does_not_read_has_a_waveform(kind: str, film: bool) -> None:
    payload = track(wave(1, 44_100) * np.linspace(1, 0, 44_100), kind, film=film)
    found = peaks(io.BytesIO(payload), 5)
    np.testing.assert_allclose(found, [1, 0.8, 0.6, 0.4, 0.2], atol=0.1)


def test_the_channels_of_a_track_are_averaged() -> None:
    left = wave(1, 44_100)
    found = decode_sound(track(np.stack([left, np.zeros(44_100)]), "ipod", layout="stereo"), 44_100)
    assert np.abs(found[8000:36_000]).max() == pytest.approx(0.25, abs=0.02)


def test_a_track_that_is_cut_off_gives_what_came_before() -> None:
    whole = track(wave(3, 44_100), "adts")
    assert 10_000 < len(decode_sound(whole[: len(whole) // 2], 16_000)) < 40_000


def test_without_pyav_such_a_sound_is_a_failure_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    payload = track(wave(0.5, 44_100), "ipod")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(PayloadError, match=r"no sound that libsndfile reads.*'embedstore\[video\]'"):
        decode_sound(payload, 16_000)


def test_a_film_without_a_sound_is_no_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PayloadError, match=r"no sound that libsndfile reads.*no sound track"):
        decode_sound(film([0, 1]), 16_000)
    from embedstore.encoders.payloads import sounds

    monkeypatch.setattr(sounds, "MOST_SECONDS", 1)
    with pytest.raises(PayloadError, match=r"^decode: is longer than"):
        decode_sound(track(wave(2, 44_100), "ipod"), 16_000)


def test_a_sound_of_many_hours_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(PayloadError, match="longer than 2 hours"):
        decode_sound(sound(np.zeros(7_201_000, np.int16), 1000), 2000)


def test_the_slowest_sound_is_resampled_and_its_samples_are_held_once() -> None:
    slowest = sound(wave(8, 1000, 50), 1000)
    assert len(decode_sound(slowest, 16_000)) == pytest.approx(8 * 16_000, abs=2)
    long = sound(np.zeros(2_000_000, np.int16), 1000)
    tracemalloc.start()
    found = decode_sound(long, 8000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == pytest.approx(16_000_000, abs=2)
    assert peak < 1.7 * found.nbytes


def test_resampling_once_and_mixing_keep_the_tone() -> None:
    stereo = np.stack([wave(1, 44_100), np.zeros(44_100)], axis=1)
    found = decode_sound(sound(stereo, 44_100, subtype="FLOAT"), 16_000)
    assert len(found) == 16_000
    np.testing.assert_allclose(found[2000:14_000], wave(1)[2000:14_000] / 2, atol=1e-4)


def test_a_long_file_in_blocks_is_resampled_as_a_whole() -> None:
    import soxr

    long = wave(20, 44_100)
    found = decode_sound(sound(long, 44_100, subtype="FLOAT"), 16_000)
    np.testing.assert_allclose(found, soxr.resample(long.astype(np.float32), 44_100, 16_000, quality="HQ"), atol=1e-5)


def test_windows_follow_one_another() -> None:
    samples = np.arange(25, dtype=np.float32)
    assert [w.tolist() for w in windows(samples, 10, 3)] == [list(range(10)), list(range(10, 20)), list(range(20, 25))]
    assert [len(w) for w in windows(samples, 10, 6)] == [10, 10]
    assert windows(samples[:2], 10, 3)[0].tolist() == [0, 1, 0]
    assert [len(w) for w in windows(samples[:20], 10, 3)] == [10, 10]


def test_the_log_mel_spectrogram_is_that_of_transformers() -> None:
    from transformers.audio_utils import mel_filter_bank, spectrogram

    samples = np.asarray(wave(1) + np.random.default_rng(0).normal(0, 0.1, 16_000), np.float32)
    filters = mel_filter_bank(257, 64, 125.0, 7500.0, RATE, None, "htk", triangularize_in_mel_space=True)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    theirs = spectrogram(samples, hann, 400, 160, fft_length=512, power=1.0, center=False, mel_filters=filters)
    ours = log_mel(samples)
    np.testing.assert_allclose(ours, np.log(theirs.T + 0.01), atol=1e-4)
    np.testing.assert_allclose(statistics(ours)[:64], ours.astype(np.float64).mean(axis=0), rtol=1e-6)


def test_the_same_sound_has_the_same_vector_alone_and_in_a_batch(logmel: Any) -> None:
    payloads = list(ODD.values())
    together = logmel.encode([logmel.prepare(p) for p in payloads])
    assert all((vector(logmel, p) == row).all() for p, row in zip(payloads, together, strict=True))


def test_a_folder_of_sounds_is_embedded_and_searched(tmp_path: Path) -> None:
    folder = tmp_path / "sounds"
    folder.mkdir()
    for i, hertz in enumerate([220, 440, 880]):
        (folder / f"{hertz}.wav").write_bytes(sound(wave(1 + i, hertz=hertz)))
    (folder / "broken.mp3").write_bytes(b"no sound at all")
    (folder / "wrongly.wav").write_bytes(ODD["FLAC"])
    report = es.embed(folder, tmp_path / "s", audio="logmel")
    assert (report.spaces["audio"].embedded, report.spaces["audio"].failed) == (4, 1)
    answer = es.search(tmp_path / "s", audio=folder / "880.wav", k=1)
    assert answer.results[0].id == "880.wav"
    assert answer.results[0].score == pytest.approx(1, abs=1e-5)


def test_logmel_takes_sounds_alone_and_no_model() -> None:
    with pytest.raises(UsageError, match="takes audio, not image"):
        load_encoder("logmel", "image")
    with pytest.raises(UsageError, match="logmel takes no model"):
        load_encoder("logmel:large", "audio")


def test_payloads_in_memory_are_sounds_too(tmp_path: Path) -> None:
    data = MemorySource({"id": ["a", "b"], "audio": [ODD["FLAC"], None]})
    assert es.embed(data, tmp_path / "s", audio="logmel").spaces["audio"].missing == 1

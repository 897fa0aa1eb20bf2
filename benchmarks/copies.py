"""Which copies of sounds and films does `dedup` find, and what does it take for a copy by mistake?

``python -m benchmarks.copies [--tiny] [--copies 60] [--films 100] [--seed 0] [TABLE]``, a table with columns ``audio`` and
``image``; without it the demo's sounds and pictures.

Sounds: of all whose bytes differ, some get a copy of each kind: an MP3 of 128 kbit/s (``mp3``), Vorbis (``vorbis``), resampled
to 16 kHz and 6 dB quieter (``16 kHz``), all of that with 0.2 s of silence before (``moved``), with noise 20 dB below it
(``noise``), and played 2 to 4 % faster or slower (``speed``). Recall is the share of planted pairs found, precision their share
in what is found apart from pairs of two originals and their echoes, as in benchmarks/dedup.py. Two originals that are found are
called the same recording where their samples correlate by 0.9 or more.

Films are made of the pictures: five scenes each, a camera that moves over another picture in each. Every film has a sister, of
the same pictures in the same order under another camera, and copies: another codec (``recoded``), half as wide and of low
quality (``resized``), at 15 instead of 25 frames a second (``slower``), and 5 % cropped and a tenth brighter (``edited``).
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from benchmarks.dedup import Planted, pictures
from embedstore._core.threads import side_by_side
from embedstore.demo import extract
from embedstore.demo.clips import write_sounds
from embedstore.duplicates.pairs import Pairs, pairs_above
from embedstore.duplicates.pixels import LIMIT as FRAMES_LIMIT
from embedstore.duplicates.pixels import Thumbnails, alike_pairs
from embedstore.duplicates.sheets import sheet
from embedstore.duplicates.spectra import LIMIT, OUTLINE, alike_sounds
from embedstore.encoders.logmel import LogMelEncoder
from embedstore.encoders.payloads.fingerprint import RATE, fingerprint, sounding
from embedstore.encoders.payloads.sounds import decode_sound

SOUNDS = ("mp3", "vorbis", "16 kHz", "moved", "noise", "speed")
SECONDS = 1.6
"""Of a scene."""
FILMS = ("recoded", "resized", "slower", "edited")
Array = np.ndarray[Any, Any]


def recordings(table: Path) -> list[bytes]:
    """The files of the column ``audio``, each content once."""
    import pandas as pd

    return list(dict.fromkeys((table.parent / name).read_bytes() for name in pd.read_csv(table)["audio"].dropna()))


def copied(payload: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """A copy of a sound."""
    import soundfile
    import soxr

    samples, rate = soundfile.read(io.BytesIO(payload), dtype="float32", always_2d=True)
    if kind == "noise":
        loudness = np.sqrt(np.square(samples).mean() / 100)
        samples = samples + rng.normal(0, loudness, samples.shape)
    if kind == "speed":
        samples = soxr.resample(samples, rate, rate * (1 + rng.choice([-1, 1]) * rng.uniform(0.02, 0.04)))
    if kind in ("16 kHz", "moved"):
        samples, rate = soxr.resample(samples, rate, 16_000) / 2, 16_000
    if kind == "moved":
        samples = np.concatenate([np.zeros((rate // 5, samples.shape[1]), np.float32), samples])
    out = io.BytesIO()
    if kind in ("mp3", "moved"):
        highest, lowest = (320, 32) if rate > 24_000 else (160, 8)
        level = (highest - 128) / (highest - lowest)
        soundfile.write(out, samples, rate, "MPEG_LAYER_III", format="MP3", compression_level=level, bitrate_mode="CONSTANT")
    elif kind == "vorbis":
        soundfile.write(out, samples, rate, format="OGG", subtype="VORBIS", compression_level=0.8)
    else:
        soundfile.write(out, samples, rate, format="FLAC")
    return out.getvalue()


def planted(originals: int, copies: int, kinds: Sequence[str]) -> Planted:
    """`copies` of each kind, of the originals in turn."""
    source = [*range(originals), *(i % originals for i in range(copies * len(kinds)))]
    return Planted([], np.array(source), np.array([*[""] * originals, *np.repeat(kinds, copies)]))


def figures(data: Planted, kinds: Sequence[str], pairs: Pairs) -> dict[str, float]:
    """Recall by kind, precision, and counts of the other pairs."""
    mine, apart = data.planted(pairs), data.originals(pairs) | data.echoes(pairs)
    of_original = mine & (data.kind[pairs.left] == "")
    found = data.kind[pairs.right[of_original]]
    recall = {kind: float((found == kind).sum() / (data.kind == kind).sum()) for kind in kinds}
    wrong = int((~mine & ~apart).sum())
    return {**recall, "precision": float(mine.sum() / max(1, mine.sum() + wrong)), "wrong": wrong}


def correlation(left: Array, right: Array) -> float:
    """The highest correlation of two sounds' samples, whatever the shift."""
    size = len(left) + len(right)
    product = np.fft.irfft(np.fft.rfft(left, size) * np.conj(np.fft.rfft(right, size)), size)
    return float(np.abs(product).max() / max(1e-12, np.linalg.norm(left) * np.linalg.norm(right)))


def of_sounds(every: list[bytes], copies: int, seed: int) -> dict[str, dict[str, float]]:
    """Rows of the table of sounds."""
    rng = np.random.default_rng(seed)
    originals = [every[i] for i in rng.permutation(len(every))]
    data = planted(len(originals), copies, SOUNDS)
    payloads = [copied(originals[i], k, rng) if k else originals[i] for i, k in zip(data.source, data.kind, strict=True)]
    encoder = LogMelEncoder()
    started = time.perf_counter()
    with side_by_side(), ThreadPoolExecutor(2) as pool:
        prints = list(pool.map(fingerprint, payloads))
        read = time.perf_counter() - started
        vectors = np.stack(list(pool.map(encoder.prepare, payloads)))
    started = time.perf_counter()
    outlines, bits, seconds = (
        np.stack([p.outline for p in prints]),
        [p.bits for p in prints],
        np.array([p.seconds for p in prints]),
    )
    found = alike_sounds(outlines, bits, seconds)
    compared = time.perf_counter() - started
    near = pairs_above([vectors], 0.98)
    rows = {f"logmel, cosine ≥ {t:g}": figures(data, SOUNDS, near.at_least(t)) for t in (0.98, 0.99, 0.999, 0.9999)}
    rows["spectra (the default)"] = figures(data, SOUNDS, found)

    def bits_alone(outline: float, limit: float) -> dict[str, float]:
        return figures(data, SOUNDS, alike_sounds(outlines, bits, seconds, outline=outline, limit=limit))

    rows |= {f"spectra, bits ≤ {limit:g}": bits_alone(OUTLINE, limit) for limit in (0.15, 0.25, 0.4)}
    rows |= {f"spectra, outline ≥ {outline:g}": bits_alone(outline, LIMIT) for outline in (0.8, 0.9, 0.98)}
    rows["outline ≥ 0.95 alone"] = bits_alone(OUTLINE, 1)
    two = data.originals(found)
    same = [
        correlation(*(sounding(decode_sound(payloads[at], RATE)) for at in pair))
        for pair in zip(found.left[two], found.right[two], strict=True)
    ]
    pairs = len(originals) * (len(originals) - 1) // 2
    print(
        f"\n{len(originals):,} sounds, {copies} copies of each kind; {len(payloads) / read:.0f} sounds/s read, {compared:.2f} s"
    )
    print(
        f"compared; of {pairs:,} pairs of originals {len(same)} were found, of which {sum(c >= 0.9 for c in same)} are the same"
    )
    print(f"recording; the correlations of the others: {[round(c, 2) for c in same if c < 0.9]}\n")
    _print(rows, SOUNDS)
    return rows


def film(pictures: Sequence[Image.Image], seed: int, **how: Any) -> bytes:
    """A film of a camera that moves over each picture in turn; the same `seed` moves it alike."""
    import av

    size, rate, codec = how.get("size", (160, 120)), how.get("rate", 25), how.get("codec", "mpeg4")
    rng, out = np.random.default_rng(seed), io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = *size, "yuv420p", how.get("bits", 400_000)
        for picture in pictures:
            x, y, to_x, to_y = rng.uniform(0, 0.4, 4)
            frames = round(SECONDS * rate)
            for share in np.linspace(0, 1, frames, endpoint=False):
                left, top = x + share * (to_x - x), y + share * (to_y - y)
                trim = how.get("crop", 0.0) * 0.6
                box = (left + trim, top + trim, left + 0.6 - trim, top + 0.6 - trim)
                view = picture.resize(
                    size, Image.Resampling.BILINEAR, [s * d for s, d in zip(box, picture.size * 2, strict=True)]
                )
                view = ImageEnhance.Brightness(view).enhance(how.get("brightness", 1.0))
                container.mux(stream.encode(av.VideoFrame.from_image(view)))
        container.mux(stream.encode())
    return out.getvalue()


HOW: dict[str, dict[str, Any]] = {
    "": {},
    "sister": {},
    "recoded": {"codec": "libx264", "bits": 200_000},
    "resized": {"size": (80, 60), "bits": 60_000},
    "slower": {"rate": 15},
    "edited": {"crop": 0.05, "brightness": 1.1},
}


def of_films(paths: list[Path], count: int, seed: int) -> dict[str, dict[str, float]]:
    """Rows of the table of films."""
    rng = np.random.default_rng(seed)
    shown = [[Image.open(paths[i]).convert("RGB").copy() for i in rng.permutation(len(paths))[:5]] for _ in range(count)]
    kinds = ("sister", *FILMS)
    data = planted(count, count, kinds)
    data.source[data.kind == "sister"] += count  # each is an original of its own

    def make(at: int) -> bytes:
        kind, i = str(data.kind[at]), at % count
        return film(shown[i], seed=2 * i + (kind == "sister"), **HOW[kind])

    with ThreadPoolExecutor(2) as pool:
        payloads = list(pool.map(make, range(len(data.kind))))
        started = time.perf_counter()
        sheets = list(pool.map(sheet, payloads))
    read = time.perf_counter() - started
    small = Thumbnails(np.stack([s.pixels for s in sheets]), np.array([s.shape for s in sheets]))
    rows = {}
    for limit in (0.1, FRAMES_LIMIT, 0.2, 0.25, 0.3):
        for largest in (0.46, np.inf):
            pairs = alike_pairs(small, limit=limit, largest=largest)
            name = f"nine frames, mean ≤ {limit:g}" + ("" if np.isinf(largest) else f", largest ≤ {largest:g}")
            rows[name] = figures(data, FILMS, Pairs(pairs.left, pairs.right, 1 - pairs.differences))
    print(f"\n{count} films and their sisters, a copy of each kind; {len(payloads) / read:.0f} films/s read")
    print(f"the default is mean ≤ {FRAMES_LIMIT:g}\n")
    _print(rows, FILMS)
    return rows


def _print(rows: dict[str, dict[str, float]], kinds: Sequence[str]) -> None:
    columns = [*kinds, "precision", "wrong"]
    print("| found by | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{row[c]:.0f}" if c == "wrong" else f"{row[c]:.3f}" for c in columns) + " |")


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Print the tables and return their rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", nargs="?", type=Path, help="default: the demo's sounds and pictures")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--copies", type=int, default=60)
    parser.add_argument("--films", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    copies, films = (3, 3) if options.tiny else (options.copies, options.films)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = options.table or write_sounds(folder / "sounds")
        paths = pictures(options.table or extract(folder / "demo"), 15 if options.tiny else 1000, options.seed)
        every = recordings(table)[:: 5 if options.tiny else 1]
        return {**of_sounds(every, copies, options.seed), **of_films(paths, films, options.seed)}


if __name__ == "__main__":
    main()

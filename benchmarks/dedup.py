"""Which copies of real pictures does `dedup` find, by pixels or vectors, and what does it take for a copy by mistake?

``python -m benchmarks.dedup [--tiny] [--originals 800] [--copies 400] [--seed 0] MANIFEST``, a table with columns ``id`` and
``image``. Of that many different pictures some get a copy, of four kinds: the same bytes (``exact``), saved again as JPEG of
quality 85–95 (``resaved``), resized to 50–80 % and of quality 30–70 (``resized``), or that after 2–5 % were cropped from each
side and the brightness changed by up to 15 % (``edited``). All are embedded with EfficientNet-Lite0.

Recall is the share of planted pairs found. Precision is their share in what is found apart from pairs of two originals and
their echoes (a copy and an original to which its own original is as near): those are counted on their own, since a
collection has copies and series of its own. Beside it a 64-bit difference hash, as duplicate finders use it, and variants of
the thumbnails that `dedup` compares: what their size and each of the two limits are for.
"""

from __future__ import annotations

import argparse
import io
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

import embedstore as es
from embedstore._core.keys import hash_payload
from embedstore.demo import extract
from embedstore.duplicates.find import THRESHOLD, find_duplicates
from embedstore.duplicates.pairs import Pairs, pairs_above
from embedstore.duplicates.pixels import LARGEST, LIMIT, Thumbnails, alike_pairs
from embedstore.encoders.payloads.thumbnail import SIDE, thumbnail
from embedstore.sources import MemorySource
from embedstore.sources.table import TableSource

KINDS = ("exact", "resaved", "resized", "edited")
THRESHOLDS = (0.80, 0.85, 0.90, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995)
DISTANCES = (0, 2, 4, 8)
LIMITS = (0.09, 0.12, 0.15, 0.18, 0.21)
LARGESTS = (0.38, 0.42, 0.5, np.inf)
SIDES = (8, 12, 24, 32)
Array = np.ndarray[Any, Any]


@dataclass
class Planted:
    """Pictures and what they are: `source` (n,) is the position of each one's original, `kind` (n,) "" for originals."""

    paths: list[Path]
    source: Array
    kind: Array

    def planted(self, pairs: Pairs) -> Array:
        """Mask (p,): a copy and its original."""
        return np.asarray(self.source[pairs.left] == self.source[pairs.right])

    def originals(self, pairs: Pairs) -> Array:
        """Mask (p,): two originals."""
        return np.asarray((self.kind[pairs.left] == "") & (self.kind[pairs.right] == ""))

    def echoes(self, pairs: Pairs) -> Array:
        """Mask (p,): another pair than the two, whose originals are a pair themselves."""
        n = len(self.source)
        alone = self.originals(pairs)
        known = pairs.left[alone] * n + pairs.right[alone]
        low = np.minimum(self.source[pairs.left], self.source[pairs.right])
        high = np.maximum(self.source[pairs.left], self.source[pairs.right])
        return np.isin(low * n + high, known) & ~alone


def pictures(table: Path, limit: int, seed: int = 0) -> list[Path]:
    """Files of `table` whose bytes differ, shuffled."""
    found: dict[bytes, Path] = {}
    for batch in TableSource(table).batches():
        for path in batch.column("image").to_pylist():
            if path and Path(path).is_file():
                found.setdefault(hash_payload(Path(path).read_bytes()), Path(path))
    paths = list(found.values())
    random.Random(seed).shuffle(paths)
    return paths[:limit]


def plant(paths: list[Path], folder: Path, copies: int, seed: int = 0) -> Planted:
    """The pictures, and copies of the first `copies` of them, as many of each kind."""
    rng = random.Random(seed)
    source, kinds, files = list(range(len(paths))), [""] * len(paths), list(paths)
    for i in range(copies):
        kind = KINDS[i % len(KINDS)]
        file = folder / f"{i}.jpg"
        file.write_bytes(paths[i].read_bytes() if kind == "exact" else modified(paths[i], kind, rng))
        source.append(i)
        kinds.append(kind)
        files.append(file)
    return Planted(files, np.array(source), np.array(kinds))


def modified(path: Path, kind: str, rng: random.Random) -> bytes:
    """The JPEG that a copy of `kind` is."""
    picture = Image.open(path).convert("RGB")
    if kind == "edited":
        w, h = picture.size
        left, top, right, bottom = (rng.uniform(0.02, 0.05) for _ in range(4))
        picture = picture.crop((round(left * w), round(top * h), round(w - right * w), round(h - bottom * h)))
        picture = ImageEnhance.Brightness(picture).enhance(rng.uniform(0.85, 1.15))
    if kind != "resaved":
        scale = rng.uniform(0.5, 0.8)
        picture = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.BICUBIC)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=rng.randint(*((85, 95) if kind == "resaved" else (30, 70))))
    return out.getvalue()


def difference_hashes(paths: list[Path]) -> Array:
    """(n, 64) of ±1: whether each of 8 × 8 grey pixels is darker than its right neighbour."""
    small = [np.asarray(Image.open(p).convert("L").resize((9, 8), Image.Resampling.LANCZOS), np.int16) for p in paths]
    return np.where(np.diff(np.stack(small), axis=2) > 0, 1, -1).reshape(len(paths), 64).astype(np.float32)


def alike(paths: list[Path], *, side: int = SIDE, limit: float = LIMIT, largest: float = LARGEST) -> Pairs:
    """Pairs of thumbnails at other sizes and limits than those of `dedup`."""
    small = [thumbnail(path.read_bytes(), side=side) for path in paths]
    thumbnails = Thumbnails(np.stack([s.pixels for s in small]), np.array([s.aspect for s in small]))
    found = alike_pairs(thumbnails, limit=limit, largest=largest)
    return Pairs(found.left, found.right, 1 - found.differences)


def by_thumbnails(data: Planted) -> dict[str, dict[str, float]]:
    """Rows of the table: the limits of `dedup`, each changed, and other sizes of the thumbnail."""
    rows = {f"pixels, mean ≤ {t:g}": figures(data, alike(data.paths, limit=t)) for t in LIMITS}
    rows |= {f"pixels, largest ≤ {t:g}": figures(data, alike(data.paths, largest=t)) for t in LARGESTS}
    rows |= {f"pixels, {n} × {n}": figures(data, alike(data.paths, side=n)) for n in SIDES}
    return rows


def figures(data: Planted, pairs: Pairs) -> dict[str, float]:
    """Recall by kind, precision, and counts of the other pairs."""
    planted, apart = data.planted(pairs), data.originals(pairs) | data.echoes(pairs)
    found = data.kind[pairs.right[planted]]  # copies come after the originals
    recall = {kind: float((found == kind).sum() / (data.kind == kind).sum()) for kind in KINDS}
    wrong = int((~planted & ~apart).sum())
    precision = float(planted.sum() / max(1, planted.sum() + wrong))
    return {**recall, "precision": precision, "wrong": wrong, "two originals": int(data.originals(pairs).sum())}


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Print the table and return its rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", nargs="?", type=Path, help="default: the demo's dataset")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--originals", type=int, default=800)
    parser.add_argument("--copies", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", type=Path, help="keep the store here")
    options = parser.parse_args(arguments)
    originals, copies, encoder = (40, 12, "hash:32") if options.tiny else (options.originals, options.copies, "effnet-lite0")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = plant(pictures(options.manifest or extract(folder / "demo"), originals, options.seed), folder, copies)
        ids = [f"{kind or 'original'}-{i}" for i, kind in enumerate(data.kind)]
        path = options.store or folder / "d.store"
        es.embed(MemorySource({"id": ids, "image": [str(p) for p in data.paths]}), path, image=encoder)
        store = es.Store.open(path)
        rows = store.items.rows_of(ids)
        pairs = pairs_above([store.space("image").take(rows)], THRESHOLDS[0])
        table: dict[str, dict[str, float]] = {f"cosine ≥ {t:g}": figures(data, pairs.at_least(t)) for t in THRESHOLDS}
        bits = pairs_above([difference_hashes(data.paths)], 1 - 2 * max(DISTANCES) / 64)
        table |= {f"dHash, ≤ {d} bits": figures(data, bits.at_least(1 - 2 * d / 64)) for d in DISTANCES}
        table |= by_thumbnails(data)
        by_hash = find_duplicates(store, exact_only=True)
        table["content hash"] = {"exact": by_hash.counts["exact"] / (data.kind == "exact").sum()}
        ours, by_vector = find_duplicates(store), find_duplicates(store, pixels=False)
    print(f"\n{originals:,} pictures, {copies:,} copies, {encoder}; the defaults are mean ≤ {LIMIT:g}, largest ≤")
    print(f"{LARGEST:g}, and by vector {THRESHOLD:g}\n")
    _print(table)
    print(f"\nby pixels: {ours.counts} in {len(ours.clusters)} clusters, {ours.seconds:.2f} s; largest cluster {largest(ours)}")
    print(f"by vector: {by_vector.counts} in {len(by_vector.clusters)} clusters, {by_vector.seconds:.2f} s; largest cluster")
    print(f"{largest(by_vector)}, largest single-linkage component {largest_chain(len(ids), pairs.at_least(THRESHOLD))}")
    return table


def largest_chain(n: int, pairs: Pairs) -> int:
    """Size of the largest connected component."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs)), (pairs.left, pairs.right)), shape=(n, n))
    return int(np.bincount(connected_components(graph)[1]).max())


def largest(report: Any) -> int:
    return max((1 + len(c.members) for c in report.clusters), default=1)


def _print(table: dict[str, dict[str, float]]) -> None:
    columns = [*KINDS, "precision", "wrong", "two originals"]
    print("| found by | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for name, row in table.items():
        cells = ["" if c not in row else f"{row[c]:.3f}" if c in (*KINDS, "precision") else f"{row[c]:.0f}" for c in columns]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()

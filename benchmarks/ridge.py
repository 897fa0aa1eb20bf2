"""What does every ridge of a grid cost beside one product of the data with itself?

``python -m benchmarks.ridge [--tiny]``: 20 penalties × 5 folds × all 7 subsets of three inputs, from float16 files on disk,
against one blocked XᵀX over the same files with the same BLAS. Each is a process of its own, so that its peak memory is its
own. Samples of the grid are compared with scikit-learn's Ridge.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from embedstore.heads.solvers.gram import gram_folds, score_subsets, shapley

Array = np.ndarray[Any, Any]

FOLDS, TARGETS = 5, 10
PENALTIES = tuple(float(x) for x in np.logspace(0, 7, 20))
FULL = (200_000, {"image": 1024, "text": 384, "audio": 256})
TINY = (2_000, {"image": 32, "text": 16, "audio": 8})
BLOCK = 8192


def make(folder: Path, n: int, dims: dict[str, int]) -> None:
    """Inputs with a decaying spectrum, and targets that depend on all of them."""
    rng = np.random.default_rng(0)
    maps = {name: rng.standard_normal((d, TARGETS)) / d**0.5 for name, d in dims.items()}
    files = {name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float16, (n, d)) for name, d in dims.items()}
    y = np.empty((n, TARGETS))
    for lo in range(0, n, BLOCK):
        part = slice(lo, min(lo + BLOCK, n))
        total = rng.standard_normal((part.stop - lo, TARGETS))
        for name, d in dims.items():
            x = rng.standard_normal((part.stop - lo, d), np.float32) * (np.arange(1, d + 1, dtype=np.float32) ** -0.3)
            files[name][part] = x
            total += x @ maps[name]
        y[part] = total
    np.save(folder / "y.npy", y)
    np.save(folder / "fold.npy", rng.integers(0, FOLDS, n))


def blocks(folder: Path, dims: dict[str, int]) -> Iterator[tuple[dict[str, Array], Array, Array]]:
    y, fold = np.load(folder / "y.npy"), np.load(folder / "fold.npy")
    inputs = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in dims}
    for lo in range(0, len(y), BLOCK):
        part = slice(lo, lo + BLOCK)
        yield {name: x[part] for name, x in inputs.items()}, y[part], fold[part]


def one_product(folder: Path, dims: dict[str, int]) -> dict[str, Any]:
    """XᵀX, a block at a time."""
    start = time.perf_counter()
    total = np.zeros((sum(dims.values()),) * 2, np.float32)
    for inputs, _, _ in blocks(folder, dims):
        x = np.concatenate([np.asarray(inputs[name], np.float32) for name in dims], axis=1)
        total += x.T @ x
    return {"seconds": time.perf_counter() - start}


def whole_grid(folder: Path, dims: dict[str, int]) -> dict[str, Any]:
    start = time.perf_counter()
    grams = gram_folds(blocks(folder, dims), dims, TARGETS, FOLDS)
    read = time.perf_counter() - start
    scores = score_subsets(grams, dims, PENALTIES)
    seconds = time.perf_counter() - start
    found = {"+".join(s.inputs): s.r2.tolist() for s in scores}
    return {"seconds": seconds, "pass": read, "r2": found, "shapley": shapley(scores)}


def largest_error(folder: Path, dims: dict[str, int], r2: dict[str, list[float]], samples: int) -> float:
    """Largest relative difference from scikit-learn's Ridge in cross-validated R², over samples of the grid."""
    from sklearn.linear_model import Ridge

    y, fold = np.load(folder / "y.npy"), np.load(folder / "fold.npy")
    spread = float(((y - y.mean(axis=0)) ** 2).sum())
    worst = 0.0
    chosen = np.random.default_rng(1).permutation([(s, p) for s in r2 for p in range(len(PENALTIES))])[:samples]
    for subset, index in chosen.tolist():
        x = np.concatenate([np.load(folder / f"{name}.npy") for name in subset.split("+")], axis=1).astype(np.float64)
        error = 0.0
        for k in range(FOLDS):
            model = Ridge(alpha=PENALTIES[int(index)], solver="cholesky").fit(x[fold != k], y[fold != k])
            error += float(((model.predict(x[fold == k]) - y[fold == k]) ** 2).sum())
        worst = max(worst, abs(r2[subset][int(index)] - (1 - error / spread)) / (1 - error / spread))
    return worst


def peak_memory() -> float:
    """GiB that this process had resident at most; unlike ru_maxrss it does not begin at the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 2**20


def measured(what: str, folder: Path, tiny: bool) -> dict[str, Any]:
    """Run this file again for one measurement, in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.ridge",
        "--measure",
        what,
        "--folder",
        str(folder),
        *(["--tiny"] if tiny else []),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
    return dict(json.loads(done.stdout))


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Print the table; return the ratio, the peak and the largest error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--measure", choices=["product", "grid"])
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args(arguments)
    n, dims = TINY if options.tiny else FULL
    if options.measure:
        result = (one_product if options.measure == "product" else whole_grid)(options.folder, dims)
        print(json.dumps({**result, "peak": peak_memory()}))
        return {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, n, dims)
        product, grid = (measured(what, folder, options.tiny) for what in ("product", "grid"))
        again = measured("product", folder, options.tiny)
        reference = min(product["seconds"], again["seconds"])
        error = largest_error(folder, dims, grid["r2"], options.samples)
    shape = f"{n:,} × {sum(dims.values()):,}"
    print(f"\n{shape} float16, {len(PENALTIES)} penalties × {FOLDS} folds × 7 subsets, {TARGETS} targets\n")
    print("| what | s | ÷ one XᵀX | peak memory, GiB |\n|---|---|---|---|")
    print(f"| one blocked XᵀX (better of two) | {reference:.2f} | 1.00 | {product['peak']:.2f} |")
    ratio = grid["seconds"] / reference
    print(
        f"| the whole grid (of which the pass {grid['pass']:.2f}) | {grid['seconds']:.2f} | {ratio:.2f} | {grid['peak']:.2f} |"
    )
    print(
        f"\nlargest relative difference from scikit-learn's Ridge in R² over {options.samples} samples of the grid: {error:.1e}"
    )
    return {"ratio": ratio, "peak": float(grid["peak"]), "error": error}


if __name__ == "__main__":
    main()

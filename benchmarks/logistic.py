"""How fast is multinomial logistic regression beside scikit-learn's, at the same objective?

``python -m benchmarks.logistic [--tiny] [STORE]``. The large problem: 20,000 × 1,024 float32, 100 classes, eigenvalues of
the covariance i^-0.8, labels drawn from a linear model, λ/N = 1e-4 (the objective is mean cross-entropy + λ/2N ‖W‖²). With
STORE also its standardised ``image`` and ``text`` vectors with ``label``, at two penalties. scikit-learn: lbfgs, tol 1e-8,
float64. Both objectives are computed in float64 from the weights.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from embedstore.heads.base import log_softmax
from embedstore.heads.solvers.logistic import LogisticProblem

Array = np.ndarray[Any, Any]


def large(n: int, d: int, c: int) -> tuple[Array, Array]:
    """Features of unit mean variance with a decaying spectrum; labels that a linear model explains nearly."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, d)).astype(np.float32) * np.arange(1, d + 1, dtype=np.float32) ** -0.4
    x *= np.sqrt(d / np.square(x).sum(axis=1).mean())
    logits = x @ rng.standard_normal((d, c)).astype(np.float32)
    return x, (3 * logits / logits.std() + rng.gumbel(size=logits.shape)).argmax(axis=1)


def stored(path: Path) -> tuple[Array, Array]:
    import embedstore as es
    from embedstore.heads.base import Data
    from embedstore.heads.solvers.design_matrix import Standardizer

    view = es.Store.open(path).view(inputs=["image", "text"], target="label")
    assert view.target is not None
    codes = np.unique(view.target.astype(str), return_inverse=True)[1].astype(np.int64)
    data = Data(view.inputs, view.present, codes)
    return Standardizer().fit(data).transform(data), codes


def objective(x: Array, y: Array, weight: Array, bias: Array, alpha: float) -> float:
    log_p = log_softmax(x.astype(np.float64) @ weight.astype(np.float64) + bias)
    return float(-log_p[np.arange(len(y)), y].mean() + alpha / 2 * np.square(weight, dtype=np.float64).sum())


def compare(name: str, x: Array, y: Array, alpha: float) -> dict[str, float]:
    """Print two rows of the table."""
    from sklearn.linear_model import LogisticRegression

    classes = int(y.max()) + 1
    start = time.perf_counter()
    ours = LogisticProblem(x, y, classes).solve(alpha, tolerance=2e-6)
    seconds = time.perf_counter() - start
    wide = x.astype(np.float64)
    start = time.perf_counter()
    theirs = LogisticRegression(C=1 / (alpha * len(y)), tol=1e-8, max_iter=20_000).fit(wide, y)
    their_seconds = time.perf_counter() - start
    best = objective(x, y, theirs.coef_.T, theirs.intercept_, alpha)
    found = objective(x, y, ours.weight, ours.bias, alpha)
    agree = float(((x @ ours.weight + ours.bias).argmax(axis=1) == theirs.predict(wide)).mean())
    n, d = x.shape
    shape = f"{name} ({n:,} × {d:,}, {classes} classes, λ/N {alpha:g})"
    print(f"| {shape} | scikit-learn | {their_seconds:.2f} | 1.0 | {best:.8f} | – | {int(theirs.n_iter_.max())} iterations |")
    gap = f"{found / best - 1:+.1e}, {agree:.2%}"
    print(
        f"| | embedstore | {seconds:.2f} | {their_seconds / seconds:.1f} | {found:.8f} | {gap} | {ours.passes} passes |",
        flush=True,
    )
    return {"speed": their_seconds / seconds, "gap": found / best - 1, "agree": agree}


def main(arguments: list[str] | None = None) -> list[dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", nargs="?", type=Path)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args(arguments)
    print(
        "\n| problem | solver | s | times as fast | objective | gap, same predictions | work |\n|---|---|---|---|---|---|---|"
    )
    n, d, c = (400, 32, 5) if options.tiny else (20_000, 1024, 100)
    found = [compare("decaying spectrum", *large(n, d, c), 1e-4)]
    if options.store:
        x, y = stored(options.store)
        found += [compare(options.store.stem, x, y, alpha) for alpha in (0.1, 0.01)]
    return found


if __name__ == "__main__":
    main()

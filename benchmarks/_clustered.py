"""Vectors like embeddings, for sizes that no data set at hand has: clusters with a decaying spectrum, the same for one seed.

There are n / 500 clusters of uneven size (log-normal weights, σ = 1). A centre is a Gaussian with variances i^-0.5 along
the axes i, of unit length; a vector is its centre plus a Gaussian with variances i^-0.7 of length `SPREAD` in all, turned by
one random rotation so that no axis is special, and of unit length. Cosines are about 0.7 to the own centre and 0.6 to the ten
nearest. The spectrum decides how hard it is: neighbours in a cluster can be told apart (with isotropic noise all are equally
far), and HNSW32 with efSearch 32 finds .97 of them among 20,000, as it does among as many real short texts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from embedstore._core.unit import unit_rows

PER_CLUSTER = 500
SPREAD = 1.0
BLOCK = 16384
Array = np.ndarray[Any, Any]


def clustered(n: int, dim: int, *, seed: int = 0) -> Iterator[Array]:
    """Blocks of float16 unit vectors, `n` in all."""
    rng = np.random.default_rng(seed)
    axes = np.arange(1, dim + 1, dtype=np.float32)
    count = max(n // PER_CLUSTER, 1)
    centres = unit_rows(rng.standard_normal((count, dim), np.float32) * axes**-0.25)
    weights = rng.lognormal(size=count)
    within = axes**-0.35
    within *= SPREAD / np.linalg.norm(within)
    rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)
    for lo in range(0, n, BLOCK):
        size = min(BLOCK, n - lo)
        cluster = rng.choice(count, size, p=weights / weights.sum())
        noise = rng.standard_normal((size, dim), np.float32) * within
        yield unit_rows((centres[cluster] + noise) @ rotation).astype(np.float16)

"""Heads fitted by torch: on a CPU, and on a card where there is one, beside those that numpy or a CPU fits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

import torch

from benchmarks._gpu.heads import ACCURACY, AGREE, OBJECTIVE, PROBABILITY, clusters, on_cpu, problem
from embedstore.heads import make_head

CARD = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"))


@pytest.mark.parametrize("device", ["cpu:0", CARD])
def test_a_linear_head_is_numpy_s(device: str) -> None:
    x, y = problem(400, 32, 5, device)
    here: Any = make_head("linear").fit(x, y)
    there: Any = make_head("linear", device=device).fit(x, y)
    assert there.alpha_ == here.alpha_
    assert abs(there.objective_ / here.objective_ - 1) <= OBJECTIVE
    assert (there.predict(x) == here.predict(x)).mean() >= AGREE


@pytest.mark.parametrize("device", ["cpu:0", CARD])
@pytest.mark.parametrize("kind", ["gated", "attention"])
def test_a_network_is_as_good_and_says_the_same_on_a_cpu(kind: str, device: str) -> None:
    inputs, y = clusters(600, 16, 3)
    here, there = (make_head(kind, device=where, epochs=5, seed=0).fit(inputs, y) for where in ("cpu", device))
    assert abs(here.score(inputs, y) - there.score(inputs, y)) <= 2 * ACCURACY
    apart = np.abs(there.predict_proba(inputs) - on_cpu(there).predict_proba(inputs)).max()
    assert apart <= PROBABILITY

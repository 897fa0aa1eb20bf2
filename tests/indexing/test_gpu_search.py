"""Exact search by torch: on a CPU, and on a card where there is one; float64 says what is right."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

import torch

from benchmarks._gpu.search import APART, ZEROS, compared, queries, reference, vectors
from embedstore.indexing.exact import ExactIndex
from embedstore.indexing.vector_index import VectorIndex

CARD = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"))


@pytest.mark.parametrize("device", ["cpu:0", CARD])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
class TestExactSearch:
    def test_positions_and_scores_are_those_of_float64(self, device: str, dtype: Any) -> None:
        rows = vectors(3000, 40, dtype, device)
        asked = queries(rows, 32)
        apart, right = compared(*ExactIndex(rows, device=device).search(asked, 10), reference(rows, asked, device))
        assert (apart <= APART, right) == (True, 1.0)

    def test_of_a_subset(self, device: str, dtype: Any) -> None:
        rows = vectors(3000, 40, dtype, device)
        asked, subset = queries(rows, 8), np.arange(0, 3000, 7)
        scores, found = ExactIndex(rows, device=device).search(asked, 10, subset=subset)
        assert np.isin(found, subset).all()
        apart, right = compared(scores, found, reference(rows, asked, device, subset))
        assert (apart <= APART, right) == (True, 1.0)

    def test_vectors_of_zeros_are_as_near_as_right_angles(self, device: str, dtype: Any) -> None:
        rows = vectors(60, 8, dtype, device)
        scores, found = ExactIndex(rows, device=device).search(rows[ZEROS : ZEROS + 1], 60)
        assert np.isfinite(scores).all()
        np.testing.assert_array_equal(scores[np.isin(found, np.arange(ZEROS))], 0)

    def test_an_index_asks_it(self, device: str, dtype: Any) -> None:
        rows = vectors(500, 16, dtype, device)
        asked = queries(rows, 8)
        answer = VectorIndex(factory="Flat", device=device).fit(rows).search(asked, 5)
        assert compared(answer.scores, answer.positions, reference(rows, asked, device))[1] == 1.0

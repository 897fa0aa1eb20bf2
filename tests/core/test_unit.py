"""Rows of unit length, whatever their size, their dtype and the rows beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from embedstore._core.unit import unit_rows


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1e-30, 1e-18, 1.0, 1e18, 1e30])
def test_rows_have_unit_length_at_any_size(size: float, dtype: Any) -> None:
    rows = np.random.default_rng(0).standard_normal((50, 24)) * size
    unit = unit_rows(rows, dtype)
    assert unit.dtype == dtype
    np.testing.assert_allclose(unit, rows / size / np.linalg.norm(rows / size, axis=1, keepdims=True), rtol=1e-5)


def test_a_row_depends_on_nothing_but_itself() -> None:
    rows = np.random.default_rng(1).standard_normal((6, 40)).astype(np.float32)
    beside = np.stack([np.zeros(40), np.full(40, 1e30), np.full(40, 1e-30)]).astype(np.float32)
    np.testing.assert_array_equal(unit_rows(np.concatenate([rows, beside]))[:6], unit_rows(rows))


def test_zeros_stay_zero_and_infinity_is_not_hidden() -> None:
    found = unit_rows(np.array([[0, 0], [3, 4], [np.inf, 1]], np.float32))
    np.testing.assert_allclose(found[:2], [[0, 0], [0.6, 0.8]], rtol=1e-6)
    assert np.isnan(found[2, 0])
    assert unit_rows(np.empty((0, 5), np.float32)).shape == (0, 5)

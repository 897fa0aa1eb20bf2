"""Readers and a server beside a writer that adds, removes, compacts and indexes: no error, no wrong answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def test_a_short_soak(tried: Callable[..., Any]) -> None:
    tried("soak", None, seconds=5)


@pytest.mark.campaign
def test_a_long_soak(tried: Callable[..., Any]) -> None:
    table = tried("soak", None, seed=1)
    assert table.counts["soak"].total() > 1000

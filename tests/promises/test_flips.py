"""No answer comes from a rotten byte: each is told, or every answer is what it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def test_a_few_of_the_flips(tried: Callable[..., Any]) -> None:
    tried("flips", 8)


@pytest.mark.campaign
def test_many_flips(tried: Callable[..., Any]) -> None:
    tried("flips", 4000, seed=1)

"""Promise 2 where the power goes: what was reported done is there, whatever the disk had not been told to keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def test_a_few_of_the_power(tried: Callable[..., Any]) -> None:
    tried("power", 4)


@pytest.mark.campaign
def test_many_power(tried: Callable[..., Any]) -> None:
    tried("power", 600, seed=1)

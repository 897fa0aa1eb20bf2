"""Promise 7: whatever a store says, it is answered in one line, no code of its own runs, and no file outside it is touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def test_a_few_of_the_hostile(tried: Callable[..., Any]) -> None:
    tried("hostile", 3)


@pytest.mark.campaign
def test_many_hostile(tried: Callable[..., Any]) -> None:
    tried("hostile", 1000, seed=1)

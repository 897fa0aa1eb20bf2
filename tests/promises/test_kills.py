"""Promise 2: a kill loses at most the part in progress, and the same command again ends as if there had been none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def test_a_few_of_the_kills(tried: Callable[..., Any]) -> None:
    tried("kills", 3)


@pytest.mark.campaign
def test_many_kills(tried: Callable[..., Any]) -> None:
    tried("kills", 500, seed=1)

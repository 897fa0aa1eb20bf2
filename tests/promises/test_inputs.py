"""Every header is hostile until it is read: a damaged table, array or archive is one line, and never a store that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def test_a_few_of_the_inputs(tried: Callable[..., Any]) -> None:
    tried("inputs", 10)


@pytest.mark.campaign
def test_many_inputs(tried: Callable[..., Any]) -> None:
    tried("inputs", None, seed=1)

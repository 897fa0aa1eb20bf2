"""Two make a store at once: one wins, the other is told, nothing is lost. Readers beside a writer see the old or the new."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def test_a_pair_of_creators(tried: Callable[..., Any]) -> None:
    tried("creators", 2)


@pytest.mark.campaign
def test_200_pairs_of_creators(tried: Callable[..., Any]) -> None:
    tried("creators", None, seed=1)


def test_a_few_of_the_races(tried: Callable[..., Any]) -> None:
    tried("races", 2)


@pytest.mark.campaign
def test_many_races(tried: Callable[..., Any]) -> None:
    tried("races", None, seed=1)

"""What each input contributes to a head's predictions, for any head that takes masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.evaluation.bootstrap import Bootstrap, Score

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float64]
Arrays = Mapping[str, Array]
Masks = Mapping[str, npt.NDArray[np.bool_]]
Predict = Callable[[Arrays, Masks], Float]
"""Log-probabilities (n, c) of inputs (n, d) and masks (n,)."""

RATES = (0.0, 0.25, 0.5, 0.75, 1.0)
EXACT_INPUTS = 6
"""Inputs up to which all subsets are tried (64 predictions)."""


def permutation_drops(
    predict: Predict, inputs: Arrays, present: Masks, truth: npt.NDArray[np.int64], *, bootstrap: Bootstrap, seed: int = 0
) -> dict[str, Score]:
    """The loss of accuracy when an input, with its mask, is shuffled among the items (Breiman 2001)."""
    whole = _hits(predict(inputs, present), truth)
    rng = np.random.default_rng(seed)
    drops = {}
    for name in inputs:
        order = rng.permutation(len(truth))
        shuffled = predict({**inputs, name: inputs[name][order]}, {**present, name: present[name][order]})
        drops[name] = bootstrap.mean(whole - _hits(shuffled, truth))
    return drops


def missing_curves(
    predict: Predict,
    inputs: Arrays,
    present: Masks,
    truth: npt.NDArray[np.int64],
    *,
    rates: Sequence[float] = RATES,
    seed: int = 0,
) -> dict[str, list[tuple[float, float]]]:
    """(rate, accuracy) as each input is taken from that share of the items; an item keeps it if it has no other."""
    if len(inputs) < 2:
        return {}
    curves = {}
    for name in inputs:
        fraction = np.random.default_rng(seed).permutation(len(truth)) / max(len(truth), 1)
        others = np.any([mask for other, mask in present.items() if other != name], axis=0)
        curve = []
        for rate in rates:
            left = present[name] & ~((fraction < rate) & others)
            curve.append((rate, float(_hits(predict(inputs, {**present, name: left}), truth).mean())))
        curves[f"without {name}"] = curve
    return curves


def explain(predict: Predict, inputs: Arrays, present: Masks, predicted: npt.NDArray[np.int64]) -> dict[str, Float]:
    """Exact Shapley value (n,) of each input for the log-probability of the predicted class (Lundberg & Lee 2017).

    The values of an item add up to its log-probability less what the head says of an item of which nothing is known. An
    input that an item lacks has the value 0.
    """
    names = list(inputs)
    if len(names) > EXACT_INPUTS:
        raise ValueError(f"at most {EXACT_INPUTS} inputs can be explained exactly, got {len(names)}")
    rows = np.arange(len(predicted))
    value = {
        frozenset(subset): predict(inputs, {n: present[n] & (n in subset) for n in names})[rows, predicted]
        for size in range(len(names) + 1)
        for subset in combinations(names, size)
    }
    return {name: shapley_of(name, names, value) for name in names}


def shapley_of(name: str, names: Sequence[str], value: Mapping[frozenset[str], Any]) -> Any:
    """Mean gain of adding `name` over all orders of `names`, given the value of every subset."""
    others, m = [n for n in names if n != name], len(names)
    return sum(
        factorial(size) * factorial(m - size - 1) / factorial(m) * (value[frozenset({*s, name})] - value[frozenset(s)])
        for size in range(m)
        for s in combinations(others, size)
    )


def _hits(log_p: Float, truth: npt.NDArray[np.int64]) -> Float:
    return np.asarray(log_p.argmax(axis=1) == truth, np.float64)

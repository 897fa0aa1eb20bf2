"""How far a head in an ONNX file says what the original says, on real items; and how fast each is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.heads import Head
from embedstore.training.tasks.base import Predicted, Task

__all__ = ["Agreement", "agreement", "middle_ms"]

Array = npt.NDArray[Any]

LEAST, LEAST_INT8 = 0.9999, 0.99
"""Shares of predictions that have to agree."""
CLOSE, CLOSE_INT8 = 1e-3, 1e-2
"""How far numbers may differ and agree, as a share of their standard deviation."""
ROUNDING = 1e-6
"""How far a number may differ as a share of itself: about what float32 holds of it, where all predictions are one number."""
TIMES, WARM = 200, 10


@dataclass(frozen=True)
class Agreement:
    """How alike the predictions of two heads are.

    Parameters
    ----------
    share : float
        Of the classes, decisions on labels, or numbers, that are the same; of several targets the least of their shares.
    difference : float
        The largest between two probabilities, or two numbers.
    """

    share: float
    difference: float


def agreement(task: Task, original: Head, exported: Head, asked: Sequence[tuple[Any, Any]], *, int8: bool) -> Agreement:
    """How alike two heads predict.

    Parameters
    ----------
    asked : sequence of (inputs, masks)
        What both are asked, as `Head.outputs` takes it.
    """
    pairs = [(_said(task, original, *items), _said(task, exported, *items)) for items in asked]
    return _agreement(pairs, int8=int8)


def _agreement(pairs: Sequence[tuple[Predicted, Predicted]], *, int8: bool) -> Agreement:
    if targets := pairs[0][0].targets:
        found = [_agreement([(one.targets[t], other.targets[t]) for one, other in pairs], int8=int8) for t in targets]
        return Agreement(min(part.share for part in found), max(part.difference for part in found))
    if not len(pairs[0][0].classes):
        numbers = [np.concatenate([pair[k].labels.astype(float) for pair in pairs]) for k in (0, 1)]
        apart = np.abs(numbers[0] - numbers[1])
        close = np.maximum((CLOSE_INT8 if int8 else CLOSE) * numbers[0].std(), ROUNDING * np.abs(numbers[0]))
        return Agreement(float((apart <= close).mean()), float(apart.max()))
    same = np.concatenate([_same(one, other) for one, other in pairs])
    apart = np.concatenate([np.abs(one.probabilities - other.probabilities).max(axis=1) for one, other in pairs])
    return Agreement(float(same.mean()), float(apart.max()))


def middle_ms(ask: Callable[[], Any]) -> float:
    """The middle (p50) of the milliseconds that a call takes."""
    taken = []
    for number in range(WARM + TIMES):
        start = time.perf_counter()
        ask()
        if number >= WARM:
            taken.append(time.perf_counter() - start)
    return float(np.median(taken)) * 1000


def _said(task: Task, head: Head, inputs: Mapping[str, Array], present: Mapping[str, Array]) -> Predicted:
    return task.predicted(head, head.outputs(inputs, present=present))


def _same(one: Predicted, other: Predicted) -> Array:
    """Of each item (n,): 1 where the class is the same; of several labels, the share that is decided alike."""
    count = len(one.classes)
    return np.array(
        [
            1 - len({*a} ^ {*b}) / count if isinstance(a, list) else float(a == b)
            for a, b in zip(one.labels.tolist(), other.labels.tolist(), strict=True)
        ]
    )

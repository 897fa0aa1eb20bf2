"""Constructor arguments that can be read and changed, in scikit-learn's manner, and the values of them that tuning tries."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from embedstore.errors import HeadError


@dataclass(frozen=True)
class Real:
    """A parameter that is a number between two others.

    Parameters
    ----------
    low, high : float
    log : bool
        Whether twice as much is as far everywhere.
    listed : bool
        Whether the parameter is a sequence of candidates, from which the head chooses; it gets the value tried as the only one.
    levels : int
        How many values a grid has.
    """

    low: float
    high: float
    log: bool = False
    listed: bool = False
    levels: int = 4

    def grid(self) -> list[Any]:
        """The values of a grid, the lowest first."""
        steps = [i / (self.levels - 1) for i in range(self.levels)]
        if self.log:
            middle = [self.low * math.exp(t * math.log(self.high / self.low)) for t in steps[1:-1]]
        else:
            middle = [self.low + t * (self.high - self.low) for t in steps[1:-1]]
        return [self.low, *middle, self.high]  # the ends as they are, whatever the last bit of a logarithm

    def holds(self, value: Any) -> bool:
        """Whether `value` is one that may be tried."""
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def setting(self, value: Any) -> Any:
        """What the parameter is set to where `value` is tried."""
        return (value,) if self.listed else value


@dataclass(frozen=True)
class Whole(Real):
    """A parameter that is a whole number between two others; see `Real`."""

    def grid(self) -> list[Any]:
        return sorted({round(value) for value in super().grid()})

    def holds(self, value: Any) -> bool:
        return isinstance(value, int) and super().holds(value)


@dataclass(frozen=True)
class Choice:
    """A parameter that is one of a few values."""

    options: tuple[Any, ...]

    def grid(self) -> list[Any]:
        """All of them."""
        return [*self.options]

    def holds(self, value: Any) -> bool:
        """Whether `value` is one of them."""
        return value in self.options

    def setting(self, value: Any) -> Any:
        """What the parameter is set to where `value` is tried."""
        return value


Tunable = Mapping[str, Real | Choice]
"""The parameters of a head that tuning tries, and their values."""


class Params:
    """Base of classes whose constructor does nothing but keep its arguments under their names."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments (scikit-learn)."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> Self:
        """Change the constructor's arguments (scikit-learn)."""
        known = inspect.signature(type(self)).parameters
        for name, value in params.items():
            if name not in known:
                raise HeadError(f"{type(self).__name__} has no parameter {name!r}. Parameters: {', '.join(known)}.")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.get_params().items())})"

"""Constructor arguments that can be read and changed, in scikit-learn's manner."""

from __future__ import annotations

import inspect
from typing import Any, Self

from embedstore.errors import HeadError


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

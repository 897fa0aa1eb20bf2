"""Metadata columns as numbers, so that heads can take them as one more input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedstore._core.column_types import shown
from embedstore._core.column_values import MisfitError, fitted
from embedstore._core.typed import fits
from embedstore.errors import HeadError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

METADATA = "metadata"
"""The name of the input that metadata columns make."""
MAX_LEVELS = 64
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class ColumnEncoder:
    """How columns become features.

    A column of numbers becomes its value and an indicator of its absence; any other becomes indicators of its most frequent
    values. What a column is, it is for every later item: see `kinds`.

    Parameters
    ----------
    numeric : mapping of column to its mean
        What stands for an absent value.
    levels : mapping of column to values
    booleans : sequence of columns
        Those of `levels` that hold true and false.
    """

    numeric: Mapping[str, float]
    levels: Mapping[str, Sequence[str]]
    booleans: Sequence[str] = ()

    @property
    def columns(self) -> list[str]:
        return [*self.numeric, *self.levels]

    def kinds(self) -> dict[str, pa.DataType]:
        """Column → the Arrow type in which `transform` takes it."""
        import pyarrow as pa

        others = {name: pa.bool_() if name in self.booleans else pa.string() for name in self.levels}
        return {**dict.fromkeys(self.numeric, pa.float64()), **others}

    @property
    def width(self) -> int:
        return 2 * len(self.numeric) + sum(len(values) for values in self.levels.values())

    @classmethod
    def fit(cls, columns: Mapping[str, Sequence[Any]]) -> ColumnEncoder:
        """Learn means and levels.

        Raises
        ------
        UsageError
            A column that holds neither numbers nor text, or nothing.
        """
        numeric, levels, booleans = {}, {}, []
        for name, values in columns.items():
            known = [v for v in values if not _absent(v)]
            if not known:
                raise UsageError(f"Column {name!r} holds no value for any of the {len(values)} items.")
            if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in known):
                numeric[name] = float(np.mean([float(v) for v in known]))
            elif all(isinstance(v, (str, bool)) for v in known):
                counts = Counter(str(v) for v in known)
                levels[name] = [level for level, _ in sorted(counts.items(), key=lambda c: (-c[1], c[0]))[:MAX_LEVELS]]
                booleans += [name] if isinstance(known[0], bool) else []
            else:
                raise UsageError(f"Column {name!r} holds {type(known[0]).__name__} values; expected numbers or text.")
        return cls(numeric, levels, booleans)

    def transform(self, columns: Mapping[str, Sequence[Any]], n: int) -> npt.NDArray[np.float32]:
        """Features (n, width); a column that is not there is absent for all."""
        blocks = []
        for name, mean in self.numeric.items():
            values = columns.get(name, [None] * n)
            absent = np.array([not _is_number(v) for v in values], bool)
            filled = np.array([mean if gone else float(v) for v, gone in zip(values, absent, strict=True)])
            filled = np.clip(filled, -_LARGEST, _LARGEST)
            blocks.append(np.stack([filled.astype(np.float32), absent.astype(np.float32)], axis=1))
        for name, levels in self.levels.items():
            values = columns.get(name, [None] * n)
            position = {level: i for i, level in enumerate(levels)}
            block = np.zeros((n, len(levels)), np.float32)
            for row, value in enumerate(values):
                at = None if _absent(value) else position.get(str(value))
                if at is not None:
                    block[row, at] = 1
            blocks.append(block)
        return np.concatenate(blocks, axis=1)

    def features(self, table: pa.Table) -> npt.NDArray[np.float32]:
        """`transform` of a table of items: a column ``id``, and those of `columns` that there are, in whatever type.

        Raises
        ------
        HeadError
            A value that does not fit what its column was when this was learned; names the item.
        """
        columns = {}
        for name, kind in self.kinds().items():
            if name not in table.column_names:
                continue
            try:
                columns[name] = fitted(table.column(name), kind, exact=False).to_pylist()
            except MisfitError as error:
                item = table.column("id")[error.position].as_py()
                raise HeadError(
                    f"Item {item!r}: {name} is {shown(error.value)}, no {error.expected}, which the head learned the column as."
                ) from error
        return self.transform(columns, table.num_rows)

    def to_dict(self) -> dict[str, Any]:
        levels = {name: list(values) for name, values in self.levels.items()}
        return {"numeric": dict(self.numeric), "levels": levels, "booleans": list(self.booleans)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ColumnEncoder:
        numeric, levels = data["numeric"], data["levels"]
        known = fits(numeric, dict[str, float]) and fits(levels, dict[str, list[str]])
        if not known or not fits(data.get("booleans", []), list[str]):
            raise ValueError("its columns are no numbers and levels")
        guessed = [name for name, values in levels.items() if set(values) <= {"True", "False"}]  # older heads do not say
        return cls(numeric, levels, data.get("booleans", guessed))


def _absent(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and not np.isfinite(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))

"""Several texts in one row of tokens, one after the other, instead of one a row with padding.

On a CPU a token costs more in rows of fewer than sixteen, and padding is work for nothing. A network that takes such rows
keeps every text to itself (`embedstore.encoders.runtimes.wrapped.PackedTexts`).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from embedstore.encoders.base import Vectors
from embedstore.encoders.runtimes.base import CPU_PADDING, Array, Model, Pending

LENGTHS = (32, 64)
"""Tokens that a row of several texts has."""


class Rows(NamedTuple):
    """Texts in rows.

    Parameters
    ----------
    ids, positions : (r, length) int64
        Tokens, and their numbers within their texts.
    members : (r, most, length) float32
        1 where a token belongs to the text; a row has at most `most` texts.
    row, slot : (n,) int64
        Where each text is.
    """

    ids: Array
    positions: Array
    members: Array
    row: npt.NDArray[np.int64]
    slot: npt.NDArray[np.int64]


class PackedModel:
    """A network of rows as one of texts: token ids and mask (n, length), padded, to vectors (n, dim)."""

    padding = CPU_PADDING
    row = LENGTHS[0]

    def __init__(self, rows: Model) -> None:
        self._rows = rows

    def start(self, *inputs: Array) -> Pending:
        packed = pack(*inputs)
        pending = self._rows.start(packed.ids, packed.positions, packed.members)
        return lambda: pending()[packed.row, packed.slot]

    def __call__(self, *inputs: Array) -> Vectors:
        return self.start(*inputs)()

    def provenance(self) -> Mapping[str, str]:
        return self._rows.provenance()


def pack(ids: Array, mask: Array) -> Rows:
    """Texts (n, length) int64, padded on the right, in rows of a length that leaves little padding."""
    lengths = mask.sum(axis=1)
    longest = max(1, int(lengths.max(initial=1)))
    order = np.argsort(-lengths, kind="stable").tolist()
    tokens = lengths.tolist()
    some = (longest, *(length for length in LENGTHS if longest < length <= int(lengths.sum())))
    tried = [(length, _filled(order, tokens, length)) for length in some]
    length, rows = min(tried, key=lambda one: one[0] * len(one[1]))
    shape = (len(rows), max(map(len, rows), default=1), length)
    packed = Rows(
        np.zeros((shape[0], length), np.int64),
        np.zeros((shape[0], length), np.int64),
        np.zeros(shape, np.float32),
        np.empty(len(ids), np.int64),
        np.empty(len(ids), np.int64),
    )
    for row, texts in enumerate(rows):
        start = 0
        for slot, text in enumerate(texts):
            end = start + tokens[text]
            packed.ids[row, start:end] = ids[text, : tokens[text]]
            packed.positions[row, start:end] = np.arange(tokens[text])
            packed.members[row, slot, start:end] = 1
            packed.row[text], packed.slot[text] = row, slot
            start = end
    return packed


def _filled(order: Sequence[int], tokens: Sequence[int], length: int) -> list[list[int]]:
    """Texts, the longest first, each into the row with the least room that takes it; numbers of texts by row."""
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # tokens that are free, number of the row; ascending
    for text in order:
        found = bisect_left(room, (tokens[text], -1))
        if found == len(room):
            rows.append([text])
            free, row = length, len(rows) - 1
        else:
            free, row = room.pop(found)
            rows[row].append(text)
        insort(room, (free - tokens[text], row))
    return rows

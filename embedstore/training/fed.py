"""What a head is given of a view: one vector an item, or all of its pieces where the head takes such."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from embedstore.heads import Head
from embedstore.store import View


def takes_pieces(head: Head, view: View) -> bool:
    """Whether items of the view have several vectors, and the head takes them."""
    return head.takes_sequences and any(space.unit is not None for space in view.spaces.values())


def fed(head: Head, view: View) -> dict[str, npt.NDArray[Any]]:
    """Input name → vectors (n, dim), or (n, f, dim) of the pieces: see `View.sequences`."""
    return view.sequences if takes_pieces(head, view) else view.inputs

"""The files of a store's own items, as far as a request may see them: on this disk, and still what was embedded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embedstore.serving.session import Session
from embedstore.sources.files import is_url

SEEN = ("image", "video", "audio")
"""Payloads that are files, in the order in which they stand for an item."""
HEARD = ("audio", "video")
"""Those that are played."""


class OwnFile(NamedTuple):
    """A payload of an item: where it lies, the hash of what was embedded, and its modality."""

    path: str
    digest: bytes
    modality: str


def own_file(session: Session, item: str, modalities: Sequence[str], space: str | None = None) -> OwnFile | None:
    """The first payload of an item that is of one of `modalities` and a file on this disk.

    Parameters
    ----------
    space : str, optional
        The space that was made of it.

    Raises
    ------
    UsageError
        No item has this id.
    """
    row = session.store.items.rows_of([item])
    for modality in modalities:
        if modality not in session.types:
            continue
        ((path,),) = session.store.items.lookup.values(row, [modality])
        if path is None or is_url(path):  # a request makes the server fetch nothing
            continue
        for made in session.store.spaces.values():
            if made.spec.modality == modality and space in (None, made.name) and made.has(row)[0]:
                return OwnFile(path, np.ascontiguousarray(made.hash_of(row).astype("<u8")).tobytes(), modality)
    return None


def seen_of(session: Session, rows: npt.NDArray[np.int64], payloads: Mapping[str, Sequence[Any]]) -> list[list[str]]:
    """For each item (n,) the modalities that `own_file` finds a file of, in the order of `SEEN`.

    Parameters
    ----------
    payloads : mapping of str to (n,) paths
        Of each modality that the store has a column of.
    """
    found: list[list[str]] = [[] for _ in rows]
    for modality in SEEN:
        if modality not in payloads:
            continue
        embedded = np.zeros(len(rows), bool)
        for made in session.store.spaces.values():
            if made.spec.modality == modality:
                embedded |= made.has(rows)
        for at in np.flatnonzero(embedded).tolist():
            path = payloads[modality][at]
            if path is not None and not is_url(path):
                found[at].append(modality)
    return found

"""What the files of a store's items hold, read again to be compared by itself. Wiring of stores, files and their contents."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from embedstore._core.keys import hash_payload
from embedstore._core.ordered import ordered_map
from embedstore._core.threads import allowed, side_by_side
from embedstore.duplicates.pairs import Pairs
from embedstore.errors import PayloadError
from embedstore.sources.files import read_file
from embedstore.store import Space, Store

__all__ = ["Content", "read_again"]

EVERY = 256
Say = Callable[[float], None]


class Content(ABC):
    """What n payloads of one modality hold, in small.

    Parameters
    ----------
    n : int
        How many there are.

    Attributes
    ----------
    noun, by : str
        What they are, and what of them is compared.
    up_to : int
        More of them are not read.
    sizes : (n,) int64
        Of equals the one with the largest is kept; 0 of a payload that was not read.
    """

    noun: ClassVar[str]
    by: ClassVar[str]
    up_to: ClassVar[int]

    def __init__(self, n: int) -> None:
        self.sizes = np.zeros(n, np.int64)

    @abstractmethod
    def read(self, payload: bytes) -> Any:
        """What `keep` takes of a file's bytes; called from several threads.

        Raises
        ------
        PayloadError
        """

    @abstractmethod
    def keep(self, at: int, found: Any) -> None:
        """What was read of the payload `at`."""

    @abstractmethod
    def pairs(self, positions: npt.NDArray[np.int64], on_progress: Say) -> Pairs:
        """Pairs of copies among the payloads that were read at `positions` (m,) ascending; scores are 1 less the difference."""


def read_again(
    content: Content,
    store: Store,
    space: Space,
    rows: npt.NDArray[np.int64],
    *,
    workers: int | None = None,
    on_progress: Say | None = None,
) -> str | None:
    """Fill `content` with what the items at `rows` (n,) hold, which were embedded into `space`.

    A file that is gone, that cannot be decoded, or whose bytes are not those that were embedded is not read.

    Parameters
    ----------
    workers : int, optional
        Threads that read and decode; default: one for each processor that this process may use.
    on_progress : callable, optional
        Is told the share that is done.

    Returns
    -------
    str or None
        Why the first payload that could not be read could not be.
    """
    n, column = len(rows), space.spec.modality
    if column not in store.items.column_types():
        return "the store does not know their files"
    table = store.items.take(rows, ["id", column])
    paths, ids = table.column(column).to_pylist(), table.column("id")
    keys = np.ascontiguousarray(space.hash_of(rows).astype("<u8")).view("V16").ravel()
    workers = workers or allowed()
    problem = None

    def read(work: tuple[str | None, bytes]) -> Any:
        try:
            return content.read(_payload(*work))
        except PayloadError as error:
            return error

    with side_by_side(), ThreadPoolExecutor(workers, thread_name_prefix="embedstore-content") as pool:
        work = zip(paths, (key.tobytes() for key in keys), strict=True)
        for i, found in enumerate(ordered_map(pool, read, work, window=4 * workers)):
            if isinstance(found, PayloadError):
                problem = problem or f"{ids[i].as_py()}: {found.reason}"
            else:
                content.keep(i, found)
            if on_progress is not None and (i + 1) % EVERY == 0:
                on_progress((i + 1) / n)
    return problem


def _payload(path: str | None, key: bytes) -> bytes:
    if path is None:
        raise PayloadError("read", "the store does not know its file")
    payload = read_file(path)
    if hash_payload(payload) != key:
        raise PayloadError("read", f"{path} has changed since it was embedded")
    return payload

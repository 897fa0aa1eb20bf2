"""Maps of a space: coordinates with what they depend on, kept with the session and, where the server may write, in the store.

On disk a map is one safetensors file, ``maps/SPACE.METHOD.safetensors``: arrays, no reducer, nothing that could run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.folders import Folder
from embedstore.errors import EmbedstoreError, UsageError
from embedstore.serving.projections import PARAMETERS, pca, umap
from embedstore.serving.session import Session
from embedstore.store.format import PartRef

__all__ = ["METHODS", "Map", "make_map", "map_of_key"]

Array = npt.NDArray[Any]
METHODS = tuple(PARAMETERS)
FOLDER, ENDING = "maps", ".safetensors"
KIND = "embedstore-map-1"
QUERIES = 1024


@dataclass(frozen=True)
class Map:
    """Where each vector of a space lies.

    Parameters
    ----------
    space, method, fingerprint : str
    generation : int
        That it was asked for of.
    parts : tuple of PartRef
        The files of its vectors.
    rows : (n,) int64
        Of the items, in the order of the store.
    points : (n, 2) float32
        From -1 to 1.
    """

    space: str
    method: str
    fingerprint: str
    generation: int
    parts: tuple[PartRef, ...]
    rows: npt.NDArray[np.int64]
    points: npt.NDArray[np.float32]

    @property
    def key(self) -> str:
        return f"{self.generation}.{self.method}.{self.space}"

    def to_dict(self) -> dict[str, Any]:
        """The document of ``GET /v1/map``."""
        return {
            "n": len(self.rows),
            "space": self.space,
            "method": self.method,
            "parameters": PARAMETERS[self.method],
            "fingerprint": self.fingerprint,
            "generation": self.generation,
            "ids_etag": f"{self.space}-{self.generation}",
            "key": self.key,
        }


def make_map(session: Session, space: str, method: str, *, keep: bool) -> Map:
    """The map of a stored space: the last one, or the one that is kept in the store, if it is of these vectors, else a new one.

    Parameters
    ----------
    keep : bool
        Whether a new one may be written into the store.

    Raises
    ------
    UsageError
        No such space or method.
    MissingDependencyError
        UMAP is not installed.
    """
    if method not in PARAMETERS:
        raise UsageError(f"No map is called {method!r}. Methods: {', '.join(METHODS)}.")
    source = session.store.space(space)
    rows = np.sort(source.rows)
    parts = tuple(source.raw_parts)
    made = partial(Map, space, method, source.fingerprint, session.generation, parts, rows)
    told = {"kind": KIND, "fingerprint": source.fingerprint, "parameters": json.dumps(PARAMETERS[method], sort_keys=True)}
    last: Map | None = session.drawn.get((space, method))
    same = last is not None and last.parts == parts and np.array_equal(last.rows, rows)
    points = last.points if last is not None and same else _read(session, space, method, told, rows)
    if points is None:
        vectors = source.take(rows)
        points = pca(vectors) if method == "pca" else umap(vectors, partial(_neighbours, session, space, rows, vectors))
        if keep:
            _write(session, space, method, told, rows, points)
    drawn = made(points)
    session.maps[drawn.key] = session.drawn[space, method] = drawn
    return drawn


def map_of_key(session: Session, key: str) -> Map:
    """A map that was made before, by its key.

    Raises
    ------
    UsageError
        It is of another generation, or was never made.
    """
    if key not in session.maps:
        raise UsageError(f"There is no map {key!r} of generation {session.generation}. Ask for it again: GET /v1/map.")
    found: Map = session.maps[key]
    return found


def _neighbours(
    session: Session, space: str, rows: npt.NDArray[np.int64], vectors: Array, k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The nearest others of each vector, as positions among `rows`, by the space's index where it has one."""
    target = session.space(space)
    positions = np.full((len(rows), k), -1, np.int64)
    cosines = np.zeros((len(rows), k), np.float32)
    for lo in range(0, len(rows), QUERIES):
        block = slice(lo, lo + QUERIES)
        scores, found = session.searcher.nearest(target, vectors[block], k, exclude=rows[block])
        positions[block, : found.shape[1]] = np.where(found < 0, -1, np.searchsorted(rows, found))
        cosines[block, : found.shape[1]] = np.nan_to_num(scores)
    return positions, cosines


def _read(
    session: Session, space: str, method: str, told: dict[str, str], rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32] | None:
    """Points (n, 2) of a map in the store that is of these vectors; None where there is none that can be used."""
    from safetensors import SafetensorError, safe_open

    path = session.store.path / FOLDER / f"{space}.{method}{ENDING}"
    if path.is_symlink() or not path.is_file():
        return None
    try:
        with safe_open(path, "numpy") as file:
            same = {name: (file.metadata() or {}).get(name) for name in told} == told
            if not same or not np.array_equal(file.get_tensor("rows"), rows):
                return None
            points = np.asarray(file.get_tensor("points"), np.float32)
    except (SafetensorError, OSError, ValueError, KeyError):
        return None  # it can always be made again
    return points if points.shape == (len(rows), 2) and np.isfinite(points).all() else None


def _write(
    session: Session,
    space: str,
    method: str,
    told: dict[str, str],
    rows: npt.NDArray[np.int64],
    points: npt.NDArray[np.float32],
) -> None:
    from safetensors.numpy import save

    data = save({"rows": rows, "points": points}, told)
    try:
        with Folder.below(session.store.path, FOLDER, create=True) as folder:
            folder.write(f"{space}.{method}{ENDING}", data)
    except (OSError, EmbedstoreError):
        return  # a map that cannot be kept is made again

"""`search`: nearest items to a text, an image, an item or a vector. The wiring of stores, encoders and indexes."""

from __future__ import annotations

import operator
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from embedstore._arguments import strings
from embedstore.encoders import load_encoder
from embedstore.errors import FingerprintError, UsageError
from embedstore.index.exact import ExactIndex
from embedstore.pipeline.produce import read_file
from embedstore.store import Space, Store

__all__ = ["Hit", "QueryVector", "SearchResult", "Searcher", "search"]


@dataclass(frozen=True)
class QueryVector:
    """A vector that says which encoder made it.

    Parameters
    ----------
    values : (dim,) float
    fingerprint : str, optional
        Of the encoder; without it only the dimension can be checked.
    """

    values: npt.NDArray[Any]
    fingerprint: str | None = None

    @classmethod
    def load(cls, path: str | os.PathLike[str], fingerprint: str | None = None) -> QueryVector:
        """From ``.npy``, or from ``.npz`` with ``values`` and ``fingerprint`` (as `save` writes it).

        Raises
        ------
        UsageError
        """
        try:
            data = np.load(path, allow_pickle=False)
            if isinstance(data, np.ndarray):
                return cls(data, fingerprint)
            inside = str(data["fingerprint"]) or None
            if fingerprint and inside and fingerprint != inside:
                raise FingerprintError(f"{path} says fingerprint {inside}, but {fingerprint} was given. Leave one of them out.")
            return cls(data["values"], fingerprint or inside)
        except FileNotFoundError:
            raise UsageError(f"{path} does not exist.") from None
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise UsageError(f"{path} is not a vector: expected .npy, or .npz with 'values' and 'fingerprint'.") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``.npz`` with ``values`` and ``fingerprint``."""
        np.savez(path, values=self.values, fingerprint=np.asarray(self.fingerprint or ""))


@dataclass(frozen=True)
class Hit:
    """One result; `score` is the cosine to the query."""

    rank: int
    id: str
    score: float
    metadata: dict[str, Any]


@dataclass(frozen=True)
class SearchResult:
    """What `search` returns.

    Parameters
    ----------
    results : list of Hit
    space : str
        The space that was searched.
    took_ms : mapping of str to float
        ``load``, ``encode`` and ``search``.
    index : mapping
        ``type``, ``exact`` and ``recall``.
    note : str, optional
        Something that the reader of the results should know.
    """

    results: list[Hit]
    space: str
    took_ms: dict[str, float] = field(default_factory=dict)
    index: dict[str, Any] = field(default_factory=lambda: {"type": "flat", "exact": True, "recall": 1.0})
    note: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The document of ``embedstore search --json``."""
        hits = [{"rank": h.rank, "id": h.id, "score": h.score, **_renamed(h.metadata)} for h in self.results]
        note = {"note": self.note} if self.note else {}
        return {"results": hits, "space": self.space, "took_ms": self.took_ms, "index": self.index, **note}


def _renamed(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata whose names are those of a hit's own values get an underscore."""
    return {f"{k}_" if k in ("rank", "id", "score") else k: v for k, v in metadata.items()}


class Searcher:
    """Searches one store; vectors are loaded once per space and kept.

    Parameters
    ----------
    store : Store
    device : str
        For encoding queries.
    """

    def __init__(self, store: Store, *, device: str = "auto") -> None:
        self.store = store
        self.device = device
        self._indexes: dict[str, ExactIndex] = {}
        self._encoders: dict[tuple[str, str], Any] = {}

    def search(
        self,
        *,
        text: str | None = None,
        image: str | os.PathLike[str] | None = None,
        id: str | None = None,
        vector: QueryVector | npt.NDArray[Any] | None = None,
        space: str | None = None,
        k: int = 10,
        where: str | None = None,
        columns: Sequence[str] | None = None,
    ) -> SearchResult:
        """See `search`."""
        given = {"text": text, "image": image, "id": id, "vector": vector}
        if sum(value is not None for value in given.values()) != 1:
            raise UsageError("Search by exactly one of --text, --image, --id and --vector.")
        try:
            k = operator.index(k)
        except TypeError:
            raise UsageError(f"k should be a whole number. Got {k!r} instead.") from None
        if k < 1:
            raise UsageError(f"k must be at least 1. Got {k} instead.")
        if text is not None:
            text = strings(text, "text")[0]
        columns = self._columns(columns)
        exclude, note = -1, None
        start = time.perf_counter()
        if text is not None or image is not None:
            target, query = self._encoded("text" if text is not None else "image", text, image, space)
        elif id is not None:
            target, query, exclude = self._item(id, space)
        else:
            assert vector is not None
            target, query, note = self._vector(vector, space)
        encoded = time.perf_counter()
        index = self._index(target)
        subset = self._subset(target, where, exclude)
        loaded = time.perf_counter()
        scores, positions = index.search(query[None], k, subset=subset)
        searched = time.perf_counter()
        hits = self._hits(target.rows[positions[0]], scores[0], columns)
        took = {"encode": encoded - start, "load": loaded - encoded, "search": searched - loaded}
        return SearchResult(hits, target.name, {key: round(1000 * s, 2) for key, s in took.items()}, note=note)

    def _encoded(
        self, modality: str, text: str | None, image: str | os.PathLike[str] | None, space: str | None
    ) -> tuple[Space, npt.NDArray[np.float32]]:
        if text is not None and not text.strip():
            raise UsageError("The text to search for is empty.")
        target = self._comparable(modality, space)
        encoder = self._encoder(target, modality)
        payload = text.encode() if text is not None else read_file(os.fspath(image))  # type: ignore[arg-type]
        query = encoder.encode([encoder.prepare(payload)])[0]
        if not np.isfinite(query).all():
            raise UsageError("The encoder returned a vector that is not finite for this query.")
        return target, query

    def _comparable(self, modality: str, wanted: str | None) -> Space:
        """The space that a query of `modality` is compared with: by alignment across modalities, else the same encoder."""
        spaces = [self.store.space(wanted)] if wanted else list(self.store.spaces.values())
        crossing = [s for s in spaces if s.spec.alignment and s.spec.modality != modality]
        same = [s for s in spaces if s.spec.modality == modality]
        if found := [*crossing, *same]:
            return found[0]
        raise UsageError(self._refusal(modality, spaces, wanted))

    def _refusal(self, modality: str, spaces: Sequence[Space], wanted: str | None) -> str:
        article = {"image": "an image", "text": "a text"}[modality]
        if not spaces:
            return f"{self.store.path} has no space yet. Embed something first: embedstore embed DATASET --store …"
        what = ", ".join(f"{s.name!r} ({s.spec.name}, {s.spec.modality} only)" for s in spaces)
        ways = ["--id ID of an item like it"]
        if any(s.spec.modality == "image" for s in spaces):
            ways.insert(0, "--image FILE")
        elif any(s.spec.modality == "text" for s in spaces):
            ways.insert(0, "--text WORDS")
        others = [s.name for s in self.store.spaces.values() if s.spec.modality == modality or s.spec.alignment]
        if wanted and others:
            ways.append(f"--space {others[0]}")
        else:
            ways.append("a space of an encoder that takes both (embed with --image clip)")
        return f"{article.capitalize()} cannot be compared with space {what}. Search with {', or '.join(ways)}."

    def _encoder(self, target: Space, modality: str) -> Any:
        key = (target.spec.name, modality)
        if key not in self._encoders:
            encoder = load_encoder(target.spec.name, modality, device=self.device)
            same = encoder.spec.fingerprint == target.fingerprint
            if not (same if modality == target.spec.modality else encoder.spec.alignment == target.spec.alignment):
                raise FingerprintError(
                    f"Space {target.name!r} was embedded by {target.spec.label}, but that name now loads "
                    f"{encoder.spec.label}: another model or weights. Install the original weights, or embed into a new space."
                )
            self._encoders[key] = encoder
        return self._encoders[key]

    def _item(self, item: str, space: str | None) -> tuple[Space, npt.NDArray[np.float32], int]:
        row = self.store.items.rows_of([item])
        spaces = [self.store.space(space)] if space else list(self.store.spaces.values())
        for target in spaces:
            if target.has(row)[0]:
                return target, target.take(row)[0].astype(np.float32), int(row[0])
        names = ", ".join(s.name for s in spaces) or "any space"
        raise UsageError(f"Item {item!r} has no vector in {names}: its payload is missing or failed.")

    def _vector(
        self, vector: QueryVector | npt.NDArray[Any], space: str | None
    ) -> tuple[Space, npt.NDArray[np.float32], str | None]:
        query = vector if isinstance(vector, QueryVector) else QueryVector(vector)
        values = np.asarray(query.values)
        values = values[0] if values.ndim == 2 and len(values) == 1 else values
        if values.ndim != 1 or values.dtype.kind not in "fiu":
            raise UsageError(f"The vector should be numbers of shape (dim,). Got {values.dtype}{values.shape} instead.")
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
        if not np.isfinite(values).all():
            raise UsageError("The vector holds NaN, infinity, or numbers that float32 cannot hold.")
        if not values.any():
            raise UsageError("The vector is all zeros; it has no direction to search in.")
        target = self._space_of(query, len(values), space)
        note = None
        if not query.fingerprint:
            note = (
                f"The vector does not say which encoder made it; it is taken to be from {target.spec.label}. "
                "Have it checked: --fingerprint, or an .npz written by QueryVector.save."
            )
        return target, values, note

    def _space_of(self, query: QueryVector, dim: int, wanted: str | None) -> Space:
        spaces = [self.store.space(wanted)] if wanted else list(self.store.spaces.values())
        if query.fingerprint:
            fits = [s for s in spaces if s.fingerprint == query.fingerprint]
        else:
            fits = [s for s in spaces if s.dim == dim]
        if not fits:
            origin = f"fingerprint {query.fingerprint}" if query.fingerprint else "no declared fingerprint"
            held = ", ".join(f"{s.name!r} has {s.dim}-d vectors of {s.spec.label}" for s in spaces) or "no space yet"
            raise FingerprintError(
                f"The vector ({dim}-d, {origin}) is from another encoder than the vectors of {self.store.path}: {held}. "
                "Make the query with the encoder of the space."
            )
        if len(fits) > 1 and not query.fingerprint:
            raise UsageError(f"The vector fits spaces {', '.join(s.name for s in fits)}. Say which: --space NAME.")
        if fits[0].dim != dim:
            raise FingerprintError(f"The vector has {dim} numbers, but {fits[0].spec.label} makes {fits[0].dim}.")
        return fits[0]

    def _index(self, space: Space) -> ExactIndex:
        if space.name not in self._indexes:
            self._indexes[space.name] = ExactIndex.from_blocks(space.blocks(), space.dim, len(space))
        return self._indexes[space.name]

    def _subset(self, space: Space, where: str | None, exclude: int) -> npt.NDArray[np.intp] | None:
        """Positions in the space that may be found; None for all."""
        if where is None and exclude < 0:
            return None
        keep = np.ones(len(space), bool) if where is None else np.isin(space.rows, self.store.items.where(where))
        keep &= space.rows != exclude
        return np.flatnonzero(keep)

    def _columns(self, columns: Sequence[str] | None) -> list[str]:
        types = self.store.items.column_types()
        if columns is None:
            return self.store.items.metadata_columns()
        columns = strings(columns, "columns")
        if unknown := [c for c in columns if c not in types]:
            raise UsageError(f"No column is called {unknown[0]!r}. Columns: {', '.join(types)}.")
        return columns

    def _hits(self, rows: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], columns: list[str]) -> list[Hit]:
        table = self.store.items.take(rows, ["id", *columns]).to_pylist()
        return [
            Hit(rank, item["id"], round(float(score), 6), {c: item[c] for c in columns})
            for rank, (item, score) in enumerate(zip(table, scores, strict=True), start=1)
        ]


def search(
    store: Store | str | Path,
    *,
    text: str | None = None,
    image: str | os.PathLike[str] | None = None,
    id: str | None = None,
    vector: QueryVector | npt.NDArray[Any] | None = None,
    space: str | None = None,
    k: int = 10,
    where: str | None = None,
    columns: Sequence[str] | None = None,
    device: str = "auto",
) -> SearchResult:
    """The `k` items nearest to a query, by cosine. Exact.

    Parameters
    ----------
    text, image, id, vector
        The query; exactly one. A text or an image file is encoded by the encoder of the space that is searched; an item's
        own vector stands for `id`, and the item is left out of the results.
    space : str, optional
        Which space to search. Without it: for a text or an image one that the query can be compared with, preferring
        one of another modality that is aligned (a text finds images); for an id the first that has the item.
    where : str, optional
        SQL over the metadata columns; the `k` nearest among the matching items are returned.
    columns : sequence of str, optional
        Columns to return with each hit; default: all metadata.

    Returns
    -------
    SearchResult

    Raises
    ------
    UsageError
        The query cannot be compared with the space; says what can be done instead.
    FingerprintError
        The query comes from another encoder; shows both fingerprints.
    """
    opened = store if isinstance(store, Store) else Store.open(store)
    return Searcher(opened, device=device).search(
        text=text, image=image, id=id, vector=vector, space=space, k=k, where=where, columns=columns
    )

"""Queries: what is searched for, made into vectors of a space that they can be compared with."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.unit import unit_rows
from embedstore.encoders import reload_encoder
from embedstore.encoders.base import pieces_of
from embedstore.encoders.names import FRAMES
from embedstore.errors import EmbedstoreError, FingerprintError, PayloadError, SourceError, UsageError, one_line
from embedstore.retrieval.aligned_spaces import ProjectedSpace, SearchableSpace, query_space, skipped_aligners, spaces_of
from embedstore.retrieval.asked import CANCELLED, Asked, directed
from embedstore.retrieval.contents import Contents
from embedstore.retrieval.query_vector import QueryVector
from embedstore.sources.files import absent, is_url, read_file
from embedstore.spec import UNNAMED, EncoderSpec
from embedstore.store import Store

__all__ = ["Resolver"]

Float = npt.NDArray[np.float32]
WORDS = {"image": "an image", "text": "a text", "audio": "a sound", "video": "a video"}
UNLIKE = 0.5


class Resolver:
    """Makes queries of one store; encoders are loaded once and kept.

    Parameters
    ----------
    store : Store
    device : str
        For encoding.
    before : Resolver, optional
        Another one of the same store and device, whose encoders need not be loaded again.
    """

    def __init__(self, store: Store, *, device: str = "auto", before: Resolver | None = None) -> None:
        self.store = store
        self.device = device
        self.spaces: dict[str, SearchableSpace] = dict(spaces_of(store))
        names = {space.spec.name for space in self.spaces.values()}
        taken = dict(before.encoders) if before else {}  # at once: threads add to what is copied
        self.encoders: dict[tuple[str, ...], Any] = {key: made for key, made in taken.items() if key[0] in names}
        self._loading: AbstractContextManager[Any] = before._loading if before else threading.RLock()
        self._before = weakref.ref(before) if before else None

    def space(self, name: str) -> SearchableSpace:
        """The space called `name`, stored or projected."""
        if name in self.spaces:
            return self.spaces[name]
        if (head := name.partition(".")[0]) in (skipped := skipped_aligners(self.store)):
            raise UsageError(skipped[head])
        raise UsageError(f"{self.store.path} has no space {name!r}. Spaces: {', '.join(self.spaces) or 'none yet'}.")

    def payload(
        self, modality: str, given: str | os.PathLike[str] | Contents, space: str | None, vector: Float | None = None
    ) -> Asked:
        """A text, or a file of another modality, by its path or its bytes; its `vector` (dim,), where it is encoded already.

        Raises
        ------
        UsageError
            It is empty, has no direction, or cannot be compared with the space.
        SourceError
            The file cannot be read or decoded.
        """
        if modality == "text" and not str(given).strip():
            raise UsageError("The text to search for is empty.")
        target, pieces = self.comparable(modality, space), None
        if vector is None and modality == "text":
            vector, pieces = self._encoded(target, modality, str(given).encode())
        elif vector is None:
            vector, pieces = self._file(target, modality, given)
        vector = directed(vector, f"The vector of this {modality}")
        aligned = () if space else tuple(self.alignments(modality))
        return Asked(target, vector, note=_declared_note(target), aligned=aligned, pieces=pieces)

    def _file(
        self, target: SearchableSpace, modality: str, given: str | os.PathLike[str] | Contents
    ) -> tuple[Float, Float | None]:
        """The vector (dim,) of a file, and those (q, dim) of its pieces where it has such."""
        if isinstance(given, Contents):
            try:
                return self._encoded(target, modality, given.data)
            except PayloadError as error:
                raise SourceError(f"The {modality} cannot be used: {error.reason}") from error
        path = os.fspath(given)
        if not is_url(path) and not os.path.exists(path):
            raise SourceError(absent(path))
        try:
            return self._encoded(target, modality, read_file(path))
        except PayloadError as error:
            raise SourceError(error.reason if path in error.reason else f"{path}: {error.reason}") from error

    def encode(self, target: SearchableSpace, modality: str, payloads: Sequence[bytes]) -> Float:
        """Vectors (m, dim) in `target` of raw payloads of one modality."""
        maker, encoder = self._query_encoder(target, modality)
        size = int(getattr(encoder, "batch_size", 64))
        parts = [payloads[lo : lo + size] for lo in range(0, len(payloads), size)]
        vectors = np.concatenate([np.asarray(encoder.encode([encoder.prepare(p) for p in part]), np.float32) for part in parts])
        return _in_space(vectors, maker)

    def _encoded(self, target: SearchableSpace, modality: str, payload: bytes) -> tuple[Float, Float | None]:
        """The vector (dim,) in `target` of a raw payload, and those (q, dim) of its pieces where it and the items have such."""
        if not self.asks_with_pieces(target, modality):
            return self.encode(target, modality, [payload])[0], None
        maker, encoder = self._query_encoder(target, modality)
        vectors, pieces = encoder.encode_pieces([encoder.prepare(payload)])
        return _in_space(vectors, maker)[0], _in_space(pieces.vectors, maker)

    def asks_with_pieces(self, target: SearchableSpace, modality: str) -> bool:
        """Whether a query of one modality has several vectors in `target`."""
        return target.unit is not None and pieces_of(self._query_encoder(target, modality)[1]) is not None

    def _query_encoder(self, target: SearchableSpace, modality: str) -> tuple[SearchableSpace | None, Any]:
        """The space whose vectors its encoder makes of queries of one modality for `target`, and that encoder."""
        maker = query_space(self.spaces, target, modality)
        encoder = self.encoder_of(target, modality)
        if not isinstance(maker, ProjectedSpace):  # an alignment was learned from items, with their prompt
            encoder = getattr(encoder, "queries", encoder)
        return maker, encoder

    def encoder_of(self, target: SearchableSpace, modality: str) -> Any:
        """The encoder that `encode` uses for payloads of one modality, before any alignment."""
        maker = query_space(self.spaces, target, modality)
        base = maker.base if isinstance(maker, ProjectedSpace) else maker
        return self._encoder(base or target, modality)

    def comparable(self, modality: str, wanted: str | None) -> SearchableSpace:
        """The space that a query of `modality` is compared with: by alignment across modalities, else the same encoder.

        Spaces that an aligner makes have to be asked for, so that aligning a store changes the meaning of no query.
        """
        spaces = [self.space(wanted)] if wanted else [self.spaces[name] for name in self.store.spaces]
        crossing = [s for s in spaces if s.spec.modality != modality and self.crosses(s, modality)]
        same = [s for s in spaces if s.spec.modality == modality]
        if found := [*crossing, *same]:
            return found[0]
        raise UsageError(self._refusal(modality, spaces, wanted))

    def alignments(self, modality: str) -> list[str]:
        """The spaces of aligners that a query of `modality` finds items of another modality in."""
        made = [s for s in self.spaces.values() if isinstance(s, ProjectedSpace) and s.spec.modality != modality]
        return [space.name for space in made if self.crosses(space, modality)]

    def crosses(self, target: SearchableSpace, modality: str) -> bool:
        """Whether something may make vectors of `modality` for `target`: an aligned space, or the encoder of a stored one."""
        if target.spec.alignment is None:
            return False
        if target.spec.alignment.startswith(FRAMES) and modality not in ("image", "video"):
            return False  # films and images of an encoder that takes no texts
        return not isinstance(target, ProjectedSpace) or query_space(self.spaces, target, modality) is not None

    def _refusal(self, modality: str, spaces: Sequence[SearchableSpace], wanted: str | None) -> str:
        article = WORDS[modality]
        if not spaces:
            return f"{self.store.path} has no space yet. Embed something first: embedstore embed DATASET --store …"
        what = ", ".join(f"{s.name!r} ({s.spec.name}, {s.spec.modality} only)" for s in spaces)
        ways = ["--id ID of an item like it"]
        encodable = {s.spec.modality for s in spaces if s.spec.family != UNNAMED}
        options = {"image": "--image FILE", "text": "--text WORDS", "audio": "--audio FILE", "video": "--video FILE"}
        ways = [way for kind, way in options.items() if kind in encodable][:1] + ways
        others = [s.name for s in self.spaces.values() if s.spec.modality == modality or self.crosses(s, modality)]
        if made := [name for name in self.alignments(modality) if wanted and name.endswith(f".{wanted}")]:
            ways += [f"--space {name}" for name in made]
        elif wanted and others:
            ways.append(f"--space {others[0]}")
            if len(self.store.spaces) > 1:
                ways.append(f"align the two first (embedstore align {self.store.path} --from {others[0]} --to {wanted})")
        else:
            ways.append("a space of an encoder that takes both (embedstore embed DATASET --image clip)")
        return f"{article.capitalize()} cannot be compared with space {what}. Search with {', or '.join(ways)}."

    def _encoder(self, target: SearchableSpace, modality: str) -> Any:
        """The encoder of a space for payloads of one modality, loaded once; one that was kept has to have made its vectors."""
        spec = target.spec
        of = f"{target.name} {target.fingerprint}" if spec.declared else ""
        key = (spec.name, modality, spec.prompt, spec.query_prompt, of)
        if (kept := self._fitting(key, target, modality)) is not None:
            return kept
        with self._loading:
            if (kept := self._fitting(key, target, modality)) is None:  # or else another thread has loaded it meanwhile
                load = self._declared_encoder if spec.declared else self._original_encoder
                kept = self.encoders[key] = load(target, modality)
            return kept

    def _fitting(self, key: tuple[str, ...], target: SearchableSpace, modality: str) -> Any:
        """The encoder that is kept under `key`, if its vectors can be compared with those of `target`."""
        before = self._before() if self._before else None
        if key not in self.encoders and before is not None and key in before.encoders:
            self.encoders[key] = before.encoders[key]  # loaded for a request that began before
        kept = self.encoders.get(key)
        return kept if kept is not None and (target.spec.declared or _made_by(target, kept, modality)) else None

    def _original_encoder(self, target: SearchableSpace, modality: str) -> Any:
        """The encoder that made the vectors of a space, as its name loads it now."""
        encoder = self._reloaded(target.spec, modality)
        if not _made_by(target, encoder, modality):
            raise FingerprintError(
                f"Space {target.name!r} was embedded by {target.spec.label}, but that name now loads "
                f"{encoder.spec.label}: another model or weights. Install the original weights, or embed into a new space."
            )
        return encoder

    def _reloaded(self, spec: EncoderSpec, modality: str) -> Any:
        allowed = self.store.access.allow_models
        return reload_encoder(spec, modality, home=self.store.path, allowed=allowed, device=self.device)

    def _declared_encoder(self, target: SearchableSpace, modality: str) -> Any:
        """The encoder that imported vectors are declared to be of; all that can be checked is the dimension."""
        name, ways = target.spec.name, "Search with --id ID, or --vector FILE.npy."
        if target.spec.family == UNNAMED:
            raise UsageError(f"Space {target.name!r} was imported without --encoder: nothing can encode a query for it. {ways}")
        try:
            encoder = self._reloaded(target.spec, modality)
        except EmbedstoreError as error:
            raise type(error)(f"Space {target.name!r} is declared to be of {name!r}. {error} {ways}") from error
        if encoder.spec.dim != target.dim or (modality != target.spec.modality and encoder.spec.alignment is None):
            raise FingerprintError(
                f"Space {target.name!r} has {target.dim}-d vectors declared to be of {target.spec.label}, but "
                f"{encoder.spec.label} makes {encoder.spec.dim}-d ones of {modality}. Import them with the right --encoder."
            )
        return encoder

    def item(self, item: str, space: str | None) -> Asked:
        """An item's own vector; the item itself is left out of the answer."""
        row = self.store.items.rows_of([item])
        spaces = [self.space(space)] if space else list(self.spaces.values())
        holding = [target for target in spaces if target.has(row)[0]]
        if not holding:
            names = ", ".join(s.name for s in spaces) or "any space"
            raise UsageError(f"Item {item!r} has no vector in {names}: its payload is missing or failed.")
        vectors = [target.take(row)[0].astype(np.float32) for target in holding]
        at = next((i for i, vector in enumerate(vectors) if vector.any()), 0)
        pieces = None if holding[at].unit is None else unit_rows(holding[at].pieces_of(row).vectors)
        if pieces is None or not pieces.any():  # pieces may cancel one another in the mean, and be near to others all the same
            directed(vectors[at], f"The vector of item {item!r} in space {holding[at].name!r}")
        return Asked(holding[at], vectors[at], leave_out=(int(row[0]),), pieces=pieces)

    def examples(self, like: Sequence[str], unlike: Sequence[str], space: str | None, *, alone: bool = True) -> Asked:
        """Towards the mean of some items, and half as far away from that of others (Rocchio).

        Parameters
        ----------
        alone : bool
            Whether they are the whole question; beside another query there may be nothing to go towards.
        """
        if not like and alone:
            raise UsageError("--unlike needs at least one --like: say what to look for before what to avoid.")
        rows = self.store.items.rows_of([*like, *unlike])
        spaces = [self.space(space)] if space else list(self.spaces.values())
        fits = [s for s in spaces if s.has(rows).all()]
        if not fits:
            target = spaces[0]
            lacking = [*like, *unlike][int(np.flatnonzero(~target.has(rows))[0])]
            raise UsageError(f"Item {lacking!r} has no vector in {target.name}: its payload is missing or failed.")
        vectors = fits[0].take(rows).astype(np.float32)
        for item, vector in zip([*like, *unlike], vectors, strict=True):
            directed(vector, f"The vector of item {item!r} in space {fits[0].name!r}")
        vectors = unit_rows(vectors)
        towards = vectors[: len(like)].mean(axis=0) if like else 0.0
        away = UNLIKE * vectors[len(like) :].mean(axis=0) if unlike else 0.0
        if np.linalg.norm(towards - away) < CANCELLED:
            raise UsageError("The examples cancel one another out: there is no direction to search in. Change one of them.")
        weight = 1.0 if like else UNLIKE
        return Asked(fits[0], np.asarray(towards - away, np.float32), weight, leave_out=tuple(int(r) for r in rows))

    def vector(self, vector: QueryVector | npt.NDArray[Any], space: str | None) -> Asked:
        """A vector made elsewhere, whose fingerprint is compared where it has one."""
        query = vector if isinstance(vector, QueryVector) else QueryVector(vector)
        try:
            values = np.asarray(query.values)
        except (TypeError, ValueError) as error:  # rows of different lengths, or a tensor on a GPU
            raise UsageError(f"The vector should be numbers of shape (dim,): {one_line(error, 120)}") from error
        values = values[0] if values.ndim == 2 and len(values) == 1 else values
        if values.ndim != 1 or values.dtype.kind not in "fiu":
            raise UsageError(f"The vector should be numbers of shape (dim,). Got {values.dtype}{values.shape} instead.")
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
        if not np.isfinite(values).all():
            raise UsageError("The vector holds NaN, infinity, or numbers that float32 cannot hold.")
        directed(values, "The vector")
        target = self._space_of(query, len(values), space)
        note = None
        if not query.fingerprint:
            note = (
                f"The vector does not say which encoder made it; it is taken to be from {target.spec.label}. "
                "Have it checked: --fingerprint, or an .npz written by QueryVector.save."
            )
        elif query.fingerprint != target.fingerprint:
            note = _declared_note(target)
        return Asked(target, values, note=note)

    def _declared_as(self, space: SearchableSpace, fingerprint: str) -> bool:
        """Whether the vectors are declared to be of the encoder with this fingerprint, which is loaded to see."""
        if not space.spec.declared:
            return False
        try:
            return str(self._encoder(space, space.spec.modality).spec.fingerprint) == fingerprint
        except EmbedstoreError:
            return False

    def _space_of(self, query: QueryVector, dim: int, wanted: str | None) -> SearchableSpace:
        spaces: list[SearchableSpace] = [self.space(wanted)] if wanted else list(self.spaces.values())
        if query.fingerprint:
            fits = [s for s in spaces if s.fingerprint == query.fingerprint]
            fits = fits or [s for s in spaces if s.dim == dim and self._declared_as(s, query.fingerprint)]
        else:
            fits = [s for s in spaces if s.dim == dim and (wanted or s.name in self.store.spaces)]
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


def _in_space(vectors: npt.NDArray[Any], maker: SearchableSpace | None) -> Float:
    """What an encoder made of queries (m, d), in the space that they are compared in (m, dim)."""
    if not np.isfinite(vectors).all():
        raise UsageError("The encoder returned a vector that is not finite for this query.")
    return maker.project_query(vectors) if isinstance(maker, ProjectedSpace) else np.asarray(vectors, np.float32)


def _made_by(target: SearchableSpace, encoder: Any, modality: str) -> bool:
    """Whether an encoder's vectors of `modality` can be compared with those of a space that it is said to have made."""
    if modality == target.spec.modality:
        return bool(encoder.spec.fingerprint == target.fingerprint)
    return bool(encoder.spec.alignment == target.spec.alignment)


def _declared_note(target: SearchableSpace) -> str | None:
    """What the reader of results has to know where vectors were imported."""
    base = target.base if isinstance(target, ProjectedSpace) else target
    if not base.spec.declared:
        return None
    return f"The vectors of space {base.name!r} were imported, and are declared to be of {base.spec.name!r}, not computed here."

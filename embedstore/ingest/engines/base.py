"""What an engine is given to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore.ingest.claims import SpaceState
from embedstore.ingest.embed_options import EmbedOptions
from embedstore.ingest.report import EmbedReport, ProgressCallback
from embedstore.ingest.stages import Clock
from embedstore.ingest.typed_batches import Typed
from embedstore.sources import Source
from embedstore.store import StoreReader
from embedstore.store.writer import StoreWriter


@dataclass(frozen=True)
class Job:
    """A source to embed into the spaces of a store; an engine commits its items and vectors, and fills in what it found.

    Parameters
    ----------
    source : Source
    typed : Typed
        Gives the source's columns their types.
    writer : StoreWriter
    store : StoreReader
        As it was when the run began.
    states : mapping of space name to SpaceState
    options : EmbedOptions
    on_progress : callable
    report : EmbedReport
        Filled in: items, failures, and the counts of each space.
    seen : (r,) bool
        Filled in: the rows of the store that the source has, where items are pruned; else of length 0.
    clock : Clock
        Filled in: how long each stage was busy.
    """

    source: Source
    typed: Typed
    writer: StoreWriter
    store: StoreReader
    states: Mapping[str, SpaceState]
    options: EmbedOptions
    on_progress: ProgressCallback
    report: EmbedReport
    seen: npt.NDArray[np.bool_]
    clock: Clock

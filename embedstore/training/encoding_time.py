"""How long an encoder takes for an item: payloads that a store knows are embedded again."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from embedstore.encoders import reload_encoder
from embedstore.encoders.base import prepare_all
from embedstore.errors import EmbedstoreError, PayloadError, one_line
from embedstore.sources.files import read_file
from embedstore.store import Store
from embedstore.store.items import Rows
from embedstore.store.space import Space

ROUNDS = 3


def encoding_ms(store: Store, space: Space, rows: Rows, device: str) -> tuple[float | None, str]:
    """Milliseconds to read, prepare and encode an item, the best of a few rounds over `rows`; or None, and why not.

    The model is loaded, and warm, before the clock starts.
    """
    if space.spec.declared:
        return None, "its vectors were imported"
    try:
        encoder = reload_encoder(
            space.spec, space.spec.modality, home=store.path, allowed=store.access.allow_models, device=device
        )
        column = store.items.take(rows, [space.payload]).column(space.payload).to_pylist()
        given = [value for value in column if value is not None]
        read = _texts if space.spec.modality == "text" else _files
        taken = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            prepared = prepare_all(encoder, read(given))
            prepared = [one for one in prepared if not isinstance(one, PayloadError)]
            for lo in range(0, len(prepared), encoder.batch_size):
                encoder.encode(prepared[lo : lo + encoder.batch_size])
            taken.append((time.perf_counter() - started) / max(len(prepared), 1))
    except (EmbedstoreError, KeyError, RuntimeError) as error:  # no such column, model, package, file
        return None, one_line(error, 120)
    if not given or not prepared:
        return None, "none of its payloads can be read"
    return 1000 * float(np.min(taken)), ""


def _texts(given: Sequence[str]) -> list[bytes]:
    return [text.encode() for text in given]


def _files(given: Sequence[str]) -> list[bytes]:
    return [read_file(path) for path in given]

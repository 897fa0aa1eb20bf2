"""Items as a report shows them, labelled one way and predicted another: picture, text, nearest items."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.encoders.payloads.thumbnail import small_jpeg
from embedstore.errors import PayloadError
from embedstore.evaluation.nearest import nearest_items
from embedstore.reports.data import Mistake
from embedstore.store import View

__all__ = ["cards"]

NEAREST = 3
THUMBNAIL = 200


def cards(
    seen: View, among: View, *, labelled: Sequence[Any], predicted: Sequence[Any], probability: npt.NDArray[np.float64]
) -> list[Mistake]:
    """One card for each of the m items of `seen`.

    Parameters
    ----------
    among : View
        Of the same store: the items among which the nearest are looked for.
    labelled, predicted : sequences of m
    probability : (m,)
        Of what is predicted.
    """
    if not len(seen):
        return []
    columns = set(seen.store.items.column_types())
    shown = seen.metadata([name for name in ("image", "text") if name in columns]).to_pydict()
    near = nearest_items(seen.inputs, seen.present, among.inputs, among.present, NEAREST, never=(seen.rows, among.rows))
    return [
        Mistake(
            id=str(seen.ids[i]),
            true=str(labelled[i]),
            predicted=str(predicted[i]),
            probability=float(probability[i]),
            text=shown["text"][i] if "text" in shown else None,
            thumbnail=_thumbnail(shown["image"][i]) if "image" in shown else None,
            nearest=[str(among.ids[other]) for other in near[i]],
        )
        for i in range(len(seen))
    ]


def _thumbnail(uri: str | None) -> bytes | None:
    """A small JPEG of an image file, if it can still be read."""
    if not uri or not Path(uri).is_file():
        return None
    try:
        return small_jpeg(Path(uri).read_bytes(), THUMBNAIL, quality=80)
    except (OSError, PayloadError):
        return None

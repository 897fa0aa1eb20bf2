"""Items as a report shows them, labelled one way and predicted another: picture or waveform, text, nearest items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.threads import idle
from embedstore.encoders.payloads.faces import small_picture
from embedstore.errors import MissingDependencyError, PayloadError
from embedstore.evaluation.nearest import nearest_items
from embedstore.reports.data import Mistake
from embedstore.sources.files import readable
from embedstore.store import View

__all__ = ["cards", "small_cards"]

NEAREST = 3
SHOWN = {"image": "image", "video": "frame", "audio": "waveform"}
"""Payloads that can be seen, the first one first, and what is seen of them."""
THUMBNAIL, SMALL = 200, 112
"""Sides of the pictures of cards, and of small ones, of which a page has hundreds."""


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
    near = nearest_items(seen.inputs, seen.present, among.inputs, among.present, NEAREST, never=(seen.rows, among.rows))
    return [
        replace(card, nearest=[str(among.ids[other]) for other in near[i]])
        for i, card in enumerate(
            _plain(seen, labelled=labelled, predicted=predicted, probability=probability, alone=None, side=THUMBNAIL)
        )
    ]


def small_cards(
    seen: View,
    *,
    labelled: Sequence[Any],
    predicted: Sequence[Any],
    probability: npt.NDArray[np.float64],
    alone: Mapping[str, Sequence[Any]],
) -> list[Mistake]:
    """The same with small pictures and without the nearest items: of hundreds these would take long.

    Parameters
    ----------
    alone : mapping of input to m labels
        What each input says; None where an item lacks it. Kept of items whose inputs do not agree.
    """
    return _plain(seen, labelled=labelled, predicted=predicted, probability=probability, alone=alone, side=SMALL)


def _plain(
    seen: View,
    *,
    labelled: Sequence[Any],
    predicted: Sequence[Any],
    probability: npt.NDArray[np.float64],
    alone: Mapping[str, Sequence[Any]] | None,
    side: int,
) -> list[Mistake]:
    columns = set(seen.store.items.column_types())
    shown = seen.metadata([name for name in (*SHOWN, "text") if name in columns]).to_pydict() if len(seen) else {}
    files = [{name: shown[name][i] for name in SHOWN if name in shown} for i in range(len(seen))]
    with ThreadPoolExecutor(idle()) as threads:
        pictures = list(threads.map(lambda own: _thumbnail(own, side), files))
    said = [{name: labels[i] for name, labels in (alone or {}).items() if labels[i] is not None} for i in range(len(seen))]
    return [
        Mistake(
            id=str(seen.ids[i]),
            true=str(labelled[i]),
            predicted=str(predicted[i]),
            probability=float(probability[i]),
            text=shown["text"][i] if "text" in shown else None,
            thumbnail=pictures[i][0],
            shown=pictures[i][1],
            alone={name: str(label) for name, label in said[i].items()} if len(set(said[i].values())) > 1 else {},
        )
        for i in range(len(seen))
    ]


def _thumbnail(files: Mapping[str, str | None], side: int) -> tuple[bytes | None, str]:
    """What stands for an item, of the first of its files that can still be read, and what that shows."""
    for modality, uri in files.items():
        if not uri:
            continue
        with suppress(PayloadError, MissingDependencyError), readable(uri) as file:
            quality = 80 if side == THUMBNAIL else 70
            return small_picture(file, modality, side, quality=quality), SHOWN[modality]
    return None, SHOWN["image"]

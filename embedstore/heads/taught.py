"""A ridge head of a few marked items, in milliseconds: what is usual is known from many items that nobody marked.

Means and deviations of features come from a background of unmarked items, since those of five marks say nothing. Arrays only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore._core.threads import bounded
from embedstore.heads.base import Array, Codes, Data, Float, HeadState, Mask, log_softmax
from embedstore.heads.ridge import RidgeHead
from embedstore.heads.solvers.design_matrix import Standardizer
from embedstore.heads.solvers.loo import LooRidge

PENALTIES = tuple(float(x) for x in np.logspace(-2, 3, 11))
ORDINARY = 1.0
"""What all unmarked items together count as examples of the last class, in marks."""


@dataclass(frozen=True)
class Taught:
    """A head of marked items.

    Parameters
    ----------
    head : RidgeHead
    left_out : (n, c) float64
        Log-probabilities of each marked item by a head that did not see it.
    """

    head: RidgeHead
    left_out: Float

    def effective(self) -> tuple[dict[str, npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
        """The head as weights (d, c) of each input's plain vectors, and the logits (c,) of an item that has every input."""
        head, standardizer = self.head, self.head.standardizer_
        weights, at = {}, 0
        bias = head.bias_.astype(np.float64)
        for name in standardizer.inputs_:
            width = head.dims_[name]
            own = head.weight_[at : at + width] / standardizer.scale_[name][:, None]
            bias = bias - standardizer.mean_[name] @ own
            weights[name] = (head.scale_ * own).astype(np.float32)
            at += width
        return weights, (head.scale_ * bias).astype(np.float32)


def usual(inputs: Mapping[str, Array], present: Mapping[str, Mask]) -> Standardizer:
    """What features of ordinary items are like: `inputs` (m, d) by name, of items drawn at random."""
    return Standardizer().fit(Data(inputs, present, np.zeros(len(next(iter(inputs.values()))), np.int64)))


@bounded()
def fit_taught(marked: Data, classes: Array, standardizer: Standardizer, *, ordinary: Data | None = None) -> Taught:
    """Fit to marked items.

    Parameters
    ----------
    marked : Data
        Its codes (n,) are positions in `classes`.
    classes : (c,) labels
        Two or more, sorted.
    standardizer : Standardizer
        See `usual`.
    ordinary : Data, optional
        Unmarked items with the code of the class that most items are of, such as "not this one". All together count little.
    """
    every, weights = marked, None
    if ordinary is not None:
        every = Data(marked.inputs, marked.present, marked.codes) + Data(ordinary.inputs, ordinary.present, ordinary.codes)
        weights = np.concatenate([np.ones(len(marked)), np.full(len(ordinary), ORDINARY / len(ordinary))])
    x = standardizer.transform(every)
    fit = LooRidge.fit(x, _codes(every), len(classes), PENALTIES, weights=weights)
    head = RidgeHead.from_state(
        {},
        HeadState(
            {
                "classes": classes.tolist(),
                "dims": {name: vectors.shape[-1] for name, vectors in marked.inputs.items()},
                "lambda": fit.penalty,
                "scale": fit.scale,
            },
            {"weight": fit.weight.astype(np.float32), "bias": fit.bias.astype(np.float32), **standardizer.tensors()},
        ),
    )
    return Taught(head, log_softmax(fit.left_out[: len(marked)]))


def _codes(data: Data) -> Codes:
    return np.asarray(data.codes, np.int64)

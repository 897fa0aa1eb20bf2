"""Which labels are likely wrong, from probabilities of models that did not see the items: cleanlab's confident learning.

Northcutt, Jiang & Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.registry import require

__all__ = ["LabelQuality", "label_quality"]


@dataclass(frozen=True)
class LabelQuality:
    """What is known of the labels of n items.

    Parameters
    ----------
    score : (n,) float64
        0 to 1; the lower, the likelier the label is wrong.
    wrong : (n,) bool
        The labels that cleanlab holds for wrong.
    estimated : int
        How many it estimates to be wrong, whichever they are.
    """

    score: npt.NDArray[np.float64]
    wrong: npt.NDArray[np.bool_]
    estimated: int


def label_quality(
    codes: npt.NDArray[np.int64], probabilities: npt.NDArray[Any], *, method: str = "self_confidence"
) -> LabelQuality:
    """The quality of labels.

    Parameters
    ----------
    codes : (n,) int64 in 0…c-1
        The labels; every class has an item.
    probabilities : (n, c)
        Of each item, by a model that was not fitted on it.
    method : str
        cleanlab's score of a label: ``"self_confidence"``, the label's own probability; ``"normalized_margin"``, that less the
        one of the likeliest other class; ``"confidence_weighted_entropy"``.

    Raises
    ------
    MissingDependencyError
        Without cleanlab 2.9 or newer: the extra ``labels``.
    """
    find = require("cleanlab.filter", extra="labels").find_label_issues
    rank = require("cleanlab.rank", extra="labels").get_label_quality_scores
    count = require("cleanlab.count", extra="labels").num_label_issues
    p = np.asarray(probabilities, np.float64)
    p = p / p.sum(axis=1, keepdims=True)  # rounded to float32 in the file
    wrong = np.asarray(find(codes, p, n_jobs=1), bool)  # as many processes as cores would take longer to start than to work
    score = np.asarray(rank(codes, p, method=method, adjust_pred_probs=False), np.float64)
    return LabelQuality(score, wrong, int(count(codes, p)))

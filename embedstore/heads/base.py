"""What every head is: a classifier on one or more inputs with masks, in scikit-learn's manner.

The constructor only assigns; `fit` validates and returns self; attributes learned end in ``_``. Heads see arrays and masks,
never a store. A new head is one small class with `_fit`, `_logits`, `_state` and `_restore`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from embedstore._core.distinct import distinct
from embedstore._core.threads import bounded
from embedstore.errors import HeadError, one_line
from embedstore.heads.params import Params, Tunable

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Inputs = Mapping[str, Array] | Array

VALIDATION_SHARE = 0.15


@dataclass(frozen=True)
class Data:
    """Checked arrays of one data set.

    Parameters
    ----------
    inputs : mapping of input name to (n, d)
        Values of absent items are arbitrary.
    present : mapping of input name to (n,) bool
    codes : (n,) int64
        Class codes; -1 for a class that the head does not know (in validation data only). The targets, of a regressor.
    weights : (n,) float64 or None
        What each item counts, for heads that take it (`Head.takes_weights`); 1, if None.
    """

    inputs: Mapping[str, Array]
    present: Mapping[str, Mask]
    codes: Array
    weights: Float | None = None

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, index: Array) -> Data:
        """The items at `index`, a mask (n,) or positions (m,)."""
        return Data(
            {name: x[index] for name, x in self.inputs.items()},
            {name: mask[index] for name, mask in self.present.items()},
            self.codes[index],
            None if self.weights is None else self.weights[index],
        )

    def only(self, names: Sequence[str]) -> Data:
        """The same items with some of the inputs."""
        return Data({n: self.inputs[n] for n in names}, {n: self.present[n] for n in names}, self.codes, self.weights)

    def __add__(self, other: Data) -> Data:
        return Data(
            {name: np.concatenate([x, other.inputs[name]]) for name, x in self.inputs.items()},
            {name: np.concatenate([mask, other.present[name]]) for name, mask in self.present.items()},
            np.concatenate([self.codes, other.codes]),
            None if self.weights is None or other.weights is None else np.concatenate([self.weights, other.weights]),
        )


@dataclass(frozen=True)
class HeadState:
    """A fitted head as JSON values, arrays and opaque files (name → bytes)."""

    config: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Array] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


class Head(Params):
    """Base class of all heads.

    Attributes
    ----------
    classes_ : (c,) labels
    dims_ : dict of input name to width
    calibration_ : float
        What the logits are multiplied by, the inverse of a temperature; 1 unless somebody sets it after `fit`.
    """

    kind: ClassVar[str]
    task: ClassVar[str] = "classification"
    leaves_one_out: ClassVar[bool] = False
    """Whether `left_out` is known once the head is fitted."""
    takes_weights: ClassVar[bool] = False
    """Whether it heeds `Data.weights`."""
    chooses_within: ClassVar[bool] = False
    """Whether it chooses by what it says of items left out of those that it is fitted on: none of them may be there twice."""
    kept_in_state: ClassVar[tuple[str, ...]] = ()
    """Parameters of the constructor that are no JSON values: `_state` holds them, and `_restore` sets them."""
    stochastic = False
    """Whether another seed makes another model, beside other folds of what is chosen inside; a head of others may ask them."""
    takes_sequences: ClassVar[bool] = False
    """Whether an input may have several vectors an item, (n, f, d); other heads get their mean."""
    tunable: ClassVar[Tunable] = {}
    """The parameters that tuning tries, by name, and their values."""

    classes_: Array
    dims_: dict[str, int]
    calibration_: float = 1.0

    @bounded()
    def fit(
        self,
        X: Inputs,
        y: Array,
        *,
        present: Mapping[str, Mask] | None = None,
        validation: tuple[Inputs, Array, Mapping[str, Mask] | None] | None = None,
    ) -> Self:
        """Fit to inputs and labels.

        Parameters
        ----------
        X : mapping of input name to (n, d), or one (n, d)
            Or (n, f, d): f vectors an item, such as the frames of a video.
        y : (n,) labels
        present : mapping of input name to (n,) bool, optional
            Which items have the input; all, if omitted. Or (n, f): which of an item's vectors are there; those that are
            zeros are not, where a mask (n,) goes with vectors (n, f, d).
        validation : (X, y, present), optional
            What hyperparameters are chosen on; a seventh of the data is set aside if omitted. Heads that can fit on
            it afterwards do.

        Raises
        ------
        HeadError
            Fewer than two classes, shapes that do not fit, or values that are not finite.
        """
        inputs, masks = self._accept(X, present)
        n = len(next(iter(inputs.values())))
        y = checked_labels(y, n)
        self.dims_, self.calibration_ = {name: vectors.shape[-1] for name, vectors in inputs.items()}, 1.0
        check_inputs(inputs, masks, self.dims_)
        labels = y
        if validation is not None:
            v_inputs, v_masks = self._accept(validation[0], validation[2])
            check_inputs(v_inputs, v_masks, self.dims_)
            labels = np.concatenate([y, checked_labels(validation[1], len(next(iter(v_inputs.values()))))])
        try:
            self.classes_ = np.array(sorted(set(labels.tolist())), object) if labels.dtype == object else np.unique(labels)
        except TypeError as error:
            raise HeadError("y holds labels of kinds that have no order among them, such as text and numbers.") from error
        if len(self.classes_) < 2:
            raise HeadError(f"A classifier needs items of two classes; all {len(labels)} are {self.classes_.tolist()}.")
        codes = np.searchsorted(self.classes_, labels).astype(np.int64)
        train = Data(inputs, masks, codes[:n])
        if validation is not None:
            held_out = Data(v_inputs, v_masks, codes[n:])
        else:
            train, held_out = set_aside(train)
        self._fit(train, held_out)
        return self

    @bounded()
    def fit_data(self, train: Data, validation: Data, classes: Array) -> Self:
        """Fit to checked data whose codes are positions in `classes`; for heads that are made of heads."""
        self.classes_ = classes
        self.dims_ = {name: x.shape[-1] for name, x in train.inputs.items()}
        self._fit(train, validation)
        return self

    def learn_again(self, train: Data, validation: Data) -> None:
        """Learn from other checked data, with what was chosen within the items that the head was fitted on."""
        self._fit(train, validation)

    def log_proba(self, data: Data) -> Float:
        """Log-probabilities (n, c) of checked data."""
        return log_softmax(self.calibration_ * self._logits(data))

    def left_out(self, data: Data) -> Float | None:
        """Log-probabilities (n, c) of the items just fitted on, each by a head that did not see it; None if not known."""
        return None

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of `outputs` of one item."""
        return (len(self.classes_),)

    def outputs(self, X: Inputs, *, present: Mapping[str, Mask] | None = None) -> Float:
        """What the head says of items, as floats (n, …): log-probabilities (n, c); numbers (n,), of a regressor."""
        return self.predict_log_proba(X, present=present)

    def predict_log_proba(self, X: Inputs, *, present: Mapping[str, Mask] | None = None) -> Float:
        """Log-probabilities (n, c), in the order of `classes_`."""
        if not hasattr(self, "dims_"):
            raise HeadError(f"This {type(self).__name__} is not fitted yet; call fit first.")
        inputs, masks = self._accept(X, present)
        check_inputs(inputs, masks, self.dims_)
        n = len(next(iter(inputs.values())))
        if n == 0:
            return np.empty((0, len(self.classes_)))
        return self.log_proba(Data({k: inputs[k] for k in self.dims_}, masks, np.full(n, -1, np.int64)))

    def predict_proba(self, X: Inputs, *, present: Mapping[str, Mask] | None = None) -> Float:
        """Probabilities (n, c), in the order of `classes_`."""
        return np.exp(self.predict_log_proba(X, present=present))

    def predict(self, X: Inputs, *, present: Mapping[str, Mask] | None = None) -> Array:
        """Labels (n,)."""
        return np.asarray(self.classes_[self.predict_log_proba(X, present=present).argmax(axis=1)])

    def score(self, X: Inputs, y: Array, *, present: Mapping[str, Mask] | None = None) -> float:
        """Accuracy."""
        return float((self.predict(X, present=present) == as_labels(y)).mean())

    def state(self) -> HeadState:
        """The fitted head, to be saved."""
        own = self._state()
        classes = self.classes_.tolist()
        calibration = {} if self.calibration_ == 1 else {"calibration": self.calibration_}
        return HeadState({**own.config, "classes": classes, "dims": self.dims_, **calibration}, own.tensors, own.files)

    @classmethod
    def from_state(cls, params: Mapping[str, Any], state: HeadState) -> Self:
        """A fitted head from its constructor's `params` and its `state`."""
        head = cls(**params)
        classes = state.config["classes"]
        head.classes_ = as_labels(classes)
        head.dims_ = dict(state.config["dims"])
        head.calibration_ = float(state.config.get("calibration", 1.0))
        if not 0 < head.calibration_ < np.inf:
            raise ValueError(f"its calibration is {head.calibration_}, no number above 0")
        head._restore(state)
        return head

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(),
        )

    def check_specs(self, fingerprints: Mapping[str, str]) -> None:
        """Raise `ValueError` where a saved head is not for its inputs: name → fingerprint of the encoder of their vectors."""

    def _accept(self, X: Inputs, present: Mapping[str, Mask] | None) -> tuple[dict[str, Array], dict[str, Mask]]:
        inputs, masks = as_inputs(X, present)
        return (inputs, masks) if self.takes_sequences else pooled(inputs, masks)

    def _fit(self, train: Data, validation: Data) -> None:
        """Learn from checked data."""
        raise NotImplementedError

    def _logits(self, data: Data) -> Array:
        """Unnormalised log-probabilities (n, c) of checked data."""
        raise NotImplementedError

    def _state(self) -> HeadState:
        raise NotImplementedError

    def _restore(self, state: HeadState) -> None:
        raise NotImplementedError


def as_labels(y: Any) -> Array:
    """Labels as an array that sorts: text as object, else as it is."""
    array = np.asarray(y)
    return array.astype(object) if array.dtype.kind in "US" else array


def checked_labels(y: Any, n: int) -> Array:
    """Labels (n,), or a `HeadError`."""
    labels = as_labels(y)
    if labels.shape != (n,):
        got = len(labels) if labels.ndim == 1 else f"shape {labels.shape}"
        raise HeadError(f"y should have {n} labels, one an item. Got {got} instead.")
    if labels.dtype == object and any(label is None for label in labels):
        raise HeadError(f"y has no label for item {[label is None for label in labels].index(True)}.")
    return labels


def as_inputs(X: Mapping[str, Array] | Array, present: Mapping[str, Mask] | None) -> tuple[dict[str, Array], dict[str, Mask]]:
    """Arrays by input name and their masks; one array (n, d) is the input ``"x"``; without masks all are present."""
    given = X if isinstance(X, Mapping) else {"x": X}
    if not given:
        raise HeadError("X holds no input; it should map at least one name to an array (n, d).")
    inputs = {name: _as_numbers(x, name) for name, x in given.items()}
    for name, vectors in inputs.items():
        if vectors.ndim not in (2, 3):
            raise HeadError(f"Input {name!r} should have shape (n, d) or (n, f, d). Got {vectors.shape} instead.")
    masks = {name: np.ones(vectors.shape[:-1], bool) for name, vectors in inputs.items()}
    for name, given_mask in (present or {}).items():
        if name not in masks:
            raise HeadError(f"present names {name!r}, which is not an input. Inputs: {', '.join(masks)}.")
        mask: Mask = np.asarray(given_mask, dtype=bool)
        wider = inputs[name].ndim == 3 and mask.ndim == 1
        masks[name] = mask[:, None] & inputs[name].any(axis=2) if wider else mask
    return inputs, masks


def _as_numbers(x: Array, name: str) -> npt.NDArray[np.float32]:
    """An input as float32, of any shape."""
    try:
        return np.asarray(x, np.float32)
    except (TypeError, ValueError) as error:
        raise HeadError(f"Input {name!r} should be numbers of shape (n, d): {one_line(error, 120)}") from error


def pooled(inputs: Mapping[str, Array], masks: Mapping[str, Mask]) -> tuple[dict[str, Array], dict[str, Mask]]:
    """Inputs with several vectors an item (n, f, d) as the mean (n, d) of those that are there."""
    means, present = dict(inputs), dict(masks)
    for name, x in inputs.items():
        mask = masks[name]
        if x.ndim == 3 and mask.shape == x.shape[:2]:
            total = np.where(mask[:, :, None], x, 0).sum(axis=1)
            means[name] = (total / np.maximum(mask.sum(axis=1), 1)[:, None]).astype(np.float32)
            present[name] = np.asarray(mask.any(axis=1), dtype=bool)
    return means, present


def check_inputs(inputs: Mapping[str, Array], present: Mapping[str, Mask], dims: Mapping[str, int]) -> None:
    """Raise `HeadError` unless names and widths are those of `dims`, lengths agree, and present values are finite."""
    if set(inputs) != set(dims):
        raise HeadError(f"The head takes inputs {sorted(dims)}. Got {sorted(inputs)} instead.")
    lengths = {len(vectors) for vectors in inputs.values()} | {len(mask) for mask in present.values()}
    if len(lengths) > 1:
        raise HeadError(f"Inputs and masks have different numbers of items: {sorted(lengths)}.")
    for name, vectors in inputs.items():
        if vectors.shape[-1] != dims[name]:
            raise HeadError(f"Input {name!r} should have shape (n, {dims[name]}). Got {vectors.shape} instead.")
        if present[name].shape != vectors.shape[:-1]:
            raise HeadError(
                f"The mask of input {name!r} should have shape {vectors.shape[:-1]}. Got {present[name].shape} instead."
            )
        wrong = ~np.isfinite(vectors).all(axis=-1) & present[name]
        bad = np.flatnonzero(wrong if wrong.ndim == 1 else wrong.any(axis=1))
        if len(bad):
            raise HeadError(f"Input {name!r} holds NaN or infinity in item {bad[0]}.")


def set_aside(data: Data, *, share: float = VALIDATION_SHARE, seed: int = 0) -> tuple[Data, Data]:
    """`data` in two, the second with about `share` of every class; both are whole where it has too few items.

    Where classes are too small for a share of each, items of any class of two or more are taken at random.
    """
    aside = class_folds(data.codes, max(2, round(1 / share)), seed=seed) == 0
    if len(data) < 2 * len(distinct(data.codes)):
        return data, data
    if aside.sum() < share * len(data) / 2:
        spare = np.flatnonzero(class_folds(data.codes, len(data), seed=seed) != len(data) - 1)  # all but one of every class
        aside = np.zeros(len(data), bool)
        aside[np.random.default_rng(seed).permutation(spare)[: max(1, round(share * len(data)))]] = True
    return (data.take(~aside), data.take(aside)) if aside.any() and not aside.all() else (data, data)


def class_folds(codes: Codes, k: int, *, seed: int = 0) -> Codes:
    """Fold (n,) in 0…k-1 of each item, every class spread evenly and at random; rare classes stay out of fold 0."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]
    sorted_codes = codes[order]
    first = np.searchsorted(sorted_codes, sorted_codes)
    within = np.arange(len(codes)) - first
    folds = np.empty(len(codes), np.int64)
    folds[order] = (k - 1 - within) % k
    return folds


def log_softmax(logits: Array) -> Float:
    """Row-wise log-softmax (n, c) in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def nll(log_p: Float, codes: Codes, weights: Float | None = None) -> float:
    """Mean negative log-likelihood of `codes` (n,) under log-probabilities (n, c), items weighted."""
    return float(-np.average(log_p[np.arange(len(codes)), codes], weights=weights))

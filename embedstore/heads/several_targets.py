"""What every head for several targets is: each of them is a class, or a number, and an item may lack any of them.

Targets are a structured array (n,) with a field for each: object for classes, None where an item lacks one; float64 for
numbers, NaN where it does. Outputs are (n, t, w): log-probabilities of a target's classes, or its number, then NaN up to the
widest one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from embedstore._core.threads import bounded
from embedstore.errors import HeadError
from embedstore.heads.base import (
    VALIDATION_SHARE,
    Array,
    Codes,
    Data,
    Float,
    Head,
    HeadState,
    Inputs,
    Mask,
    as_labels,
    check_inputs,
    class_folds,
)
from embedstore.heads.label_sets import LEAST_FOLDED, rarest

CLASSES, NUMBERS = "classification", "regression"
"""What a target is."""


class TargetsHead(Head):
    """Base class of heads that predict several targets at once; subclasses say how in `_fit` and `values`.

    `Data.codes` holds class codes and numbers (n, t) float64, NaN where an item lacks the target.

    Attributes
    ----------
    targets_ : dict of target to ``"classification"`` or ``"regression"``
    classes_ : (t,) object
        The classes (c,) of each target; none of a target of numbers.
    """

    task = "several"

    targets_: dict[str, str]

    @bounded()
    def fit(
        self,
        X: Inputs,
        y: Array | Mapping[str, Any],
        *,
        present: Mapping[str, Mask] | None = None,
        validation: tuple[Inputs, Array | Mapping[str, Any], Mapping[str, Mask] | None] | None = None,
    ) -> Self:
        """Fit to inputs and targets.

        Parameters
        ----------
        y : mapping of target to (n,) values, or a structured array (n,)
            Floats are numbers, all else is classes. None, or NaN, is a target that an item lacks.

        Raises
        ------
        HeadError
            A target that nothing can be learned of, shapes that do not fit, or values that are not finite.

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> x = rng.standard_normal((60, 4))
        >>> from embedstore.heads import LinearTargets
        >>> head = LinearTargets().fit(x, {"sign": np.where(x[:, 0] > 0, "+", "-"), "sum": x.sum(axis=1)})
        >>> head.predict(x)["sign"].shape, head.targets_
        ((60,), {'sign': 'classification', 'sum': 'regression'})
        """
        inputs, masks = self._accept(X, present)
        n = len(next(iter(inputs.values())))
        given = as_targets(y, n)
        self.dims_ = {name: vectors.shape[-1] for name, vectors in inputs.items()}
        check_inputs(inputs, masks, self.dims_)
        every = given
        if validation is not None:
            v_inputs, v_masks = self._accept(validation[0], validation[2])
            check_inputs(v_inputs, v_masks, self.dims_)
            held = as_targets(validation[1], len(next(iter(v_inputs.values()))))
            if held.dtype != given.dtype:
                raise HeadError(f"The validation items have targets {_described(held)}, the others {_described(given)}.")
            every = np.concatenate([given, held])
        self.targets_ = kinds_of(given)
        classes = classes_of(every)
        for name, known in zip(self.targets_, classes, strict=True):
            _check_learnable(name, given[name], known)
        codes = coded(every, classes)
        train = Data(inputs, masks, codes[:n])
        if validation is not None:
            held_out = Data(v_inputs, v_masks, codes[n:])
        else:
            train, held_out = apart(train, strata_of(codes, classes))
        return self.fit_data(train, held_out, classes)

    def values(self, data: Data) -> list[Float]:
        """Of checked data, for each target, log-probabilities (n, c) or numbers (n,)."""
        raise NotImplementedError

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (len(self.classes_), max(1, *(len(known) for known in self.classes_)))

    def outputs(self, X: Inputs, *, present: Mapping[str, Mask] | None = None) -> Float:
        """Log-probabilities and numbers (n, t, w), NaN beyond those of a target."""
        if not hasattr(self, "dims_"):
            raise HeadError(f"This {type(self).__name__} is not fitted yet; call fit first.")
        inputs, masks = self._accept(X, present)
        check_inputs(inputs, masks, self.dims_)
        n = len(next(iter(inputs.values())))
        out = np.full((n, *self.output_shape), np.nan)
        if n:
            empty = np.full((n, len(self.classes_)), np.nan)
            for k, found in enumerate(self.values(Data({name: inputs[name] for name in self.dims_}, masks, empty))):
                out[:, k, : found.shape[1] if found.ndim == 2 else 1] = found if found.ndim == 2 else found[:, None]
        return out

    def predict(self, X: Inputs, *, present: Mapping[str, Mask] | None = None) -> Array:
        """A structured array (n,) with a field for each target."""
        return self.decided(self.outputs(X, present=present))

    def decided(self, outputs: Float) -> Array:
        """The class or number of each target in outputs (n, t, w), as a structured array (n,)."""
        kinds = [(name, object if kind == CLASSES else np.float64) for name, kind in self.targets_.items()]
        out = np.empty(len(outputs), np.dtype(kinds))
        for k, (name, known) in enumerate(zip(self.targets_, self.classes_, strict=True)):
            out[name] = known[outputs[:, k, : len(known)].argmax(axis=1)] if len(known) else outputs[:, k, 0]
        return out

    def predict_log_proba(self, X: Inputs, *, present: Mapping[str, Mask] | None = None) -> Float:
        """Several targets have no one table of probabilities: `HeadError`."""
        raise HeadError(f"{type(self).__name__} predicts several targets; use outputs, or predict.")

    def score(self, X: Inputs, y: Array | Mapping[str, Any], *, present: Mapping[str, Mask] | None = None) -> float:
        """The mean over targets of accuracy, or R², each over the items that have the target."""
        found = self.predict(X, present=present)
        truth = as_targets(y, len(found))
        scores = []
        for name, kind in self.targets_.items():
            there = ~_lacking(truth[name])
            said, real = found[name][there], truth[name][there]
            spread = 1.0 if kind == CLASSES else float(np.square(real - real.mean()).sum())
            scores.append(float((said == real).mean()) if kind == CLASSES else 1 - float(np.square(real - said).sum()) / spread)
        return float(np.mean(scores))

    def state(self) -> HeadState:
        own = self._state()
        classes = [known.tolist() for known in self.classes_]
        described = {"targets": self.targets_, "classes": classes, "dims": self.dims_}
        return HeadState({**own.config, **described}, own.tensors, own.files)

    @classmethod
    def from_state(cls, params: Mapping[str, Any], state: HeadState) -> Self:
        head = cls(**params)
        head._restore_targets(state.config["targets"], state.config["classes"])
        head.dims_ = dict(state.config["dims"])
        head._restore(state)
        return head

    def _restore_targets(self, targets: Mapping[str, Any], classes: Sequence[Any]) -> None:
        """Take what a saved head says of its targets; `ValueError` where it contradicts itself."""
        self.targets_ = {str(name): str(kind) for name, kind in targets.items()}
        self.classes_ = _objects([as_labels(known) for known in classes])
        if [CLASSES if len(known) else NUMBERS for known in self.classes_] != [*self.targets_.values()] or not self.targets_:
            raise ValueError(f"its targets are {self.targets_}, and have {[len(known) for known in self.classes_]} classes")


def as_targets(y: Array | Mapping[str, Any], n: int) -> Array:
    """Targets of `n` items as a structured array (n,), or a `HeadError`."""
    names = list(y) if isinstance(y, Mapping) else list(getattr(getattr(y, "dtype", None), "names", None) or ())
    if not names:
        raise HeadError(f"y should map each target to {n} values. Got {type(y).__name__} instead.")
    columns = {name: np.asarray(y[name]) for name in names}
    for name, values in columns.items():
        if values.shape != (n,):
            raise HeadError(f"Target {name!r} should have {n} values, one an item. Got shape {values.shape} instead.")
    kinds = [(name, np.float64 if values.dtype.kind == "f" else object) for name, values in columns.items()]
    out = np.empty(n, np.dtype(kinds))
    for name, values in columns.items():
        out[name] = values if values.dtype.kind == "f" else as_labels(values).astype(object)
        if values.dtype.kind == "f" and len(bad := np.flatnonzero(np.isinf(values))):
            raise HeadError(f"Target {name!r} is infinite in item {bad[0]}.")
    return out


def names_of(targets: Array) -> list[str]:
    """The names of the targets, the fields of a structured array (n,)."""
    return [*(targets.dtype.names or ())]


def kinds_of(targets: Array) -> dict[str, str]:
    """What each field of targets (n,) is."""
    return {name: NUMBERS if targets.dtype[name].kind == "f" else CLASSES for name in names_of(targets)}


def classes_of(targets: Array) -> Array:
    """The classes of each target that occur (t,) object; none of numbers."""
    found = []
    for name, kind in kinds_of(targets).items():
        values = {value for value in targets[name].tolist() if value is not None} if kind == CLASSES else set()
        try:
            found.append(as_labels(sorted(values)))
        except TypeError as error:
            raise HeadError(
                f"Target {name!r} holds labels of kinds that have no order among them, such as text and numbers."
            ) from error
    return _objects(found)


def coded(targets: Array, classes: Array) -> Float:
    """Class codes and numbers (n, t) of targets (n,); NaN where an item lacks one, or has none of `classes`."""
    out = np.full((len(targets), len(classes)), np.nan)
    for k, (name, kind) in enumerate(kinds_of(targets).items()):
        code = {label: float(i) for i, label in enumerate(classes[k].tolist())}
        values = targets[name]
        out[:, k] = [code.get(value, np.nan) for value in values.tolist()] if kind == CLASSES else values
    return out


def strata_of(codes: Float, classes: Array) -> Codes:
    """What folds are balanced by (n,): the rarest class of an item in any target (n, t)."""
    blocks = [codes[:, [k]] == np.arange(len(known)) for k, known in enumerate(classes) if len(known)]
    return rarest(np.concatenate([*blocks, np.zeros((len(codes), 1), bool)], axis=1))


def apart(data: Data, strata: Codes) -> tuple[Data, Data]:
    """`data` in two, balanced by `strata` (n,), the second with a seventh of them; both are whole where there are few."""
    if len(data) < LEAST_FOLDED:
        return data, data
    aside = class_folds(strata, round(1 / VALIDATION_SHARE)) == 0
    return (data.take(~aside), data.take(aside)) if aside.any() else (data, data)


def _check_learnable(name: str, values: Array, classes: Array) -> None:
    there = values[~_lacking(values)]
    if values.dtype.kind == "f":
        if len(there) < 2:
            raise HeadError(f"Target {name!r} needs items with two numbers to learn from. Got {len(there)}.")
    elif not len(there) or len(classes) < 2:
        raise HeadError(f"Target {name!r} needs items of two classes to learn from. Got {classes.tolist() or 'none'}.")


def _lacking(values: Array) -> npt.NDArray[np.bool_]:
    """Which items lack a target (n,)."""
    return np.isnan(values) if values.dtype.kind == "f" else np.asarray([value is None for value in values.tolist()], bool)


def _described(targets: Array) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in kinds_of(targets).items())


def _objects(values: Sequence[Any]) -> npt.NDArray[Any]:
    """Values as (t,) object, whatever they are."""
    return np.fromiter(values, object, len(values))  # arrays of one length would become more than one dimension

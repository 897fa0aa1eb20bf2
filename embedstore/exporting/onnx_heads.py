"""What each kind of head computes, as operators of ONNX.

`scores` is the table: a function for a class of heads, which its subclasses share, so that a head for several labels is
converted as the classifier that it is made of. A new head needs one function::

    @scores.register
    def _(head: MyHead, graph: Graph, items: Items) -> str: ...
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch

import numpy as np

from embedstore.errors import HeadError
from embedstore.exporting.onnx_graph import Array, Graph, Items
from embedstore.heads import (
    AutoHead,
    AutoLabeller,
    BalancedHead,
    EnsembleHead,
    Head,
    KernelHead,
    KnnHead,
    KnnLabeller,
    KnnRegressor,
    Labeller,
    LateHead,
    LinearHead,
    Regressor,
    RidgeHead,
    RidgeRegressor,
)
from embedstore.heads.solvers.design_matrix import Standardizer

__all__ = ["blocks", "log_proba", "masks", "mixed", "outputs", "scores", "unit"]

LEAST_SQUARE = 1e-30
"""Of the length of a vector: one of zeros stays what it is."""


@singledispatch
def scores(head: Head, graph: Graph, items: Items) -> str:
    """What `Head._logits` (of a regressor, `values`) says of the items, as a value of `graph`: (n, c), or (n,).

    Raises
    ------
    HeadError
        Nobody has said how such a head is converted.
    """
    raise HeadError(f"Heads of kind {head.kind!r} have no ONNX form yet; export one of another kind.")


@singledispatch
def outputs(head: Head, graph: Graph, items: Items) -> dict[str, str]:
    """What the model gives out, by name: ``probabilities`` (n, c), or ``numbers`` (n,).

    Of several targets each has one of its own, in their order: ``probabilities:TARGET``, ``numbers:TARGET``.
    """
    return {"probabilities": graph.op("Exp", log_proba(head, graph, items))}


@outputs.register
def _(head: Labeller, graph: Graph, items: Items) -> dict[str, str]:
    return {"probabilities": graph.op("Sigmoid", scores(head, graph, items))}


@outputs.register
def _(head: Regressor, graph: Graph, items: Items) -> dict[str, str]:
    return {"numbers": scores(head, graph, items)}


def log_proba(head: Head, graph: Graph, items: Items) -> str:
    """Log-probabilities (n, c), as `Head.log_proba` says them."""
    found = scores(head, graph, items)
    if head.calibration_ != 1:
        found = graph.op("Mul", found, head.calibration_)
    return str(graph.op("LogSoftmax", found, axis=1))


@scores.register(LinearHead)
@scores.register(RidgeHead)
@scores.register(RidgeRegressor)
def _linear(head: LinearHead | RidgeHead | RidgeRegressor, graph: Graph, items: Items) -> str:
    parts = [*blocks(head.standardizer_, graph, items).values(), _absent(graph, items, head.standardizer_.inputs_)]
    scale = np.float32(getattr(head, "scale_", 1))
    x = graph.op("Concat", *parts, axis=1)
    if head.weight_.ndim == 1:
        x = graph.op("Squeeze", graph.product(x, head.weight_[:, None]), np.array([1]))
    else:
        x = graph.product(x, scale * head.weight_)
    return str(graph.op("Add", x, np.asarray(scale * head.bias_, np.float32)))


@scores.register
def _kernel(head: KernelHead, graph: Graph, items: Items) -> str:
    unit = _unit(head.standardizer_, graph, items)
    shares = {name: float(np.float32(head.weights_[name] ** 0.5)) for name in unit}
    x = graph.op("Concat", *(graph.op("Mul", value, shares[name]) for name, value in unit.items()), axis=1)
    landmarks = head.landmarks_.astype(np.float32)
    product = graph.product(x, head.landmarks_.T)
    squares = graph.op("Add", graph.op("ReduceSumSquare", x, np.array([1])), (landmarks * landmarks).sum(axis=1))
    distance = graph.op("Max", graph.op("Sub", squares, graph.op("Mul", product, 2.0)), 0.0)
    kernel = graph.op("Exp", graph.op("Mul", distance, -head.gamma_))
    weight, bias = np.float32(head.scale_) * head.coefficients_, np.float32(head.scale_) * head.bias_
    return str(graph.op("Add", graph.op("MatMul", kernel, weight), bias))


@scores.register
def _knn(head: KnnHead, graph: Graph, items: Items) -> str:
    near, weight, known = _neighbours(head, graph, items)
    n, c = graph.op("Shape", near, start=0, end=1), len(head.classes_)
    counts = np.bincount(head.codes_, minlength=c)
    prior = counts / len(head.codes_)
    empty = graph.op("ConstantOfShape", graph.op("Concat", n, np.array([c]), axis=0), value=graph.tensor(np.zeros(1)))
    codes = graph.op("Gather", head.codes_, near)
    votes = graph.op("ScatterElements", empty, codes, weight, axis=1, reduction="add")
    return graph.cast(graph.op("Log", _smoothed(graph, votes, weight, prior, known)), np.float32)


@scores.register
def _knn_labels(head: KnnLabeller, graph: Graph, items: Items) -> str:
    near, weight, known = _neighbours(head, graph, items)
    labels = graph.cast(graph.op("Gather", head.codes_.astype(np.uint8), near), np.float64)
    votes = graph.op("Squeeze", graph.op("MatMul", graph.op("Unsqueeze", weight, np.array([1])), labels), np.array([1]))
    share = _smoothed(graph, votes, weight, head.codes_.mean(axis=0), known)
    share = graph.op("Clip", share, np.array(1e-12), np.array(1 - 1e-12))
    odds = graph.op("Sub", graph.op("Log", share), graph.op("Log", graph.op("Sub", np.array(1.0), share)))
    return graph.cast(odds, np.float32)


@scores.register
def _knn_numbers(head: KnnRegressor, graph: Graph, items: Items) -> str:
    unit = _unit(head.standardizer_, graph, items)
    x = graph.op("Concat", *unit.values(), axis=1)
    products = graph.product(x, head.vectors_.T, exact=True)  # as int8 the mean of a few others is another number
    k = min(head.k, len(head.targets_))
    _, near = graph.op("TopK", products, np.array([k]), outputs=2, axis=1)
    mean = graph.op("ReduceMean", graph.op("Gather", head.targets_, near), np.array([1]), keepdims=0)
    return graph.cast(graph.op("Where", _any(graph, items), mean, np.array(head.targets_.mean())), np.float32)


@scores.register
def _late(head: LateHead, graph: Graph, items: Items) -> str:
    names = list(head.members_)
    parts = [log_proba(head.members_[name], graph, items.only([name])) for name in names]
    weights = np.array([head.weights_[name] for name in names], np.float32)
    share = graph.op("Mul", graph.cast(masks(graph, items, names), np.float32), weights)
    total = graph.op("ReduceSum", share, np.array([1]))
    even = np.full(len(names), 1 / len(names), np.float32)
    share = graph.op("Where", graph.op("Greater", total, 0.0), graph.op("Div", share, graph.op("Max", total, 1e-12)), even)
    return str(graph.op("Mul", mixed(graph, share, parts), head.scale_ * len(names)))


@scores.register
def _ensemble(head: EnsembleHead, graph: Graph, items: Items) -> str:
    log_p = {kind: log_proba(member, graph, items) for kind, member in head.members_.items()}
    if head.stack_ is None:
        return _vote(graph, log_p, head.votes_)
    weight, bias = head.stack_
    beside = graph.op("Concat", *(graph.op("Max", value, -12.0) for value in log_p.values()), axis=1)
    return str(graph.op("Add", graph.op("MatMul", beside, weight), bias))


@scores.register
def _auto(head: AutoHead, graph: Graph, items: Items) -> str:
    log_p = {name: log_proba(member, graph, items.only(list(member.dims_))) for name, member in head.members_.items()}
    return next(iter(log_p.values())) if len(log_p) == 1 else _vote(graph, log_p, head.votes_)


@scores.register
def _auto_labels(head: AutoLabeller, graph: Graph, items: Items) -> str:
    (member,) = head.members_.values()
    return scores(member, graph, items.only(list(member.dims_)))


@scores.register
def _balanced(head: BalancedHead, graph: Graph, items: Items) -> str:
    return str(graph.op("Add", log_proba(head.member_, graph, items), head.offset_.astype(np.float32)))


def blocks(standardizer: Standardizer, graph: Graph, items: Items) -> dict[str, str]:
    """What `Standardizer.blocks` says: input → (n, d), zeros where absent."""
    out = {}
    for name in standardizer.inputs_:
        centred = graph.op("Sub", items.vectors[name], standardizer.mean_[name])
        block = graph.op("Div", centred, standardizer.scale_[name])
        out[name] = graph.op("Where", graph.rows(items.present[name]), block, 0.0)
    return out


def mixed(graph: Graph, shares: str, parts: list[str]) -> str:
    """Σ share · part (n, c), of shares (n, m) and m parts (n, c)."""
    stacked = graph.op("Concat", *(graph.op("Unsqueeze", part, np.array([1])) for part in parts), axis=1)
    return str(graph.op("Squeeze", graph.op("MatMul", graph.op("Unsqueeze", shares, np.array([1])), stacked), np.array([1])))


def unit(graph: Graph, x: str) -> str:
    """Rows of x (n, d) with unit length; those of zeros stay zeros."""
    square = graph.op("ReduceSumSquare", x, np.array([1]))
    return str(graph.op("Div", x, graph.op("Sqrt", graph.op("Max", square, LEAST_SQUARE))))


def masks(graph: Graph, items: Items, names: list[str]) -> str:
    """The masks side by side (n, m) bool."""
    return str(graph.op("Concat", *(graph.rows(items.present[name]) for name in names), axis=1))


def _absent(graph: Graph, items: Items, names: list[str]) -> str:
    return graph.cast(graph.op("Not", masks(graph, items, names)), np.float32)


def _any(graph: Graph, items: Items) -> str:
    """Which items (n,) have any of the inputs."""
    there = graph.cast(masks(graph, items, list(items.present)), np.float32)
    return str(graph.op("Greater", graph.op("ReduceMax", there, np.array([1]), keepdims=0), 0.0))


def _unit(standardizer: Standardizer, graph: Graph, items: Items) -> dict[str, str]:
    """Standardised inputs (n, d) of unit length; zeros stay zeros."""
    return {name: unit(graph, block) for name, block in blocks(standardizer, graph, items).items()}


def _neighbours(head: KnnHead, graph: Graph, items: Items) -> tuple[str, str, str]:
    """The nearest training items (n, k) int64, what they weigh (n, k) float64, and whether anything is known (n, 1)."""
    unit = _unit(head.standardizer_, graph, items)
    names = list(unit)
    asked = graph.op("Concat", *(graph.op("Mul", unit[name], head.weights_[name]) for name in names), axis=1)
    known = np.concatenate([head.vectors_[name] for name in names], axis=1)
    k = min(head.k_, len(known))
    products, near = graph.op("TopK", graph.product(asked, known.T), np.array([k]), outputs=2, axis=1)
    weights = np.array([[head.weights_[name]] for name in names], np.float32)
    share = graph.op("MatMul", graph.cast(masks(graph, items, names), np.float32), weights)
    similarity = graph.op("Div", products, graph.op("Max", share, 1e-6))
    first = graph.op("Slice", similarity, np.array([0]), np.array([1]), np.array([1]))
    behind = graph.cast(graph.op("Sub", similarity, first), np.float64)
    weight = graph.op("Exp", graph.op("Div", behind, np.array(head.temperature_)))
    return near, weight, graph.op("Greater", share, 0.0)


def _smoothed(graph: Graph, votes: str, weight: str, prior: Array, known: str) -> str:
    """Votes (n, c) as shares with a little of every class; the prior where nothing is known."""
    shares = graph.op("Where", known, graph.op("Div", votes, graph.op("ReduceSum", weight, np.array([1]))), prior)
    return str(graph.op("Add", graph.op("Mul", shares, np.array(0.95)), 0.05 * (prior + 1e-4)))


def _vote(graph: Graph, log_p: Mapping[str, str], shares: Mapping[str, float]) -> str:
    """Logarithm of the weighted mean of the members' probabilities (n, c)."""
    wanted = [graph.op("Mul", graph.op("Exp", log_p[kind]), share) for kind, share in shares.items()]
    return str(graph.op("Log", graph.op("Max", graph.op("Sum", *wanted), 1e-12)))

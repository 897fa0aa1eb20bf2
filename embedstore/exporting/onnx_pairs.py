"""The head for pairs as operators of ONNX: the numbers of `PairFeatures`, and the head inside that weighs them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from embedstore.exporting.onnx_graph import Array, Graph, Items
from embedstore.exporting.onnx_heads import log_proba, masks, scores, unit
from embedstore.heads.matcher import AGREEMENT, Matcher
from embedstore.heads.pair_features import SHARPNESS, PairFeatures

__all__: list[str] = []


@scores.register
def _matcher(head: Matcher, graph: Graph, items: Items) -> str:
    there = graph.cast(masks(graph, items, list(head.dims_)), np.float32)
    whole = graph.op("Greater", graph.op("ReduceMin", there, np.array([1])), 0.0)
    sides = [unit(graph, graph.op("Where", whole, items.vectors[name], 0.0)) for name in head.dims_]
    numbers = graph.op("Concat", *(graph.rows(number) for number in _numbers(head.features_, graph, sides)), axis=1)
    pair = Items({AGREEMENT: numbers}, {AGREEMENT: graph.op("Squeeze", whole, np.array([1]))})
    odds = graph.op("Add", log_proba(head.member_, graph, pair), np.array([0, head.offset_], np.float32))
    return str(graph.op("Where", whole, odds, 0.0))


def _numbers(features: PairFeatures, graph: Graph, sides: list[str]) -> Iterator[str]:
    """What `PairFeatures.of` says of pairs of unit vectors (n, d1), (n, d2): its columns (n,)."""
    aligner = features.aligner_
    projected = [
        unit(graph, graph.product(graph.op("Sub", side, aligner.mean_[name]), aligner.weight_[name]))
        for name, side in zip(aligner.names_, sides, strict=True)
    ]
    yield _dot(graph, *projected)
    centred = [unit(graph, graph.op("Sub", side, mean)) for side, mean in zip(sides, features.mean_, strict=True)]
    known = [graph.cast(vectors, np.float32) for vectors in features.known_] if features.neighbours else []
    for side in range(len(known)):
        for expected in _expected(features, graph, sides[side], known, side):
            yield _dot(graph, expected, centred[1 - side])


def _expected(features: PairFeatures, graph: Graph, vectors: str, known: list[str], side: int) -> Iterator[str]:
    """By each number of neighbours, what the other side of `vectors` (n, d) should be like, of unit length.

    Both sides of the `known` pairs (m, d1), (m, d2) stay float16 in the file: as int8 others are the nearest.
    """
    cosine = graph.op("MatMul", vectors, graph.op("Transpose", known[side], perm=[1, 0]))
    most = min(max(features.neighbours), len(features.known_[side]))
    score, near = graph.op("TopK", cosine, np.array([most]), outputs=2, axis=1)
    first = _columns(graph, score, 1)
    weight = graph.op("Exp", graph.op("Mul", graph.op("Sub", score, first), SHARPNESS))
    found = graph.op("Gather", known[1 - side], near)  # (n, most, d)
    for k in features.neighbours:
        own, those = _columns(graph, weight, k), _columns(graph, found, k)
        total = graph.op("MatMul", graph.op("Unsqueeze", own, np.array([1])), those)
        mean = graph.op("Div", graph.op("Squeeze", total, np.array([1])), graph.op("ReduceSum", own, np.array([1])))
        yield unit(graph, graph.op("Sub", mean, features.mean_[1 - side]))


def _columns(graph: Graph, x: str, count: int) -> str:
    """The first along axis 1."""
    bounds: list[Array] = [np.array([value]) for value in (0, count, 1)]
    return str(graph.op("Slice", x, *bounds))


def _dot(graph: Graph, x: str, y: str) -> str:
    """Products (n,) of rows."""
    return str(graph.op("ReduceSum", graph.op("Mul", x, y), np.array([1]), keepdims=0))

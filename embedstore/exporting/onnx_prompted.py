"""Heads that begin with class names as operators of ONNX: the texts are constants, and so is the projection of an alignment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedstore.errors import HeadError
from embedstore.exporting.onnx_graph import Graph, Items
from embedstore.exporting.onnx_heads import masks, scores, unit
from embedstore.heads import ClassTexts, PromptedLinearHead, TipAdapterHead, ZeroShotHead
from embedstore.heads.prompted import PromptedHead

__all__: list[str] = []


@dataclass(frozen=True)
class _Compared:
    """What a head compares items with its texts by: `ClassTexts.features` (n, Σd), and logits (n, c) of its cosines."""

    features: str
    zero_shot: str


@scores.register
def _zero_shot(head: ZeroShotHead, graph: Graph, items: Items) -> str:
    return _compared(head, graph, items).zero_shot


@scores.register
def _tip_adapter(head: TipAdapterHead, graph: Graph, items: Items) -> str:
    """Similarities are added up over runs of keys of one class: as differences of their sums so far, which are float64.

    So classes with as many keys tie exactly for an item that has no input, as they do in the head.
    """
    compared = _compared(head, graph, items)
    order = np.argsort(head.values_, kind="stable")
    ends = np.cumsum([0, *np.bincount(head.values_, minlength=len(head.classes_))])
    cosine = graph.product(compared.features, head.keys_[order].T)
    near = graph.op("Exp", graph.op("Mul", graph.op("Sub", cosine, 1.0), head.sharpness_))
    before = graph.op("Pad", graph.cast(near, np.float64), np.array([0, 1, 0, 0]))
    so_far = graph.op("CumSum", before, np.array(1))
    of_class = graph.op("Sub", graph.op("Gather", so_far, ends[1:], axis=1), graph.op("Gather", so_far, ends[:-1], axis=1))
    cached = graph.op("Mul", of_class, np.array(head.residual_ratio_))
    return graph.cast(graph.op("Add", graph.cast(compared.zero_shot, np.float64), cached), np.float32)


@scores.register
def _prompted_linear(head: PromptedLinearHead, graph: Graph, items: Items) -> str:
    compared = _compared(head, graph, items)
    learned = graph.op("Add", graph.product(compared.features, head.weight_), head.bias_)
    return str(graph.op("Add", compared.zero_shot, learned))


def _compared(head: PromptedHead, graph: Graph, items: Items) -> _Compared:
    texts = head.texts
    if texts is None:
        raise HeadError(f"Head {head.kind!r} has no class texts, so it cannot be exported. Train it again.")
    there = graph.cast(masks(graph, items, list(texts.sides)), np.float32)
    count = graph.op("Max", graph.op("ReduceSum", there, np.array([1])), 1.0)
    root = graph.op("Sqrt", count)
    features = graph.op("Div", graph.op("Concat", *_projected(texts, graph, items), axis=1), root)
    cosines = graph.op("Div", graph.product(features, texts.classifier.T), root)
    return _Compared(features, graph.op("Mul", cosines, head.scale_))


def _projected(texts: ClassTexts, graph: Graph, items: Items) -> list[str]:
    """The items where the texts are (n, d), for each input; zeros where it is absent."""
    out = []
    for name, side in texts.sides.items():
        present = graph.rows(items.present[name])
        x = unit(graph, graph.op("Where", present, items.vectors[name], 0.0))
        if side.mean is not None and side.weight is not None:
            projected = unit(graph, graph.product(graph.op("Sub", x, side.mean), side.weight))
            x = graph.op("Where", present, projected, 0.0)
        out.append(x)
    return out

"""Heads for several targets as operators of ONNX: an output for each target, what a head for it alone would give out."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from embedstore.exporting.onnx_graph import Graph, Items
from embedstore.exporting.onnx_heads import outputs, scores
from embedstore.heads.base import log_softmax
from embedstore.heads.target_networks import TargetNetwork
from embedstore.heads.targets_apart import ApartTargets

__all__: list[str] = []


@outputs.register
def _apart(head: ApartTargets, graph: Graph, items: Items) -> dict[str, str]:
    found = {}
    for target, member in head.members_.items():
        ((name, value),) = outputs(member, graph, items).items()
        found[f"{name}:{target}"] = value
    return found


@outputs.register
def _network(head: TargetNetwork, graph: Graph, items: Items) -> dict[str, str]:
    """Logits of all targets side by side; a target of which nothing was learned is its constant."""
    found, logits = {}, scores(head, graph, items)
    ends = pairwise(np.cumsum([0, *map(len, head.constant_)]).tolist())
    for target, (lo, hi), constant, (mean, deviation) in zip(head.targets_, ends, head.constant_, head.units_, strict=True):
        said = graph.op("Slice", logits, np.array([lo]), np.array([hi]), np.array([1]))
        if target in head.unlearned_:
            known = log_softmax(constant[None]) if len(constant) > 1 else constant[None]
            said = graph.op("Expand", known.astype(np.float32), graph.op("Shape", said))
        if len(constant) > 1:
            found[f"probabilities:{target}"] = graph.op("Softmax", said, axis=1)
        else:
            number = graph.cast(graph.op("Squeeze", said, np.array([1])), np.float64)
            found[f"numbers:{target}"] = graph.op("Add", graph.op("Mul", number, np.array(deviation)), np.array(mean))
    return found

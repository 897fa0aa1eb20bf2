"""Boosted trees as ONNX's `TreeEnsemble`, straight from XGBoost's own JSON: thresholds and leaves are the same numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embedstore.exporting.onnx_graph import Array, Graph, Items
from embedstore.exporting.onnx_heads import blocks, scores
from embedstore.heads import GbdtRegressor
from embedstore.heads.boosted import Boosted
from embedstore.heads.trees import learner_of

__all__ = ["base_scores"]

LESS_THAN = 1
"""`BRANCH_LT` among the modes of `TreeEnsemble`."""
ROUNDING = 1.5e-6
"""How far below a split of a projected feature its value may lie: XGBoost splits at values of training items, whose projections
another library rounds differently. Without it seven predictions of a thousand were others on Open Clip Art,
and with 1e-6 two numbers of 11,214."""


@scores.register
def _boosted(head: Boosted, graph: Graph, items: Items) -> str:
    parts, slack = [], []
    for name, block in blocks(head.standardizer_, graph, items).items():
        x = graph.op("MatMul", block, head.components_[name]) if name in head.components_ else block
        parts.append(graph.op("Where", graph.rows(items.present[name]), x, np.nan))
        projected = name in head.components_
        slack.append(np.full(head.components_[name].shape[1] if projected else head.dims_[name], ROUNDING * projected))
    learner = learner_of(head.state().files["model.ubj"])
    base = base_scores(learner)
    trees = _attributes(graph, learner, len(base), np.concatenate(slack))
    summed = graph.op("TreeEnsemble", graph.op("Concat", *parts, axis=1), domain="ai.onnx.ml", **trees)
    margins = graph.op("Add", summed, base)
    return str(graph.op("Squeeze", margins, np.array([1])) if isinstance(head, GbdtRegressor) else margins)


def base_scores(learner: Mapping[str, Any]) -> Array:
    """What every item begins with (c,) float32, before a tree is asked.

    XGBoost 3 has one for each class, older ones the same for all. Those of ``binary:logistic`` are probabilities.
    """
    shape = learner["learner_model_param"]
    outputs = max(int(shape["num_class"]), int(shape.get("num_target", 1)), 1)
    given = json.loads(shape["base_score"])
    values = [float(value) for value in (given if isinstance(given, list) else [given])]
    if learner["objective"]["name"] == "binary:logistic":
        values = [math.log(p) - math.log1p(-p) for p in values]
    return np.resize(np.array(values, np.float32), outputs)


def _attributes(graph: Graph, learner: Mapping[str, Any], outputs: int, slack: Array) -> dict[str, Any]:
    """The trees one after another: inner nodes in one list, leaves in another; `slack` (features,) is taken off the splits."""
    model = learner["gradient_booster"]["model"]
    columns: dict[str, list[Array]] = {}
    roots, nodes, leaves = [], 0, 0
    for tree, group in zip(model["trees"], model["tree_info"], strict=True):
        found = _tree(tree, int(group), nodes, leaves)
        roots.append(nodes)
        nodes, leaves = nodes + len(found["featureids"]), leaves + len(found["weights"])
        for name, values in found.items():
            columns.setdefault(name, []).append(values)
    joined = {name: np.concatenate(values) for name, values in columns.items()}
    splits = joined["splits"] - slack[joined["featureids"]] * np.maximum(np.abs(joined["splits"]), 1)
    inner = ("featureids", "truenodeids", "falsenodeids", "trueleafs", "falseleafs", "missing_value_tracks_true")
    return {
        "n_targets": outputs,
        "aggregate_function": 1,
        "tree_roots": roots,
        "nodes_modes": graph.tensor(np.full(nodes, LESS_THAN, np.uint8)),
        "nodes_splits": graph.tensor(splits.astype(np.float32)),
        **{f"nodes_{name}": joined[name].tolist() for name in inner},
        "leaf_targetids": joined["targetids"].tolist(),
        "leaf_weights": graph.tensor(joined["weights"].astype(np.float32)),
    }


def _tree(tree: Mapping[str, Sequence[Any]], group: int, first_node: int, first_leaf: int) -> dict[str, Array]:
    """One tree, its nodes and leaves numbered from `first_node` and `first_leaf` on; XGBoost's `x < split` goes left."""
    left, right = (np.asarray(tree[name], np.int64) for name in ("left_children", "right_children"))
    values = np.asarray(tree["split_conditions"], np.float64)  # of a leaf: its weight
    inner = left != -1
    number = np.where(inner, first_node + np.cumsum(inner) - 1, first_leaf + np.cumsum(~inner) - 1)
    if not inner.any():  # one leaf: a node both of whose ways lead to it
        left, right, inner_at = np.zeros(1, np.int64), np.zeros(1, np.int64), np.ones(1, bool)
    else:
        inner_at = inner
    return {
        "featureids": np.asarray(tree["split_indices"], np.int64)[inner_at],
        "splits": values[inner_at],
        "truenodeids": number[left[inner_at]],
        "falsenodeids": number[right[inner_at]],
        "trueleafs": (~inner[left[inner_at]]).astype(np.int64),
        "falseleafs": (~inner[right[inner_at]]).astype(np.int64),
        "missing_value_tracks_true": np.asarray(tree["default_left"], np.int64)[inner_at],
        "targetids": np.full(int((~inner).sum()), group),
        "weights": values[~inner],
    }

"""The fusion networks as operators of ONNX, from the weights that are saved with a head: torch is not asked."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from embedstore.exporting.onnx_graph import Array, Graph, Items
from embedstore.exporting.onnx_heads import blocks, mixed, scores
from embedstore.heads import AttentionHead, BilinearHead, GatedHead, WeightedHead
from embedstore.heads.solvers.neural import NeuralHead
from embedstore.heads.target_networks import TargetNetwork

__all__: list[str] = []

HEADS, LAYERS = 4, 2  # of `heads.solvers.fusion_modules`, which imports torch
EPSILON = 1e-5
HIDDEN = -1e4
"""What stands in a softmax for what is absent."""


class _Network:
    """A head's weights, and the layers that several networks are made of."""

    def __init__(self, head: NeuralHead, graph: Graph, items: Items) -> None:
        prefix = "net."
        tensors = head.state().tensors
        self.weights: dict[str, Array] = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        self.graph = graph
        self.names = list(head.dims_)
        self.inputs = blocks(head.standardizer_, graph, items)
        self.present = {name: graph.rows(items.present[name]) for name in self.names}

    @property
    def masks(self) -> str:
        """(n, m) bool."""
        return str(self.graph.op("Concat", *self.present.values(), axis=1))

    def linear(self, x: str, name: str, *, exact: bool = False) -> str:
        """A layer of torch: x Wᵀ + b; `exact`, if it is never kept as int8."""
        return self.affine(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], exact=exact)

    def affine(self, x: str, weight: Array, bias: Array, *, exact: bool = False) -> str:
        return str(self.graph.op("Add", self.graph.product(x, weight.T, exact=exact), bias))

    def norm(self, x: str, name: str) -> str:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return str(self.graph.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=EPSILON))

    def gelu(self, x: str) -> str:
        return str(self.graph.op("Gelu", x))

    def projected(self) -> list[str]:
        """Each input in the width of the network (n, w); a learned vector where it is absent."""
        out = []
        for i, name in enumerate(self.names):
            layers = f"projections.{i}.layers"
            x = self.norm(self.linear(self.inputs[name], f"{layers}.1"), f"{layers}.2")
            out.append(self.graph.op("Where", self.present[name], x, self.weights[f"projections.{i}.absent"]))
        return out

    def stacked(self, parts: list[str]) -> str:
        """m values (n, w) as one (n, m, w)."""
        return str(self.graph.op("Concat", *(self.graph.op("Unsqueeze", part, np.array([1])) for part in parts), axis=1))


@scores.register
def _weighted(head: WeightedHead, graph: Graph, items: Items) -> str:
    net = _Network(head, graph, items)
    numbers = isinstance(head, TargetNetwork) and not all(map(len, head.classes_))  # as int8 a column of numbers loses most
    parts = [net.linear(net.inputs[name], f"layers.{i}", exact=numbers) for i, name in enumerate(net.names)]
    shares = graph.op("Where", net.masks, net.weights["weight_logits"], HIDDEN)
    return mixed(graph, graph.op("Softmax", shares, axis=1), parts)


@scores.register
def _gated(head: GatedHead, graph: Graph, items: Items) -> str:
    net = _Network(head, graph, items)
    hidden = [net.gelu(part) for part in net.projected()]
    stacked = net.stacked(hidden)
    gates = graph.op("Reshape", net.linear(graph.op("Concat", *hidden, axis=1), "gate"), graph.op("Shape", stacked))
    there = graph.op("Unsqueeze", net.masks, np.array([2]))
    gates = graph.op("Softmax", graph.op("Where", there, gates, HIDDEN), axis=1)
    return net.linear(graph.op("ReduceSum", graph.op("Mul", gates, stacked), np.array([1]), keepdims=0), "out.1")


@scores.register
def _bilinear(head: BilinearHead, graph: Graph, items: Items) -> str:
    net = _Network(head, graph, items)
    parts = net.projected()
    pairs = combinations(range(len(parts)), 2)
    products = [net.norm(graph.op("Mul", parts[a], parts[b]), f"norms.{i}") for i, (a, b) in enumerate(pairs)]
    return net.linear(graph.op("Concat", *parts, *products, axis=1), "out.1")


@scores.register
def _attention(head: AttentionHead, graph: Graph, items: Items) -> str:
    net = _Network(head, graph, items)
    tokens = []
    for i, name in enumerate(net.names):
        x = net.norm(net.linear(net.inputs[name], f"projections.{i}.1"), f"projections.{i}.2")
        tokens.append(graph.op("Add", x, net.weights["modality"][i]))
    cls = graph.op("Expand", net.weights["cls"][None], graph.op("Shape", tokens[0]))
    modalities = net.stacked(tokens)
    sequence = net.stacked([cls, *tokens])
    always = graph.op("Or", next(iter(net.present.values())), np.ones((1, 1), bool))
    visible = graph.op("Concat", always, *net.present.values(), axis=1)
    hidden_keys = graph.op("Where", visible, 0.0, -np.inf)
    bias = graph.op("Unsqueeze", hidden_keys, np.array([1, 2]))  # (n, 1, 1, 1 + m)
    for layer in range(LAYERS):
        sequence = _block(net, sequence, bias, f"encoder.layers.{layer}")
    there = graph.cast(graph.op("Unsqueeze", net.masks, np.array([2])), np.float32)
    count = graph.op("Max", graph.op("ReduceSum", there, np.array([1]), keepdims=0), 1.0)
    total = graph.op("ReduceSum", graph.op("Mul", net.gelu(modalities), there), np.array([1]), keepdims=0)
    first = graph.op("Gather", sequence, np.array(0), axis=1)
    return net.linear(net.norm(graph.op("Add", first, graph.op("Div", total, count)), "out.0"), "out.2")


def _block(net: _Network, sequence: str, bias: str, name: str) -> str:
    """A pre-norm transformer block over (n, t, w)."""
    graph, attention = net.graph, f"{name}.self_attn"
    x = net.norm(sequence, f"{name}.norm1")
    joined = net.affine(x, net.weights[f"{attention}.in_proj_weight"], net.weights[f"{attention}.in_proj_bias"])
    width = len(net.weights["cls"])
    query, key, value = (_split(graph, part, width) for part in graph.op("Split", joined, outputs=3, axis=-1, num_outputs=3))
    asked = graph.op("MatMul", query, graph.op("Transpose", key, perm=[0, 1, 3, 2]))
    weights = graph.op("Softmax", graph.op("Add", graph.op("Mul", asked, (width / HEADS) ** -0.5), bias), axis=-1)
    found = graph.op("Transpose", graph.op("MatMul", weights, value), perm=[0, 2, 1, 3])
    merged = graph.op("Reshape", found, np.array([0, 0, width]))
    sequence = graph.op("Add", sequence, net.linear(merged, f"{attention}.out_proj"))
    inner = net.gelu(net.linear(net.norm(sequence, f"{name}.norm2"), f"{name}.linear1"))
    return str(graph.op("Add", sequence, net.linear(inner, f"{name}.linear2")))


def _split(graph: Graph, x: str, width: int) -> str:
    """(n, t, w) as (n, heads, t, w / heads)."""
    several = graph.op("Reshape", x, np.array([0, 0, HEADS, width // HEADS]))
    return str(graph.op("Transpose", several, perm=[0, 2, 1, 3]))

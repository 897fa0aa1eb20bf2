"""`Graph`: nodes and weights of an ONNX model in the making. Knows no head.

Values are named by the strings that operators give back; arrays among their inputs become constants of the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import HeadError
from embedstore.registry import require

__all__ = ["EXTRA", "Graph", "Items"]

Array = npt.NDArray[Any]

EXTRA = "onnx"
OPSET, ML_OPSET, IR = 20, 5, 10
"""The oldest with `Gelu`, and with `TreeEnsemble`; what onnxruntime 1.20 and newer reads."""
LARGEST = (1 << 31) - (1 << 20)
"""Bytes of weights that a protobuf message holds."""
SMALL = 1 << 14
"""Bytes of a matrix that stays what it is: nothing is saved, and a single column of numbers loses most."""
TINY = 1e-30
"""The scale of a column of zeros."""


@dataclass(frozen=True)
class Items:
    """The values that a graph begins with.

    Parameters
    ----------
    vectors : mapping of input to a value (n, d) float32
    present : mapping of input to a value (n,) bool
    """

    vectors: Mapping[str, str]
    present: Mapping[str, str]

    def only(self, names: Sequence[str]) -> Items:
        """Those of some inputs."""
        return Items({name: self.vectors[name] for name in names}, {name: self.present[name] for name in names})


class Graph:
    """A graph under construction; n, the number of items, is free in it.

    Parameters
    ----------
    int8 : bool
        Whether matrices are kept as int8 with a scale for each column. Products are still of float32: quantised inputs too, as
        onnxruntime's dynamic quantisation has them, cost a kernel head 17 points of agreement, and save no time on one item.
    """

    def __init__(self, *, int8: bool = False) -> None:
        self._int8 = int8
        self._onnx: Any = require("onnx", extra=EXTRA)
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._bytes = 0
        self._count = 0

    def items(self, dims: Mapping[str, int]) -> Items:
        """Its inputs: ``NAME`` (n, d) float32, and where there are several ``NAME:present`` (n,) bool."""
        types = self._onnx.TensorProto
        vectors, present = {}, {}
        for name, dim in dims.items():
            vectors[name] = self._declare(self._inputs, name, types.FLOAT, ["n", dim])
            if len(dims) > 1:
                present[name] = self._declare(self._inputs, f"{name}:present", types.BOOL, ["n"])
            else:
                shape = self.op("Shape", name, start=0, end=1)
                present[name] = self.op("ConstantOfShape", shape, value=self._tensor("value", np.ones(1, bool)))
        return Items(vectors, present)

    def output(self, name: str, value: str, shape: Sequence[int]) -> None:
        """Give a value (n, *shape) out as ``name``, in float32."""
        found = self.op("Cast", value, to=self._onnx.TensorProto.FLOAT)
        self._nodes.append(self._onnx.helper.make_node("Identity", [found], [name]))
        self._declare(self._outputs, name, self._onnx.TensorProto.FLOAT, ["n", *shape])

    def op(self, kind: str, *inputs: str | float | Array, outputs: int = 0, domain: str = "", **attributes: Any) -> Any:
        """The value of an operator; a list of its `outputs`, if these are counted."""
        names = [self._fresh(kind) for _ in range(max(outputs, 1))]
        given = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        self._nodes.append(self._onnx.helper.make_node(kind, given, names, domain=domain, **attributes))
        return names if outputs else names[0]

    def constant(self, value: float | Array) -> str:
        """A constant of the model: as it is, but for Python's floats, which are float32.

        Raises
        ------
        HeadError
            The model would be larger than such a file can be.
        """
        array = np.asarray(value, None if isinstance(value, np.ndarray) else np.float32)
        self._bytes += array.nbytes
        if self._bytes > LARGEST:
            raise HeadError(
                f"The head has more than {LARGEST / 1e9:.1f} GB of weights, which an ONNX file cannot hold. "
                "Train a kind that does not keep its training items, such as linear."
            )
        name = self._fresh("constant")
        self._constants.append(self._tensor(name, array))
        return name

    def product(self, x: str, matrix: Array, *, exact: bool = False) -> str:
        """x @ `matrix` (d, m), which is kept as float16 if it is that, or as int8 if the graph is to be small and it is not.

        Parameters
        ----------
        exact : bool
            Whether it is never kept as int8.
        """
        if self._int8 and matrix.nbytes > SMALL and not exact:
            scale = np.maximum(np.abs(matrix).max(axis=0, initial=0).astype(np.float32), TINY) / 127
            kept = np.rint(matrix / scale).astype(np.int8)
            return str(self.op("Mul", self.op("MatMul", x, self.cast(kept, np.float32)), scale))
        same = matrix.dtype == np.float32
        return str(self.op("MatMul", x, matrix if same else self.cast(matrix, np.float32)))

    def cast(self, value: str | Array, dtype: type[np.generic]) -> str:
        """A value in another type."""
        given = value if isinstance(value, str) else np.ascontiguousarray(value)
        return str(self.op("Cast", given, to=self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))))

    def tensor(self, array: Array) -> Any:
        """An array as the value of an attribute."""
        return self._tensor("", array)

    def rows(self, value: str) -> str:
        """A value (n,) as (n, 1)."""
        return str(self.op("Unsqueeze", value, np.array([1])))

    def model(self, metadata: Mapping[str, str]) -> Any:
        """The finished `onnx.ModelProto`, which passes ONNX's own check."""
        helper = self._onnx.helper
        graph = helper.make_graph(self._nodes, "head", self._inputs, self._outputs, self._constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR, producer_name="embedstore")
        helper.set_model_props(model, dict(metadata))
        self._onnx.checker.check_model(model)
        return model

    def _declare(self, where: list[Any], name: str, kind: int, shape: Sequence[int | str]) -> str:
        where.append(self._onnx.helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def _tensor(self, name: str, array: Array) -> Any:
        return self._onnx.numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)

    def _fresh(self, kind: str) -> str:
        self._count += 1
        return f"{kind}:{self._count}"

"""Inputs of a head as one matrix: each standardised, side by side with equal total variance, absent ones marked.

A missing modality contributes zeros (its mean) and switches on an indicator column whose weights are learned: a learned vector
in the head's output space. So an item with any subset of its modalities can be scored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.heads.base import Data

Float32 = npt.NDArray[np.float32]

BLOCK = 4096


class Standardizer:
    """Learns the mean and standard deviation of every feature over the items that have it.

    With `balance`, an input of d features is then weighted by sqrt(mean d / d), so that a wide modality does not drown a
    narrow one: on Open Clip Art (1280-d images, 384-d texts) that lifts the linear head from .774 to .785.

    Attributes
    ----------
    inputs_ : list of str
        In the order of the columns.
    mean_, scale_ : dict of input to (d,) float32
        What a feature is divided by; those that do not vary become zeros.
    """

    inputs_: list[str]
    mean_: dict[str, Float32]
    scale_: dict[str, Float32]

    def __init__(self, *, balance: bool = True) -> None:
        self.balance = balance

    def fit(self, data: Data) -> Standardizer:
        self.inputs_ = list(data.inputs)
        self.mean_, self.scale_ = {}, {}
        mean_width = np.mean([vectors.shape[-1] for vectors in data.inputs.values()])
        for name, vectors in data.inputs.items():
            every = vectors.reshape(-1, vectors.shape[-1])
            present = data.present[name].reshape(-1)
            mean, deviation = _moments(every if present.all() else every[present])
            deviation[deviation < 1e-6 * np.maximum(np.abs(mean), 1e-30)] = 1.0
            weight = np.sqrt(vectors.shape[-1] / mean_width) if self.balance else 1.0
            self.mean_[name] = mean.astype(np.float32)
            self.scale_[name] = (deviation * weight).astype(np.float32)
        return self

    def blocks(self, data: Data) -> dict[str, Float32]:
        """Input name → standardised features (n, d) float32, zeros where absent."""
        out = {}
        for name in self.inputs_:
            block = (np.asarray(data.inputs[name], np.float32) - self.mean_[name]) / self.scale_[name]
            block[~data.present[name]] = 0
            out[name] = block
        return out

    def transform(self, data: Data) -> Float32:
        """Features (n, Σd + m) float32: m inputs standardised, then m indicators of absence."""
        absent = np.stack([~data.present[name] for name in self.inputs_], axis=1).astype(np.float32)
        return np.concatenate([*self.blocks(data).values(), absent], axis=1)

    def tensors(self) -> dict[str, Any]:
        """What `from_tensors` makes it from again."""
        mean = {f"mean.{name}": self.mean_[name] for name in self.inputs_}
        return {**mean, **{f"scale.{name}": self.scale_[name] for name in self.inputs_}}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Any], inputs: list[str]) -> Standardizer:
        made = cls()
        made.inputs_ = inputs
        made.mean_ = {name: tensors[f"mean.{name}"] for name in inputs}
        made.scale_ = {name: tensors[f"scale.{name}"] for name in inputs}
        return made


def _moments(x: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and standard deviation (d,) of x (n, d): float32 within blocks near their mean, float64 over blocks."""
    n, d = x.shape
    if n == 0:
        return np.zeros(d), np.zeros(d)
    shift = x[:BLOCK].mean(axis=0, dtype=np.float32)
    total, squares = np.zeros(d), np.zeros(d)
    for lo in range(0, n, BLOCK):
        block = x[lo : lo + BLOCK].astype(np.float32) - shift
        total += block.sum(axis=0)
        squares += np.einsum("ij,ij->j", block, block)
    return shift + total / n, np.sqrt(np.maximum(squares / n - (total / n) ** 2, 0))

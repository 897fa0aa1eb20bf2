"""What classes are called, as vectors: the text side of an aligned space, saved with the heads that begin there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.unit import unit_rows
from embedstore.errors import HeadError
from embedstore.heads.base import Array, Data, as_labels

__all__ = ["ClassTexts", "TextSide"]

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TextSide:
    """The texts of c classes as vectors that the vectors of one input can be compared with.

    Parameters
    ----------
    vectors : (c, d) float32
        Of unit length, one a class.
    templates : sequence of str
        What the texts were: ``{}`` stands for the class.
    encoder : str
        The fingerprint of the encoder of the texts.
    items : str
        The fingerprint of the encoder of the items; vectors of another one are not compared with these.
    alignment : str or None
        What the two have in common: an alignment's id, see `EncoderSpec`; None where they are one encoder.
    mean, weight : (w,), (w, d) float32, optional
        How the unit vectors of items (n, w) get where the texts are: ``(x - mean) @ weight``. As they are, if left out.
    """

    vectors: Float32
    templates: Sequence[str] = ("{}",)
    encoder: str = ""
    items: str = ""
    alignment: str | None = None
    mean: Float32 | None = None
    weight: Float32 | None = None

    @property
    def width(self) -> int:
        """Of the vectors of items."""
        return self.vectors.shape[1] if self.weight is None else len(self.weight)

    @property
    def trained_together(self) -> bool:
        """Whether one model makes comparable vectors of texts and of items, without an alignment learned here."""
        return self.alignment is not None and self.weight is None

    def project(self, vectors: Array) -> Float32:
        """Vectors (n, w) of items where the texts are: (n, d) float32 of unit length."""
        unit = unit_rows(vectors)
        if self.mean is None or self.weight is None:
            return unit
        return unit_rows((unit - self.mean) @ self.weight)

    def described(self) -> dict[str, Any]:
        """All but the arrays, as JSON values."""
        said = {"encoder": self.encoder, "items": self.items, "alignment": self.alignment}
        return {"templates": list(self.templates), **said}

    def arrays(self) -> dict[str, Float32]:
        """The arrays by name."""
        found = {"vectors": self.vectors, "mean": self.mean, "weight": self.weight}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, eq=False)
class ClassTexts:
    """Classes, and their texts beside each input of a head. Equal where everything about them is.

    Parameters
    ----------
    classes : (c,) labels
    sides : mapping of input name to TextSide

    Examples
    --------
    >>> import numpy as np
    >>> from embedstore.heads import ZeroShotHead
    >>> texts = ClassTexts(["cat", "dog"], {"image": TextSide(np.eye(2, dtype=np.float32))})
    >>> ZeroShotHead(texts).begin().predict({"image": np.array([[0.9, 0.1], [0.2, 0.7]])}).tolist()
    ['cat', 'dog']
    """

    classes: Sequence[Any] | Array
    sides: Mapping[str, TextSide]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClassTexts) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"<ClassTexts of {len(self.classes)} classes beside {', '.join(self.sides)}: {self.fingerprint}>"

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over the classes, the templates, both encoders, the alignment, and every number."""
        digest = hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode())
        for name, value in sorted(self.tensors().items()):
            digest.update(f"{name} {value.shape}".encode())
            digest.update(np.ascontiguousarray(value, "<f4").tobytes())
        return digest.hexdigest()[:16]

    @property
    def dims(self) -> dict[str, int]:
        """Input name → width of the vectors of items."""
        return {name: side.width for name, side in self.sides.items()}

    def codes_of(self, labels: Array) -> npt.NDArray[np.int64]:
        """Positions (m,) of labels in `classes`.

        Raises
        ------
        HeadError
            One of them has no text.
        """
        code = {label: i for i, label in enumerate(as_labels(self.classes).tolist())}
        if strange := [label for label in labels.tolist() if label not in code]:
            raise HeadError(f"Class {strange[0]!r} has no text. Classes with texts: {', '.join(map(str, code))}.")
        return np.array([code[label] for label in labels.tolist()], np.int64)

    def features(self, data: Data) -> Float32:
        """Items (n, Σd): their vectors where the texts are, side by side, those of absent inputs zeros.

        Of unit length, and scaled so that products with `classifier` are the mean cosine over the inputs that are there.
        """
        found = [
            np.where(data.present[name][:, None], side.project(_filled(data, name)), 0) for name, side in self.sides.items()
        ]
        there = np.sum([data.present[name] for name in self.sides], axis=0)
        return np.asarray(np.concatenate(found, axis=1) / np.sqrt(np.maximum(there, 1))[:, None], np.float32)

    def cosines(self, data: Data, features: Float32 | None = None) -> Float32:
        """Mean cosine (n, c) of each item with the texts of each class, over the inputs that are there."""
        x = self.features(data) if features is None else features
        there = np.sum([data.present[name] for name in self.sides], axis=0)
        return np.asarray(x @ self.classifier.T / np.sqrt(np.maximum(there, 1))[:, None], np.float32)

    @cached_property
    def classifier(self) -> Float32:
        """The texts' vectors (c, Σd), side by side."""
        return np.concatenate([side.vectors for side in self.sides.values()], axis=1)

    def to_dict(self) -> dict[str, Any]:
        """All but the arrays, as JSON values."""
        sides = [{"input": name, **side.described()} for name, side in self.sides.items()]
        return {"classes": as_labels(self.classes).tolist(), "sides": sides}

    def tensors(self) -> dict[str, Float32]:
        """The arrays, by names that say the position of their side."""
        return {f"{what}.{i}": array for i, side in enumerate(self.sides.values()) for what, array in side.arrays().items()}

    @classmethod
    def from_state(cls, data: Mapping[str, Any], tensors: Mapping[str, Array]) -> ClassTexts:
        """The texts that `to_dict` and `tensors` are of."""
        sides = {}
        for i, said in enumerate(data["sides"]):
            mean, weight = tensors.get(f"mean.{i}"), tensors.get(f"weight.{i}")
            described = {key: value for key, value in said.items() if key != "input"}
            sides[said["input"]] = TextSide(tensors[f"vectors.{i}"], mean=mean, weight=weight, **described)
        return cls(as_labels(data["classes"]), sides)


def _filled(data: Data, name: str) -> Array:
    """Vectors of one input, finite where it is absent, too."""
    return np.where(data.present[name][:, None], data.inputs[name], 0)

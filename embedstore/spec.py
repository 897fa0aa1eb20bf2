"""What produced a vector: `EncoderSpec` and its fingerprint.

Two specs with one fingerprint give the same vector for the same payload (up to the rounding of the device they ran
on). Anything else that would change the vector belongs into the spec.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any

from embedstore.errors import StoreError, one_line

MODALITIES = ("image", "text", "audio", "video")
TEXT = "text"
FILES = tuple(modality for modality in MODALITIES if modality != TEXT)
"""The modalities whose payloads are files."""
SOURCE_WORDS = ("id", *MODALITIES)
"""What a dataset has columns for; where columns are named, another word is a space of texts."""

MESSAGE = "message"
"""The modality of payloads made of several columns: see `embedstore._core.message_parts`."""
LEFT_OUT = "left out"
"""In a spec's preprocessing under ``lacking``: a message that lacks a part is missing. Else it is made of those it has."""
ENCODED = (*MODALITIES, MESSAGE)
"""What an encoder may be of."""

UNNAMED = "declared"
"""Family of the encoder of imported vectors that nobody named."""

MOST_NUMBERS = 1 << 24
"""No vector has more numbers, and no encoder of texts takes more tokens."""

_REQUIRED = ("name", "family", "model", "weights", "modality", "dim")
_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("name", "family", "model", "weights", "modality", "pooling", "prompt", "query_prompt"), (str,)),
    "dim": (int,),
    "preprocessing": (dict,),
    "max_length": (int, type(None)),
    "normalized": (bool,),
    "alignment": (str, type(None)),
    "declared": (bool,),
}
"""What JSON holds for each field."""

_NOT_FINGERPRINTED = ("name", "alignment", "query_prompt")


@dataclass(frozen=True)
class EncoderSpec:
    """One encoder for one modality.

    Parameters
    ----------
    name : str
        What to type to get this encoder again; not part of the fingerprint (a model folder may move).
    family, model : str
        The library and the architecture.
    weights : str
        ``"sha256:…"`` of the weights, or ``"none"`` for an encoder without weights.
    modality : str
        One of `ENCODED`.
    dim : int
        Length of a vector.
    preprocessing : mapping
        Everything done to a payload before the model sees it (JSON values).
    pooling : str
    prompt : str
        Text that is put before every payload; the empty text where there is none.
    max_length : int, optional
        Longest text in tokens; the rest is cut off and counted.
    normalized : bool
        Whether vectors have unit L2 norm.
    alignment : str, optional
        Spaces with the same alignment id can be compared with one another; not part of the fingerprint.
    declared : bool
        The vectors were imported: that they are of this encoder is what the user said, not what was seen here.
    query_prompt : str
        Text that is put before a query instead of `prompt`; not part of the fingerprint, as it changes no vector of an item.
    """

    name: str
    family: str
    model: str
    weights: str
    modality: str
    dim: int
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    pooling: str = "none"
    prompt: str = ""
    max_length: int | None = None
    normalized: bool = False
    alignment: str | None = None
    declared: bool = False
    query_prompt: str = ""

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over everything that changes the vector."""
        payload = {key: value for key, value in self.to_dict().items() if key not in _NOT_FINGERPRINTED}
        canonical = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def parts(self) -> tuple[str, ...]:
        """The columns that a message is made of; none where the payloads are of one modality."""
        return tuple(self.preprocessing.get("parts", ())) if self.modality == MESSAGE else ()

    @property
    def label(self) -> str:
        """Name and fingerprint, for people."""
        return f"{self.name} ({'declared, ' if self.declared else ''}fingerprint {self.fingerprint})"

    def admits(self, other: EncoderSpec) -> bool:
        """Whether vectors of `other` may stand for vectors of this: of one fingerprint, or computed by the declared encoder."""
        if self.fingerprint == other.fingerprint:
            return True
        said = (self.name, self.modality, self.dim) == (other.name, other.modality, other.dim)
        return self.declared and not other.declared and said

    def to_dict(self) -> dict[str, Any]:
        data = {**asdict(self), "preprocessing": dict(self.preprocessing)}
        if not self.declared:
            del data["declared"]  # computed vectors keep the fingerprint that they had before there were declared ones
        if not self.query_prompt:
            del data["query_prompt"]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EncoderSpec:
        """The spec in a JSON object.

        Raises
        ------
        StoreError
            It has fields that are not known here, lacks some, or one is not of its type.
        """
        if not isinstance(data, Mapping):
            raise StoreError(f"An encoder should be described by a JSON object. Got {_shown(data)}.")
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(data) - known):
            raise StoreError(f"Encoder spec has unknown fields {_shown(unknown)}; it was written by a newer embedstore.")
        if missing := sorted(name for name in _REQUIRED if name not in data):
            raise StoreError(f"Encoder spec lacks {', '.join(missing)}.")
        for name, value in data.items():
            if not isinstance(value, _TYPES[name]) or (isinstance(value, bool) and bool not in _TYPES[name]):
                raise StoreError(f"Encoder spec: {name} is {_shown(value)}, which it cannot be.")
        if data["modality"] not in ENCODED:
            raise StoreError(f"Encoder spec: modality is {_shown(data['modality'])}, not one of {list(ENCODED)}.")
        if not 1 <= data["dim"] <= MOST_NUMBERS or not 0 <= (data.get("max_length") or 0) <= MOST_NUMBERS:
            raise StoreError(f"Encoder spec: vectors of {data['dim']} numbers, texts of {data.get('max_length')} tokens.")
        return cls(**data)


def _shown(value: object) -> str:
    return one_line(repr(value), 60)

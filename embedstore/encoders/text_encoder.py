"""Texts through a tokenizer and a network: sentence-transformers models that are no more than that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedstore._files import read_json
from embedstore.encoders.base import EncoderRequest, Vectors
from embedstore.encoders.network import Array, Model, Network, Pending, batch_size_of, open_model
from embedstore.encoders.texts import EXAMPLE_TEXTS, decode_text
from embedstore.registry import require
from embedstore.spec import EncoderSpec

if TYPE_CHECKING:
    import torch

Windows = list[list[int]]
"""Token ids of a text: one list, or one of each window."""

OVERLAP = 8
"""Windows of a long text overlap by this part of the maximum length."""


class TextEncoder:
    """Texts through the tokenizer in ``tokenizer.json`` and a network of token ids and mask.

    Parameters
    ----------
    spec : EncoderSpec
        With ``windows`` in its preprocessing, a text that is longer than `max_length` is encoded in overlapping windows, whose
        vectors are averaged; otherwise it is cut, and counted.
    folder : Path
        With ``tokenizer.json`` and ``tokenizer_config.json``.
    load : callable
        Makes the torch module, from (n, length) int64 ids and mask to (n, dim).
    request : EncoderRequest
    """

    def __init__(self, spec: EncoderSpec, folder: Path, load: Callable[[], torch.nn.Module], request: EncoderRequest) -> None:
        self.spec = spec
        self.batch_size = batch_size_of(request)
        self.truncated = 0
        self._folder = folder
        self._load = load
        self._request = request
        self._windows: Mapping[str, Any] | None = spec.preprocessing.get("windows")

    @property
    def network(self) -> Network:
        shapes = ((-1, -1), (-1, -1))
        return Network(self.spec.name, self._network_fingerprint, self._load, shapes, self._examples)

    @cached_property
    def model(self) -> Model:
        return open_model(self.network, self._request)

    def prepare(self, payload: bytes) -> Windows:
        encoding = self._tokenizer.encode(decode_text(payload))
        if self._windows is not None:
            return [encoding.ids, *(window.ids for window in encoding.overflowing)]
        self.truncated += bool(encoding.overflowing)
        return [encoding.ids]

    def cost(self, prepared: Windows) -> int:
        """Tokens of the longest window."""
        return max(map(len, prepared))

    def stacked(self, batch: Sequence[Windows]) -> tuple[Array, Array]:
        """What `model` takes: ids and mask (m, length) int64 of all windows, padded to the longest."""
        windows = [ids for text in batch for ids in text]
        lengths = np.fromiter(map(len, windows), np.int64, len(windows))
        mask = np.arange(lengths.max(initial=1)) < lengths[:, None]
        ids = np.full(mask.shape, self._pad, np.int64)
        ids[mask] = np.fromiter((token for window in windows for token in window), np.int64, int(lengths.sum()))
        return ids, mask.astype(np.int64)

    def start(self, batch: Sequence[Windows]) -> Pending:
        ids, mask = self.stacked(batch)
        if len(ids) == len(batch):
            return self.model.start(ids, mask)
        return lambda: self._mean(batch, ids, mask)

    def encode(self, batch: Sequence[Windows]) -> Vectors:
        return self.start(batch)()

    def _mean(self, batch: Sequence[Windows], ids: Array, mask: Array) -> Vectors:
        steps = range(0, len(ids), self.batch_size)
        windows = np.concatenate([self.model(ids[lo : lo + self.batch_size], mask[lo : lo + self.batch_size]) for lo in steps])
        counts = np.fromiter(map(len, batch), np.int64, len(batch))
        means = np.add.reduceat(windows, np.cumsum(counts) - counts) / counts[:, None]
        if self.spec.normalized:
            means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        return means.astype(np.float32)

    def provenance(self) -> Mapping[str, str]:
        return {**self.model.provenance(), "tokenizers": str(require("tokenizers", extra="st").__version__)}

    def _examples(self) -> list[tuple[Array, ...]]:
        prepared = [[self._tokenizer.encode(text).ids] for text in EXAMPLE_TEXTS]
        return [self.stacked(some) for some in (prepared, prepared[2:3], prepared[:3])]

    @cached_property
    def _tokenizer(self) -> Any:
        tokenizer = require("tokenizers", extra="st").Tokenizer.from_file(str(self._folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.spec.max_length, stride=self._windows["overlap"] if self._windows else 0)
        return tokenizer

    @cached_property
    def _pad(self) -> int:
        given = read_json(self._folder / "tokenizer_config.json").get("pad_token", "[PAD]")
        return self._tokenizer.token_to_id(given["content"] if isinstance(given, dict) else given) or 0

    @property
    def _network_fingerprint(self) -> str:
        """The same for every way of cutting texts."""
        plain = {k: v for k, v in self.spec.preprocessing.items() if k != "windows"}
        return EncoderSpec.from_dict({**self.spec.to_dict(), "preprocessing": plain}).fingerprint

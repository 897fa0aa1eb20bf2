"""Texts through a tokenizer and a network: sentence-transformers models that are no more than that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embedstore._core.atomic_files import read_json
from embedstore._core.unit import unit_rows
from embedstore.encoders.base import EncoderRequest, Vectors, prepare_one
from embedstore.encoders.payloads.texts import EXAMPLE_TEXTS, decode_text, decode_texts
from embedstore.encoders.runtimes.base import Array, Model, Network, Pending
from embedstore.encoders.runtimes.choose import batch_size_of, open_model
from embedstore.errors import EncoderError, PayloadError, UsageError, one_line
from embedstore.registry import require, version
from embedstore.spec import EncoderSpec

if TYPE_CHECKING:
    import torch

Windows = list[list[int]]
"""Token ids of a text: one list, or one of each window."""

Rows = npt.NDArray[np.int64]

OVERLAP = 8
"""Windows of a long text overlap by this part of the maximum length."""


class Piece(NamedTuple):
    """Windows that go through the network together.

    Parameters
    ----------
    rows : (n,) int64
        Their numbers among all windows.
    ids, mask : (n, length) int64
    """

    rows: Rows
    ids: Array
    mask: Array


class TextEncoder:
    """Texts through the tokenizer in ``tokenizer.json`` and a network of token ids and mask.

    Parameters
    ----------
    spec : EncoderSpec
        With ``windows`` in its preprocessing, a text that is longer than `max_length` is encoded in overlapping windows, whose
        vectors are averaged; otherwise it is cut, and counted. Its prompt stands before every text and every window.
    folder : Path
        With ``tokenizer.json`` and ``tokenizer_config.json``.
    load : callable
        Makes the torch module, from (n, length) int64 ids and mask to (n, dim); takes the number of leading tokens that pooling
        leaves out.
    request : EncoderRequest
    packed : callable, optional
        As `Network.packed`.
    pooled_prompt : bool
        Whether the prompt's tokens are pooled like the text's.
    tokenizer : callable, optional
        Makes the tokenizer where it is not what ``tokenizer.json`` holds.
    """

    license: str | None = None
    matryoshka: tuple[int, ...] | None = None
    keeps: int | None = None

    def __init__(
        self,
        spec: EncoderSpec,
        folder: Path,
        load: Callable[[int], torch.nn.Module],
        request: EncoderRequest,
        packed: Callable[[torch.nn.Module], torch.nn.Module] | None = None,
        *,
        pooled_prompt: bool = True,
        tokenizer: Callable[[], Any] | None = None,
    ) -> None:
        self._made = tokenizer
        self.spec = spec
        self.batch_size = batch_size_of(request)
        self.lanes = len(request.devices)
        self.truncated = 0
        self._folder = folder
        self._load = load
        self._packed = packed
        self._pooled_prompt = pooled_prompt
        self._request = request
        self._windows: Mapping[str, Any] | None = spec.preprocessing.get("windows")

    @property
    def network(self) -> Network:
        shapes, left_out = ((-1, -1), (-1, -1)), self._left_out
        packed = None if left_out else self._packed
        return Network(self.spec.name, self._network_fingerprint, lambda: self._load(left_out), shapes, self._examples, packed)

    @cached_property
    def model(self) -> Model:
        return open_model(self.network, self._request)

    @cached_property
    def queries(self) -> TextEncoder:
        """The encoder of queries: this one, unless they have a prompt of their own."""
        if self.spec.query_prompt == self.spec.prompt:
            return self
        spec, pooled = replace(self.spec, prompt=self.spec.query_prompt), self._pooled_prompt
        given = (self._folder, self._load, self._request, self._packed)
        return TextEncoder(spec, *given, pooled_prompt=pooled, tokenizer=self._made)

    def prepare(self, payload: bytes) -> Windows:
        return self._counted(self._tokenizer.encode(self.spec.prompt + decode_text(payload)))

    def prepare_batch(self, payloads: Sequence[bytes]) -> list[Windows | PayloadError]:
        """What `prepare` gives for each, or the error that it costs; tokenized on all cores, outside Python's lock."""
        texts, errors = decode_texts(payloads)
        tokenizer = self._tokenizer
        try:  # the fast way leaves out where tokens lie in the text, which windows alone ask for
            encode = tokenizer.encode_batch_fast if self._windows is None else tokenizer.encode_batch
            encodings = encode([self.spec.prompt + text for text in texts.values()])
        except Exception:  # the tokenizer's own has no other type; one by one it says which text it is
            return [prepare_one(self, payload) for payload in payloads]
        prepared = {i: self._counted(encoding) for i, encoding in zip(texts, encodings, strict=True)}
        return [prepared[i] if i in prepared else errors[i] for i in range(len(payloads))]

    def _counted(self, encoding: Any) -> Windows:
        if encoding.overflowing:
            self.truncated += 1
        return self._in_windows(encoding)

    def _in_windows(self, encoding: Any) -> Windows:
        """Ids of the whole text in windows that each begin with its marks and the prompt, and end with its marks."""
        ids, longest = encoding.ids, self.spec.max_length or 0
        if self._windows is None or len(ids) <= longest:
            return [ids]
        marks, ends = encoding.special_tokens_mask, [end for _, end in encoding.offsets]
        last = len(ids) - marks[::-1].index(0)
        first = next((i for i in range(last) if not marks[i] and ends[i] > len(self.spec.prompt)), last)
        head, tail = ids[:first], ids[last:]
        room = longest - len(head) - len(tail)
        step = room - int(self._windows["overlap"])
        if step < 1:
            raise UsageError(
                f"Encoder {self.spec.name!r}: the prompt takes {len(head)} of {longest} tokens, which leaves too few for "
                "windows. Shorten it: --prompt."
            )
        starts = [0, *range(step, last - first - room + step, step)]
        return [[*head, *ids[first + at : min(first + at + room, last)], *tail] for at in starts]

    def cost(self, prepared: Windows) -> int:
        """Tokens of the longest window, or of the row that it shares."""
        return max(self.model.row, *map(len, prepared))

    def stacked(self, batch: Sequence[Windows]) -> list[Piece]:
        """What `model` takes, a call each: at most `batch_size` windows of about one length, padded to the longest.

        Those that can share a row of the model count as long as it, so that they stay together.
        """
        windows = [ids for text in batch for ids in text]
        lengths = np.maximum(np.fromiter(map(len, windows), np.int64, len(windows)), self.model.row)
        order = np.argsort(lengths, kind="stable")
        starts = range(0, len(order), self.batch_size)
        rows = [part for lo in starts for part in _halved(lengths, order[lo : lo + self.batch_size], self.model.padding)]
        return [Piece(part, *self._padded([windows[i] for i in part])) for part in rows]

    def start(self, batch: Sequence[Windows]) -> Pending:
        begun: list[tuple[Rows, Pending]] = []
        try:
            for piece in self.stacked(batch):
                begun.append((piece.rows, self.model.start(piece.ids, piece.mask)))
        except Exception:
            _collected(begun)  # they read their inputs
            raise

        def wait() -> Vectors:
            windows = np.empty((sum(map(len, batch)), self.spec.dim), np.float32)
            for (rows, _), vectors in zip(begun, _collected(begun), strict=True):
                if isinstance(vectors, Exception):
                    raise vectors
                windows[rows] = vectors
            return windows if len(windows) == len(batch) else self._mean(batch, windows)

        return wait

    def encode(self, batch: Sequence[Windows]) -> Vectors:
        return self.start(batch)()

    def _mean(self, batch: Sequence[Windows], windows: Vectors) -> Vectors:
        """Vector of each text (n, dim) from those of its windows (m, dim)."""
        counts = np.fromiter(map(len, batch), np.int64, len(batch))
        means = np.add.reduceat(windows, np.cumsum(counts) - counts) / counts[:, None]
        return unit_rows(means) if self.spec.normalized else means.astype(np.float32)

    def _padded(self, windows: Sequence[list[int]]) -> tuple[Array, Array]:
        """Ids and mask (n, length) int64."""
        lengths = np.fromiter(map(len, windows), np.int64, len(windows))
        mask = np.arange(lengths.max(initial=1)) < lengths[:, None]
        ids = np.full(mask.shape, self._pad, np.int64)
        ids[mask] = np.fromiter((token for window in windows for token in window), np.int64, int(lengths.sum()))
        return ids, mask.astype(np.int64)

    def provenance(self) -> Mapping[str, str]:
        return {**self.model.provenance(), "tokenizers": version("tokenizers")}

    def _examples(self) -> list[tuple[Array, ...]]:
        prompt = self.spec.prompt if self._left_out else ""  # else the network is the same for all prompts, and compared once
        encodings = [self._tokenizer.encode(prompt + text) for text in EXAMPLE_TEXTS]
        prepared = [self._in_windows(encoding) for encoding in encodings]
        return [self._padded([windows[0] for windows in some]) for some in (prepared, prepared[2:3], prepared[:7])]

    @cached_property
    def _tokenizer(self) -> Any:
        path = self._folder / "tokenizer.json"
        try:
            tokenizer = self._made() if self._made else require("tokenizers", extra="st").Tokenizer.from_file(str(path))
        except Exception as error:  # its own has no other type
            raise EncoderError(f"{path} is no tokenizer ({one_line(error, 120)}).") from error
        tokenizer.no_padding()
        if self._windows is None:
            tokenizer.enable_truncation(self.spec.max_length)
        else:
            tokenizer.no_truncation()
        return tokenizer

    @cached_property
    def _left_out(self) -> int:
        """Leading tokens that pooling leaves out: sentence-transformers' rule, the prompt alone without a mark at its end."""
        if self._pooled_prompt or not self.spec.prompt:
            return 0
        ids = self._tokenizer.encode(self.spec.prompt).ids
        marks = {number for number, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}
        return len(ids) - (ids[-1] in marks)

    @cached_property
    def _pad(self) -> int:
        given = read_json(self._folder / "tokenizer_config.json").get("pad_token", "[PAD]")
        return self._tokenizer.token_to_id(given["content"] if isinstance(given, dict) else given) or 0

    @property
    def _network_fingerprint(self) -> str:
        """The same for every way of cutting texts and for all prompts that are pooled."""
        plain = {k: v for k, v in self.spec.preprocessing.items() if k != "windows"}
        prompt = self.spec.prompt if self._left_out else ""
        return replace(self.spec, preprocessing=plain, prompt=prompt).fingerprint


def _halved(lengths: Rows, rows: Rows, bearable: int) -> Iterator[Rows]:
    """`rows`, ascending by `lengths`, in halves of halves until padding the shorter half costs no more than is `bearable`."""
    middle = len(rows) // 2
    if middle and middle * (lengths[rows[-1]] - lengths[rows[middle - 1]]) > bearable:
        yield from _halved(lengths, rows[:middle], bearable)
        yield from _halved(lengths, rows[middle:], bearable)
    else:
        yield rows


def _collected(begun: Sequence[tuple[Rows, Pending]]) -> list[Vectors | Exception]:
    """The vectors (n, dim) that each gives, or what it raises, once all are done."""
    found: list[Vectors | Exception] = []
    for _, pending in begun:
        try:
            found.append(pending())
        except Exception as error:
            found.append(error)
    return found

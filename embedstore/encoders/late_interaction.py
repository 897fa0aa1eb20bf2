"""`colbert:MODEL`: a vector of each token of a text, or of each patch of a page, by a late-interaction model.

ColBERT (Khattab & Zaharia 2020) and its kin for images (ColPali, ColQwen), through `MultiVectorEncoder` of
sentence-transformers. Search scores an item by MaxSim over these vectors, and heads get their mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from embedstore._core.pieces import Pieces
from embedstore._core.unit import unit_each
from embedstore.encoders.base import EncoderRequest, Vectors, not_loadable, refuse_modality
from embedstore.encoders.cards import Card, read_config
from embedstore.encoders.library_model import LibraryModel
from embedstore.encoders.model_folders import folder_digest, model_folder
from embedstore.encoders.prompts import QUERIES, chosen_prompts
from embedstore.encoders.runtimes.choose import on_gpu
from embedstore.encoders.runtimes.pytorch import TorchRuntime
from embedstore.encoders.trust import no_code
from embedstore.errors import EncoderError
from embedstore.registry import refuse_older, require
from embedstore.spec import EncoderSpec

LEAST = 6
"""The version of sentence-transformers that has such models."""
DOCUMENT = "document"
MARKS = 8
"""Tokens at most that a tokenizer puts round a text."""
UNITS = {"text": "token", "image": "patch"}


class LateInteractionEncoder(LibraryModel):
    """A late-interaction model on one modality; float32, on a CPU an item at a time, so that no vector depends on a batch.

    Parameters
    ----------
    spec : EncoderSpec
    model
        The loaded `MultiVectorEncoder`.
    request : EncoderRequest
    task : str
        ``"document"`` or ``"query"``: the model treats the two differently.
    """

    def __init__(self, spec: EncoderSpec, model: Any, request: EncoderRequest, task: str = DOCUMENT) -> None:
        super().__init__(spec, model, request)
        self.pieces = UNITS[spec.modality]
        self._task = task

    @cached_property
    def queries(self) -> LateInteractionEncoder:
        """The encoder of queries."""
        return LateInteractionEncoder(replace(self.spec, prompt=self.spec.query_prompt), self._model, self._request, QUERIES)

    @cached_property
    def runtime(self) -> TorchRuntime:
        return TorchRuntime(self._request.devices[0], "float32")

    def encode(self, batch: Sequence[Any]) -> Vectors:
        return self.encode_pieces(batch)[0]

    def encode_pieces(self, batch: Sequence[Any]) -> tuple[Vectors, Pieces]:
        """The mean (n, dim) of each item's vectors, of unit length, and those vectors."""
        self._count_truncated(batch)
        at_once = self.batch_size if on_gpu(self._request) else 1
        with self.runtime.device_errors():
            found = self.model.encode(
                list(batch), prompt=self.spec.prompt or None, batch_size=at_once, task=self._task, convert_to_numpy=True
            )
        counts = np.array([len(vectors) for vectors in found], np.int64)
        pieces = Pieces.nowhere(np.concatenate(found).astype(np.float32), counts)
        return unit_each(pieces.means()), pieces

    @cached_property
    def _longest(self) -> float:
        """Tokens of a text that are encoded; infinity where the model does not say, or takes no texts."""
        if self.spec.modality != "text":
            return math.inf
        return getattr(self._model[0], f"{self._task}_length", None) or self._model.max_seq_length or math.inf

    def _count_truncated(self, batch: Sequence[Any]) -> None:
        if self._longest == math.inf:
            return
        whole = [self.spec.prompt + text for text in batch]
        long = [text for text in whole if len(text.encode()) + MARKS > self._longest]  # a token has a byte at least
        if long:
            tokens = self._model.tokenizer(long, truncation=False, verbose=False)["input_ids"]
            self.truncated += sum(len(ids) > self._longest for ids in tokens)

    def provenance(self) -> Mapping[str, str]:
        library = require("sentence_transformers", extra="st")
        return {"device": str(self.runtime.device), "sentence_transformers": library.__version__}


def load(request: EncoderRequest) -> LateInteractionEncoder:
    """colbert:ORG/NAME (hub) or colbert:FOLDER (local): a vector of each token, or patch; ColBERT, ColPali (extra st)."""
    refuse_older("sentence-transformers", LEAST, extra="st")
    folder = model_folder(request, "colbert:lightonai/LateOn or colbert:./my-model", needs=())
    if not _is_late(folder):
        raise EncoderError(f"{folder} is no late-interaction model: it has no vectors of tokens to compare. Try st:{folder}.")
    model = _loaded(folder, request)
    known = [m for m in model.modalities if isinstance(m, str) and m in UNITS]
    refuse_modality(request, known)
    digest = folder_digest(folder)
    prompt, query_prompt = chosen_prompts(request, {name: text or "" for name, text in model.prompts.items()})
    spec = EncoderSpec(
        name=request.name,
        family="colbert",
        model=type(model[0]).__name__,
        weights=digest,
        modality=request.modality,
        dim=int(model.get_embedding_dimension()),
        preprocessing={"processor": "model", "pieces": UNITS[request.modality], "join": "mean"},
        pooling="none",
        prompt=prompt,
        query_prompt=query_prompt,
        normalized=True,
        alignment=f"colbert:{digest.removeprefix('sha256:')[:16]}" if len(known) > 1 else None,
    )
    encoder = LateInteractionEncoder(spec, model, request)
    encoder.license = Card.read(folder).license
    return encoder


def _is_late(folder: Path) -> bool:
    """Whether the files say so: to any other model the library would add a projection of random numbers."""
    modules = read_config(folder / "modules.json")
    if isinstance(modules, list):
        return any("MultiVector" in str(module.get("type")) for module in modules)
    named = [str(name) for name in read_config(folder / "config.json").get("architectures") or []]
    return any(name == "HF_ColBERT" or name.endswith("ForRetrieval") for name in named)


def _loaded(folder: Path, request: EncoderRequest) -> Any:
    library = require("sentence_transformers", extra="st")
    require("transformers", extra="st").utils.logging.disable_progress_bar()
    try:
        with no_code():
            return library.MultiVectorEncoder(str(folder), device="cpu", local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise not_loadable(request, error) from error

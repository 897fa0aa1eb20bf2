"""Models of any kind that sentence-transformers itself makes payloads ready for and runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from embedstore._core.ordered import ordered_map
from embedstore._core.unit import unit_rows
from embedstore.encoders.base import EncoderRequest, Vectors
from embedstore.encoders.image_encoder import pictures
from embedstore.encoders.library_model import LibraryModel
from embedstore.encoders.media import Media
from embedstore.encoders.payloads.texts import EXAMPLE_TEXTS
from embedstore.encoders.prompts import QUERIES
from embedstore.encoders.runtimes.precision import Arithmetic, Chosen
from embedstore.registry import require, version
from embedstore.spec import EncoderSpec

if TYPE_CHECKING:
    import torch


class SentenceEncoder(LibraryModel):
    """A sentence-transformers model of any kind on one modality, prepared and run by its library.

    Parameters
    ----------
    spec : EncoderSpec
    model
        The loaded `SentenceTransformer`.
    request : EncoderRequest
    task : str, optional
        ``"document"`` or ``"query"``, of models that treat the two differently.
    """

    matryoshka: tuple[int, ...] | None = None
    keeps: int | None = None

    def __init__(self, spec: EncoderSpec, model: Any, request: EncoderRequest, task: str | None = None) -> None:
        super().__init__(spec, model, request)
        self._task = {} if task is None else {"task": task}

    @cached_property
    def queries(self) -> SentenceEncoder:
        """The encoder of queries: this one, unless the model has a prompt or a part of its own for them."""
        if self.spec.query_prompt == self.spec.prompt and not self._task:
            return self
        return self._asking(replace(self.spec, prompt=self.spec.query_prompt), QUERIES if self._task else None)

    def _asking(self, spec: EncoderSpec, task: str | None) -> SentenceEncoder:
        return SentenceEncoder(spec, self._model, self._request, task)

    @cached_property
    def _chosen(self) -> Chosen:
        """What it computes in; weights stay as they are, for what the library makes of payloads is float32 in parts."""

        def vectors(arithmetic: Arithmetic) -> list[Vectors]:
            return [self._vectors(self._features(batch), arithmetic) for batch in self._examples()]

        return self.runtime.chosen(self.spec.name, self.spec.fingerprint, vectors, converts=False)

    def _examples(self) -> list[list[Any]]:
        if self.spec.modality == "text":
            return [list(EXAMPLE_TEXTS), list(EXAMPLE_TEXTS[2:3])]
        from PIL import Image

        images = [Image.fromarray(pixels) for pixels in pictures(224, 224)]
        return [images, images[:1]]

    def encode(self, batch: Sequence[Any]) -> Vectors:
        features = self._features(batch)
        if self.spec.modality == "text" and self.spec.max_length:
            lengths = features["attention_mask"].sum(1).cpu().numpy()
            self._count_truncated([batch[i] for i in np.flatnonzero(lengths >= self.spec.max_length).tolist()])
        return self._vectors(features, self._chosen.arithmetic)

    def _features(self, batch: Sequence[Any]) -> Mapping[str, Any]:
        if self._may_be_paths:  # a text that is the path or URL of a picture is to stay a text, and its file unread
            batch = [{"text": text} for text in batch]
        features: Mapping[str, Any] = self.model.preprocess(list(batch), prompt=self.spec.prompt or None, **self._task)
        return features

    @cached_property
    def _may_be_paths(self) -> bool:
        """Whether the library would read the files that texts name."""
        return self.spec.modality == "text" and self.spec.model == "Transformer" and len(self._model.modalities) > 1

    def _vectors(self, features: Mapping[str, Any], arithmetic: Arithmetic) -> Vectors:
        def forward() -> torch.Tensor:
            placed = {k: v.to(self.runtime.device) if hasattr(v, "to") else v for k, v in features.items()}
            found: torch.Tensor = self.model(placed, **self._task)["sentence_embedding"]
            return found

        return self.runtime.run(forward, arithmetic)

    def _count_truncated(self, texts: list[str]) -> None:
        if texts:
            whole = [self.spec.prompt + text for text in texts]
            tokens = self.model.tokenizer(whole, truncation=False, verbose=False)["input_ids"]
            self.truncated += sum(len(ids) > (self.spec.max_length or 0) for ids in tokens)

    def provenance(self) -> Mapping[str, str]:
        library = require("sentence_transformers", extra="st")
        return {**self.runtime.provenance(self._chosen), "sentence_transformers": library.__version__}


class SentenceMedia(SentenceEncoder):
    """A sentence-transformers model on sounds or films, one at a time: a vector does not depend on what else is in its batch.

    While the model is at work on one, the next is decoded.

    Parameters
    ----------
    spec, model, request, task
        As `SentenceEncoder` takes them.
    media : Media
        What the model is given of a payload; where that is several pieces, the vector is the mean of theirs by weight.
    """

    def __init__(self, spec: EncoderSpec, model: Any, request: EncoderRequest, task: str | None, media: Media) -> None:
        super().__init__(spec, model, request, task)
        self.batch_size = media.batch_size
        self._media = media

    def _asking(self, spec: EncoderSpec, task: str | None) -> SentenceMedia:
        return SentenceMedia(spec, self._model, self._request, task, self._media)

    def prepare(self, payload: bytes) -> Any:
        return self._media.prepare(payload)

    def encode(self, batch: Sequence[Any]) -> Vectors:
        arithmetic = self._chosen.arithmetic
        with ThreadPoolExecutor(1, thread_name_prefix="embedstore-media") as pool:
            return np.stack([self._mean(made, arithmetic) for made in ordered_map(pool, self._made, batch, window=2)])

    def _made(self, prepared: Any) -> list[tuple[Mapping[str, Any], float]]:
        """What the model takes of each piece, and its weight."""
        return [(self._features([piece]), weight) for piece, weight in self._media.pieces(prepared)]

    def _mean(self, made: Sequence[tuple[Mapping[str, Any], float]], arithmetic: Arithmetic) -> Vectors:
        """The vector (dim,) of a payload."""
        vectors: Vectors = np.concatenate([self._vectors(features, arithmetic) for features, _ in made])
        if len(vectors) == 1:
            return np.asarray(vectors[0])
        mean = np.average(vectors, axis=0, weights=[weight for _, weight in made]).astype(np.float32)
        return np.asarray(unit_rows(mean[None])[0] if self.spec.normalized else mean)

    def _features(self, batch: Sequence[Any]) -> Mapping[str, Any]:
        as_given = {"video": {"do_sample_frames": False}}  # the frames were chosen already
        features: Mapping[str, Any] = self.model.preprocess(
            list(batch), prompt=self.spec.prompt or None, processing_kwargs=as_given, **self._task
        )
        return features

    def _examples(self) -> list[list[Any]]:
        return [[self._media.example()]]

    def provenance(self) -> Mapping[str, str]:
        return {**super().provenance(), **self._media.provenance(), "transformers": version("transformers")}

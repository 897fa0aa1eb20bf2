"""Torch modules around the libraries' own: arrays of bytes and token ids in, vectors out, for every runtime alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Images(nn.Module):
    """Pixels (n, h, w, 3 or 4) uint8 through `model`, normalised on the device and in channels_last; a fourth byte is ignored.

    Parameters
    ----------
    model : Module
    mean, std : (3,) floats
        Of pixels in [0, 1].
    forward : callable, optional
        (model, images (n, 3, h, w)) → (n, dim); default: calls the model.

    Attributes
    ----------
    takes : dtype
        Of the images that `model` is given; another one after its weights were converted.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        model: nn.Module,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        forward: Callable[[Any, Tensor], Tensor] = lambda model, images: model(images),
    ) -> None:
        super().__init__()
        self.model = model
        self.takes = torch.float32
        self.register_buffer("scale", torch.tensor([1 / (255 * s) for s in std]).view(3, 1, 1))
        self.register_buffer("shift", torch.tensor([m / s for m, s in zip(mean, std, strict=True)]).view(3, 1, 1))
        self._forward = forward

    def forward(self, pixels: Tensor) -> Tensor:
        channels = pixels.permute(0, 3, 1, 2)[:, :3]  # while they are bytes: on OpenVINO 8 % faster than as float32
        images = channels.float() * self.scale - self.shift
        return self._forward(self.model, images if self.takes == torch.float32 else images.to(self.takes))


class SentenceTexts(nn.Module):
    """Token ids and mask (n, length) through a sentence-transformers model.

    Parameters
    ----------
    model : SentenceTransformer
    left_out : int
        Leading tokens that are not pooled: those of a prompt.
    """

    def __init__(self, model: Any, left_out: int = 0) -> None:
        super().__init__()
        self.model = model
        self.left_out = left_out

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        features: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
        if self.left_out:
            features["prompt_length"] = self.left_out
        return self.model(features)["sentence_embedding"]  # type: ignore[no-any-return]


class PackedTexts(nn.Module):
    """Rows (r, length) of several texts through a transformer of sentence-transformers, as `packing.Rows` describes them.

    Parameters
    ----------
    plain : SentenceTexts
        A BERT, pooled by the mean or the first token.
    position : int
        The number that the model gives to the first token of a text.
    first : bool
        Pooled by the first token.

    Returns
    -------
    (r, most, dim), of unit length where the model normalises.
    """

    def __init__(self, plain: SentenceTexts, position: int, *, first: bool) -> None:
        super().__init__()
        transformer, _, *rest = plain.model
        self.transformer = transformer.auto_model
        self.position = position
        self.first = first
        self.normalized = bool(rest)

    def forward(self, ids: Tensor, positions: Tensor, members: Tensor) -> Tensor:
        together = members.transpose(1, 2) @ members  # (r, length, length): 1 where two tokens are of one text
        bias = ((together - 1) * 1e9).unsqueeze(1)
        tokens = self.transformer(input_ids=ids, attention_mask=bias, position_ids=positions + self.position).last_hidden_state
        weights = members * (positions == 0).unsqueeze(1) if self.first else members / members.sum(2, keepdim=True).clamp(min=1)
        vectors = weights @ tokens
        return nn.functional.normalize(vectors, dim=2) if self.normalized else vectors


class ClipTexts(nn.Module):
    """Token ids (n, context) through the text tower of an open_clip model, normalised."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens, normalize=True)  # type: ignore[no-any-return]

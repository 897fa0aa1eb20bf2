"""`frames:[scenes:][COUNT:]ENCODER`: videos as the mean of some of their frames through any encoder of images.

The vectors are comparable with those of images of that encoder, and with texts where it has them: `frames:clip` finds videos by
words.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from embedstore._core.pieces import Pieces
from embedstore._core.unit import unit_rows
from embedstore.encoders.base import Encoder, EncoderRequest, Vectors, refuse_modality
from embedstore.encoders.names import FRAMES, SCENES, EncoderName, inner_name
from embedstore.encoders.payloads import films, scenes
from embedstore.errors import UsageError
from embedstore.registry import ENCODERS, version
from embedstore.spec import EncoderSpec

COUNT, MOST = 8, 1024


class FramesEncoder:
    """The mean of the vectors of a video's frames; of unit length where those are.

    Parameters
    ----------
    inner : Encoder
        Of images.
    count : int
        Of frames at most.
    name : str
    sampling : str
        One of `embedstore.encoders.payloads.films.SAMPLINGS`.
    pieces : bool
        Whether the vectors of all frames are to be kept.
    """

    truncated = 0

    def __init__(self, inner: Encoder, count: int, name: str, sampling: str = films.MIDDLES, *, pieces: bool = False) -> None:
        self.inner = inner
        self.pieces = "frame" if pieces else None
        self.count = count
        self.sampling = sampling
        self.batch_size = max(1, inner.batch_size // count)
        self.license: str | None = getattr(inner, "license", None)
        image = inner.spec
        self.spec = replace(
            image,
            name=name,
            modality="video",
            preprocessing={
                "image": dict(image.preprocessing),
                "frames": count,
                "sampling": sampling,
                "join": "mean",
                **({"scenes": scenes.RULES} if sampling == films.SCENES else {}),
                **({"pieces": self.pieces} if self.pieces else {}),
            },
            alignment=_alignment(image),
        )

    def prepare(self, payload: bytes) -> list[tuple[Any, float]]:
        """What the inner encoder takes of each frame, and when that is shown."""
        found = films.frames(payload, self.count, self.sampling, each=lambda image: self.inner.prepare(_as_file(image)))
        return [(frame.image, frame.seconds) for frame in found]

    def encode(self, batch: Sequence[list[tuple[Any, float]]]) -> Vectors:
        return self.encode_pieces(batch)[0]

    def encode_pieces(self, batch: Sequence[list[tuple[Any, float]]]) -> tuple[Vectors, Pieces]:
        """Vectors (n, dim) of films, and those of their frames with their seconds."""
        every = [image for film in batch for image, _ in film]
        size = self.inner.batch_size
        parts = [self.inner.encode(every[lo : lo + size]) for lo in range(0, len(every), size)]
        counts = np.array([len(film) for film in batch])
        seconds = np.array([at for film in batch for _, at in film])
        pieces = Pieces(np.concatenate(parts), counts, np.stack([seconds, seconds], axis=1))
        means = pieces.means()
        return unit_rows(means) if self.spec.normalized else means, pieces

    def provenance(self) -> Mapping[str, str]:
        return {**self.inner.provenance(), "av": version("av")}


def load(request: EncoderRequest) -> Encoder:
    """frames:[scenes:][COUNT:]ENCODER: videos, the mean of 8 frames, or one a scene, of an encoder of images (extra video)."""
    refuse_modality(request, ["video", "image", "text"])
    sampling, count, inner = _parsed(request)
    parsed = EncoderName.parse(inner)
    if parsed.family not in ENCODERS:
        raise UsageError(f"frames: takes an encoder of images, such as frames:effnet-lite0. Got {inner!r} instead.")
    modality = "image" if request.modality == "video" else request.modality
    asked = replace(request, name=inner, argument=parsed.model, modality=modality, recorded=None)
    made: Encoder = ENCODERS.get(parsed.family)(asked)
    if request.modality == "video":
        return FramesEncoder(made, count, request.name, sampling, pieces=request.pieces)
    if request.modality == "image":
        made.spec = replace(made.spec, name=request.name, alignment=_alignment(made.spec))  # type: ignore[misc]
    return made


def _parsed(request: EncoderRequest) -> tuple[str, int, str]:
    """How frames are sampled, how many, and the name of the encoder, with its pooling."""
    inner = inner_name(request.name)
    if inner is None:
        raise UsageError(
            f"frames: needs an encoder of images, such as frames:effnet-lite0 or frames:16:clip. Got {request.name!r}."
        )
    asked = EncoderName.parse(request.name).plain.removeprefix(FRAMES)
    given = asked.removeprefix(SCENES).partition(":")[0]
    count = int(given) if given.isdigit() else COUNT
    if not 1 <= count <= MOST:
        raise UsageError(f"frames:COUNT:ENCODER takes 1 to {MOST} frames. Got {count} instead.")
    pooled = f"@{request.pooling}" if request.pooling else ""
    return films.SCENES if asked.startswith(SCENES) else films.MIDDLES, count, EncoderName.parse(inner).plain + pooled


def _alignment(image: EncoderSpec) -> str:
    """What images of the encoder and videos share."""
    return image.alignment or f"frames:{image.fingerprint}"


def _as_file(image: Any) -> bytes:
    """As a file that any encoder of images takes, without loss."""
    out = io.BytesIO()
    image.save(out, "BMP")
    return out.getvalue()

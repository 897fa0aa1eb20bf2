"""Sounds, films and messages as sentence-transformers takes them: which parts of a payload a model sees, whatever it is."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from embedstore._core.message_parts import unpacked
from embedstore.encoders.image_encoder import pictures
from embedstore.encoders.payloads import films, sounds
from embedstore.encoders.payloads.images import decode_rgb
from embedstore.encoders.payloads.sounds import Samples, decode_sound
from embedstore.encoders.payloads.texts import EXAMPLE_TEXTS, decode_text
from embedstore.encoders.sound_encoder import SOUNDS, Windowing, tone
from embedstore.errors import PayloadError
from embedstore.registry import require, version
from embedstore.spec import FILES, LEFT_OUT, TEXT

USUAL_FRAMES = 16
"""Of a film, for a model that takes any number."""


LEAST_FRAMES = 2
"""Models that join frames in pairs take no film of one."""


class Media(Protocol):
    """What a model of one modality is given."""

    @property
    def batch_size(self) -> int:
        """A good number of payloads for one `encode`."""

    def about(self) -> dict[str, Any]:
        """All that decides what the model sees: a part of its spec's preprocessing."""

    def prepare(self, payload: bytes) -> Any:
        """The part of the work that is done ahead, in threads; what it gives is held in memory for many payloads.

        Raises
        ------
        PayloadError
        """

    def pieces(self, prepared: Any) -> list[tuple[Any, float]]:
        """What `SentenceTransformer.encode` takes, and the weight of its vector in that of the payload.

        Raises
        ------
        PayloadError
        """

    def example(self) -> Any:
        """A piece."""

    def provenance(self) -> dict[str, str]:
        """Versions of what decodes."""


@dataclass(frozen=True)
class Sounds:
    """Windows of a sound.

    Parameters
    ----------
    windowing : Windowing
    """

    windowing: Windowing
    batch_size: int = SOUNDS

    def about(self) -> dict[str, Any]:
        return self.windowing.to_dict()

    def prepare(self, payload: bytes) -> list[Samples]:
        return self.windowing.cut(payload)

    def pieces(self, prepared: list[Samples]) -> list[tuple[Any, float]]:
        return [(self._piece(window), float(len(window))) for window in prepared]

    def example(self) -> Any:
        return self._piece(tone(self.windowing.rate, self.windowing.rate))

    def provenance(self) -> dict[str, str]:
        return sounds.provenance()

    def _piece(self, samples: Samples) -> dict[str, Any]:
        return {"array": samples, "sampling_rate": self.windowing.rate}


@dataclass(frozen=True)
class Films:
    """Frames of a film, those at the middle of equal parts; decoded when they are encoded, for they take much memory.

    Parameters
    ----------
    count : int
        Of frames.
    always : bool
        The model takes no fewer: those of a shorter film are repeated.
    """

    count: int
    always: bool
    batch_size: int = 4

    def about(self) -> dict[str, Any]:
        return {"frames": self.count, "sampling": "middles", **({"shorter": "repeated"} if self.always else {})}

    def prepare(self, payload: bytes) -> bytes:
        return payload

    def pieces(self, prepared: bytes) -> list[tuple[Any, float]]:
        return [(self.piece(prepared), 1.0)]

    def piece(self, payload: bytes) -> dict[str, Any]:
        return film(self.frames(payload), films_seconds(payload))

    def frames(self, payload: bytes) -> list[Any]:
        """PIL images, all of the first one's size."""
        found = [frame.image for frame in films.frames(payload, self.count)]
        found = [image if image.size == found[0].size else image.resize(found[0].size) for image in found]
        return spread(found, self.count if self.always else LEAST_FRAMES)

    def example(self, *, shorter: bool = False) -> Any:
        """A film, or one of another shape with as few frames as there may be."""
        count = LEAST_FRAMES if shorter and not self.always else self.count
        images = list(map(_image, pictures(224, 160 if shorter else 224)))
        return film(spread(images, count)[:count], 1.0)

    def provenance(self) -> dict[str, str]:
        return {"av": version("av")}


@dataclass(frozen=True)
class Messages:
    """Several columns of an item, which the model sees at once: texts, an image, a sound, a film.

    Texts stand where the first of them stands. Decoded when they are encoded, for images may take much memory.

    Parameters
    ----------
    parts : tuple of str
        Columns; one that is not of `FILES` is of texts.
    whole : bool
        The model takes no message that lacks a part.
    sounds : Sounds
        How the samples of a sound are read; it is not cut.
    films : Films
    max_pixels : int
    """

    parts: tuple[str, ...]
    whole: bool
    sounds: Sounds
    films: Films
    max_pixels: int
    batch_size: int = 4

    def about(self) -> dict[str, Any]:
        made = {"audio": {"rate": self.sounds.windowing.rate, "mix": "mean"}, "video": self.films.about()}
        lacking = {"lacking": LEFT_OUT} if self.whole else {}
        return {"parts": list(self.parts), **{part: made[part] for part in self.parts if part in made}, **lacking}

    def prepare(self, payload: bytes) -> bytes:
        return payload

    def pieces(self, prepared: bytes) -> list[tuple[Any, float]]:
        seen: dict[str, Any] = {}
        for part, payload in unpacked(prepared):
            if part in FILES:
                seen[part] = self._file(part, payload)
            else:
                seen.setdefault(TEXT, []).append(decode_text(payload))
        return [(_message(seen), 1.0)]

    def _file(self, part: str, payload: bytes) -> Any:
        try:
            if part == "image":
                return decode_rgb(payload, max_pixels=self.max_pixels)
            if part == "video":
                return self.films.piece(payload)
            rate = self.sounds.windowing.rate
            return {"array": decode_sound(payload, rate), "sampling_rate": rate}
        except PayloadError as error:
            raise PayloadError(error.stage, f"{part}: {error.reason}") from error

    def example(self) -> Any:
        made = {"image": lambda: _image(pictures(224, 224)[0]), "audio": self.sounds.example, "video": self.films.example}
        return {part if part in FILES else TEXT: made.get(part, lambda: EXAMPLE_TEXTS[0])() for part in self.parts}

    def provenance(self) -> dict[str, str]:
        made: dict[str, Media] = {"audio": self.sounds, "video": self.films}
        return {name: of for part in self.parts if part in made for name, of in made[part].provenance().items()}


def _message(seen: dict[str, Any]) -> Any:
    """What the library takes: of two texts alone it would make a question and its document."""
    texts = seen.get(TEXT, [])
    if len(seen) == 1 and len(texts) > 1:
        return [{"role": "user", "content": [{"type": TEXT, TEXT: text} for text in texts]}]
    return {**seen, TEXT: texts[0]} if len(texts) == 1 else seen


def spread(frames: list[Any], count: int) -> list[Any]:
    """`count` of the frames in order, each about as often as the others."""
    return [frames[i * len(frames) // count] for i in range(count)] if len(frames) < count else frames


def film(frames: list[Any], seconds: float | None) -> dict[str, Any]:
    """Frames, PIL images of one size, as sentence-transformers takes a film: (t, 3, h, w) uint8 and when they are shown."""
    array = np.stack([np.asarray(image) for image in frames]).transpose(0, 3, 1, 2)
    shown = {"fps": len(frames) / seconds if seconds else None, "duration": seconds}
    return {
        "array": np.ascontiguousarray(array),
        "video_metadata": {**shown, "total_num_frames": len(frames), "frames_indices": list(range(len(frames)))},
    }


def films_seconds(payload: bytes) -> float | None:
    """How long a film is; None where it does not say."""
    av = require("av", extra=films.EXTRA)
    with av.open(io.BytesIO(payload), metadata_errors="ignore") as opened:
        return opened.duration / 1_000_000 if opened.duration and opened.duration > 0 else None


def _image(pixels: Any) -> Any:
    from PIL import Image

    return Image.fromarray(pixels)

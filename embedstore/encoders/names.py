"""How an encoder is named: ``FAMILY:MODEL[@POOLING][@DIMENSIONS][+windows][+pieces]``."""

from __future__ import annotations

import re
from dataclasses import dataclass

ALIASES = {
    "clip": "openclip:ViT-B-32/laion2b_s34b_b79k",
    "siglip2": "openclip:ViT-B-16-SigLIP2/webli",
    "dinov2": "timm:vit_small_patch14_dinov2.lvd142m",
    "resnet50": "timm:resnet50.a1_in1k",
    "bert": "st:google-bert/bert-base-uncased",
}
"""Short names for encoders whose weights come from a hub."""

LICENSES = {
    "clip": "mit",
    "siglip2": "apache-2.0",
    "dinov2": "apache-2.0",
    "resnet50": "apache-2.0",
    "bert": "apache-2.0",
    "effnet-lite0": "apache-2.0",
    "minilm": "apache-2.0",
}
"""Of the weights that a name stands for, as their model cards say it; of all others the card is read when they are loaded."""

SCHEMES = ("hf-hub", "local-dir")
"""Where open_clip and timm find models that they do not know by name: ``hf-hub:ORG/NAME``, ``local-dir:FOLDER``."""

POOLINGS = ("token", "avg", "token+avg")
WINDOWS, PIECES = "+windows", "+pieces"

FRAMES = "frames:"
"""What stands before the name of an encoder of images that videos go through; `SCENES` and a number of frames may follow."""
SCENES = "scenes:"

_SUFFIX = re.compile(
    r"(?P<rest>.+?)(?:@(?P<pooling>token\+avg|token|avg))?(?:@(?P<dim>\d+))?(?P<windows>\+windows)?(?P<pieces>\+pieces)?",
    re.DOTALL,
)


@dataclass(frozen=True)
class EncoderName:
    """A name taken apart.

    Parameters
    ----------
    plain : str
        Without what is asked of the model: family and model, or an alias.
    pooling : str, optional
        One of `POOLINGS`.
    dim : int, optional
        How many leading numbers of a vector are kept.
    windows : bool
    pieces : bool
    """

    plain: str
    pooling: str | None = None
    dim: int | None = None
    windows: bool = False
    pieces: bool = False

    @classmethod
    def parse(cls, name: str) -> EncoderName:
        """Anything else after an ``@``, such as a revision, stays with the model."""
        found = _SUFFIX.fullmatch(name)
        if found is None:
            return cls(name)
        dim = found["dim"]
        asked = {word: found[word] is not None for word in ("windows", "pieces")}
        return cls(found["rest"], found["pooling"], None if dim is None else int(dim), **asked)

    @classmethod
    def spelled_out(cls, name: str) -> str:
        """`name` without an alias."""
        plain = cls.parse(name).plain
        return ALIASES.get(plain, plain) + name.removeprefix(plain)

    @property
    def family(self) -> str:
        return self.spelled_out(self.plain).partition(":")[0]

    @property
    def model(self) -> str:
        """What follows the family's colon."""
        return self.spelled_out(self.plain).partition(":")[2]


def inner_name(name: str) -> str | None:
    """The encoder in ``frames:[scenes:][COUNT:]ENCODER``; None where there is none."""
    if not name.startswith(FRAMES):
        return None
    rest = name.removeprefix(FRAMES).removeprefix(SCENES)
    count, _, after = rest.partition(":")
    return (after if count.isdigit() else rest) or None

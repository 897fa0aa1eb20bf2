"""C1: are the device's vectors those of a CPU in float32, in every precision and whatever the batch?"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks._gpu import data
from benchmarks._gpu.run import Run
from benchmarks._gpu.world import Make, World, encoded, pillow_only
from embedstore.encoders.base import Encoder
from embedstore.encoders.runtimes.base import agreement

LEAST = {"float32": 0.99999, "float16": 0.9999, "auto": 0.9999}
"""Least cosine to float32 on a CPU; bfloat16 is for those who ask for it, and only reported."""
SAME = 0.9999
"""Least cosine between batches of different sizes."""
FEW = 16
"""Pictures that a CPU takes through the large model."""
ODD = 7


def vectors(world: World, run: Run) -> None:
    sizes = world.sizes
    pictures = [sample.payload for sample in world.samples(sizes.small)]
    texts = [text.encode() for text in data.texts(len(pictures), 3, 12)]
    given: list[tuple[str, Make, Sequence[bytes]]] = [
        (name, make, pictures[: FEW if name == sizes.big else None]) for name, make in world.image_encoders.items()
    ]
    given.append((f"{sizes.base} by name", lambda device, precision: world.clip("image", device, precision), pictures))
    given.append((f"{sizes.base} texts", lambda device, precision: world.clip("text", device, precision), texts))
    given.append(("MiniLM", world.minilm, texts))
    for name, make, payloads in given:
        with run.attempt(name), pillow_only():  # of decoders on the device tells C3
            _compared(world, run, name, make, payloads)


def _compared(world: World, run: Run, name: str, make: Make, payloads: Sequence[bytes]) -> None:
    reference = encoded(make("cpu", "float32"), payloads)
    precisions = ("float32", "auto") if name.endswith("texts") else ("auto",) if name.endswith("by name") else world.precisions
    for precision in precisions:
        with run.attempt(name, precision):
            encoder = make(world.device, precision)
            cosine = agreement(encoded(encoder, payloads), reference)
            if precision in LEAST:
                run.check(name, precision, cosine, "≥", LEAST[precision])
            else:
                run.report(name, precision, cosine)
            if precision == "auto":
                run.report(name, "auto is", encoder.provenance().get("precision", "unknown"))
                run.check(name, "batches of 1, 7 and all", between_batches(encoder, payloads), "≥", SAME)


def between_batches(encoder: Encoder, payloads: Sequence[bytes]) -> float:
    """Least cosine between vectors of batches of 1, of 7 and of all payloads."""
    whole = encoded(encoder, payloads, len(payloads))
    singly = encoded(encoder, payloads[:FEW], 1)
    return min(agreement(singly, whole[:FEW]), agreement(encoded(encoder, payloads, ODD), whole))

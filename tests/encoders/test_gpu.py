"""Encoders on a card: what `benchmarks.gpu` proves with large networks, here with small ones. Skipped where there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

import torch

from benchmarks._gpu import data
from benchmarks._gpu.decoders import AGREES, both_ways, damaged_among
from benchmarks._gpu.memory import ends, memory
from benchmarks._gpu.run import Run
from benchmarks._gpu.vectors import LEAST, SAME, between_batches
from benchmarks._gpu.world import TINY, World, encoded, pillow_only
from embedstore.encoders.runtimes.base import agreement

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    yield World("cuda", TINY, tmp_path_factory.mktemp("gpu"))
    torch.cuda.empty_cache()


@pytest.fixture
def pictures(world: World) -> list[bytes]:
    return [sample.payload for sample in world.samples(TINY.small)]


@pytest.mark.parametrize("precision", sorted(LEAST))
@pytest.mark.parametrize("name", [TINY.base, TINY.big])
def test_images_give_the_vectors_of_a_cpu(world: World, pictures: list[bytes], name: str, precision: str) -> None:
    with pillow_only():
        expected = encoded(world.vision(name, "cpu", "float32"), pictures)
        assert agreement(encoded(world.vision(name, precision=precision), pictures), expected) >= LEAST[precision]


@pytest.mark.parametrize("precision", sorted(LEAST))
def test_texts_give_the_vectors_of_a_cpu(world: World, precision: str) -> None:
    texts = [text.encode() for text in data.texts(20, 3, 12)]
    for make in (world.minilm, lambda device, precision: world.clip("text", device, precision)):
        assert agreement(encoded(make("cuda", precision), texts), encoded(make("cpu", "float32"), texts)) >= LEAST[precision]


def test_the_size_of_a_batch_changes_no_vector(world: World, pictures: list[bytes]) -> None:
    assert between_batches(world.vision(TINY.base), pictures) >= SAME


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_files_decoded_on_the_card_give_pillow_s_vectors(world: World, device: str) -> None:
    _, cosine = both_ways(world.vision(TINY.base, device), world.samples(TINY.large))
    assert cosine >= AGREES


def test_damaged_files_cost_themselves(world: World, pictures: list[bytes], tmp_path: Path) -> None:
    files = [*pictures, data.cut_off(pictures[0]), data.beheaded(pictures[4])]
    counts = damaged_among(world.vision(TINY.base), files, tmp_path / "store")
    assert (counts.embedded, counts.failed) == (len(pictures), 2)


def test_a_batch_that_does_not_fit_costs_time_and_nothing_else(world: World, tmp_path: Path) -> None:
    run = Run(tmp_path, 60)
    memory(world, run)
    assert not [row for row in run.rows if row.verdict == "FAIL"]


def test_a_card_that_died_ends_the_run(world: World) -> None:
    assert ends(world, world.files(TINY.small))

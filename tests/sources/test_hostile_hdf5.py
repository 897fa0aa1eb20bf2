"""HDF5 files point at other files and claim what they do not hold: neither is followed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

import embedstore as es
from embedstore._core.hdf5 import plain_dataset
from embedstore.errors import CorruptStoreError, SourceError

SECRET = np.arange(32, dtype=np.float32).reshape(8, 4)


def soft(file: h5py.File, other: Path) -> None:
    file["real"] = SECRET
    file["vectors"] = h5py.SoftLink("/real")


def external_link(file: h5py.File, other: Path) -> None:
    file["vectors"] = h5py.ExternalLink(str(other), "vectors")


def external_group(file: h5py.File, other: Path) -> None:
    file["g"] = h5py.ExternalLink(str(other), "/")


def virtual(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout(SECRET.shape, SECRET.dtype)
    layout[:] = h5py.VirtualSource(str(other), "vectors", SECRET.shape)
    file.create_virtual_dataset("vectors", layout)


def elsewhere(file: h5py.File, other: Path) -> None:
    file.create_dataset("vectors", SECRET.shape, SECRET.dtype, external=[(str(other), 2048, SECRET.nbytes)])


def never_written(file: h5py.File, other: Path) -> None:
    file.create_dataset("vectors", (1 << 34, 128), "f4")


def zeros(file: h5py.File, other: Path) -> None:
    file.create_dataset("vectors", (1 << 30, 128), "f4", chunks=(1 << 16, 128), compression="gzip")


def one_chunk(file: h5py.File, other: Path) -> None:
    file.create_dataset("vectors", (1 << 21, 160), "f4", chunks=(1 << 21, 160), compression="gzip")[:1] = 1


def objects(file: h5py.File, other: Path) -> None:
    file.create_dataset("vectors", (8, 4), h5py.vlen_dtype(np.float32))


@pytest.mark.parametrize("make", [soft, external_link, virtual, elsewhere, never_written, zeros, one_chunk, objects])
def test_only_what_lies_in_the_file_is_imported(make: Callable[[h5py.File, Path], None], tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["vectors"] = SECRET
    with h5py.File(tmp_path / "given.h5", "w") as file:
        make(file, tmp_path / "other.h5")
    named = f"{tmp_path / 'given.h5'}:/vectors"
    if make is soft:  # what it leads to is found under its own name
        assert es.import_vectors(tmp_path / "given.h5", tmp_path / "s", modality="text").items == 8
        return
    with pytest.raises((SourceError, es.errors.UsageError)) as refused:
        es.import_vectors(named, tmp_path / "s", modality="text")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (soft, "vectors"),
        (external_link, "vectors"),
        (external_group, "g/vectors"),
        (virtual, "vectors"),
        (elsewhere, "vectors"),
        (never_written, "vectors"),
        (zeros, "vectors"),
        (one_chunk, "vectors"),
    ],
)
def test_a_dataset_is_plain(make: Callable[[h5py.File, Path], None], name: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["vectors"] = SECRET
    with h5py.File(tmp_path / "given.h5", "w") as file:
        make(file, tmp_path / "other.h5")
    with h5py.File(tmp_path / "given.h5") as file, pytest.raises(CorruptStoreError, match=f"/{name}"):
        plain_dataset(file, name, "given.h5")


def test_compressed_and_chunked_datasets_are_plain(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "given.h5", "w") as file:
        file.create_dataset("a/vectors", data=SECRET, chunks=(2, 4), compression="gzip")
    with h5py.File(tmp_path / "given.h5") as file:
        assert (plain_dataset(file, "/a/vectors", "x")[()] == SECRET).all()
        with pytest.raises(KeyError):
            plain_dataset(file, "/a/vectors/b", "x")
        with pytest.raises(KeyError):
            plain_dataset(file, "b", "x")


def test_a_virtual_dataset_shows_plain_files_below_a_folder_alone(tmp_path: Path) -> None:
    """As the embeddings.h5 of a store does."""
    (tmp_path / "in").mkdir()
    for file in (tmp_path / "in" / "part.h5", tmp_path / "part.h5"):
        with h5py.File(file, "w") as h5:
            h5["vectors"] = SECRET
    (tmp_path / "in" / "link.h5").symlink_to(tmp_path / "part.h5")
    for at, (source, shape, right) in enumerate(
        [
            ("part.h5", SECRET.shape, True),
            ("../part.h5", SECRET.shape, False),
            ("link.h5", SECRET.shape, False),
            ("gone.h5", SECRET.shape, False),
            (str(tmp_path / "part.h5"), SECRET.shape, False),
            ("part.h5", (1 << 40, SECRET.shape[1]), False),
        ]
    ):
        given = tmp_path / "in" / f"given{at}.h5"
        with h5py.File(given, "w") as h5:
            layout = h5py.VirtualLayout(shape, SECRET.dtype)
            layout[: len(SECRET)] = h5py.VirtualSource(source, "vectors", SECRET.shape)
            h5.create_virtual_dataset("vectors", layout)
        with h5py.File(given) as h5:
            if right:
                assert (plain_dataset(h5, "vectors", "x", below=given.parent)[()] == SECRET).all()
                continue
            with pytest.raises(CorruptStoreError, match="/vectors is"):
                plain_dataset(h5, "vectors", "x", below=given.parent)

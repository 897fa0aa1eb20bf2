"""Datasets that claim what they do not hold: bounded memory, one line, no hang."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import run

MEMORY = 5 << 29
"""Bytes of address space, beyond those of the libraries."""
RUN = f"""
import resource, sys
from embedstore_cli.main import main
most = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + {MEMORY}
resource.setrlimit(resource.RLIMIT_AS, (most, most))
main()
"""


def said(*words: object, stdin: bytes = b"") -> tuple[int, str]:
    """Exit code and stderr of a command with bounded memory."""
    done = run("-c", RUN, *words, code=None, given=stdin)
    lines = [line for line in done.stderr.splitlines() if line.startswith("embedstore: ")]
    assert "Traceback" not in done.stderr, done.stderr
    assert len(lines) == (done.returncode != 0), done.stderr
    return done.returncode, done.stderr


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """A tar whose headers say what they say, whatever follows them."""
    return b"".join(info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512) for info, data in members) + bytes(1024)


def member(name: str, size: int, kind: bytes = tarfile.REGTYPE, **pax: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info


def huge(folder: Path) -> Path:
    (folder / "a.tar").write_bytes(tar_of((member("a.png", 1 << 40), b"x")))
    return folder / "a.tar"


def negative(folder: Path) -> Path:
    header = bytearray(member("a.png", 1).tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 12  # -1 in base 256
    header[148:156] = b"%06o\0 " % (256 + sum(header[:148]) + sum(header[156:]))
    (folder / "a.tar").write_bytes(bytes(header) + bytes(1024))
    return folder / "a.tar"


def pax_negative(folder: Path) -> Path:
    record = b"12 size=-99\n"
    data = tar_of((member("pax", len(record), tarfile.XHDTYPE), record), (member("a.png", 1), b"x"))
    (folder / "a.tar").write_bytes(data)
    return folder / "a.tar"


def long_name(folder: Path) -> Path:
    """A compressed name of a gigabyte."""
    with gzip.open(folder / "a.tar.gz", "wb", compresslevel=1) as file:
        file.write(member("name", 1 << 30, tarfile.GNUTYPE_LONGNAME).tobuf(tarfile.GNU_FORMAT))
        for _ in range(16):
            file.write(bytes(1 << 20))
    return folder / "a.tar.gz"


def sparse(folder: Path) -> Path:
    """A GNU sparse file of a terabyte of holes."""
    header = bytearray(member("a.png", 0, tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"\x80" + (1 << 40).to_bytes(11, "big")
    header[148:156] = b"%06o\0 " % (256 + sum(header[:148]) + sum(header[156:]))
    (folder / "a.tar").write_bytes(bytes(header) + bytes(1024))
    return folder / "a.tar"


def deep_json(folder: Path) -> Path:
    with tarfile.open(folder / "a.tar", "w") as tar:
        for name, data in (("a.txt", b"words"), ("a.json", b"[" * 500_000)):
            tar.addfile(member(name, len(data)), io.BytesIO(data))
    return folder / "a.tar"


def nested(ending: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / f"t.{ending}"
        path.write_text('{"id": "a", "text": "x", "n": ' + "[" * 1_000_000 + "]" * 1_000_000 + "}\n")
        return path

    return make


def long_line(ending: str) -> Callable[[Path], Path]:
    """A line of 300 MB without an end."""

    def make(folder: Path) -> Path:
        path = folder / f"t.{ending}"
        with open(path, "wb") as file:
            file.write(b"id,text\na," if ending == "csv" else b'{"id": "a", "text": "')
            for _ in range(300):
                file.write(b"x" * (1 << 20))
        return path

    return make


def long_path(folder: Path) -> Path:
    (folder / "t.lst").write_bytes(b"x" * (64 << 20))
    return folder / "t.lst"


MADE = [
    huge,
    negative,
    pax_negative,
    long_name,
    sparse,
    deep_json,
    nested("jsonl"),
    long_line("csv"),
    long_line("jsonl"),
    long_path,
]


@pytest.mark.parametrize("make", MADE, ids=lambda make: make.__qualname__.split(".")[0])
def test_what_a_dataset_claims_takes_no_memory(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path)
    code, line = said("embed", path, "--store", tmp_path / "s", "--image" if ".tar" in path.name else "--text", "hash:8")
    assert code == 1 or "memory" not in line


PATTERNS = ["a-{0..999999999999}.tar", "a-" + "{0..9}" * 7 + ".tar", "a" + "{b,c}" * 60 + ".tar"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_of_a_billion_names_is_refused(pattern: str, tmp_path: Path) -> None:
    code, line = said("embed", tmp_path / pattern, "--store", tmp_path / "s", "--image", "hash:8")
    assert code == 1
    assert "Name" in line


def test_lines_on_standard_input_are_bounded(tmp_path: Path) -> None:
    for line in (b'{"text": "' + b"x" * (70 << 20), b"[" * 1_000_000, b'{"text": ' * 100_000):
        code, _ = said("embed", "-", "--store", tmp_path / "s", "--text", "hash:8", stdin=line)
        assert code == 1


def header(shape: str, descr: str = "<f4") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(118 + 10000 * (len(shape) > 50)) + "\n"
    return b"\x93NUMPY\x02\x00" + len(text).to_bytes(4, "little") + text.encode()


SHAPES = ["(1000000000000, 512)", "(-4, 8)", "(" * 3000, "(99999999999999999999999, 99999)", "('a', 8)", "(8, 8.5)"]


@pytest.mark.parametrize("shape", SHAPES)
def test_headers_of_numpy_are_believed_where_the_file_is_as_long(shape: str, tmp_path: Path) -> None:
    (tmp_path / "v.npy").write_bytes(header(shape) + bytes(4096))
    with zipfile.ZipFile(tmp_path / "v.npz", "w") as archive:
        archive.writestr("vectors.npy", header(shape) + bytes(4096))
    for name in ("v.npy", "v.npz"):
        assert said("import", tmp_path / name, tmp_path / "s", "--modality", "text")[0] == 1


def test_objects_are_no_vectors_and_no_ids(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.asarray([[{"a": 1}]], object), allow_pickle=True)
    np.save(tmp_path / "w.npy", np.ones((1, 4), np.float32))
    np.save(tmp_path / "ids.npy", np.asarray([{"a": 1}], object), allow_pickle=True)
    np.savez(tmp_path / "z.npz", vectors=np.ones((1, 4), np.float32), ids=np.asarray([{"a": 1}], object))
    for words in (["v.npy"], ["w.npy", "--ids", tmp_path / "ids.npy"], ["z.npz"]):
        assert said("import", tmp_path / words[0], tmp_path / "s", "--modality", "text", *words[1:])[0] == 1


def test_ids_of_a_terabyte_in_an_npz(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.npz", "w") as archive:
        archive.writestr("vectors.npy", header("(2, 4)") + bytes(32))
        archive.writestr("ids.npy", header("(2, )", "<U100000000000") + bytes(64))
    assert said("import", tmp_path / "z.npz", tmp_path / "s", "--modality", "text")[0] == 1


def test_a_payload_of_a_terabyte_is_one_failure(tmp_path: Path) -> None:
    for name in ("big.png", "small.png"):
        (tmp_path / "d").mkdir(exist_ok=True)
        (tmp_path / "d" / name).write_bytes(b"x")
    with open(tmp_path / "d" / "big.png", "r+b") as file:
        file.truncate(1 << 40)
    assert said("embed", tmp_path / "d", "--store", tmp_path / "s", "--image", "hash:8")[0] == 0
    import embedstore as es

    failures = es.Store.open(tmp_path / "s").space("image").failures.to_pylist()
    assert [row["id"] for row in failures] == ["big.png"]


def test_json_of_a_store_is_bounded(tmp_path: Path) -> None:
    from embedstore._core.atomic_files import JSON_BYTES, read_json
    from embedstore.errors import StoreError

    path = tmp_path / "a.json"
    for content in (b"[" * 1_000_000, b'{"a": 1, "a": 2}', b'{"a": ' + b"9" * 5000 + b"}", b"[]", b"\xff", b'{"a": ' * 100_000):
        path.write_bytes(content)
        with pytest.raises(StoreError) as refused:
            read_json(path)
        assert "\n" not in str(refused.value)
    with open(path, "wb") as file:
        file.truncate(JSON_BYTES + 1)
    with pytest.raises(StoreError, match="bytes"):
        read_json(path)

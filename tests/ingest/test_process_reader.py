"""Reading and preparing in processes: what threads give, and a process that ends costs the payload that ended it."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import write_image
from outside_factories import first_bytes

import embedstore as es
from embedstore.encoders.base import Outside
from embedstore.encoders.hash import HashEncoder
from embedstore.encoders.payloads.images import ImageTransform
from embedstore.encoders.payloads.preparation import Preparation
from embedstore.errors import EncoderError, PayloadError
from embedstore.ingest.process_reader import LARGE, ProcessReader
from embedstore.ingest.produce import GROUP_BYTES
from embedstore.ingest.readers import ThreadReader, ToRead
from embedstore.sources import MemorySource
from embedstore.sources.confined import Root

WIDTH = 16
TRANSFORM = ImageTransform((8, 8), "shortest", 8, "bicubic", (0.5,) * 3, (0.5,) * 3)


class FirstBytes(HashEncoder):
    """The vector is the first bytes."""

    outside: Outside | None = None

    def __init__(
        self,
        *,
        processes: bool = True,
        factory: str = "outside_factories:first_bytes",
        arguments: dict[str, Any] | None = None,
        batch_size: int = 4,
    ) -> None:
        super().__init__(WIDTH, "image", "first-bytes")
        self.batch_size = batch_size
        arguments = {"width": WIDTH} if factory.endswith("first_bytes") else arguments or {}
        self.outside = (
            Outside(factory, lambda: arguments, (WIDTH,), lambda payload, said: (bytes(payload), said)) if processes else None
        )

    def prepare(self, payload: bytes) -> Any:
        found = first_bytes(WIDTH)(payload)
        return (payload, found) if isinstance(found, list) else found

    def encode(self, batch: Sequence[Any]) -> Any:
        return np.stack([p if isinstance(p, np.ndarray) else np.full(WIDTH, p[1][0]) for p in batch]).astype(np.float32) + 1


@pytest.fixture
def reader() -> Iterator[ProcessReader]:
    made = ProcessReader(1, [ENCODER], 5.0)
    yield made
    made.close()


ENCODER = FirstBytes()
HANGING = FirstBytes(factory="outside_factories:hanging")


def written(folder: Path, contents: Sequence[bytes]) -> list[str]:
    paths = []
    for i, content in enumerate(contents):
        path = folder / f"{i}.bin"
        path.write_bytes(content)
        paths.append(str(path))
    return paths


def to_read(paths: Sequence[str]) -> list[ToRead]:
    return [ToRead(path, None, os.stat(path).st_size if os.path.exists(path) else None) for path in paths]


def test_what_is_read_is_what_threads_read(reader: ProcessReader, tmp_path: Path) -> None:
    paths = written(tmp_path, [b"one", b"", b"x" * 100_000, b"four"])
    odd = tmp_path / os.fsdecode(b"n\xe4me.bin")  # not UTF-8
    odd.write_bytes(b"odd name")
    work = [
        *to_read([*paths, str(odd), str(tmp_path / "absent")]),
        ToRead("given", b"bytes"),
        ToRead(str(tmp_path), None, 4096),
    ]
    work.append(work[3]._replace(size=2))  # it has grown since it was planned
    work.append(work[3]._replace(size=9))  # it has shrunk
    ours, theirs = reader.read(work), ThreadReader().read(work)
    assert list(ours.digests) == list(theirs.digests)
    for mine, expected in zip(ours.payloads, theirs.payloads, strict=True):
        if isinstance(expected, PayloadError):
            assert str(mine) == str(expected)
        else:
            assert not isinstance(mine, PayloadError)
            assert bytes(mine) == expected
    assert [isinstance(p, PayloadError) for p in ours.payloads] == [False] * 5 + [True, False, True, False, False]


def test_what_is_prepared_is_what_threads_prepare(reader: ProcessReader, tmp_path: Path) -> None:
    group = reader.read([*to_read(written(tmp_path, [b"alpha", b"fail", b"keep me", b"odd", b"beta"])), ToRead("", b"given")])
    payloads = [p for p in group.payloads if not isinstance(p, PayloadError)]
    ours, theirs = reader.prepare(ENCODER, payloads), ThreadReader().prepare(ENCODER, payloads)
    assert [str(p) for p in ours] == [str(p) for p in theirs]
    assert isinstance(ours[0], np.ndarray)
    assert ours[2] == (b"keep me", [7])


@pytest.mark.parametrize(("payload", "how"), [(b"crash", "was ended by SIGSEGV"), (b"leave", "ended with status 3")])
def test_a_payload_that_ends_its_process_costs_itself(reader: ProcessReader, payload: bytes, how: str) -> None:
    payloads = [b"one", payload, b"two", b"three"]
    found = reader.prepare(ENCODER, payloads)
    assert [isinstance(p, PayloadError) for p in found] == [False, True, False, False]
    assert (found[1].stage, found[1].reason) == ("decode", f"the process that was to do it {how}")
    assert [bytes(found[i]) for i in (0, 2, 3)] == [p.ljust(WIDTH) for p in (b"one", b"two", b"three")]
    assert bytes(reader.prepare(ENCODER, [b"again"])[0]) == b"again".ljust(WIDTH)


def test_a_process_that_is_killed_between_payloads_is_started_again(reader: ProcessReader, tmp_path: Path) -> None:
    paths = written(tmp_path, [b"one", b"two"])
    first = reader.read(to_read(paths[:1]))
    process = reader._all[0]._process
    assert process is not None
    process.send_signal(signal.SIGKILL)
    process.wait()
    second = reader.read(to_read(paths[1:]))
    assert [bytes(g.payloads[0]) for g in (first, second)] == [b"one", b"two"]  # type: ignore[arg-type]
    assert bytes(reader.prepare(ENCODER, [first.payloads[0]])[0]) == b"one".ljust(WIDTH)  # type: ignore[list-item]


def test_memory_is_used_again_only_once_nothing_looks_at_it(reader: ProcessReader) -> None:
    kept = reader.prepare(ENCODER, [b"kept"])[0]
    for i in range(5):
        assert bytes(reader.prepare(ENCODER, [f"other {i}".encode()])[0]) == f"other {i}".encode().ljust(WIDTH)
    assert bytes(kept) == b"kept".ljust(WIDTH)
    numbers = {slab.number for free in reader._slabs._free.values() for slab, _ in free}
    assert len(numbers) == 2  # one for payloads, one for arrays


def test_the_encoders_own_error_ends_the_run(tmp_path: Path) -> None:
    paths = written(tmp_path, [b"one", b"broken"])
    source = MemorySource({"id": ["a", "b"], "image": paths})
    with pytest.raises(EncoderError, match=r"^The encoder is broken\. Mend it\.$"):
        es.embed(source, tmp_path / "s", image=FirstBytes(), workers=1)


@pytest.mark.parametrize(
    ("factory", "said"),
    [("outside_factories:refusing", "There is no such model"), ("no_such_module:x", "No module named 'no_such_module'")],
)
def test_a_factory_that_fails_is_one_line(factory: str, said: str, tmp_path: Path) -> None:
    source = MemorySource({"id": ["a"], "image": written(tmp_path, [b"one"])})
    with pytest.raises(EncoderError, match=said):
        es.embed(source, tmp_path / "s", image=FirstBytes(factory=factory), workers=1)


@pytest.mark.parametrize(
    ("factory", "arguments", "said"),
    [
        (
            "odd_arrays",
            {"shape": [8], "dtype": "uint8"},
            r"made an array of shape \(8,\), uint8; its encoder declares \(16,\), uint8",
        ),
        ("odd_arrays", {"shape": [16], "dtype": "float32"}, r"made an array of shape \(16,\), float32"),
        ("unsayable", {}, "int64 is not JSON serializable"),
    ],
)
def test_what_a_preparation_may_not_give_ends_the_run(
    factory: str, arguments: dict[str, Any], said: str, tmp_path: Path
) -> None:
    encoder = FirstBytes(factory=f"outside_factories:{factory}", arguments=arguments)
    source = MemorySource({"id": ["a", "b"], "image": written(tmp_path, [b"one", b"two"])})
    with pytest.raises(EncoderError, match=said):
        es.embed(source, tmp_path / "s", image=encoder, workers=1)


def test_a_process_that_the_system_kills_costs_payloads_this_run_alone(tmp_path: Path) -> None:
    marker = tmp_path / "pressure"
    marker.touch()
    made = {"factory": "outside_factories:in_file", "arguments": {"path": str(marker), "width": WIDTH}}
    source = {"id": ["a", "b"], "image": written(tmp_path, [b"one", b"die of memory"])}
    report = es.embed(MemorySource(source), tmp_path / "s", image=FirstBytes(**made), workers=1)  # type: ignore[arg-type]
    ((_, item, stage, reason),) = report.failures
    assert (item, stage) == ("b", "read")
    assert reason == "the process that was to do it was ended by SIGKILL; the next run tries again"
    marker.unlink()
    again = es.embed(MemorySource(source), tmp_path / "s", image=FirstBytes(**made), workers=1)  # type: ignore[arg-type]
    assert (again.spaces["image"].embedded, again.spaces["image"].failed) == (1, 0)


def test_the_folder_of_a_dataset_is_not_where_processes_import_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`cd dataset && embedstore embed .` runs nothing that lies there."""
    for name in ("queue", "json", "numpy", "embedstore"):
        (tmp_path / f"{name}.py").write_text("import os; open('ran', 'w').close(); os._exit(9)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    reader = ProcessReader(1, [ENCODER], 5.0)
    try:
        assert bytes(reader.prepare(ENCODER, [b"one"])[0]) == b"one".ljust(WIDTH)
    finally:
        reader.close()
    assert not (tmp_path / "ran").exists()


def test_many_large_files_need_few_open_files(tmp_path: Path) -> None:
    """Each is a group of its own; all wait for one slow batch."""
    paths = []
    for i in range(150):
        path = tmp_path / f"{i}.bin"
        path.write_bytes(b"%03d" % i)
        os.truncate(path, LARGE + 1 if i % 2 else GROUP_BYTES // 4)
        paths.append(str(path))
    most = []

    class Slow(FirstBytes):
        def encode(self, batch: Sequence[Any]) -> Any:
            most.append(len(os.listdir("/proc/self/fd")))
            return super().encode(batch)

    before = len(os.listdir("/proc/self/fd"))
    report = es.embed(MemorySource({"id": paths, "image": paths}), tmp_path / "s", image=Slow(batch_size=128), workers=2)
    assert report.spaces["image"].embedded == 150
    assert max(most) - before < 60


def test_sizes_that_no_memory_holds_are_failures(tmp_path: Path) -> None:
    path = tmp_path / "sparse.bin"
    path.touch()
    os.truncate(path, 1 << 40)
    report = es.embed(MemorySource({"id": ["a"], "image": [str(path)]}), tmp_path / "s", image=FirstBytes(), workers=1)
    assert "of at most" in report.failures[0][3]


def test_several_threads_ask_at_once(tmp_path: Path) -> None:
    paths = written(tmp_path, [f"content {i}".encode() for i in range(120)])
    reader = ProcessReader(3, [ENCODER], 5.0)
    try:
        with ThreadPoolExecutor(3) as pool:
            groups = list(pool.map(reader.read, [to_read(paths[lo : lo + 10]) for lo in range(0, 120, 10)]))
            found = list(pool.map(lambda group: reader.prepare(ENCODER, group.payloads), groups))
    finally:
        reader.close()
    assert [bytes(one) for group in found for one in group] == [f"content {i}".encode().ljust(WIDTH) for i in range(120)]


def test_a_run_without_anything_new_asks_for_no_model(tmp_path: Path) -> None:
    source = {"id": ["a", "b"], "image": written(tmp_path, [b"one", b"two"])}
    es.embed(MemorySource(source), tmp_path / "s", image=FirstBytes(), workers=1)
    encoder = FirstBytes()

    def refuse() -> dict[str, Any]:
        raise AssertionError("the model was opened")

    encoder.outside = dataclasses.replace(encoder.outside, arguments=refuse)  # type: ignore[type-var]
    for rehash in (False, True):
        report = es.embed(MemorySource(source), tmp_path / "s", image=encoder, workers=1, rehash=rehash)
        assert report.spaces["image"].unchanged == 2


def test_what_stops_a_run_does_not_wait_for_a_payload_that_hangs(tmp_path: Path) -> None:
    """Nor are processes started once it is over."""
    reader = ProcessReader(1, [HANGING], 5.0)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(reader.prepare, HANGING, [b"one", b"two"])
        while reader._all[0]._process is None or not reader._all[0]._opened:
            time.sleep(0.01)
        reader.abandon()
        with pytest.raises(EncoderError, match="The run is over"):
            waiting.result(timeout=20)
    reader.close()
    with pytest.raises(EncoderError, match="The run is over"):
        reader.prepare(HANGING, [b"three"])


def test_a_store_is_the_one_that_threads_make(tmp_path: Path) -> None:
    contents = [f"content {i % 40}".encode() for i in range(100)] + [b"fail", b"odd", b"", b"keep it"]
    paths = [*written(tmp_path, contents), str(tmp_path / "absent")]
    source = {"id": list(map(str, range(105))), "image": paths}
    for name, processes in (("threads", False), ("processes", True)):
        report = es.embed(MemorySource(source), tmp_path / name, image=FirstBytes(processes=processes), workers=2)
        image = report.spaces["image"]
        assert (image.embedded, image.failed, image.distinct) == (102, 3, 42)
    ours, theirs = (es.Store.open(tmp_path / name).spaces["image"] for name in ("processes", "threads"))
    np.testing.assert_array_equal(ours.vectors(), theirs.vectors())
    assert ours.rows.tolist() == theirs.rows.tolist()
    assert ours.failures.equals(theirs.failures)
    report = es.embed(MemorySource(source), tmp_path / "processes", image=FirstBytes())
    assert (report.spaces["image"].embedded, report.spaces["image"].unchanged) == (0, 102)


def test_pictures_are_those_of_threads(tmp_path: Path) -> None:
    paths = [str(write_image(tmp_path / f"{i}.{kind}", i, (40 + i, 30))) for i, kind in enumerate(["png", "jpg", "png"])]

    class Pixels(HashEncoder):
        def __init__(self, processes: bool) -> None:
            super().__init__(192, "image", "pixels")
            self.prepare = Preparation(TRANSFORM, 1 << 20)  # type: ignore[assignment, method-assign]
            factory = f"{Preparation.__module__}:preparation"
            self.outside = Outside(factory, self.prepare.arguments, (8, 8, 4)) if processes else None  # type: ignore[attr-defined]

        def encode(self, batch: Any) -> Any:
            return np.stack(batch)[..., :3].reshape(len(batch), -1).astype(np.float32) / 255

    found = []
    for processes in (False, True):
        source = MemorySource({"id": list("abc"), "image": paths})
        es.embed(source, tmp_path / f"s{processes}", image=Pixels(processes), workers=1)
        found.append(es.Store.open(tmp_path / f"s{processes}").spaces["image"].vectors())
    np.testing.assert_array_equal(*found)


def test_payloads_outside_of_the_root_are_refused_by_the_process(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    inside, other = written(tmp_path / "in", [b"inside"])[0], written(tmp_path, [b"outside"])[0]
    link = tmp_path / "in" / "link.bin"
    link.symlink_to(other)
    reader = ProcessReader(1, [ENCODER], 5.0, Root(tmp_path / "in"))
    try:
        group = reader.read([ToRead(path, None, 7) for path in (inside, other, str(link))])
    finally:
        reader.close()
    assert [isinstance(p, PayloadError) for p in group.payloads] == [False, True, True]
    assert "is not below --root" in str(group.payloads[2])


def test_no_process_outlives_its_parent(tmp_path: Path) -> None:
    """Not even a parent that is killed."""
    code = (
        "import sys, time\n"
        "from embedstore.ingest.process_reader import ProcessReader\n"
        "from test_process_reader import ENCODER\n"
        "reader = ProcessReader(1, [ENCODER], 5.0)\n"
        "reader.prepare(ENCODER, [b'one'])\n"
        "print(reader._all[0]._process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

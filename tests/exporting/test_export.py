"""Every target on one contract: what the store is arrives, once, and stays so whatever happens in between."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import exports
import numpy as np
import pytest
from exports import ENGINES, FOLDERS, held, rich_store, target
from helpers import run

import embedstore as es
from embedstore.encoders.hash import HashEncoder
from embedstore.errors import FingerprintError, MissingDependencyError, OutputError, UsageError
from embedstore.exporting import milvus
from embedstore.registry import EXPORTERS
from embedstore.sources import MemorySource

TARGETS = (*FOLDERS, *ENGINES)
MAPPED: dict[str, dict[str, Any]] = {"embedding-atlas": {"space": "image"}}
"""A map is of one space; every item has an image."""
every_target = pytest.mark.parametrize("to", TARGETS)


def test_every_target_is_tested() -> None:
    assert set(TARGETS) == set(EXPORTERS)


@every_target
def test_it_becomes_what_the_store_is(to: str, tmp_path: Path) -> None:
    """Odd ids, types of all kinds, an item without text; then nothing new; then an item less, one more, one changed."""
    store, out = rich_store(tmp_path / "a.store"), target(tmp_path, to)
    asked = MAPPED.get(to, {})
    first = es.export(store, to=to, out=out, **asked)
    assert (first.changes.written, first.changes.removed) == (len(store), 0)
    assert first.check.items == first.check.sampled == len(store)
    for name, recall in first.check.recall.items():
        assert recall.exact is not None, name
        assert recall.exact.value == 1
        assert (recall.default is None) == (to in FOLDERS)
    assert held(to, out).keys() == set(exports.IDS)

    again = es.export(store, to=to, out=out, **asked)
    assert (again.changes.written, again.changes.unchanged, again.changes.removed) == (0, len(store), 0)

    store.remove(["i03", "a/b.jpg"])
    data = {"id": ["new", "i05"], "text": ["a new one", "text i05 10"], "label": ["new", "changed"], "price": [7.0, 8.0]}
    es.embed(MemorySource(data), store.path, text="hash:16")
    es.import_vectors(np.ones((1, 24), np.float32), store.path, modality="image", ids=["new"])
    third = es.export(store.path, to=to, out=out, **asked)
    assert third.changes.removed == 2
    assert third.changes.written + third.changes.unchanged == len(store.refresh())
    if to in ENGINES:
        assert third.changes.written == 2
    found = held(to, out)
    assert found.keys() == {"new", *exports.IDS} - {"i03", "a/b.jpg"}
    assert (found["i05"]["label"], found["i05"]["price"]) == ("changed", 8.0)


@pytest.mark.parametrize("to", [*FOLDERS, *ENGINES])
def test_a_killed_one_goes_on(to: str, tmp_path: Path) -> None:
    """A real SIGKILL between two of five writes; the same command then adds what is missing and nothing twice."""
    store, out = rich_store(tmp_path / "a.store"), target(tmp_path, to)
    killed("killed_export", store.path, to, out, 2, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EXPORTERS.get(to), "most_items", 4)
        report = es.export(store, to=to, out=out)
    assert report.changes.unchanged >= (4 if to in FOLDERS else 8)
    assert report.changes.written == report.items - report.changes.unchanged
    without = {exports.IDS[3]} if to == "embedding-atlas" else set()  # a map has only what its space has
    assert held(to, out).keys() == {*exports.IDS} - without


def test_one_that_was_killed_between_two_moves_goes_on(tmp_path: Path) -> None:
    """An export that replaces another one and is killed after its first and its second move: nothing is written again."""
    store, out = rich_store(tmp_path / "a.store"), tmp_path / "out"
    es.export(store, to="npy", out=out)
    store.remove(["i03"])
    for _ in range(2):
        killed("killed_while_placing", store.path, "npy", out, 1)
    report = es.export(store.path, to="npy", out=out)
    assert (report.changes.written, report.changes.unchanged) == (0, len(exports.IDS) - 1)
    assert held("npy", out).keys() == {*exports.IDS} - {"i03"}
    assert sorted(path.name for path in out.iterdir()) == [
        *(".embedstore-export.lock", "_embedstore-export.json", "image.npy", "metadata", "text.npy")
    ]


@pytest.mark.parametrize("to", ["parquet", "clip-retrieval"])
def test_one_that_was_killed_between_two_removals_goes_on(to: str, tmp_path: Path) -> None:
    """Five slices become two, and the process dies after the first file that it removes: no item stays that is not wanted."""
    store, out = rich_store(tmp_path / "a.store"), target(tmp_path, to)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EXPORTERS.get(to), "most_items", 4)
        es.export(store, to=to, out=out)
        store.remove(exports.IDS[8:])
        killed("killed_while_dropping", store.path, to, out, 1, 4)
        assert es.export(store.path, to=to, out=out).changes.unchanged == 8
    assert held(to, out).keys() == {*exports.IDS[:8]}
    assert not [path for path in out.rglob("*") if path.stem.endswith(("2", "3", "4"))]


def killed(*arguments: object) -> None:
    """Run a function of `exports` as a program that kills itself."""
    path = f"{Path(__file__).parent}:{Path(__file__).parents[1]}"
    command = [sys.executable, exports.__file__, *map(str, arguments)]
    done = subprocess.run(command, env={**exports.os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("to", ["parquet", *ENGINES])
def test_another_encoder_is_refused(to: str, tmp_path: Path) -> None:
    data = {"id": ["a", "b"], "text": ["one", "two"], "label": ["x", "y"], "price": [1.0, 2.0]}
    for name, encoder in (("a", "hash:16"), ("b", "hash:24")):
        es.embed(MemorySource(data), tmp_path / name / "a.store", text=encoder)
    out = target(tmp_path, to)
    es.export(tmp_path / "a" / "a.store", to=to, out=out)
    with pytest.raises(FingerprintError, match=r"holds vectors of hash:16 \(fingerprint .*hash:24 \(fingerprint"):
        es.export(tmp_path / "b" / "a.store", to=to, out=out)
    assert held(to, out).keys() == {"a", "b"}


class Elsewhere(HashEncoder):
    """The same encoder on another device: the last bits are other ones."""

    def encode(self, batch: Any) -> Any:
        return np.nextafter(super().encode(batch).astype(np.float16), np.float16(9)).astype(np.float32)


@pytest.mark.parametrize("to", ["parquet", "npy", "lance"])
def test_a_store_embedded_again_replaces_other_last_bits(to: str, tmp_path: Path) -> None:
    data = {"id": ["a", "b"], "text": ["one", "two"], "label": ["x", "y"], "price": [1.0, 2.0]}
    stores = []
    for name, kind in (("here", HashEncoder), ("elsewhere", Elsewhere)):
        es.embed(MemorySource(data), tmp_path / name / "a.store", text=kind(16, "text", "hash:16"))
        stores.append(es.Store.open(tmp_path / name / "a.store"))
    here, elsewhere = (store.space("text") for store in stores)
    assert here.fingerprint == elsewhere.fingerprint
    assert not np.array_equal(here.vectors(), elsewhere.vectors())
    out = target(tmp_path, to)
    for store in stores:
        assert es.export(store, to=to, out=out).changes.written == 2
    assert es.export(stores[1], to=to, out=out).changes.unchanged == 2


def test_items_behind_the_last_row_go_however_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that was made anew is shorter: what Milvus holds of the longer one takes several answers."""
    monkeypatch.setattr(milvus, "WINDOW", 2)
    for number, count in enumerate((16, 3)):
        ids = [f"{number}-{i}" for i in range(count)]
        data = {"id": ids, "text": ids, "label": ids, "price": [1.0] * count}
        es.embed(MemorySource(data), tmp_path / str(number) / "a.store", text="hash:16")
        report = es.export(tmp_path / str(number) / "a.store", to="milvus", out=tmp_path / "out.db")
    assert (report.changes.removed, report.changes.written) == (16, 3)
    assert held("milvus", tmp_path / "out.db").keys() == set(ids)


@pytest.mark.parametrize("to", ["parquet", "npy", "milvus"])
def test_an_empty_selection_empties_it(to: str, tmp_path: Path) -> None:
    store, out = rich_store(tmp_path / "a.store"), target(tmp_path, to)
    assert es.export(store, to=to, out=out, where="label = 'food'", space="text").items < len(store)
    report = es.export(store, to=to, out=out, where="label = 'nothing'", space="text")
    assert (report.items, report.check.items, report.check.sampled) == (0, 0, 0)
    assert report.check.recall["text"].exact is None
    assert report.changes.removed > 0


@pytest.mark.parametrize("to", FOLDERS)
def test_a_folder_of_something_else_is_left_alone(to: str, store: es.Store, tmp_path: Path) -> None:
    out = target(tmp_path, to)
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other files, and no export of embedstore"):
        es.export(store, to=to, out=out, space="image")
    with pytest.raises(UsageError, match="is a file"):
        es.export(store, to=to, out=out / "mine.txt", space="image")
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_a_table_of_something_else_is_left_alone(store: es.Store, tmp_path: Path) -> None:
    import lancedb
    from qdrant_client import QdrantClient, models

    lancedb.connect(tmp_path / "l").create_table("a", [{"id": "mine"}])
    client = QdrantClient(path=str(tmp_path / "q"))
    client.create_collection("a", vectors_config=models.VectorParams(size=4, distance=models.Distance.DOT))
    client.close()
    for to, out in (("lance", "l"), ("qdrant", "q")):
        with pytest.raises(UsageError, match=r"'a' is there already, and no export of embedstore.* --name NAME"):
            es.export(store, to=to, out=tmp_path / out)
    report = es.export(store, to="lance", out=tmp_path / "l", name="other")
    assert (report.name, report.items) == ("other", 12)


def test_other_spaces_and_types_are_refused(store: es.Store, tmp_path: Path) -> None:
    es.export(store, to="parquet", out=tmp_path / "p", space="image")
    for given, words in (({}, "holds the spaces image"), ({"space": "image", "dtype": "float32"}, "Give --dtype float16")):
        with pytest.raises(UsageError, match=words):
            es.export(store, to="parquet", out=tmp_path / "p", **given)
    with pytest.raises(UsageError, match="was exported as parquet, not as npy"):
        es.export(store, to="npy", out=tmp_path / "p", space="image")
    with pytest.raises(UsageError, match="no space 'sound'"):
        es.export(store, to="npy", out=tmp_path / "n", space="image,sound")
    with pytest.raises(UsageError, match=r"No target of an export is called 'csv'\. Known: parquet, npy"):
        es.export(store, to="csv", out=tmp_path / "n")


@pytest.mark.parametrize(("to", "module"), [("lance", "lancedb"), ("qdrant", "qdrant_client"), ("milvus", "pymilvus")])
def test_a_missing_extra_names_the_pip_command(
    to: str, module: str, store: es.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=rf"pip install 'embedstore\[{to}\]'"):
        es.export(store, to=to, out=target(tmp_path, to))


def test_a_server_that_does_not_answer(store: es.Store) -> None:
    """One line that names it; nothing listens on port 9 of this machine."""
    with pytest.raises(OutputError, match=r"http://127\.0\.0\.1:9: collection 'a': .* Nothing was written\. Check its address"):
        es.export(store, to="qdrant", out="http://127.0.0.1:9")


def test_what_milvus_cannot_hold_is_said_first(tmp_path: Path) -> None:
    store = rich_store(tmp_path / "a.store", ids=["x" * 70_000, "b"])
    with pytest.raises(UsageError, match=r"An id of the store has 70,000 bytes; a key of Milvus holds 65,535"):
        es.export(store, to="milvus", out=tmp_path / "a.db")
    with pytest.raises(UsageError, match=r"a file that ends in \.db"):
        es.export(store, to="milvus", out=tmp_path / "a.txt")


def test_the_check_finds_what_is_wrong(store: es.Store, tmp_path: Path) -> None:
    """A vector that another program changed: the export believes its record, the check reads."""
    out = tmp_path / "n"
    es.export(store, to="npy", out=out)
    array = np.load(out / "image.npy", mmap_mode="r+")
    array[4] = array[5]
    array.flush()
    with pytest.raises(OutputError, match=r"closing check failed: item 'item-04' has another vector in 'image.npy'"):
        es.export(store, to="npy", out=out)


def test_the_command(store: es.Store, tmp_path: Path) -> None:
    shown = run("export", store.path, "--to", "parquet", tmp_path / "p", "--where", "price > 3").stdout
    assert "9 items there; 9 read back, their metadata equal, their vectors equal to the bit" in shown
    assert "9 items in" in shown
    told = json.loads(run("export", store.path, "--to", "npy", tmp_path / "n", "--space", "text", "--json").stdout)
    assert (told["items"], told["written"], told["unchanged"], told["removed"]) == (12, 12, 0, 0)
    assert told["spaces"]["text"]["missing"] == 1
    assert told["check"]["recall"]["text"]["exact"]["value"] == 1
    assert "rows of NaN stand for items that have no vector" in told["notes"]


@pytest.mark.parametrize("to", ["lance", "parquet"])
def test_a_column_that_comes_later_comes_along(to: str, store: es.Store, tmp_path: Path) -> None:
    out = target(tmp_path, to)
    es.export(store, to=to, out=out, space="image")
    data = {
        "id": ["item-00", "new"],
        "text": ["text 0", "more"],
        "stock": [3, 4],
        "price": [0.0, 1.0],
        "label": ["even", "odd"],
    }
    es.embed(MemorySource(data), store.path, text="hash:16")
    report = es.export(store.path, to=to, out=out, space="image")
    assert (report.changes.written, report.check.sampled) == (13, 13)

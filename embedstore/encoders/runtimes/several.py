"""One network on several devices: each begins the batch that comes next, and all run at once."""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from embedstore.encoders.base import Vectors
from embedstore.encoders.runtimes.base import Model, Network, Pending

if TYPE_CHECKING:
    import torch


class SeveralModels:
    """Models of one network that take turns. Each launches its work and does not wait, so that one thread keeps all busy.

    Parameters
    ----------
    models : sequence of Model
        At least one.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        self.models = list(models)
        self._turn = itertools.cycle(self.models)
        self._lock = threading.Lock()

    @property
    def padding(self) -> int:
        return self.models[0].padding

    @property
    def row(self) -> int:
        return self.models[0].row

    def next(self) -> Model:
        """Whose turn it is."""
        with self._lock:
            return next(self._turn)

    def start(self, *inputs: Any) -> Pending:
        return self.next().start(*inputs)

    def __call__(self, *inputs: Any) -> Vectors:
        return self.start(*inputs)()

    def provenance(self) -> Mapping[str, str]:
        """Of the first; devices, and what else differs, of all, each named once."""
        found = [model.provenance() for model in self.models]
        return {key: ", ".join(dict.fromkeys(one.get(key, "") for one in found)) for key in found[0]}


def loading_copies(network: Network) -> Network:
    """`network` whose module is loaded once, and is a copy of its own each time: to place one moves no other."""
    loaded: list[torch.nn.Module] = []

    def load() -> torch.nn.Module:
        if not loaded:
            loaded.append(network.load())
        return copy.deepcopy(loaded[0])

    return replace(network, load=load)

"""Training of the heads that are small neural networks: full data on the device, AdamW, warm-up and cosine, early stopping.

A module takes standardised inputs {name: (b, d)} and their masks {name: (b,)}, and returns logits (b, c). Modalities are
dropped at random while training, at least one is kept, so that items with any subset can be predicted.
"""

from __future__ import annotations

import copy
import math
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from embedstore._core.threads import bounded
from embedstore.heads.base import Array, Data, Head, HeadState
from embedstore.heads.params import Choice, Real, Tunable
from embedstore.heads.solvers.design_matrix import Standardizer

if TYPE_CHECKING:
    import torch

Tensors = dict[str, "torch.Tensor"]
Targets = tuple["torch.Tensor", "torch.Tensor"]
"""Class codes (n,), or what stands for them, and what the items count (n,)."""

SLOW, SLOW_RATE = "encoder.", 0.02
"""Transformer blocks learn at a fiftieth of the rate: at the full one they overfit a few thousand items in three epochs."""


class NeuralHead(Head):
    """Base class of heads that are a torch module; subclasses say which in `_module`.

    Parameters
    ----------
    width : int
        Of the hidden layers.
    dropout : float
        Of hidden features.
    modality_dropout : float
        Chance that a modality is hidden from a training item.
    epochs, patience : int
        At most so many, and so many without a better validation loss.
    batch_size : int
    learning_rate, weight_decay : float
    label_smoothing : float
    focal : float
        γ of the focal loss (Lin et al. 2017): items that are predicted well already count (1 - p)^γ; 0 for plain cross-entropy.
    seed : int
    device : str

    Attributes
    ----------
    history_ : list of dict
        ``train_loss``, ``val_loss`` and ``val_accuracy`` of every epoch.
    """

    stochastic = True
    takes_weights = True
    tunable: ClassVar[Tunable] = {
        "width": Choice((64, 128, 256, 512)),
        "dropout": Real(0.0, 0.7),
        "modality_dropout": Real(0.0, 0.7),
        "batch_size": Choice((64, 128, 256, 512)),
        "learning_rate": Real(2e-4, 1e-2, log=True),
        "weight_decay": Real(1e-3, 1.0, log=True),
        "label_smoothing": Real(0.0, 0.2),
    }

    history_: list[dict[str, float]]
    standardizer_: Standardizer

    def __init__(
        self,
        width: int = 256,
        dropout: float = 0.4,
        modality_dropout: float = 0.5,
        epochs: int = 40,
        patience: int = 5,
        batch_size: int = 256,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.05,
        label_smoothing: float = 0.05,
        focal: float = 0.0,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.width = width
        self.dropout = dropout
        self.modality_dropout = modality_dropout
        self.epochs = epochs
        self.patience = patience
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.label_smoothing = label_smoothing
        self.focal = focal
        self.seed = seed
        self.device = device

    def _module(self, dims: dict[str, int], classes: int) -> torch.nn.Module:
        raise NotImplementedError

    @property
    def _width(self) -> int:
        """How many logits an item has."""
        return len(self.classes_)

    def _fit(self, train: Data, validation: Data) -> None:
        import torch

        self.standardizer_ = Standardizer(balance=False).fit(train)
        with self._own_random_numbers(), bounded():  # again: fitting the first one imports torch
            torch.manual_seed(self.seed)
            self._net = self._module(self.dims_, self._width).to(self.device)
            self._run(self._tensors(train), self._tensors(validation), self._targets(train), self._targets(validation))

    def _own_random_numbers(self) -> AbstractContextManager[None]:
        """Within it torch's generators, the device's too, may be seeded; then they are as they were."""
        import torch

        device = torch.device(self.device)
        return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])

    def _targets(self, data: Data) -> Targets:
        import torch

        weights = np.ones(len(data)) if data.weights is None else data.weights
        arrays = np.asarray(data.codes), weights.astype(np.float32)
        codes, counts = (torch.from_numpy(array).to(self.device) for array in arrays)
        return codes, counts

    def _run(self, train: tuple[Tensors, Tensors], val: tuple[Tensors, Tensors], targets: Targets, v_targets: Targets) -> None:
        import torch

        codes, counts = targets
        n = len(codes)
        steps = max(1, math.ceil(n / self.batch_size))
        groups = [
            {"params": [p for name, p in self._net.named_parameters() if name.startswith(SLOW) == slow], "lr": rate}
            for slow, rate in ((False, self.learning_rate), (True, SLOW_RATE * self.learning_rate))
        ]
        optimizer = torch.optim.AdamW([g for g in groups if g["params"]], weight_decay=self.weight_decay, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warm_up_and_cosine(2 * steps, self.epochs * steps))
        best, best_state, waited = math.inf, copy.deepcopy(self._net.state_dict()), 0
        self.history_ = []
        for _ in range(self.epochs):
            self._net.train()
            losses: list[torch.Tensor] = []  # read once an epoch: to read one waits for the device
            batches = torch.split(torch.randperm(n, device=codes.device), self.batch_size)
            for index in batches:
                masks = _hide_some({k: m[index] for k, m in train[1].items()}, self.modality_dropout)
                logits = self._net({k: x[index] for k, x in train[0].items()}, masks)
                loss = self._loss(logits, codes[index], counts[index])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                losses.append(loss.detach())
            logits = self._forward(*val)
            *t_losses, v_loss, accuracy = torch.stack([*losses, *self._checked(logits, *v_targets)]).tolist()
            total = sum(one * len(index) for one, index in zip(t_losses, batches, strict=True))
            self.history_.append({"train_loss": total / n, "val_loss": v_loss, "val_accuracy": accuracy})
            if v_loss < best - 1e-4:
                best, best_state, waited = v_loss, copy.deepcopy(self._net.state_dict()), 0
            elif (waited := waited + 1) >= self.patience:
                break
        self._net.load_state_dict(best_state)

    def _loss(self, logits: torch.Tensor, codes: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """What a step lowers: the mean loss of logits (b, c), items times what they count (b,)."""
        import torch

        losses = torch.nn.functional.cross_entropy(logits, codes, label_smoothing=self.label_smoothing, reduction="none")
        if self.focal > 0:
            own = logits.log_softmax(1).gather(1, codes[:, None])[:, 0].exp()
            losses = losses * (1 - own) ** self.focal
        return (losses * counts).mean()

    def _checked(self, logits: torch.Tensor, codes: torch.Tensor, counts: torch.Tensor) -> list[torch.Tensor]:
        """The loss and the accuracy of the validation items."""
        import torch

        losses = torch.nn.functional.cross_entropy(logits, codes, reduction="none")
        return [(losses * counts).mean(), (logits.argmax(1) == codes).float().mean()]

    def _forward(self, inputs: Tensors, masks: Tensors) -> torch.Tensor:
        import torch

        self._net.eval()
        n = len(next(iter(masks.values())))
        with torch.inference_mode():
            pieces = [
                self._net({k: x[lo : lo + 4096] for k, x in inputs.items()}, {k: m[lo : lo + 4096] for k, m in masks.items()})
                for lo in range(0, n, 4096)
            ]
        return torch.cat(pieces)

    def _logits(self, data: Data) -> Array:
        return np.asarray(self._forward(*self._tensors(data)).float().cpu().numpy())

    def _tensors(self, data: Data) -> tuple[Tensors, Tensors]:
        import torch

        blocks = self.standardizer_.blocks(data)
        inputs = {name: torch.from_numpy(np.ascontiguousarray(x)).to(self.device) for name, x in blocks.items()}
        return inputs, {name: torch.from_numpy(np.ascontiguousarray(data.present[name])).to(self.device) for name in blocks}

    def _state(self) -> HeadState:
        weights = {f"net.{k}": v.detach().cpu().numpy() for k, v in self._net.state_dict().items()}
        return HeadState({"history": self.history_}, {**weights, **self.standardizer_.tensors()})

    def _restore(self, state: HeadState) -> None:
        import torch

        self.history_ = state.config["history"]
        self.standardizer_ = Standardizer.from_tensors(state.tensors, list(self.dims_))
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            self.device = "cpu"  # fitted on a GPU, used on a machine without one
        weights: dict[str, Any] = {k.removeprefix("net."): v for k, v in state.tensors.items() if k.startswith("net.")}
        with torch.device("meta"):  # sizes that a file claims take no memory
            net = self._module(self.dims_, self._width)
        net.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in weights.items()}, assign=True)
        self._net = net.to(self.device)


def _warm_up_and_cosine(warm_up: int, total: int) -> Any:
    return lambda step: min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))


def _hide_some(masks: Tensors, chance: float) -> Tensors:
    """Masks with modalities hidden at random; an item keeps at least one of those it has."""
    import torch

    names = list(masks)
    stacked = torch.stack([mask if mask.ndim == 1 else mask.any(dim=1) for mask in masks.values()], dim=1)
    if chance <= 0 or len(names) == 1:
        return masks
    keep = stacked & (torch.rand(stacked.shape, device=stacked.device) >= chance)
    lost = ~keep.any(dim=1)
    order = torch.where(stacked, torch.rand(stacked.shape, device=stacked.device), -1.0)
    saved = torch.nn.functional.one_hot(order.argmax(dim=1), len(names)).bool() & stacked
    keep = torch.where(lost[:, None], saved, keep)
    return {name: keep[:, i] if masks[name].ndim == 1 else masks[name] & keep[:, i, None] for i, name in enumerate(names)}

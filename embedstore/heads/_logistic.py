"""Multinomial logistic regression by L-BFGS, full batch, in torch.

Objective: mean cross-entropy + alpha/2 · ‖W‖², the intercept not penalised; scikit-learn's with C = 1/(alpha·n).

The variables are rotated into the eigenbasis of the Gram matrix and scaled by Böhning's bound of the Hessian,
½·XᵀX/n + alpha·I (Böhning 1992), which takes the features' spectrum out of the problem. One eigendecomposition serves
every alpha of a path, walked from strong to weak with warm starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Float = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Solution:
    """Weights (d, c) and intercept (c,) for `alpha`, and the objective reached after a number of evaluations."""

    alpha: float
    weight: Float
    bias: Float
    objective: float
    evaluations: int


class LogisticProblem:
    """Features and labels, prepared once for several penalties.

    Parameters
    ----------
    features : (n, d) float32
    codes : (n,) int64 in 0…c-1
    n_classes : int
    device : str
    like : LogisticProblem, optional
        A problem on nearly the same items, such as those without validation: its axes are used again where they span the
        space. Any orthonormal axes give the same solution; good ones give it sooner.
    """

    def __init__(
        self,
        features: Float,
        codes: npt.NDArray[np.int64],
        n_classes: int,
        *,
        device: str = "cpu",
        like: LogisticProblem | None = None,
    ) -> None:
        import torch

        x = torch.from_numpy(np.ascontiguousarray(features)).to(device)
        self._mean = x.mean(dim=0, dtype=torch.float64).float()
        centred = x - self._mean
        self._values: torch.Tensor
        self._basis: torch.Tensor
        if like is not None and like._basis.shape[0] == like._basis.shape[1] == x.shape[1]:
            self._values, self._basis = like._values, like._basis
        else:
            self._values, self._basis = _principal_axes(centred)
        self._z = centred @ self._basis
        self._y = torch.from_numpy(codes).to(device)
        self._classes = n_classes

    def solve(self, alpha: float, *, tolerance: float = 1e-6, start: Solution | None = None) -> Solution:
        """The solution for one penalty, begun at `start`."""
        return next(self.walk([alpha], tolerance=tolerance, start=start))

    def walk(
        self, alphas: Sequence[float], *, tolerance: float = 1e-6, max_iter: int = 1000, start: Solution | None = None
    ) -> Iterator[Solution]:
        """Solutions from the strongest of `alphas` to the weakest, each begun at the one before."""
        import torch

        if start is None:
            weight = torch.zeros(self._z.shape[1], self._classes, device=self._z.device)
            bias = torch.log(torch.bincount(self._y, minlength=self._classes).clamp(min=0.5).float() / len(self._y))
        else:
            given = torch.from_numpy(start.weight).to(self._z.device)
            weight = self._basis.T @ given
            bias = torch.from_numpy(start.bias).to(self._z.device) + self._mean @ given
        for alpha in sorted(alphas, reverse=True):
            weight, bias, objective, evaluations = self._minimise(alpha, weight, bias, tolerance, max_iter)
            full = self._basis @ weight
            shift = bias - self._mean @ full
            yield Solution(alpha, full.cpu().numpy(), shift.cpu().numpy(), objective, evaluations)

    def _minimise(
        self, alpha: float, weight: torch.Tensor, bias: torch.Tensor, tolerance: float, max_iter: int
    ) -> tuple[torch.Tensor, torch.Tensor, float, int]:
        import torch

        scale = (0.5 * self._values + alpha).rsqrt()[:, None]
        n, bias_scale = len(self._y), 2.0**0.5
        z, index = self._z * scale.T, torch.arange(n, device=self._y.device)
        v, b = (weight / scale).requires_grad_(), (bias / bias_scale).requires_grad_()
        calls = 0

        def evaluate() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            """Objective and gradients, in closed form."""
            logits = z @ v.detach() + b.detach() * bias_scale
            log_p = torch.log_softmax(logits, dim=1)
            loss = -log_p[index, self._y].double().mean() + 0.5 * alpha * (v.detach() * scale).double().square().sum()
            residual = log_p.exp_()
            residual[index, self._y] -= 1
            residual /= n
            return loss, z.T @ residual + alpha * scale.square() * v.detach(), residual.sum(dim=0) * bias_scale

        def closure() -> Any:
            nonlocal calls
            calls += 1
            loss, v.grad, b.grad = evaluate()
            return loss.item()

        optimizer = torch.optim.LBFGS(
            [v, b],
            lr=1.0,
            max_iter=max_iter,
            max_eval=2 * max_iter,
            history_size=20,
            tolerance_grad=tolerance * 1e-1,
            tolerance_change=tolerance * 1e-3,
            line_search_fn="strong_wolfe",
        )
        optimizer.step(closure)  # type: ignore[no-untyped-call]
        loss = evaluate()[0]
        return (v.detach() * scale), (b.detach() * bias_scale), float(loss), calls


def _principal_axes(centred: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues (r,) and eigenvectors (d, r) of XᵀX/n for centred X (n, d), through the smaller of the two Grams.

    Directions without variance are left out: the penalty keeps their weights at zero.
    """
    import torch

    n, d = centred.shape
    wide = centred.double()
    values, vectors = torch.linalg.eigh((wide @ wide.T if n < d else wide.T @ wide) / n)
    keep = values > values.max().clamp(min=1e-12) * 1e-10
    values, vectors = values[keep], vectors[:, keep]
    if n < d:
        vectors = wide.T @ vectors / (values * n).sqrt()
    return values.float(), vectors.float()

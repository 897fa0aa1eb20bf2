"""An `Aligner` trained further: from the CCA solution by a contrastive loss, and whether that surely finds more."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass

import numpy as np

from embedstore._core.threads import bounded
from embedstore._core.unit import unit_rows
from embedstore.errors import HeadError
from embedstore.evaluation.bootstrap import Bootstrap, Score
from embedstore.evaluation.paired import Codes, content_codes, copy_groups, rank_pairs
from embedstore.heads.aligner import ONE_FOLD_FROM, Aligner, pairs_of
from embedstore.heads.base import Array, Float, Mask
from embedstore.heads.solvers.contrastive import LOSSES, Maps, PairedFeatures, contrastive
from embedstore.heads.solvers.correlations import Basis, Choice, Sums
from embedstore.registry import require

__all__ = ["LOSSES", "TrainedAligner", "train_aligner"]

STEPS, EVERY = 100, 10
"""How long it is trained at most, and how often it is looked at on pairs held out."""
FOLDS_OF_MANY = 2
"""Folds that are held out where there are 2,000 pairs or more."""


@dataclass(frozen=True)
class TrainedAligner:
    """What training made of an aligner.

    Parameters
    ----------
    aligner : Aligner
        The trained one, fitted to all pairs.
    gain : Score
        In mean reciprocal rank over both directions, of training over CCA, paired by item, on pairs that neither saw; the steps
        of each fold were chosen on the others.
    steps : int
        After which it was stopped.
    pairs : int
        Held out, in all.
    """

    aligner: Aligner
    gain: Score
    steps: int
    pairs: int

    @property
    def kept(self) -> bool:
        """Whether it is surely better."""
        return self.gain.certain_gain


def train_aligner(
    aligner: Aligner,
    X: Mapping[str, Array],
    *,
    loss: str = "siglip",
    present: Mapping[str, Mask] | None = None,
    groups: Array | None = None,
    codes: Mapping[str, Codes] | None = None,
) -> TrainedAligner:
    """Train the projections of a fitted aligner with a contrastive loss over the pairs it was fitted on.

    They begin at the CCA solution, as maps of the whitened principal components of each side, and are held near it. Pairs that
    share a content are no negatives of one another.

    Parameters
    ----------
    aligner : Aligner
        Stays as it is.
    X : mapping of its two names to (n, d1) and (n, d2)
    loss : str
        ``"infonce"`` or ``"siglip"``.
    present, groups
        As for `Aligner.fit`.
    codes : mapping of name to (n,) int64, optional
        Contents, as of `content_codes`. Default: equal vectors are copies.

    Raises
    ------
    HeadError
        An unknown loss, or what `Aligner.fit` refuses.
    """
    if loss not in LOSSES:
        raise HeadError(f"loss should be {' or '.join(LOSSES)}. Got {loss!r} instead.")
    require("torch")  # before threads are counted, its own too
    return _train(aligner, X, loss, present, groups, codes)


@bounded()
def _train(
    aligner: Aligner,
    X: Mapping[str, Array],
    loss: str,
    present: Mapping[str, Mask] | None,
    groups: Array | None,
    codes: Mapping[str, Codes] | None,
) -> TrainedAligner:
    names, x, y, both = pairs_of(X, present)
    found = (content_codes(x), content_codes(y)) if codes is None else (codes[names[0]][both], codes[names[1]][both])
    together = copy_groups(*found) if groups is None else np.asarray(groups)[both]
    folds = aligner.folds_of(together)
    sums = [Sums.of(x[folds == k], y[folds == k]) for k in range(int(folds.max()) + 1)]
    if len(sums) < 2:
        raise HeadError("All pairs hang together by contents that they share: none can be held out. Leave loss out.")
    total = sum(sums[1:], sums[0])
    training = _Training(aligner, loss, x, y, found)
    held_out = range(len(sums))[-FOLDS_OF_MANY:] if len(x) >= ONE_FOLD_FROM else range(len(sums))
    tried = {k: training.tried(total - sums[k], folds == k) for k in held_out}
    steps, gains = _judged(tried)
    at = np.concatenate([np.flatnonzero(folds == k) for k in tried])
    gain = Bootstrap.of(len(at), groups=together[at], seed=aligner.seed).mean(gains)
    return TrainedAligner(training.on_all(total, steps), gain, steps, len(at))


def _judged(tried: Mapping[int, Float]) -> tuple[int, Float]:
    """The best number of steps over all folds, and what each item held out gains by those chosen on the other folds.

    Parameters
    ----------
    tried : mapping of fold to (1 + checks, items)
        Reciprocal ranks without training, and at each look.
    """
    means = {k: found[1:].mean(axis=1) * found.shape[1] for k, found in tried.items()}
    every = sum(means.values())
    gains = []
    for k, found in tried.items():
        others = every - means[k] if len(tried) > 1 else every
        gains.append(found[1 + int(np.argmax(others))] - found[0])
    return EVERY * (1 + int(np.argmax(every))), np.concatenate(gains)


class _Training:
    """Pairs, and how they are trained on."""

    def __init__(self, aligner: Aligner, loss: str, x: Array, y: Array, codes: tuple[Codes, Codes]) -> None:
        self._aligner = aligner
        self._loss = loss
        self._sides = x, y
        self._codes = codes
        first, second = (aligner.penalties_[name] for name in aligner.names_)
        self._choice = Choice(first, second, aligner.power_, aligner.dim_)

    def tried(self, sums: Sums, out: Mask) -> Float:
        """Reciprocal ranks (1 + checks, items) of the pairs of the mask `out`, which `sums` do not have: CCA first."""
        basis = Basis.of(sums, self._aligner.names_)
        features, start = self._whitened(basis)
        inside, held_out = _taken(features, ~out), _taken(features, out)
        found = [_reciprocal_ranks(held_out, start)]
        for maps in contrastive(inside, start, loss=self._loss, steps=STEPS, every=EVERY, seed=self._aligner.seed):
            found.append(_reciprocal_ranks(held_out, maps))
        return np.array(found)

    def on_all(self, sums: Sums, steps: int) -> Aligner:
        """The aligner trained on every pair."""
        basis = Basis.of(sums, self._aligner.names_)
        features, start = self._whitened(basis)
        (maps,) = contrastive(features, start, loss=self._loss, steps=steps, every=steps, seed=self._aligner.seed)
        made = copy(self._aligner)
        made.loss_, made.steps_ = self._loss, steps
        made.mean_ = {n: mean.astype(np.float32) for n, mean in zip(made.names_, basis.mean, strict=True)}
        weights = (basis.vectors[i] / self._deviations(basis)[i] @ maps[i] for i in (0, 1))
        made.weight_ = {n: np.ascontiguousarray(w, np.float32) for n, w in zip(made.names_, weights, strict=True)}
        return made

    def _whitened(self, basis: Basis) -> tuple[PairedFeatures, Maps]:
        """All pairs in the whitened components of a basis, and the CCA solution there."""
        left, right, correlations = basis.solve(self._choice)
        scale = correlations[: self._choice.dim] ** self._choice.power
        deviations = self._deviations(basis)
        x, y = (np.asarray(basis.components(i, self._sides[i]) / deviations[i], np.float32) for i in (0, 1))
        maps = [
            np.asarray(deviations[i][:, None] * directions[:, : self._choice.dim] * scale, np.float32)
            for i, directions in enumerate((left, right))
        ]
        return PairedFeatures(x, y, self._codes), (maps[0], maps[1])

    def _deviations(self, basis: Basis) -> tuple[Float, Float]:
        """Standard deviations along the components of either side, under its penalty."""
        penalties = self._choice.first, self._choice.second
        first, second = (np.sqrt(basis.values[i] + penalties[i] * basis.unit[i]) for i in (0, 1))
        return first, second


def _taken(data: PairedFeatures, which: Mask) -> PairedFeatures:
    return PairedFeatures(data.x[which], data.y[which], (data.codes[0][which], data.codes[1][which]))


def _reciprocal_ranks(data: PairedFeatures, maps: Maps) -> Float:
    """Mean over both directions (n,) of the reciprocal rank of each pair."""
    u, v = (unit_rows(side @ m) for side, m in zip((data.x, data.y), maps, strict=True))
    there, back = rank_pairs(u, v, *data.codes), rank_pairs(v, u, *data.codes[::-1])
    return np.asarray((1 / there.ranks + 1 / back.ranks) / 2)

"""Heads that begin with what classes are called: zero-shot, and few-shot heads that start from there.

The texts' vectors, their templates and the projection of an alignment are saved within the head: it predicts without a text
encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from embedstore.errors import HeadError
from embedstore.heads.base import Array, Codes, Data, Float, Head, HeadState, as_labels, log_softmax, nll
from embedstore.heads.class_texts import ClassTexts
from embedstore.heads.solvers.logistic import LogisticProblem
from embedstore.heads.solvers.temperature import fit_scale

SCALE, MODEST = 100.0, 10.0
"""Of cosines as logits: what CLIP's learned temperature came to, and was clipped at (Radford et al. 2021, arXiv 2103.00020).
And where the encoders were not trained together: about what few-shot heads fitted on clip art."""
LEAST_CHOICE = 50
"""Validation items from which a penalty is chosen on them."""
KEYS = 1 << 24
"""Similarities that are held at once."""


class PromptedHead(Head):
    """What heads that begin with class texts have in common.

    Attributes
    ----------
    scale_ : float
        What cosines are multiplied by, as logits.
    """

    kept_in_state = ("texts",)

    texts: ClassTexts | None
    scale_: float

    def _fit(self, train: Data, validation: Data) -> None:
        texts = self._checked_texts(list(train.inputs))
        codes = texts.codes_of(self.classes_)
        self.classes_ = as_labels(texts.classes)  # one without an item is still known by its name
        taught = [replace(data, codes=np.where(data.codes < 0, -1, codes[data.codes])) for data in (train, validation)]
        self._learn(texts, taught[0], taught[0] if validation is train else taught[1])

    def _learn(self, texts: ClassTexts, train: Data, validation: Data) -> None:
        """Learn from items whose codes are positions in the classes of `texts`; the same object twice where they are few."""
        raise NotImplementedError

    def check_specs(self, fingerprints: Mapping[str, str]) -> None:
        texts = self._checked_texts(list(fingerprints))
        for name, side in texts.sides.items():
            if side.items and side.items != fingerprints[name]:
                raise ValueError(
                    f"its class texts are for vectors of {side.items}, its input {name!r} is of {fingerprints[name]}"
                )

    def _checked_texts(self, inputs: Sequence[str]) -> ClassTexts:
        if self.texts is None:
            raise HeadError(
                f"Head {self.kind!r} begins with the names of the classes: give it their texts (texts=ClassTexts(…)). "
                "`embedstore train` makes them."
            )
        if set(inputs) != set(self.texts.sides):
            raise HeadError(f"The texts are beside inputs {sorted(self.texts.sides)}. Got {sorted(inputs)} instead.")
        return self.texts

    def _state(self) -> HeadState:
        texts = self._checked_texts(list(self.dims_))
        said = {"texts": {**texts.to_dict(), "fingerprint": texts.fingerprint}, "scale": self.scale_}
        own = self._own_state()
        return HeadState({**said, **own.config}, {**{f"texts.{k}": v for k, v in texts.tensors().items()}, **own.tensors})

    def _restore(self, state: HeadState) -> None:
        said = state.config["texts"]
        tensors = {k.removeprefix("texts."): v for k, v in state.tensors.items() if k.startswith("texts.")}
        self.texts, self.scale_ = ClassTexts.from_state(said, tensors), float(state.config["scale"])
        if self.texts.fingerprint != said["fingerprint"]:
            raise ValueError(f"its class texts are {self.texts.fingerprint}, recorded is {said['fingerprint']}")
        self._restore_own(state)

    def _own_state(self) -> HeadState:
        return HeadState()

    def _restore_own(self, state: HeadState) -> None:
        pass


class ZeroShotHead(PromptedHead):
    """Zero-shot: the class whose text is nearest to the item, in a space that both are in. Items teach it nothing.

    The class of highest cosine, as CLIP does it (Radford et al. 2021, arXiv 2103.00020); with several inputs, of highest mean
    cosine over those that an item has.

    Parameters
    ----------
    texts : ClassTexts
    scale : float, optional
        What cosines are multiplied by: probabilities are ``softmax(scale · cosine)``. Default: 100, as for CLIP, where images
        and texts are of encoders that were trained together, else 10.
    """

    kind = "zeroshot"

    def __init__(self, texts: ClassTexts | None = None, scale: float | None = None) -> None:
        self.texts = texts
        self.scale = scale

    def begin(self) -> Self:
        """Ready to predict, without an item."""
        if self.texts is None or len(self.texts.classes) < 2:
            raise HeadError(f"A zero-shot head needs the texts of two classes or more. Got {self.texts!r} instead.")
        self.classes_, self.dims_ = as_labels(self.texts.classes), self.texts.dims
        self.scale_ = self._chosen_scale(self.texts)
        return self

    def _learn(self, texts: ClassTexts, train: Data, validation: Data) -> None:
        self.scale_ = self._chosen_scale(texts)

    def _chosen_scale(self, texts: ClassTexts) -> float:
        if self.scale is None:
            return SCALE if all(side.trained_together for side in texts.sides.values()) else MODEST
        if not 0 < self.scale < np.inf:
            raise HeadError(f"scale should be a number above 0. Got {self.scale!r} instead.")
        return float(self.scale)

    def _logits(self, data: Data) -> Array:
        return self.scale_ * self._checked_texts(list(self.dims_)).cosines(data)


class TipAdapterHead(PromptedHead):
    """Few-shot by a cache: the zero-shot logits, and those of the training items near an item. Nothing is trained.

    Tip-Adapter (Zhang et al. 2022, arXiv 2207.09519): ``scale · f Wᵀ + α · exp(-β (1 - f Fᵀ)) L``, where f are the items, W the
    texts, F the training items and L their classes. The scale is fitted to the training items, whose zero-shot logits know
    no label.

    Parameters
    ----------
    texts : ClassTexts
    alpha : float, optional
        The residual ratio. Without it, and with fewer than 50 validation items, such that the cache's logits differ over the
        classes as much as the zero-shot ones do, times half the items a class, at most four; with more, chosen on them.
    beta : float, optional
        The sharpness; default 5.5, as in the paper, or chosen with `alpha`.

    Attributes
    ----------
    residual_ratio_, sharpness_ : float
    keys_ : (n, d) float16
        The training items, where the texts are.
    values_ : (n,) int64
        Their classes.
    """

    kind = "tip-adapter"

    RATIOS: ClassVar[tuple[float, ...]] = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
    SHARPNESSES: ClassVar[tuple[float, ...]] = (1.0, 3.0, 5.5, 10.0)
    BETA: ClassVar[float] = 5.5
    MOST: ClassVar[float] = 4.0

    residual_ratio_: float
    sharpness_: float
    keys_: npt.NDArray[np.float16]
    values_: Codes

    def __init__(self, texts: ClassTexts | None = None, alpha: float | None = None, beta: float | None = None) -> None:
        self.texts = texts
        self.alpha = alpha
        self.beta = beta

    def _learn(self, texts: ClassTexts, train: Data, validation: Data) -> None:
        for name, value in (("alpha", self.alpha), ("beta", self.beta)):
            if value is not None and not 0 <= value < np.inf:
                raise HeadError(f"{name} should be a number of 0 or more. Got {value!r} instead.")
        every = train if validation is train else train + validation
        beta = self.BETA if self.beta is None else float(self.beta)
        times = min(len(every) / max(len(set(every.codes.tolist())), 1) / 2, self.MOST)
        if validation is not train and len(validation) >= LEAST_CHOICE and self.alpha is None:
            times, beta = self._chosen(texts, train, validation)
        self._remember(texts, every)
        self.sharpness_ = beta
        self.residual_ratio_ = times * self._unit_ratio(texts, every, beta) if self.alpha is None else float(self.alpha)

    def _remember(self, texts: ClassTexts, data: Data) -> None:
        known = data.take(data.codes >= 0)
        self.keys_, self.values_ = texts.features(known).astype(np.float16), known.codes
        self.scale_ = fit_scale(texts.cosines(known), known.codes)

    def _chosen(self, texts: ClassTexts, train: Data, validation: Data) -> tuple[float, float]:
        """The multiple of `_unit_ratio` and the sharpness with the least loss on validation items, whatever the temperature."""
        self._remember(texts, train)
        known = validation.take(validation.codes >= 0)
        features = texts.features(known)
        zero_shot = self.scale_ * texts.cosines(known, features)
        best, least = (1.0, self.BETA), np.inf
        for beta in self.SHARPNESSES if self.beta is None else (float(self.beta),):
            unit, cached = self._unit_ratio(texts, train, beta), self._cached(features, beta)
            for times in self.RATIOS:
                logits = zero_shot + times * unit * cached
                loss = nll(log_softmax(fit_scale(logits, known.codes) * logits), known.codes)
                if loss < least:
                    best, least = (times, beta), loss
        return best

    def _unit_ratio(self, texts: ClassTexts, data: Data, beta: float) -> float:
        """What makes the cache's logits differ over the classes as the zero-shot ones do, on the items in it."""
        sample = np.arange(len(data))[:: max(1, len(data) // 1024)]
        some = data.take(sample)
        features = texts.features(some)
        cached = self._cached(features, beta)
        cached[np.arange(len(some)), some.codes] -= 1  # what an item says of itself
        return float((self.scale_ * texts.cosines(some, features)).std(axis=1).mean() / max(cached.std(axis=1).mean(), 1e-12))

    def _cached(self, features: Array, beta: float) -> Float:
        """The cache's logits (n, c): Σ exp(-β (1 - cosine)) over the training items of each class."""
        order = np.argsort(self.values_, kind="stable")
        codes, starts = np.unique(self.values_[order], return_index=True)
        keys = self.keys_[order].astype(np.float32)
        out = np.zeros((len(features), len(self.classes_)))
        step = max(1, KEYS // max(len(keys), 1))
        for lo in range(0, len(features), step):
            near = np.exp(beta * (features[lo : lo + step] @ keys.T - 1))
            out[lo : lo + step, codes] = np.add.reduceat(near, starts, axis=1)
        return out

    def _logits(self, data: Data) -> Array:
        texts = self._checked_texts(list(self.dims_))
        features = texts.features(data)
        cached = self.residual_ratio_ * self._cached(features, self.sharpness_)
        return self.scale_ * texts.cosines(data, features) + cached

    def _own_state(self) -> HeadState:
        chosen = {"residual_ratio": self.residual_ratio_, "sharpness": self.sharpness_}
        return HeadState(chosen, {"keys": self.keys_, "values": self.values_})

    def _restore_own(self, state: HeadState) -> None:
        self.residual_ratio_, self.sharpness_ = state.config["residual_ratio"], state.config["sharpness"]
        self.keys_, self.values_ = state.tensors["keys"], state.tensors["values"]


class PromptedLinearHead(PromptedHead):
    """Few-shot logistic regression whose prior is the text classifier: near zero-shot with few items, linear with many.

    Logits ``s · cos(z, t_k) + z · v_k + b_k``, where t_k is the text of class k, fitted by cross-entropy + λ/2 · ‖v‖²: what the
    texts and what the items say, as in LP++ (Huang et al. 2024, arXiv 2404.02285; its multiplier of each class is among the
    v_k), held near the texts as in CLAP (Silva-Rodríguez et al. 2024, arXiv 2312.12730). The scale s is fitted to the training
    items, whose zero-shot logits know no label; the rest is convex.

    Parameters
    ----------
    texts : ClassTexts
    penalty : float, optional
        λ. Without it the one with the least loss on validation items, or 3e-4 where there are fewer than 50.
    device : str
        Where to fit: ``"cpu"`` (numpy) or a torch device.

    Attributes
    ----------
    lambda_ : float
    weight_ : (d, c) float32
        The v_k, on items where the texts are.
    bias_ : (c,) float32
    """

    kind = "prompted-linear"

    PENALTIES: ClassVar[tuple[float, ...]] = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5)
    PENALTY: ClassVar[float] = 3e-4

    lambda_: float
    weight_: npt.NDArray[np.float32]
    bias_: npt.NDArray[np.float32]

    def __init__(self, texts: ClassTexts | None = None, penalty: float | None = None, device: str = "cpu") -> None:
        self.texts = texts
        self.penalty = penalty
        self.device = device

    def _learn(self, texts: ClassTexts, train: Data, validation: Data) -> None:
        if self.penalty is not None and not 0 < self.penalty < np.inf:
            raise HeadError(f"penalty should be a number above 0. Got {self.penalty!r} instead.")
        every = train if validation is train else train + validation
        self.lambda_ = self.PENALTY if self.penalty is None else float(self.penalty)
        if self.penalty is None and validation is not train and len(validation) >= LEAST_CHOICE:
            self.lambda_ = self._chosen(texts, train, validation)
        known = every.take(every.codes >= 0)
        features, cosines = texts.features(known), texts.cosines(known)
        self.scale_ = fit_scale(cosines, known.codes)
        solution = self._problem(features, cosines, known.codes).solve(self.lambda_, tolerance=1e-5)
        self.weight_, self.bias_ = solution.weight, solution.bias

    def _problem(self, features: Array, cosines: Array, codes: Codes) -> LogisticProblem:
        return LogisticProblem(features, codes, len(self.classes_), offset=self.scale_ * cosines, device=self.device)

    def _chosen(self, texts: ClassTexts, train: Data, validation: Data) -> float:
        known, held_out = train.take(train.codes >= 0), validation.take(validation.codes >= 0)
        cosines = texts.cosines(known)
        self.scale_ = fit_scale(cosines, known.codes)
        problem = self._problem(texts.features(known), cosines, known.codes)
        features, zero_shot = texts.features(held_out), self.scale_ * texts.cosines(held_out)
        best, least = self.PENALTY, np.inf
        for found in problem.walk(self.PENALTIES, tolerance=1e-3):
            loss = nll(log_softmax(zero_shot + features @ found.weight + found.bias), held_out.codes)
            if loss >= least:
                break  # weaker penalties only overfit more
            best, least = found.alpha, loss
        return best

    def _logits(self, data: Data) -> Array:
        texts = self._checked_texts(list(self.dims_))
        features = texts.features(data)
        return self.scale_ * texts.cosines(data, features) + features @ self.weight_ + self.bias_

    def _own_state(self) -> HeadState:
        return HeadState({"lambda": self.lambda_}, {"weight": self.weight_, "bias": self.bias_})

    def _restore_own(self, state: HeadState) -> None:
        self.lambda_, self.weight_, self.bias_ = state.config["lambda"], state.tensors["weight"], state.tensors["bias"]

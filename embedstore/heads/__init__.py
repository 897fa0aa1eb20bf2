"""Small models on cached features. They see arrays and masks, never a store."""

from __future__ import annotations

from embedstore.heads.auto import AutoHead
from embedstore.heads.base import Head
from embedstore.heads.boosted import GbdtHead
from embedstore.heads.ensemble import EnsembleHead, LateHead
from embedstore.heads.kernel import KernelHead
from embedstore.heads.knn import KnnHead
from embedstore.heads.linear import LinearHead
from embedstore.heads.make import head_class, make_head, params_of
from embedstore.heads.networks import AttentionHead, BilinearHead, GatedHead, WeightedHead
from embedstore.heads.regressors import GbdtRegressor, KnnRegressor, Regressor, RidgeRegressor
from embedstore.heads.ridge import RidgeHead
from embedstore.registry import HEADS, REGRESSORS

__all__ = [
    "HEADS",
    "REGRESSORS",
    "AttentionHead",
    "AutoHead",
    "BilinearHead",
    "EnsembleHead",
    "GatedHead",
    "GbdtHead",
    "GbdtRegressor",
    "Head",
    "KernelHead",
    "KnnHead",
    "KnnRegressor",
    "LateHead",
    "LinearHead",
    "Regressor",
    "RidgeHead",
    "RidgeRegressor",
    "WeightedHead",
    "head_class",
    "make_head",
    "params_of",
]

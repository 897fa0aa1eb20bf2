"""Small models on cached features. They see arrays and masks, never a store."""

from __future__ import annotations

from embedstore.heads.auto import AutoHead
from embedstore.heads.auto_labels import AutoLabeller
from embedstore.heads.balanced import BalancedHead
from embedstore.heads.base import Head
from embedstore.heads.boosted import GbdtHead
from embedstore.heads.class_texts import ClassTexts, TextSide
from embedstore.heads.ensemble import EnsembleHead, LateHead
from embedstore.heads.kernel import KernelHead
from embedstore.heads.knn import KnnHead
from embedstore.heads.label_networks import AttentionLabeller, BilinearLabeller, GatedLabeller, WeightedLabeller
from embedstore.heads.label_sets import Labeller
from embedstore.heads.labellers import GbdtLabeller, KnnLabeller, LinearLabeller
from embedstore.heads.linear import LinearHead
from embedstore.heads.make import head_class, make_head, params_of
from embedstore.heads.networks import AttentionHead, BilinearHead, GatedHead, WeightedHead
from embedstore.heads.prompted import PromptedLinearHead, TipAdapterHead, ZeroShotHead
from embedstore.heads.regressors import GbdtRegressor, KnnRegressor, Regressor, RidgeRegressor
from embedstore.heads.ridge import RidgeHead
from embedstore.heads.several_targets import TargetsHead
from embedstore.heads.target_networks import AttentionTargets, BilinearTargets, GatedTargets, WeightedTargets
from embedstore.heads.targets_apart import GbdtTargets, KnnTargets, LinearTargets
from embedstore.registry import HEADS, LABELLERS, REGRESSORS, SEVERAL

__all__ = [
    "HEADS",
    "LABELLERS",
    "REGRESSORS",
    "SEVERAL",
    "AttentionHead",
    "AttentionLabeller",
    "AttentionTargets",
    "AutoHead",
    "AutoLabeller",
    "BalancedHead",
    "BilinearHead",
    "BilinearLabeller",
    "BilinearTargets",
    "ClassTexts",
    "EnsembleHead",
    "GatedHead",
    "GatedLabeller",
    "GatedTargets",
    "GbdtHead",
    "GbdtLabeller",
    "GbdtRegressor",
    "GbdtTargets",
    "Head",
    "KernelHead",
    "KnnHead",
    "KnnLabeller",
    "KnnRegressor",
    "KnnTargets",
    "Labeller",
    "LateHead",
    "LinearHead",
    "LinearLabeller",
    "LinearTargets",
    "PromptedLinearHead",
    "Regressor",
    "RidgeHead",
    "RidgeRegressor",
    "TargetsHead",
    "TextSide",
    "TipAdapterHead",
    "WeightedHead",
    "WeightedLabeller",
    "WeightedTargets",
    "ZeroShotHead",
    "head_class",
    "make_head",
    "params_of",
]

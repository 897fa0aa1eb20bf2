"""XGBoost's models as bytes (UBJSON): loaded only where nothing in them can lead outside of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embedstore._core.foreign_files import remember, try_once
from embedstore.errors import CorruptStoreError, one_line
from embedstore.registry import require

KIND = "xgboost"


def saved_booster(booster: Any) -> bytes:
    """A booster that was grown here, as bytes; this machine knows them again."""
    model = bytes(booster.save_raw("ubj"))
    remember(KIND, hashlib.sha256(model).hexdigest())
    return model


def load_booster(model: bytes, features: int) -> Any:
    """The booster in `model`, of which a child process looked at every tree unless it was made here.

    Parameters
    ----------
    features : int
        As many as it is to take.

    Raises
    ------
    CorruptStoreError
    """
    try_once(KIND, hashlib.sha256(model).hexdigest(), f"{__name__}:check_model", data=model)
    xgboost = require("xgboost")
    try:
        booster = xgboost.Booster(model_file=bytearray(model))
        taken = booster.num_features()
    except xgboost.core.XGBoostError as error:
        raise CorruptStoreError(f"XGBoost cannot load a saved model ({one_line(error, 120)}).") from error
    if taken != features:
        raise CorruptStoreError(f"A saved model takes {taken:,} features; its head has {features:,}.")
    return booster


def learner_of(model: bytes) -> dict[str, Any]:
    """What XGBoost's own JSON says of a model that was loaded before: its objective, base scores and trees."""
    return _learner(require("xgboost").Booster(model_file=bytearray(model)))


def _learner(booster: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(booster.save_raw("json"))["learner"]
    return found


def check_model(model: bytes) -> None:
    """Load a model and look at every tree; runs in a child process.

    Raises
    ------
    ValueError, XGBoostError
        Its trees are none, or lead to nodes or features that do not exist.
    """
    xgboost = require("xgboost")
    booster = xgboost.Booster(model_file=bytearray(model))
    learner = _learner(booster)
    boosted = learner["gradient_booster"]
    if boosted["name"] != "gbtree":
        raise ValueError(f"its booster is {boosted['name']!r}, not gbtree")
    shape = learner["learner_model_param"]
    features, classes = int(shape["num_feature"]), max(int(shape["num_class"]), int(shape.get("num_target", 1)))
    trees, info, ends = (boosted["model"][name] for name in ("trees", "tree_info", "iteration_indptr"))
    if len(info) != len(trees) or not all(0 <= group < max(classes, 1) for group in info):
        raise ValueError(f"its trees belong to no class of {classes}")
    if ends[:1] != [0] or ends[-1] != len(trees) or sorted(ends) != ends:
        raise ValueError("its rounds are not those of its trees")
    for number, tree in enumerate(trees):
        if problem := _problem(tree, features):
            raise ValueError(f"tree {number} {problem}")
    few = np.random.default_rng(0).normal(size=(8, features)).astype(np.float32)
    few[4:] = np.nan
    booster.predict(xgboost.DMatrix(few, nthread=1), output_margin=True)


def _problem(tree: Mapping[str, Any], features: int) -> str | None:
    """Why a walk through a tree may not end at a leaf; None where every walk does."""
    count = int(tree["tree_param"]["num_nodes"])
    per_node = ("left_children", "right_children", "split_indices", "split_conditions", "default_left", "split_type")
    if count < 1 or any(len(tree[name]) != count for name in per_node):
        return f"does not have {count} nodes"
    if int(tree["tree_param"]["size_leaf_vector"]) > 1 or any(tree["split_type"]) or tree["categories"]:
        return "is of a kind that no head has"
    left, right = (np.asarray(tree[name], np.int64) for name in ("left_children", "right_children"))
    inner = left != -1
    if ((right == -1) == inner).any():
        return "has nodes with one child"
    if not _within(tree["split_indices"], inner, features):
        return "asks for a feature that does not exist"
    children = np.concatenate([left[inner], right[inner]])
    if len(children) and not (children.min() > 0 and children.max() < count and len(np.unique(children)) == len(children)):
        return "leads to a node that does not exist, or to one twice"
    # no node is the child of two, none leads to the root: what the root does not reach may be a ring, what it reaches is a tree
    return None


def _within(indices: Sequence[int], inner: Any, features: int) -> bool:
    asked = np.asarray(indices, np.int64)[inner]
    return not len(asked) or (asked.min() >= 0 and asked.max() < features)

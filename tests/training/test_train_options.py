"""One place says what an option of training is called, defaults to and means."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest
import typer
from embedstore_cli.main import app

import embedstore as es
from embedstore.errors import UsageError
from embedstore.training.train_options import TrainOptions

OWN = {"store", "target", "on_progress"}


def test_python_has_the_options_with_their_defaults() -> None:
    taken = {name: p.default for name, p in inspect.signature(es.train).parameters.items() if name not in OWN}
    assert taken == {field.name: field.default for field in fields(TrainOptions)}


def test_the_command_has_the_options_with_their_defaults_and_help() -> None:
    typed = {param.name: param for param in typer.main.get_command(app).commands["train"].params}  # type: ignore[attr-defined]
    assert {field.name for field in fields(TrainOptions)} - {"report"} < typed.keys()
    helped = [field for field in fields(TrainOptions) if "help" in field.metadata]
    assert [field.name for field in fields(TrainOptions) if field not in helped] == ["where", "report"]
    for field in helped:
        option = typed[field.name]
        assert option.help == field.metadata["help"]
        assert option.default == field.default
        assert option.opts == [field.metadata.get("flag") or f"--{field.name.replace('_', '-')}"]
    assert typed["head"].metavar == "KIND"
    assert (typed["where"].default, typed["no_report"].default) == (None, False)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"cv": 2.5}, r"cv must be a whole number\. Got 2\.5 instead\."),
        ({"seed": -1}, r"seed must be at least 0\. Got -1 instead\."),
        ({"seeds": 0}, r"seeds must be at least 1\. Got 0 instead\."),
        ({"least_items": 0}, r"least_items must be at least 1\. Got 0 instead\."),
        ({"balance": "no"}, r"balance must be one of weights, oversample, .*\. Got 'no' instead\."),
        ({"separator": " "}, r"separator must be text that is not blank, such as ';'\. Got ' ' instead\."),
    ],
)
def test_they_are_checked_when_they_are_made(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        TrainOptions(**given)


@pytest.mark.parametrize(
    ("target", "given", "words"),
    [
        (
            "price",
            {},
            r"A view brings the target 'label'; target='price' is given beside it\. Leave that out, or make the view",
        ),
        (
            None,
            {"inputs": ["image"]},
            r"brings the inputs 'image,text'; inputs='image' is given .* store\.view\(…, inputs='image'",
        ),
        (None, {"where": "price > 3"}, r"brings its own items; where='price > 3' is given beside it"),
        (None, {"group": "price"}, r"brings no group; group='price' is given beside it"),
    ],
)
def test_what_a_view_brings_is_not_given_twice(store: es.Store, target: str | None, given: dict[str, Any], words: str) -> None:
    view = store.view(inputs=["image", "text"], target="label")
    with pytest.raises(UsageError, match=words):
        es.train(view, target, **given)
    assert "label" not in store.heads


def test_the_same_beside_a_view_is_fine(store: es.Store) -> None:
    view = store.view(inputs=["image", "text"], target="label")
    report = es.train(view, "label", inputs=["image", "text"], head="ridge", cv=2, report=False, out_of_fold=0)
    assert (report.target, report.inputs) == ("label", ["image", "text"])


def test_they_stay_as_they_are() -> None:
    with pytest.raises(FrozenInstanceError):
        TrainOptions().seed = 5  # type: ignore[misc]

"""One place says what an option of a search is called, defaults to and means."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from typing import Any, get_type_hints

import numpy as np
import numpy.typing as npt
import pytest
import typer
from embedstore_cli.main import app

from embedstore.errors import UsageError
from embedstore.retrieval.query_vector import QueryVector
from embedstore.retrieval.search_options import Query, Question, SearchOptions


def test_the_keywords_of_python_are_the_fields() -> None:
    for_types_alone = {"QueryVector": QueryVector, "npt": npt}
    keywords, typed = (get_type_hints(kind, localns=for_types_alone) for kind in (Question, SearchOptions))
    assert list(keywords) == [field.name for field in fields(SearchOptions)]
    assert keywords == typed
    assert keywords.keys() - get_type_hints(Query, localns=for_types_alone).keys() == {"device"}  # a Searcher has it already


def test_the_command_has_the_options_with_their_defaults_and_help() -> None:
    typed = {param.name: param for param in typer.main.get_command(app).commands["search"].params}  # type: ignore[attr-defined]
    assert {field.name for field in fields(SearchOptions)} - {"per_group", "spaces"} < typed.keys()
    helped = [field for field in fields(SearchOptions) if "help" in field.metadata]
    assert len(helped) == 10
    for field in helped:
        option = typed[field.name]
        assert option.help == field.metadata["help"]
        assert option.default == field.default
        assert option.opts == ["-k" if field.name == "k" else f"--{field.name.replace('_', '-')}"]
    for name in {field.name for field in fields(SearchOptions)} - {field.name for field in helped} - {"per_group", "spaces"}:
        assert typed[name].default is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"k": 0}, r"k must be at least 1\. Got 0 instead\."),
        ({"k": 1.5}, r"k must be a whole number\. Got 1\.5 instead\."),
        ({"offset": -1}, r"offset must be at least 0\. Got -1 instead\."),
        ({"per_group": 0}, r"per_group must be at least 1\. Got 0 instead\."),
        ({"diversity": 2}, r"diversity must lie between 0 \(nearest\) and 1 \(most different\)\. Got 2 instead\."),
        ({"recall": True}, r"recall must be a number\. Got True instead\."),
        ({"min_score": float("nan")}, r"min_score must be a number\. Got nan instead\."),
        ({"fusion": "max"}, r"fusion must be one of score, rrf\. Got 'max' instead\."),
        ({"nope": 1}, r"A search has no option 'nope'\. It has: text, image, audio, video, id, .*, recall, device\."),
    ],
)
def test_they_are_checked_when_they_are_made(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        SearchOptions.of(given)


def test_they_stay_as_they_are() -> None:
    options = SearchOptions(k=np.int64(3), offset=4)  # type: ignore[arg-type]
    assert (type(options.k), options.last) == (int, 7)
    with pytest.raises(FrozenInstanceError):
        options.k = 5  # type: ignore[misc]

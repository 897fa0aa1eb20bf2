"""Of each verb one dataclass says what an option is called, defaults to and means: for Python and the command alike."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest
import typer
from embedstore_cli.main import app

import embedstore as es
from embedstore.duplicates.dedup_options import THRESHOLD, DedupOptions
from embedstore.errors import UsageError
from embedstore.indexing.vector_index import VectorIndex
from embedstore.ingest.import_options import ImportOptions
from embedstore.retrieval.align_options import AlignOptions
from embedstore.retrieval.eval_search_options import EvalSearchOptions
from embedstore.retrieval.index_options import IndexOptions


@dataclass(frozen=True)
class Verb:
    """A verb of Python, the command for it, and their options.

    Parameters
    ----------
    own : set of str
        What the function takes beside its options.
    spelled : mapping
        Option → what the command calls its parameter, or None where it has none; each says its own help.
    flags : mapping
        Option → how it is typed, where that is not its name.
    """

    command: str
    function: Callable[..., Any]
    options: type
    own: set[str]
    spelled: dict[str, str | None] = field(default_factory=dict)
    flags: dict[str, list[str]] = field(default_factory=dict)


VERBS = [
    Verb(
        "align",
        es.align,
        AlignOptions,
        {"store"},
        {"where": "where"},
        {"source": ["--from"], "target": ["--to"]},
    ),
    Verb(
        "eval-search",
        es.eval_search,
        EvalSearchOptions,
        {"store", "searcher"},
        {"k": "k", "where": "where"},
        {"source": ["--from"], "target": ["--to"]},
    ),
    Verb("import", es.import_vectors, ImportOptions, {"source", "store", "on_progress"}, {"types": "type"}),
    Verb(
        "dedup",
        es.find_duplicates,
        DedupOptions,
        {"store", "on_progress"},
        {"where": "where"},
        {"pixels": ["--pixels", "--no-pixels"], "exact_only": ["--exact"]},
    ),
    Verb("index", es.index, IndexOptions, {"store", "space", "on_progress"}),
]
every_verb = pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.command)


def options_of(command: str) -> dict[str, Any]:
    group = typer.main.get_command(app)
    return {param.name: param for param in group.commands[command].params}  # type: ignore[attr-defined]


@every_verb
def test_python_has_the_options_with_their_defaults(verb: Verb) -> None:
    taken = {name: p.default for name, p in inspect.signature(verb.function).parameters.items() if name not in verb.own}
    assert taken == {option.name: option.default for option in fields(verb.options)}


@every_verb
def test_the_command_has_the_options_with_their_defaults_and_help(verb: Verb) -> None:
    typed = options_of(verb.command)
    assert [f.name for f in fields(verb.options) if "help" not in f.metadata] == list(verb.spelled)
    for option in fields(verb.options):
        if option.name in verb.spelled:
            assert verb.spelled[option.name] in {None, *typed}
            continue
        made = typed[option.name]
        assert (made.help, made.default) == (option.metadata["help"], option.default)
        assert [*made.opts, *made.secondary_opts] == verb.flags.get(option.name, [f"--{option.name.replace('_', '-')}"])


@every_verb
def test_they_stay_as_they_are(verb: Verb) -> None:
    first = fields(verb.options)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(verb.options(), first, None)


def test_an_index_has_the_same_defaults_without_a_store() -> None:
    alone = {name: p.default for name, p in inspect.signature(VectorIndex).parameters.items()}
    assert {name: alone[name] for name in alone if hasattr(IndexOptions, name)} == {
        option.name: option.default for option in fields(IndexOptions) if option.name != "queries"
    }


def test_an_index_records_what_builds_it_again_as_json() -> None:
    recorded = IndexOptions(at=5, queries=Path("asked.npy"), device="cuda").recorded()
    assert json.loads(json.dumps(recorded)) == recorded
    assert IndexOptions(**recorded) == IndexOptions(at=5, queries="asked.npy")


def test_what_is_near_depends_on_what_is_said() -> None:
    said = [DedupOptions(**given) for given in ({}, {"threshold": 0.9}, {"threshold": 1, "pixels": True}, {"pixels": False})]
    assert [(one.by_pixels, one.cosine) for one in said] == [(True, THRESHOLD), (False, 0.9), (True, 1.0), (False, THRESHOLD)]
    assert (DedupOptions().spaces, DedupOptions(space=["b", "a", "b"]).spaces) == (None, ["b", "a"])


@pytest.mark.parametrize(
    ("options", "given", "words"),
    [
        (
            DedupOptions,
            {"threshold": 0},
            r"threshold should be a cosine above 0 and at most 1, such as 0\.98\. Got 0 instead\.",
        ),
        (DedupOptions, {"threshold": True}, r"threshold should be a cosine .*\. Got True instead\."),
        (DedupOptions, {"space": [3]}, r"space should be strings\. Got 3 \(int\) instead\."),
        (AlignOptions, {"seed": -1}, r"seed should be 0 or more\. Got -1\."),
        (AlignOptions, {"source": "image"}, r"An alignment needs two spaces\. Got 'image' twice; choose another: --from SPACE"),
        (EvalSearchOptions, {"k": 2.5}, r"k should be a whole number, or several\. Got 2\.5 instead\."),
        (EvalSearchOptions, {"k": (5, 0)}, r"k must be at least 1\. Got \(5, 0\) instead\."),
        (EvalSearchOptions, {"queries": 0}, r"queries should be 1 or more\. Got 0\."),
        (EvalSearchOptions, {"relevance": "a", "pairs": "b"}, r"by --relevance or by --pairs, not by both\."),
        (ImportOptions, {"modality": "smell"}, r"modality must be one of \['image', .*\]\. Got 'smell' instead\."),
    ],
)
def test_they_are_checked_when_they_are_made(options: type, given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        options(**given)

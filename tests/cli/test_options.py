"""Of each verb one dataclass says what an option is called, defaults to and means: for Python and the command alike."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import FrozenInstanceError, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from embedstore_cli.main import app
from embedstore_cli.metavars import NAMES, OWN
from typer.testing import CliRunner

import embedstore as es
from embedstore._core.arguments import as_type
from embedstore.duplicates.dedup_options import THRESHOLD, DedupOptions
from embedstore.errors import EmbedstoreError, UsageError
from embedstore.exporting.export_head_options import ExportHeadOptions
from embedstore.exporting.export_options import ExportOptions
from embedstore.indexing.vector_index import VectorIndex
from embedstore.ingest.embed_options import EmbedOptions
from embedstore.ingest.import_options import ImportOptions
from embedstore.ingest.repair import repair
from embedstore.ingest.repair_options import RepairOptions
from embedstore.retrieval.align_options import AlignOptions
from embedstore.retrieval.compact_options import CompactOptions
from embedstore.retrieval.eval_search_options import EvalSearchOptions
from embedstore.retrieval.index_options import IndexOptions
from embedstore.retrieval.search_options import BATCHED, SearchOptions
from embedstore.serving.serve_options import ServeOptions
from embedstore.sources import MemorySource
from embedstore.training.compare_options import CompareOptions
from embedstore.training.evaluate_options import EvaluateOptions
from embedstore.training.labels_options import LabelsOptions
from embedstore.training.predict_options import PredictOptions
from embedstore.training.select_options import SelectOptions
from embedstore.training.train_options import TrainOptions


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
    Verb(
        "predict",
        es.predict,
        PredictOptions,
        {"store", "head", "dataset"},
        {"where": "where", "columns": "id_column"},
        {"ids": ["--id"], "explained": ["--explain"], "templates": ["--template"]},
    ),
    Verb("evaluate", es.evaluate, EvaluateOptions, {"store", "head"}, {"where": "where"}),
    Verb("select", es.select, SelectOptions, {"store"}, {"where": "where"}, {"n": ["-n"]}),
    Verb("compare", es.compare, CompareOptions, {"store", "target", "on_progress"}, {"where": "where"}),
    Verb("export-head", es.export_head, ExportHeadOptions, {"store", "head", "path"}),
    Verb("labels", es.labels, LabelsOptions, {"store", "head"}, {"where": "where"}, {"n": ["-n"]}),
    Verb("export", es.export, ExportOptions, {"store", "to", "out", "on_progress"}, {"where": "where"}),
    Verb(
        "repair",
        repair,
        RepairOptions,
        {"store", "dataset", "on_progress"},
        {"columns": "id_column", "allow_models": "allow_model"},
    ),
    Verb("serve", es.serve, ServeOptions, {"store", "on_ready"}, flags={"seconds": ["--timeout"]}),
    Verb("compact", es.compact, CompactOptions, {"store", "on_progress"}),
    Verb("select", es.select, SelectOptions, {"store"}, {"where": "where"}, {"n": ["-n"]}),
    Verb("compare", es.compare, CompareOptions, {"store", "target", "on_progress"}, {"where": "where"}),
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
            r"threshold must be a cosine above 0 and at most 1, such as 0\.98\. Got 0 instead\.",
        ),
        (DedupOptions, {"threshold": True}, r"threshold must be a number\. Got True instead\."),
        (DedupOptions, {"space": [3]}, r"space must be a string or strings\. Got 3 among them\."),
        (AlignOptions, {"seed": -1}, r"seed must be at least 0\. Got -1 instead\."),
        (EvaluateOptions, {"seed": -1}, r"seed must be at least 0\. Got -1 instead\."),
        (AlignOptions, {"source": "image"}, r"An alignment needs two spaces\. Got 'image' twice; choose another: --from SPACE"),
        (EvalSearchOptions, {"k": 2.5}, r"k must be a whole number or whole numbers\. Got 2\.5 instead\."),
        (EvalSearchOptions, {"k": (5, 0)}, r"k must be at least 1\. Got \(5, 0\) instead\."),
        (EvalSearchOptions, {"queries": 0}, r"queries must be at least 1\. Got 0 instead\."),
        (EvalSearchOptions, {"relevance": "a", "pairs": "b"}, r"by --relevance or by --pairs, not by both\."),
        (ExportOptions, {"dtype": "int8"}, r"dtype must be one of float16, float32\. Got 'int8' instead\."),
        (ExportOptions, {"name": " "}, r"name must not be empty"),
        (ImportOptions, {"modality": "smell"}, r"modality must be one of \['image', .*\]\. Got 'smell' instead\."),
    ],
)
def test_they_are_checked_when_they_are_made(options: type, given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        options(**given)


def test_a_search_of_many_has_the_options_of_one_that_it_takes() -> None:
    taken = inspect.signature(es.search_batch).parameters
    defaults = {option.name: option.default for option in fields(SearchOptions)}
    assert {name: p.default for name, p in taken.items() if name in defaults} == {name: defaults[name] for name in BATCHED}


CLASSES = [*(verb.options for verb in VERBS), EmbedOptions, SearchOptions, TrainOptions]
OPTIONS = [(options, option.name) for options in CLASSES for option in fields(options)]


class Odd:
    """Of no type that an option has."""

    def __repr__(self) -> str:
        return "<an odd\nthing>"


def test_every_options_class_is_looked_at() -> None:
    found = {path.stem for path in Path(es.__file__).parent.rglob("*_options.py")}
    assert found == {options.__module__.rpartition(".")[2] for options in CLASSES}


@pytest.mark.parametrize(("options", "name"), OPTIONS, ids=lambda given: getattr(given, "__name__", given))
def test_a_value_of_another_type_is_a_usage_error(options: type, name: str) -> None:
    """Never an error of Python's own, at once or later; it is one line that names the option."""
    odds: list[Any] = [Odd(), b"bytes", {1: Odd()}, 2.5j]
    odds += [] if name in ("ids", "vector") else [[Odd()]]  # may be arrays, which are looked at with the data
    for odd in odds:
        with pytest.raises(UsageError) as told:
            options(**{name: odd})
        assert "\n" not in str(told.value)
        assert name in str(told.value) or "the name of a space" in str(told.value)


@pytest.mark.parametrize(
    ("options", "given", "words"),
    [
        (EmbedOptions, {"workers": "4"}, "workers must be a whole number. Got '4' instead."),
        (EmbedOptions, {"workers": True}, "workers must be a whole number. Got True instead."),
        (EmbedOptions, {"workers": 2.0}, "workers must be a whole number. Got 2.0 instead."),
        (EmbedOptions, {"timeout": None}, "timeout must be a number. Got None instead."),
        (EmbedOptions, {"types": "text"}, "types must be a mapping. Got 'text' instead."),
        (EmbedOptions, {"types": {"price": 3}}, "types must be a mapping. Got 3 among them."),
        (EmbedOptions, {"columns": ["id"]}, "columns must be a mapping. Got ['id'] instead."),
        (EmbedOptions, {"strict": "no"}, "strict must be True or False. Got 'no' instead."),
        (EmbedOptions, {"image": {3: "hash"}}, "the name of a space must be a string. Got 3 instead."),
        (EmbedOptions, {"allow_models": [3]}, "allow_models must be paths. Got 3 among them."),
        (EmbedOptions, {"root": 3}, "root must be a path. Got 3 instead."),
        (TrainOptions, {"seeds": 2.5}, "seeds must be a whole number. Got 2.5 instead."),
        (TrainOptions, {"head": ["linear"]}, "head must be a string. Got ['linear'] instead."),
        (TrainOptions, {"inputs": 3}, "inputs must be strings. Got 3 instead."),
        (TrainOptions, {"inputs": ["image", 3]}, "inputs must be strings. Got 3 among them."),
        (SearchOptions, {"where": 3}, "where must be a string. Got 3 instead."),
        (SearchOptions, {"k": "10"}, "k must be a whole number. Got '10' instead."),
        (SearchOptions, {"fusion": np.array(["rrf", "score"])}, "fusion must be a string. Got array(['rrf', 'score'], dtype="),
        (SearchOptions, {"weights": [1, "x"]}, "weights must be numbers. Got 'x' among them."),
        (SearchOptions, {"image": 3}, "image must be a path or paths. Got 3 instead."),
        (SearchOptions, {"vector": "a"}, "vector must be a QueryVector, or numbers of shape (dim,). Got 'a' instead."),
        (EvalSearchOptions, {"k": ["1"]}, "k must be a whole number or whole numbers. Got '1' among them."),
        (IndexOptions, {"memory": 1.5}, "memory must be a whole number or a string. Got 1.5 instead."),
        (IndexOptions, {"recall": "0.9"}, "recall must be a number. Got '0.9' instead."),
        (ImportOptions, {"ids": 3}, "ids must be the name of a column, a path, or strings. Got 3 instead."),
        (CompactOptions, {"force": 1}, "force must be True or False. Got 1 instead."),
        (PredictOptions, {"coverage": "0.9"}, "coverage must be a number. Got '0.9' instead."),
        (LabelsOptions, {"n": 2.5}, "n must be a whole number. Got 2.5 instead."),
        (PredictOptions, {"ids": 3}, "ids must be strings. Got 3 instead."),
    ],
)
def test_it_says_what_the_option_takes(options: type, given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as told:
        options(**given)
    assert str(told.value).startswith(words)


def test_values_are_kept_as_what_they_are_declared_to_be() -> None:
    """NumPy's scalars as Python's; one name is a list of itself, and what can be walked once is walked once."""
    made = SearchOptions(k=np.int64(3), diversity=np.float32(0.5), weights=np.ones(2), columns="price", like=(n for n in "ab"))
    assert [type(value) for value in (made.k, made.diversity, made.weights)] == [int, float, list]
    assert (made.columns, made.like) == (["price"], ["a", "b"])
    assert CompactOptions(force=np.bool_(True)).force is True
    assert PredictOptions(ids=np.array(["a", "b"])).ids == ["a", "b"]
    assert EmbedOptions(allow_models=Path("model")).allow_models == [Path("model")]
    assert TrainOptions(inputs=("image", "text")).inputs == ("image", "text")
    assert as_type({"n": np.arange(3)}, Mapping[str, Sequence[Any]], "metadata")["n"].dtype == np.int64


def test_an_index_without_a_store_refuses_them_too() -> None:
    for given in ({"at": "3"}, {"recall": None}, {"threads": 1.5}, {"device": 3}, {"seed": "a"}):
        (name,) = given
        with pytest.raises(UsageError, match=f"{name} must be"):
            VectorIndex(**given).fit(np.eye(4, dtype=np.float32))  # type: ignore[arg-type]


COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_calls_values_by_what_is_typed(command: str) -> None:
    """Never by a type of Python, such as <list[str]>."""
    for param in COMMANDS[command].params:
        assert param.metavar or param.is_flag or param.param_type_name == "argument", param.name
    lines = CliRunner().invoke(app, [command, "--help"]).stdout.splitlines()
    assert not [line for line in lines if re.search(r"<(list|str|int|float|path)", line)]


def test_names_of_values_are_those_of_options() -> None:
    """No name is kept for an option that is gone."""
    known = {param.name for command in COMMANDS.values() for param in command.params}
    assert {name for names in NAMES.values() for name in names} <= known
    for command, name in OWN:
        assert name in {param.name for param in COMMANDS[command].params}
    typed = {name: {param.name: param.metavar for param in command.params} for name, command in COMMANDS.items()}
    assert [typed[name]["image"] for name in ("embed", "search")] == ["ENCODER", "FILE"]
    assert (typed["search"]["id"], typed["search"]["k"], typed["search"]["where"]) == ("ID", "NUMBER", "SQL")
    assert (typed["train"]["head"], typed["train"]["inputs"], typed["train"]["plots"]) == ("KIND", "SPACE,…", "FOLDER")


ODD: dict[str, list[Callable[[Any], Any]]] = {
    "store must be a Store or a path. Got 3 instead.": [
        lambda store: es.Store.open(3),
        lambda store: es.search(3, text="a"),
        lambda store: es.train(3, "label"),
        lambda store: es.embed(MemorySource({"id": ["a"], "text": ["b"]}), 3, text="hash"),
        lambda store: es.import_vectors(np.eye(3), 3, modality="text"),
        lambda store: es.compact(3),
        lambda store: es.export(3, to="parquet", out="a"),
        lambda store: repair(3),
        lambda store: es.verify(3),
    ],
    "where_timeout must be a number. Got 'a' instead.": [lambda store: es.Store.open(store.path, where_timeout="a")],
    "allow_models must be paths. Got 3 instead.": [lambda store: es.Store.open(store.path, allow_models=3)],
    "check must be True or False. Got 'no' instead.": [lambda store: es.Store.open(store.path, check="no")],
    "inputs must be strings. Got 3 (int) instead.": [lambda store: store.view(inputs=3)],
    "ids must be strings. Got 3 (int) instead.": [lambda store: store.remove(3), lambda store: store.absent(3)],
    "the name of a space must be a string. Got ['text'] instead.": [lambda store: store.space(["text"])],
    "to must be a string. Got 3 instead.": [lambda store: es.export(store, to=3, out="a")],
    "out must be a path or an address. Got 3 instead.": [lambda store: es.export(store, to="parquet", out=3)],
    "where must be a string. Got 3 instead.": [lambda store: store.where(3)],
    "space must be a string. Got 3 instead.": [lambda store: es.index(store, 3)],
    "head must be a path. Got 3 instead.": [lambda store: es.evaluate(store, 3), lambda store: es.predict(store, 3)],
    "A dataset must be a path, a URL, a data frame or a Source. Got 3 instead.": [lambda store: es.embed(3, store)],
    "source must be a path or an array (n, dim). Got [[1, 2]] instead.": [
        lambda store: es.import_vectors([[1, 2]], store, modality="text")
    ],
    "queries must be a .npy file, a space, or an array (m, dim). Got 3 instead.": [
        lambda store: es.search_batch(store, 3, store.path.parent / "found.csv")
    ],
    "out must be a path. Got 3 instead.": [lambda store: es.search_batch(store, "text", 3)],
    "A Searcher is made of a Store: Searcher(Store.open(PATH)). Got 3 instead.": [lambda store: es.Searcher(3)],
    "device must be a string. Got 3 instead.": [lambda store: es.Searcher(store, device=3)],
    "A Searcher has a device: Searcher(store, device=…). Leave it out of its searches.": [
        lambda store: es.Searcher(store).search(text="a", device="cpu")
    ],
    "The vector should be numbers of shape (dim,): setting an array element": [
        lambda store: es.search(store, vector=[[1], [1, 2]])
    ],
    "k must be a whole number. Got '3' instead.": [lambda store: VectorIndex().fit(np.eye(4)).search(np.eye(4), k="3")],
    "report must be what find_duplicates returned. Got 3 instead.": [lambda store: es.remove_duplicates(store, 3)],
    "Input 'x' should be numbers of shape (n, d): could not convert string": [
        lambda store: es.make_head("ridge").fit("x", [0, 1])
    ],
    "vectors must be an array (n, dim), or be read in blocks. Got 3 instead.": [lambda store: VectorIndex().fit(3)],
}


@pytest.mark.parametrize("words", ODD)
def test_arguments_beside_the_options_are_checked_too(store: es.Store, words: str) -> None:
    for call in ODD[words]:
        with pytest.raises(EmbedstoreError) as told:
            call(store)
        assert str(told.value).startswith(words)

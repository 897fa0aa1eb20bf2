"""Every seam takes plugins of other packages: they are used, listed, and told from one that is broken."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, run

from embedstore.errors import MissingDependencyError, UsageError
from embedstore.registry import ENCODERS, EXPORTERS, HEADS, REGRESSORS, SOURCES, Registry, docstring_of

ENTRY_POINTS = """
[embedstore.heads]
nearest_mean = toy_plugins:NearestMean
broken = toy_plugins:Nothing
[embedstore.sources]
count = toy_plugins:counting
[embedstore.encoders]
digits = toy_plugins:digits
[embedstore.tasks]
graded = toy_plugins:Graded
[embedstore.heads.grades]
ridge = toy_plugins:RidgeGrades
[embedstore.exporters]
lines = toy_plugins:Lines
"""
SEAMS = [(registry, name) for registry in (ENCODERS, HEADS, REGRESSORS, SOURCES, EXPORTERS) for name in registry]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages with one of them, as pip would leave it, on the path of processes that are started."""
    folder = tmp_path / "installed"
    metadata = folder / "toy_plugins-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-plugins\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    for module in ("toy_plugins.py", "toy_task.py"):
        shutil.copy(ROOT / "tests" / "contracts" / module, folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def python(code: str, *arguments: object) -> str:
    """What `code` prints in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_head_a_source_and_an_encoder_from_outside_are_used(installed: Path, tmp_path: Path) -> None:
    code = """if True:
        import json, sys
        import embedstore as es
        report = es.embed("count:210", sys.argv[1], text="digits")
        trained = es.train(sys.argv[1], "label", head="nearest_mean", report=False)
        again = es.predict(es.Store.open(sys.argv[1]), "label", "count:7")
        print(json.dumps([report.items, trained.kind, trained.metrics["accuracy"].value, list(again.labels)]))
    """
    items, kind, accuracy, labels = json.loads(run("-c", code, tmp_path / "s").stdout)
    assert (items, kind, accuracy) == (210, "nearest_mean", 1.0)
    assert labels == ["low"] * 3 + ["high"] * 4


def test_a_task_of_another_package_may_have_heads_of_its_own(installed: Path, tmp_path: Path) -> None:
    """They are chosen among, saved, loaded, seeded and told by the group of their entry points alone."""
    code = """if True:
        import json, sys
        import embedstore as es
        from embedstore.errors import UsageError
        es.embed("count:210", sys.argv[1], text="digits")
        trained = es.train(sys.argv[1], "grade", task="graded", head="ridge", report=False)
        scores = es.evaluate(sys.argv[1], "grade").metrics["exact"].value
        again = es.predict(es.Store.open(sys.argv[1]), "grade", "count:7")
        said = []
        for head, task in (("gbdt", "graded"), ("nope", "graded"), ("nope", "regression")):
            try: es.train(sys.argv[1], "grade", head=head, task=task)
            except UsageError as error: said.append(str(error))
        print(json.dumps([trained.kind, scores, again.labels.tolist(), said]))
    """
    kind, exact, labels, said = json.loads(run("-c", code, tmp_path / "s").stdout)
    assert (kind, exact, labels) == ("ridge", 1.0, [1, 2, 3, 1, 2, 3, 1])
    assert said == [
        "Head 'gbdt' predicts classes. For grades there are: ridge.",
        "No head for grades is called 'nope'. Known: ridge.",
        "No head for numbers is called 'nope'. Known: linear, ridge, knn, gbdt.",
    ]


def test_a_target_of_an_export_from_outside_is_checked_as_ours_are(installed: Path, tmp_path: Path) -> None:
    code = """if True:
        import json, sys
        import embedstore as es
        es.embed("count:21", sys.argv[1], text="digits")
        reports = [es.export(sys.argv[1], to="lines", out=sys.argv[2]) for _ in range(2)]
        print(json.dumps([report.to_dict() for report in reports]))
    """
    first, again = json.loads(run("-c", code, tmp_path / "s", tmp_path / "lines").stdout)
    assert [(told["written"], told["unchanged"]) for told in (first, again)] == [(21, 0), (0, 21)]
    assert first["check"]["recall"]["text"]["exact"]["value"] == 1
    assert len((tmp_path / "lines" / "0.jsonl").read_text().splitlines()) == 21


@pytest.mark.parametrize(
    ("command", "said", "light"),
    [
        ("export --help", "lines            One JSON object an item", True),
        ("train --help", "Heads for grades:   ridge  A ridge regression of grades", True),
        ("train --help", "nearest_mean  The class whose mean is nearest", True),
        ("embed --help", "count   count:N, the digits 0 to 6 again and again", True),
        ("encoders", "digits: one of seven", False),
    ],
)
def test_they_are_listed_and_not_imported(installed: Path, command: str, said: str, light: bool) -> None:
    code = """if True:
        import sys
        from embedstore_cli.main import main
        try: main()
        except SystemExit: pass
        print(*{"toy_plugins", "numpy"}.intersection(sys.modules), sep=",")
    """
    *shown, imported = python(code, *command.split()).splitlines()
    assert said in " ".join(shown)
    assert imported == ("" if light else "numpy")


def test_an_unknown_name_lists_what_exists(installed: Path) -> None:
    code = "import embedstore as es\ntry: es.make_head('nope')\nexcept es.errors.UsageError as error: print(error)"
    known = run("-c", code).stdout.strip()
    assert known.startswith("No head is called 'nope'. Known: linear, ridge, knn, ")
    assert known.endswith(", ensemble, auto, broken, nearest_mean.")


def test_a_broken_one_is_named_with_its_package(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(installed))
    importlib.invalidate_caches()
    heads = Registry("embedstore.heads", "head")
    with pytest.raises(MissingDependencyError, match=r"The head 'broken' of package toy-plugins cannot be loaded: .*'Nothing'"):
        heads.get("broken")
    assert heads.summary("broken") == ""


@pytest.mark.parametrize(("registry", "name"), SEAMS, ids=[f"{r.group}-{name}" for r, name in SEAMS])
def test_a_summary_is_what_the_docstring_says(registry: Registry, name: str) -> None:
    """It is read from the source, without an import."""
    summary = registry.summary(name)
    assert summary
    assert summary == (registry.get(name).__doc__ or "").strip().split("\n")[0]


def test_heads_have_the_names_that_they_are_saved_by() -> None:
    assert [HEADS.get(name).kind for name in HEADS] == list(HEADS)
    assert {REGRESSORS.get(name).task for name in REGRESSORS} == {"regression"}


def test_the_page_on_training_describes_every_head() -> None:
    page = (ROOT / "docs" / "train.md").read_text("utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    assert re.findall(r"`(\w+)`", " ".join(rows)) == list(HEADS)


def test_what_is_registered_in_a_process_comes_first() -> None:
    registry = Registry("embedstore.encoders", "encoder", order=("timm",))

    def mine(request: object) -> None:
        """One of mine."""

    registry.register("hash", mine)
    registry.register("mine", mine)
    known = [
        "clap",
        "colbert",
        "effnet-lite0",
        "frames",
        "hash",
        "hf-audio",
        "logmel",
        "mine",
        "minilm",
        "naflex",
        "openclip",
        "pe-av",
    ]
    assert registry.names() == ["timm", *known, "st", "vjepa2"]
    assert registry.get("hash") is mine
    assert registry.summary("mine") == "One of mine."
    assert "mine" in registry
    with pytest.raises(
        UsageError,
        match=r"No encoder is called 'nope'\. Known: timm, clap, colbert, effnet-lite0, frames, hash, hf-audio, logmel, mine, ",
    ):
        registry.get("nope")


def test_docstrings_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no_python.py").write_text("def (")
    (tmp_path / "silent.py").write_text("def nothing():\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert docstring_of("no_python", "nothing") == docstring_of("silent", "nothing") == ""
    assert docstring_of("embedstore.registry", "HEADS") == ""
    assert docstring_of("embedstore.heads.linear", "nothing") == ""
    assert docstring_of("embedstore.nothing.at_all", "nothing") == ""
    assert docstring_of("no_such_package.module", "nothing") == ""

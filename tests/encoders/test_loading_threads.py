"""Two threads that load models at once: what guards the one stays until it has loaded, and nothing is left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from embedstore.encoders import missing_weights, trust
from embedstore.errors import EncoderError


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What is replaced in transformers while a model is loaded."""
    made = SimpleNamespace(
        log_state_dict_report=lambda *given, **named: None,
        get_class_in_module=lambda *given: "a class",
        get_cached_module_file=lambda *given: "a file",
        TIME_OUT_REMOTE_CODE=15,
    )
    for module in (missing_weights, trust):
        monkeypatch.setattr(module, "require", lambda name: made)
    monkeypatch.setattr(trust.importlib.util, "find_spec", lambda name: made)
    return made


@contextmanager
def guarded(folder: Path) -> Iterator[None]:
    with trust.no_code(), missing_weights.none_missing(folder):
        yield


def load(library: Any, missing: set[str]) -> None:
    library.log_state_dict_report(loading_info=SimpleNamespace(missing_keys=missing))
    with pytest.raises(ValueError, match="never runs"):
        library.get_class_in_module()


def test_each_thread_is_told_of_its_own_missing_weights(library: Any, tmp_path: Path) -> None:
    before = dict(vars(library))
    inside, left = threading.Event(), threading.Event()
    said: list[str] = []

    def lacking() -> None:
        try:
            with guarded(tmp_path):
                inside.set()
                assert left.wait(10)
                load(library, {"layer.weight"})
        except EncoderError as error:
            said.append(str(error))

    other = threading.Thread(target=lacking)
    with guarded(tmp_path):
        other.start()
        assert not inside.wait(0.1), "both replace the same functions"
        load(library, set())
    left.set()
    other.join(10)
    assert len(said) == 1
    assert "lacks weights of this model (layer.weight)" in said[0]
    assert vars(library) == before


def test_one_thread_may_nest_them(library: Any, tmp_path: Path) -> None:
    before = dict(vars(library))
    with pytest.raises(EncoderError, match=r"lacks weights of this model \(a\)"), guarded(tmp_path), guarded(tmp_path):
        load(library, {"a"})
    assert vars(library) == before

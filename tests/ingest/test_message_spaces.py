"""One vector of several columns: what is embedded, when it is embedded again, and how it is asked for."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from embedstore_cli.main import app
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_models import qwen3_vl
from typer.testing import CliRunner

import embedstore as es
from embedstore._core.keys import hash_payload
from embedstore._core.message_parts import asked_with, packed, parsed, unpacked
from embedstore.encoders.base import EncoderRequest
from embedstore.encoders.hash import HashEncoder
from embedstore.errors import FingerprintError, PayloadError, UsageError
from embedstore.ingest import readers
from embedstore.registry import ENCODERS
from embedstore.sources import MemorySource

BOTH = "both={image}+{text}"


class Joined(HashEncoder):
    """The hash of a message; ``joined:whole`` takes none that lacks a part."""

    def __init__(self, request: EncoderRequest) -> None:
        super().__init__(16, request.modality, request.name)
        lacking = {"lacking": "left out"} if request.argument == "whole" else {}
        self.spec = replace(self.spec, preprocessing={"parts": list(request.parts), **lacking})

    def prepare(self, payload: bytes) -> bytes:
        if b"bad" in payload:
            raise PayloadError("decode", "is bad")
        return payload


@pytest.fixture(autouse=True)
def _joined() -> Iterator[None]:
    ENCODERS.register("joined", Joined)
    yield
    del ENCODERS._extra["joined"]


def png(seed: int, size: tuple[int, int] = (40, 30)) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def vectors(path: Path, space: str = "both") -> dict[str, bytes]:
    store = es.Store.open(path)
    rows = store.spaces[space].rows
    ids = store.items.take(rows, ["id"]).column("id").to_pylist()
    return dict(zip(ids, [v.tobytes() for v in store.spaces[space].take(rows)], strict=True))


def stored(*parts: tuple[str, bytes]) -> bytes:
    return HashEncoder(16, "text").encode([packed(parts)])[0].astype(np.float16).tobytes()


@given(st.lists(st.tuples(st.text(max_size=9), st.binary(max_size=40)), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_bytes_of_a_message_are_its_parts(parts: list[tuple[str, bytes]]) -> None:
    assert unpacked(packed(parts)) == parts
    with pytest.raises(ValueError, match="no message"):
        unpacked(packed(parts)[:-1])


def test_how_it_is_asked_for() -> None:
    assert parsed(BOTH) == ("both", ("image", "text"))
    assert parsed("{text}+{a title}") == ("message", ("text", "a title"))
    assert asked_with("both={image}+{text}=st:./a=b") == (BOTH, "st:./a=b")
    for wrong in ["", "both", "both=st:x", "{image}", "{image}+{image}", "both={image}+text", "={image}+{text}"]:
        with pytest.raises(UsageError, match="two columns or more"):
            parsed(wrong)
    for wrong in ["both=st:x", "both={image}+{text}", "both={image}+{text}=", "both={image}+{text}st:x"]:
        with pytest.raises(UsageError, match=r'such as "both=\{image\}\+\{text\}=st:'):
            asked_with(wrong)


def test_parts_that_are_there_are_embedded_and_one_bad_part_is_one_failure(tmp_path: Path) -> None:
    data = {"id": list("abcde"), "image": [b"1", b"2", None, b"bad", None], "text": ["x", None, "z", "w", None]}
    path = tmp_path / "s"
    report = es.embed(MemorySource(data), path, image="hash:16", message={BOTH: "joined"})
    counts = report.spaces["both"]
    assert (counts.embedded, counts.failed, counts.missing) == (3, 1, 1)
    assert (report.spaces["image"].embedded, report.spaces["image"].missing) == (3, 2)
    image = ("image", b"1"), ("image", b"2")
    expected = {"a": stored(image[0], ("text", b"x")), "b": stored(image[1]), "c": stored(("text", b"z"))}
    assert vectors(path) == expected
    space = es.Store.open(path).spaces["both"]
    assert space.hash_of(space.rows[:1]).tobytes() == hash_payload(packed([image[0], ("text", b"x")]))
    counts = es.embed(MemorySource(data), path, message={"all={image}+{text}": "joined:whole"}).spaces["all"]
    assert (counts.embedded, counts.failed, counts.missing) == (1, 1, 3)
    counts = es.embed(MemorySource(data), path).spaces["both"]  # by the encoders that it records
    assert (counts.embedded, counts.unchanged, counts.failed, counts.missing) == (0, 3, 1, 1)


def test_a_changed_part_is_embedded_again_whichever_space_sees_it_first(tmp_path: Path) -> None:
    photo, path = tmp_path / "a.png", tmp_path / "s"
    photo.write_bytes(png(1))
    data = {"id": ["a", "b"], "image": [str(photo), None], "text": ["x", "y"]}
    source = MemorySource(data)

    def fresh() -> dict[str, bytes]:
        return {"a": stored(("image", photo.read_bytes()), ("text", data["text"][0].encode())), "b": stored(("text", b"y"))}

    both = {"image": "hash:16", "message": {BOTH: "joined"}}
    es.embed(source, path, **both)
    assert vectors(path) == fresh()
    os.utime(photo, ns=(1, 1))
    assert es.embed(source, path, **both).spaces["both"].unchanged == 2
    for round, options in enumerate([both, {"image": "hash:16"}, {"message": {BOTH: "joined"}}]):
        photo.write_bytes(png(2 + round))
        es.embed(source, path, **options)
        assert vectors(path).get("a") in (None, fresh()["a"])  # never that of another file
        report = es.embed(source, path, **both)
        assert vectors(path) == fresh()
        assert vectors(path, "image") == {"a": HashEncoder(16, "image").encode([png(2 + round)])[0].astype("f2").tobytes()}
        assert es.embed(source, path, **both).spaces["both"].unchanged == 2, report
    photo.write_bytes(png(9))
    es.embed(MemorySource({"id": ["a"], "image": [str(photo)]}), path, image="hash:16")  # a dataset without the texts
    assert "a" not in vectors(path)
    es.embed(source, path, **both)
    assert vectors(path) == fresh()
    data["text"][0] = "other"
    es.embed(MemorySource(data), path, message={BOTH: "joined"})
    assert vectors(path) == fresh()
    assert len(es.verify(path).problems) == 0


def test_a_part_that_could_not_be_read_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo, path = tmp_path / "a.png", tmp_path / "s"
    photo.write_bytes(png(1))
    data = {"id": ["a"], "image": [str(photo)], "text": ["x"], "label": ["old"]}
    es.embed(MemorySource(data), path, message={BOTH: "joined"})
    photo.write_bytes(png(2, (50, 50)))
    with monkeypatch.context() as broken:
        broken.setattr(readers, "read_payload", Mock(side_effect=PayloadError("read", "Input/output error")))
        counts = es.embed(MemorySource({**data, "label": ["new"]}), path).spaces["both"]
    assert (counts.failed, counts.kept) == (1, 1)
    assert es.embed(MemorySource({**data, "label": ["new"]}), path).spaces["both"].embedded == 1
    assert vectors(path) == {"a": stored(("image", png(2, (50, 50))), ("text", b"x"))}


def test_metadata_columns_of_texts_are_parts_and_stay_columns(tmp_path: Path) -> None:
    data = {"id": ["a", "b"], "text": ["x", "y"], "title": ["t", " "], "message": ["1", "2"]}
    own = {"text": {"said": "hash"}, "columns": {"said": "message"}}  # a column may be called so
    es.embed(MemorySource(data), tmp_path / "s", message={"{title}+{text}": "joined"}, **own)
    expected = {"a": stored(("title", b"t"), ("text", b"x")), "b": stored(("text", b"y"))}
    assert vectors(tmp_path / "s", "message") == expected
    store = es.Store.open(tmp_path / "s")
    assert (store.items.metadata_columns(), len(store.spaces["said"])) == (["title", "message"], 2)
    with pytest.raises(UsageError, match="no metadata column 'name'"):
        es.embed(MemorySource(data), tmp_path / "t", message={"{name}+{text}": "joined"})
    with pytest.raises(UsageError, match="has no video for encoder 'joined'"):
        es.embed(MemorySource(data), tmp_path / "t", message={"{video}+{text}": "joined"})
    with pytest.raises(FingerprintError):
        es.embed(MemorySource(data), tmp_path / "s", message={"{text}+{title}": "joined"})


def test_imported_metadata_takes_messages_of_other_texts_away(tmp_path: Path) -> None:
    data = {"id": ["a", "b"], "text": ["x", "y"], "title": ["one", "two"]}
    path = tmp_path / "s"
    es.embed(MemorySource(data), path, message={"both={title}+{text}": "joined"})
    new = {"title": ["one", "new"]}
    es.import_vectors(np.eye(2, 4), path, modality="image", ids=["a", "b"], metadata=new)
    assert vectors(path) == {"a": stored(("title", b"one"), ("text", b"x"))}
    assert es.embed(MemorySource({**data, **new}), path).spaces["both"].embedded == 1
    assert vectors(path)["b"] == stored(("title", b"new"), ("text", b"y"))


def test_other_encoders_are_refused_in_one_line(tmp_path: Path) -> None:
    data = MemorySource({"id": ["a"], "image": [png(0)], "text": ["x"]})
    for name in ("minilm", "hash", "effnet-lite0"):
        with pytest.raises(UsageError, match=r"message|several columns|makes no vector of image and text together") as told:
            es.embed(data, tmp_path / "s", message={BOTH: name})
        assert "\n" not in str(told.value)


def test_a_model_of_messages_is_sentence_transformers_own_and_is_searched_by_text_and_image(tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    folder = qwen3_vl(tmp_path / "model")
    (tmp_path / "a.png").write_bytes(png(1))
    rows = [{"id": "a", "image": "a.png", "text": "a dog barks"}, {"id": "b", "image": None, "text": "the rain falls"}]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path = tmp_path / "s"
    typed = ["embed", str(tmp_path / "d.jsonl"), "--store", str(path), "--message", f"{BOTH}=st:{folder}", "--dtype", "float32"]
    done = CliRunner().invoke(app, [*typed, "--prompt", "red house: ", "--json"])
    assert done.exit_code == 0, done.output
    model = library.SentenceTransformer(str(folder), device="cpu")
    image = Image.open(io.BytesIO(png(1)))
    theirs = {
        "a": model.encode({"image": image, "text": "a dog barks"}, prompt="red house: "),
        "b": model.encode("the rain falls", prompt="red house: "),
    }
    for name, found in vectors(path).items():
        one, other = np.frombuffer(found, np.float32), theirs[name]
        assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.9999
    spec = es.Store.open(path).spaces["both"].spec
    assert (spec.prompt, spec.parts) == ("red house: ", ("image", "text"))
    assert es.search(path, text="the rain falls").results[0].id == "b"
    assert len(es.search(path, image=str(tmp_path / "a.png")).results) == 2
    with pytest.raises(UsageError, match="makes no vector of audio and text together; it takes text, image, video"):
        es.embed(MemorySource({"id": ["a"], "audio": [b""], "text": ["x"]}), path, message={"{audio}+{text}": f"st:{folder}"})


def test_a_head_on_messages_predicts_new_items(tmp_path: Path) -> None:
    n = 24
    data = {"id": [f"i{i}" for i in range(n)], "image": [bytes([i]) for i in range(n)], "text": [f"t{i}" for i in range(n)]}
    data["label"] = ["ab"[i % 2] for i in range(n)]
    es.embed(MemorySource(data), tmp_path / "s", message={BOTH: "joined"})
    es.train(tmp_path / "s", "label", head="knn", inputs=["both"])
    new = {"id": ["x"], "image": [bytes([3])], "text": ["t3"]}
    assert es.predict(tmp_path / "s", "label", MemorySource(new)).labels.tolist() == ["b"]

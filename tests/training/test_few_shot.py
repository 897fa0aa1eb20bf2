"""Classes by name: zero-shot as open_clip computes it, through an alignment, and few-shot curves, from option to page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Telling, run
from PIL import Image

import embedstore as es
from embedstore.encoders.base import EncoderRequest
from embedstore.encoders.hash import HashEncoder
from embedstore.errors import HeadError, UsageError
from embedstore.heads.io import load_head
from embedstore.registry import ENCODERS
from embedstore.retrieval.aligned_spaces import ProjectedSpace, spaces_of
from embedstore.sources import MemorySource
from embedstore.training.class_names import CLIP_TEMPLATES, TEMPLATES
from embedstore.training.saved import fitted_ids
from embedstore.training.shots import shot_curve
from embedstore.training.tasks.base import task_called

TINY_CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16, "head_width": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
WORDS = {"cat": [1.0, 0.0, 0.0, 0.3], "dog": [0.0, 1.0, 0.0, -0.3], "red_fox": [0.0, 0.0, 1.0, 0.1]}
Array = np.ndarray[Any, Any]


class Worded(Telling):
    """Texts that hold numbers are those numbers; others are where the name of their class is."""

    def encode(self, batch):  # type: ignore[no-untyped-def]
        found = []
        for payload in batch:
            words = payload.decode()
            named = [vector for word, vector in WORDS.items() if word.replace("_", " ") in words]
            found.append(named[0] if named else [float(w) for w in words.split()])
        return np.array(found, dtype=np.float32)


def worded(request: EncoderRequest) -> HashEncoder:
    """For tests."""
    return Worded(4, request.modality, "worded")


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    ENCODERS.register("worded", worded)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> es.Store:
    """Images that a text encoder knows nothing of, titles, and an alignment of the two."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 240)
    centres = np.array(list(WORDS.values()))
    titles = centres[y] + 0.35 * rng.standard_normal((240, 4))
    images = titles @ rng.standard_normal((4, 6)) + 0.1 * rng.standard_normal((240, 6))
    path = tmp_path_factory.mktemp("shots") / "a.store"
    data: dict[str, Any] = {
        "id": [f"i{i}" for i in range(240)],
        "text": [" ".join(f"{v:.4f}" for v in row) for row in titles],
        "label": [list(WORDS)[k] for k in y],
        "number": rng.standard_normal(240).tolist(),
    }
    es.embed(MemorySource(data), path, text=Worded(4, "text", "worded"))
    es.import_vectors(images.astype(np.float32), path, modality="image", ids=data["id"], encoder=None)
    es.align(path, seed=0)
    return es.Store.open(path)


def test_zero_shot_equals_open_clip_s_own(tmp_path: Path) -> None:
    import open_clip
    import torch

    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "ViT-shots-test.json").write_text(json.dumps(TINY_CLIP))
    open_clip.add_model_config(tmp_path / "models")
    torch.manual_seed(3)
    weights = tmp_path / "models" / "weights.pt"
    torch.save(open_clip.create_model("ViT-shots-test").state_dict(), weights)
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)) for _ in range(9)]
    (tmp_path / "images").mkdir()
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / "images" / f"{i}.png")
    es.embed(tmp_path / "images", tmp_path / "s", image=f"openclip:ViT-shots-test/{weights}", dtype="float32", runtime="torch")
    classes, templates = ["cat", "dog", "red fox"], ["a photo of a {}.", "art of the {}."]

    model, _, preprocess = open_clip.create_model_and_transforms("ViT-shots-test", pretrained=str(weights))
    with torch.inference_mode():
        classifier = open_clip.build_zero_shot_classifier(
            model.eval(), open_clip.get_tokenizer("ViT-shots-test"), classes, [t.format for t in templates], device="cpu"
        )
        images = model.encode_image(torch.stack([preprocess(picture) for picture in pictures]), normalize=True)
        theirs = (100.0 * images @ classifier).softmax(dim=-1).numpy()
    ours = es.predict(tmp_path / "s", classes=["cat", "dog", "red_fox"], templates=templates)
    assert ours.classes.tolist() == ["cat", "dog", "red_fox"]
    order = np.argsort(ours.ids.astype(str))
    np.testing.assert_allclose(ours.probabilities[order], theirs, atol=2e-3)
    assert ours.labels[order].tolist() == [ours.classes[k] for k in theirs.argmax(axis=1)]


def test_a_head_that_begins_with_names_is_trained_saved_and_judged(store: es.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    report = es.train(store, "label", head="zeroshot", inputs=["image"], name="named", templates=["the {}", "a {}"], seed=5)
    assert report.metrics["accuracy"].value > 0.8
    record = load_head(store.path / "heads" / "named")
    side = record.head.texts.sides["image"]  # type: ignore[attr-defined]
    assert list(side.templates) == ["the {}", "a {}"]
    assert (side.items, side.alignment[:6]) == (store.space("image").fingerprint, "align:")
    assert any("are among the pairs that the alignment was fitted on" in note for note in report.notes)
    monkeypatch.setitem(ENCODERS._extra, "worded", None)  # no text encoder is asked
    assert (es.predict(store, "named").labels == store.view(inputs=["image"], target="label").target).mean() > 0.8
    assert es.evaluate(store, "named", seen=True).metrics["accuracy"].value > 0.8


@pytest.mark.parametrize("kind", ["zeroshot", "prompted-linear"])
def test_items_that_the_alignment_knows_are_told_by_evaluate(store: es.Store, tmp_path: Path, kind: str) -> None:
    """As many as are among the pairs it was fitted on, by its own file of the split; nothing of them in another store."""
    home = es.Store.open(shutil.copytree(store.path, tmp_path / "a.store"))
    es.train(home, "label", head=kind, inputs=["image"], name="judged", seed=5, report=False, out_of_fold=0, seeds=1)
    (aligned,) = [
        space for space in spaces_of(home).values() if isinstance(space, ProjectedSpace) and space.base.name == "image"
    ]
    view = home.view(inputs=["image"], target="label")
    unseen = ~np.isin(view.ids.astype(str), fitted_ids(load_head(home.path / "heads" / "judged")))
    known = int(np.isin(view.rows[unseen], aligned.fitted_on).sum())
    assert 0 < known < unseen.sum()
    expected = f"{known} of the {unseen.sum()} test items are among the pairs that the alignment was fitted on: scores flatter"
    assert expected in es.evaluate(home, "judged").notes
    assert not any("alignment" in note for note in es.evaluate(store, home.path / "heads" / "judged").notes)
    shutil.rmtree(home.path / "heads" / aligned.head)
    assert any("no longer has the alignment through which names" in note for note in es.evaluate(home, "judged").notes)


@pytest.mark.parametrize("kind", ["tip-adapter", "prompted-linear"])
def test_the_curve_of_few_shots(store: es.Store, kind: str) -> None:
    report = es.train(store, "label", head=kind, inputs=["image"], name=kind, shots=[0, 1, 4], out_of_fold=0)
    curve = report.shots
    assert curve is not None
    assert [(p.shots, p.items, sorted(p.accuracy)) for p in curve.points] == [
        (0, 0, ["zeroshot"]),
        (1, 3, ["head", "knn", "linear", "zeroshot"]),
        (4, 12, ["head", "knn", "linear", "zeroshot"]),
    ]
    fitted = es.Store.open(store.path).view(inputs=["image"]).rows
    assert curve.judged < 0.5 * len(fitted), "items that the alignment knows are not judged"
    first = curve.points[1]
    assert first.gain["knn"].low > 0, "with one item a class the names know more than the items"
    assert first.gain["knn"].value == pytest.approx(first.accuracy["head"].value - first.accuracy["knn"].value)
    assert json.loads(json.dumps(report.to_dict()))["shots"]["points"][1]["gain"]["knn"]["low"] == first.gain["knn"].low
    page = (store.path / "heads" / kind / "report.html").read_text("utf-8")
    assert "Few shots" in page
    assert "gain over the best other" in page


def test_any_head_for_classes_has_a_curve_and_no_other(store: es.Store) -> None:
    curve = es.train(store, "label", head="knn", name="k", shots=[2], report=False, out_of_fold=0).shots
    assert curve is not None
    assert sorted(curve.points[0].accuracy) == ["head", "knn", "linear"]
    assert "shots" not in es.train(store, "label", name="k", replace=True, report=False, out_of_fold=0).to_dict()
    with pytest.raises(UsageError, match="shots are items of a class; target 'number' is for the task regression"):
        es.train(store, "number", shots=[1])
    view = store.view(inputs=["text"], target="label")
    task = task_called("classification")
    with pytest.raises(HeadError, match="There are too few items for 3 of each class, and others to judge on; leave shots out"):
        shot_curve(
            task, view, task.labels(view), {"head": task.plain_knn}, [3], same=np.arange(240), judged=np.zeros(240, bool)
        )


def test_titles_and_images_together_and_the_default_templates(store: es.Store) -> None:
    es.train(store, "label", head="zeroshot", name="both", report=False, out_of_fold=0)
    sides = load_head(store.path / "heads" / "both").head.texts.sides  # type: ignore[attr-defined]
    assert {name: tuple(side.templates) for name, side in sides.items()} == dict.fromkeys(("image", "text"), TEMPLATES)
    assert len(CLIP_TEMPLATES) == 7
    found = es.predict(store, classes=list(WORDS), inputs=["text"])
    assert (found.labels == store.view(inputs=["text"], target="label").target).mean() > 0.8


def test_what_cannot_be_compared_or_meant(store: es.Store, tmp_path: Path) -> None:
    classes = ["cat", "dog"]
    with pytest.raises(UsageError, match=r"templates and alignment are for heads that begin with names of classes: zeroshot"):
        es.train(store, "label", templates=["a {}"])
    with pytest.raises(UsageError, match=r"A template holds \{\} once, .* Got 'a photo'\."):
        es.predict(store, classes=classes, templates=["a photo"])
    with pytest.raises(UsageError, match="Two classes would be told by one text: 'red fox'"):
        es.predict(store, classes=["red fox", "red_fox"])
    with pytest.raises(UsageError, match=r"Class ' ' has no name"):
        es.predict(store, classes=["cat", " "])
    with pytest.raises(UsageError, match=r"Alignment 'other' does not align 'image' with texts\. Those that do: aligned"):
        es.predict(store, classes=classes, alignment="other")
    with pytest.raises(UsageError, match="Name either a head, or classes"):
        es.predict(store)
    with pytest.raises(UsageError, match="Name either a head, or classes"):
        es.predict(store, "label", classes=classes)
    with pytest.raises(UsageError, match="balance 'oversample' is not for head 'zeroshot'"):
        es.train(store, "label", head="zeroshot", balance="oversample")
    lonely = tmp_path / "lonely"
    es.import_vectors(np.eye(4, dtype=np.float32), lonely, modality="image", ids=list("abcd"), encoder=None)
    with pytest.raises(UsageError, match=r"Space 'image' .* its encoder takes no texts\. Align it first"):
        es.predict(lonely, classes=classes)
    with pytest.raises(HeadError, match="begins with the names of the classes"):
        es.compare(store, "label", head="zeroshot")


def test_the_commands(store: es.Store, tmp_path: Path) -> None:
    from embedstore_cli.main import app
    from typer.testing import CliRunner

    runner, here = CliRunner(), str(store.path)
    given = ["predict", here, "--classes", "cat,dog,red_fox", "--inputs", "image", "--template", "the {}", "--json"]
    found = runner.invoke(app, given)
    assert found.exit_code == 0, found.output
    assert len(json.loads(found.stdout)["predictions"]) == 240
    shown = runner.invoke(app, ["train", here, "label", "--head", "zeroshot", "--name", "z", "--shots", "0,1", "--no-report"])
    assert shown.exit_code == 0, shown.output
    assert "gain over the best other" in shown.stdout
    assert "accuracy over 20 draws" in shown.stdout
    wrong = run("train", here, "label", "--shots", "1,x", code=2)
    assert "--shots should be whole numbers, such as 1,2,4. Got '1,x' instead." in wrong.stderr

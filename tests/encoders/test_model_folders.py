"""Models that bring their configuration, pooling by name, licences, and what is said where no hub can be reached."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_encoders import TINY_CLIP, encoded, picture

import embedstore as es
from embedstore.encoders import load_encoder, openclip
from embedstore.encoders.runtimes.base import agreement
from embedstore.errors import EncoderError, SourceError, UsageError
from embedstore.sources import MemorySource

CARD = "---\nlicense: other\nlicense_name: some-licence\ntags:\n- clip\n---\n# A model\n"
TEXTS = ["a red car", "", "Many WORDS, " * 20]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a CLIP whose pixels are wanted as SigLIP wants them."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("clip") / "model"
    folder.mkdir()
    mean_std = {"mean": [0.5] * 3, "std": [0.5] * 3}
    preprocess = {"size": 32, "mode": "RGB", **mean_std, "interpolation": "bicubic", "resize_mode": "squash"}
    config = {"model_cfg": TINY_CLIP, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    (folder / "README.md").write_text(CARD)
    torch.manual_seed(0)
    save_file(open_clip.create_model(f"local-dir:{folder}").state_dict(), folder / "open_clip_model.safetensors")
    return folder


def pixels(encoder: Any, n: int = 3) -> Any:
    return encoder.encode([encoder.prepare(encoded(picture(i, (70, 50)))) for i in range(n)])


def test_a_folder_of_open_clip_gives_open_clip_s_vectors(clip_folder: Path, tmp_path: Path) -> None:
    import open_clip
    import torch

    name = f"local-dir:{clip_folder}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    tokens = open_clip.get_tokenizer(name)(TEXTS)
    with torch.inference_mode():
        images = model.eval().encode_image(torch.stack([preprocess(picture(i, (70, 50))) for i in range(3)]), normalize=True)
        texts = model.encode_text(tokens, normalize=True)
    image, text = (load_encoder(f"openclip:{name}", modality, precision="float32") for modality in ("image", "text"))
    assert agreement(pixels(image), images.numpy()) > 0.9999
    assert agreement(text.encode([text.prepare(t.encode()) for t in TEXTS]), texts.numpy()) > 0.99999
    assert (image.spec.alignment, image.spec.dim, text.truncated) == (text.spec.alignment, 32, 1)
    assert image.license == text.license == "some-licence"  # type: ignore[attr-defined]

    moved = Path(shutil.copytree(clip_folder, tmp_path / "moved"))
    assert load_encoder(f"openclip:local-dir:{moved}", "text").spec.fingerprint == text.spec.fingerprint
    changed = json.loads((moved / "open_clip_config.json").read_text())
    changed["model_cfg"]["quick_gelu"] = True
    (moved / "open_clip_config.json").write_text(json.dumps(changed))
    openclip._load_clip.cache_clear()
    assert load_encoder(f"openclip:local-dir:{moved}", "text").spec.fingerprint != text.spec.fingerprint


def test_a_store_of_a_folder_of_open_clip_is_searched_by_texts_and_says_the_licence(clip_folder: Path, tmp_path: Path) -> None:
    data = MemorySource({"id": ["a", "b"], "image": [encoded(picture(i)) for i in range(2)]})
    es.embed(data, tmp_path / "s", image=f"openclip:local-dir:{clip_folder}")
    store = es.Store.open(tmp_path / "s")
    assert store.info()["spaces"]["image"]["license"] == "some-licence"
    assert json.loads((tmp_path / "s" / "spaces" / "image" / "space.json").read_text())["license"] == "some-licence"
    assert len(es.search(store, text="a red car").results) == 2


def test_weights_get_the_activation_that_they_were_trained_with() -> None:
    import open_clip

    tag = open_clip.get_pretrained_cfg("ViT-B-32", "openai")
    assert openclip._activation("ViT-B-32", tag) == ("ViT-B-32-quickgelu", False)
    assert openclip._activation("ViT-B-32-quickgelu", tag) == ("ViT-B-32-quickgelu", False)
    assert openclip._activation("RN50x64", {"quick_gelu": True})[0].startswith("RN50x64")
    assert openclip._activation("ViT-B-32", open_clip.get_pretrained_cfg("ViT-B-32", "laion2b_s34b_b79k")) == (
        "ViT-B-32",
        False,
    )


@pytest.fixture(scope="module")
def vit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import timm
    import torch

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("timm") / "vit"
    timm.models.save_for_hf(timm.create_model("test_vit", num_classes=5), folder, safe_serialization=True)
    return folder


def test_pooling_by_name_is_timm_s_own(vit_folder: Path) -> None:
    import timm
    import torch

    made = {kind: load_encoder(f"timm:local-dir:{vit_folder}{kind}", "image") for kind in ("", "@token", "@avg", "@token+avg")}
    vectors = {kind: pixels(encoder) for kind, encoder in made.items()}
    images = torch.from_numpy(np.stack([made[""].prepare(encoded(picture(i, (70, 50))))[..., :3] for i in range(3)]))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (made[""].transform.mean, made[""].transform.std))  # type: ignore[attr-defined]
    batch = (images.permute(0, 3, 1, 2).float() / 255 - mean) / std
    theirs = {}
    for kind in ("token", "avg"):
        model = timm.create_model(f"local-dir:{vit_folder}", pretrained=True, num_classes=0).eval()
        model.reset_classifier(0, kind)
        with torch.inference_mode():
            theirs[f"@{kind}"] = model(batch).numpy()
        assert agreement(vectors[f"@{kind}"], theirs[f"@{kind}"]) > 0.9999
    assert agreement(vectors["@token+avg"], np.concatenate([theirs["@token"], theirs["@avg"]], axis=1)) > 0.9999
    assert [made[kind].spec.dim for kind in made] == [64, 64, 64, 128]
    assert [made[kind].spec.pooling for kind in ("@token", "@avg", "@token+avg")] == ["token", "avg", "token+avg"]
    plain = made[f"@{made[''].spec.pooling}"]
    assert plain.spec.fingerprint == made[""].spec.fingerprint, "what is timm's default anyway"
    assert len({encoder.spec.fingerprint for encoder in made.values()}) == 3


@pytest.mark.parametrize(
    "wanted",
    [
        {"crop_mode": "squash", "crop_pct": 0.9},
        {"crop_mode": "border", "crop_pct": 0.9},
        {"crop_mode": "border", "crop_pct": 1.0, "interpolation": "bilinear"},
        {"crop_mode": "center", "crop_pct": 0.9},
    ],
)
def test_pixels_are_those_of_timm_s_own_transform(wanted: dict[str, Any]) -> None:
    import timm
    from timm.data import create_transform, resolve_data_config

    from embedstore.encoders.timm import timm_transform

    made = timm.create_model("test_vit", num_classes=0, pretrained_cfg_overlay=wanted)
    config = resolve_data_config(model=made)
    theirs, ours = create_transform(**config), timm_transform(made)
    mean, std = (np.array(config[key])[:, None, None] for key in ("mean", "std"))
    for i, size in enumerate([(70, 50), (33, 190), (400, 300), (20, 200), (160, 160), (177, 177)]):
        image = picture(i, size)
        expected = (np.asarray(theirs(image)) * std + mean) * 255
        got = ours.pixels(image)[..., :3].transpose(2, 0, 1)
        assert np.abs(got - expected).max() < 2.01
        assert np.abs(got - expected).mean() < 0.1


def test_pooling_that_is_not_there_is_refused(vit_folder: Path, tmp_path: Path) -> None:
    import timm

    timm.models.save_for_hf(timm.create_model("test_resnet", num_classes=5), tmp_path / "cnn", safe_serialization=True)
    (tmp_path / "cnn" / "README.md").write_text("---\nlicense: mit\n---\n")
    cnn = f"timm:local-dir:{tmp_path / 'cnn'}"
    with pytest.raises(UsageError, match=r"has no class token\. Leave out @token, or take @avg"):
        load_encoder(f"{cnn}@token", "image")
    with pytest.raises(UsageError, match="hash:8 does not take @avg: only image models of timm do"):
        load_encoder("hash:8@avg", "image")
    assert agreement(pixels(load_encoder(f"{cnn}@avg", "image")), pixels(load_encoder(cnn, "image"))) > 0.9999
    assert load_encoder(cnn, "image").license == "mit"  # type: ignore[attr-defined]
    for name in ("openclip:local-dir:/nowhere", "timm:local-dir:/nowhere"):
        with pytest.raises(UsageError, match="/nowhere is not a folder of"):
            load_encoder(name, "image")


@pytest.mark.offline_models
def test_licences_of_short_names_are_those_of_the_models() -> None:
    import timm

    from embedstore.encoders.names import ALIASES, LICENSES

    assert set(ALIASES) < set(LICENSES)
    for name in ("dinov2", "resnet50"):
        assert LICENSES[name] == timm.get_pretrained_cfg(ALIASES[name].partition(":")[2]).license
    assert LICENSES["effnet-lite0"] == timm.get_pretrained_cfg("tf_efficientnet_lite0").license
    for name, modality in (("minilm", "text"), ("effnet-lite0", "image")):
        assert load_encoder(name, modality).license == LICENSES[name]  # type: ignore[attr-defined]


def test_weights_of_another_shape_are_one_line(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    state = timm.create_model("test_vit", num_classes=0).state_dict()
    save_file({name: tensor[..., :-1].contiguous() for name, tensor in state.items()}, tmp_path / "w.safetensors")
    with pytest.raises(EncoderError, match="do not fit timm model 'test_vit': size mismatch") as caught:
        load_encoder(f"timm:test_vit/{tmp_path / 'w.safetensors'}", "image")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "modality", "instead"),
    [
        ("st:nobody/nothing-here", "text", "st:./FOLDER"),
        ("openclip:hf-hub:nobody/nothing-here", "image", "openclip:local-dir:FOLDER"),
        ("timm:hf-hub:nobody/nothing-here", "image", "timm:local-dir:FOLDER"),
        ("timm:resnet10t.c3_in1k", "image", "timm:local-dir:FOLDER"),
    ],
)
def test_without_a_hub_one_line_says_so_at_once(
    name: str, modality: str, instead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # read once, as whoever imported it first had set it
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/nonexistent/cache")
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with pytest.raises(EncoderError, match=r"is not in the hub's cache, and http://127\.0\.0\.1:9 cannot be reached") as caught:
        load_encoder(name, modality)
    assert instead in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sum(slept) < 10, "the client's own retries wait for 24 s a file"


def test_datasets_without_a_hub_are_one_line_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # read once, as whoever imported it first had set it
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with pytest.raises(
        SourceError, match=r"hf:nobody/nothing is not in the cache, and http://127\.0\.0\.1:9 cannot be reached"
    ):
        es.embed("hf:nobody/nothing", tmp_path / "s", text="hash:8")
    assert sum(slept) < 10

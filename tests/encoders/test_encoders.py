"""Encoders: one contract, images of every kind, real models from disk."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from embedstore.encoders import ENCODERS, Encoder, EncoderRequest, load_encoder
from embedstore.encoders.base import prepare_all, prepare_one
from embedstore.encoders.payloads.images import ImageTransform, decode_rgb, shortest
from embedstore.encoders.runtimes.base import agreement
from embedstore.errors import EncoderError, MissingDependencyError, PayloadError, UsageError
from embedstore.spec import EncoderSpec

LIMIT = 178_956_970
TEXTS = ["", "a", "a red car by the sea", "naïve 東京 🙂", "many words " * 60]


def picture(seed: int, size: tuple[int, int] = (60, 40)) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def encode(encoder: Any, texts: Sequence[str]) -> Any:
    return encoder.encode([encoder.prepare(text.encode()) for text in texts])


class EncoderContract:
    """What every encoder keeps; subclasses say how to load one."""

    modality = "text"

    @pytest.fixture(scope="class")
    @classmethod
    def encoder(cls) -> Encoder:
        raise NotImplementedError

    def payloads(self) -> Sequence[bytes]:
        if self.modality == "image":
            return [encoded(picture(i)) for i in range(5)]
        return [f"words of number {i} {'and more ' * i}".encode() for i in range(5)]

    def test_vectors_have_the_shape_the_spec_says(self, encoder: Encoder) -> None:
        vectors = encoder.encode([encoder.prepare(p) for p in self.payloads()])
        assert vectors.shape == (5, encoder.spec.dim)
        assert vectors.dtype == np.float32
        assert np.isfinite(vectors).all()
        assert encoder.spec.modality == self.modality
        if encoder.spec.normalized:
            np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)

    def test_a_vector_does_not_depend_on_its_batch(self, encoder: Encoder) -> None:
        prepared = [encoder.prepare(p) for p in self.payloads()]
        together = encoder.encode(prepared)
        alone = np.concatenate([encoder.encode([p]) for p in prepared])
        assert agreement(together, alone) > 0.9999

    def test_many_are_prepared_as_one_by_one(self, encoder: Encoder) -> None:
        bad = b"\xff\xfe not a payload"
        payloads = [*self.payloads(), bad, self.payloads()[0], b"many words " * 90]
        before = encoder.truncated
        alone = [prepare_one(encoder, payload) for payload in payloads]
        counted, before = encoder.truncated - before, encoder.truncated
        together = prepare_all(encoder, payloads)
        assert encoder.truncated - before == counted
        assert [repr(ours) for ours in together] == [repr(theirs) for theirs in alone]
        assert prepare_all(encoder, []) == []
        if self.modality == "text" and not isinstance(alone[5], bytes):
            assert isinstance(together[5], PayloadError), "a bad text costs itself alone"

    def test_the_spec_survives_json_and_is_complete(self, encoder: Encoder) -> None:
        spec = EncoderSpec.from_dict(json.loads(json.dumps(encoder.spec.to_dict())))
        assert spec.fingerprint == encoder.spec.fingerprint
        assert len(spec.fingerprint) == 16
        assert encoder.batch_size >= 1
        assert all(isinstance(v, str) for v in encoder.provenance().values())


class TestHash(EncoderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def encoder(cls) -> Encoder:
        return load_encoder("hash:24", "text")


@pytest.mark.offline_models
class TestEffnet(EncoderContract):
    modality = "image"

    @pytest.fixture(scope="class")
    @classmethod
    def encoder(cls) -> Encoder:
        return load_encoder("effnet-lite0", "image")

    def test_equals_timm_s_own_transform_and_model(self, encoder: Any) -> None:
        """The pixels are timm's to a level or two of rounding here and there, the vectors to a cosine of 0.9999."""
        import torch
        from timm.data import create_transform

        transform = create_transform((3, 224, 224), interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=0.875)
        images = [picture(0, (256, 180)), picture(1, (100, 333)), picture(2, (500, 500))]
        theirs = torch.stack([transform(image) for image in images])
        ours = encoder.stacked([encoder.prepare(encoded(image)) for image in images])
        levels = ((theirs + 1) * 127.5).permute(0, 2, 3, 1).numpy()
        assert np.abs(ours[..., :3] - levels).max() < 2.01
        assert np.abs(ours[..., :3] - levels).mean() < 0.01
        theirs = np.rint(levels).astype(np.uint8)
        assert agreement(encoder.model(ours), encoder.model(np.pad(theirs, ((0, 0), (0, 0), (0, 0), (0, 1))))) > 0.9999


@pytest.mark.offline_models
class TestMinilm(EncoderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def encoder(cls) -> Encoder:
        return load_encoder("minilm", "text")

    def test_equals_sentence_transformers_encode(self, encoder: Any) -> None:
        from sentence_transformers import SentenceTransformer

        texts = [" a cat ", "", "a much longer text about a RED car\n\tthat drives by the sea", "naïve 東京 🙂", "word " * 400]
        theirs = SentenceTransformer(str(encoder._folder), device="cpu").encode(texts)
        assert agreement(encode(encoder, texts), theirs) > 0.9999
        np.testing.assert_allclose(encode(load_encoder("minilm", "text", precision="float32"), texts), theirs, atol=1e-5)

    def test_truncation_is_counted(self, encoder: Any) -> None:
        before = encoder.truncated
        encode(encoder, ["short", "word " * 300, "word " * 254, "word " * 255])
        assert encoder.truncated - before == 2  # 256 tokens hold 254 words and two marks

    def test_windows_cover_a_long_text_and_are_averaged(self, encoder: Any) -> None:
        windowed: Any = load_encoder("minilm+windows", "text")
        assert windowed.spec.fingerprint != encoder.spec.fingerprint
        short, long = "a red car", " ".join(f"word{i} red" for i in range(200))
        np.testing.assert_allclose(encode(windowed, [short]), encode(encoder, [short]), atol=1e-5)
        windows = windowed.prepare(long.encode())
        assert len(windows) > 2
        assert prepare_all(windowed, [b"short", long.encode()])[1] == windows
        assert all(set(first[1:-1]) & set(second[1:-1]) for first, second in pairwise(windows))  # windows overlap
        parts = np.concatenate([windowed.model(piece.ids, piece.mask) for piece in windowed.stacked([windows])])
        mean = parts.mean(axis=0) / np.linalg.norm(parts.mean(axis=0))
        assert agreement(encode(windowed, [short, long, short])[1:2], mean[None]) > 0.9999
        assert windowed.truncated == 0
        with pytest.raises(UsageError, match="does not take \\+windows"):
            load_encoder("hash+windows", "text")

    def test_one_long_text_does_not_pad_the_others(self, encoder: Any) -> None:
        texts = [" ".join(["blue"] * (300 if i == 5 else i % 7 + 1)) for i in range(64)]
        prepared = [encoder.prepare(text.encode()) for text in texts]
        pieces = encoder.stacked(prepared)
        assert sorted(np.concatenate([piece.rows for piece in pieces])) == list(range(64))
        assert sum(piece.ids.size for piece in pieces) < 2 * sum(len(ids) for (ids,) in prepared)  # 64 × 256 in one
        alone = np.concatenate([encoder.encode([given]) for given in prepared])
        assert agreement(encoder.encode(prepared), alone) > 0.9999

    def test_every_call_is_waited_for_when_one_fails(self, encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        waited: list[int] = []

        class Failing:
            padding, row = 256, 0

            def start(self, ids: Any, mask: Any) -> Any:
                number = len(waited) + len(begun)
                begun.append(number)
                if number == fails_at_start:
                    raise RuntimeError("cannot begin")

                def wait() -> Any:
                    waited.append(number)
                    if number == 0:
                        raise RuntimeError("cannot end")
                    return np.zeros((len(ids), 384), np.float32)

                return wait

        prepared = [encoder.prepare(("blue " * n).encode()) for n in (1, 2, 3, 200, 220, 250)]
        monkeypatch.setitem(encoder.__dict__, "model", Failing())
        for fails_at_start, message in ((-1, "cannot end"), (1, "cannot begin")):
            begun: list[int] = []
            waited.clear()
            with pytest.raises(RuntimeError, match=message):
                encoder.encode(prepared)
            assert waited == [n for n in begun if n != fails_at_start]

    def test_spec_is_known_without_the_model(self, encoder: Any) -> None:
        spec = encoder.spec
        assert (spec.dim, spec.max_length, spec.pooling, spec.normalized) == (384, 256, "mean_tokens", True)

    def test_a_copied_folder_has_the_same_fingerprint(self, encoder: Any, tmp_path: Path) -> None:
        import shutil

        shutil.copytree(encoder._folder, tmp_path / "model")
        copied = load_encoder(f"st:{tmp_path / 'model'}", "text")
        assert copied.spec.fingerprint == encoder.spec.fingerprint
        config = tmp_path / "model" / "tokenizer_config.json"
        config.write_text(config.read_text() + " ")
        assert load_encoder(f"st:{tmp_path / 'model'}", "text").spec.fingerprint != encoder.spec.fingerprint


TINY_CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16, "head_width": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Random weights of a tiny CLIP on disk; the encoder's name."""
    import open_clip
    import torch

    folder = tmp_path_factory.mktemp("clip")
    (folder / "ViT-tiny-test.json").write_text(json.dumps(TINY_CLIP))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    torch.save(open_clip.create_model("ViT-tiny-test").state_dict(), folder / "weights.pt")
    return f"openclip:ViT-tiny-test/{folder / 'weights.pt'}"


class TestOpenClipImage(EncoderContract):
    modality = "image"

    @pytest.fixture(scope="class")
    @classmethod
    def encoder(cls, tiny_clip: str) -> Encoder:
        return load_encoder(tiny_clip, "image")


class TestOpenClipText(EncoderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def encoder(cls, tiny_clip: str) -> Encoder:
        return load_encoder(tiny_clip, "text")

    def test_towers_are_aligned_and_truncation_is_counted(self, encoder: Encoder, tiny_clip: str) -> None:
        image = load_encoder(tiny_clip, "image")
        assert image.spec.alignment == encoder.spec.alignment is not None
        assert image.spec.fingerprint != encoder.spec.fingerprint
        before = encoder.truncated
        encode(encoder, ["one", "word " * 14, "word " * 40])
        assert encoder.truncated - before == 1

    def test_a_tokenizer_that_refuses_one_text_of_many_costs_that_one(
        self, tiny_clip: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        encoder: Any = load_encoder(tiny_clip, "text")
        tokens = encoder.tokens

        def refuses(texts: Sequence[str]) -> Any:
            if "odd" in texts:
                raise KeyError("odd")
            return tokens(texts)

        monkeypatch.setattr(encoder, "tokens", refuses)
        prepared = prepare_all(encoder, [b"one", b"odd", b"word " * 40])
        assert [isinstance(given, PayloadError) for given in prepared] == [False, True, False]
        assert encoder.truncated == 1

    def test_each_tower_is_placed_without_the_other(self, encoder: Any, tiny_clip: str) -> None:
        image: Any = load_encoder(tiny_clip, "image")
        of_images, of_texts = ({name for name, _ in made.network.load().named_modules()} for made in (image, encoder))
        assert "model.visual" in of_images - of_texts
        assert "model.transformer" in of_texts - of_images
        assert {"visual", "transformer"} <= {name for name, _ in encoder._clip.model.named_modules()}, "both are kept"

    def test_texts_are_tokenized_when_they_are_prepared(self, tiny_clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
        encoder: Any = load_encoder(tiny_clip, "text", runtime="torch")
        prepared = [encoder.prepare(text.encode()) for text in TEXTS]
        monkeypatch.setattr(encoder, "tokens", None)  # the thread that encodes is not to do it
        assert encoder.encode(prepared).shape == (len(TEXTS), 32)

    def test_equals_open_clip_s_own_preprocessing(self, tiny_clip: str) -> None:
        import open_clip
        import torch

        ours = load_encoder(tiny_clip, "image", precision="float32")
        path = tiny_clip.partition("/")[2]
        model, _, preprocess = open_clip.create_model_and_transforms("ViT-tiny-test", pretrained=path)
        images = [picture(i, (70, 50)) for i in range(3)]
        with torch.inference_mode():
            theirs = model.eval().encode_image(torch.stack([preprocess(i) for i in images]), normalize=True)
        vectors = ours.encode([ours.prepare(encoded(i)) for i in images])
        np.testing.assert_allclose(vectors, theirs.numpy(), atol=2e-3)


class TestTimm(EncoderContract):
    modality = "image"

    @pytest.fixture(scope="class")
    @classmethod
    def encoder(cls, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
        import timm
        import torch
        from safetensors.torch import save_file

        torch.manual_seed(0)
        path = tmp_path_factory.mktemp("timm") / "w.safetensors"
        save_file(timm.create_model("resnet10t", num_classes=7).state_dict(), path)
        return load_encoder(f"timm:resnet10t/{path}", "image")


def test_loading_says_what_is_wrong(tmp_path: Path, tiny_clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad.pt").write_bytes(b"not weights")
    for name, modality, error, words in (
        ("nope:x", "image", UsageError, "No encoder is called 'nope:x'"),
        ("hash:0", "image", UsageError, "dimension from 1 to 65536"),
        ("timm:", "image", UsageError, "needs a model name"),
        ("timm:resnet10x", "image", UsageError, "timm has no model 'resnet10x'. Near: resnet10t"),
        (f"timm:resnet10t/{tmp_path}/bad.pt", "image", EncoderError, "bad.pt cannot be read"),
        ("openclip:ViT-B-32", "image", UsageError, "openclip:MODEL/PRETRAINED"),
        ("openclip:ViT-B-32/nope", "image", UsageError, "neither a local file nor pretrained weights"),
        ("st:/nowhere", "text", UsageError, "is not a folder"),
        (f"st:{tmp_path}", "text", EncoderError, "not a sentence-transformers model"),
        ("minilm", "image", UsageError, "takes text, not image"),
    ):
        with pytest.raises(error, match=words.replace(".", r"\.")) as caught:
            load_encoder(name, modality)
        assert "\n" not in str(caught.value), name
    import importlib

    def hidden(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", hidden)
    with pytest.raises(MissingDependencyError, match=r"pip install 'embedstore\[offline\]'"):
        ENCODERS.get("minilm")(EncoderRequest("minilm", "", "text"))


def rgb(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(decode_rgb(data, max_pixels=LIMIT)).astype(int)


def test_exif_orientation_is_applied() -> None:
    image = picture(0)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated 90° clockwise to be seen upright
    turned = rgb(encoded(image, exif=exif))
    np.testing.assert_array_equal(turned, np.asarray(image.transpose(Image.Transpose.ROTATE_270)))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_white(mode: str) -> None:
    if mode == "P":
        image = Image.new("P", (4, 4), 1)
        image.putpalette([0, 0, 0, 10, 20, 30])
        data = encoded(image, transparency=1)
    else:
        data = encoded(Image.new(mode, (4, 4), (9, 9, 9, 0) if mode == "RGBA" else (9, 0)))
    assert (rgb(data) == 255).all()


def test_half_transparency_is_blended() -> None:
    assert abs(rgb(encoded(Image.new("RGBA", (2, 2), (0, 0, 0, 128))))[0, 0] - 127).max() <= 1


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    assert rgb(encoded(Image.fromarray(values)))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_cmyk_greyscale_bilevel_and_gif() -> None:
    image = picture(1)
    assert np.abs(rgb(encoded(image.convert("CMYK"), "JPEG", quality=95)) - np.asarray(image).astype(int)).mean() < 12
    grey = rgb(encoded(image.convert("L")))
    assert (grey[..., 0] == grey[..., 2]).all()
    assert set(np.unique(rgb(encoded(image.convert("1"))))) <= {0, 255}
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    assert rgb(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))[0, 0].tolist() == [255, 0, 0]


def test_nothing_but_images_is_opened() -> None:
    with pytest.raises(PayloadError, match="not an image"):
        decode_rgb(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", max_pixels=LIMIT)
    with pytest.raises(PayloadError, match="over the limit of 100; --max-pixels"):
        decode_rgb(encoded(picture(0)), max_pixels=100)


@pytest.mark.parametrize("resize", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [(60, 40), (40, 60), (1, 300), (300, 1), (7, 7)])
def test_every_shape_becomes_the_model_s(resize: str, size: tuple[int, int]) -> None:
    transform = ImageTransform((16, 24), resize, 28, "bicubic", (0.5,) * 3, (0.5,) * 3)
    assert transform.pixels(picture(0, size)).shape == (16, 24, 4)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos"])
@pytest.mark.parametrize(
    "size", [(181, 256), (230, 247), (300, 310), (256, 181), (100, 900), (300, 700), (700, 300), (900, 1000)]
)
def test_only_the_crop_is_resized_as_if_it_were_the_whole(size: tuple[int, int], interpolation: str) -> None:
    transform = ImageTransform((224, 224), "shortest", 256, interpolation, (0.5,) * 3, (0.5,) * 3)
    image = picture(1, size)
    to = shortest(*size, 256)
    left, top = round((to[0] - 224) / 2), round((to[1] - 224) / 2)
    whole = image.resize(to, Image.Resampling[interpolation.upper()]).crop((left, top, left + 224, top + 224))
    apart = np.abs(transform.pixels(image)[..., :3] - np.asarray(whole, np.int64))
    assert apart.max() <= 2
    assert apart.mean() < 0.01


def test_pixels_of_many_blocks_of_memory_are_the_same() -> None:
    transform = ImageTransform((2100, 2100), "squash", 2100, "bicubic", (0.5,) * 3, (0.5,) * 3)  # over 16 MiB
    image = picture(0, (300, 300))
    expected = np.asarray(image.resize((2100, 2100), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(transform.pixels(image)[..., :3], expected)


@pytest.mark.offline_models
@pytest.mark.parametrize("name", ["effnet-lite0", "minilm"])
def test_runtimes_agree_and_share_a_fingerprint(name: str) -> None:
    modality = "image" if name == "effnet-lite0" else "text"
    pytest.importorskip("openvino")
    ours, theirs = (load_encoder(name, modality, runtime=runtime) for runtime in ("openvino", "torch"))
    assert ours.spec.fingerprint == theirs.spec.fingerprint
    payloads = (
        [encoded(picture(i, (90 + 40 * i, 120))) for i in range(6)] if modality == "image" else [t.encode() for t in TEXTS]
    )
    prepared = [ours.prepare(payload) for payload in payloads]
    assert agreement(ours.encode(prepared), theirs.encode(prepared)) > 0.9999
    assert "openvino" in ours.provenance()
    assert "torch" in theirs.provenance()


class TestRuntimes:
    """A network that is not the same on OpenVINO is not used, and one that was found to be is not converted again."""

    @pytest.fixture(autouse=True)
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        pytest.importorskip("openvino")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        return tmp_path

    @pytest.mark.parametrize("modality", ["image", "text"])
    def test_open_clip_towers_agree_and_are_converted_once(self, tiny_clip: str, modality: str, cache: Path) -> None:
        from embedstore.encoders.runtimes import openvino

        ours, theirs = (load_encoder(tiny_clip, modality, runtime=runtime) for runtime in ("openvino", "torch"))
        payloads = [encoded(picture(i)) for i in range(5)] if modality == "image" else [t.encode() for t in TEXTS]
        prepared = [ours.prepare(payload) for payload in payloads]
        assert agreement(ours.encode(prepared), theirs.encode(prepared)) > 0.9999
        (folder,) = (cache / "embedstore" / "converted").iterdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(openvino, "_convert", lambda *_: pytest.fail("converted again"))
            load_encoder(tiny_clip, modality, runtime="openvino").encode(prepared[:1])
        (folder / "network.bin").unlink()
        np.testing.assert_array_equal(
            load_encoder(tiny_clip, modality, runtime="openvino").encode(prepared), ours.encode(prepared)
        )

    def test_one_that_does_not_agree_is_left_to_torch(self, tiny_clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
        from embedstore.encoders.runtimes import openvino

        monkeypatch.setattr(openvino, "agreement", lambda ours, theirs: 0.99)
        image = encoded(picture(0))
        chosen, torch = load_encoder(tiny_clip, "image"), load_encoder(tiny_clip, "image", runtime="torch")
        np.testing.assert_array_equal(chosen.encode([chosen.prepare(image)]), torch.encode([torch.prepare(image)]))
        for _ in range(2):
            required = load_encoder(tiny_clip, "image", runtime="openvino")
            with pytest.raises(EncoderError, match=r"cosine to torch 0\.99.*--runtime torch"):
                required.encode([required.prepare(image)])

    def test_one_that_cannot_be_converted_is_left_to_torch(self, tiny_clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
        from embedstore.encoders.runtimes import openvino

        def fails(*_: Any, **__: Any) -> None:
            raise RuntimeError("no such operation")

        monkeypatch.setattr(openvino, "_compared", fails)
        chosen = load_encoder(tiny_clip, "text")
        assert encode(chosen, ["a"]).shape == (1, 32)
        with pytest.raises(EncoderError, match=r"cannot be converted .no such operation"):
            encode(load_encoder(tiny_clip, "text", runtime="openvino"), ["a"])

    def test_a_cache_that_cannot_be_written_is_done_without(self, tiny_clip: str, cache: Path) -> None:
        (cache / "embedstore").write_text("in the way")
        assert encode(load_encoder(tiny_clip, "text"), ["a"]).shape == (1, 32)

    @pytest.mark.slow
    @pytest.mark.parametrize("modality", ["image", "text"])
    def test_a_compiled_one_gives_the_same_vectors(
        self, tiny_clip: str, modality: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from embedstore.encoders.runtimes import pytorch

        monkeypatch.setattr(pytorch, "BACKEND", "eager")  # traced as for any backend, without a minute in a C++ compiler
        compiled, eager = (load_encoder(tiny_clip, modality, runtime=name) for name in ("compile", "torch"))
        payloads = [encoded(picture(i)) if modality == "image" else f"picture {i}".encode() for i in range(5)]
        for n in (5, 1, 3):
            prepared = [eager.prepare(payload) for payload in payloads[:n]]
            np.testing.assert_allclose(compiled.encode(prepared), eager.encode(prepared), atol=1e-6)
        assert (compiled.provenance()["compiled"], "compiled" in eager.provenance()) == ("eager", False)
        monkeypatch.setattr(pytorch, "agreement", lambda ours, theirs: 0.99)
        with pytest.raises(EncoderError, match=r"other vectors when compiled .cosine 0\.99.*--runtime torch"):
            load_encoder(tiny_clip, modality, runtime="compile").encode(prepared)

    def test_what_does_not_fit_is_refused(self, tiny_clip: str) -> None:
        with pytest.raises(UsageError, match="computes in float32 on the CPU"):
            encode(load_encoder(tiny_clip, "text", runtime="openvino", precision="bfloat16"), ["a"])
        with pytest.raises(UsageError, match="runtime must be one of"):
            encode(load_encoder(tiny_clip, "text", runtime="onnx"), ["a"])


@pytest.mark.offline_models
def test_texts_are_encoded_without_torch(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    encode(load_encoder("minilm", "text"), ["a"])  # converted, if it was not
    code = (
        "import sys\nfrom embedstore.encoders import load_encoder\ne = load_encoder('minilm', 'text')\n"
        "print(e.encode([e.prepare(b'a red car')]).shape, e.provenance()['device'])\n"
        "print([m for m in ('torch', 'transformers', 'sentence_transformers', 'openvino_telemetry') if sys.modules.get(m)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["(1, 384) cpu", "[]"]


@pytest.mark.offline_models
def test_images_are_embedded_without_torch(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    encoder = load_encoder("effnet-lite0", "image")
    encoder.encode([encoder.prepare(encoded(picture(0)))])  # converted, if it was not
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(encoded(picture(1)))
    code = (
        f"import sys\nimport embedstore as es\nfolder = {str(tmp_path)!r}\n"
        "report = es.embed(folder + '/images', folder + '/s', image='effnet-lite0')\n"
        "space = es.Store.open(folder + '/s').spaces['image']\n"
        "print(report.spaces['image'].embedded, sorted(space.info.provenance))\n"
        "print([m for m in ('torch', 'timm', 'torchvision', 'transformers', 'faiss') if sys.modules.get(m)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["1 ['cosine_to_torch', 'device', 'openvino', 'pillow', 'precision', 'timm']", "[]"]


def test_precision_and_device_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    from embedstore.encoders.runtimes import pytorch

    monkeypatch.setattr(pytorch, "cpu_has_bfloat16", lambda: False)
    with pytest.raises(UsageError, match="has no fast bfloat16"):
        pytorch.TorchRuntime("cpu", "bfloat16")
    assert pytorch.TorchRuntime("cpu", "auto").chosen("a network", "f", lambda arithmetic: []).arithmetic.name == "float32"
    with pytest.raises(UsageError, match=r"float16 is for GPUs.*Use --precision float32"):
        pytorch.TorchRuntime("cpu", "float16")
    with pytest.raises(UsageError, match="is not a torch device"):
        pytorch.TorchRuntime("gpu7", "auto")
    with pytest.raises(UsageError, match="precision must be"):
        pytorch.TorchRuntime("cpu", "int8")


def test_cuda_out_of_memory_is_told_apart() -> None:
    import torch

    from embedstore.encoders.runtimes.pytorch import TorchRuntime
    from embedstore.errors import EncoderOutOfMemoryError

    def full() -> torch.Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(EncoderOutOfMemoryError):
        TorchRuntime("cpu", "auto").run(full)


@pytest.mark.slow
@pytest.mark.offline_models
def test_signals_can_be_handled_after_networks_are_let_go() -> None:
    """OpenVINO gives the thread a stack for signals; a freed one would end the process at the next Ctrl-C."""
    pytest.importorskip("openvino")
    script = (
        "import gc, os, signal\n"
        "from embedstore.encoders import load_encoder\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('handled'))\n"
        "made = [load_encoder('minilm', 'text', runtime='openvino') for _ in range(3)]\n"
        "for encoder in made:\n"
        "    encoder.encode([encoder.prepare(b'a red fox')])\n"
        "while made:\n"
        "    made.pop(0)\n"
        "    gc.collect()\n"
        "del encoder; gc.collect()\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr

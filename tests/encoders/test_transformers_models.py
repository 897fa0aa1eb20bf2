"""`naflex:`, `vjepa2:` and `pe-av:` on small models with random weights: transformers' own vectors, the same every time."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_films import film
from test_sounds import sound, wave
from tiny_models import naflex, pe_av, vjepa2

import embedstore as es
from embedstore.encoders import load_encoder
from embedstore.encoders.payloads.films import frames
from embedstore.encoders.runtimes.base import agreement
from embedstore.errors import EncoderError, UsageError
from embedstore.sources import MemorySource

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

MAKERS = {"naflex": naflex, "vjepa2": vjepa2, "pe-av": pe_av}
TEXTS = ["a dog barks", "the rain", "red"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in MAKERS.items()}


def found(name: str, modality: str, folders: dict[str, Path], payloads: list[bytes], **options: Any) -> tuple[Any, Any]:
    """An encoder and its vectors (n, dim), which are the same to the bit alone and in a batch."""
    encoder: Any = load_encoder(f"{name}:{folders[name]}", modality, runtime="torch", **options)
    together = encoder.encode([encoder.prepare(payload) for payload in payloads])
    assert together.shape == (len(payloads), encoder.spec.dim)
    if modality != "text":
        for payload, row in zip(payloads, together, strict=True):
            assert (encoder.encode([encoder.prepare(payload)])[0] == row).all()
    return encoder, together


def theirs(kind: str, folder: Path, call: Any) -> Any:
    with torch.inference_mode():
        return call(getattr(transformers, kind).from_pretrained(folder).eval())


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)) for size in [(40, 90), (80, 30), (50, 50)]]


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def test_naflex_has_the_vectors_of_transformers_in_every_aspect_ratio(folders: dict[str, Path]) -> None:
    encoder, images = found("naflex", "image", folders, [png(image) for image in pictures()])
    processor = transformers.Siglip2ImageProcessor.from_pretrained(folders["naflex"])
    given = processor(images=pictures(), return_tensors="pt")
    assert len({tuple(shape) for shape in given["spatial_shapes"].tolist()}) == 3
    own = theirs("Siglip2Model", folders["naflex"], lambda model: model.get_image_features(**given).pooler_output)
    assert agreement(images, own.numpy()) > 0.9999
    words, texts = found("naflex", "text", folders, [text.encode() for text in TEXTS])
    tokens = transformers.AutoTokenizer.from_pretrained(folders["naflex"])
    ids = tokens(TEXTS, padding="max_length", max_length=16, return_tensors="pt")["input_ids"]
    own = theirs("Siglip2Model", folders["naflex"], lambda model: model.get_text_features(input_ids=ids).pooler_output)
    assert agreement(texts, own.numpy()) > 0.9999
    assert words.spec.alignment == encoder.spec.alignment is not None


def test_vjepa2_has_the_vectors_of_transformers(folders: dict[str, Path]) -> None:
    payloads = [film(list(range(24))), film([0]), film(list(range(10)), size=(48, 64))]
    _, films = found("vjepa2", "video", folders, payloads)
    processor = transformers.VJEPA2VideoProcessor.from_pretrained(folders["vjepa2"])
    shown = [np.stack([np.asarray(frame.image) for frame in frames(payloads[i], 4)]).transpose(0, 3, 1, 2) for i in (0, 2)]
    for i, array in zip((0, 2), shown, strict=True):
        given = processor([array], return_tensors="pt", do_sample_frames=False)
        own = theirs("VJEPA2Model", folders["vjepa2"], lambda model, given=given: model(**given).last_hidden_state.mean(1))
        assert agreement(films[i : i + 1], own.numpy()) > 0.9999


def test_pe_av_has_the_vectors_of_transformers_and_the_text_head_of_what_is_looked_for(folders: dict[str, Path]) -> None:
    folder = folders["pe-av"]
    waves = [np.asarray(wave(seconds, 48_000, 300), np.float32) for seconds in (1.0, 0.5)]
    heard, sounds = found("pe-av", "audio", folders, [sound(one, 48_000, subtype="FLOAT") for one in waves])
    payloads = [film(list(range(24))), film([0, 1])]
    seen, films = found("pe-av", "video", folders, payloads)
    processor = transformers.AutoProcessor.from_pretrained(folder)
    shown = np.stack([np.asarray(frame.image) for frame in frames(payloads[0], 4)]).transpose(0, 3, 1, 2)
    samples = processor.feature_extractor(waves[0], sampling_rate=48_000, return_tensors="pt")
    pixels = processor.video_processor([shown], return_tensors="pt", do_sample_frames=False)
    tokens = processor.tokenizer(TEXTS[0], return_tensors="pt")
    given = {**samples, **pixels, "input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}
    own = theirs("PeAudioVideoModel", folder, lambda model: model(**given))
    assert agreement(sounds[:1], own.audio_embeds.numpy()) > 0.9999
    assert agreement(films[:1], own.video_embeds.numpy()) > 0.9999
    heads = [(heard.spec, own.text_audio_embeds), (seen.spec, own.text_video_embeds), (None, own.text_audio_video_embeds)]
    for spec, vectors in heads:
        words, texts = found("pe-av", "text", folders, [TEXTS[0].encode()], recorded=spec)
        assert agreement(texts, vectors.numpy()) > 0.9999
        assert (words.spec.alignment == heard.spec.alignment == seen.spec.alignment) == (spec is not None)


@pytest.mark.parametrize(("name", "modality"), [("naflex", "image"), ("vjepa2", "video"), ("pe-av", "audio")])
def test_fingerprints_differ_with_weights(name: str, modality: str, folders: dict[str, Path], tmp_path: Path) -> None:
    other = MAKERS[name](tmp_path / "other", seed=1)
    first, second = (load_encoder(f"{name}:{folder}", modality).spec for folder in (folders[name], other))
    assert first.fingerprint != second.fingerprint
    assert first.alignment is None or first.alignment != second.alignment


def test_words_and_sounds_find_films(folders: dict[str, Path], tmp_path: Path) -> None:
    name = f"pe-av:{folders['pe-av']}"
    data = {"id": ["a", "b", "c"], "video": [film(list(range(8))), b"no film", film(list(range(12)))]}
    report = es.embed(MemorySource(data), tmp_path / "s", video=name, runtime="torch")
    assert (report.spaces["video"].embedded, report.spaces["video"].failed) == (2, 1)
    (tmp_path / "a.wav").write_bytes(sound(wave(0.5, 48_000), 48_000))
    assert len(es.search(tmp_path / "s", text="a dog").results) == 2
    assert len(es.search(tmp_path / "s", audio=str(tmp_path / "a.wav")).results) == 2


@pytest.mark.parametrize("asked", [{"prompt": "a photo: "}, {"query_prompt": "find: "}, {"prompt": "document"}])
def test_prompts_are_refused_that_would_be_ignored(asked: dict[str, str], folders: dict[str, Path]) -> None:
    for name in ("naflex", "pe-av"):
        with pytest.raises(UsageError, match=rf"{name}:.* takes no prompt for text: only models of sentence-transformers"):
            load_encoder(f"{name}:{folders[name]}", "text", **asked)
        load_encoder(f"{name}:{folders[name]}", "text", **dict.fromkeys(asked, ""))


def test_another_model_or_modality_is_one_line(folders: dict[str, Path]) -> None:
    for name, modality in [("naflex", "audio"), ("vjepa2", "text"), ("pe-av", "image")]:
        with pytest.raises(UsageError, match=f"takes .*, not {modality}"):
            load_encoder(f"{name}:{folders[name]}", modality)
        other = folders["vjepa2" if name != "vjepa2" else "naflex"]
        with pytest.raises(EncoderError, match="holds a model of kind"):
            load_encoder(f"{name}:{other}", {"naflex": "image", "vjepa2": "video", "pe-av": "audio"}[name])

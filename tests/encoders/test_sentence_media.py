"""`st:` models on sounds and films, small and with random weights: sentence-transformers' own vectors, the same every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_films import film
from test_sound_models import _clap, _whisper
from test_sounds import sound, wave
from tiny_models import qwen3_vl, vjepa2

import embedstore as es
from embedstore._core.message_parts import packed
from embedstore.encoders import load_encoder
from embedstore.encoders.payloads.films import frames
from embedstore.encoders.runtimes.base import agreement
from embedstore.errors import EncoderError, PayloadError, UsageError
from embedstore.sources import MemorySource

library = pytest.importorskip("sentence_transformers")

AS_GIVEN = {"video": {"do_sample_frames": False}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    import torch

    made = {name: tmp_path_factory.mktemp(name) for name in ("clap", "whisper", "vjepa2", "qwen")}
    torch.manual_seed(0)
    _clap(made["clap"], fused=False)
    _whisper(made["whisper"])
    vjepa2(made["vjepa2"])
    qwen3_vl(made["qwen"])
    return made


def _alone_and_together(encoder: Any, payloads: list[bytes]) -> Any:
    together = encoder.encode([encoder.prepare(payload) for payload in payloads])
    for payload, row in zip(payloads, together, strict=True):
        assert (encoder.encode([encoder.prepare(payload)])[0] == row).all()  # to the bit
    return together


def test_sounds_have_the_vectors_of_sentence_transformers(folders: dict[str, Path]) -> None:
    encoder: Any = load_encoder(f"st:{folders['clap']}", "audio")
    rate = encoder.spec.preprocessing["rate"]
    waves = [np.asarray(wave(seconds, rate, 300 + 100 * i), np.float32) for i, seconds in enumerate([1.0, 1.25, 0.7])]
    found = _alone_and_together(encoder, [sound(samples, rate, subtype="FLOAT") for samples in waves])
    model = library.SentenceTransformer(str(folders["clap"]), device="cpu")
    theirs = np.stack([model.encode({"array": samples, "sampling_rate": rate}) for samples in waves])
    assert found.shape == (3, encoder.spec.dim)
    assert agreement(found, theirs) > 0.9999
    words: Any = load_encoder(f"st:{folders['clap']}", "text")
    assert words.spec.alignment == encoder.spec.alignment is not None


def test_a_long_sound_is_the_mean_of_its_windows_and_the_same_twice(folders: dict[str, Path]) -> None:
    encoder: Any = load_encoder(f"st:{folders['clap']}", "audio")
    samples = np.random.default_rng(0).normal(0, 0.1, 12 * 48_000).astype(np.float32)
    found = _alone_and_together(encoder, [sound(samples, 48_000, subtype="FLOAT")])[0]
    model = library.SentenceTransformer(str(folders["clap"]), device="cpu")
    parts = [samples[:480_000], samples[480_000:]]
    vectors = [model.encode({"array": part, "sampling_rate": 48_000}) for part in parts]
    assert agreement(found[None], np.average(vectors, axis=0, weights=[10, 2])[None]) > 0.9999


@pytest.mark.parametrize(("name", "count"), [("vjepa2", 4), ("qwen", 16)])
def test_films_have_the_vectors_of_sentence_transformers(name: str, count: int, folders: dict[str, Path]) -> None:
    encoder: Any = load_encoder(f"st:{folders[name]}", "video")
    payloads = [film(list(range(24))), film([0]), film(list(range(10)), size=(48, 64))]
    found = _alone_and_together(encoder, payloads)
    model = library.SentenceTransformer(str(folders[name]), device="cpu")
    shown = np.stack([np.asarray(image) for image, _ in frames(payloads[0], count)]).transpose(0, 3, 1, 2)
    seconds = 24 / 25
    when = {"fps": count / seconds, "duration": seconds, "total_num_frames": count, "frames_indices": list(range(count))}
    theirs = model.encode({"array": shown, "video_metadata": when}, processing_kwargs=AS_GIVEN)
    assert agreement(found[:1], theirs[None]) > 0.9999
    assert not (found[0] == found[1]).all()


def test_fingerprints_differ_with_weights_and_prompts(folders: dict[str, Path], tmp_path: Path) -> None:
    other = qwen3_vl(tmp_path / "other", seed=1)
    named = [f"st:{folders['qwen']}", f"st:{other}"]
    prints = {load_encoder(name, "video").spec.fingerprint for name in named}
    asked = load_encoder(named[0], "video", prompt="the rain: ")
    prints.add(asked.spec.fingerprint)
    assert len(prints) == 3
    payload = film([0, 1, 2])
    plain: Any = load_encoder(named[0], "video")
    assert not np.allclose(plain.encode([payload]), asked.encode([payload]))


def test_a_modality_that_the_model_lacks_is_one_line_with_those_it_has(folders: dict[str, Path]) -> None:
    for name, modality, has in [
        ("vjepa2", "text", "video"),
        ("qwen", "audio", "text and image and video"),
        ("clap", "video", "text and audio"),
    ]:
        with pytest.raises(UsageError, match=f"takes {has}, not {modality}"):
            load_encoder(f"st:{folders[name]}", modality)


def test_weights_that_would_be_drawn_at_random_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(EncoderError, match=r"lacks weights .* drawn at random.*hf-audio:"):
        load_encoder(f"st:{folders['whisper']}", "audio")


def test_one_bad_film_is_one_failure_and_words_find_films(folders: dict[str, Path], tmp_path: Path) -> None:
    data = {"id": ["a", "b", "c"], "video": [film(list(range(8))), b"no film", film(list(range(12)))]}
    name = f"st:{folders['qwen']}"
    report = es.embed(MemorySource(data), tmp_path / "s", video=name)
    assert (report.spaces["video"].embedded, report.spaces["video"].failed) == (2, 1)
    assert {hit.id for hit in es.search(tmp_path / "s", text="a dog").results} == {"a", "c"}
    encoder: Any = load_encoder(name, "video")
    with pytest.raises(PayloadError, match="no video that FFmpeg reads"):
        encoder.encode([encoder.prepare(b"no film")])


def test_messages_are_sentence_transformers_own_in_every_part(folders: dict[str, Path]) -> None:
    model = library.SentenceTransformer(str(folders["qwen"]), device="cpu")
    payload = film(list(range(24)))
    shown = np.stack([np.asarray(image) for image, _ in frames(payload, 16)]).transpose(0, 3, 1, 2)
    when = {"fps": 16 / 0.96, "duration": 0.96, "total_num_frames": 16, "frames_indices": list(range(16))}
    seen = {"text": "a dog", "video": {"array": shown, "video_metadata": when}}
    both = [{"type": "text", "text": "a dog"}, {"type": "text", "text": "barks"}]
    for parts, given in [
        ([("text", b"a dog"), ("video", payload)], seen),
        ([("text", b"a dog"), ("title", b"barks")], [{"role": "user", "content": both}]),
    ]:
        encoder: Any = load_encoder(f"st:{folders['qwen']}", "message", parts=[name for name, _ in parts])
        found = _alone_and_together(encoder, [packed(parts), packed(parts[:1])])
        assert agreement(found[:1], model.encode(given, processing_kwargs=AS_GIVEN)[None]) > 0.9999
        assert agreement(found[1:], model.encode("a dog")[None]) > 0.9999


def test_a_text_that_is_a_path_stays_a_text(folders: dict[str, Path], tmp_path: Path) -> None:
    encoder: Any = load_encoder(f"st:{folders['qwen']}", "text")
    (tmp_path / "a.png").write_bytes(b"not read")
    path = str(tmp_path / "a.png")
    model = library.SentenceTransformer(str(folders["qwen"]), device="cpu")
    found = encoder.encode([encoder.prepare(path.encode()), encoder.prepare(b"a dog")])
    assert agreement(found, model.encode([{"text": path}, {"text": "a dog"}])) > 0.9999

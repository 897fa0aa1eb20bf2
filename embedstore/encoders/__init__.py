"""Encoders by name: payloads of one modality in, vectors out."""

from embedstore.encoders.base import Encoder, EncoderRequest
from embedstore.encoders.load import load_encoder, reload_encoder
from embedstore.encoders.names import ALIASES
from embedstore.registry import ENCODERS

__all__ = ["ALIASES", "ENCODERS", "Encoder", "EncoderRequest", "load_encoder", "reload_encoder"]

"""Encoders by name: payloads of one modality in, vectors out."""

from embedstore.encoders.base import ALIASES, ENCODERS, Encoder, EncoderRequest, load_encoder

__all__ = ["ALIASES", "ENCODERS", "Encoder", "EncoderRequest", "load_encoder"]

"""Small models on cached features. They see arrays and masks, never a store."""

from embedstore.heads.linear import LinearHead

__all__ = ["LinearHead"]

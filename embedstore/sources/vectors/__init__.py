"""Vectors that somebody else computed, with their ids and metadata."""

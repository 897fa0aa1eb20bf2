"""Exact and approximate search over vectors. Arrays and blocks in, positions and scores out."""

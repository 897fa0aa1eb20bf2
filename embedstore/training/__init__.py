"""Heads on a store: train, evaluate, predict."""

"""Exact and near copies among a store's items."""

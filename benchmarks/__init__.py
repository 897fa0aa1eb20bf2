"""Benchmarks: each answers one question, beside a peer in the same run. ``--tiny`` runs in seconds; results: RESULTS.md."""

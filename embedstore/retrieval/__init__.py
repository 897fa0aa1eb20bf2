"""Search in a store, and what makes it fast and right: indexes, alignment, evaluation, compaction."""

"""From a dataset, or from ready-made vectors, into a store."""

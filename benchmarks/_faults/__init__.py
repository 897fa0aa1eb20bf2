"""The parts of `benchmarks.faults`: what is done to a store, and how it is judged. Nothing here is imported by embedstore."""

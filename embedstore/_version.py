"""The version of this package, for reports and provenance."""

__version__ = "0.1.0"

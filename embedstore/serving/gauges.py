"""What ``/metrics`` tells, in Prometheus's text form."""

from __future__ import annotations

from embedstore.registry import require

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Gauges:
    """Counts of one server; each has a registry of its own, so that several may live in a process."""

    def __init__(self) -> None:
        prometheus = require("prometheus_client", extra="serve")
        self._latest = prometheus.generate_latest
        self._registry = prometheus.CollectorRegistry()
        shared = {"registry": self._registry}
        self._requests = prometheus.Counter(
            "embedstore_requests", "Requests by route and status.", ["route", "status"], **shared
        )
        self._seconds = prometheus.Histogram(
            "embedstore_request_seconds", "Seconds from the whole request to the answer.", ["route"], buckets=SECONDS, **shared
        )
        self._generation = prometheus.Gauge("embedstore_generation", "Generation of the store that is served.", **shared)
        self._items = prometheus.Gauge("embedstore_items", "Items of the store.", **shared)

    def count(self, route: str, status: int, seconds: float) -> None:
        """One request that was answered."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self, *, generation: int, items: int) -> bytes:
        """Everything, as it is now."""
        self._generation.set(generation)
        self._items.set(items)
        return bytes(self._latest(self._registry))

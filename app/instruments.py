"""What each API process counts by itself: requests, bytes, open streams. `app.monitoring` hands it to Prometheus.

Several API processes share one port, and a scrape reaches any of them. They therefore keep their figures in one
folder (``PROMETHEUS_MULTIPROC_DIR``, which `modelpress-server` sets for its API processes), and whoever is asked adds
up all of them: prometheus_client's own way, which also keeps the figures of a process that was started again. Without
the folder, a process tells of itself alone.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

# A second series for each, which says when it began, and which nothing here asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]

#: Everything of this module; what is not of a process is added at a scrape.
REGISTRY = CollectorRegistry()
_LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0)

REQUESTS = Counter(
    "modelpress_http_requests", "Requests that were answered.", ("method", "route", "status"), registry=REGISTRY
)
LATENCY = Histogram(
    "modelpress_http_request_seconds",
    "Time until the answer starts.",
    ("method", "route"),
    buckets=_LATENCY,
    registry=REGISTRY,
)
RECEIVED = Counter(
    "modelpress_http_received_bytes", "Bytes of request bodies, uploads among them.", ("route",), registry=REGISTRY
)
SENT = Counter("modelpress_http_sent_bytes", "Bytes of answers, downloads among them.", ("route",), registry=REGISTRY)
STREAMS = Gauge(
    "modelpress_event_streams", "Event streams that are open.", multiprocess_mode="livesum", registry=REGISTRY
)

#: The series of a route, found once: looking for one costs more than counting.
REQUESTS_OF, LATENCY_OF = lru_cache(4096)(REQUESTS.labels), lru_cache(4096)(LATENCY.labels)
RECEIVED_OF, SENT_OF = lru_cache(1024)(RECEIVED.labels), lru_cache(1024)(SENT.labels)

#: What every route that is not among the templates is called.
UNKNOWN = "unknown"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def method_of(scope: Mapping[str, Any]) -> str:
    """The request's method; strangers can make up any number of others."""
    return scope["method"] if scope["method"] in _METHODS else "OTHER"

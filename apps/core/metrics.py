"""Every number this process shows to a Prometheus server: each name and its labels stand here once.

The registry is our own, so that no library's numbers come along. Labels take their values from code
or from the operator's settings, never from what a client sent: an unknown name must not make a new
series. The numbers are those of the process that answers; a node has several.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
REGISTRY = CollectorRegistry()

BREAKER_STATE = Gauge(
    "mlplatform_breaker_state",
    "Whether calls to a host are let through: 0 closed (yes), 1 half open (one is tried), 2 open.",
    ["host"],
    registry=REGISTRY,
)
HTTP_OUTBOUND = Counter(
    "mlplatform_http_outbound",
    "Outbound HTTP exchanges by outcome: ok, said_no, failed, refused (by us), broken (breaker).",
    ["outcome"],
    registry=REGISTRY,
)
EVENTS_UNSEALED = Gauge(
    "mlplatform_events_unsealed_seconds",
    "Age of the oldest audit event that is not in the chain yet; 0 when all are, NaN when unknown.",
    registry=REGISTRY,
)
# Counted where an error becomes a reply (core.api.exceptions), so nobody else has to.
REFUSED = Counter(
    "mlplatform_refused",
    "Calls refused for who asks or how often, by the error's code.",
    ["reason"],
    registry=REGISTRY,
)
SIGN_INS = Counter(
    "mlplatform_sign_ins",
    "Attempts to sign in with a password, by outcome.",
    ["outcome"],
    registry=REGISTRY,
)


def page() -> bytes:
    """Return all numbers in Prometheus' text format."""
    return bytes(generate_latest(REGISTRY))

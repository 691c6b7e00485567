"""The metrics of one method, looked up once: a label look-up for each message would be waste."""

from __future__ import annotations

from grpc import StatusCode
from prometheus_client import Counter

from controlplane.observability.metrics import Metrics
from controlplane.transport.methods import Arity, Method


class CallMetrics:
    """What is counted of the calls of one method."""

    def __init__(self, metrics: Metrics, method: Method) -> None:
        self._labels = (method.arity.value, method.service, method.name)
        self._handled = metrics.calls_handled
        self._refused = metrics.refused
        self._handled_by_code: dict[StatusCode, Counter] = {}
        self._started = metrics.calls_started.labels(*self._labels)
        self.received = metrics.messages_received.labels(*self._labels)
        self.sent = metrics.messages_sent.labels(*self._labels)
        streams = method.arity is not Arity.UNARY
        self._open = metrics.open_streams.labels(method.name) if streams else None
        self._seconds = None if streams else metrics.handling_seconds.labels(*self._labels)

    def started(self) -> None:
        """Count a call that begins."""
        self._started.inc()
        if self._open is not None:
            self._open.inc()

    def handled(self, code: StatusCode, seconds: float, reason: str) -> None:
        """Count a call that ends; ``reason`` is empty unless it was refused."""
        counter = self._handled_by_code.get(code)
        if counter is None:
            counter = self._handled_by_code[code] = self._handled.labels(*self._labels, _label(code))
        counter.inc()
        if reason:
            self._refused.labels(reason).inc()
        if self._open is not None:
            self._open.dec()
        if self._seconds is not None:
            self._seconds.observe(seconds)


def count_unknown(metrics: Metrics) -> None:
    """Count a call of a method that is not served; its name is the caller's, so it is no label."""
    labels = ("unknown", "unknown", "unknown")
    metrics.calls_started.labels(*labels).inc()
    metrics.calls_handled.labels(*labels, _label(StatusCode.UNIMPLEMENTED)).inc()
    metrics.refused.labels("METHOD_UNKNOWN").inc()


def _label(code: StatusCode) -> str:
    """Return a code as go-grpc-prometheus writes it: ``InvalidArgument``."""
    return "OK" if code is StatusCode.OK else code.name.title().replace("_", "")

"""Just enough HTTP/1.1 for probes and scrapers: one GET or HEAD on each connection (RFC 9112)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

HEADER_BYTES = 8 * 1024
"""A request line and headers that are longer are refused unread."""

_REQUEST_LINE = re.compile(rb"([A-Z]{3,16}) (/[!-~]{0,1023}) HTTP/1\.[01]\r\n")
_REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}
TEXT = "text/plain; charset=utf-8"
METRICS_TEXT = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a path answers."""

    status: int
    body: bytes
    content_type: str = TEXT


Routes = dict[str, Callable[[], Answer]]


def respond(head: bytes, routes: Routes) -> bytes | None:
    """Return the response to a request's head, or None where it is no HTTP/1.1 request."""
    match = _REQUEST_LINE.match(head)
    if match is None:
        return None
    method, target = match[1].decode(), match[2].decode()
    if method not in ("GET", "HEAD"):
        return _encoded(Answer(405, b"only GET and HEAD\n"), with_body=True)
    route = routes.get(target.partition("?")[0])
    answer = route() if route is not None else Answer(404, f"paths: {' '.join(routes)}\n".encode())
    return _encoded(answer, with_body=method == "GET")


def _encoded(answer: Answer, *, with_body: bool) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}\r\n"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        "Cache-Control: no-store\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + (answer.body if with_body else b"")

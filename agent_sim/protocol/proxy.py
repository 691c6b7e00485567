"""An HTTP CONNECT proxy (RFC 9110, section 9.3.6), as it is named on a command line."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from agent_sim.protocol.errors import EnrollmentError


@dataclass(frozen=True)
class Proxy:
    """Where a proxy is, and how to ask it for a tunnel."""

    host: str
    port: int
    credentials: str = field(default="", repr=False)
    """``user:password``; a secret. Empty where the proxy asks for none."""

    @classmethod
    def parse(cls, url: str) -> Proxy:
        """Take ``http://[user:password@]host:port`` apart. Raises EnrollmentError without the password."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            parts, host, port = urlsplit(""), None, None
        if parts.scheme != "http" or not host or not port or parts.path.strip("/") or parts.query:
            raise EnrollmentError(
                "proxy: expected http://host:port, for example http://proxy.example.com:3128"
            )
        credentials = ""
        if parts.username is not None:
            credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return cls(host, port, credentials)

    def request(self, host: str, port: int) -> bytes:
        """Return the request for a tunnel to ``host`` and ``port``."""
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if self.credentials:
            encoded = base64.b64encode(self.credentials.encode()).decode()
            lines.append(f"Proxy-Authorization: Basic {encoded}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

"""A repository that a test publishes as it likes, behind a web server, and the client's program before it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from fleetwright.verify import tuf_command
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

TOP = ("root", "timestamp", "snapshot", "targets")
DAY = timedelta(days=1)
NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


@cache
def signer(number: int) -> CryptoSigner:
    """The same key for the same number."""
    return CryptoSigner.generate_ecdsa()


class Simulated:
    """A repository. What was published stays as it was; what a test changes is seen once it is published."""

    def __init__(self, now: datetime = NOW) -> None:
        end = now.replace(microsecond=0) + 30 * DAY
        self.signed: dict[str, Any] = {
            "root": Root(expires=end),
            "timestamp": Timestamp(expires=end),
            "snapshot": Snapshot(expires=end, meta={}),
            "targets": Targets(expires=end),
        }
        self.signers: dict[str, list[CryptoSigner]] = {}
        self.published: dict[str, list[bytes]] = {}
        self.artefacts: dict[str, bytes] = {}
        self.asked: list[tuple[str, int | None]] = []
        self.fetched: list[str] = []
        self.with_hashes = False
        self._keys = 0
        for role in TOP:
            self.add_key(role)
        self.publish("root", "targets", "snapshot", "timestamp")

    @property
    def root(self) -> Root:
        root: Root = self.signed["root"]
        return root

    @property
    def snapshot(self) -> Snapshot:
        snapshot: Snapshot = self.signed["snapshot"]
        return snapshot

    @property
    def timestamp(self) -> Timestamp:
        timestamp: Timestamp = self.signed["timestamp"]
        return timestamp

    @property
    def targets(self) -> Targets:
        targets: Targets = self.signed["targets"]
        return targets

    def new_signer(self) -> CryptoSigner:
        """A key that this repository has not used."""
        self._keys += 1
        return signer(self._keys)

    def add_key(self, role: str, delegator: str = "root", key: CryptoSigner | None = None) -> CryptoSigner:
        """Let one more key sign for a role."""
        key = key or self.new_signer()
        self.signed[delegator].add_key(key.public_key, role)
        self.signers.setdefault(role, []).append(key)
        return key

    def set_keys(self, role: str, keys: list[CryptoSigner], threshold: int, sign: list[CryptoSigner]) -> None:
        """Let exactly these keys sign for a role, and have it signed by ``sign``."""
        for key_id in list(self.root.roles[role].keyids):
            self.root.revoke_key(key_id, role)
        for key in keys:
            self.root.add_key(key.public_key, role)
        self.root.roles[role].threshold = threshold
        self.signers[role] = sign

    def rotate(self, role: str) -> None:
        """Give a role another key, and take the ones before away."""
        key = self.new_signer()
        self.set_keys(role, [key], 1, [key])

    def publish(self, *roles: str, version: int | None = None) -> None:
        """Sign the next version of each role, and name it in the role above, which needs its own call."""
        for role in roles:
            signed: Signed = self.signed[role]
            signed.version = version or signed.version + (role in self.published)
            content = self.sealed(role)
            self.published.setdefault(role, []).append(content)
            meta = MetaFile(signed.version)
            if self.with_hashes:
                meta = MetaFile.from_data(signed.version, content, ["sha256"])
            if role == "snapshot":
                self.timestamp.snapshot_meta = meta
            elif role not in ("root", "timestamp"):
                self.snapshot.meta[f"{role}.json"] = meta

    def sealed(self, role: str) -> bytes:
        """Return a role as it is now, signed."""
        metadata = Metadata(self.signed[role])
        for key in self.signers[role]:
            metadata.sign(key, append=True)
        return metadata.to_bytes()

    def delegate(
        self, delegator: str, name: str, *, paths: list[str] | None = None, terminating: bool = False
    ) -> Targets:
        """Let a role speak for paths; it is made where it is new."""
        above: Targets = self.signed[delegator]
        if above.delegations is None:
            above.delegations = Delegations({}, {})
        assert above.delegations.roles is not None
        above.delegations.roles[name] = DelegatedRole(name, [], 1, terminating, paths or ["*"])
        known = self.signers.get(name)
        self.add_key(name, delegator, known[0] if known else None)
        self.signers[name] = self.signers[name][:1]
        made: Targets = self.signed.setdefault(name, Targets(expires=NOW + 30 * DAY))
        return made

    def add(self, role: str, path: str, content: bytes) -> None:
        """Give a role a target."""
        self.signed[role].targets[path] = TargetFile.from_data(path, content, ["sha256"])
        self.artefacts[path] = content

    def give(self, path: str) -> bytes | None:
        """Return what a path of the web server has, and note that it was asked for."""
        kind, _, name = path.partition("/")
        if kind == "targets":
            folder, _, file = name.rpartition("/")
            target = f"{folder}/{file.partition('.')[2]}".lstrip("/")
            self.fetched.append(target)
            return self.artefacts.get(unquote(target))
        number, _, role = name.removesuffix(".json").partition(".")
        if role == "" or not number.isdigit():
            number, role = "", name.removesuffix(".json")
        self.asked.append((role, int(number) if number else None))
        versions = self.published.get(unquote(role), [])
        at = int(number) - 1 if number else len(versions) - 1
        return versions[at] if 0 <= at < len(versions) else None


@dataclass
class Client:
    """The program of the suite's protocol, in its own folder, over HTTP."""

    folder: Path
    url: str
    repository: Simulated
    now: datetime = NOW
    trusted_root: bytes = field(default=b"")

    @property
    def state(self) -> Path:
        return self.folder / "metadata"

    def init(self) -> int:
        root = self.folder / "initial_root.json"
        root.write_bytes(self.trusted_root or self.repository.published["root"][0])
        return self._run("init", root)

    def refresh(self) -> int:
        return self._run("--metadata-url", f"{self.url}/metadata", "refresh")

    def download(self, path: str) -> int:
        return self._run(
            "--metadata-url", f"{self.url}/metadata", "--target-name", path, "--target-dir",
            self.folder / "targets", "--target-base-url", f"{self.url}/targets", "download",
        )  # fmt: skip

    def _run(self, *words: object) -> int:
        arguments = [str(word) for word in ("--metadata-dir", self.state, *words)]
        return tuf_command.run(arguments, lambda: self.now)

    @property
    def downloaded(self) -> list[bytes]:
        """What was downloaded, the oldest first."""
        files = sorted((self.folder / "targets").glob("*"), key=lambda path: path.stat().st_mtime_ns)
        return [path.read_bytes() for path in files]

    @property
    def trusted(self) -> Mapping[str, int]:
        """The version of each role that the client trusts."""
        return {
            path.name.removesuffix(".json"): Metadata.from_file(str(path)).signed.version
            for path in self.state.glob("*.json")
        }

    def content(self, role: str) -> bytes:
        """What the client has of a role."""
        return (self.state / f"{role}.json").read_bytes()


@contextmanager
def served(repository: Simulated, folder: Path) -> Iterator[Client]:
    """Serve a repository on this machine, and give a client that has begun with its first root."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = repository.give(self.path.lstrip("/"))
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base class names it
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        client = Client(folder, f"http://127.0.0.1:{server.server_address[1]}", repository)
        assert client.init() == 0
        assert repository.asked == []
        yield client
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

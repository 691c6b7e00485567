"""An identity store in a folder: one file for the current identity, one for the next."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent_sim.protocol.errors import IdentityError
from agent_sim.protocol.identity import AgentIdentity

_FORMAT = 1
_CURRENT = "identity.json"
_NEXT = "identity-next.json"


class FolderIdentityStore:
    """Keeps each identity in one file, so that key and certificate can never be of two identities.

    Files have mode 0600 in a folder of mode 0700, and are replaced atomically
    and durably: write beside, fsync, rename, fsync the folder. What cannot be
    written is an IdentityError.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def current(self) -> AgentIdentity | None:
        """Return the identity in use, or None before enrolment. Raises IdentityError."""
        return _read(self._folder / _CURRENT)

    def next(self) -> AgentIdentity | None:
        """Return the renewed identity that was not promoted yet, or None. Raises IdentityError."""
        return _read(self._folder / _NEXT)

    def save(self, identity: AgentIdentity) -> None:
        """Make ``identity`` the current one, durably, and forget a next one."""
        self._write(_CURRENT, identity)
        self.discard_next()

    def save_next(self, identity: AgentIdentity) -> None:
        """Keep ``identity`` beside the current one, durably."""
        self._write(_NEXT, identity)

    def promote(self) -> None:
        """Make the next identity the current one, durably."""
        with _writing(self._folder / _CURRENT):
            if (self._folder / _NEXT).exists():
                os.replace(self._folder / _NEXT, self._folder / _CURRENT)
                self._sync_folder()

    def discard_next(self) -> None:
        """Forget the next identity."""
        with _writing(self._folder / _NEXT):
            (self._folder / _NEXT).unlink(missing_ok=True)
            self._sync_folder()

    def _write(self, name: str, identity: AgentIdentity) -> None:
        with _writing(self._folder / name):
            self._replace(name, identity)

    def _replace(self, name: str, identity: AgentIdentity) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = self._folder / f"{name}.{os.getpid()}.new"
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(_encode(identity))
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self._folder / name)
        self._sync_folder()

    def _sync_folder(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = "look at the space and the rights there"
        raise IdentityError(f"{path}: cannot be written ({error.strerror}): {remedy}") from error


def _encode(identity: AgentIdentity) -> bytes:
    def text(pem: bytes) -> str:
        return base64.b64encode(pem).decode()

    fields = {
        "format": _FORMAT,
        "agent_id": identity.agent_id,
        "spiffe_id": identity.spiffe_id,
        "key": text(identity.key_pem),
        "chain": text(identity.chain_pem),
        "trust_bundle": text(identity.trust_bundle_pem),
        "not_before": identity.not_before.isoformat(),
        "not_after": identity.not_after.isoformat(),
        "renew_after": identity.renew_after.isoformat(),
        "agent_addresses": list(identity.agent_addresses),
    }
    return json.dumps(fields, indent=1).encode()


def _read(path: Path) -> AgentIdentity | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise IdentityError(f"{path}: {error.strerror}; run as the user that enrolled") from error
    try:
        return _decode(json.loads(content))
    except (ValueError, KeyError, TypeError) as error:
        raise IdentityError(f"{path}: not an identity of this format; enrol again to replace it") from error


def _decode(fields: dict[str, Any]) -> AgentIdentity:
    if fields["format"] != _FORMAT:
        raise ValueError("format")
    return AgentIdentity(
        agent_id=str(fields["agent_id"]),
        spiffe_id=str(fields["spiffe_id"]),
        key_pem=base64.b64decode(fields["key"], validate=True),
        chain_pem=base64.b64decode(fields["chain"], validate=True),
        trust_bundle_pem=base64.b64decode(fields["trust_bundle"], validate=True),
        not_before=datetime.fromisoformat(fields["not_before"]).astimezone(UTC),
        not_after=datetime.fromisoformat(fields["not_after"]).astimezone(UTC),
        renew_after=datetime.fromisoformat(fields["renew_after"]).astimezone(UTC),
        agent_addresses=tuple(str(address) for address in fields["agent_addresses"]),
    )

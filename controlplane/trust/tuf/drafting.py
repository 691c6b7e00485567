"""Drafts of what the offline roles decide, from what is in force, and what such a document says to a reader.

A holder of a key signs what is told here, and nothing else: the bytes are not for people.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from fleetwright.verify.errors import Malformed
from fleetwright.verify.keys import KEYS_TARGET, PublicKey, parse_keys
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import Key
from tuf.api import exceptions
from tuf.api.metadata import Metadata, Root, Targets

from controlplane.trust.tuf.roles import RepositoryError, RoleKeys
from controlplane.trust.tuf.rotation import draft_root, draft_targets
from controlplane.trust.tuf.state import read

SHORTEST_KEY_ID: Final = 8
"""Digits of a key's id that are enough to name it among those of a role."""

_PUBLIC = re.compile(r"ed25519 ([0-9a-f]{64})\s*")


@dataclass(frozen=True, slots=True)
class RoleChange:
    """What is to be another one of a role: keys that come, ids of keys that go, and how many must sign."""

    add: tuple[PublicKey, ...] = ()
    drop: tuple[str, ...] = ()
    threshold: int | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What a document says. ``roles`` are those that it gives keys: the name, and who may sign."""

    role: str
    version: int
    expires: datetime
    roles: Mapping[str, tuple[int, tuple[str, ...]]]
    signed_by: tuple[str, ...]
    """Ids of the keys whose signatures hold, of those that the document itself lists."""
    unknown_signers: tuple[str, ...]
    """Ids of keys that it does not list: of the root before it, or nobody's."""
    notes: tuple[str, ...] = field(default=())


def public_key_text(key: PublicKey) -> str:
    """Return a public key as its file has it."""
    return f"ed25519 {key.public}\n"


def read_public_key(path: Path) -> PublicKey:
    """Read the file of a public key. Raises ``RepositoryError``."""
    try:
        with path.open("rb") as file:
            text = file.read(1024).decode("ascii", "replace")
    except OSError as error:
        raise RepositoryError(f"{path}: {error.strerror}: name the file of a public key") from None
    found = _PUBLIC.fullmatch(text)
    if found is None:
        raise RepositoryError(
            f"{path}: no public key: name the .pub file that `fleetwright trust key` wrote beside the key"
        )
    try:
        return PublicKey.of(found[1])
    except Malformed as error:
        raise RepositoryError(f"{path}: {error}") from None


def next_root(current: bytes, changes: Mapping[str, RoleChange], expires: datetime) -> bytes:
    """Return the root after ``current``, unsigned, with changes of roles. Raises ``RepositoryError``."""
    root = read(Root, current).signed
    unknown = sorted(changes.keys() - root.roles.keys())
    if unknown:
        raise RepositoryError(f"role {unknown[0]!r}: a root speaks of {', '.join(sorted(root.roles))}")
    return draft_root(
        current, {name: _changed(root, name, change) for name, change in changes.items()}, expires
    )


def _changed(root: Root, name: str, change: RoleChange) -> RoleKeys:
    role = root.roles[name]
    gone = {_only(name, role.keyids, wanted) for wanted in change.drop}
    kept = [_public(root.keys[key_id]) for key_id in role.keyids if key_id not in gone]
    if known := [key.key_id for key in change.add if key.key_id in role.keyids]:
        raise RepositoryError(f"role {name}: the key {known[0][:16]} signs for it already: leave it out")
    keys = (*kept, *change.add)
    threshold = role.threshold if change.threshold is None else change.threshold
    try:
        return RoleKeys(keys, threshold)
    except RepositoryError as error:
        raise RepositoryError(
            f"role {name}: {error}: add keys, drop fewer, or set another threshold"
        ) from None


def _only(name: str, key_ids: Sequence[str], wanted: str) -> str:
    found = [key_id for key_id in key_ids if key_id.startswith(wanted)]
    if len(wanted) < SHORTEST_KEY_ID or len(found) != 1:
        listed = ", ".join(key_id[:16] for key_id in key_ids)
        raise RepositoryError(
            f"role {name}: key {wanted!r}: name one of {listed}, by {SHORTEST_KEY_ID} digits or more"
        )
    return found[0]


def _public(key: Key) -> PublicKey:
    return PublicKey(key.keyid, str(key.keyval.get("public", "")))


def next_targets(
    current: bytes, channels: Mapping[str, PublicKey], key_document: bytes | None, expires: datetime
) -> bytes:
    """Return the targets metadata after ``current``, unsigned. Raises ``RepositoryError``.

    ``channels`` are added, or get another key; ``key_document`` is the next one of the keys that attest.
    """
    keys = {name: RoleKeys((key,)) for name, key in channels.items()}
    return draft_targets(current, keys, key_document, expires)


def longer_attesters(key_document: bytes, expires: datetime) -> bytes:
    """Return the document of the keys that attest, with the same keys until ``expires``.

    Raises ``RepositoryError``.
    """
    try:
        keys = parse_keys(key_document)
    except Malformed as error:
        raise RepositoryError(f"{KEYS_TARGET}: {error}") from None
    end = expires.replace(microsecond=0)
    if early := [one for one in keys.attesters if one.expires >= end]:
        raise RepositoryError(
            f"{KEYS_TARGET}: key {early[0].key.key_id[:16]} holds until {early[0].expires} as it is: take a "
            "later end"
        )
    longer = tuple(replace(one, expires=end) for one in keys.attesters)
    return replace(keys, version=keys.version + 1, attesters=longer).to_bytes()


def tell(document: bytes) -> Told:
    """Return what a document of the role root or targets says. Raises ``RepositoryError``."""
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(document)
    except exceptions.RepositoryError as error:
        raise RepositoryError(f"no TUF metadata: {error}: get it again from who drafted it") from error
    signed = metadata.signed
    own: dict[str, Key] = {}
    notes: tuple[str, ...] = ()
    if isinstance(signed, Root):
        roles = {name: (role.threshold, tuple(role.keyids)) for name, role in signed.roles.items()}
        own = {key_id: signed.keys[key_id] for key_id in roles["root"][1]}
    elif isinstance(signed, Targets):
        delegated = (signed.delegations.roles or {}) if signed.delegations else {}
        roles = {name: (role.threshold, tuple(role.keyids)) for name, role in delegated.items()}
        notes = _released(signed)
    else:
        raise RepositoryError(f"metadata of {signed.type}: only root and targets are signed offline")
    holding = tuple(key_id for key_id in metadata.signatures if _holds(metadata, own.get(key_id)))
    others = tuple(key_id for key_id in metadata.signatures if key_id not in own)
    return Told(signed.type, signed.version, signed.expires, roles, holding, others, notes)


def _released(signed: Targets) -> tuple[str, ...]:
    return tuple(
        f"releases {path}, SHA-256 {file.hashes.get('sha256', 'none')}"
        for path, file in signed.targets.items()
    )


def _holds(metadata: Metadata[Any], key: Key | None) -> bool:
    if key is None:
        return False
    try:
        key.verify_signature(metadata.signatures[key.keyid], metadata.signed_bytes)
    except (UnverifiedSignatureError, VerificationError, InvalidSignature, ValueError):
        return False
    return True

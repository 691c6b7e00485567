"""What people decide with offline keys: other keys, other channels, other attesters.

A document goes from table to table: ``draft_root`` or ``draft_targets`` makes it, ``add_signature`` is called
where each key is, ``accept_root`` or ``accept_targets`` takes it in on the server, once it has the signatures
that it needs. A new root has those of the root before it and its own (specification, 5.3.4 and 5.3.5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from fleetwright.verify.keys import KEYS_TARGET
from tuf.api import exceptions
from tuf.api.metadata import (
    TOP_LEVEL_ROLE_NAMES,
    DelegatedRole,
    Delegations,
    Metadata,
    Root,
    TargetFile,
    Targets,
)
from tuf.api.metadata import Role as RoleDescription

from controlplane.trust.keys import SigningKey
from controlplane.trust.tuf.publishing import Publication, seal, signed_by
from controlplane.trust.tuf.roles import Expiries, OnlineKeys, RepositoryError, RoleKeys, check_channel
from controlplane.trust.tuf.state import RepositoryState, read


def draft_root(current: bytes, roles: Mapping[str, RoleKeys], expires: datetime) -> bytes:
    """Return the next root, unsigned, with other keys for ``roles``. Raises ``RepositoryError``."""
    metadata = read(Root, current)
    unknown = roles.keys() - TOP_LEVEL_ROLE_NAMES
    if unknown:
        raise RepositoryError(
            f"role {sorted(unknown)[0]!r}: a root speaks of {', '.join(sorted(TOP_LEVEL_ROLE_NAMES))}"
        )
    root = metadata.signed
    known = {**root.keys, **{key.key_id: key.library for role in roles.values() for key in role.keys}}
    for name, role in roles.items():
        root.roles[name] = RoleDescription([key.key_id for key in role.keys], role.threshold)
    used = {key_id for description in root.roles.values() for key_id in description.keyids}
    root.keys = {key_id: known[key_id] for key_id in sorted(used)}
    root.version += 1
    return signed_by(metadata, [], expires)


def first_root(roles: Mapping[str, RoleKeys], expires: datetime) -> bytes:
    """Return a root of version 1, unsigned. Raises ``RepositoryError``."""
    root = Root(version=1, expires=expires.astimezone(UTC), consistent_snapshot=True)
    for name, role in roles.items():
        for key in role.keys:
            root.add_key(key.library, name)
        root.roles[name].threshold = role.threshold
    return Metadata(root).to_bytes()


def draft_targets(
    current: bytes | None,
    channels: Mapping[str, RoleKeys],
    attesters: bytes | None,
    expires: datetime,
) -> bytes:
    """Return the next targets metadata, unsigned; version 1 where ``current`` is None.

    ``channels`` are added, or get other keys; none is taken away, because a snapshot that forgets a role is
    what a rollback looks like. ``attesters`` is the new document of keys. Raises ``RepositoryError``.
    """
    metadata = Metadata(Targets(version=1)) if current is None else read(Targets, current)
    targets = metadata.signed
    if current is not None:
        targets.version += 1
    targets.delegations = _delegations(targets.delegations, channels)
    if attesters is not None:
        targets.targets[KEYS_TARGET] = TargetFile.from_data(KEYS_TARGET, attesters, ["sha256"])
    return signed_by(metadata, [], expires)


def add_signature(document: bytes, key: SigningKey) -> bytes:
    """Return the document with one more signature; signing twice with one key is no change.

    Raises ``RepositoryError`` where the document cannot be read.
    """
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(document)
    except exceptions.RepositoryError as error:
        raise RepositoryError(f"the document to sign: {error}: get it again from who drafted it") from error
    metadata.sign(key.signer, append=True)
    return metadata.to_bytes()


def missing_signatures(state: RepositoryState, document: bytes) -> list[str]:
    """Return what a root or targets document still lacks, in words; nothing where it can be accepted.

    Raises ``RepositoryError`` where the document is neither, or is no successor of what the state has.
    """
    if _is_root(document):
        return _root_lacks(state.root, read(Root, document))
    draft = read(Targets, document)
    _check_successor("targets", state.versions["targets"], draft.signed.version)
    result = state.root.get_verification_result("targets", draft.signed_bytes, draft.signatures)
    return [_lack("targets", result)] if result.missing else []


def accept_root(
    state: RepositoryState,
    document: bytes,
    keys: OnlineKeys,
    now: datetime,
    expiries: Expiries,
    targets: bytes | None = None,
) -> Publication:
    """Take in a signed root; ``targets`` is the next targets metadata where the root gives that role other
    keys.

    Snapshot and timestamp are signed again, with ``keys``. Raises ``RepositoryError``.
    """
    _refuse_lacking(_root_lacks(state.root, read(Root, document)))
    after = replace(state, roots=(*state.roots, document), targets=targets or state.targets)
    return seal(state, after, keys, now, expiries)


def accept_targets(
    state: RepositoryState, document: bytes, keys: OnlineKeys, now: datetime, expiries: Expiries
) -> Publication:
    """Take in signed targets metadata. New channels begin empty; each channel is signed with the key it has
    now.

    Raises ``RepositoryError``.
    """
    _refuse_lacking(missing_signatures(state, document))
    delegations = read(Targets, document).signed.delegations
    roles = delegations.roles if delegations and delegations.roles else {}
    if not set(state.channels) <= set(roles):
        raise RepositoryError(
            f"channels {', '.join(state.channels)}: none may go: agents would take it for a rollback"
        )
    channels = {
        name: _channel(state.channels.get(name), role, keys, now, expiries) for name, role in roles.items()
    }
    return seal(state, replace(state, targets=document, channels=channels), keys, now, expiries)


def _channel(
    current: bytes | None, role: DelegatedRole, keys: OnlineKeys, now: datetime, expiries: Expiries
) -> bytes:
    key = keys.channels.get(role.name)
    if key is None or key.key_id not in role.keyids:
        raise RepositoryError(
            f"channel {role.name}: the key for it that was delegated to is not on this server"
        )
    if current is None:
        return signed_by(Metadata(Targets(version=1)), [key], now + expiries.channel)
    metadata = read(Targets, current)
    if key.key_id in metadata.signatures:
        return current
    metadata.signed.version += 1
    return signed_by(metadata, [key], now + expiries.channel)


def _delegations(current: Delegations | None, channels: Mapping[str, RoleKeys]) -> Delegations:
    roles = dict(current.roles) if current is not None and current.roles else {}
    known = dict(current.keys) if current is not None else {}
    for name, role in channels.items():
        key_ids = [key.key_id for key in role.keys]
        # Terminating: what one channel does not release, no other may release in its place.
        roles[check_channel(name)] = DelegatedRole(name, key_ids, role.threshold, True, paths=[f"{name}/*/*"])
        known.update({key.key_id: key.library for key in role.keys})
    used = {key_id for role in roles.values() for key_id in role.keyids}
    return Delegations({key_id: known[key_id] for key_id in sorted(used)}, roles)


def _root_lacks(current: Root, draft: Metadata[Root]) -> list[str]:
    _check_successor("root", current.version, draft.signed.version)
    result = draft.signed.get_root_verification_result(current, draft.signed_bytes, draft.signatures)
    found = [("the root before it", result.first), ("itself", result.second)]
    return [_lack(f"root, by the keys of {whose}", part) for whose, part in found if part.missing]


def _lack(role: str, result: Any) -> str:
    waiting = ", ".join(sorted(key_id[:16] for key_id in result.unsigned))
    have = f"{len(result.signed)} of {result.threshold} signatures"
    return f"role {role}: {have}: sign it with {result.missing} of {waiting}"


def _refuse_lacking(lacking: list[str]) -> None:
    if lacking:
        raise RepositoryError("; ".join(lacking))


def _check_successor(role: str, current: int, version: int) -> None:
    if version != current + 1:
        raise RepositoryError(
            f"role {role}: version {version}, where {current + 1} comes next: draft it again"
        )


def _is_root(document: bytes) -> bool:
    try:
        found: Metadata[Any] = Metadata.from_bytes(document)
    except exceptions.RepositoryError as error:
        raise RepositoryError(f"the signed document: {error}: get it again from who signed it") from error
    return isinstance(found.signed, Root)

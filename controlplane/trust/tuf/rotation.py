"""What people decide with offline keys: other keys, other channels, other attesters.

A document goes from table to table: ``draft_root`` or ``draft_targets`` makes it, ``add_signature`` is called
where each key is, ``accept`` takes it in on the server, once it has the signatures that it needs. A new root
has those of the root before it and its own (specification, 5.3.4 and 5.3.5).
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
from controlplane.trust.tuf.fitting import fitting
from controlplane.trust.tuf.publishing import Publication, seal, signed_by
from controlplane.trust.tuf.roles import Expiries, OnlineKeys, RepositoryError, RoleKeys, check_channel
from controlplane.trust.tuf.state import RepositoryState, Role, read


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


def missing_signatures(
    state: RepositoryState, root: bytes | None = None, targets: bytes | None = None
) -> list[str]:
    """Return what the next root, the next targets metadata, or both together still lack, in words.

    Nothing where they can be accepted. Targets metadata has to be signed by the keys that the role has once
    the root is in force. Raises ``RepositoryError`` where one cannot be read, or is no successor of what the
    state has.
    """
    found: list[str] = []
    ruling = state.root
    if root is not None:
        draft = signed_document(Root, root)
        found += _root_lacks(ruling, draft)
        ruling = draft.signed
    if targets is not None:
        version = signed_document(Targets, targets).signed.version
        _check_successor("targets", state.versions["targets"], version)
    return [*found, *_targets_lack(ruling, state.targets if targets is None else targets, targets is None)]


def _targets_lack(ruling: Root, targets: bytes, in_force: bool) -> list[str]:
    metadata = read(Targets, targets)
    result = ruling.get_verification_result("targets", metadata.signed_bytes, metadata.signatures)
    if not result.missing:
        return []
    if in_force:
        return [
            "role targets: the new root gives it other keys: bring targets metadata that these have signed"
        ]
    return [_lack("targets", result)]


def accept(
    state: RepositoryState,
    keys: OnlineKeys,
    now: datetime,
    expiries: Expiries,
    *,
    root: bytes | None = None,
    targets: bytes | None = None,
) -> Publication:
    """Take in a signed root, signed targets metadata, or both in one step.

    Snapshot and timestamp are signed again, with those of ``keys`` that the root names. New channels begin
    empty; each channel is signed with the key that it has now. Raises ``RepositoryError``.
    """
    _refuse_lacking(missing_signatures(state, root, targets))
    if root is not None:
        _check_end("root", signed_document(Root, root).signed.expires, now)
    if targets is not None:
        _check_end("targets", signed_document(Targets, targets).signed.expires, now)
    after = state
    if root is not None:
        after = replace(after, roots=(*state.roots, root))
    if targets is not None:
        after = replace(after, targets=targets)
    keys = fitting(keys, after)
    if targets is not None:
        after = replace(after, channels=_channels(state, targets, keys, now, expiries))
    return seal(state, after, keys, now, expiries)


def accept_root(
    state: RepositoryState,
    document: bytes,
    keys: OnlineKeys,
    now: datetime,
    expiries: Expiries,
    targets: bytes | None = None,
) -> Publication:
    """Take in a signed root, as ``accept`` does."""
    return accept(state, keys, now, expiries, root=document, targets=targets)


def accept_targets(
    state: RepositoryState, document: bytes, keys: OnlineKeys, now: datetime, expiries: Expiries
) -> Publication:
    """Take in signed targets metadata, as ``accept`` does."""
    return accept(state, keys, now, expiries, targets=document)


def _channels(
    state: RepositoryState, targets: bytes, keys: OnlineKeys, now: datetime, expiries: Expiries
) -> dict[str, bytes]:
    delegations = read(Targets, targets).signed.delegations
    roles = delegations.roles if delegations and delegations.roles else {}
    if not set(state.channels) <= set(roles):
        raise RepositoryError(
            f"channels {', '.join(state.channels)}: none may go: agents would take it for a rollback"
        )
    return {
        name: _channel(state.channels.get(name), role, keys, now, expiries) for name, role in roles.items()
    }


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


def _check_end(role: str, expires: datetime, now: datetime) -> None:
    if expires <= now:
        raise RepositoryError(f"role {role}: it has ended at {expires}: draft it again, for longer")


def signed_document(kind: type[Role], document: bytes) -> Metadata[Role]:
    """Read what somebody brought as metadata of a role. Raises ``RepositoryError``."""
    try:
        found: Metadata[Any] = Metadata.from_bytes(document)
    except exceptions.RepositoryError as error:
        raise RepositoryError(
            f"the {kind.type} document: {error}: get it again from who signed it"
        ) from error
    if not isinstance(found.signed, kind):
        raise RepositoryError(
            f"the {kind.type} document: it is one of {found.signed.type}: take the other file"
        )
    return found

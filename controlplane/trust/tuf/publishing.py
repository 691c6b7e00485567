"""Releasing targets, taking them back, and keeping the metadata current: from one state to the next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from tuf.api.metadata import Metadata, MetaFile, Snapshot, TargetFile, Targets, Timestamp

from controlplane.trust.keys import SigningKey
from controlplane.trust.tuf.roles import Expiries, OnlineKeys, RepositoryError, Target, check_path
from controlplane.trust.tuf.state import TIMESTAMP, RepositoryState, Role, read

RENEW_AT: Final = 3
"""Online metadata is signed again when less than a third of its life is left: a server that was away for most
of it still comes in time."""


@dataclass(frozen=True, slots=True)
class Publication:
    """A state, and the files of it that are new; none where nothing had to change."""

    state: RepositoryState
    files: Mapping[str, bytes]

    @property
    def changed(self) -> bool:
        """Whether there is something to store."""
        return bool(self.files)


def publish(
    state: RepositoryState,
    channel: str,
    targets: Sequence[Target],
    keys: OnlineKeys,
    now: datetime,
    expiries: Expiries,
) -> Publication:
    """Release targets in a channel. What is released already is no change, so that a retry is harmless.

    Raises ``RepositoryError`` for an unknown channel, for a path that is not the channel's, and for one that
    is released with other bytes: a version that agents have installed never means other bytes. A package's
    attestations are the exception.
    """
    metadata = _channel(state, channel)
    released = metadata.signed.targets
    for target in targets:
        check_path(channel, target.path)
        before = released.get(target.path)
        if before is not None and before.hashes.get("sha256") != target.sha256 and not target.is_evidence:
            raise RepositoryError(
                f"target {target.path}: released with SHA-256 {before.hashes.get('sha256')} before: give "
                "other bytes another version"
            )
        released[target.path] = _target_file(target)
    return _with_channel(state, channel, metadata, keys, now, expiries)


def revoke(
    state: RepositoryState,
    channel: str,
    paths: Iterable[str],
    keys: OnlineKeys,
    now: datetime,
    expiries: Expiries,
) -> Publication:
    """Take targets back: agents refuse them from their next refresh on. An unknown one is no change.

    Raises ``RepositoryError`` for an unknown channel.
    """
    metadata = _channel(state, channel)
    for path in paths:
        metadata.signed.targets.pop(path, None)
    return _with_channel(state, channel, metadata, keys, now, expiries)


def refresh(state: RepositoryState, keys: OnlineKeys, now: datetime, expiries: Expiries) -> Publication:
    """Sign again what ends soon. Raises ``RepositoryError``."""
    lives = dict.fromkeys(state.channels, expiries.channel)
    due = [
        name
        for name, life in lives.items()
        if is_due(read(Targets, state.channels[name]).signed.expires, life, now)
    ]
    channels = dict(state.channels)
    for name in due:
        channels[name] = _next(_channel(state, name), _channel_key(keys, name), now, expiries.channel)
    if due or is_due(read(Snapshot, state.snapshot).signed.expires, expiries.snapshot, now):
        return seal(state, replace(state, channels=channels), keys, now, expiries)
    if is_due(read(Timestamp, state.timestamp).signed.expires, expiries.timestamp, now):
        return _stamped(state, state, keys, now, expiries)
    return Publication(state, {})


def leap(
    state: RepositoryState,
    above: Mapping[str, int],
    keys: OnlineKeys,
    now: datetime,
    expiries: Expiries,
) -> Publication:
    """Sign every online role again, each with a version above the one that ``above`` names for it.

    For a repository that was put back from a backup: agents have seen the versions since, and take what comes
    next by counting on for a rollback. Raises ``RepositoryError``.
    """
    before = replace(
        state,
        snapshot=_raised(Snapshot, state.snapshot, above),
        timestamp=_raised(Timestamp, state.timestamp, above),
    )
    channels = {
        name: _next(
            read(Targets, _raised(Targets, content, above, name)),
            _channel_key(keys, name),
            now,
            expiries.channel,
        )
        for name, content in state.channels.items()
    }
    return seal(before, replace(before, channels=channels), keys, now, expiries)


def _raised(kind: type[Role], content: bytes, above: Mapping[str, int], name: str = "") -> bytes:
    metadata = read(kind, content)
    metadata.signed.version = max(metadata.signed.version, above.get(name or kind.type, 0))
    return metadata.to_bytes()


def is_due(expires: datetime, life: timedelta, now: datetime) -> bool:
    """Whether what lives for ``life`` has to be signed again."""
    return expires - now < life / RENEW_AT


def released(state: RepositoryState, channel: str) -> dict[str, Target]:
    """Return what a channel releases, by path. Raises ``RepositoryError`` for an unknown channel."""
    found = _channel(state, channel).signed.targets
    return {
        path: Target(path, file.length, file.hashes.get("sha256", ""), file.custom or {})
        for path, file in found.items()
    }


def seal(
    before: RepositoryState, state: RepositoryState, keys: OnlineKeys, now: datetime, expiries: Expiries
) -> Publication:
    """Make the next snapshot and timestamp for changed targets or channels. Raises ``RepositoryError``."""
    snapshot = read(Snapshot, before.snapshot)
    listed = {
        "targets.json": state.targets,
        **{f"{name}.json": content for name, content in state.channels.items()},
    }
    snapshot.signed.meta = {
        name: MetaFile.from_data(read(Targets, content).signed.version, content, ["sha256"])
        for name, content in listed.items()
    }
    content = _next(snapshot, keys.snapshot, now, expiries.snapshot)
    return _stamped(before, replace(state, snapshot=content), keys, now, expiries)


def _stamped(
    before: RepositoryState, state: RepositoryState, keys: OnlineKeys, now: datetime, expiries: Expiries
) -> Publication:
    timestamp = read(Timestamp, before.timestamp)
    version = read(Snapshot, state.snapshot).signed.version
    timestamp.signed.snapshot_meta = MetaFile.from_data(version, state.snapshot, ["sha256"])
    after = replace(state, timestamp=_next(timestamp, keys.timestamp, now, expiries.timestamp))
    # Found here, a wrong key is an error of this call; found by the agents, it stops the fleet.
    after.check()
    old = before.files()
    return Publication(
        after, {name: content for name, content in after.files().items() if old.get(name) != content}
    )


def _with_channel(
    state: RepositoryState,
    channel: str,
    metadata: Metadata[Targets],
    keys: OnlineKeys,
    now: datetime,
    expiries: Expiries,
) -> Publication:
    if metadata.signed.targets == _channel(state, channel).signed.targets:
        return Publication(state, {})
    content = _next(metadata, _channel_key(keys, channel), now, expiries.channel)
    return seal(state, replace(state, channels={**state.channels, channel: content}), keys, now, expiries)


def _channel(state: RepositoryState, name: str) -> Metadata[Targets]:
    if name not in state.channels:
        raise RepositoryError(f"channel {name!r}: unknown: there are {', '.join(state.channels) or 'none'}")
    return read(Targets, state.channels[name])


def _channel_key(keys: OnlineKeys, name: str) -> SigningKey:
    if name not in keys.channels:
        raise RepositoryError(
            f"channel {name}: its key is not on this server: put it into the folder of online keys"
        )
    return keys.channels[name]


def _next(metadata: Metadata[Role], key: SigningKey, now: datetime, life: timedelta) -> bytes:
    metadata.signed.version += 1
    return signed_by(metadata, [key], now + life)


def signed_by(metadata: Metadata[Role], keys: Iterable[SigningKey], expires: datetime) -> bytes:
    """Return metadata that ends at ``expires``, signed by ``keys`` and nobody else."""
    metadata.signed.expires = expires.astimezone(UTC)
    metadata.signatures.clear()
    for key in keys:
        metadata.sign(key.signer, append=True)
    return metadata.to_bytes()


def _target_file(target: Target) -> TargetFile:
    more = {"custom": dict(target.custom)} if target.custom else {}
    return TargetFile(target.length, {"sha256": target.sha256}, target.path, more)


def file_names(publication: Publication) -> list[str]:
    """Return the names of the new files in the order in which clients may see them: the timestamp last."""
    return sorted(publication.files, key=lambda name: (name == TIMESTAMP, name))

"""Which of a server's online keys the metadata names now.

While a key is changed a server has both, the old one and the new one: which of them signs is what the offline
roles have decided last.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tuf.api.metadata import Targets

from controlplane.trust.keys import SigningKey
from controlplane.trust.tuf.roles import OnlineKeys
from controlplane.trust.tuf.state import RepositoryState, read


def fitting(keys: OnlineKeys, state: RepositoryState) -> OnlineKeys:
    """Return ``keys`` with that one in each place which the state's root and targets metadata name.

    A place for which none is there keeps the key that it has: whoever uses it is told then.
    """
    every = [keys.snapshot, keys.timestamp, *keys.channels.values(), *keys.spare]
    roles, delegations = state.root.roles, read(Targets, state.targets).signed.delegations
    channels = dict(keys.channels)
    for name, role in (delegations.roles or {}).items() if delegations else ():
        if (found := _named(channels.get(name), every, role.keyids)) is not None:
            channels[name] = found
    return replace(
        keys,
        snapshot=_named(keys.snapshot, every, roles["snapshot"].keyids) or keys.snapshot,
        timestamp=_named(keys.timestamp, every, roles["timestamp"].keyids) or keys.timestamp,
        channels=channels,
    )


def fits(keys: OnlineKeys, state: RepositoryState) -> bool:
    """Return whether each online role of the state has its key in its place."""
    roles, delegations = state.root.roles, read(Targets, state.targets).signed.delegations
    delegated = (delegations.roles or {}) if delegations else {}
    return (
        keys.snapshot.key_id in roles["snapshot"].keyids
        and keys.timestamp.key_id in roles["timestamp"].keyids
        and all(
            name in keys.channels and keys.channels[name].key_id in role.keyids
            for name, role in delegated.items()
        )
    )


def _named(
    current: SigningKey | None, every: Iterable[SigningKey], key_ids: Iterable[str]
) -> SigningKey | None:
    wanted = set(key_ids)
    if current is not None and current.key_id in wanted:
        return current
    return next((key for key in every if key.key_id in wanted), None)

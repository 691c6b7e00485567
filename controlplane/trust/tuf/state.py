"""The repository's metadata at one moment, as bytes; and reading it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from fleetwright.verify.keys import KEYS_TARGET
from tuf.api import exceptions
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from controlplane.trust.tuf.roles import RepositoryError

TIMESTAMP: Final = "timestamp.json"
_ROOT = re.compile(r"([1-9][0-9]{0,8})\.root\.json")

Role = TypeVar("Role", Root, Snapshot, Targets, Timestamp)


@dataclass(frozen=True, slots=True)
class RepositoryState:
    """All metadata that is current, and every root that was: agents walk from theirs to the newest."""

    roots: tuple[bytes, ...]
    """From version 1 on, without a gap."""
    targets: bytes
    channels: Mapping[str, bytes]
    """By channel, in the order in which they were delegated to."""
    snapshot: bytes
    timestamp: bytes

    @property
    def root(self) -> Root:
        """The newest root."""
        return read(Root, self.roots[-1]).signed

    @property
    def versions(self) -> dict[str, int]:
        """The version of each role."""
        channels = {name: read(Targets, content).signed.version for name, content in self.channels.items()}
        return {
            "root": len(self.roots),
            "targets": read(Targets, self.targets).signed.version,
            **channels,
            "snapshot": read(Snapshot, self.snapshot).signed.version,
            "timestamp": read(Timestamp, self.timestamp).signed.version,
        }

    def files(self) -> dict[str, bytes]:
        """Return every file by the name under which clients ask for it (consistent snapshots)."""
        versions = self.versions
        named = {f"{number}.root.json": content for number, content in enumerate(self.roots, 1)}
        named[f"{versions['targets']}.targets.json"] = self.targets
        for name, content in self.channels.items():
            named[f"{versions[name]}.{name}.json"] = content
        named[f"{versions['snapshot']}.snapshot.json"] = self.snapshot
        named[TIMESTAMP] = self.timestamp
        return named

    def check(self) -> None:
        """Check that each role is signed as it must be, and that the files name each other.

        Raises ``RepositoryError``. Times are not looked at: what has ended can still be followed by what is
        current.
        """
        targets = read(Targets, self.targets)
        _signed(self.root, "targets", targets)
        for name, content in self.channels.items():
            _signed(targets.signed, name, read(Targets, content))
        snapshot, timestamp = read(Snapshot, self.snapshot), read(Timestamp, self.timestamp)
        _signed(self.root, "snapshot", snapshot)
        _signed(self.root, "timestamp", timestamp)
        named = {file: meta.version for file, meta in snapshot.signed.meta.items()}
        versions = self.versions
        expected = {f"{name}.json": versions[name] for name in ("targets", *self.channels)}
        if named != expected or timestamp.signed.snapshot_meta.version != versions["snapshot"]:
            raise RepositoryError("the metadata is not of one publication: put it back from a backup")


def missing(files: Mapping[str, bytes]) -> list[str]:
    """Return which files, beside all roots, ``load`` needs that are not there.

    Which ones are needed stands in the files themselves: ask again when those are there, until nothing is
    missing. Raises ``RepositoryError`` where one cannot be read.
    """
    if TIMESTAMP not in files:
        return [TIMESTAMP]
    timestamp = read(Timestamp, files[TIMESTAMP])
    snapshot_file = f"{timestamp.signed.snapshot_meta.version}.snapshot.json"
    if snapshot_file not in files:
        return [snapshot_file]
    meta = read(Snapshot, files[snapshot_file]).signed.meta
    named = (f"{file.version}.{name}" for name, file in meta.items())
    return [name for name in named if name not in files]


def load(files: Mapping[str, bytes]) -> RepositoryState:
    """Find the current state among a repository's files, as ``RepositoryState.files`` names them.

    Raises ``RepositoryError`` where one is missing, cannot be read or is not signed as it must be.
    """
    timestamp = read(Timestamp, _file(files, TIMESTAMP))
    snapshot_file = f"{timestamp.signed.snapshot_meta.version}.snapshot.json"
    snapshot = read(Snapshot, _file(files, snapshot_file))
    versions = {file.removesuffix(".json"): meta.version for file, meta in snapshot.signed.meta.items()}
    if "targets" not in versions:
        raise RepositoryError(f"{snapshot_file}: names no targets.json: put it back from a backup")
    targets = _file(files, f"{versions['targets']}.targets.json")
    delegations = read(Targets, targets).signed.delegations
    state = RepositoryState(
        roots=_roots(files),
        targets=targets,
        channels={
            name: _file(files, f"{versions.get(name, 1)}.{name}.json")
            for name in (delegations.roles if delegations and delegations.roles else {})
        },
        snapshot=files[snapshot_file],
        timestamp=files[TIMESTAMP],
    )
    state.check()
    return state


def root_version(content: bytes) -> int:
    """Return the version of a root that its own keys have signed. Raises ``RepositoryError``."""
    root = read(Root, content)
    _signed(root.signed, "root", root)
    return int(root.signed.version)


def check_next_root(current: bytes, following: bytes) -> None:
    """Check that a root may follow another one: the next version, signed by the keys of both.

    The specification's 5.3.4 and 5.3.5. Raises ``RepositoryError``.
    """
    before, after = read(Root, current).signed, read(Root, following)
    if after.signed.version != before.version + 1:
        raise RepositoryError(
            f"root: version {after.signed.version} after {before.version}: put back the right one"
        )
    _signed(before, "root", after)
    _signed(after.signed, "root", after)


def released_keys(targets: bytes) -> str:
    """Return the SHA-256 of the document of attestation keys that targets metadata releases.

    Raises ``RepositoryError``.
    """
    released = read(Targets, targets).signed.targets.get(KEYS_TARGET)
    if released is None:
        raise RepositoryError(
            f"{KEYS_TARGET}: not released: sign targets metadata that has it, with the offline keys"
        )
    return str(released.hashes.get("sha256", ""))


def read(kind: type[Role], content: bytes) -> Metadata[Role]:
    """Read one metadata file. Raises ``RepositoryError``."""
    try:
        found: Metadata[Role] = Metadata.from_bytes(content)
    except exceptions.RepositoryError as error:
        raise RepositoryError(f"{kind.type} metadata: {error}: put it back from a backup") from error
    if not isinstance(found.signed, kind):
        raise RepositoryError(
            f"{found.signed.type} metadata, where {kind.type} is expected: put it back from a backup"
        )
    return found


def _roots(files: Mapping[str, bytes]) -> tuple[bytes, ...]:
    numbers = sorted(int(found[1]) for name in files if (found := _ROOT.fullmatch(name)))
    if not numbers or numbers != list(range(1, len(numbers) + 1)):
        raise RepositoryError(
            f"roots {numbers}: every one from 1.root.json on is needed: put back what is missing"
        )
    roots = tuple(files[f"{number}.root.json"] for number in numbers)
    for number, content in enumerate(roots, 1):
        root = read(Root, content)
        if root.signed.version != number:
            raise RepositoryError(
                f"{number}.root.json: holds version {root.signed.version}: put back the right one"
            )
        if number == 1:
            _signed(root.signed, "root", root)
        else:
            check_next_root(roots[number - 2], content)
    return roots


def _file(files: Mapping[str, bytes], name: str) -> bytes:
    if name not in files:
        raise RepositoryError(f"{name}: missing in the repository's metadata: put it back from a backup")
    return files[name]


def _signed(delegator: Root | Targets, role: str, signed: Metadata[Role]) -> None:
    try:
        delegator.verify_delegate(role, signed.signed_bytes, signed.signatures)
    except (exceptions.RepositoryError, ValueError) as error:
        raise RepositoryError(f"role {role}: {error}: sign it with the keys that the role has now") from error

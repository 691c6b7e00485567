"""Making a repository: the first keys, offline and online apart, and the first metadata.

OFFLINE/root-1.pem ...       keys of root; each goes to another person, or another safe
OFFLINE/targets-1.pem ...    keys of targets, likewise
OFFLINE/root.json            the trusted root: agents get it when they enrol, auditors by another way
ONLINE/keys/                 snapshot.pem, timestamp.pem, channel-<name>.pem, attest-<purpose>.pem; later, any
                             other .pem is a key that the offline roles may name in the place of one of these
ONLINE/metadata/             what clients ask for
ONLINE/targets/trust/        the document of the keys that attest
ONLINE/root.json             the trusted root again
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from fleetwright.verify.keys import KEYS_TARGET, AttestationKeys, Attester, Purpose, parse_keys
from tuf.api.metadata import Metadata, MetaFile, Snapshot, Targets, Timestamp

from controlplane.trust.files import make_folder, move_folder, write_file
from controlplane.trust.keys import SUFFIX, SigningKey, check_passphrase, load_key
from controlplane.trust.tuf.publishing import signed_by
from controlplane.trust.tuf.roles import (
    Expiries,
    OnlineKeys,
    RepositoryError,
    RoleKeys,
    Thresholds,
    check_channel,
)
from controlplane.trust.tuf.rotation import add_signature, draft_targets, first_root
from controlplane.trust.tuf.state import RepositoryState, load, released_keys

TRUSTED_ROOT: Final = "root.json"
KEYS: Final = "keys"
METADATA: Final = "metadata"
TARGETS: Final = "targets"

_ATTEST: Final = "attest-"
_LARGEST: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Initialised:
    """What a ceremony made."""

    offline: Path
    online: Path
    offline_keys: tuple[Path, ...]
    trusted_root: Path
    state: RepositoryState


@dataclass(frozen=True, slots=True)
class Online:
    """What a server reads of its folder when it starts for the first time."""

    keys: OnlineKeys
    attesters: Mapping[Purpose, SigningKey]
    state: RepositoryState
    key_document: bytes
    """The target ``fleetwright.verify.keys.KEYS_TARGET``."""
    trusted_root: bytes


@dataclass(frozen=True, slots=True)
class _Keys:
    root: tuple[SigningKey, ...]
    targets: tuple[SigningKey, ...]
    online: OnlineKeys
    attesters: Mapping[Purpose, SigningKey]


def initialise(
    offline: Path,
    online: Path,
    *,
    now: datetime,
    thresholds: Thresholds,
    expiries: Expiries,
    channels: Sequence[str],
    passphrase: str | None = None,
) -> Initialised:
    """Make all keys and the first metadata, in two folders that do not exist yet.

    ``passphrase`` encrypts the offline keys. Raises ``RepositoryError`` and ``KeyFileError``, and leaves no
    folder half made.
    """
    _check_folders(offline, online)
    if passphrase is not None:
        check_passphrase(passphrase, str(offline))
    if not channels or len(set(channels)) != len(channels):
        raise RepositoryError("channels: name one at least, and each once")
    keys = _generate([check_channel(name) for name in channels], thresholds)
    document = _key_document(keys.attesters, now + expiries.attesters)
    state = _first_state(keys, thresholds, expiries, document, now)
    paths = _store(offline, online, keys, state, document, passphrase)
    return Initialised(offline, online, paths, offline / TRUSTED_ROOT, state)


def load_online(folder: Path) -> Online:
    """Read the folder of a server's keys and metadata. Raises ``RepositoryError`` and ``KeyFileError``."""
    metadata = {path.name: _content(path) for path in sorted((folder / METADATA).glob("*.json"))}
    state = load(metadata)
    keys = folder / KEYS
    document = _content(folder / TARGETS / _hashed(KEYS_TARGET, released_keys(state.targets)))
    parse_keys(document)
    return Online(
        keys=OnlineKeys(
            snapshot=load_key(keys / f"snapshot{SUFFIX}"),
            timestamp=load_key(keys / f"timestamp{SUFFIX}"),
            channels={name: load_key(keys / f"channel-{name}{SUFFIX}") for name in state.channels},
            spare=_spare(keys, state),
        ),
        attesters={purpose: load_key(keys / f"{_ATTEST}{purpose.value}{SUFFIX}") for purpose in Purpose},
        state=state,
        key_document=document,
        trusted_root=_content(folder / TRUSTED_ROOT),
    )


def _spare(keys: Path, state: RepositoryState) -> tuple[SigningKey, ...]:
    placed = {"snapshot", "timestamp", *(f"channel-{name}" for name in state.channels)}
    placed |= {f"{_ATTEST}{purpose.value}" for purpose in Purpose}
    return tuple(load_key(path) for path in sorted(keys.glob(f"*{SUFFIX}")) if path.stem not in placed)


def target_file_name(path: str, sha256: str) -> str:
    """Return under which name clients ask for a target: its digest stands before the file's name."""
    return _hashed(path, sha256)


def _generate(channels: Iterable[str], thresholds: Thresholds) -> _Keys:
    return _Keys(
        root=tuple(SigningKey.generate() for _ in range(thresholds.root_keys)),
        targets=tuple(SigningKey.generate() for _ in range(thresholds.targets_keys)),
        online=OnlineKeys(
            snapshot=SigningKey.generate(),
            timestamp=SigningKey.generate(),
            channels={name: SigningKey.generate() for name in channels},
        ),
        attesters={purpose: SigningKey.generate() for purpose in Purpose},
    )


def _key_document(attesters: Mapping[Purpose, SigningKey], expires: datetime) -> bytes:
    listed = tuple(
        Attester(key.public, frozenset({purpose}), expires.replace(microsecond=0))
        for purpose, key in attesters.items()
    )
    return AttestationKeys(1, listed).to_bytes()


def _first_state(
    keys: _Keys, thresholds: Thresholds, expiries: Expiries, document: bytes, now: datetime
) -> RepositoryState:
    root = first_root(
        {
            "root": _role(keys.root, thresholds.root),
            "targets": _role(keys.targets, thresholds.targets),
            "snapshot": _role([keys.online.snapshot]),
            "timestamp": _role([keys.online.timestamp]),
        },
        now + expiries.root,
    )
    channels = {name: _role([key]) for name, key in keys.online.channels.items()}
    targets = draft_targets(None, channels, document, now + expiries.targets)
    empty = {
        name: signed_by(Metadata(Targets(version=1)), [key], now + expiries.channel)
        for name, key in keys.online.channels.items()
    }
    targets = _signed(targets, keys.targets)
    snapshot = Metadata(Snapshot(version=1))
    snapshot.signed.meta = {
        f"{name}.json": MetaFile.from_data(1, content, ["sha256"])
        for name, content in {"targets": targets, **empty}.items()
    }
    listed = signed_by(snapshot, [keys.online.snapshot], now + expiries.snapshot)
    timestamp = Metadata(Timestamp(version=1, snapshot_meta=MetaFile.from_data(1, listed, ["sha256"])))
    stamp = signed_by(timestamp, [keys.online.timestamp], now + expiries.timestamp)
    state = RepositoryState((_signed(root, keys.root),), targets, empty, listed, stamp)
    state.check()
    return state


def _role(keys: Iterable[SigningKey], threshold: int = 1) -> RoleKeys:
    return RoleKeys(tuple(key.public for key in keys), threshold)


def _signed(document: bytes, keys: Iterable[SigningKey]) -> bytes:
    for key in keys:
        document = add_signature(document, key)
    return document


def _store(
    offline: Path, online: Path, keys: _Keys, state: RepositoryState, document: bytes, passphrase: str | None
) -> tuple[Path, ...]:
    fresh_offline, fresh_online = _beside(offline), _beside(online)
    try:
        names = _write_offline(fresh_offline, keys, state, passphrase)
        _write_online(fresh_online, keys, state, document)
        # Offline first: an online folder without the keys above it could never be given others.
        move_folder(fresh_offline, offline)
        move_folder(fresh_online, online)
    except OSError as error:
        where = error.filename or online
        raise RepositoryError(f"{where}: {error.strerror}: name folders that this user may write") from error
    finally:
        shutil.rmtree(fresh_offline, ignore_errors=True)
        shutil.rmtree(fresh_online, ignore_errors=True)
    return tuple(offline / name for name in names)


def _write_offline(folder: Path, keys: _Keys, state: RepositoryState, passphrase: str | None) -> list[str]:
    names = []
    for role, held in (("root", keys.root), ("targets", keys.targets)):
        for number, key in enumerate(held, 1):
            names.append(f"{role}-{number}{SUFFIX}")
            key.write(folder / names[-1], passphrase)
    write_file(folder / TRUSTED_ROOT, state.roots[0])
    return names


def _write_online(folder: Path, keys: _Keys, state: RepositoryState, document: bytes) -> None:
    held = {"snapshot": keys.online.snapshot, "timestamp": keys.online.timestamp}
    held |= {f"channel-{name}": key for name, key in keys.online.channels.items()}
    held |= {f"{_ATTEST}{purpose.value}": key for purpose, key in keys.attesters.items()}
    for name, key in held.items():
        key.write(folder / KEYS / f"{name}{SUFFIX}")
    make_folder(folder / METADATA)
    for name, content in state.files().items():
        write_file(folder / METADATA / name, content)
    target = folder / TARGETS / _hashed(KEYS_TARGET, hashlib.sha256(document).hexdigest())
    make_folder(target.parent)
    write_file(target, document)
    write_file(folder / TRUSTED_ROOT, state.roots[0])


def _check_folders(offline: Path, online: Path) -> None:
    for folder, other in ((offline, online), (online, offline)):
        if folder.exists() or folder.is_symlink():
            raise RepositoryError(
                f"{folder}: exists already, and keys in it would be lost: name another folder; where an "
                f"interrupted run made it and {other} is not there, remove it first"
            )
        if not folder.absolute().parent.is_dir():
            raise RepositoryError(f"{folder}: {folder.absolute().parent} is no folder: make that first")
    one, two = offline.resolve(), online.resolve()
    if one == two or one in two.parents or two in one.parents:
        raise RepositoryError(f"{offline} and {online}: one is within the other: offline keys stand apart")


def _beside(folder: Path) -> Path:
    fresh = folder.absolute().with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    return fresh


def _hashed(path: str, sha256: str) -> str:
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{sha256}.{name}"


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > _LARGEST:
            raise RepositoryError(f"{path}: larger than any file of a repository: put it back from a backup")
        return path.read_bytes()
    except OSError as error:
        raise RepositoryError(
            f"{path}: {error.strerror}: run `fleetwright trust init`, or name its folder"
        ) from None

"""Making a data folder, more identities, and the server's certificates again."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import re
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from controlplane.callers import is_name
from controlplane.errors import Unavailable
from controlplane.trust.authority import CertificateAuthority, new_key, private_pem
from controlplane.trust.files import make_folder, move_folder, write_file
from controlplane.trust.layout import (
    AGENTS_ROOT,
    OPERATORS_ROOT,
    SERVER_AGENTS,
    SERVER_KEY,
    SERVER_OPERATORS,
    DataFolderError,
    Layout,
    load,
    load_authority,
    read,
)

DEFAULT_TRUST_DOMAIN = "fleetwright.local"
FIRST_OPERATOR = "admin"

SERVER_LIFE = timedelta(days=397)
"""About a year, as publicly trusted servers had it (398 days at most, CA/Browser Forum baseline
requirements 6.3.2); ``refresh_server`` makes new ones in time."""

SERVER_REFRESH = timedelta(days=30)
"""What may be left of the server's certificates when they are made again at a start."""

ADMIN_LIFE = timedelta(days=365)
"""Life of operators' and integrators' certificates: they are carried by hand, not renewed by themselves."""

_TRUST_DOMAIN = re.compile(r"[a-z0-9]([a-z0-9._-]{0,253}[a-z0-9])?")  # SPIFFE-ID, section 2.1
_DNS_NAME = re.compile(r"(\*\.)?[a-zA-Z0-9_]([a-zA-Z0-9_.-]{0,250}[a-zA-Z0-9])?")
_KINDS = ("operator", "integrator")


def default_hosts() -> list[str]:
    """Return the names that every server certificate carries: this machine's own."""
    return ["localhost", "127.0.0.1", "::1", socket.gethostname()]


def init(folder: Path, trust_domain: str, hosts: Sequence[str], now: datetime) -> Path:
    """Make the data folder ``folder`` and return the folder of the first operator's identity.

    ``hosts`` come on top of ``default_hosts``. All is written beside its place and moved
    in when it is whole, so a crash leaves nothing that a second ``init`` could not finish.
    Raises ``DataFolderError`` where the folder is made already, cannot be written, or an
    argument breaks its rule.
    """
    _check_trust_domain(trust_domain)
    names = _host_names(hosts)
    layout = Layout(folder)
    with _writing(folder):
        if layout.trust.exists():
            raise DataFolderError(
                f"{layout.trust}: exists already, and its keys would be lost: use "
                "`fleetwright identities issue` for more identities, or another data folder"
            )
        if layout.identities.exists():
            _finish(layout, trust_domain, names, now)
        else:
            _make(layout, trust_domain, names, now)
    return layout.identity("operator", FIRST_OPERATOR)


def issue_identity(folder: Path, kind: str, name: str, now: datetime) -> Path:
    """Make an operator's or integrator's key and certificate and return their folder.

    Raises ``DataFolderError`` where ``kind`` or ``name`` breaks its rule, the identity
    exists, or the folder is not initialised or cannot be written.
    """
    if kind not in _KINDS:
        raise DataFolderError(f"kind {kind!r}: use one of {', '.join(_KINDS)}")
    _check_name(kind, name)
    layout = Layout(folder)
    target = layout.identity(kind, name)
    if target.exists():
        raise DataFolderError(
            f"{target}: exists already: remove it to issue it again, or choose another name"
        )
    root = load(folder).operators
    with _writing(folder):
        fresh = layout.identities / f".{kind}-{name}.new"
        shutil.rmtree(fresh, ignore_errors=True)
        _write_identity(fresh, root, kind, name, now)
        move_folder(fresh, target)
    return target


def reissue_server(folder: Path, hosts: Sequence[str], now: datetime) -> list[str]:
    """Make the server's certificates again with ``hosts`` added, and return all their names.

    The key stays, so that a crash between the two files leaves both usable. A running
    server reads them when it starts. Raises ``DataFolderError``.
    """
    load(folder)
    trust = Layout(folder).trust
    names = list(dict.fromkeys([*_names_of(_leaf(trust)), *_host_names(hosts)]))
    with _writing(folder):
        _write_server(trust, names, now)
    return names


def refresh_server(folder: Path, now: datetime) -> bool:
    """Make the server's certificates again, with the same names, where they end soon.

    For every start of the server. Returns whether it did. Raises ``DataFolderError``.
    """
    load(folder)
    trust = Layout(folder).trust
    if _leaf(trust).not_valid_after_utc - now > SERVER_REFRESH:
        return False
    with _writing(folder), _alone(trust):
        leaf = _leaf(trust)
        if leaf.not_valid_after_utc - now > SERVER_REFRESH:
            return False  # another process of this folder was first
        _write_server(trust, _names_of(leaf), now)
    return True


def _make(layout: Layout, trust_domain: str, names: Sequence[str], now: datetime) -> None:
    # What an interrupted run left here was never in use: both folders move below, identities first.
    shutil.rmtree(layout.unfinished, ignore_errors=True)
    fresh = Layout(layout.unfinished)
    make_folder(fresh.trust)
    for name, title in ((AGENTS_ROOT, "agents"), (OPERATORS_ROOT, "operators")):
        root = CertificateAuthority.create(f"Fleetwright {title} root", trust_domain, now)
        write_file(fresh.trust / f"{name}.key", root.key_pem)
        write_file(fresh.trust / f"{name}.pem", root.certificate_pem)
    write_file(fresh.trust / SERVER_KEY, private_pem(new_key()))
    _write_server(fresh.trust, names, now)
    operators = load_authority(fresh.trust, OPERATORS_ROOT)
    _write_identity(fresh.identity("operator", FIRST_OPERATOR), operators, "operator", FIRST_OPERATOR, now)
    move_folder(fresh.identities, layout.identities)
    move_folder(fresh.trust, layout.trust)
    layout.unfinished.rmdir()


def _finish(layout: Layout, trust_domain: str, names: Sequence[str], now: datetime) -> None:
    fresh = Layout(layout.unfinished)
    if not fresh.trust.is_dir():
        raise DataFolderError(
            f"{layout.identities}: exists without {layout.trust}: these identities belong to roots that are "
            "gone: move it away, or put the roots back from a backup"
        )
    made_for = load_authority(fresh.trust, AGENTS_ROOT).trust_domain
    if made_for != trust_domain:
        raise DataFolderError(
            f"{layout.root}: an interrupted `fleetwright init` was for trust domain {made_for!r}: finish it "
            f"with that one, or remove {layout.unfinished} and {layout.identities}"
        )
    _write_server(fresh.trust, names, now)
    move_folder(fresh.trust, layout.trust)
    layout.unfinished.rmdir()


def _write_server(trust: Path, names: Sequence[str], now: datetime) -> None:
    key = serialization.load_pem_private_key(read(trust / SERVER_KEY), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise DataFolderError(f"{trust / SERVER_KEY}: not an elliptic-curve key: put it back from a backup")
    for root_name, file_name in ((AGENTS_ROOT, SERVER_AGENTS), (OPERATORS_ROOT, SERVER_OPERATORS)):
        root = load_authority(trust, root_name)
        leaf = root.sign_server(key.public_key(), names, SERVER_LIFE, now)
        write_file(trust / file_name, leaf.pem + root.certificate_pem)


def _write_identity(folder: Path, root: CertificateAuthority, kind: str, name: str, now: datetime) -> None:
    make_folder(folder)
    key = new_key()
    leaf = root.sign_client(key.public_key(), kind, name, ADMIN_LIFE, now)
    write_file(folder / "key.pem", private_pem(key))
    write_file(folder / "cert.pem", leaf.pem)
    write_file(folder / "ca.pem", root.certificate_pem)


def _leaf(trust: Path) -> x509.Certificate:
    path = trust / SERVER_AGENTS
    try:
        return x509.load_pem_x509_certificates(read(path))[0]
    except ValueError as error:
        raise DataFolderError(f"{path}: not a certificate in PEM: put it back from a backup") from error


def _names_of(leaf: x509.Certificate) -> list[str]:
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


def _host_names(hosts: Sequence[str]) -> list[str]:
    for host in hosts:
        if not _is_host(host):
            raise DataFolderError(f"host {host!r}: use a DNS name or an IP address, without a port")
    own = [host for host in default_hosts() if _is_host(host)]
    return list(dict.fromkeys([*own, *hosts]))


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return _DNS_NAME.fullmatch(host) is not None
    return "%" not in host  # a zone index means nothing on another machine


def _check_trust_domain(trust_domain: str) -> None:
    if not _TRUST_DOMAIN.fullmatch(trust_domain):
        raise DataFolderError(
            f"trust domain {trust_domain!r}: use 1 to 255 lower-case letters, digits, dots, hyphens and "
            "underscores, with a letter or digit first and last"
        )


def _check_name(kind: str, name: str) -> None:
    if not is_name(name):
        raise DataFolderError(
            f"{kind} {name!r}: use 1 to 63 lower-case letters, digits and hyphens, with a letter or digit "
            "first and last"
        )


@contextmanager
def _alone(trust: Path) -> Iterator[None]:
    """Let one process at a time into the block."""
    descriptor = os.open(trust, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        make_folder(folder)
        yield
    except Unavailable as error:
        raise DataFolderError(f"{folder}: {error.message}") from error
    except OSError as error:
        raise DataFolderError(
            f"{error.filename or folder}: {error.strerror}: choose a data folder that this user can "
            "write, on a disk with room"
        ) from error

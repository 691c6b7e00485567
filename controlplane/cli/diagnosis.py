"""Why no server answered: gRPC says UNAVAILABLE of an unreachable server, of a wrong root and of an expired
certificate alike, so the connection is tried once more by hand, and what fails is told apart.
"""

from __future__ import annotations

import socket
import ssl
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import grpc
from fleetwright.client import CERTIFICATE_FILE, KEY_FILE, ROOT_FILE
from fleetwright.errors import Failure

from controlplane.cli.failures import CommandFailed, Exit
from controlplane.trust.certificates import Validity, validity

PATIENCE: Final = timedelta(seconds=5)
"""How long each step may take, where a call may take longer."""

# From OpenSSL's x509_vfy.h.
_HOSTNAME_MISMATCH = {62, 64}
_OUT_OF_TIME = {9, 10}


def diagnose(
    server: str, folder: Path, failure: Failure, now: datetime, patience: timedelta = PATIENCE
) -> CommandFailed:
    """Return why the call to ``server`` as the identity in ``folder`` was not answered.

    Takes up to ``patience`` for connecting, and as long for each half of the handshake; nothing else is sent.
    """
    name = f"server {server}"
    own = validity(folder / CERTIFICATE_FILE)
    if not own.begin <= now < own.end:
        return CommandFailed(_out_of_time(folder, own, now), Exit.NOT_ALLOWED, failure.code.name)
    try:
        host, port = _split(server)
        with socket.create_connection((host, port), patience.total_seconds()) as plain:
            found = _handshake(plain, host, folder)
    except OSError as error:
        return CommandFailed(
            f"{name}: {_why(error, patience)}: is it running, and is this the address of its port for "
            "administrators?",
            Exit.UNREACHABLE,
            failure.code.name,
        )
    if found is not None:
        found.message = f"{name}: {found.message}"
        found.code = failure.code.name
        return found
    if failure.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return CommandFailed(
            f"{name}: no answer in time, although it can be reached: give it longer with --timeout",
            Exit.UNREACHABLE,
            failure.code.name,
        )
    return CommandFailed(
        f"{name}: {failure.code.name}: {failure.message or 'no answer'}: it can be reached without gRPC: try "
        "again, and where the environment sets a proxy (https_proxy), name the host in no_proxy",
        Exit.UNREACHABLE,
        failure.code.name,
    )


def _handshake(plain: socket.socket, host: str, folder: Path) -> CommandFailed | None:
    context = ssl.create_default_context(cafile=folder / ROOT_FILE)
    context.load_cert_chain(folder / CERTIFICATE_FILE, folder / KEY_FILE)
    context.set_alpn_protocols(["h2"])
    try:
        with context.wrap_socket(plain, server_hostname=host) as secured:
            # In TLS 1.3 a server judges the client's certificate after the handshake; one that accepts it
            # begins with its HTTP/2 settings.
            accepted = bool(secured.recv(1))
    except ssl.SSLCertVerificationError as error:
        return _not_the_server(error, host, folder)
    except ssl.SSLError as error:
        if "alert" in str(error).lower():
            return _refused(folder)
        return CommandFailed(
            f"no TLS is spoken there ({_words(error)}): is this its port for administrators (7444)?",
            Exit.UNREACHABLE,
        )
    except ConnectionResetError:
        accepted = False
    return None if accepted else _refused(folder)


def _refused(folder: Path) -> CommandFailed:
    return CommandFailed(
        f"it does not accept identity {folder}: another installation issued it, or it is an agent's: name "
        "another one with --identity",
        Exit.NOT_ALLOWED,
    )


def _not_the_server(error: ssl.SSLCertVerificationError, host: str, folder: Path) -> CommandFailed:
    if error.verify_code in _HOSTNAME_MISMATCH:
        text = (
            f"its certificate is not for {host}: use one of its names, or give it this one with "
            "`fleetwright add-host` on its machine"
        )
    elif error.verify_code in _OUT_OF_TIME:
        text = (
            f"its certificate does not hold now ({error.verify_message}): compare the clocks of both "
            "machines, or restart the server, which makes a new one"
        )
    else:
        text = (
            f"its certificate does not descend from the root of identity {folder} ({error.verify_message}): "
            "it is another installation, or not its port for administrators: check --server and --identity"
        )
    return CommandFailed(text, Exit.NOT_ALLOWED)


def _out_of_time(folder: Path, own: Validity, now: datetime) -> str:
    if now < own.begin:
        return f"identity {folder}: its certificate begins at {_second(own.begin)}: is this clock right?"
    return (
        f"identity {folder}: its certificate ended at {_second(own.end)}: have an operator issue a new one "
        "with `fleetwright identities issue`"
    )


def _second(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%SZ}"


def _split(server: str) -> tuple[str, int]:
    host, _, port = server.rpartition(":")
    return host.strip("[]"), int(port)


def _why(error: OSError, patience: timedelta) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer in {patience.total_seconds():g} s"
    if isinstance(error, socket.gaierror):
        return f"the name of the host is not known ({error.strerror})"
    return error.strerror or str(error)


def _words(error: ssl.SSLError) -> str:
    return (error.reason or "it closes the connection").lower().replace("_", " ")

"""What people type as arguments of ``fleetwright-agent``: read, completed, and refused in their words."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import typer

from agent_sim.agent.rules import agent_id_from
from agent_sim.protocol.errors import EnrollmentError
from agent_sim.protocol.identity import AGENT_ID_PATTERN
from agent_sim.protocol.proxy import Proxy
from agent_sim.protocol.root_fetch import split_address

TOKEN_VARIABLE = "FLEETWRIGHT_JOIN_TOKEN"  # noqa: S105 - the name of a variable, not a token

_TOKEN_BYTES = 4096


def host_and_port(text: str, option: str, default_port: int | None = None) -> str:
    """Return ``text`` as host:port, with ``default_port`` where it names none."""
    candidate = text.strip()
    bare_v6 = candidate.count(":") > 1 and not candidate.startswith("[")
    if bare_v6:
        candidate = f"[{candidate}]"
    if default_port is not None and (candidate.endswith("]") or ":" not in candidate):
        candidate = f"{candidate}:{default_port}"
    try:
        split_address(candidate)
    except EnrollmentError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error
    return candidate


def check_proxy(url: str | None) -> None:
    """Refuse what is no URL of a proxy; None is none. Raises typer.BadParameter."""
    if url is not None:
        try:
            Proxy.parse(url)
        except EnrollmentError as error:
            raise typer.BadParameter(str(error), param_hint="--http-proxy") from error


def chosen_agent_id(given: str | None) -> tuple[str, bool]:
    """Return the agent id, and whether it was made of the host's name."""
    if given is None:
        derived = agent_id_from(socket.gethostname())
        if not derived:
            raise typer.BadParameter(
                f"the host's name {socket.gethostname()!r} has no letter or digit to make one of; give one",
                param_hint="--agent-id",
            )
        return derived, True
    if not AGENT_ID_PATTERN.fullmatch(given):
        suggestion = agent_id_from(given)
        raise typer.BadParameter(
            f"{given!r}: use 1 to 63 lower-case letters, digits and hyphens, a letter or digit first and "
            "last" + (f", for example {suggestion}" if suggestion else ""),
            param_hint="--agent-id",
        )
    return given, False


def join_token(file: Path | None, given: str | None) -> str:
    """Return the join token; a file beats the environment, and two arguments are one too many."""
    if file is None:
        if not given:
            raise typer.BadParameter(
                f"a join token is needed: name a file, or set {TOKEN_VARIABLE}; an administrator makes one",
                param_hint="--token-file",
            )
        return given
    if given and given != os.environ.get(TOKEN_VARIABLE):
        raise typer.BadParameter("give the token or a file with it, not both", param_hint="--token-file")
    try:
        if str(file) == "-":
            return sys.stdin.read(_TOKEN_BYTES).strip()
        with file.open(encoding="utf-8") as opened:
            return opened.read(_TOKEN_BYTES).strip()
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{file}: not a text file", param_hint="--token-file") from None
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}", param_hint="--token-file") from None

"""What else the environment says, and what is wrong with what it says."""

from __future__ import annotations

import os

from pydantic import SecretStr, ValidationError

from controlplane.settings.client import ClientSettings
from controlplane.settings.server import Settings


def silence_grpc(*, keep_errors: bool) -> None:
    """Keep gRPC's own lines off standard error, unless the environment says how much of them is wanted.

    Works only before ``grpc`` is imported.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR" if keep_errors else "NONE")


def notify_socket() -> str | None:
    """Return where a service manager that started this process is to be told of its state: sd_notify(3)."""
    return os.environ.get("NOTIFY_SOCKET")


def unknown_variables() -> list[str]:
    """Return environment variables that look like settings and are none: most often a misspelt name."""
    fields = Settings.model_fields | ClientSettings.model_fields
    known = {f"FLEETWRIGHT_{name.upper()}" for name in fields}
    return sorted(name for name in os.environ if name.startswith("FLEETWRIGHT_") and name not in known)


def explain(error: ValidationError) -> str:
    """Return what is wrong with the settings, a line each, by the name of the variable."""
    lines = []
    for problem in error.errors(include_url=False):
        field = str(problem["loc"][0]) if problem["loc"] else ""
        name = f"FLEETWRIGHT_{field.upper()}" if field else "settings"
        secret = field in Settings.model_fields and Settings.model_fields[field].annotation is SecretStr
        given = f" (it is {problem['input']!r})" if field and not secret else ""
        lines.append(f"{name}: {problem['msg']}{given}")
    return "\n".join(lines)

"""The policy file: what this host's owner lets a server ask for.

It lies on the host's own disk, and nothing that a server sends can change it.
Reading it is strict: an unknown key is an error that names it, because a
misspelt restriction would otherwise be no restriction.
"""

from __future__ import annotations

import json
import os
import reprlib
import stat
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from agent_sim.agent.rules import InstallRules, ScriptRules

POLICY_FILE = "policy.toml"

# The owner of a host may grant less than the contract's limits (work.proto), not more.
_MAX_OUTPUT_BYTES = 16 << 20
_MAX_SCRIPT_SECONDS = 86_400

# A policy is written by a person; anything larger is not one.
_MAX_FILE_BYTES = 1 << 20


class PolicyError(Exception):
    """The policy file cannot be used; the text names the file, the key and the remedy."""


def _absolute(path: str) -> str:
    if not path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise ValueError(f"{path!r} must be an absolute path without '..'")
    return path


def _pattern(pattern: str) -> str:
    _absolute(pattern)
    if any("**" in part and part != "**" for part in PurePosixPath(pattern).parts):
        raise ValueError(f"{pattern!r}: '**' must stand alone between slashes, as in /var/log/**")
    return pattern


AbsolutePath = Annotated[str, AfterValidator(_absolute)]
PathPattern = Annotated[str, AfterValidator(_pattern)]
InterpreterName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$")]
ChannelName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
TaskKind = Literal["inventory", "script", "logs", "echo", "install"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ScriptSection(_Section):
    """``[script]``: with what, and as whom, scripts may run."""

    interpreters: dict[InterpreterName, AbsolutePath] = Field(default_factory=dict)
    users: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = ()
    denied_environment: tuple[Annotated[str, Field(min_length=1, max_length=128)], ...] = ("LD_*",)


class LogsSection(_Section):
    """``[logs]``: which files may be read, as patterns of their resolved paths."""

    paths: tuple[PathPattern, ...] = ()


class InstallSection(_Section):
    """``[install]``: which packages may be installed, by whose word, and where."""

    trusted_root: AbsolutePath | None = None
    channels: tuple[ChannelName, ...] = ()
    prefix: AbsolutePath | None = None
    dpkg: bool = False
    commands_as: Annotated[str, Field(max_length=64)] = ""


class LimitsSection(_Section):
    """``[limits]``: the most that one task, and all of them together, may take."""

    script_time_seconds: int = Field(default=3600, ge=1, le=_MAX_SCRIPT_SECONDS)
    output_bytes: int = Field(default=_MAX_OUTPUT_BYTES, ge=0, le=_MAX_OUTPUT_BYTES)
    log_bytes: int = Field(default=_MAX_OUTPUT_BYTES, ge=0, le=_MAX_OUTPUT_BYTES)
    log_scan_bytes: int = Field(default=256 << 20, ge=1)
    package_bytes: int = Field(default=4 << 30, ge=1)
    concurrent_tasks: int = Field(default=4, ge=1, le=256)


class Policy(_Section):
    """A policy file. What it leaves out is forbidden, apart from limits, which have defaults."""

    task_kinds: tuple[TaskKind, ...]
    script: ScriptSection = Field(default_factory=ScriptSection)
    logs: LogsSection = Field(default_factory=LogsSection)
    install: InstallSection | None = None
    limits: LimitsSection = Field(default_factory=LimitsSection)

    @model_validator(mode="after")
    def _installs_by_a_root(self) -> Policy:
        if "install" in self.task_kinds and self.install is None:
            raise ValueError("task_kinds lists 'install': add a section [install] with the channels")
        return self

    def script_rules(self) -> ScriptRules:
        """Return what the policy says of scripts, for the decision."""
        return ScriptRules(
            interpreters=self.script.interpreters,
            users=frozenset(self.script.users),
            denied_environment=self.script.denied_environment,
            max_time=timedelta(seconds=self.limits.script_time_seconds),
            max_output_bytes=self.limits.output_bytes,
        )

    def install_rules(self) -> InstallRules | None:
        """Return what the policy says of packages; None where none may be installed."""
        section = self.install
        if section is None or "install" not in self.task_kinds:
            return None
        return InstallRules(
            trusted_root=Path(section.trusted_root) if section.trusted_root is not None else None,
            channels=section.channels,
            prefix=Path(section.prefix) if section.prefix is not None else None,
            dpkg=section.dpkg,
            commands_as=section.commands_as,
            max_bytes=self.limits.package_bytes,
        )


def parse_policy(text: str, source: str) -> Policy:
    """Read a policy from TOML; raises ``PolicyError`` that names ``source`` and every wrong key."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"{source}: not TOML: {error}") from error
    try:
        # Through JSON, because in pydantic's strict mode only JSON's arrays may become tuples.
        return Policy.model_validate_json(json.dumps(document, default=str))
    except ValidationError as error:
        raise PolicyError(f"{source}: " + "; ".join(_problems(error))) from error


def _problems(error: ValidationError) -> list[str]:
    problems = []
    for item in error.errors(include_url=False, include_context=False):
        key = ".".join(str(part) for part in item["loc"]) or "(the file)"
        if item["type"] == "extra_forbidden":
            problems.append(f"{key}: unknown key; remove it or correct its spelling")
        elif item["type"] == "missing":
            problems.append(f"{key}: must be set")
        else:
            problems.append(
                f"{key} = {reprlib.repr(item['input'])}: {item['msg'].removeprefix('Value error, ')}"
            )
    return problems


def load_policy(path: Path, *, uid: int) -> Policy:
    """Read the policy at ``path`` for an agent that runs as ``uid``.

    Raises ``PolicyError`` where it is missing, not well formed, or where someone
    besides root and the agent's own user could have written it.
    """
    try:
        with path.open("rb") as file:
            _check_owner(path, os.fstat(file.fileno()), uid)
            raw = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise PolicyError(
            f"{path}: no policy file; without one nothing is allowed. `fleetwright-agent enroll` "
            "writes a default, or name another one with --policy"
        ) from error
    except OSError as error:
        raise PolicyError(f"{path}: cannot be read: {error.strerror}") from error
    if len(raw) > _MAX_FILE_BYTES:
        raise PolicyError(f"{path}: larger than {_MAX_FILE_BYTES} bytes; this is not a policy file")
    try:
        return parse_policy(raw.decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise PolicyError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from error


def _check_owner(path: Path, status: os.stat_result, uid: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise PolicyError(f"{path}: not a regular file")
    if status.st_uid not in (0, uid):
        raise PolicyError(
            f"{path}: owned by uid {status.st_uid}, who could widen it; run `chown {uid} {path}` "
            "after you have read it"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PolicyError(
            f"{path}: mode {stat.S_IMODE(status.st_mode):04o} lets others change it; run `chmod go-w {path}` "
            "after you have read it"
        )


# Where a default policy looks for interpreters: system folders only, never the PATH of whoever enrols.
_INTERPRETERS: Mapping[str, tuple[str, ...]] = {
    "sh": ("/bin/sh", "/usr/bin/sh"),
    "bash": ("/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash"),
    "python3": ("/usr/bin/python3", "/usr/local/bin/python3"),
}

_DEFAULT = """\
# What a Fleetwright server may ask of this host. The server cannot change or widen this file;
# what it does not name is refused, and each refusal says which entry here refused it.
# It must belong to root or to the user that the agent runs as, and no one else may write it.
# The agent reads it when it starts: restart the agent after a change.

# Kinds of work: "inventory", "logs", "script", "echo", "install". Remove "script" to let no code in that
# nobody signed; "install" needs the section [install] below.
task_kinds = ["inventory", "logs", "script", "echo"]

[script]
# Users that scripts may run as. "@agent" is the user that the agent itself runs as: where that is
# root, so is every script. To prevent it, put accounts here instead, for example ["deploy"];
# the agent must then run as root to become them, and each script must name one.
users = ["@agent"]

# Variables that a server may not set, with * and ? as in file names. LD_* would load foreign code
# into the interpreters below.
denied_environment = ["LD_*"]

# Name that a server uses = program that runs.
[script.interpreters]
{interpreters}
[logs]
# Files that may be read. * and ? stay within a folder, ** stands for any number of folders.
# They are compared with where a file really is, after every symbolic link: a link that leads out of
# /var/log is refused, and where /var/log is itself a link, write its target here.
paths = ["/var/log/**"]

# [install]
# All trust in packages begins at the repository's root. Without a line here it is the one that came when this
# host was enrolled, trusted-root.json in the state folder: then who ran that server on that day is believed.
# With a file of your own, got from whoever holds the offline keys and compared, not even that is. Only root
# and the agent's user may be able to write it.
# trusted_root = "/etc/fleetwright/root.json"
# Channels that packages may come from.
# channels = ["stable"]
# Where packages of files go; without it there are none. Commands are linked in its folder bin.
# prefix = "/opt/fleetwright-packages"
# Whether a .deb may be given to dpkg, which runs its scripts as root. The agent must be root for it.
# dpkg = false
# As whom a package's own command may run where its manifest finds out by one whether it works: "@agent"
# or an account. Without it such packages are refused.
# commands_as = "nobody"

[limits]
# The most that a script may ask for. One that asks for more is refused; one that says nothing gets
# five minutes, or less where this is less.
script_time_seconds = 3600
# The most output of one script, and the most of one log, in bytes; 16777216 is the most there is.
output_bytes = 16777216
log_bytes = 16777216
# How much of the end of a log is searched for a text, in bytes.
log_scan_bytes = 268435456
# The largest package file, in bytes.
package_bytes = 4294967296
# How many tasks run at the same time; the others wait.
concurrent_tasks = 4
"""


def default_policy() -> str:
    """Return the policy that ``enroll`` writes, with the interpreters that this host has."""
    lines = []
    for name, candidates in _INTERPRETERS.items():
        found = next((path for path in candidates if os.access(path, os.X_OK)), None)
        lines.append(
            f'{name} = "{found}"\n' if found else f'# {name} = "{candidates[0]}"  # not found here\n'
        )
    return _DEFAULT.format(interpreters="".join(lines))


def write_default_policy(path: Path) -> bool:
    """Write the default policy unless there is a file already; tell whether it was written.

    Raises ``OSError``. An owner's own policy is never replaced, also not when an agent enrols again.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(default_policy())
        file.flush()
        os.fsync(file.fileno())
    return True
